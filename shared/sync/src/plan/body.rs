//! Builds what is sent: dots become objects, references Zoho ids, `cf_…` fields of the finance products `custom_fields`.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sluice_core::config::field::Field;

use super::{Write, is_pushed};
use crate::definition::Definition;
use crate::link::Link;
use crate::link::agreed::LINE_ID;
use crate::read::{Parents, Ref, Row};
use crate::value;

/// The body that carries these fields, or the references that have no Zoho id yet. Without a linked record it creates, and carries our
/// reference; with one, null clears what was there.
pub(super) fn write(
    definition: &Definition,
    row: &Row,
    link: Option<&Link>,
    sent: Vec<String>,
    parents: &Parents,
) -> Result<Write, Vec<Ref>> {
    let fields = || sent.iter().filter_map(|path| Some((path, row.fields.get(path)?)));
    let missing: Vec<Ref> = fields()
        .flat_map(|(path, field)| field.refs(path))
        .filter(|one| !parents.contains_key(&(one.sync.clone(), one.key.clone())))
        .collect();
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut body = Body { object: Map::new(), custom: Vec::new(), nests: definition.module.nests_custom_fields() };
    let linked = link.filter(|link| link.zoho_id.is_some());
    for (path, field) in fields() {
        let Some(mut value) = field.sent(path, parents, definition.module.wraps_lookups()) else {
            continue;
        };
        if value.is_null() {
            value = definition.module.cleared();
        }
        if let (Some(link), Some(Field::List(_))) = (linked, definition.fields().get(path)) {
            keep_lines(&mut value, link, path);
        }
        body.put(path, value);
    }
    let reference = definition.reference().filter(|field| linked.is_none() || (field.starts_with("cf_") && !body.custom.is_empty()));
    if let Some(field) = reference {
        body.put(field, Value::String(definition.reference_of(&row.key, link)));
    }
    Ok(Write { body: body.finish(), sent })
}

/// The fields that must travel with the changed ones: an update is partial only at the top level (finance sheet §5), so an object is
/// sent whole, and so is `custom_fields`. Neighbours that are null are left out.
pub(super) fn with_neighbours(definition: &Definition, row: &Row, changed: &BTreeSet<String>) -> Vec<String> {
    let nests = definition.module.nests_custom_fields();
    let top = |path: &str| match path.split('.').next() {
        Some(field) if nests && field.starts_with("cf_") => "custom_fields".to_owned(),
        field => field.unwrap_or_default().to_owned(),
    };
    let touched: BTreeSet<String> = changed.iter().map(|path| top(path)).collect();
    let together = row.fields.iter().filter(|(path, field)| {
        changed.contains(*path) || (touched.contains(&top(path)) && is_pushed(definition, path) && !field.is_null())
    });
    together.map(|(path, _)| path.clone()).collect()
}

/// The body of `on_delete = "mark"`.
pub(super) fn mark(definition: &Definition) -> Value {
    let mut body = Body { object: Map::new(), custom: Vec::new(), nests: definition.module.nests_custom_fields() };
    for (path, value) in &definition.sync.mark {
        body.put(path, value.clone());
    }
    body.finish()
}

/// Makes a CRM subform's rows replace the ones that the record has, given the record as it was just read: rows sent without id are
/// appended, so the old ones are named for deletion (CRM sheet §2.3).
pub fn replace_rows(body: &mut Value, subform: &str, record: &Value) {
    let old: Vec<Value> = value::at(record, subform)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|row| Some(json!({ "id": row.get("id")?, "_delete": null })))
        .collect();
    let Value::Object(object) = body else { return };
    if let Some(Value::Array(rows)) = value::at(&Value::Object(object.clone()), subform).cloned() {
        value::put(object, subform, Value::Array(rows.into_iter().chain(old).collect()));
    }
}

/// A kept line must carry its id, or Zoho deletes it and makes another (finance sheet §5): lines are kept by position.
fn keep_lines(value: &mut Value, link: &Link, path: &str) {
    let (Value::Array(lines), Some(Value::Array(known))) = (value, link.fields.get(path).map(|pair| &pair.zoho)) else {
        return;
    };
    for (line, known) in lines.iter_mut().zip(known) {
        if let (Value::Object(line), Some(id)) = (line, known.get(LINE_ID)) {
            line.entry(LINE_ID).or_insert_with(|| id.clone());
        }
    }
}

struct Body {
    object: Map<String, Value>,
    custom: Vec<Value>,
    nests: bool,
}

impl Body {
    fn put(&mut self, path: &str, value: Value) {
        if self.nests && path.starts_with("cf_") {
            self.custom.push(json!({ "api_name": path, "value": value }));
        } else {
            value::put(&mut self.object, path, value);
        }
    }

    fn finish(mut self) -> Value {
        if !self.custom.is_empty() {
            self.object.insert("custom_fields".to_owned(), Value::Array(self.custom));
        }
        Value::Object(self.object)
    }
}
