//! Definitions and links for the unit tests of this crate.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_core::config::sync::Sync;

use crate::catalog::{Catalog, Column, Kind, Table};
use crate::definition::{Definition, Finding};
use crate::link::{Link, Pairs};
use crate::merge::Facts;
use crate::read::Row;

/// A table with these columns (name, base type); `id` is its unique key.
pub(crate) fn table(name: &str, columns: &[(&str, &str)]) -> Table {
    let column = |(name, kind): &(&str, &str)| Column {
        name: (*name).to_owned(),
        type_name: (*kind).to_owned(),
        type_schema: "pg_catalog".to_owned(),
        base_type: (*kind).to_owned(),
        numeric_modifier: None,
        deterministic: true,
    };
    Table {
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: Kind::Table,
        columns: columns.iter().map(column).collect(),
        unique: vec![vec!["id".to_owned()]],
    }
}

/// The syncs of a file, by name.
pub(crate) fn syncs(file: &str) -> BTreeMap<String, Sync> {
    let mut syncs: BTreeMap<String, Sync> = toml::from_str(file).unwrap();
    for (name, sync) in &mut syncs {
        sync.name.clone_from(name);
    }
    syncs
}

/// Compiles one sync of a file.
pub(crate) fn compile(file: &str, name: &str, tables: &[Table]) -> Result<(Definition, Vec<Finding>), Vec<Finding>> {
    let syncs = syncs(file);
    let catalog = Catalog::of(tables.iter().map(|table| (table.name.clone(), table.clone())));
    Definition::compile(&syncs[name], &syncs, &catalog)
}

/// A link with a Zoho id and these pairs.
pub(crate) fn linked(key: &str, zoho_id: Option<&str>, fields: Pairs) -> Link {
    Link { sync: "customers".to_owned(), key: key.to_owned(), zoho_id: zoho_id.map(str::to_owned), fields, ..Link::default() }
}

/// What is known of a linked record that was read by itself, and of nothing around it.
pub(crate) fn facts<'a>(row: &'a Row, link: &'a Link, record: &'a Value) -> Facts<'a> {
    Facts {
        row,
        link,
        record,
        single: true,
        columns: const { &BTreeMap::new() },
        parents: const { &BTreeMap::new() },
        keys: const { &BTreeMap::new() },
        read_at: crate::module::parse_time("2026-03-01T10:05:00+00:00").unwrap(),
        changed_at: const { &BTreeMap::new() },
        driven: const { &BTreeSet::new() },
        decided: const { &BTreeMap::new() },
    }
}
