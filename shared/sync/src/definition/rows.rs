//! The child tables that lists of Zoho's become rows of: whether they are there, and can take the rows.

use std::collections::{BTreeMap, BTreeSet};

use sluice_core::config::field::{Field, RowsField};
use sluice_core::config::sync::{OnDelete, Sync};

use super::Definition;
use super::check::{Findings, unknown_column};
use crate::catalog::{Catalog, Kind, Table};

/// A list of Zoho's and its child table.
#[derive(Debug, Clone)]
pub struct Rows {
    /// As configured.
    pub field: RowsField,
    /// The child table.
    pub table: Table,
    /// The column by which an object of the list is known again.
    pub matched: String,
    /// The columns of the unique index that keeps an object from becoming two rows: the matched one, mostly with the parent's.
    pub unique: Vec<String>,
}

impl Rows {
    /// Whether an object that the list shows no more changes its row.
    pub fn removes(&self) -> bool {
        self.field.on_delete != OnDelete::Ignore
    }
}

impl Definition {
    /// The lists that become rows of a child table, by field.
    pub fn rows(&self) -> &BTreeMap<String, Rows> {
        &self.rows
    }
}

/// The child tables that a sync names.
pub(super) fn tables(sync: &Sync) -> impl Iterator<Item = &String> {
    sync.fields.values().filter_map(|field| if let Field::Rows(rows) = field { Some(&rows.table) } else { None })
}

pub(super) fn compile(sync: &Sync, catalog: &Catalog, findings: &mut Findings) -> BTreeMap<String, Rows> {
    let mut compiled = BTreeMap::new();
    for (path, field) in &sync.fields {
        let Field::Rows(field) = field else { continue };
        let at = format!("fields.{path}");
        let Some(table) = catalog.table(&field.table) else {
            let table = &field.table;
            findings.error(
                &at,
                format!("there is no table `{table}`, or the role may not see it: create it, mend `rows`, or grant select on it"),
            );
            continue;
        };
        if !matches!(table.kind, Kind::Table | Kind::Partitioned) {
            findings.error(&at, format!("`{}` is no table: `rows` writes into a table only", field.table));
            continue;
        }
        columns(&at, field, table, findings);
        let Some(matched) = field.matched() else { continue }; // refused with the file
        match unique(field, matched, table) {
            Some(unique) => drop(compiled.insert(
                path.clone(),
                Rows { field: field.clone(), table: table.clone(), matched: matched.to_owned(), unique: unique.clone() },
            )),
            None => {
                let columns: Vec<&str> = field.parent.columns().iter().map(String::as_str).chain([matched]).collect();
                let (table, columns) = (&field.table, columns.join(", "));
                findings.error(
                    &at,
                    format!(
                        "nothing keeps one object of the list from becoming two rows; run: create unique index on {table} ({columns});"
                    ),
                );
            }
        }
    }
    compiled
}

/// The columns exist, are written once, and can be compared.
fn columns(at: &str, field: &RowsField, table: &Table, findings: &mut Findings) {
    let mapped = field.item.values().filter_map(Field::own_column);
    let named: Vec<&str> = field.parent.columns().iter().map(String::as_str).chain(mapped).collect();
    for column in named.iter().copied().chain(field.mark.keys().map(String::as_str)) {
        match table.column(column) {
            None => findings.error(at, unknown_column(column, &table.name, &table.column_names())),
            Some(found) if found.base_type == "json" => {
                findings.error(at, format!("`{column}` is json, which cannot be compared: make it jsonb"));
            }
            Some(_) => {}
        }
    }
    let mut seen = BTreeSet::new();
    for column in named.into_iter().filter(|column| !seen.insert(*column)) {
        findings.error(at, format!("`{column}` would be written twice; keep one"));
    }
}

/// The unique index over the matched column and the parent's, else over the matched one alone. A partial one is no help: `on conflict` does not find it.
fn unique<'t>(field: &RowsField, matched: &str, table: &'t Table) -> Option<&'t Vec<String>> {
    let mut both: Vec<&str> = field.parent.columns().iter().map(String::as_str).chain([matched]).collect();
    both.sort_unstable();
    table.unique.iter().find(|unique| **unique == both).or_else(|| table.unique.iter().find(|unique| **unique == [matched]))
}
