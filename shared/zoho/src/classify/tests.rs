//! The error catalogue as a table. Each row is a documented or recorded answer.

use std::time::Duration;

use serde_json::{Value, json};

use super::*;

/// An error, reduced to what the table speaks of.
fn name(result: &Result<(), Error>) -> String {
    match result {
        Ok(()) => "ok".to_owned(),
        Err(Error::RateLimited { scope, .. }) => format!("rate {scope:?}"),
        Err(Error::Unauthorized { kind, .. }) => format!("auth {kind:?}"),
        Err(Error::NotFound { .. }) => "not found".to_owned(),
        Err(Error::Rejected(rejection)) => format!("{:?}", rejection.kind),
        Err(Error::Unavailable { .. }) => "unavailable".to_owned(),
        Err(Error::Malformed { .. }) => "malformed".to_owned(),
        Err(Error::OutcomeUnknown { .. }) => "unknown".to_owned(),
        Err(Error::NotSent(_)) => "not sent".to_owned(),
    }
}

fn judge(effect: Effect, status: u16, body: &Body) -> Result<(), Error> {
    verdict(&Facts { effect, status, limits: &Limits::default() }, body)
}

fn told(effect: Effect, status: u16, json: Value) -> String {
    name(&judge(effect, status, &Body::Json(json)))
}

fn finance(code: impl Into<Value>) -> Value {
    json!({"code": code.into(), "message": "text"})
}

fn crm(code: &str) -> Value {
    json!({"code": code, "details": {}, "message": "text", "status": "error"})
}

#[test]
fn finance_codes_are_classified_by_status_and_code() {
    for (status, code, read, create, change) in [
        (200, 0, "ok", "ok", "ok"),
        (201, 0, "ok", "ok", "ok"),
        (400, 2, "Validation", "Validation", "Validation"),
        (400, 4, "Validation", "Validation", "Validation"),
        (404, 5, "Payload", "Payload", "Payload"),
        (400, 6, "Validation", "Validation", "Validation"),
        (401, 14, "auth InvalidToken", "auth InvalidToken", "auth InvalidToken"),
        (400, 15, "Validation", "Validation", "Validation"),
        (405, 37, "Payload", "Payload", "Payload"),
        (200, 43, "rate Unknown", "rate Unknown", "rate Unknown"),
        (429, 44, "rate Minute", "rate Minute", "rate Minute"),
        (429, 45, "rate Day", "rate Day", "rate Day"),
        (200, 45, "rate Day", "rate Day", "rate Day"),
        (429, 9999, "rate Unknown", "rate Unknown", "rate Unknown"),
        (401, 57, "auth Denied", "auth Denied", "auth Denied"),
        (400, 57, "auth Denied", "auth Denied", "auth Denied"),
        (401, 9999, "auth Other", "auth Other", "auth Other"),
        (400, 1000, "Duplicate", "Duplicate", "Duplicate"),
        (500, 1000, "unavailable", "unknown", "unknown"),
        (200, 1000, "unavailable", "unknown", "unknown"),
        (400, 1001, "Duplicate", "Duplicate", "Duplicate"),
        (404, 1002, "not found", "Dependency", "not found"),
        (200, 1002, "not found", "Dependency", "not found"),
        (400, 1004, "Validation", "Validation", "Validation"),
        (400, 1038, "Payload", "Payload", "Payload"),
        (429, 1070, "rate InFlight", "rate InFlight", "rate InFlight"),
        (404, 2006, "not found", "Dependency", "not found"),
        (400, 2007, "Dependency", "Dependency", "Dependency"),
        (400, 2049, "Conflict", "Conflict", "Conflict"),
        (400, 3062, "Duplicate", "Duplicate", "Duplicate"),
        (400, 4029, "auth Organization", "auth Organization", "auth Organization"),
        (400, 4041, "Conflict", "Conflict", "Conflict"),
        (400, 6041, "auth Organization", "auth Organization", "auth Organization"),
        (400, 108_004, "Validation", "Validation", "Validation"),
        (503, 9999, "unavailable", "unknown", "unknown"),
    ] {
        let got = [Effect::Read, Effect::Create, Effect::Change].map(|effect| told(effect, status, finance(code)));
        assert_eq!(got, [read, create, change], "{status} {code}");
    }
    assert_eq!(told(Effect::Create, 201, finance("0")), "ok");
    assert_eq!(told(Effect::Create, 200, finance("3062")), "Duplicate");
}

#[test]
fn crm_codes_are_classified_alike_in_flat_and_wrapped_bodies() {
    for (status, code, expected) in [
        (401, "INVALID_TOKEN", "auth InvalidToken"),
        (401, "INVALID_OAUTHTOKEN", "auth InvalidToken"),
        (401, "AUTHENTICATION_FAILURE", "auth Other"),
        (401, "OAUTH_SCOPE_MISMATCH", "auth ScopeMismatch"),
        (403, "OAUTH_SCOPE_MISMATCH", "auth ScopeMismatch"),
        (403, "NO_PERMISSION", "Permission"),
        (400, "AUTHORIZATION_FAILED", "Permission"),
        (400, "INVALID_MODULE", "Permission"),
        (404, "INVALID_URL_PATTERN", "Payload"),
        (404, "RESOURCE_NOT_FOUND", "not found"),
        (400, "INVALID_DATA", "Validation"),
        (400, "MANDATORY_NOT_FOUND", "Validation"),
        (400, "MAPPING_MISMATCH", "Validation"),
        (400, "DUPLICATE_DATA", "Duplicate"),
        (400, "RECORD_LOCKED", "Locked"),
        (400, "NOT_APPROVED", "Conflict"),
        (412, "ALREADY_MODIFIED", "Conflict"),
        (400, "LIMIT_EXCEEDED", "Payload"),
        (413, "REQUEST_ENTITY_TOO_LARGE", "Payload"),
        (429, "TOO_MANY_REQUESTS", "rate Unknown"),
        (400, "TOO_MANY_REQUESTS", "rate Unknown"),
        (429, "RATE_LIMIT_EXCEEDED", "rate Unknown"),
        (500, "INTERNAL_ERROR", "unknown"),
        (503, "SOMETHING_NEW", "unknown"),
        (400, "SOMETHING_NEW", "Validation"),
    ] {
        assert_eq!(told(Effect::Change, status, crm(code)), expected, "flat {status} {code}");
        assert_eq!(told(Effect::Change, status, json!({"data": [crm(code)]})), expected, "wrapped {status} {code}");
    }
    assert_eq!(told(Effect::Read, 500, crm("INTERNAL_ERROR")), "unavailable");
    assert_eq!(told(Effect::Change, 200, crm("INVALID_DATA")), "Validation");
}

#[test]
fn answers_without_a_code_are_classified_by_status_and_by_what_they_could_have_done() {
    let html = Body::Other;
    for (status, body, read, write) in [
        (204, Body::Empty, "ok", "ok"),
        (200, html.clone(), "malformed", "unknown"),
        (200, Body::Empty, "malformed", "unknown"),
        (201, Body::TooLarge, "malformed", "unknown"),
        (200, Body::Lost, "unavailable", "unknown"),
        (301, html.clone(), "malformed", "unknown"),
        (307, Body::Empty, "malformed", "unknown"),
        (400, html.clone(), "Payload", "Payload"),
        (400, Body::Lost, "unavailable", "unavailable"),
        (401, html.clone(), "auth Other", "auth Other"),
        (403, html.clone(), "Permission", "Permission"),
        // A page that says 404 is a wrong address, no proof that a record is gone.
        (404, html.clone(), "Payload", "Payload"),
        (408, html.clone(), "unavailable", "unknown"),
        (413, html.clone(), "Payload", "Payload"),
        (429, html.clone(), "rate Unknown", "rate Unknown"),
        (429, Body::Lost, "rate Unknown", "rate Unknown"),
        (500, Body::Empty, "unavailable", "unknown"),
        (502, html.clone(), "unavailable", "unknown"),
        (504, html, "unavailable", "unknown"),
    ] {
        assert_eq!(name(&judge(Effect::Read, status, &body)), read, "read {status} {body:?}");
        for effect in [Effect::Create, Effect::Change] {
            assert_eq!(name(&judge(effect, status, &body)), write, "write {status} {body:?}");
        }
    }
}

#[test]
fn a_limit_says_how_long_to_stay_away() {
    let half_an_hour = Duration::from_secs(1800);
    let wait = |limits: &Limits, status, json| match verdict(&Facts { effect: Effect::Read, status, limits }, &Body::Json(json)) {
        Err(Error::RateLimited { retry_after, scope, .. }) => (scope, retry_after),
        other => panic!("{other:?}"),
    };
    let none = Limits::default();
    assert_eq!(wait(&none, 429, finance(44)), (LimitScope::Minute, Some(half_an_hour)));
    assert_eq!(wait(&none, 429, finance(1070)), (LimitScope::InFlight, None));
    let asked = Limits { retry_after: Some(Duration::from_secs(7)), ..Limits::default() };
    assert_eq!(wait(&asked, 429, finance(44)), (LimitScope::Minute, Some(Duration::from_secs(7))));
    let reset = Limits { day_resets_in: Some(Duration::from_secs(3600)), ..Limits::default() };
    assert_eq!(wait(&reset, 429, finance(45)), (LimitScope::Day, Some(Duration::from_secs(3600))));
    for (credits, scope) in [(0, LimitScope::Day), (-3, LimitScope::Day), (900, LimitScope::InFlight)] {
        let limits = Limits { credits_remaining: Some(credits), ..Limits::default() };
        assert_eq!(wait(&limits, 429, crm("TOO_MANY_REQUESTS")).0, scope, "{credits}");
    }
}

fn rejection(result: Result<(), Error>) -> Rejection {
    match result {
        Err(Error::Rejected(rejection)) => *rejection,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rejection_names_the_field_as_exactly_as_zoho_does() {
    for (json, field) in [
        (json!({"code": 4, "message": "Invalid value passed for customer_id"}), Some("customer_id")),
        (json!({"code": 15, "message": "Please ensure that the display_name has less than 100 characters."}), Some("display_name")),
        (json!({"code": 9526, "message": "Retainer percentage should be between 1 and 100"}), None),
        (
            json!({"code": "MANDATORY_NOT_FOUND", "status": "error", "details": {"api_name": "id", "json_path": "$.data[0].Contact_Name.id"}}),
            Some("Contact_Name.id"),
        ),
        (
            json!({"code": "INVALID_DATA", "status": "error", "details": {"api_name": "Street_1", "parent_api_name": "Service_Address"}}),
            Some("Service_Address.Street_1"),
        ),
        (
            json!({"code": "INVALID_DATA", "status": "error", "details": {"api_name": "Email", "expected_data_type": "email"}}),
            Some("Email"),
        ),
        (json!({"code": "REQUIRED_PARAM_MISSING", "status": "error", "details": {"param_name": "fields"}}), Some("fields")),
        (
            json!({"code": "MULTIPLE_OR_MULTI_ERRORS", "status": "error", "details": {"errors": [
            {"code": "INVALID_DATA", "details": {"api_name": "Email"}}, {"code": "INVALID_DATA", "details": {"api_name": "Phone"}}]}}),
            Some("Email"),
        ),
    ] {
        let got = rejection(judge(Effect::Change, 400, &Body::Json(json.clone())));
        assert_eq!(got.field.as_deref(), field, "{json}");
    }
}

#[test]
fn a_crm_duplicate_names_the_existing_record() {
    for details in [
        json!({"api_name": "Email", "id": "2008662000006256222", "duplicate_record": {"id": "2008662000006256222"}}),
        json!({"api_name": "Email", "id": "2008662000006256222"}),
    ] {
        let json = json!({"data": [{"code": "DUPLICATE_DATA", "status": "error", "message": "duplicate data", "details": details}]});
        let got = rejection(judge(Effect::Create, 400, &Body::Json(json)));
        assert_eq!((got.kind, got.duplicate_of.as_deref()), (RejectionKind::Duplicate, Some("2008662000006256222")));
    }
}

#[test]
fn an_invalid_id_means_not_found_only_when_it_is_the_records_own() {
    for (details, expected) in [
        (json!({"id": "1"}), "not found"),
        (json!({"resource_path_index": 1}), "not found"),
        (json!({"api_name": "id", "json_path": "$.data[0].id"}), "not found"),
        (json!({"api_name": "id", "json_path": "$.data[0].Account_Name.id"}), "Validation"),
        (json!({"resource_path_index": 0}), "Validation"),
        (json!({"api_name": "Email", "id": "1"}), "Validation"),
        (json!({"param_name": "cvid"}), "Validation"),
    ] {
        let json = json!({"code": "INVALID_DATA", "status": "error", "message": "", "details": details});
        assert_eq!(told(Effect::Change, 400, json.clone()), expected, "{json}");
        assert_eq!(told(Effect::Create, 400, json), "Validation", "a create addresses no record");
    }
}

#[test]
fn what_a_rejection_shows_is_masked() {
    let json = json!({"code": 3062, "message": "The customer \"anna@example.com\" already exists.", "email": "anna@example.com"});
    let got = rejection(judge(Effect::Create, 400, &Body::Json(json)));
    assert!(!format!("{got:?} {got}").contains("anna@"), "{got:?}");
}
