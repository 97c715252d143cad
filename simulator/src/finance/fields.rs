//! Which fields a module takes, of what type and length, and how a body is checked against them.
//!
//! Top-level keys that are not in the table are ignored, as Zoho does; they are recorded, since a client that sends
//! them believes they are stored.

use chrono::NaiveDate;
use serde_json::{Map, Value, json};

use super::{Context, Record, Refusal};
use crate::money::Money;

/// The type of a field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// Text of less than so many characters (code 15).
    Text(usize),
    Email,
    Money,
    Whole,
    Flag,
    Date,
    Id,
    Object,
    List,
    CustomFields,
}

/// One field of a module.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) mandatory: bool,
}

pub(crate) const fn must(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, mandatory: true }
}

pub(crate) const fn may(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, mandatory: false }
}

/// The fields that a body gives, checked and in their stored form.
///
/// `creating` makes absent mandatory fields an error; an update leaves what is absent as it is.
pub(crate) fn read(module: &str, fields: &[Field], body: &Record, creating: bool, context: &mut Context<'_>) -> Result<Record, Refusal> {
    let mut read = Map::new();
    for field in fields {
        match body.get(field.name) {
            None if field.mandatory && creating => return Err(Refusal::missing(field.name)),
            None => {}
            Some(value) if is_blank(value) && field.mandatory => {
                return Err(Refusal::missing(field.name));
            }
            Some(value) if is_blank(value) => {
                read.insert(field.name.to_owned(), "".into());
            }
            Some(value) => {
                read.insert(field.name.to_owned(), check(field, value)?);
            }
        }
    }
    for name in body.keys().filter(|name| !fields.iter().any(|field| field.name == name.as_str())) {
        context.log.ignored_field(module, name);
    }
    Ok(read)
}

fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.trim().is_empty(),
        _ => false,
    }
}

fn check(field: &Field, value: &Value) -> Result<Value, Refusal> {
    let invalid = || Refusal::invalid(field.name);
    match field.kind {
        Kind::Text(limit) => {
            let text = scalar(value).ok_or_else(invalid)?;
            if text.chars().count() >= limit {
                let message = format!("Please ensure that the {} has less than {limit} characters.", field.name);
                return Err(Refusal::new(400, 15, message));
            }
            Ok(text.into())
        }
        Kind::Email => match value.as_str() {
            Some(text) if is_email(text) => Ok(text.into()),
            _ => Err(invalid()),
        },
        Kind::Money => Money::from_json(value).map(Money::to_json).ok_or_else(invalid),
        Kind::Whole => {
            let text = scalar(value).ok_or_else(invalid)?;
            text.parse::<i64>().map(Value::from).map_err(|_| invalid())
        }
        Kind::Flag => match value {
            Value::Bool(flag) => Ok((*flag).into()),
            Value::String(text) if text == "true" || text == "false" => Ok((text == "true").into()),
            _ => Err(invalid()),
        },
        Kind::Date => match value.as_str().map(|text| NaiveDate::parse_from_str(text, "%Y-%m-%d")) {
            Some(Ok(date)) => Ok(date.to_string().into()),
            _ => Err(invalid()),
        },
        Kind::Id => id(value).map(Value::from).ok_or_else(invalid),
        Kind::Object if value.is_object() => Ok(value.clone()),
        Kind::List | Kind::CustomFields if value.is_array() => Ok(value.clone()),
        Kind::Object | Kind::List | Kind::CustomFields => Err(invalid()),
    }
}

/// An id as text, whether it came as a string or as a number (finance fact 2.4).
pub(crate) fn id(value: &Value) -> Option<String> {
    scalar(value).filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Text, or a number as text: Zoho takes `"phone": 23467278`.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

fn is_email(text: &str) -> bool {
    let Some((name, host)) = text.split_once('@') else {
        return false;
    };
    !name.is_empty()
        && host.contains('.')
        && !host.starts_with('.')
        && !host.ends_with('.')
        && text.len() < 200
        && !text.contains(char::is_whitespace)
        && !host.contains('@')
}

/// Puts the given custom fields over those of the record, as `custom_fields` and `custom_field_hash`.
///
/// An entry is named by `api_name`, `label`, `customfield_id` or `index` (finance fact 4.1: all are in use).
pub(crate) fn merge_custom_fields(record: &mut Record, given: Value, known: Option<&[String]>) -> Result<(), Refusal> {
    let Value::Array(given) = given else {
        return Ok(());
    };
    let mut rows = match record.remove("custom_fields") {
        Some(Value::Array(rows)) => rows,
        _ => Vec::new(),
    };
    for entry in given {
        let (Some(name), Some(value)) = (api_name(&entry, &rows), entry.get("value")) else {
            return Err(Refusal::invalid("custom_fields"));
        };
        if known.is_some_and(|known| !known.contains(&name)) {
            return Err(Refusal::invalid(&name));
        }
        match rows.iter_mut().find(|row| row["api_name"] == *name) {
            Some(row) => row["value"] = value.clone(),
            None => rows.push(new_row(&name, &entry, value, rows.len() + 1)),
        }
    }
    let hash = rows.iter().flat_map(|row| {
        let name = row["api_name"].as_str().unwrap_or_default();
        [(name.to_owned(), row["value"].clone()), (format!("{name}_unformatted"), row["value"].clone())]
    });
    record.insert("custom_field_hash".to_owned(), Value::Object(hash.collect()));
    record.insert("custom_fields".to_owned(), rows.into());
    Ok(())
}

fn new_row(name: &str, entry: &Value, value: &Value, index: usize) -> Value {
    let label = entry.get("label").and_then(Value::as_str).unwrap_or(name);
    json!({ "index": index, "label": label, "api_name": name, "value": value, "data_type": "text" })
}

fn api_name(entry: &Value, rows: &[Value]) -> Option<String> {
    let text = |key: &str| entry.get(key).and_then(scalar);
    if let Some(name) = text("api_name").or_else(|| text("customfield_id")) {
        return Some(name);
    }
    if let Some(label) = text("label") {
        let slug: String = label.to_lowercase().chars().map(|letter| if letter.is_alphanumeric() { letter } else { '_' }).collect();
        return Some(if slug.starts_with("cf_") { slug } else { format!("cf_{slug}") });
    }
    let index = text("index")?;
    let existing = rows.iter().find(|row| scalar(&row["index"]).as_deref() == Some(&index));
    let known = existing.and_then(|row| row["api_name"].as_str().map(str::to_owned));
    Some(known.unwrap_or_else(|| format!("cf_{index}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::{id, is_email, merge_custom_fields};

    #[test]
    fn custom_fields_are_merged_by_name_however_they_are_named() {
        let mut record = Map::new();
        merge_custom_fields(&mut record, json!([{ "label": "Sluice key", "value": "a:1" }]), None).expect("by label");
        merge_custom_fields(&mut record, json!([{ "api_name": "cf_sluice_key", "value": "a:2" }]), None).expect("by name");
        merge_custom_fields(&mut record, json!([{ "index": 1, "value": "a:3" }]), None).expect("by index");
        assert_eq!(record["custom_fields"].as_array().map(Vec::len), Some(1));
        assert_eq!(record["custom_field_hash"]["cf_sluice_key"], "a:3");
    }

    #[test]
    fn an_unknown_custom_field_is_refused_by_name() {
        let known = ["cf_a".to_owned()];
        let refused = merge_custom_fields(&mut Map::new(), json!([{ "label": "B", "value": 1 }]), Some(&known));
        assert_eq!(refused.expect_err("unknown").message, "Invalid value passed for cf_b");
    }

    #[test]
    fn ids_are_taken_as_text_and_as_numbers() {
        assert_eq!(id(&json!(460_000_000_000_026_003_u64)).as_deref(), Some("460000000000026003"));
        assert_eq!(id(&json!("460000000000026003")).as_deref(), Some("460000000000026003"));
        assert_eq!(id(&json!("abc")), None);
        assert_eq!(id(&json!(1.5)), None);
    }

    #[test]
    fn an_address_needs_a_name_and_a_host() {
        assert!(is_email("a@b.example"));
        for text in ["", "a", "@b.c", "a@b", "a b@c.d", "a@b@c.d", "a@.c"] {
            assert!(!is_email(text), "{text}");
        }
    }
}
