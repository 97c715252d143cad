//! The fields that a CRM module needs for a sync, and which of them it lacks. Pure; it asks and makes nothing.
//!
//! Sources: the CRM sheet §5 (fields: what a list says of them, what can be made over the API).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sluice_core::config::field::{Field, Meanings};

use crate::definition::Definition;
use crate::module::{Create, Refusal};
use crate::value;

/// Longest label that Zoho takes for a new field.
const MAX_LABEL: usize = 25;
/// Longest text of a new field.
const TEXT_LENGTH: u16 = 255;

/// A field of the module that the sync writes or reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its API name.
    pub api_name: String,
    /// Zoho's word for its type; `None`: it cannot be made (a lookup, a subform).
    pub data_type: Option<&'static str>,
    /// The values that a picklist must have: those that are sent.
    pub values: Vec<String>,
    /// Two records must not share a value: creates are found by it.
    pub unique: bool,
}

/// What a module lacks.
#[derive(Debug, Clone, PartialEq)]
pub enum Need {
    /// A field that can be made: its API name, and the body of the request.
    Field(String, Value),
    /// Values of a picklist: the field's API name and id, the values, and the body of the request.
    Values(String, String, Vec<String>, Value),
    /// Something that only a person can do: which field, and what.
    Person(String, String),
}

/// The fields that the sync needs. `yields` says what type each expression has that is neither a column nor has `values`.
pub fn wanted(definition: &Definition, yields: &BTreeMap<String, String>) -> Vec<Wanted> {
    let unique: BTreeSet<String> = match definition.create_way() {
        Create::Refused { by: Refusal::Upsert { fields } } => fields.into_iter().collect(),
        _ => BTreeSet::new(),
    };
    let system = definition.module.facts.duplicate_check;
    let is_unique = |name: &str| unique.contains(name) && system != Some(name);
    let text = Some("text");
    let reference =
        definition.reference().map(|name| Wanted { api_name: name.to_owned(), data_type: text, values: Vec::new(), unique: true });
    let fields = definition.fields().iter().filter(|(path, _)| !path.contains('.') && *path != "id").map(|(path, field)| {
        let (data_type, values) = match field {
            Field::Column(field) if !field.values.is_empty() => (Some("picklist"), sent(&field.values)),
            Field::Sql(field) if !field.values.is_empty() => (Some("picklist"), sent(&field.values)),
            Field::Column(field) => (definition.table.column(&field.column).map(|column| data_type(&column.base_type)), Vec::new()),
            Field::Sql(_) => (Some(yields.get(path).map_or("text", |name| data_type(name))), Vec::new()),
            Field::Value(constant) => (Some(if constant.is_boolean() { "boolean" } else { "text" }), Vec::new()),
            Field::Ref(_) | Field::List(_) | Field::Rows(_) | Field::File(_) => (None, Vec::new()),
        };
        // only texts can be unique keys
        let data_type = if is_unique(path) { text } else { data_type };
        Wanted { api_name: path.clone(), data_type, values, unique: is_unique(path) }
    });
    let marks =
        definition.sync.mark.iter().filter(|(name, _)| definition.sync.direction.pushes() && !definition.fields().contains_key(*name));
    let marks = marks.map(|(name, value)| {
        let data_type = match value {
            Value::Bool(_) => "boolean",
            Value::Number(_) => "double",
            _ => "text",
        };
        Wanted { api_name: name.clone(), data_type: Some(data_type), values: vec![value::scalar_text(value)], unique: false }
    });
    reference.into_iter().chain(fields).chain(marks).collect()
}

/// What the module lacks, given its fields as Zoho lists them.
pub fn needs(wanted: &[Wanted], fields: &[Value]) -> Vec<Need> {
    wanted.iter().filter_map(|one| need(one, fields.iter().find(|field| field["api_name"] == one.api_name.as_str()))).collect()
}

fn need(wanted: &Wanted, field: Option<&Value>) -> Option<Need> {
    let name = wanted.api_name.clone();
    let person = |what: String| Some(Need::Person(name.clone(), what));
    let Some(field) = field else {
        let label = name.replace('_', " ");
        return match wanted.data_type {
            None => person("is missing, and lookups and subforms are made by hand: in Zoho, Settings, Modules and Fields".to_owned()),
            Some(_) if label.chars().count() > MAX_LABEL => {
                person(format!("is missing, and Zoho takes labels of at most {MAX_LABEL} characters over the API: make it by hand"))
            }
            Some(data_type) => Some(Need::Field(name.clone(), body(wanted, &label, data_type))),
        };
    };
    let is_unique = field["unique"].as_object().is_some_and(|unique| !unique.is_empty()) || field["external"].is_object();
    if wanted.unique && !is_unique {
        return person(
            "is not marked unique in Zoho, so a create could double: edit the field, \"Do not allow duplicate values\"".to_owned(),
        );
    }
    // a picklist that lists nothing takes any text
    let listed = field["pick_list_values"].as_array().filter(|listed| !listed.is_empty())?;
    let has = |value: &String| listed.iter().any(|one| one["actual_value"] == value.as_str() || one["display_value"] == value.as_str());
    let missing: Vec<String> = wanted.values.iter().filter(|value| !has(value)).cloned().collect();
    if missing.is_empty() {
        return None;
    }
    let Some(id) = field["id"].as_str() else { return person(format!("lacks the values {}", missing.join(", "))) };
    // all of them, since what is left out may be taken away
    let all: Vec<Value> = listed.iter().cloned().chain(missing.iter().map(pick)).collect();
    let body = json!({ "fields": [{ "id": id, "pick_list_values": all }] });
    Some(Need::Values(name.clone(), id.to_owned(), missing, body))
}

fn body(wanted: &Wanted, label: &str, data_type: &str) -> Value {
    let mut field = json!({ "field_label": label, "data_type": data_type });
    if data_type == "text" {
        field["length"] = TEXT_LENGTH.into();
    }
    if wanted.unique {
        field["unique"] = json!({ "case_sensitive": false });
    }
    if data_type == "picklist" {
        field["pick_list_values"] = wanted.values.iter().map(pick).collect();
    }
    field
}

fn pick(value: &String) -> Value {
    json!({ "display_value": value, "actual_value": value })
}

fn sent(values: &BTreeMap<String, Meanings>) -> Vec<String> {
    let sent: BTreeSet<String> = values.values().map(|meanings| value::scalar_text(meanings.sent())).collect();
    sent.into_iter().collect()
}

/// Zoho's word for a type of PostgreSQL's, by either of its names.
fn data_type(name: &str) -> &'static str {
    match name {
        "int2" | "int4" | "smallint" | "integer" => "integer",
        "int8" | "bigint" => "bigint",
        "numeric" | "float4" | "float8" | "real" | "double precision" => "double",
        "bool" | "boolean" => "boolean",
        "date" => "date",
        "timestamptz" | "timestamp" | "timestamp with time zone" | "timestamp without time zone" => "datetime",
        _ => "text",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str, data_type: Option<&'static str>, values: &[&str], unique: bool) -> Wanted {
        Wanted { api_name: name.to_owned(), data_type, values: values.iter().map(|value| (*value).to_owned()).collect(), unique }
    }

    #[test]
    fn a_missing_field_is_made_with_its_type_its_values_and_its_uniqueness() {
        let wanted = [
            field("Contract_Number", Some("text"), &[], true),
            field("Signed_On", Some("date"), &[], false),
            field("Tier", Some("picklist"), &["High", "Low"], false),
            field("There", Some("text"), &[], false),
        ];
        let needs = needs(&wanted, &[json!({"api_name": "There", "unique": {}})]);
        let made = |name: &str, body: Value| Need::Field(name.to_owned(), body);
        assert_eq!(
            needs,
            [
                made(
                    "Contract_Number",
                    json!({"field_label": "Contract Number", "data_type": "text", "length": 255, "unique": {"case_sensitive": false}})
                ),
                made("Signed_On", json!({"field_label": "Signed On", "data_type": "date"})),
                made(
                    "Tier",
                    json!({"field_label": "Tier", "data_type": "picklist", "pick_list_values": [pick(&"High".to_owned()), pick(&"Low".to_owned())]})
                ),
            ]
        );
    }

    #[test]
    fn missing_values_are_added_to_those_there_are_and_a_list_that_takes_anything_needs_none() {
        let listed = |values: &[&str]| {
            let values: Vec<Value> = values.iter().map(|value| pick(&(*value).to_owned())).collect();
            json!({"id": "7", "api_name": "Stage", "pick_list_values": values})
        };
        let wanted = [field("Stage", Some("picklist"), &["Won", "Lost"], false)];
        assert_eq!(needs(&wanted, &[listed(&["Lost", "Won", "Open"])]), []);
        assert_eq!(needs(&wanted, &[listed(&[])]), []);
        let Some(Need::Values(name, id, missing, body)) = needs(&wanted, &[listed(&["Open", "Lost"])]).pop() else { panic!("values") };
        assert_eq!((name.as_str(), id.as_str(), missing), ("Stage", "7", vec!["Won".to_owned()]));
        assert_eq!(body["fields"][0]["pick_list_values"].as_array().map(Vec::len), Some(3));
    }

    #[test]
    fn a_field_that_only_a_mark_sets_is_looked_for_and_so_is_its_value() {
        let file = "[people]\nconnection = \"main\"\ntable = \"people\"\nkey = \"id\"\nmodule = \"crm/Contacts\"\nmatch_on = [\"Email\"]\non_delete = \"mark\"\n\
                    mark = { Standing = \"Left\", Title = \"gone\" }\nfields = { Email = \"email\", Title = \"title\" }";
        let tables = [crate::fixture::table("people", &[("id", "int8"), ("email", "text"), ("title", "text")])];
        let (people, _) = crate::fixture::compile(file, "people", &tables).expect("a definition");
        let wanted = wanted(&people, &BTreeMap::new());
        assert_eq!(wanted.iter().filter(|one| one.api_name == "Standing").count(), 1);
        assert_eq!(wanted.iter().filter(|one| one.api_name == "Title").count(), 1, "mapped, and so looked for already");
        let listed = json!({"id": "7", "api_name": "Standing", "pick_list_values": [pick(&"Active".to_owned())]});
        let there = |name: &str| json!({"api_name": name, "unique": {"case_sensitive": false}});
        let needs = needs(&wanted, &[there("Email"), there("Title"), listed]);
        assert!(matches!(&needs[..], [Need::Values(name, _, missing, _)] if name == "Standing" && missing == &["Left"]), "{needs:?}");
    }

    #[test]
    fn what_the_api_cannot_make_is_a_persons() {
        for (wanted, field, said) in [
            (field("Owner_Of", None, &[], false), None, "by hand"),
            (field("A_Name_Of_More_Than_Twenty_Five_Letters", Some("text"), &[], false), None, "at most 25"),
            (field("Key", Some("text"), &[], true), Some(json!({"api_name": "Key", "unique": {}})), "not marked unique"),
        ] {
            let needs = needs(&[wanted], field.as_slice());
            assert!(matches!(&needs[..], [Need::Person(_, what)] if what.contains(said)), "{needs:?}");
        }
    }
}
