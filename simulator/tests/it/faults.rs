//! Faults: what is answered, and what has happened behind it.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, taken};

const CUSTOMERS: &str = "/billing/v1/customers";

/// Sends a create under one fault: its status (0: no answer), and the customers that exist right after.
async fn create_under(fault: Value) -> (u16, usize, World) {
    let world = World::new("").await;
    world.fault(fault).await;
    let body = json!({ "display_name": "A", "email": "a@customer.example" });
    let request = world.request(Method::POST, CUSTOMERS).json(&body).timeout(Duration::from_millis(700));
    let status = match request.send().await {
        Ok(response) => response.status().as_u16(),
        Err(_) => 0,
    };
    let count = world.records("billing", "customers").await.len();
    (status, count, world)
}

#[tokio::test]
async fn each_fault_answers_and_commits_as_it_says() {
    for (fault, status, count) in [
        (json!({ "kind": "error_before" }), 500, 0),
        (json!({ "kind": "error_after", "status": 503 }), 503, 1),
        (json!({ "kind": "html" }), 502, 0),
        (json!({ "kind": "timeout" }), 0, 0),
        (json!({ "kind": "timeout_after" }), 0, 1),
        (json!({ "kind": "drop_before" }), 0, 0),
        (json!({ "kind": "drop_after" }), 0, 1),
        (json!({ "kind": "unauthorized" }), 401, 0),
        (json!({ "kind": "rate_limited", "retry_after": 7 }), 429, 0),
        (json!({ "kind": "slow", "latency_ms": [50, 60] }), 201, 1),
        (json!({ "kind": "slow_after", "latency_ms": [50, 60] }), 201, 1),
    ] {
        let kind = fault["kind"].as_str().unwrap().to_owned();
        let (got, found, world) = create_under(fault).await;
        assert_eq!((got, found), (status, count), "{kind}");
        assert_eq!(world.stats().await["faults"][&kind], 1, "{kind}");
    }
}

#[tokio::test]
async fn a_late_commit_happens_after_the_connection_was_closed() {
    let (status, count, world) = create_under(json!({ "kind": "drop_late", "delay_ms": 1500 })).await;
    assert_eq!((status, count), (0, 0), "closed, and nothing there yet");
    let arrived = async { while world.records("billing", "customers").await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(10), arrived).await.unwrap();
    let (_, log) = world.get("/admin/log?method=POST&product=billing").await;
    let entry = &log["requests"][0];
    assert_eq!((&entry["status"], &entry["fault"], &entry["committed"]), (&Value::Null, &json!("drop_late"), &json!(true)));
}

#[tokio::test]
async fn a_dropped_connection_is_closed_at_once_not_timed_out() {
    let world = World::new("").await;
    world.fault(json!({ "kind": "drop_before" })).await;
    let error = world.request(Method::GET, CUSTOMERS).timeout(Duration::from_secs(20)).send().await.unwrap_err();
    assert!(!error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_client_that_goes_away_does_not_undo_what_zoho_has_begun() {
    let world = World::new("latency_ms = [600, 600]").await;
    let body = json!({ "display_name": "A", "email": "a@customer.example" });
    let request = world.request(Method::POST, CUSTOMERS).json(&body).timeout(Duration::from_millis(100));
    assert!(request.send().await.unwrap_err().is_timeout());
    let arrived = async { while world.records("billing", "customers").await.is_empty() {} };
    tokio::time::timeout(Duration::from_secs(10), arrived).await.unwrap();
    let free = async { while world.stats().await["scopes"]["finance:60000000001"]["in_flight"] != 0 {} };
    tokio::time::timeout(Duration::from_secs(10), free).await.expect("a call without a client is not in flight");
}

#[tokio::test]
async fn a_fault_hits_only_what_it_matches_and_only_so_often() {
    let world = World::new("").await;
    world.fault(json!({ "kind": "error_before", "method": "GET", "path": "/billing/v1/cust*", "times": 2 })).await;
    assert_eq!(world.get("/billing/v1/products").await.0, 200, "another path");
    assert_eq!(world.get(CUSTOMERS).await.0, 500);
    assert_eq!(world.get(CUSTOMERS).await.0, 500);
    assert_eq!(world.get(CUSTOMERS).await.0, 200, "used up");
    assert_eq!(world.get("/admin/faults").await.1["faults"], json!([]));
}

#[tokio::test]
async fn chances_are_drawn_from_the_seed() {
    let run = async || {
        let world = World::new("seed = 7\n[[faults]]\nkind = \"error_before\"\nprobability = 0.5").await;
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(world.get("/crm/v8/org").await.0);
        }
        statuses
    };
    let first = run().await;
    assert!(first.contains(&200) && first.contains(&500));
    assert_eq!(first, run().await);
}

#[tokio::test]
async fn an_outage_takes_down_one_product_and_ends() {
    let world = World::new("").await;
    world.post("/admin/outage", json!({ "product": "billing", "on": true })).await;
    assert_eq!(world.get(CUSTOMERS).await.0, 503);
    assert_eq!(world.get("/crm/v8/org").await.0, 200);
    world.post("/admin/outage", json!({ "product": "billing", "on": true, "mode": "drop" })).await;
    assert!(world.request(Method::GET, CUSTOMERS).send().await.is_err());
    world.post("/admin/outage", json!({ "product": "billing", "on": false })).await;
    assert_eq!(world.get(CUSTOMERS).await.0, 200);
}

#[tokio::test]
async fn a_fault_for_all_leaves_the_accounts_server_alone_unless_named() {
    let world = World::new("[[faults]]\nkind = \"drop_before\"").await;
    let refresh = world.credentials.refresh_token.clone();
    assert!(world.mint(&refresh).await["access_token"].is_string());
    world.delete("/admin/faults").await;
    world.fault(json!({ "kind": "error_after", "product": "oauth", "times": 1 })).await;
    assert_eq!(world.mint(&refresh).await["error"], "general_error");
    assert_eq!(world.stats().await["tokens"]["minted"], 3, "the lost one was minted too");
}

#[tokio::test]
async fn a_scripted_record_error_fails_that_record_alone() {
    let world = World::new("").await;
    world
        .fault(json!({
            "kind": "record_error", "module": "Contacts", "field": "Last_Name", "value": "Bad",
            "code": "RECORD_LOCKED", "message": "locked", "times": 1
        }))
        .await;
    let body = json!({ "data": [{ "Last_Name": "Good" }, { "Last_Name": "Bad" }] });
    let (status, answer) = taken(world.request(Method::POST, "/crm/v8/Contacts").json(&body).send().await.unwrap()).await;
    assert_eq!(status, 207);
    assert_eq!(answer["data"][0]["code"], "SUCCESS");
    assert_eq!(answer["data"][1]["code"], "RECORD_LOCKED");
    assert_eq!(world.post("/crm/v8/Contacts", body).await.0, 201, "used up");
}
