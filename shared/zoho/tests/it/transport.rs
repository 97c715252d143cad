//! What a broken connection means: certainly nothing, an outage, or an unknown outcome.

use std::time::Duration;

use serde_json::json;
use sluice_zoho::finance::{self, Module};
use sluice_zoho::{Error, LimitScope, NotSent, RejectionKind, Sent, UnknownReason};
use tokio::net::TcpListener;
use url::Url;

use crate::peer::{Act, Peer, client, grant, json as json_answer, late_grant, raw, token, token_text};

fn customer() -> serde_json::Value {
    json!({"display_name": "Anna", "email": "anna@example.com"})
}

#[tokio::test]
async fn a_late_grant_sends_nothing_and_says_so() {
    let mut peer = Peer::playing(vec![Act::Drop]).await;
    let failed = finance::create(late_grant(), &peer.client(), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert!(matches!(failed.error, Error::NotSent(NotSent::Late { .. })), "{failed:?}");
    assert_eq!((failed.evidence.sent, failed.evidence.place), (Sent::Nothing, 8));
    // The next request is the first that the peer sees.
    finance::get(grant(), &peer.client(), &token(), Module::PLANS, "first").await.unwrap_err();
    assert!(peer.only().starts_with("GET /billing/v1/plans/first "));
}

#[tokio::test]
async fn silence_after_a_post_is_an_unknown_outcome_and_after_a_get_an_outage() {
    let peer = Peer::playing(vec![Act::Hang, Act::Hang]).await;
    let client = peer.client();
    let failed = finance::create(grant(), &client, &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert_eq!(failed.error, Error::OutcomeUnknown { reason: UnknownReason::TimedOut });
    assert_eq!((failed.evidence.sent, failed.evidence.answered_at), (Sent::Maybe, None));
    let failed = finance::get(grant(), &client, &token(), Module::CUSTOMERS, "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::Unavailable { .. }), "{failed:?}");
    assert_eq!(failed.evidence.sent, Sent::Maybe, "the call may count at Zoho");
}

#[tokio::test]
async fn a_refused_connection_is_an_outage_for_a_write_too_since_nothing_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let failed = finance::create(grant(), &client(&url), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert!(matches!(failed.error, Error::Unavailable { .. }), "{failed:?}");
    assert_eq!(failed.evidence.sent, Sent::Nothing);
}

#[tokio::test]
async fn a_connection_dropped_after_the_request_is_unknown_for_every_write_and_an_outage_for_a_read() {
    let mut peer = Peer::playing((0..4).map(|_| Act::Drop).collect()).await;
    let (client, token) = (peer.client(), token());
    let lost = Error::OutcomeUnknown { reason: UnknownReason::ConnectionLost };
    let created = finance::create(grant(), &client, &token, Module::CUSTOMERS, &customer(), &[]).await;
    assert_eq!(created.unwrap_err().error, lost);
    let updated = finance::update(grant(), &client, &token, Module::CUSTOMERS, "1", &customer(), &[]).await;
    assert_eq!(updated.unwrap_err().error, lost);
    let deleted = finance::delete(grant(), &client, &token, Module::CUSTOMERS, "1").await;
    assert_eq!(deleted.unwrap_err().error, lost);
    let read = finance::get(grant(), &client, &token, Module::CUSTOMERS, "1").await;
    assert!(matches!(read.unwrap_err().error, Error::Unavailable { .. }));
    assert_eq!(peer.seen().len(), 4, "each grant is one request, never repeated");
}

#[tokio::test]
async fn an_answer_cut_short_is_unknown_for_a_write() {
    let cut = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"code\":0,".to_vec();
    let peer = Peer::playing(vec![Act::Say(cut)]).await;
    let failed = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert_eq!(failed.error, Error::OutcomeUnknown { reason: UnknownReason::ConnectionLost });
    assert_eq!((failed.evidence.sent, failed.evidence.status), (Sent::Answered, Some(201)));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let mut elsewhere = Peer::playing(vec![json_answer(200, "", r#"{"code":0,"customer":{"customer_id":"1"}}"#)]).await;
    let location = format!("Location: {}\r\n", elsewhere.url);
    let peer = Peer::playing(vec![raw(307, &location, ""), raw(302, &location, "")]).await;
    let failed = finance::get(grant(), &peer.client(), &token(), Module::CUSTOMERS, "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::Malformed { .. }), "{failed:?}");
    let failed = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert!(matches!(failed.error, Error::OutcomeUnknown { .. }), "{failed:?}");
    assert!(elsewhere.seen().is_empty(), "the token went to another host");
}

#[tokio::test]
async fn an_answer_beyond_the_limit_is_not_read_whether_its_length_is_told_or_not() {
    let told = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{}".to_vec();
    let mut untold = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
    untold.resize(untold.len() + sluice_zoho::MAX_ANSWER_BYTES + 1, b' ');
    let peer = Peer::playing(vec![Act::Say(told), Act::Say(untold)]).await;
    for _ in 0..2 {
        let failed = finance::get(grant(), &peer.client(), &token(), Module::CUSTOMERS, "1").await.unwrap_err();
        let Error::Malformed { reason } = failed.error else { panic!("{failed:?}") };
        assert!(reason.contains("larger than the limit"), "{reason}");
    }
}

#[tokio::test]
async fn a_gateways_page_is_an_outage_for_a_read_and_unknown_for_a_write() {
    let page = || raw(502, "Content-Type: text/html\r\n", "<html>Bad Gateway</html>");
    let peer = Peer::playing(vec![page(), page()]).await;
    let failed = finance::get(grant(), &peer.client(), &token(), Module::CUSTOMERS, "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::Unavailable { .. }), "{failed:?}");
    let failed = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert_eq!(failed.error, Error::OutcomeUnknown { reason: UnknownReason::ServerError { status: 502 } });
    assert_eq!(failed.evidence.status, Some(502));
}

#[tokio::test]
async fn a_limits_headers_reach_the_evidence_of_a_failure() {
    let headers = "Retry-After: 1800\r\nX-Rate-Limit-Remaining: 12\r\nDate: Tue, 09 Jun 2026 13:00:00 GMT\r\n";
    let peer = Peer::playing(vec![json_answer(429, headers, r#"{"code":44,"message":"blocked"}"#)]).await;
    let failed = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    let wait = Some(Duration::from_secs(1800));
    assert_eq!(failed.error, Error::RateLimited { scope: LimitScope::Minute, retry_after: wait, code: "44".to_owned() });
    assert_eq!((failed.evidence.limits.day_remaining, failed.evidence.limits.retry_after), (Some(12), wait));
    assert_eq!(failed.evidence.limits.date.unwrap().to_rfc3339(), "2026-06-09T13:00:00+00:00");
    assert!(failed.evidence.answered_at.is_some());
}

#[tokio::test]
async fn neither_token_nor_secret_shows_in_errors_or_debug_texts() {
    let echo = format!(r#"{{"code":9999,"message":"bad token {}","authorization":"{}"}}"#, token_text(), token_text());
    let peer = Peer::playing(vec![json_answer(400, "", &echo), Act::Drop]).await;
    let client = peer.client();
    let refused = finance::create(grant(), &client, &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    assert!(matches!(&refused.error, Error::Rejected(r) if r.kind == RejectionKind::Validation), "{refused:?}");
    let lost = finance::create(grant(), &client, &token(), Module::CUSTOMERS, &customer(), &[]).await.unwrap_err();
    let shown = format!("{refused} {refused:?} {lost} {lost:?} {client:?} {:?} {:?}", client.settings(), token());
    for secret in ["0a1b2c3d", "deadbeef", "client-secret-value", "anna@example.com"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}
