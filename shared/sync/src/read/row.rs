//! A row in Zoho's words, before it is known what its parents are called there.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sluice_core::db::cut;

use crate::value;

/// One local row as the mapping sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The canonical key, as the row has it: with another one than was asked for the row is not that record's, and a problem says so.
    pub key: String,
    /// Whether the row belongs to the sync.
    pub when: bool,
    /// Zoho field → what the row gives it. A field with a problem is absent.
    pub fields: BTreeMap<String, FieldValue>,
    /// What keeps the row from being sent as it is.
    pub problems: Vec<Problem>,
}

/// What a row gives one Zoho field.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValue {
    /// A value to be sent as it is.
    Plain(Value),
    /// The Zoho id of another sync's record.
    Ref {
        /// The other sync.
        sync: String,
        /// The record's canonical key there.
        key: String,
    },
    /// One object per element; names may hold dots.
    List(Vec<BTreeMap<String, FieldValue>>),
}

/// A reference that a row makes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ref {
    /// Which field makes it: `customer_id`, `invoices[0].invoice_id`.
    pub field: String,
    /// The other sync.
    pub sync: String,
    /// The record's canonical key there.
    pub key: String,
}

/// Why a field of a row cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dead letter's class.
    pub class: Class,
    /// The Zoho field; `when` or `key` for those.
    pub field: String,
    /// What is wrong; at most [`sluice_core::db::MESSAGE_MAX`] characters.
    pub message: String,
}

/// What kind of problem a row has, in the dead letters' words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The value is not one that the mapping allows: mend the row.
    Validation,
    /// No value could be made at all: an expression failed, or its JSON cannot be read.
    Payload,
    /// Nobody knows: the row was not read in time, or a foreign server that an expression asks did not answer. A later run finds out; it is nothing
    /// to give up for.
    Unread,
}

impl Problem {
    pub(crate) fn payload(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Class::Payload, field, message)
    }

    pub(crate) fn validation(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Class::Validation, field, message)
    }

    pub(crate) fn unread(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of(Class::Unread, field, message)
    }

    /// A message may hold the row's value, and that may be megabytes.
    fn of(class: Class, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { class, field: field.into(), message: cut(&message.into()) }
    }
}

/// Zoho ids of parents, by (sync, key).
pub type Parents = BTreeMap<(String, String), String>;

impl Row {
    /// Why the row could not be read this time, if a later run may.
    pub fn unread(&self) -> Option<&Problem> {
        self.problems.iter().find(|problem| problem.class == Class::Unread)
    }

    /// All references that the row makes, by field.
    pub fn refs(&self) -> Vec<Ref> {
        self.fields.iter().flat_map(|(field, value)| value.refs(field)).collect()
    }
}

impl FieldValue {
    /// What the link keeps as the local half: the value as it was read, a reference as the key it holds.
    pub fn local(&self) -> Value {
        match self {
            Self::Plain(value) => value.clone(),
            Self::Ref { key, .. } => Value::String(key.clone()),
            Self::List(elements) => Value::Array(elements.iter().map(|element| nest(element, |_, value| Some(value.local()))).collect()),
        }
    }

    /// The references in this value of the field `field`.
    pub fn refs(&self, field: &str) -> Vec<Ref> {
        match self {
            Self::Plain(_) => Vec::new(),
            Self::Ref { sync, key } => vec![Ref { field: field.to_owned(), sync: sync.clone(), key: key.clone() }],
            Self::List(elements) => elements
                .iter()
                .enumerate()
                .flat_map(|(index, element)| element.iter().flat_map(move |(name, value)| value.refs(&format!("{field}[{index}].{name}"))))
                .collect(),
        }
    }

    /// What is sent: references as Zoho ids, wrapped as `{"id": …}` where `wrap` says so. `None` if a parent has no Zoho id yet.
    /// Elements of a list leave out what is null.
    pub fn sent(&self, field: &str, parents: &Parents, wrap: bool) -> Option<Value> {
        match self {
            Self::Plain(value) => Some(value.clone()),
            Self::Ref { sync, key } => {
                let id = Value::String(parents.get(&(sync.clone(), key.clone()))?.clone());
                let already_id = field == "id" || field.ends_with(".id");
                Some(if wrap && !already_id { Value::Object(Map::from_iter([("id".to_owned(), id)])) } else { id })
            }
            Self::List(elements) => {
                let missing = elements.iter().flatten().any(|(name, value)| value.sent(name, parents, wrap).is_none());
                let objects = elements
                    .iter()
                    .map(|element| nest(element, |name, value| value.sent(name, parents, wrap).filter(|value| !value.is_null())));
                (!missing).then(|| Value::Array(objects.collect()))
            }
        }
    }

    /// Whether there is nothing to send.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Plain(Value::Null))
    }
}

fn nest(element: &BTreeMap<String, FieldValue>, of: impl Fn(&str, &FieldValue) -> Option<Value>) -> Value {
    let mut object = Map::new();
    for (name, field) in element {
        if let Some(found) = of(name, field) {
            value::put(&mut object, name, found);
        }
    }
    Value::Object(object)
}
