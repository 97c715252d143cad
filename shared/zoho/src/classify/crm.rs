//! The named codes of CRM and FSM, and of the gateway in front of all products (Zoho's v8 documentation and example answers).

use serde_json::Value;

use super::{Facts, message, rejected, server_error, throttled};
use crate::{AuthKind, Error, LimitScope, RejectionKind as Kind};

pub(super) fn error(facts: &Facts<'_>, name: &str, at: &Value) -> Error {
    let unauthorized = |kind| Error::Unauthorized { kind, code: name.to_owned(), message: message(at) };
    match name {
        "TOO_MANY_REQUESTS" | "RATE_LIMIT_EXCEEDED" => throttled(facts, throttle_scope(facts), name.to_owned()),
        "INVALID_TOKEN" | "INVALID_OAUTHTOKEN" => unauthorized(AuthKind::InvalidToken),
        "OAUTH_SCOPE_MISMATCH" => unauthorized(AuthKind::ScopeMismatch),
        "AUTHENTICATION_FAILURE" => unauthorized(AuthKind::Other),
        "INTERNAL_ERROR" | "INTERNAL_SERVER_ERROR" => server_error(facts),
        "RESOURCE_NOT_FOUND" => Error::NotFound { code: name.to_owned(), message: message(at) },
        "INVALID_DATA" if facts.effect != super::Effect::Create && concerns_the_records_id(at) => {
            Error::NotFound { code: name.to_owned(), message: message(at) }
        }
        // Several violations in one record: the first one speaks for it.
        "MULTIPLE_OR_MULTI_ERRORS" => match first_violation(at) {
            Some((code, violation)) => refusal(facts, code, violation, at),
            None => refusal(facts, name, at, at),
        },
        _ if facts.status == 429 => throttled(facts, throttle_scope(facts), name.to_owned()),
        _ if facts.status == 401 => unauthorized(AuthKind::Other),
        _ if facts.status == 408 || facts.status >= 500 => server_error(facts),
        _ => refusal(facts, name, at, at),
    }
}

fn refusal(facts: &Facts<'_>, code: &str, violation: &Value, whole: &Value) -> Error {
    let mut error = rejected(facts, kind(facts.status, code), code, field(violation), violation);
    if let Error::Rejected(rejection) = &mut error {
        if code == "DUPLICATE_DATA" {
            rejection.duplicate_of = existing_record(violation);
        }
        rejection.response = crate::mask::excerpt(whole);
    }
    error
}

fn kind(status: u16, code: &str) -> Kind {
    match code {
        "NO_PERMISSION"
        | "AUTHORIZATION_FAILED"
        | "NOT_SUPPORTED"
        | "FEATURE_NOT_SUPPORTED"
        | "FEATURE_NOT_ENABLED"
        | "TERRITORY_NOT_ENABLED"
        | "NOT_ALLOWED"
        | "CANNOT_PERFORM_ACTION"
        | "INVALID_MODULE"
        | "STORAGE_SPACE_EXCEEDED" => Kind::Permission,
        "DUPLICATE_DATA" => Kind::Duplicate,
        "RECORD_LOCKED" | "DEPENDENT_SERVICE_ERROR" => Kind::Locked,
        "ALREADY_MODIFIED"
        | "EXPIRED_VALUE"
        | "TOKEN_BOUND_DATA_MISMATCH"
        | "NOT_APPROVED"
        | "NOT_REVIEWED"
        | "RECORD_IN_BLUEPRINT"
        | "CONVERTED_RECORD"
        | "ID_ALREADY_CONVERTED"
        | "DUPLICATE_LINKING_DATA"
        | "ALREADY_USED"
        | "ALREADY_SCHEDULED"
        | "CANNOT_DELETE"
        | "NOT_SUBSCRIBED" => Kind::Conflict,
        "INVALID_URL_PATTERN"
        | "INVALID_REQUEST_METHOD"
        | "METHOD_NOT_ALLOWED"
        | "REQUIRED_PARAM_MISSING"
        | "EXPECTED_PARAM_MISSING"
        | "PATTERN_NOT_MATCHED"
        | "INVALID_QUERY"
        | "SYNTAX_ERROR"
        | "AMBIGUITY_DURING_PROCESSING"
        | "LIMIT_EXCEEDED"
        | "LIMIT_REACHED"
        | "CRITERIA_LIMIT_EXCEEDED"
        | "DISCRETE_PAGINATION_LIMIT_EXCEEDED"
        | "PAGINATION_LIMIT_EXCEEDED"
        | "REQUEST_ENTITY_TOO_LARGE"
        | "FILE_SIZE_MORE_THAN_ALLOWED_SIZE"
        | "MEDIA_TYPE_NOT_SUPPORTED"
        | "INVALID_REQUEST" => Kind::Payload,
        _ => match status {
            403 => Kind::Permission,
            409 | 412 => Kind::Conflict,
            404 | 405 | 413 | 415 => Kind::Payload,
            _ => Kind::Validation,
        },
    }
}

/// CRM's throttles for credits and for concurrency share a code; the remaining credits, if told, tell them apart.
fn throttle_scope(facts: &Facts<'_>) -> LimitScope {
    match (facts.limits.credits_remaining, facts.limits.minute_remaining) {
        (Some(..=0), _) => LimitScope::Day,
        (Some(_), _) => LimitScope::InFlight,
        (None, Some(..=0)) => LimitScope::Minute,
        (None, _) => LimitScope::Unknown,
    }
}

/// `INVALID_DATA` about the record's own id, in the path, in `ids` or at the top of a record; a lookup's id is a field's fault.
fn concerns_the_records_id(at: &Value) -> bool {
    let Some(details) = at.get("details").filter(|details| details.is_object()) else {
        return false;
    };
    if let Some(path) = details.get("json_path").and_then(Value::as_str) {
        return below_the_record(path) == Some("id");
    }
    let name = |key| details.get(key).and_then(Value::as_str);
    match (name("api_name"), name("param_name")) {
        (Some(api_name), _) => api_name == "id" && details.get("parent_api_name").is_none(),
        (None, Some(_)) => false,
        (None, None) => details.get("id").is_some() || details.get("resource_path_index").and_then(Value::as_i64) == Some(1),
    }
}

fn first_violation(at: &Value) -> Option<(&str, &Value)> {
    let first = at.pointer("/details/errors/0")?;
    Some((first.get("code")?.as_str()?, first))
}

/// The most exact name of the field: `$.data[0].Contact_Name.id` → `Contact_Name.id`, else parent and API name, else the parameter.
fn field(at: &Value) -> Option<String> {
    let details = at.get("details")?;
    let name = |key| details.get(key).and_then(Value::as_str);
    if let Some(field) = name("json_path").and_then(below_the_record) {
        return Some(field.to_owned());
    }
    match (name("parent_api_name"), name("api_name")) {
        (Some(parent), Some(child)) => Some(format!("{parent}.{child}")),
        (None, Some(field)) => Some(field.to_owned()),
        _ => name("param_name").map(str::to_owned),
    }
}

fn below_the_record(json_path: &str) -> Option<&str> {
    let field = json_path.strip_prefix("$.data[")?.split_once("].")?.1;
    (!field.is_empty()).then_some(field)
}

fn existing_record(at: &Value) -> Option<String> {
    ["/details/duplicate_record/id", "/details/id"].into_iter().find_map(|path| match at.pointer(path)? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    })
}
