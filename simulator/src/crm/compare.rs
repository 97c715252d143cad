//! Comparing a field with a literal, for COQL and search: by the field's type, text without regard to case.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Crm, Module, Record, Values};
use crate::clock::{Zone, parse_time};

/// A record as a condition sees it: its values may be older ones than those stored.
pub(super) struct Row<'a> {
    pub(super) module: &'a Module,
    pub(super) id: &'a str,
    pub(super) record: &'a Record,
    pub(super) values: &'a Values,
}

impl<'a> Row<'a> {
    pub(super) fn new(module: &'a Module, id: &'a str, record: &'a Record) -> Self {
        Self { module, id, record, values: &record.values }
    }
}

/// Whether a column exists: a field, or a field of the module that a lookup points into.
pub(super) fn is_column(crm: &Crm, module: &Module, column: &str) -> bool {
    if column == "id" {
        return true;
    }
    match column.split_once('.') {
        None => module.field(column).is_some(),
        Some((lookup, rest)) => {
            let target = module.field(lookup).and_then(|field| field.spec.lookup.as_ref()).and_then(|name| crm.modules.get(name));
            target.is_some_and(|target| is_column(crm, target, rest))
        }
    }
}

/// The value of a column as COQL answers it: lookups as their ids alone, a related field by way of its lookup.
pub(super) fn column(crm: &Crm, row: &Row<'_>, name: &str, zone: Zone) -> Value {
    if let Some((lookup, rest)) = name.split_once('.') {
        let target = row.module.field(lookup).and_then(|field| field.spec.lookup.as_ref()).and_then(|name| crm.modules.get(name));
        let id = row.values.get(lookup).and_then(|value| value.get("id")).and_then(Value::as_str);
        let Some((target, (id, record))) = target.zip(id).and_then(|(target, id)| Some((target, target.records.get_key_value(id)?))) else {
            return Value::Null;
        };
        return column(crm, &Row::new(target, id, record), rest, zone);
    }
    match name {
        "id" => row.id.into(),
        "Created_Time" => zone.crm_time(row.record.created).into(),
        "Modified_Time" => zone.crm_time(row.record.modified).into(),
        "Created_By" => only_id(&crm.user(false)),
        "Modified_By" => only_id(&crm.user(row.record.by_person)),
        "Owner" => only_id(row.values.get("Owner").filter(|owner| owner.is_object()).unwrap_or(&crm.user(false))),
        _ => match row.values.get(name) {
            None => Value::Null,
            Some(value) if row.module.field(name).is_some_and(|field| field.json_type() == "jsonobject") => only_id(value),
            Some(value) => value.clone(),
        },
    }
}

fn only_id(value: &Value) -> Value {
    match value.get("id") {
        Some(id) => serde_json::json!({ "id": id }),
        None => value.clone(),
    }
}

/// The order of a value and a literal; `None` if the value is blank or they cannot be compared.
pub(super) fn compare(value: &Value, literal: &str) -> Option<Ordering> {
    match value {
        Value::Null => None,
        Value::Object(object) => Some(object.get("id")?.as_str()?.cmp(literal)),
        Value::Bool(value) => Some(value.cmp(&literal.parse().ok()?)),
        Value::Number(number) => number.as_f64()?.partial_cmp(&literal.parse().ok()?),
        Value::String(text) => match (parse_time(text), parse_time(literal)) {
            (Some(value), Some(literal)) => Some(value.cmp(&literal)),
            _ => Some(text.to_lowercase().cmp(&literal.to_lowercase())),
        },
        Value::Array(items) => items.iter().any(|item| item == literal).then_some(Ordering::Equal),
    }
}

/// The order of two values of one column; blanks come first.
pub(super) fn order(left: &Value, right: &Value) -> Ordering {
    match (left, right) {
        (Value::Null, Value::Null) => Ordering::Equal,
        (Value::Null, _) => Ordering::Less,
        (_, Value::Null) => Ordering::Greater,
        (_, Value::String(text)) => compare(left, text).unwrap_or(Ordering::Equal),
        (_, Value::Object(object)) => {
            compare(left, object.get("id").and_then(Value::as_str).unwrap_or_default()).unwrap_or(Ordering::Equal)
        }
        (_, other) => compare(left, &other.to_string()).unwrap_or(Ordering::Equal),
    }
}
