//! What can be wrong with a definition before any row is read. Every message says what to do.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sluice_core::config::field::{ColumnField, Conflict, Field, Fields};
use sluice_core::config::sync::{OnDelete, Sync};

use crate::catalog::{Kind, Table};
use crate::module::{Create, Module};
use crate::value;

/// Something about a definition that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// Where in the configuration: `syncs.customers.fields.email`.
    pub at: String,
    /// What is wrong and what to do about it.
    pub message: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The sync works, but perhaps not as expected.
    Warning,
    /// The sync cannot run.
    Error,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.at, self.message)
    }
}

/// Collects the findings of one sync.
pub(super) struct Findings {
    sync: String,
    found: Vec<Finding>,
}

impl Findings {
    pub(super) fn of(sync: &str) -> Self {
        Self { sync: sync.to_owned(), found: Vec::new() }
    }

    pub(super) fn error(&mut self, at: &str, message: String) {
        self.push(Level::Error, at, message);
    }

    pub(super) fn warning(&mut self, at: &str, message: String) {
        self.push(Level::Warning, at, message);
    }

    pub(super) fn any_error(&self) -> bool {
        self.found.iter().any(|finding| finding.level == Level::Error)
    }

    pub(super) fn into_vec(self) -> Vec<Finding> {
        self.found
    }

    fn push(&mut self, level: Level, at: &str, message: String) {
        let finding = Finding { level, at: format!("syncs.{}.{at}", self.sync), message };
        if !self.found.contains(&finding) {
            self.found.push(finding);
        }
    }
}

/// What can be judged without the database.
pub(super) fn settings(sync: &Sync, module: &Module, findings: &mut Findings) {
    if !sync.direction.pushes() {
        return;
    }
    match module.push_target() {
        Ok(None) => {}
        Ok(Some(odd)) => findings.warning("module", odd),
        // the rest of what could be said depends on what the module is
        Err(impossible) => return findings.error("module", impossible),
    }
    if sync.fields.is_empty() {
        findings.error("fields", "nothing is mapped, so there is nothing to push".to_owned());
    }
    if let Some(level) = module.level().filter(|level| sync.fields.contains_key(*level) && !sync.direction.pulls()) {
        let message = format!(
            "Zoho takes no level, only the difference to the one that it has, which must be read: set direction to \"both\", or remove `{level}`"
        );
        findings.error(&format!("fields.{level}"), message);
    }
    paths_do_not_collide(&sync.fields, module, findings);
    if let Some(reference) = sync.reference.as_ref().filter(|reference| sync.fields.contains_key(*reference)) {
        findings.error("reference", format!("`{reference}` is mapped as well; our reference needs a field of its own"));
    }
    for field in sync.match_on.iter().filter(|field| !sync.fields.contains_key(*field)) {
        findings.error("match_on", format!("`{field}` is not among `fields`, so there is no local value to match by"));
    }
    if sync.creates {
        create_way(sync, module, findings);
    }
    delete_policy(sync, module, findings);
}

fn create_way(sync: &Sync, module: &Module, findings: &mut Findings) {
    let usual = module.facts.reference.filter(|field| !sync.fields.contains_key(*field));
    let reference = sync.reference.as_deref().or(usual);
    if module.create(|field| sync.fields.contains_key(field), reference, &sync.match_on) != Create::Parked {
        return;
    }
    match module.facts.duplicate_check {
        Some(system) => findings.error(
            "reference",
            format!(
                "a create whose answer is lost could double: name in `reference` a text field of {module} that is marked unique, or in \
                 `match_on` fields that upsert checks ({system}, or ones marked unique)"
            ),
        ),
        None => findings.warning(
            "reference",
            format!("Zoho offers no way to find a new record of {module} again, so a create whose answer is lost waits for a person"),
        ),
    }
}

fn delete_policy(sync: &Sync, module: &Module, findings: &mut Findings) {
    match sync.on_delete {
        OnDelete::Mark if sync.mark.is_empty() => findings.error("mark", "on_delete = \"mark\" needs the fields to set".to_owned()),
        OnDelete::Void if !module.facts.void => findings.error("on_delete", format!("{module} cannot be voided; use mark or delete")),
        OnDelete::Delete if !module.facts.delete => findings.error("on_delete", format!("{module} cannot be deleted; use mark")),
        OnDelete::Ignore | OnDelete::Mark | OnDelete::Void | OnDelete::Delete => {}
    }
}

/// A row whose Zoho record is gone is marked through the mapping: what leads to no column of its own marks nothing.
pub(super) fn marks(sync: &Sync, findings: &mut Findings) {
    if sync.on_delete != OnDelete::Mark || !sync.direction.pulls() {
        return;
    }
    for (name, value) in &sync.mark {
        let known = |field: &ColumnField| {
            let says = |meaning: &Value| value::scalar_text(meaning) == value::scalar_text(value);
            field.values.is_empty() || value.is_null() || field.values.values().any(|one| says(one.sent()) || one.read().iter().any(says))
        };
        match sync.fields.get(name) {
            Some(Field::Column(field)) if known(field) => {}
            Some(Field::Column(field)) => findings.error(
                &format!("mark.{name}"),
                format!(
                    "{value} is not among the `values` of `{name}`, so a row whose Zoho record is gone could not say so in `{}`",
                    field.column
                ),
            ),
            _ => findings.error(
                &format!("mark.{name}"),
                format!("a row whose Zoho record is gone is marked through the mapping: map `{name}` to a column, or name a field that is"),
            ),
        }
    }
}

/// `a` and `a.b` cannot both be set, and `custom_fields` is ours to build where `cf_…` fields travel in it.
fn paths_do_not_collide(fields: &Fields, module: &Module, findings: &mut Findings) {
    for path in fields.keys() {
        let parents = path.match_indices('.').map(|(end, _)| &path[..end]);
        for parent in parents.filter(|parent| fields.contains_key(*parent)) {
            findings.error(&format!("fields.{path}"), format!("`{parent}` is mapped as a whole already"));
        }
        if path.split('.').any(str::is_empty) {
            findings.error(&format!("fields.{path}"), "a dot needs a name on both sides".to_owned());
        }
    }
    let nested = module.nests_custom_fields() && fields.keys().any(|path| path.starts_with("cf_"));
    if nested && fields.contains_key("custom_fields") {
        findings.error("fields.custom_fields", "map either `custom_fields` or single `cf_…` fields".to_owned());
    }
}

/// The columns that fields name exist and can be sent.
pub(super) fn columns(sync: &Sync, table: &Table, findings: &mut Findings) {
    for (path, field) in &sync.fields {
        let at = format!("fields.{path}");
        if let Field::List(list) = field
            && list.item.values().chain(list.or_else.values()).any(|inner| matches!(inner, Field::List(_)))
        {
            findings.error(&at, "a list cannot hold a list; make it json in `each`".to_owned());
        }
        let own: BTreeMap<&str, &Field> = match field {
            Field::List(list) => list.or_else.iter().map(|(name, field)| (name.as_str(), field)).collect(),
            other => [("", other)].into(),
        };
        for column in own.values().filter_map(|field| field.own_column()) {
            match table.column(column) {
                None => findings.error(&at, unknown_column(column, &table.name, &table.column_names())),
                Some(found) if matches!(field, Field::File(_)) => {
                    if found.base_type != "bytea" {
                        findings.error(&at, format!("`{column}` is {}; a file goes into a column of type bytea", found.type_name));
                    }
                }
                Some(found) if found.base_type == "bytea" => {
                    findings.error(
                        &at,
                        format!("`{column}` is bytea, which has no text to send; use sql = \"encode(this.{column}, 'base64')\""),
                    );
                }
                Some(_) => {}
            }
        }
    }
}

/// The columns that a pull fills exist.
pub(super) fn pulled_columns(sync: &Sync, table: &Table, findings: &mut Findings) {
    for column in sync.columns.keys().filter(|column| table.column(column).is_none()) {
        findings.error(&format!("columns.{column}"), unknown_column(column, &table.name, &table.column_names()));
    }
}

pub(super) fn unknown_column(column: &str, table: &str, columns: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown: Vec<&str> = columns.iter().take(SHOWN).map(String::as_str).collect();
    let rest = if columns.len() > SHOWN { ", …" } else { "" };
    format!("`{table}` has no column `{column}`; it has {}{rest}", shown.join(", "))
}

/// A key that is not unique would make two rows one record.
pub(super) fn key_is_unique(sync: &Sync, table: &Table, findings: &mut Findings) {
    let key = sync.key.columns();
    let covered = table.unique.iter().any(|unique| unique.iter().all(|column| key.contains(column)));
    if !covered && matches!(table.kind, Kind::Table | Kind::Partitioned) {
        findings.warning("key", format!("no unique index covers {}; rows that share a key are refused when they are read", key.join(", ")));
    }
}

/// What the database takes for equal and writes differently is one record only where its canonical form is known.
pub(super) fn key_has_one_form(sync: &Sync, table: &Table, findings: &mut Findings) {
    for column in sync.key.columns().iter().filter_map(|name| table.column(name)) {
        let several = !column.deterministic || column.base_type == "jsonb" || column.base_type.starts_with('_');
        if several && column.base_type != "citext" {
            let name = &column.name;
            findings.warning(
                "key",
                format!(
                    "values of `{name}` can be equal and written differently (its type or collation allows it): a record has the key as its row writes it, and a job, \
                     a reference or a watch that writes it otherwise becomes a dead letter. A column of a plain type and a deterministic collation has no such keys"
                ),
            );
        }
    }
}

/// A view has no capture trigger.
pub(super) fn changes_are_seen(sync: &Sync, table: &Table, findings: &mut Findings) {
    if sync.direction.pushes() && sync.watch.is_empty() && matches!(table.kind, Kind::View | Kind::Foreign) {
        findings.warning(
            "watch",
            format!("changes of `{}` are not captured: add a `watch` on its tables, else only schedules and triggers push it", table.name),
        );
    }
    let both = sync.direction.pushes() && sync.direction.pulls();
    if both && sync.conflict == Conflict::Newest && matches!(table.kind, Kind::View | Kind::Foreign) {
        findings.warning(
            "conflict",
            format!("when a row of `{}` was edited is not captured, so of two edits of a field Zoho's stands: choose \"local\", \"zoho\" or \"manual\"", table.name),
        );
    }
}
