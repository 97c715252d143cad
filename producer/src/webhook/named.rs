//! What an event names: of which sync, which records, and what it tells about when and what. Pure, and lenient: an event that cannot be made out
//! is acknowledged and shown, never refused for it.
//!
//! Three kinds arrive. CRM's notifications carry ids without values (crm §4.1). The finance suite sends the record as its API shows it, under its
//! key or flat, as JSON or in the form field `JSONString` (fin §7.2), Billing also inside an event (fin §7.4). And a workflow rule's own body
//! has whatever its author put there (crm §4.2, fin §8.6).

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use sluice_sync::module::parse_time;

use super::{Target, masked};

/// Records that one event may name. More are a mass change, which a person looks at first.
pub(super) const RECORDS_MAX: usize = 1000;
/// Characters of an id.
const ID_MAX: usize = 200;
/// Where a hand-made body, or the address, names record, module and operation.
const ID_KEYS: [&str; 4] = ["ids", "id", "record_id", "zoho_id"];
const MODULE_KEYS: [&str; 3] = ["module", "entity", "resource"];
const OPERATION_KEYS: [&str; 3] = ["operation", "event_type", "event"];
const MODIFIED_KEYS: [&str; 4] = ["last_modified_time", "updated_time", "Modified_Time", "modified_time"];

/// What is known of an event; the fields are columns of `sluice.event`.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(crate) struct Named {
    pub(crate) sync: Option<String>,
    pub(crate) module: Option<String>,
    pub(crate) operation: Option<String>,
    pub(crate) zoho_ids: Vec<String>,
    pub(crate) modified_at: Option<DateTime<Utc>>,
    pub(crate) occurred_at: Option<DateTime<Utc>>,
    /// Record → fields that changed; `*` for those of every record.
    pub(crate) affected: Option<Value>,
    /// Billing's number of the event.
    #[serde(skip)]
    pub(super) event_id: Option<String>,
    #[serde(skip)]
    pub(super) channel_id: Option<String>,
    /// Why it leads to nothing, if it does.
    #[serde(skip)]
    pub(super) unclear: Option<String>,
}

/// The body as a value: JSON, or the JSON in a form's `JSONString`, or a form's fields.
pub(super) fn document(json: Option<&Value>, form: Option<&[(String, String)]>) -> Option<Value> {
    let Some(fields) = form else { return json.cloned() };
    let whole = fields.iter().find(|(name, _)| name.eq_ignore_ascii_case("JSONString"));
    if let Some(record) = whole.and_then(|(_, text)| serde_json::from_str(text).ok()) {
        return Some(record);
    }
    let field = |(name, text): &(String, String)| {
        let nested = text.starts_with(['{', '[']).then(|| serde_json::from_str(text).ok()).flatten();
        (name.clone(), nested.unwrap_or_else(|| Value::String(text.clone())))
    };
    Some(Value::Object(fields.iter().map(field).collect()))
}

/// `event_header`: the event's name where a header carries it (fin §7.3: X-ZOHO-Event).
pub(crate) fn named(document: Option<&Value>, query: &[(String, String)], event_header: Option<&str>, targets: &[Target]) -> Named {
    let parameter = |keys: &[&str]| {
        let found = keys.iter().find_map(|key| query.iter().find(|(name, _)| name == key));
        found.map(|(_, value)| masked::text(value)).filter(|value| !value.is_empty())
    };
    let mut named = Named { operation: event_header.map(masked::text).or_else(|| parameter(&OPERATION_KEYS)), ..Named::default() };
    let empty = Map::new();
    let top = match document {
        Some(Value::Object(top)) => top,
        Some(_) => return Named { unclear: Some("the body is no JSON object".to_owned()), ..named },
        None if query.is_empty() => return Named { unclear: Some("the body is neither JSON nor a form".to_owned()), ..named },
        None => &empty,
    };
    if top.get("ids").is_some_and(Value::is_array) && top.contains_key("module") {
        notification(top, &mut named);
        choose(targets, &mut named);
        return named;
    }
    let inner = envelope(top, &mut named);
    let record_of = inner.as_ref().unwrap_or(top);
    named.module = parameter(&MODULE_KEYS).or_else(|| words(record_of, &MODULE_KEYS));
    named.operation = named.operation.or_else(|| words(record_of, &OPERATION_KEYS));
    record(record_of, targets, &mut named);
    if named.zoho_ids.is_empty() && named.unclear.is_none() {
        named.zoho_ids =
            ids(query.iter().find(|(name, _)| ID_KEYS.contains(&name.as_str())).map(|(_, id)| Value::String(id.clone())).as_ref());
        choose(targets, &mut named);
    }
    named
}

/// CRM's notification: ids and the fields that changed, no values.
fn notification(top: &Map<String, Value>, named: &mut Named) {
    named.module = words(top, &["module"]);
    named.operation = words(top, &["operation"]).or(named.operation.take());
    named.channel_id = top.get("channel_id").and_then(scalar);
    named.occurred_at = top.get("server_time").and_then(scalar).and_then(|ms| ms.parse().ok()).and_then(DateTime::from_timestamp_millis);
    named.zoho_ids = ids(top.get("ids"));
    let mut affected: Map<String, Value> = Map::new();
    for entry in top.get("affected_fields").and_then(Value::as_array).into_iter().flatten() {
        let lists: Vec<(&str, &Value)> = match entry {
            Value::Object(by_record) => by_record.iter().map(|(id, fields)| (id.as_str(), fields)).collect(),
            field => vec![("*", field)],
        };
        for (id, fields) in lists {
            let new = fields.as_array().map_or(std::slice::from_ref(fields), Vec::as_slice);
            let list = affected.entry(masked::text(id)).or_insert_with(|| Value::Array(Vec::new()));
            if let Value::Array(list) = list {
                list.extend(new.iter().filter_map(scalar).map(|field| Value::String(masked::text(&field))));
            }
        }
    }
    named.affected = (!affected.is_empty()).then_some(Value::Object(affected));
}

/// Billing's event around the record, whose payload is a text of JSON, or `data`. `None`: there is no envelope.
fn envelope(top: &Map<String, Value>, named: &mut Named) -> Option<Map<String, Value>> {
    if !top.contains_key("event_type") && !top.contains_key("event_id") {
        return None;
    }
    named.event_id = top.get("event_id").and_then(scalar);
    named.operation = words(top, &["event_type"]).or(named.operation.take());
    named.occurred_at = words(top, &["event_time"]).as_deref().and_then(parse_time);
    match top.get("payload").or_else(|| top.get("data"))? {
        Value::String(text) => serde_json::from_str(text).ok(),
        Value::Object(inner) => Some(inner.clone()),
        _ => None,
    }
}

/// The record that an object carries, under its key or flat.
fn record(object: &Map<String, Value>, targets: &[Target], named: &mut Named) {
    let said = named.module.clone();
    let asked: Vec<&Target> = targets.iter().filter(|target| said.as_deref().is_none_or(|module| target.is_called(module))).collect();
    for target in &asked {
        if let Some(inner) = target.keys().iter().find_map(|key| object.get(key)).and_then(first_record) {
            return take(target, inner, named);
        }
    }
    let flat: Vec<&&Target> = asked.iter().filter(|target| target.id_in(object).is_some()).collect();
    match flat[..] {
        [target] => take(target, object, named),
        [] if asked.is_empty() => named.unclear = Some(format!("module {} has no sync here", said.unwrap_or_default())),
        [] => {
            named.zoho_ids = ID_KEYS.iter().map(|key| ids(object.get(*key))).find(|ids| !ids.is_empty()).unwrap_or_default();
            named.modified_at = modified_at(object);
            if named.zoho_ids.is_empty() {
                let keys: Vec<String> = object.keys().take(5).map(|key| masked::text(key)).collect();
                named.module = named.module.take().or_else(|| (object.len() == 1).then(|| keys[0].clone()));
            } else {
                choose(targets, named);
            }
        }
        _ => named.unclear = Some("it could be of several syncs; name the module in the address, as ?module=items".to_owned()),
    }
}

fn take(target: &Target, record: &Map<String, Value>, named: &mut Named) {
    named.sync = Some(target.sync.clone());
    named.module = named.module.take().or_else(|| Some(target.module.name.clone()));
    named.modified_at = modified_at(record);
    named.zoho_ids = target.id_in(record).into_iter().collect();
    if named.zoho_ids.is_empty() {
        named.unclear = Some("it carries a record without an id".to_owned());
    }
}

/// The sync of an event that names its module, or need not.
fn choose(targets: &[Target], named: &mut Named) {
    let called: Vec<&Target> =
        targets.iter().filter(|target| named.module.as_deref().is_none_or(|module| target.is_called(module))).collect();
    match (&called[..], &named.module) {
        ([], module) => named.unclear = Some(format!("module {} has no sync here", module.as_deref().unwrap_or_default())),
        _ if named.zoho_ids.is_empty() => named.unclear = Some("it names no record".to_owned()),
        ([target], _) => named.sync = Some(target.sync.clone()),
        _ => named.unclear = Some("it does not say of which module the record is; name it in the address, as ?module=items".to_owned()),
    }
}

impl Target {
    /// Whether an event that names `module` means this one: as the configuration spells it, as the API does, or in the singular.
    fn is_called(&self, module: &str) -> bool {
        let own = self.label.as_deref().is_some_and(|label| label.eq_ignore_ascii_case(module));
        own || self.module.name.eq_ignore_ascii_case(module) || self.record_key().eq_ignore_ascii_case(module)
    }

    /// Under which keys a payload may carry the record.
    fn keys(&self) -> Vec<String> {
        let mut keys = vec![self.record_key(), self.module.name.clone()];
        keys.extend(self.label.clone());
        keys.extend((self.record_key() != "data").then(|| "data".to_owned()));
        keys
    }

    /// What the product's single answers call the record; of a module that we know nothing about, its name in the singular.
    fn record_key(&self) -> String {
        match self.module.facts.record_key {
            "" => singular(&self.module.name),
            key => key.to_owned(),
        }
    }

    fn id_in(&self, record: &Map<String, Value>) -> Option<String> {
        let key = match self.module.facts.id_key {
            "" => format!("{}_id", singular(&self.module.name)),
            key => key.to_owned(),
        };
        ids(record.get(&key)).pop()
    }
}

fn singular(name: &str) -> String {
    match name.strip_suffix("ies") {
        Some(stem) => format!("{stem}y"),
        None => name.strip_suffix('s').unwrap_or(name).to_owned(),
    }
}

fn first_record(value: &Value) -> Option<&Map<String, Value>> {
    match value {
        Value::Object(record) => Some(record),
        Value::Array(records) if records.len() == 1 => records[0].as_object(),
        _ => None,
    }
}

fn modified_at(record: &Map<String, Value>) -> Option<DateTime<Utc>> {
    MODIFIED_KEYS.iter().find_map(|key| record.get(*key)).and_then(Value::as_str).and_then(parse_time)
}

fn words(object: &Map<String, Value>, keys: &[&str]) -> Option<String> {
    keys.iter().find_map(|key| object.get(*key)).and_then(Value::as_str).map(masked::text).filter(|text| !text.is_empty())
}

/// One id or a list of them, each a text or a number, and each once.
fn ids(value: Option<&Value>) -> Vec<String> {
    let all = match value {
        Some(Value::Array(all)) => all.as_slice(),
        Some(one) => std::slice::from_ref(one),
        None => &[],
    };
    let fits = |id: &String| (1..=ID_MAX).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic());
    let mut seen = BTreeSet::new();
    all.iter().filter_map(scalar).filter(fits).filter(|id| seen.insert(id.clone())).collect()
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(masked::text(text.trim())),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
#[path = "named/tests.rs"]
mod tests;
