//! Whether a record may be written: types, lengths, mandatory fields, and values that must be unique.

use chrono::NaiveDate;
use serde_json::{Value, json};

use super::{Crm, Module, Refusal, Values, meta::Field};
use crate::clock::parse_time;

/// Longest list that a multi-select or a subform may hold.
const MOST_ITEMS: usize = 200;

impl Crm {
    /// The storable values of a record and everything that is wrong with it.
    ///
    /// Unknown names are dropped, as Zoho does, and returned so that they can be recorded.
    pub(super) fn check(&self, module: &Module, given: &Values, at: usize) -> (Values, Vec<Refusal>, Vec<String>) {
        let (mut values, mut errors, mut ignored) = (Values::new(), Vec::new(), Vec::new());
        for (name, value) in given.iter().filter(|(name, _)| *name != "id" && !name.starts_with('$')) {
            match module.field(name) {
                None => ignored.push(name.clone()),
                Some(field) if field.read_only => ignored.push(name.clone()),
                Some(field) => match self.check_value(field, value, at) {
                    Ok(value) => {
                        values.insert(name.clone(), value);
                    }
                    Err(refusal) => errors.push(refusal),
                },
            }
        }
        (values, errors, ignored)
    }

    fn check_value(&self, field: &Field, value: &Value, at: usize) -> Result<Value, Refusal> {
        let wrong_type = || {
            let mut details = place(field, at);
            details["expected_data_type"] = field.json_type().into();
            Refusal::new("INVALID_DATA", "invalid data", details)
        };
        if value.is_null() || value.as_str().is_some_and(str::is_empty) {
            return Ok(Value::Null);
        }
        match field.spec.data_type.as_str() {
            "integer" if value.is_i64() => Ok(value.clone()),
            "bigint" if value.is_i64() || value.as_str().is_some_and(|text| text.parse::<i64>().is_ok()) => Ok(value.clone()),
            "double" | "currency" | "percent" if value.is_number() => Ok(value.clone()),
            "boolean" if value.is_boolean() => Ok(value.clone()),
            "date" => match value.as_str().map(str::parse::<NaiveDate>) {
                Some(Ok(_)) => Ok(value.clone()),
                _ => Err(wrong_type()),
            },
            "datetime" if value.as_str().and_then(parse_time).is_some() => Ok(value.clone()),
            "lookup" => self.check_lookup(field, value, at),
            "ownerlookup" | "jsonobject" if value.is_object() => Ok(value.clone()),
            "multiselectpicklist" | "subform" => match value.as_array() {
                Some(items) if items.len() <= MOST_ITEMS => Ok(value.clone()),
                _ => Err(wrong_type()),
            },
            "integer" | "bigint" | "double" | "currency" | "percent" | "boolean" | "datetime" | "ownerlookup" | "jsonobject" => {
                Err(wrong_type())
            }
            _ => check_text(field, value, at).ok_or_else(wrong_type)?,
        }
    }

    fn check_lookup(&self, field: &Field, value: &Value, at: usize) -> Result<Value, Refusal> {
        let Some(object) = value.as_object() else {
            let mut details = place(field, at);
            details["expected_data_type"] = "jsonobject".into();
            return Err(Refusal::new("INVALID_DATA", "invalid data", details));
        };
        let id = match object.get("id") {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => {
                let details = json!({
                    "api_name": "id", "json_path": format!("$.data[{at}].{}.id", field.name()),
                    "parent_api_name": field.name(),
                });
                return Err(Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details));
            }
        };
        let target = field.spec.lookup.as_ref().and_then(|name| self.modules.get(name));
        if target.is_some_and(|module| !module.records.contains_key(&id)) {
            let details = json!({
                "api_name": field.name(), "json_path": format!("$.data[{at}].{}.id", field.name()), "id": id,
            });
            return Err(Refusal::new("INVALID_DATA", "the id given seems to be invalid", details));
        }
        Ok(json!({ "id": id }))
    }
}

/// Text in its shape and length; `None` if it is not text or not of its shape.
fn check_text(field: &Field, value: &Value, at: usize) -> Option<Result<Value, Refusal>> {
    let text = value.as_str()?;
    if field.spec.data_type == "email" && (!text.contains('@') || text.contains(char::is_whitespace)) {
        return None;
    }
    if text.chars().count() > field.spec.length {
        let mut details = place(field, at);
        details["maximum_length"] = field.spec.length.into();
        return Some(Err(Refusal::new("INVALID_DATA", "invalid data", details)));
    }
    if !field.spec.pick_list.is_empty() && !field.spec.pick_list.iter().any(|pick| pick == text) {
        let mut details = place(field, at);
        details["supported_values"] = json!(field.spec.pick_list);
        return Some(Err(Refusal::new("INVALID_DATA", "invalid data", details)));
    }
    Some(Ok(value.clone()))
}

fn place(field: &Field, at: usize) -> Value {
    json!({ "api_name": field.name(), "json_path": format!("$.data[{at}].{}", field.name()) })
}

impl Module {
    /// Mandatory fields that a new record lacks, or that a change would empty.
    pub(super) fn missing(&self, values: &Values, creating: bool, at: usize) -> Vec<Refusal> {
        let lacks = |field: &&Field| match values.get(field.name()) {
            None => creating,
            Some(value) => value.is_null() || value.as_array().is_some_and(Vec::is_empty),
        };
        let mandatory = self.fields.iter().filter(|field| field.spec.mandatory);
        mandatory.filter(lacks).map(|field| Refusal::new("MANDATORY_NOT_FOUND", "required field not found", place(field, at))).collect()
    }

    /// Unique values that another record than `own` already has.
    pub(super) fn duplicates(&self, values: &Values, own: Option<&str>, at: usize, owner: &str) -> Vec<Refusal> {
        let unique = self.fields.iter().filter(|field| field.spec.unique);
        unique
            .filter_map(|field| {
                let other = self.find(field, values.get(field.name())?, own)?;
                let mut details = place(field, at);
                details["id"] = other.clone().into();
                details["more_records"] = false.into();
                details["duplicate_record"] = json!({
                    "id": other,
                    "Owner": { "id": owner, "name": "Simulated User" },
                    "module": { "api_name": self.name, "id": self.id },
                });
                Some(Refusal::new("DUPLICATE_DATA", "duplicate data", details))
            })
            .collect()
    }
}

/// One refusal for a record: the only one, or all of them together.
pub(super) fn combined(mut errors: Vec<Refusal>) -> Refusal {
    if errors.len() == 1 {
        return errors.remove(0);
    }
    let errors: Vec<Value> = errors.iter().map(Refusal::to_json).collect();
    Refusal::new("MULTIPLE_OR_MULTI_ERRORS", "multiple errors in the record", json!({ "errors": errors }))
}
