//! Per-record results out of a batch answer: matched by position, checked by id, never guessed.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Action, Kind, RecordResult, Written};
use crate::classify::{self, Body, Facts};
use crate::client::Reply;
use crate::{Answer, Result};

/// The results of an insert, update or upsert. `ids` are the ids that the records carried, by position.
pub(super) fn written(reply: Reply, kind: Kind, ids: &[Option<&str>]) -> Result<Vec<RecordResult>> {
    let Some(elements) = elements(&reply, ids.len()) else {
        return whole_call(reply);
    };
    let facts = reply.facts();
    let fallback = if kind == Kind::Insert { Action::Inserted } else { Action::Updated };
    let results: Vec<_> = elements.iter().map(|element| result(&facts, element, fallback)).collect();
    // An update must come back under the id it was sent with; anything else is an answer to something different.
    let foreign = results.iter().zip(ids).any(|(result, sent)| match (result, sent) {
        (Ok(written), Some(sent)) if kind == Kind::Update => written.id != *sent,
        _ => false,
    });
    if foreign {
        return Err(Reply::unreadable(reply.effect, reply.evidence, "results for other records than were sent"));
    }
    Ok(Answer { value: results, evidence: reply.evidence })
}

/// The results of a delete, in the order of `ids`. Here every element names its id, so they are matched by it.
pub(super) fn deleted(reply: Reply, ids: &[String]) -> Result<Vec<RecordResult>> {
    let Some(elements) = elements(&reply, ids.len()) else {
        return whole_call(reply);
    };
    let facts = reply.facts();
    let mut by_id: HashMap<String, RecordResult> =
        elements.iter().filter_map(|element| Some((id(element.get("details")?)?, result(&facts, element, Action::Deleted)))).collect();
    let results: Option<Vec<_>> = ids.iter().map(|id| by_id.remove(id)).collect();
    match results {
        Some(value) => Ok(Answer { value, evidence: reply.evidence }),
        None => Err(Reply::unreadable(reply.effect, reply.evidence, "results for other records than were sent")),
    }
}

/// `id` as text, whether Zoho wrote a string or a number.
pub(super) fn id(object: &Value) -> Option<String> {
    match object.get("id")? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

/// The elements of a batch answer, if it is one. Statuses vary (200, 201, 202, 207, 400, 412), so all but those that speak of
/// the whole call are looked into. A list of another length is no batch answer.
fn elements(reply: &Reply, count: usize) -> Option<&[Value]> {
    if matches!(reply.status, 401 | 408 | 429 | 500..) {
        return None;
    }
    let Body::Json(json) = &reply.body else {
        return None;
    };
    let elements = json.get("data")?.as_array()?;
    let complete = elements.len() == count && elements.iter().all(|element| element.get("code").is_some());
    complete.then_some(elements.as_slice())
}

/// An error of the whole call; and a good status without the results that belong to it proves nothing about any record.
fn whole_call(reply: Reply) -> Result<Vec<RecordResult>> {
    let effect = reply.effect;
    let Answer { evidence, .. } = reply.checked()?;
    Err(Reply::unreadable(effect, evidence, "not one result for each record"))
}

fn result(facts: &Facts<'_>, element: &Value, fallback: Action) -> RecordResult {
    let code = element.get("code").and_then(Value::as_str);
    let status = element.get("status").and_then(Value::as_str);
    if code != Some("SUCCESS") || status == Some("error") {
        return Err(classify::element(facts, element));
    }
    let details = element.get("details").unwrap_or(&Value::Null);
    let id = id(details).ok_or_else(|| classify::unreadable(facts.effect, facts.status, "a success without an id"))?;
    let action = match element.get("action").and_then(Value::as_str) {
        Some("insert") => Action::Inserted,
        Some("update") => Action::Updated,
        _ => fallback_for(element, fallback),
    };
    let duplicate_field = element.get("duplicate_field").and_then(Value::as_str).map(str::to_owned);
    let time = |key| details.get(key).and_then(Value::as_str).and_then(time);
    Ok(Written { id, action, created_time: time("Created_Time"), modified_time: time("Modified_Time"), duplicate_field })
}

/// An upsert without `action` is told by its times: what was created just now was not modified since.
fn fallback_for(element: &Value, fallback: Action) -> Action {
    let at = |key| element.pointer(&format!("/details/{key}")).and_then(Value::as_str).and_then(time);
    match (fallback, at("Created_Time"), at("Modified_Time")) {
        (Action::Updated, Some(created), Some(modified)) if created == modified => Action::Inserted,
        _ => fallback,
    }
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}
