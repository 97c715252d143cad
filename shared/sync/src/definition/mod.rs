//! A sync compiled against the database: the configured mapping, the table's real columns and types, and what is known of the Zoho
//! module. Everything that is wrong is found here, all at once; what compiles can be read and planned without surprises.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::field::{Field, Fields};
use sluice_core::config::sync::{Sync, Watch as WatchConfig};
use sluice_core::db::dynamic::{Ident, Sql};

use crate::catalog::{Catalog, Column, Table};
use crate::link::Link;
use crate::link::agreed::field_in;
use crate::module::{Create, Module};
use crate::value;

mod check;
mod rows;
mod words;

pub use check::{Finding, Level};
pub use rows::Rows;
pub use words::Columns;

/// One sync, ready to be read and planned.
#[derive(Debug, Clone)]
pub struct Definition {
    /// The sync as configured.
    pub sync: Sync,
    /// The Zoho module and what is known about it.
    pub module: Module,
    /// The table or view.
    pub table: Table,
    /// The key columns in their order.
    pub key: Vec<KeyColumn>,
    /// For each sync that a `ref` names: the type of its key, to which the referring column is cast.
    pub parents: BTreeMap<String, KeyColumn>,
    /// The watched tables.
    pub watches: Vec<Watch>,
    rows: BTreeMap<String, Rows>,
    hash: String,
    relevant: Columns,
}

/// A key column and its type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyColumn {
    /// The column's name, unquoted.
    pub name: String,
    /// What a key's text is cast to and back, as in `sluice.sync.key_types`.
    pub type_name: String,
    /// The type below domains as a quoted name, to which a cast loses nothing.
    pub type_ident: Ident,
    /// The schema of the same type, quoted.
    pub type_schema: Ident,
    /// Its own name: `int8`.
    pub base_type: String,
    /// As in [`Column::numeric_modifier`].
    pub numeric_modifier: Option<i32>,
}

impl KeyColumn {
    /// Adds the operator `=` of the column's type. That of `citext` is named with its schema: where that is not on the search path, texts would be
    /// compared, and `Abc` would not be found as `abc`.
    pub fn equals(&self, sql: Sql) -> Sql {
        self.operator(sql, "=")
    }

    /// The same for another operator.
    pub(crate) fn operator(&self, sql: Sql, operator: &'static str) -> Sql {
        if self.base_type == "citext" {
            sql.text(" operator(").ident(&self.type_schema).text(".").text(operator).text(") ")
        } else {
            sql.text(" ").text(operator).text(" ")
        }
    }

    fn of(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            type_name: column.type_name.clone(),
            type_ident: Ident::qualified(&column.type_schema, &column.base_type),
            type_schema: Ident::name(&column.type_schema),
            base_type: column.base_type.clone(),
            numeric_modifier: column.numeric_modifier,
        }
    }
}

/// Another table whose changes concern this sync's records.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The table's name as configured: what `sluice.change.relation` says.
    pub relation: String,
    /// The table.
    pub table: Table,
    /// SQL over the changed row, named `this`, that yields this sync's key or keys.
    pub key: String,
    /// The columns that `key` names: capture keeps their old and new values.
    pub columns: Columns,
}

impl Definition {
    /// Compiles a sync. `syncs` are all that the configuration has (for `ref`), `catalog` knows the tables of [`Definition::tables`].
    /// The second value are warnings; a definition with an error is not made.
    ///
    /// # Errors
    /// All findings, of which at least one is an error.
    pub fn compile(sync: &Sync, syncs: &BTreeMap<String, Sync>, catalog: &Catalog) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        let mut findings = check::Findings::of(&sync.name);
        let module = Module::of(&sync.module);
        check::settings(sync, &module, &mut findings);
        let Some(table) = catalog.table(&sync.table) else {
            findings.error(
                "table",
                format!(
                    "there is no table or view `{}`, or the role may not see it: create it, mend the name, or grant select on it",
                    sync.table
                ),
            );
            return Err(findings.into_vec());
        };
        let key = key_columns(sync, table, &mut findings);
        check::key_is_unique(sync, table, &mut findings);
        check::key_has_one_form(sync, table, &mut findings);
        check::columns(sync, table, &mut findings);
        check::pulled_columns(sync, table, &mut findings);
        check::marks(sync, &mut findings);
        let parents = parents(sync, syncs, catalog, &mut findings);
        let watches = watches(sync, catalog, &mut findings);
        let rows = rows::compile(sync, catalog, &mut findings);
        check::changes_are_seen(sync, table, &mut findings);
        if findings.any_error() {
            return Err(findings.into_vec());
        }
        let relevant = relevant_columns(sync, table);
        let hash = sync.definition_hash();
        Ok((Self { sync: sync.clone(), module, table: table.clone(), key, parents, watches, rows, hash, relevant }, findings.into_vec()))
    }

    /// The names of all tables that compiling these syncs needs to know, for [`Catalog::load`].
    pub fn tables<'a>(syncs: impl IntoIterator<Item = &'a Sync>) -> Vec<String> {
        let mut names: Vec<String> = syncs
            .into_iter()
            .flat_map(|sync| std::iter::once(&sync.table).chain(sync.watch.iter().map(|watch| &watch.table)).chain(rows::tables(sync)))
            .cloned()
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The sync's name.
    pub fn name(&self) -> &str {
        &self.sync.name
    }

    /// Zoho field → where it comes from.
    pub fn fields(&self) -> &Fields {
        &self.sync.fields
    }

    /// What replicas compare to know whether they agree.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The columns whose change can change the key, `when` or a field. A change of others needs no look at the row.
    pub fn relevant_columns(&self) -> &Columns {
        &self.relevant
    }

    /// The Zoho field that carries `<sync>:<key>` on create: the configured one, else the module's usual one unless it is mapped.
    pub fn reference(&self) -> Option<&str> {
        self.sync.reference.as_deref().or_else(|| self.module.facts.reference.filter(|field| !self.sync.fields.contains_key(*field)))
    }

    /// Our reference for a record: what its link says, else `<sync>:<key>`.
    pub fn reference_of(&self, key: &str, link: Option<&Link>) -> String {
        link.and_then(|link| link.reference.clone()).unwrap_or_else(|| format!("{}:{key}", self.sync.name))
    }

    /// Records that ride in one batch: what one write may carry, or one read where both sides are read first.
    pub fn batch_max(&self) -> u16 {
        if self.sync.direction.pulls() { self.module.read_max() } else { self.module.batch_max() }
    }

    /// How a create of this sync is kept from doubling.
    pub fn create_way(&self) -> Create {
        self.module.create(|field| self.sync.fields.contains_key(field), self.reference(), &self.sync.match_on)
    }

    /// The fields of `match_on` with what a create's body says in them: what an existing Zoho record must carry to be the row's. `None`: there is nothing to
    /// match by, since one of them is empty.
    pub fn matched_by<'a>(&'a self, body: &'a Value) -> Option<Vec<(&'a str, &'a Value)>> {
        let said = |path: &'a String| Some((path.as_str(), field_in(&self.module, body, path)?)).filter(|(_, said)| !value::is_empty(said));
        let wanted: Option<Vec<_>> = self.sync.match_on.iter().map(said).collect();
        wanted.filter(|wanted| !wanted.is_empty())
    }

    /// The names of the syncs whose Zoho ids this one's records carry.
    pub fn parent_syncs(&self) -> impl Iterator<Item = &str> {
        self.parents.keys().map(String::as_str)
    }
}

fn key_columns(sync: &Sync, table: &Table, findings: &mut check::Findings) -> Vec<KeyColumn> {
    let mut key = Vec::new();
    for name in sync.key.columns() {
        match table.column(name) {
            Some(column) => key.push(KeyColumn::of(column)),
            None => findings.error("key", check::unknown_column(name, &table.name, &table.column_names())),
        }
    }
    if key.is_empty() {
        findings.error("key", "name the column, or columns, that identify a row".to_owned());
    }
    key
}

fn parents(sync: &Sync, syncs: &BTreeMap<String, Sync>, catalog: &Catalog, findings: &mut check::Findings) -> BTreeMap<String, KeyColumn> {
    let mut parents = BTreeMap::new();
    for (name, field) in &sync.fields {
        for parent in field.refs() {
            let at = format!("fields.{name}");
            let Some(other) = syncs.get(parent) else {
                findings.error(&at, format!("`ref` names the sync `{parent}`, which there is not"));
                continue;
            };
            let [column] = other.key.columns() else {
                findings.error(&at, format!("`{parent}` is identified by several columns; `ref` can follow only a single one"));
                continue;
            };
            match catalog.table(&other.table).and_then(|table| table.column(column)) {
                Some(found) => {
                    parents.insert(parent.to_owned(), KeyColumn::of(found));
                }
                None => findings.error(&at, format!("the key `{column}` of `{parent}` is not a column of `{}`", other.table)),
            }
        }
    }
    parents
}

fn watches(sync: &Sync, catalog: &Catalog, findings: &mut check::Findings) -> Vec<Watch> {
    let mut watches = Vec::new();
    for WatchConfig { table: relation, key } in &sync.watch {
        match catalog.table(relation) {
            Some(table) => watches.push(Watch {
                relation: relation.clone(),
                table: table.clone(),
                key: key.clone(),
                columns: words::named_columns(key, &table.column_names()),
            }),
            None => findings.error(
                "watch",
                format!(
                    "there is no table or view `{relation}`, or the role may not see it: create it, mend the name, or grant select on it"
                ),
            ),
        }
    }
    watches
}

fn relevant_columns(sync: &Sync, table: &Table) -> Columns {
    let all = table.column_names();
    let mut relevant = Columns::Named(sync.key.columns().iter().cloned().collect());
    if let Some(when) = &sync.when {
        relevant = relevant.and(words::named_columns(when, &all));
    }
    for field in sync.fields.values() {
        relevant = relevant.and(field_columns(field, &all));
    }
    // what a person writes there decides what a similar record becomes
    if let (Some(_), Some(column)) = (&sync.match_similar, &sync.writeback.id) {
        relevant = relevant.and(Columns::Named([column.clone()].into()));
    }
    relevant
}

fn field_columns(field: &Field, all: &[String]) -> Columns {
    match field {
        Field::Column(field) => Columns::Named([field.column.clone()].into()),
        Field::Ref(field) => Columns::Named([field.column.clone()].into()),
        Field::Value(_) | Field::Rows(_) | Field::File(_) => Columns::Named([].into()),
        Field::Sql(field) => words::named_columns(&field.sql, all),
        // The items' columns are the query's own.
        Field::List(list) => {
            list.or_else.values().fold(words::named_columns(&list.each, all), |columns, field| columns.and(field_columns(field, all)))
        }
    }
}

#[cfg(test)]
mod tests;
