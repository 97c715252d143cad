//! Zoho's values as the local table keeps them.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::field::{Field, Owner};

use super::children::{self, Children};
use super::files::{self, Wanted};
use super::{COLUMN, Keys};
use crate::catalog::Table;
use crate::definition::Definition;
use crate::link::agreed::{field_in, known_part};
use crate::value;

/// What a Zoho value is here.
#[derive(Debug, Clone, PartialEq)]
pub enum Incoming {
    /// A value for a column.
    Column {
        /// The column.
        column: String,
        /// What it is given; the database casts it to the column's type.
        value: Value,
        /// What the row would then say in Zoho's words, where that is known beforehand (`values`, references): equal to what it says now,
        /// nothing needs to be written.
        as_sent: Option<Value>,
    },
    /// A value that the field's `values` do not know.
    Unmapped,
    /// A reference to a record that has no row here yet.
    Missing {
        /// The other sync.
        sync: String,
        /// The record.
        zoho_id: String,
    },
    /// A form of field that only goes to Zoho, or that is no value.
    PushOnly,
}

/// The value of one field of Zoho's for a column of a table.
pub(super) fn incoming(table: &Table, field: Option<&Field>, zoho: &Value, keys: &Keys) -> Incoming {
    match field {
        Some(Field::Column(field)) if field.values.is_empty() => {
            let text = |object: &Value| object.get("id").map_or_else(|| object.clone(), Clone::clone);
            let is_json = table.column(&field.column).is_some_and(|column| matches!(column.base_type.as_str(), "json" | "jsonb"));
            // a lookup is its id, as it is when it is sent
            let value = if is_json || !zoho.is_object() { zoho.clone() } else { text(zoho) };
            let value = if is_plain_timestamp(table, &field.column) { in_utc(value) } else { value };
            Incoming::Column { column: field.column.clone(), value, as_sent: None }
        }
        Some(Field::Column(field)) if zoho.is_null() => {
            Incoming::Column { column: field.column.clone(), value: Value::Null, as_sent: Some(Value::Null) }
        }
        Some(Field::Column(field)) => {
            let meant = |value: &Value| value::scalar_text(value) == value::scalar_text(zoho);
            let found = field.values.iter().find(|(_, meanings)| meanings.sent() == zoho || meant(meanings.sent()));
            match found.or_else(|| field.values.iter().find(|(_, meanings)| meanings.read().iter().any(meant))) {
                Some((local, meanings)) => Incoming::Column {
                    column: field.column.clone(),
                    value: Value::String(local.clone()),
                    as_sent: Some(meanings.sent().clone()),
                },
                None => Incoming::Unmapped,
            }
        }
        Some(Field::Ref(field)) => {
            let id = match zoho {
                Value::Null => return Incoming::Column { column: field.column.clone(), value: Value::Null, as_sent: Some(Value::Null) },
                Value::Object(lookup) => lookup.get("id").map(value::scalar_text).unwrap_or_default(),
                other => value::scalar_text(other),
            };
            match keys.get(&(field.sync.clone(), id.clone())) {
                Some(key) => {
                    let key = Value::String(key.clone());
                    Incoming::Column { column: field.column.clone(), value: key.clone(), as_sent: Some(key) }
                }
                None => Incoming::Missing { sync: field.sync.clone(), zoho_id: id },
            }
        }
        Some(Field::Sql(_) | Field::Value(_) | Field::List(_) | Field::Rows(_) | Field::File(_)) | None => Incoming::PushOnly,
    }
}

fn is_plain_timestamp(table: &Table, column: &str) -> bool {
    table.column(column).is_some_and(|column| column.base_type == "timestamp")
}

/// A time for a column without zone, which is UTC to us in both directions: PostgreSQL would drop the offset.
fn in_utc(value: Value) -> Value {
    match value.as_str().and_then(crate::module::parse_time) {
        Some(time) => Value::String(time.naive_utc().to_string()),
        None => value,
    }
}

/// A new row for a Zoho record that has none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NewRow {
    /// Column → value.
    pub columns: BTreeMap<String, Value>,
    /// The fields behind them: Zoho's half.
    pub pulled: BTreeMap<String, Value>,
    /// Rows of child tables, by field.
    pub rows: BTreeMap<String, Children>,
    /// Files to be fetched for it.
    pub files: Vec<Wanted>,
    /// What the record refers to that has no row yet: (sync, Zoho id).
    pub missing: Vec<(String, String)>,
}

/// The row that a Zoho record becomes; `own` are the pull's own columns. Fields that the local side owns are left to the table's defaults.
pub fn insert(definition: &Definition, record: &Value, own: &BTreeMap<String, Value>, keys: &Keys) -> NewRow {
    let NewRow { mut columns, mut pulled, mut rows, mut files, mut missing } = NewRow::default();
    for (path, list) in definition.rows() {
        let Some((listed, true)) = children::listed(definition, path, record) else { continue };
        let (children, absent) = children::of(list, None, &listed, keys);
        rows.insert(path.clone(), children);
        missing.extend(absent);
        pulled.insert(path.clone(), listed);
    }
    for (wanted, version) in files::shown(definition, record) {
        match version {
            Value::Null => drop(pulled.insert(wanted.path, version)),
            version => files.push(Wanted { version, ..wanted }),
        }
    }
    for (path, field) in definition.fields() {
        let owner = match field {
            Field::Column(field) => field.owner,
            Field::Ref(field) => field.owner,
            Field::Sql(_) | Field::Value(_) | Field::List(_) | Field::Rows(_) | Field::File(_) => continue,
        };
        let Some(answered) = field_in(&definition.module, record, path).filter(|_| owner != Some(Owner::Local)) else { continue };
        let zoho = value::null_if_empty(&known_part(definition, path, answered));
        match incoming(&definition.table, Some(field), &zoho, keys) {
            // null is what a column without a value is, unless its default says otherwise
            Incoming::Column { value: Value::Null, .. } => drop(pulled.insert(path.clone(), zoho)),
            Incoming::Column { column, value, .. } => {
                columns.insert(column, value);
                pulled.insert(path.clone(), zoho);
            }
            Incoming::Missing { sync, zoho_id } => missing.push((sync, zoho_id)),
            Incoming::Unmapped => drop(pulled.insert(path.clone(), zoho)),
            Incoming::PushOnly => {}
        }
    }
    for (column, value) in own {
        columns.insert(column.clone(), value.clone());
        pulled.insert(format!("{COLUMN}{column}"), value.clone());
    }
    NewRow { columns, pulled, rows, files, missing }
}

/// The columns behind the fields of `mark`: what is written to a row whose Zoho record is gone.
pub fn mark(definition: &Definition) -> BTreeMap<String, Value> {
    let columns = definition.sync.mark.iter().filter_map(|(path, value)| {
        match incoming(&definition.table, definition.fields().get(path), value, &Keys::new()) {
            Incoming::Column { column, value, .. } => Some((column, value)),
            Incoming::Unmapped | Incoming::Missing { .. } | Incoming::PushOnly => None,
        }
    });
    columns.collect()
}
