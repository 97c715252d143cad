//! What a record's change amounts to: which limit it falls under, and what a person is shown of it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluice_core::config::sync::{OnDelete, WhenFalse};
use sluice_core::db::Tx;
use sluice_sync::definition::Definition;
use sluice_sync::link::{Link, store as links};
use sluice_sync::plan;
use sluice_sync::read::{Error, Found, Reader, Row};

use super::Class;
use crate::changes::held::cut_value;

/// Fields that a sample shows.
const FIELDS_MAX: usize = 8;

/// A record that needs a call.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judged {
    pub(super) key: String,
    pub(super) class: Class,
    /// create, update or delete.
    pub(super) operation: &'static str,
    /// Field → what was agreed on, and what the row holds now.
    changed: BTreeMap<String, (Value, Value)>,
}

impl Judged {
    /// For people.
    pub(super) fn sample(&self) -> Value {
        let fields = self
            .changed
            .iter()
            .take(FIELDS_MAX)
            .map(|(field, (old, new))| (field.clone(), json!({ "old": cut_value(old), "new": cut_value(new) })));
        json!({ "key": self.key, "operation": self.operation, "changed": fields.collect::<Map<_, _>>() })
    }
}

/// The records that need a call. A mapping that cannot be read judges every record a change: the brake must not depend on it.
pub(super) async fn judge(tx: &mut Tx, reader: &Reader, definition: &Definition, keys: &[String]) -> Result<Vec<Judged>, sqlx::Error> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let rows = match reader.rows(definition, keys).await {
        Ok(rows) => rows,
        Err(Error::Broken { .. } | Error::Unavailable(sqlx::Error::Database(_))) => {
            let unread = |key: &String| Judged { key: key.clone(), class: Class::Change, operation: "update", changed: BTreeMap::new() };
            return Ok(keys.iter().map(unread).collect());
        }
        Err(Error::Unavailable(error)) => return Err(error),
    };
    let links = links::load(tx, definition.name(), keys).await?;
    let judged = rows.iter().filter_map(|(key, found)| {
        let row = if let Found::Row(row) = found { Some(row) } else { None };
        one(definition, key, row, links.get(key))
    });
    Ok(judged.collect())
}

fn one(definition: &Definition, key: &str, row: Option<&Row>, link: Option<&Link>) -> Option<Judged> {
    let sync = &definition.sync;
    let linked = link.filter(|link| link.zoho_id.is_some());
    let judged = |class, operation, changed| Some(Judged { key: key.to_owned(), class, operation, changed });
    let Some(row) = row.filter(|row| row.when) else {
        let withdrawn = row.is_none() || sync.when_false == WhenFalse::Delete;
        let calls = withdrawn && linked.is_some() && sync.on_delete != OnDelete::Ignore && !plan::is_unchanged(definition, row, link);
        return if calls { judged(Class::Delete, "delete", BTreeMap::new()) } else { None };
    };
    if plan::is_unchanged(definition, Some(row), link) {
        return None;
    }
    match linked {
        Some(link) => {
            let pair = |field: String| {
                let old = link.fields.get(&field).map_or(Value::Null, |pair| pair.local.clone());
                let new = row.fields.get(&field).map_or(Value::Null, |value| value.local());
                (field, (old, new))
            };
            judged(Class::Change, "update", plan::changed_fields(definition, row, link).into_iter().map(pair).collect())
        }
        None => {
            let filled = row.fields.iter().filter(|(_, value)| !value.is_null());
            judged(Class::Change, "create", filled.map(|(field, value)| (field.clone(), (Value::Null, value.local()))).collect())
        }
    }
}
