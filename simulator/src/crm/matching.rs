//! Which record an upsert means, and the index that finds it.
//!
//! The order of precedence is Zoho's (CRM fact 2.5): the fields listed, then all other unique fields; with nothing
//! listed the system's own field, then the unique ones.

use serde_json::{Value, json};

use super::{
    Deleted, Module, Record, Refusal, Stamp, Values,
    meta::{Field, name_field, system_field},
};
use crate::clock::to_second;

/// Most fields that `duplicate_check_fields` may list.
const MOST_CHECK_FIELDS: usize = 10;

/// The record an upsert found, and by which field.
pub(super) struct Match {
    pub(super) id: String,
    pub(super) field: String,
}

impl Module {
    /// The fields an upsert is to look at, in their order; refuses fields that are neither the system's nor unique.
    pub(super) fn check_fields(&self, listed: Option<&Value>) -> Result<Vec<String>, Refusal> {
        let refuse = |details: Value| Refusal::new("INVALID_DATA", "invalid data", details);
        let listed: Vec<&str> = match listed {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(_) => {
                return Err(refuse(json!({ "api_name": "duplicate_check_fields", "expected_data_type": "jsonarray" })));
            }
        };
        if listed.len() > MOST_CHECK_FIELDS {
            let details = json!({ "maximum_length": MOST_CHECK_FIELDS, "api_name": "duplicate_check_fields" });
            return Err(Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details));
        }
        for (index, name) in listed.iter().enumerate() {
            if !self.field(name).is_some_and(|field| self.is_duplicate_field(field)) {
                return Err(refuse(json!({
                    "api_name": "duplicate_check_fields",
                    "json_path": format!("$.duplicate_check_fields[{index}]"),
                    "value": name,
                })));
            }
        }
        let first = if listed.is_empty() { vec![system_field(&self.name)] } else { listed };
        let unique = self.fields.iter().filter(|field| field.spec.unique).map(Field::name);
        let mut order: Vec<String> = Vec::new();
        for name in first.into_iter().chain(unique) {
            if !order.iter().any(|known| known == name) {
                order.push(name.to_owned());
            }
        }
        Ok(order)
    }

    /// The first record that shares a value with this one, field by field in this order.
    pub(super) fn matched(&self, values: &Values, order: &[String]) -> Option<Match> {
        order.iter().find_map(|name| {
            let id = self.find(self.field(name)?, values.get(name)?, None)?;
            Some(Match { id, field: name.clone() })
        })
    }

    /// The oldest record other than `except` that has this value.
    pub(super) fn find(&self, field: &Field, value: &Value, except: Option<&str>) -> Option<String> {
        let ids = self.index.get(field.name())?.get(&field.index_key(value)?)?;
        ids.iter().find(|id| except != Some(id.as_str())).cloned()
    }

    /// Writes these values over those of the record, or makes it. Times are cut to the second.
    pub(super) fn store(&mut self, id: &str, values: Values, stamp: &Stamp) {
        self.take_from_index(id);
        let now = to_second(stamp.now);
        let record = self.records.entry(id.to_owned()).or_insert_with(|| Record {
            values: Values::new(),
            created: now,
            modified: now,
            by_person: stamp.by_person,
            written: stamp.now,
            indexed: None,
        });
        if record.written + stamp.lag <= stamp.now && !record.values.is_empty() {
            record.indexed = Some(record.values.clone());
        }
        record.values.extend(values);
        record.modified = now;
        record.written = stamp.now;
        record.by_person = stamp.by_person;
        let stored = record.values.clone();
        self.add_to_index(id, &stored);
    }

    /// Takes a record out, into the deleted list.
    pub(super) fn remove(&mut self, id: &str, permanent: bool, stamp: &Stamp) -> bool {
        self.take_from_index(id);
        let Some(record) = self.records.remove(id) else {
            return false;
        };
        let name = record.values.get(name_field(&self.name)).cloned().unwrap_or_default();
        self.deleted.push(Deleted { id: id.to_owned(), name, permanent, at: to_second(stamp.now), by_person: stamp.by_person });
        true
    }

    pub(super) fn add_to_index(&mut self, id: &str, values: &Values) {
        for (name, key) in self.index_entries(values) {
            self.index.entry(name).or_default().entry(key).or_default().insert(id.to_owned());
        }
    }

    fn take_from_index(&mut self, id: &str) {
        let Some(record) = self.records.get(id) else {
            return;
        };
        for (name, key) in self.index_entries(&record.values) {
            let Some(keys) = self.index.get_mut(&name) else {
                continue;
            };
            let Some(ids) = keys.get_mut(&key) else {
                continue;
            };
            ids.remove(id);
            if ids.is_empty() {
                keys.remove(&key);
            }
        }
    }

    fn index_entries(&self, values: &Values) -> Vec<(String, String)> {
        let indexed = self.fields.iter().filter(|field| self.is_duplicate_field(field));
        indexed.filter_map(|field| Some((field.name().to_owned(), field.index_key(values.get(field.name())?)?))).collect()
    }
}
