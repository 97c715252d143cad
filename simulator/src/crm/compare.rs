//! Comparing fields with literals and with each other, for COQL and search: times as instants, text without regard to
//! case.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};
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

/// A value to compare with, read once.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Literal {
    text: String,
    lower: String,
    number: Option<f64>,
    time: Option<DateTime<Utc>>,
}

impl Literal {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self { lower: text.to_lowercase(), number: text.parse().ok(), time: parse_time(&text), text }
    }

    pub(super) fn lower(&self) -> &str {
        &self.lower
    }
}

/// A field's value in the form in which it is compared. Those of one column are of one kind, but for blanks.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Blank,
    Bool(bool),
    Number(f64),
    Time(DateTime<Utc>),
    Id(String),
    /// In lower case.
    Text(String),
    List(Vec<String>),
}

impl Cell {
    pub(super) fn new(value: &Value) -> Self {
        match value {
            Value::Null => Self::Blank,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(number) => number.as_f64().map_or(Self::Blank, Self::Number),
            Value::Object(object) => object.get("id").and_then(Value::as_str).map_or(Self::Blank, |id| Self::Id(id.to_owned())),
            Value::Array(items) => Self::List(items.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            // Most text is none of a time, and need not be tried.
            Value::String(text) => match text.starts_with(|first: char| first.is_ascii_digit()).then(|| parse_time(text)).flatten() {
                Some(at) => Self::Time(at),
                None => Self::Text(text.to_lowercase()),
            },
        }
    }

    /// Its order to a literal; `None` if it is blank or they cannot be compared.
    pub(super) fn compare(&self, literal: &Literal) -> Option<Ordering> {
        match self {
            Self::Blank => None,
            Self::Bool(value) => Some(value.cmp(&literal.lower.parse().ok()?)),
            Self::Number(value) => value.partial_cmp(&literal.number?),
            Self::Time(value) => Some(value.cmp(&literal.time?)),
            Self::Id(id) => Some(id.as_str().cmp(&literal.text)),
            Self::Text(text) => Some(text.as_str().cmp(&literal.lower)),
            Self::List(items) => items.contains(&literal.text).then_some(Ordering::Equal),
        }
    }

    /// Its order to another one of its column; blanks come first.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Blank, Self::Blank) => Ordering::Equal,
            (Self::Blank, _) => Ordering::Less,
            (_, Self::Blank) => Ordering::Greater,
            (Self::Bool(left), Self::Bool(right)) => left.cmp(right),
            (Self::Number(left), Self::Number(right)) => left.total_cmp(right),
            (Self::Time(left), Self::Time(right)) => left.cmp(right),
            (Self::Id(left), Self::Id(right)) | (Self::Text(left), Self::Text(right)) => left.cmp(right),
            _ => Ordering::Equal,
        }
    }
}

/// The module that a lookup of this one points into.
fn target<'a>(crm: &'a Crm, module: &Module, lookup: &str) -> Option<&'a Module> {
    crm.modules.get(module.field(lookup)?.spec.lookup.as_ref()?)
}

/// The record that a lookup points at.
fn related<'a>(crm: &'a Crm, row: &Row<'_>, lookup: &str) -> Option<Row<'a>> {
    let target = target(crm, row.module, lookup)?;
    let (id, record) = target.records.get_key_value(row.values.get(lookup)?.get("id")?.as_str()?)?;
    Some(Row::new(target, id, record))
}

/// Whether a column exists: a field, or a field of the module that a lookup points into.
pub(super) fn is_column(crm: &Crm, module: &Module, column: &str) -> bool {
    match column.split_once('.') {
        None => column == "id" || module.field(column).is_some(),
        Some((lookup, rest)) => target(crm, module, lookup).is_some_and(|target| is_column(crm, target, rest)),
    }
}

/// The value of a column as it is compared.
pub(super) fn cell(crm: &Crm, row: &Row<'_>, name: &str) -> Cell {
    if let Some((lookup, rest)) = name.split_once('.') {
        return related(crm, row, lookup).map_or(Cell::Blank, |row| cell(crm, &row, rest));
    }
    match name {
        "id" => Cell::Id(row.id.to_owned()),
        "Created_Time" => Cell::Time(row.record.created),
        "Modified_Time" => Cell::Time(row.record.modified),
        "Created_By" | "Modified_By" | "Owner" => Cell::new(&user(crm, row, name)),
        _ => row.values.get(name).map_or(Cell::Blank, Cell::new),
    }
}

/// The value of a column as COQL answers it: lookups as their ids alone, a related field by way of its lookup.
pub(super) fn column(crm: &Crm, row: &Row<'_>, name: &str, zone: Zone) -> Value {
    if let Some((lookup, rest)) = name.split_once('.') {
        return related(crm, row, lookup).map_or(Value::Null, |row| column(crm, &row, rest, zone));
    }
    match name {
        "id" => row.id.into(),
        "Created_Time" => zone.crm_time(row.record.created).into(),
        "Modified_Time" => zone.crm_time(row.record.modified).into(),
        "Created_By" | "Modified_By" | "Owner" => only_id(&user(crm, row, name)),
        _ => match row.values.get(name) {
            None => Value::Null,
            Some(value) if row.module.field(name).is_some_and(|field| field.json_type() == "jsonobject") => only_id(value),
            Some(value) => value.clone(),
        },
    }
}

fn user(crm: &Crm, row: &Row<'_>, name: &str) -> Value {
    match name {
        "Modified_By" => crm.user(row.record.by_person),
        "Owner" => row.values.get("Owner").filter(|owner| owner.is_object()).cloned().unwrap_or_else(|| crm.user(false)),
        _ => crm.user(false),
    }
}

fn only_id(value: &Value) -> Value {
    match value.get("id") {
        Some(id) => serde_json::json!({ "id": id }),
        None => value.clone(),
    }
}
