//! CRM's bulk reads, byte by byte.

use chrono::{TimeZone as _, Utc};
use serde_json::{Value, json};
use sluice_zoho::crm::bulk::{self, Completed, Query, State};
use sluice_zoho::finance::File;
use sluice_zoho::{Error, NotSent};

use crate::peer::{Peer, grant, json as answer, raw, token};

const ADDED: &str = r#"{"data":[{"status":"success","code":"ADDED_SUCCESSFULLY","message":"Added successfully.","details":
    {"id":"5545974000002632001","operation":"read","state":"ADDED","created_by":{"id":"1","name":"A"},"created_time":"2026-06-09T10:00:00+02:00"}}],"info":{}}"#;

#[tokio::test]
async fn a_job_is_asked_for_with_its_criterion_and_what_did_not_fit_by_its_token_alone() {
    let mut peer = Peer::playing(vec![answer(201, "", ADDED), answer(201, "", ADDED)]).await;
    let since = Utc.with_ymd_and_hms(2026, 6, 9, 8, 0, 0).unwrap();
    let query = Query::Since { module: "Deals", fields: &["Amount", "Modified_Time"], since };
    let job = bulk::create(grant(), &peer.client(), &token(), query).await.unwrap().value;
    assert_eq!((job.id.as_str(), job.created_time), ("5545974000002632001", since));
    let seen = peer.only();
    assert!(seen.starts_with("POST /crm/bulk/v8/read HTTP/1.1") && seen.contains("content-type: application/json"), "{seen}");
    let body: Value = serde_json::from_str(seen.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!(
        body,
        json!({"query": {"module": {"api_name": "Deals"}, "fields": ["Amount", "Modified_Time"],
            "criteria": {"field": {"api_name": "Modified_Time"}, "comparator": "greater_equal", "value": "2026-06-09T08:00:00+00:00"}}, "file_type": "csv"})
    );
    bulk::create(grant(), &peer.client(), &token(), Query::Following("abc")).await.unwrap();
    assert!(peer.only().ends_with(r#"{"query":{"page_token":"abc"}}"#));
    let bad = Query::Since { module: "Deals/1", fields: &[], since };
    let failed = bulk::create(grant(), &peer.client(), &token(), bad).await.unwrap_err();
    assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "{failed:?}");
}

#[tokio::test]
async fn a_job_without_id_or_time_may_exist_and_a_refused_one_does_not() {
    let without = r#"{"data":[{"status":"success","code":"ADDED_SUCCESSFULLY","details":{"id":"1"}}],"info":{}}"#;
    let refused = r#"{"code":"MODULE_NOT_SUPPORTED","details":{},"message":"no","status":"error"}"#;
    let scope = r#"{"code":"OAUTH_SCOPE_MISMATCH","details":{},"message":"no","status":"error"}"#;
    let throttled = r#"{"data":[{"code":"TOO_MANY_REQUESTS","details":{},"message":"no","status":"error"}]}"#;
    let peer =
        Peer::playing(vec![answer(201, "", without), answer(400, "", refused), answer(401, "", scope), answer(400, "", throttled)]).await;
    let mut errors = Vec::new();
    for _ in 0..4 {
        errors.push(bulk::create(grant(), &peer.client(), &token(), Query::Following("abc")).await.unwrap_err().error);
    }
    assert!(matches!(errors[0], Error::OutcomeUnknown { .. }), "{errors:?}");
    assert!(matches!(errors[1], Error::Rejected(_)) && !bulk::lacks_scope(&errors[1]), "{errors:?}");
    assert!(bulk::lacks_scope(&errors[2]), "{errors:?}");
    assert!(matches!(errors[3], Error::RateLimited { .. }), "{errors:?}");
}

#[tokio::test]
async fn a_job_says_how_far_it_is() {
    let job = |rest: &str| format!(r#"{{"data":[{{"id":"1","operation":"read",{rest},"file_type":"csv"}}]}}"#);
    let done = r#""state":"COMPLETED","result":{"page":1,"per_page":200000,"count":127,"download_url":"/crm/bulk/v8/read/1/result","more_records":true,"next_page_token":"abc"}"#;
    let failed = r#""state":"FAILURE","result":{"error_message":{"code":"INTERNAL_SERVER_ERROR"}}"#;
    let gone = r#"{"code":"RESOURCE_NOT_FOUND","details":{"resource":"1"},"message":"no","status":"error"}"#;
    let acts =
        [r#""state":"ADDED""#, r#""state":"QUEUED""#, r#""state":"IN PROGRESS""#, done, failed, r#""state":"COMPLETED","result":{}"#];
    let acts = acts.into_iter().map(|rest| answer(200, "", &job(rest))).chain([answer(404, "", gone)]).collect();
    let peer = Peer::playing(acts).await;
    let mut said = Vec::new();
    for _ in 0..7 {
        said.push(bulk::state(grant(), &peer.client(), &token(), "1").await.map(|answer| answer.value).map_err(|failed| failed.error));
    }
    assert_eq!(said[..3], [Ok(State::Preparing), Ok(State::Preparing), Ok(State::Preparing)]);
    assert_eq!(said[3], Ok(State::Completed(Completed { count: 127, more: true, next: Some("abc".to_owned()) })));
    assert_eq!(said[4], Ok(State::Failed { code: "INTERNAL_SERVER_ERROR".to_owned() }));
    assert!(matches!(said[5], Err(Error::Malformed { .. })), "{:?}: a file without the number of its rows", said[5]);
    assert!(matches!(said[6], Err(Error::NotFound { .. })), "{:?}", said[6]);
}

#[tokio::test]
async fn a_file_is_bytes_and_a_page_in_its_place_is_none() {
    let zip = "Content-Type: application/x-download\r\n";
    let mut peer = Peer::playing(vec![raw(200, zip, "PK"), raw(200, "Content-Type: text/html\r\n", "<html>")]).await;
    let file = bulk::result(grant(), &peer.client(), &token(), "1").await.unwrap().value;
    assert_eq!(file, File::Whole { content_type: "application/x-download".to_owned(), bytes: b"PK".to_vec() });
    assert!(peer.only().starts_with("GET /crm/bulk/v8/read/1/result HTTP/1.1"));
    let failed = bulk::result(grant(), &peer.client(), &token(), "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::Malformed { .. }), "{failed:?}");
}
