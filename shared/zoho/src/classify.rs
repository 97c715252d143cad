//! What an answer means: pure functions from status, headers and body to an error or none.
//!
//! The order of decision, from Zoho's documentation and recorded answers: the body is read first, a JSON code decides before
//! the status does (statuses vary between versions and endpoints, and an error may come with a 2xx), and what remains is
//! decided by the status. A failing answer to a write never claims that nothing happened unless the code says so.

mod crm;
mod finance;

use serde_json::Value;

use crate::finance::File;
use crate::{AuthKind, Error, LimitScope, Limits, Rejection, RejectionKind, UnknownReason, mask};

/// What a request can do at Zoho, which decides what a lost answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Changes nothing; may be repeated.
    Read,
    /// Creates a record: "does not exist" can only concern something the payload refers to.
    Create,
    /// Changes or deletes what it addresses.
    Change,
}

impl Effect {
    pub(crate) fn writes(self) -> bool {
        self != Self::Read
    }
}

/// A body as far as it could be read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Body {
    /// No bytes.
    Empty,
    /// JSON.
    Json(Value),
    /// Bytes that are no JSON: a gateway's HTML page.
    Other,
    /// A file that was asked for, as its media type says. Only a good status has one.
    File(File),
    /// Longer than we accept; the rest was not read.
    TooLarge,
    /// The connection ended within it.
    Lost,
}

impl Body {
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Self::Empty;
        }
        let Ok(mut json) = serde_json::from_slice(bytes) else { return Self::Other };
        if bytes.windows(NUL.len()).any(|window| window == NUL) {
            without_nul(&mut json);
        }
        Self::Json(json)
    }

    fn described(&self) -> &'static str {
        match self {
            Self::Empty => "an empty body",
            Self::Json(_) => "an undocumented form",
            Self::Other => "a body that is not JSON",
            Self::File(_) => "a file",
            Self::TooLarge => "a body larger than the limit",
            Self::Lost => "a body cut short",
        }
    }
}

/// As JSON writes it.
const NUL: &[u8] = br"\u0000";

/// PostgreSQL keeps no NUL in a text, nor in JSON: an answer with one could never be settled.
fn without_nul(json: &mut Value) {
    match json {
        Value::String(text) => text.retain(|c| c != '\0'),
        Value::Array(items) => items.iter_mut().for_each(without_nul),
        Value::Object(members) => {
            *members = std::mem::take(members).into_iter().map(|(name, member)| (name.replace('\0', ""), member)).collect();
            members.values_mut().for_each(without_nul);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Zoho's code: a number in the finance products, a name in CRM and FSM and at the gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Code {
    Number(i64),
    Name(String),
}

/// The object inside an error answer that carries the code.
struct Coded<'a> {
    code: Code,
    at: &'a Value,
}

/// What every rule may look at.
pub(crate) struct Facts<'a> {
    pub(crate) effect: Effect,
    pub(crate) status: u16,
    pub(crate) limits: &'a Limits,
}

/// The error that an answer is, or none. A 2xx with readable JSON (or a 204) and no failing code is none.
pub(crate) fn verdict(facts: &Facts<'_>, body: &Body) -> Result<(), Error> {
    if let Body::Json(json) = body
        && let Some(coded) = failing_code(facts.status, json)
    {
        return Err(by_code(facts, &coded));
    }
    by_status(facts, body)
}

/// The error of one element of a CRM batch answer, or of any object with `code`, `message` and `details`.
pub(crate) fn element(facts: &Facts<'_>, element: &Value) -> Error {
    match code_of(element) {
        Some(code) => by_code(facts, &Coded { code, at: element }),
        None => unreadable(facts.effect, facts.status, "an element without a code"),
    }
}

/// What it means that the answer has a good status but not the documented form.
pub(crate) fn unreadable(effect: Effect, status: u16, what: &str) -> Error {
    if effect.writes() {
        Error::OutcomeUnknown { reason: UnknownReason::Unreadable { status, what: what.to_owned() } }
    } else {
        Error::Malformed { reason: format!("status {status} with {what}") }
    }
}

/// A code that says "error", at the top (flat) or in the first element of the only list (wrapped).
fn failing_code(status: u16, json: &Value) -> Option<Coded<'_>> {
    if let Some(code) = code_of(json) {
        return (!is_success(&code, json)).then_some(Coded { code, at: json });
    }
    // A 2xx with a list is a batch whose elements speak for themselves.
    if status < 400 {
        return None;
    }
    let lists = json.as_object()?.values().filter_map(Value::as_array);
    let first = lists.filter_map(|list| list.first()).find(|first| first.get("status").is_some())?;
    let code = code_of(first)?;
    (!is_success(&code, first)).then_some(Coded { code, at: first })
}

fn code_of(object: &Value) -> Option<Code> {
    match object.get("code")? {
        Value::Number(number) => number.as_i64().map(Code::Number),
        Value::String(name) => Some(name.trim().parse().map_or_else(|_| Code::Name(name.clone()), Code::Number)),
        _ => None,
    }
}

fn is_success(code: &Code, at: &Value) -> bool {
    match code {
        Code::Number(number) => *number == 0,
        // Success has several names (SUCCESS, ADDED_SUCCESSFULLY, FILE_UPLOAD_SUCCESS); failure has one status.
        Code::Name(name) => name == "SUCCESS" || at.get("status").and_then(Value::as_str) == Some("success"),
    }
}

fn by_code(facts: &Facts<'_>, coded: &Coded<'_>) -> Error {
    match &coded.code {
        Code::Number(number) => finance::error(facts, *number, coded.at),
        Code::Name(name) => crm::error(facts, name, coded.at),
    }
}

fn by_status(facts: &Facts<'_>, body: &Body) -> Result<(), Error> {
    let status = facts.status;
    let http = || format!("http {status}");
    Err(match status {
        204 => return Ok(()),
        // to a read that named the time since when it wants to know
        304 if !facts.effect.writes() => return Ok(()),
        200..=299 if matches!(body, Body::Json(_) | Body::File(_)) => return Ok(()),
        200..=299 if *body == Body::Lost => lost(facts.effect),
        401 => Error::Unauthorized { kind: AuthKind::Other, code: http(), message: body.described().to_owned() },
        429 => throttled(facts, LimitScope::Unknown, http()),
        408 | 500.. => server_error(facts),
        // Refused, but the reason was lost on the way: the next attempt will hear it.
        400..=499 if *body == Body::Lost => Error::Unavailable { reason: format!("status {status}, cut short") },
        400..=499 => {
            let kind = if status == 403 { RejectionKind::Permission } else { RejectionKind::Payload };
            Error::Rejected(Box::new(Rejection {
                kind,
                code: http(),
                field: None,
                message: format!("status {status} with {}", body.described()),
                status,
                duplicate_of: None,
                response: if let Body::Json(json) = body { mask::excerpt(json) } else { Value::Null },
            }))
        }
        300..=399 => unreadable(facts.effect, status, "a redirect, which is not followed"),
        _ => unreadable(facts.effect, status, body.described()),
    })
}

/// The connection ended after the request may have arrived.
pub(crate) fn lost(effect: Effect) -> Error {
    if effect.writes() {
        Error::OutcomeUnknown { reason: UnknownReason::ConnectionLost }
    } else {
        Error::Unavailable { reason: "the connection was lost".to_owned() }
    }
}

/// A 5xx: harmless for a read, and no proof of anything for a write.
fn server_error(facts: &Facts<'_>) -> Error {
    if facts.effect.writes() {
        Error::OutcomeUnknown { reason: UnknownReason::ServerError { status: facts.status } }
    } else {
        Error::Unavailable { reason: format!("server error, status {}", facts.status) }
    }
}

fn throttled(facts: &Facts<'_>, scope: LimitScope, code: String) -> Error {
    let documented = match scope {
        LimitScope::Minute => Some(finance::MINUTE_BLOCK),
        LimitScope::Day => facts.limits.day_resets_in,
        LimitScope::InFlight | LimitScope::Unknown => None,
    };
    Error::RateLimited { scope, retry_after: facts.limits.retry_after.or(documented), code }
}

fn message(at: &Value) -> String {
    mask::text(at.get("message").and_then(Value::as_str).unwrap_or_default())
}

fn rejected(facts: &Facts<'_>, kind: RejectionKind, code: &str, field: Option<String>, at: &Value) -> Error {
    Error::Rejected(Box::new(Rejection {
        kind,
        code: code.to_owned(),
        field,
        message: message(at),
        status: facts.status,
        duplicate_of: None,
        response: mask::excerpt(at),
    }))
}

#[cfg(test)]
mod tests;
