//! From the statement's texts to a [`Row`]: exact numbers, value maps, references, lists.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::field::{Field, Fields, Meanings};

use super::row::{FieldValue, Problem};
use super::statement::NO_TIME;
use crate::value::scalar_text;

/// Decodes one field from its column's text, `None` being SQL's null. Constants pass `None`.
pub(super) fn field(path: &str, field: &Field, text: Option<&str>) -> Result<FieldValue, Problem> {
    let value = match text {
        None => Value::Null,
        Some(text) => serde_json::from_str(text).map_err(|error| Problem::payload(path, format!("its JSON cannot be read: {error}")))?,
    };
    match field {
        Field::List(list) => decode_list(path, &list.item, &list.or_else, &value),
        other => scalar(other, &value).map_err(|message| Problem::validation(path, message)),
    }
}

fn scalar(field: &Field, value: &Value) -> Result<FieldValue, String> {
    Ok(match field {
        Field::Value(constant) => FieldValue::Plain(constant.clone()),
        _ if value.is_null() => FieldValue::Plain(Value::Null),
        _ if value.get(NO_TIME).is_some() => {
            return Err(format!("Zoho has no form for the time {}: it knows the years 1 to 9999", scalar_text(&value[NO_TIME])));
        }
        Field::Sql(field) if field.values.is_empty() => FieldValue::Plain(value.clone()),
        Field::Sql(field) => translated(&field.values, value, "what the expression yields")?,
        Field::Ref(field) => FieldValue::Ref { sync: field.sync.clone(), key: scalar_text(value) },
        Field::Column(field) if field.values.is_empty() => FieldValue::Plain(value.clone()),
        Field::Column(field) => translated(&field.values, value, &format!("`{}`", field.column))?,
        Field::List(_) | Field::Rows(_) | Field::File(_) => return Err("a list cannot hold a list, or a file".to_owned()),
    })
}

/// What Zoho calls a local value, `of` saying whose.
fn translated(values: &BTreeMap<String, Meanings>, value: &Value, of: &str) -> Result<FieldValue, String> {
    let local = scalar_text(value);
    let Some(meanings) = values.get(&local) else {
        let known: Vec<&str> = values.keys().map(String::as_str).collect();
        return Err(format!("the value `{local}` of {of} is not in `values` ({})", known.join(", ")));
    };
    Ok(FieldValue::Plain(meanings.sent().clone()))
}

/// `{"item": [[…], …]}`, or `{"else": […]}` where `each` had no row; null there means that there is no fallback.
fn decode_list(path: &str, item: &Fields, or_else: &Fields, value: &Value) -> Result<FieldValue, Problem> {
    let elements = match (value.get("item"), value.get("else")) {
        (Some(Value::Array(rows)), _) => {
            let rows = rows.iter().enumerate();
            rows.map(|(index, row)| element(&format!("{path}[{index}]"), item, row)).collect::<Result<Vec<_>, _>>()?
        }
        (_, Some(row @ Value::Array(_))) => vec![element(&format!("{path}[0]"), or_else, row)?],
        _ => Vec::new(),
    };
    Ok(FieldValue::List(elements))
}

fn element(path: &str, fields: &Fields, row: &Value) -> Result<BTreeMap<String, FieldValue>, Problem> {
    let mut decoded = BTreeMap::new();
    for (index, (name, field)) in fields.iter().enumerate() {
        let value = row.get(index).unwrap_or(&Value::Null);
        let value = scalar(field, value).map_err(|message| Problem::validation(format!("{path}.{name}"), message))?;
        decoded.insert(name.clone(), value);
    }
    Ok(decoded)
}
