//! Billing's envelope and CRM's batches, byte by byte.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sluice_zoho::crm::{self, Action, WriteOptions};
use sluice_zoho::finance::{self, File, Module, Page};
use sluice_zoho::{Error, NotSent, Product, RejectionKind, organizations};

use crate::peer::{Peer, grant, json as answer, raw, token};

fn records(count: usize) -> Vec<Map<String, Value>> {
    (0..count).map(|n| json!({"Email": format!("{n}@example.com")}).as_object().unwrap().clone()).collect()
}

fn with_ids(ids: &[&str]) -> Vec<Map<String, Value>> {
    ids.iter().map(|id| json!({"id": id, "Phone": "1"}).as_object().unwrap().clone()).collect()
}

const OK: &str = r#"{"code":"SUCCESS","status":"success","message":"record added","action":"insert","duplicate_field":null,
    "details":{"id":"11","Created_Time":"2026-06-09T10:00:00+02:00","Modified_Time":"2026-06-09T10:00:01+02:00"}}"#;
const BAD: &str =
    r#"{"code":"INVALID_DATA","status":"error","message":"invalid data","details":{"api_name":"Email","json_path":"$.data[1].Email"}}"#;
const TWIN: &str = r#"{"code":"DUPLICATE_DATA","status":"error","message":"duplicate data","details":{"api_name":"Email","id":"77"}}"#;

#[tokio::test]
async fn a_created_customer_comes_back_with_its_id_as_text() {
    let body = r#"{"code":0,"message":"ok","customer":{"customer_id":903000000000099,"display_name":"Anna"}}"#;
    let mut peer = Peer::playing(vec![answer(201, "", body)]).await;
    let sent = json!({"display_name": "Anna"});
    let created = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &sent, &[("x", "a b")]).await.unwrap();
    assert_eq!(created.value.id, "903000000000099");
    assert_eq!((created.evidence.status, created.evidence.place), (Some(201), 7));
    let seen = peer.only();
    assert!(seen.starts_with("POST /billing/v1/customers?x=a+b HTTP/1.1"), "{seen}");
    assert!(seen.contains("x-com-zoho-subscriptions-organizationid: 927270289"), "{seen}");
    assert!(seen.ends_with(r#"{"display_name":"Anna"}"#), "{seen}");
}

#[tokio::test]
async fn a_create_that_answers_well_but_without_the_record_is_unknown() {
    let peer = Peer::playing(vec![answer(201, "", r#"{"code":0,"message":"ok"}"#), answer(200, "", r#"{"customer":{}}"#)]).await;
    for _ in 0..2 {
        let failed = finance::create(grant(), &peer.client(), &token(), Module::CUSTOMERS, &json!({}), &[]).await.unwrap_err();
        assert!(matches!(failed.error, Error::OutcomeUnknown { .. }), "{failed:?}");
    }
}

#[tokio::test]
async fn an_error_code_within_a_200_is_an_error() {
    let peer = Peer::playing(vec![answer(200, "", r#"{"code":1002,"message":"Customer does not exist."}"#)]).await;
    let failed = finance::get(grant(), &peer.client(), &token(), Module::CUSTOMERS, "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::NotFound { .. }), "{failed:?}");
}

#[tokio::test]
async fn a_plan_is_addressed_by_its_code_and_a_list_pages_on_has_more_page() {
    let list = r#"{"code":0,"plans":[{"plan_code":"a"}],"page_context":{"page":2,"has_more_page":true,"applied_filter":"PlanStatus.ALL"}}"#;
    let plan = r#"{"code":0,"plan":{"plan_code":"Fibre/100"}}"#;
    let mut peer = Peer::playing(vec![answer(200, "", plan), answer(200, "", list)]).await;
    let client = peer.client();
    let got = finance::get(grant(), &client, &token(), Module::PLANS, "Fibre/100").await.unwrap();
    assert_eq!(got.value.id, "Fibre/100");
    let page = Page { per_page: 5000, ..Page::FIRST }.next();
    let got = finance::list(grant(), &client, &token(), Module::PLANS, page, &[("product_id", "5")]).await.unwrap().value;
    assert_eq!((got.rows.len(), got.more, got.applied_filter.as_deref()), (1, true, Some("PlanStatus.ALL")));
    let seen = peer.seen();
    assert!(seen[0].starts_with("GET /billing/v1/plans/Fibre%2F100 "), "{}", seen[0]);
    assert!(seen[1].starts_with("GET /billing/v1/plans?product_id=5&page=2&per_page=200 "), "{}", seen[1]);
}

#[tokio::test]
async fn what_a_module_does_not_offer_is_never_sent() {
    let peer = Peer::playing(vec![]).await;
    let client = peer.client();
    let listed = finance::list(grant(), &client, &token(), Module::PAYMENTS, Page::FIRST, &[]).await.unwrap_err();
    let created = finance::create(grant(), &client, &token(), Module::EVENTS, &json!({}), &[]).await.unwrap_err();
    let got = finance::get(grant(), &client, &token(), Module::TRANSACTIONS, "1").await.unwrap_err();
    let odd = finance::get(grant(), &client, &token(), Module::PLANS, "..").await.unwrap_err();
    for failed in [listed, created, got, odd] {
        assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "{failed:?}");
    }
}

#[tokio::test]
async fn a_207_gives_each_record_its_own_result_by_position() {
    let body = format!(r#"{{"data":[{OK},{BAD},{TWIN}]}}"#);
    let mut peer = Peer::playing(vec![answer(207, "", &body)]).await;
    let options = WriteOptions {
        duplicate_check_fields: vec!["Email".to_owned()],
        skip_workflows: true,
        if_unmodified_since: Some("2026-06-09T08:00:00Z".parse::<DateTime<Utc>>().unwrap()),
    };
    let results = crm::upsert(grant(), &peer.client(), &token(), "Contacts", &records(3), &options).await.unwrap().value;
    let written = results[0].as_ref().unwrap();
    assert_eq!((written.id.as_str(), written.action), ("11", Action::Inserted));
    assert_eq!(written.modified_time.unwrap().to_rfc3339(), "2026-06-09T08:00:01+00:00");
    let Error::Rejected(bad) = results[1].as_ref().unwrap_err() else { panic!("{:?}", results[1]) };
    assert_eq!((bad.kind, bad.field.as_deref()), (RejectionKind::Validation, Some("Email")));
    let Error::Rejected(twin) = results[2].as_ref().unwrap_err() else { panic!("{:?}", results[2]) };
    assert_eq!((twin.kind, twin.duplicate_of.as_deref()), (RejectionKind::Duplicate, Some("77")));
    let seen = peer.only();
    assert!(seen.starts_with("POST /crm/v8/Contacts/upsert HTTP/1.1"), "{seen}");
    assert!(seen.contains("if-unmodified-since: 2026-06-09T08:00:00+00:00"), "{seen}");
    let body: Value = serde_json::from_str(seen.split_once("\r\n\r\n").unwrap().1).unwrap();
    assert_eq!((&body["trigger"], &body["duplicate_check_fields"]), (&json!([]), &json!(["Email"])));
}

#[tokio::test]
async fn results_are_read_whatever_status_carries_them() {
    for status in [200, 201, 202, 207, 400] {
        let peer = Peer::playing(vec![answer(status, "", &format!(r#"{{"data":[{BAD},{BAD}]}}"#))]).await;
        let results = crm::insert(grant(), &peer.client(), &token(), "Leads", &records(2), &WriteOptions::default()).await.unwrap();
        assert!(results.value.iter().all(Result::is_err), "{status}");
    }
}

#[tokio::test]
async fn results_that_do_not_fit_what_was_sent_are_an_unknown_outcome() {
    let two = format!(r#"{{"data":[{OK},{OK}]}}"#);
    let peer = Peer::playing(vec![answer(201, "", &two), raw(200, "", ""), answer(200, "", &two)]).await;
    let (client, options) = (peer.client(), WriteOptions::default());
    for _ in 0..2 {
        let failed = crm::insert(grant(), &client, &token(), "Leads", &records(3), &options).await.unwrap_err();
        assert!(matches!(failed.error, Error::OutcomeUnknown { .. }), "{failed:?}");
    }
    let failed = crm::update(grant(), &client, &token(), "Leads", &with_ids(&["11", "12"]), &options).await.unwrap_err();
    assert!(matches!(failed.error, Error::OutcomeUnknown { .. }), "an update answered under another id: {failed:?}");
}

#[tokio::test]
async fn one_wrapped_error_refuses_the_whole_batch() {
    let locked = r#"{"data":[{"code":"INVALID_TOKEN","details":{},"message":"invalid oauth token","status":"error"}]}"#;
    let limit = r#"{"code":"LIMIT_EXCEEDED","details":{"maximum_length":100,"api_name":"data"},"message":"x","status":"error"}"#;
    let peer = Peer::playing(vec![answer(401, "", locked), answer(400, "", limit)]).await;
    let (client, options) = (peer.client(), WriteOptions::default());
    let failed = crm::insert(grant(), &client, &token(), "Leads", &records(1), &options).await.unwrap_err();
    assert!(matches!(failed.error, Error::Unauthorized { .. }), "{failed:?}");
    let failed = crm::insert(grant(), &client, &token(), "Leads", &records(3), &options).await.unwrap_err();
    assert!(matches!(&failed.error, Error::Rejected(r) if r.kind == RejectionKind::Payload), "{failed:?}");
}

#[tokio::test]
async fn deletes_are_matched_by_id_and_a_record_already_gone_is_not_found() {
    let body = r#"{"data":[
        {"code":"INVALID_DATA","details":{"id":"2"},"message":"record not deleted","status":"error"},
        {"code":"SUCCESS","details":{"id":"1"},"message":"record deleted","status":"success"}]}"#;
    let mut peer = Peer::playing(vec![answer(207, "", body)]).await;
    let ids = ["1".to_owned(), "2".to_owned()];
    let results = crm::delete(grant(), &peer.client(), &token(), "Leads", &ids, true).await.unwrap().value;
    assert_eq!(results[0].as_ref().unwrap().action, Action::Deleted);
    assert!(matches!(results[1], Err(Error::NotFound { .. })), "{results:?}");
    assert!(peer.only().starts_with("DELETE /crm/v8/Leads?ids=1%2C2&wf_trigger=false "));
}

#[tokio::test]
async fn reading_by_ids_gives_what_exists_and_refuses_strangers() {
    let found = r#"{"data":[{"id":"2","Email":"x"}],"info":{"more_records":false}}"#;
    let peer = Peer::playing(vec![answer(200, "", found), answer(200, "", found), raw(204, "", "")]).await;
    let client = peer.client();
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
    let got = crm::get_by_ids(grant(), &client, &token(), "Leads", &ids(&["1", "2"]), &["Email"]).await.unwrap().value;
    assert_eq!((got.len(), got["2"]["Email"].as_str()), (1, Some("x")));
    let failed = crm::get_by_ids(grant(), &client, &token(), "Leads", &ids(&["1"]), &["Email"]).await.unwrap_err();
    assert!(matches!(failed.error, Error::Malformed { .. }), "{failed:?}");
    let failed = crm::get(grant(), &client, &token(), "Leads", "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::NotFound { .. }), "204 means there is none: {failed:?}");
}

#[tokio::test]
async fn an_impossible_batch_is_never_sent() {
    let peer = Peer::playing(vec![]).await;
    let (client, options) = (peer.client(), WriteOptions::default());
    for (module, records) in [("Leads", records(0)), ("Leads", records(101)), ("Leads/1", records(1)), ("", records(1))] {
        let failed = crm::insert(grant(), &client, &token(), module, &records, &options).await.unwrap_err();
        assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "{module} {failed:?}");
    }
    let failed = crm::update(grant(), &client, &token(), "Leads", &records(1), &options).await.unwrap_err();
    assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "an update without id: {failed:?}");
}

#[tokio::test]
async fn organisations_are_listed_without_naming_one_in_header_or_query() {
    let list = r#"{"code":0,"message":"success","organizations":[{"organization_id":"10234695","name":"Zillum","is_default_org":true}]}"#;
    let mut peer = Peer::playing(vec![answer(200, "", list)]).await;
    let found = organizations::list(grant(), &peer.client(), &token(), Product::Billing).await.unwrap().value;
    assert_eq!((found.len(), found[0].id.as_str(), found[0].is_default), (1, "10234695", true));
    let seen = peer.only();
    assert!(seen.starts_with("GET /billing/v1/organizations HTTP/1.1") && !seen.contains("927270289"), "{seen}");
}

#[tokio::test]
async fn an_image_comes_byte_for_byte_with_its_media_type_and_one_that_is_too_large_is_not_read() {
    let png = "\u{1}\0PNG\r\n";
    let image = |body: &str| raw(200, "Content-Type: image/png\r\n", body);
    let mut peer = Peer::playing(vec![image(png), image(&"x".repeat(9))]).await;
    let client = peer.client();
    let read = finance::file(grant(), &client, &token(), Module::ITEMS, "77", "image", 8).await.unwrap();
    assert_eq!(read.value, File::Whole { content_type: "image/png".to_owned(), bytes: png.as_bytes().to_vec() });
    let large = finance::file(grant(), &client, &token(), Module::ITEMS, "77", "image", 8).await.unwrap();
    assert_eq!((large.value, large.evidence.status), (File::TooLarge, Some(200)));
    let seen = peer.seen();
    assert!(seen[0].starts_with("GET /inventory/v1/items/77/image?preview=true&organization_id=927270289 HTTP/1.1"), "{}", seen[0]);
    let odd = finance::file(grant(), &client, &token(), Module::CUSTOMERS, "77", "image", 8).await.unwrap_err();
    assert!(matches!(odd.error, Error::NotSent(NotSent::Invalid { .. })), "{odd:?}");
}

#[tokio::test]
async fn what_is_answered_instead_of_an_image_is_judged_like_any_other_answer() {
    let none = r#"{"code":1002,"message":"Image does not exist."}"#;
    let page = raw(200, "Content-Type: text/html\r\n", "<html></html>");
    let peer = Peer::playing(vec![
        answer(404, "", none),
        answer(200, "", none),
        answer(200, "", r#"{"code":0,"message":"success"}"#),
        page,
        raw(503, "Content-Type: image/png\r\n", "x"),
        answer(400, "", r#"{"code":44,"message":"too many"}"#),
        answer(401, "", r#"{"code":57,"message":"no"}"#),
    ])
    .await;
    let client = peer.client();
    let mut errors = Vec::new();
    for _ in 0..7 {
        errors.push(finance::file(grant(), &client, &token(), Module::ITEMS, "77", "image", 8).await.unwrap_err().error);
    }
    assert!(matches!(errors[..2], [Error::NotFound { .. }, Error::NotFound { .. }]), "{errors:?}");
    assert!(matches!(errors[2..4], [Error::Malformed { .. }, Error::Malformed { .. }]), "{errors:?}");
    assert!(matches!(errors[4..], [Error::Unavailable { .. }, Error::RateLimited { .. }, Error::Unauthorized { .. }]), "{errors:?}");
}
