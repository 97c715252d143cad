//! What both sides agree on after a write, a match or a withdrawal. Pure.
//!
//! The local half is what was read from the row, never what was sent; Zoho's half is what Zoho answered, and only where its answer
//! does not carry the field what was sent, unconfirmed. A field absent from an answer is unknown, never empty.

use serde_json::{Map, Value};
use sluice_core::config::field::Field;

use super::adjusting::ADJUSTING;
use super::turns::{self, ROUNDS, TURNS};
use super::{Link, Pair, Pairs};
use crate::definition::Definition;
use crate::merge::COLUMN;
use crate::module::Module;
use crate::plan::{WITHDRAWN, Withdrawal, Write, is_pushed};
use crate::read::{Parents, Row};
use crate::value;

/// The pairs after a write that Zoho confirmed. `record` is the record in its answer, where it carries one (finance).
///
/// Fields that were not sent keep their pair, whatever the answer says of them: another's edit must stay visible as a change.
pub fn after_write(definition: &Definition, row: &Row, link: Option<&Link>, write: &Write, record: Option<&Value>) -> Pairs {
    let mut pairs = link.map(|link| link.fields.clone()).unwrap_or_default();
    pairs.remove(WITHDRAWN);
    pairs.retain(|field, _| {
        let mapped = |field: &str| definition.fields().contains_key(field);
        mapped(field)
            || field.starts_with(COLUMN)
            || field == ADJUSTING
            || field.strip_prefix(TURNS).is_some_and(mapped)
            || field.strip_prefix(ROUNDS).is_some_and(|field| field.is_empty() || mapped(field))
    });
    let created = link.is_none_or(|link| link.zoho_id.is_none());
    for (path, field) in &row.fields {
        let local = field.local();
        let sent = write.sent.contains(path);
        // What is null needs not be sent to a new record, and is agreed on all the same.
        let left_empty = created && field.is_null() && is_pushed(definition, path);
        if !sent && !left_empty {
            continue;
        }
        let answered =
            record.and_then(|record| field_in(&definition.module, record, path)).map(|value| known_part(definition, path, value));
        let zoho = answered.clone().or_else(|| field_in(&definition.module, &write.body, path).cloned());
        let zoho = zoho.as_ref().map_or(Value::Null, value::null_if_empty);
        pairs.insert(path.clone(), Pair { local, zoho, confirmed: answered.is_some() });
    }
    turns::written(&mut pairs, &write.sent);
    pairs
}

/// What was sent and is not in the record that Zoho answered a write with, or is empty there: it drops fields that it does not know, silently. Lists
/// are left out, since answers show them in other forms.
pub fn not_kept(definition: &Definition, write: &Write, record: &Value) -> Vec<String> {
    let empty = |value: Option<&Value>| value.is_none_or(value::is_empty);
    let of_ours = definition.reference().filter(|name| !write.sent.iter().any(|path| path == name));
    let sent = write.sent.iter().map(String::as_str).chain(of_ours);
    let lost = sent.filter(|path| {
        let sent = field_in(&definition.module, &write.body, path);
        !empty(sent) && !sent.is_some_and(Value::is_array) && empty(field_in(&definition.module, record, path))
    });
    lost.map(str::to_owned).collect()
}

/// The pairs on first contact with a record that Zoho has already (`match_on`, or a lost create found again). Equal fields agree; one
/// that is empty here takes Zoho's value as agreed, so that it is not cleared; one that differs, or that `record` does not carry, gets no
/// pair and is therefore sent next.
pub fn after_match(definition: &Definition, row: &Row, parents: &Parents, record: &Value) -> Pairs {
    let mut pairs = Pairs::new();
    for (path, field) in row.fields.iter().filter(|(path, _)| is_pushed(definition, path)) {
        let Some(answered) = field_in(&definition.module, record, path) else {
            continue;
        };
        let equal = field.sent(path, parents, definition.module.wraps_lookups()).is_some_and(|sent| value::alike(&sent, answered));
        if field.is_null() || equal {
            let zoho = value::null_if_empty(&known_part(definition, path, answered));
            pairs.insert(path.clone(), Pair { local: field.local(), zoho, confirmed: true });
        }
    }
    pairs
}

/// The pairs after a record was voided or marked because its row went away: remembered, so that it is not done twice, and the marked
/// fields forgotten, so that a row that comes back sends its own.
pub fn after_withdrawal(definition: &Definition, link: &Link, how: Withdrawal) -> Pairs {
    let mut pairs = link.fields.clone();
    if how == Withdrawal::Mark {
        pairs.retain(|field, _| !definition.sync.mark.contains_key(field));
    }
    pairs.insert(WITHDRAWN.to_owned(), Pair { local: Value::Null, zoho: Value::from(how.as_str()), confirmed: true });
    pairs
}

/// Whether a record that was found carries the very values of a body that was sent: each one that the record shows at all is equal, and
/// it shows at least one.
pub fn carries(module: &Module, body: &Value, record: &Value) -> bool {
    let Some(sent) = body.as_object() else {
        return false;
    };
    let custom = sent.get("custom_fields").filter(|_| module.nests_custom_fields()).and_then(Value::as_array);
    let custom = custom.into_iter().flatten().filter_map(|field| Some((field.get("api_name")?.as_str()?, field.get("value")?)));
    let plain = sent.iter().map(|(name, value)| (name.as_str(), value)).filter(|(name, _)| *name != "custom_fields");
    let mut shown = 0;
    for (name, value) in plain.chain(custom) {
        match field_in(module, record, name) {
            Some(found) if value::alike(value, found) => shown += 1,
            Some(_) => return false,
            None => {}
        }
    }
    shown > 0
}

/// A field of a record or body by its configured name. Finance's `cf_…` fields stand in `custom_field_hash` or `custom_fields`.
pub fn field_in<'a>(module: &Module, record: &'a Value, path: &str) -> Option<&'a Value> {
    if module.nests_custom_fields() && path.starts_with("cf_") {
        let listed = || {
            let fields = record.get("custom_fields")?.as_array()?;
            fields.iter().find(|field| field.get("api_name").and_then(Value::as_str) == Some(path))?.get("value")
        };
        return record.get("custom_field_hash").and_then(|hash| hash.get(path)).or_else(listed).or_else(|| record.get(path));
    }
    value::at(record, path)
}

/// Of a list only what we map, and the line's own id by which a later update keeps it: Zoho's elements carry dozens of computed keys.
pub(crate) fn known_part(definition: &Definition, path: &str, answered: &Value) -> Value {
    let Value::Array(elements) = answered else { return answered.clone() };
    let mapped: Vec<&String> = match definition.fields().get(path) {
        Some(Field::List(list)) => list.item.keys().chain(list.or_else.keys()).collect(),
        Some(Field::Rows(rows)) => rows.item.keys().collect(),
        _ => return answered.clone(),
    };
    let names: Vec<&str> = mapped.into_iter().filter_map(|name| name.split('.').next()).chain([LINE_ID]).collect();
    let known = |element: &Value| match element {
        Value::Object(members) => {
            let kept = members.iter().filter(|(name, _)| names.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
        }
        other => other.clone(),
    };
    Value::Array(elements.iter().map(known).collect())
}

/// What keeps a line of a finance document its identity through an update (finance sheet §5).
pub(crate) const LINE_ID: &str = "line_item_id";
