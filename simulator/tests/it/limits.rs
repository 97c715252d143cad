//! Windows, blocks and calls in flight.

use futures::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn one_call_too_many_in_a_minute_blocks_the_organisation() {
    let world = World::new("[finance]\nper_minute = 5").await;
    for _ in 0..5 {
        assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    }
    let refused = world.request(Method::GET, "/billing/v1/customers").send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.headers()["retry-after"], "1800");
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], 44);
    assert_eq!(world.get("/crm/v8/org").await.0, 200, "the CRM has its own limits");
    let stats = world.stats().await;
    assert_eq!(stats["violations"]["rate"], 1);
    assert_eq!(stats["refusals"]["billing:44"], 1);
    assert_eq!(stats["scopes"]["finance:60000000001"]["most_in_window"], 6);
}

#[tokio::test]
async fn a_block_ends_on_the_scaled_clock() {
    let world = World::new("time_scale = 600\n[finance]\nper_minute = 5\nblock_seconds = 180").await;
    join_all((0..6).map(|_| world.get("/billing/v1/customers"))).await;
    assert_eq!(world.stats().await["violations"]["rate"], 1);
    let free = async { while world.get("/billing/v1/customers").await.0 == 429 {} };
    tokio::time::timeout(std::time::Duration::from_secs(10), free).await.unwrap();
    assert!(world.stats().await["violations"]["during_block"].as_u64() > Some(0));
}

#[tokio::test]
async fn an_excess_is_recorded_even_if_it_is_answered() {
    let world = World::new("[finance]\nper_minute = 3\nblock = false").await;
    for _ in 0..5 {
        assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    }
    assert_eq!(world.stats().await["violations"]["rate"], 2);
}

#[tokio::test]
async fn calls_in_flight_are_counted_until_they_are_answered_and_refused_above_the_cap() {
    let world = World::new("latency_ms = [300, 300]\n[finance]\nin_flight = 3\n[crm]\nin_flight = 2").await;
    let answers = join_all((0..5).map(|_| world.get("/billing/v1/customers"))).await;
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 429).collect();
    assert_eq!(refused.len(), 2);
    assert!(refused.iter().all(|(_, body)| body["code"] == 1070));
    let answers = join_all((0..3).map(|_| world.get("/crm/v8/org"))).await;
    let refused: Vec<_> = answers.iter().filter(|(status, _)| *status == 429).collect();
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].1["code"], "TOO_MANY_REQUESTS");
    let stats = world.stats().await;
    let finance = &stats["scopes"]["finance:60000000001"];
    assert_eq!((&finance["most_in_flight"], &finance["in_flight"]), (&json!(5), &json!(0)));
    assert_eq!(stats["violations"]["in_flight"], 3);
}

#[tokio::test]
async fn the_daily_counter_is_shown_and_enforced() {
    let world = World::new("[finance]\nper_day = 2").await;
    let first = world.request(Method::GET, "/billing/v1/customers").send().await.unwrap();
    assert_eq!(first.headers()["x-rate-limit-limit"], "2");
    assert_eq!(first.headers()["x-rate-limit-remaining"], "1");
    assert!(first.headers().contains_key("x-rate-limit-reset"));
    assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    let (status, body) = world.get("/billing/v1/customers").await;
    assert_eq!((status, &body["code"]), (429, &json!(45)));
}

#[tokio::test]
async fn crm_counts_credits_by_records_and_says_what_is_left_once_half_is_spent() {
    let world = World::new("[crm]\ncredits = 10").await;
    let contacts = |n: usize| json!({"data": (0..n).map(|i| json!({"Last_Name": i.to_string()})).collect::<Vec<_>>()});
    let post = async |n: usize| world.request(Method::POST, "/crm/v8/Contacts").json(&contacts(n)).send().await.unwrap();
    let first = post(31).await;
    assert!(first.status().is_success() && !first.headers().contains_key("x-api-credits-remaining"), "4 of 10");
    assert_eq!(post(10).await.headers()["x-api-credits-remaining"], "5");
    assert_eq!(post(50).await.headers()["x-api-credits-remaining"], "0");
    let refused = post(1).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["code"], "TOO_MANY_REQUESTS");
    let stats = world.stats().await;
    assert_eq!((&stats["crm"]["most_credits"], &stats["violations"]["credits"]), (&json!(11), &json!(1)));
}

#[tokio::test]
async fn crm_has_a_pool_for_complex_calls() {
    let world = World::new("latency_ms = [300, 300]\n[crm]\nheavy_in_flight = 1").await;
    let contacts = |n: usize| json!({"data": (0..n).map(|i| json!({"Last_Name": i.to_string()})).collect::<Vec<_>>()});
    let answers = join_all([11, 11, 10].map(|n| world.post("/crm/v8/Contacts", contacts(n)))).await;
    assert_eq!(answers.iter().filter(|(status, _)| *status == 429).count(), 1);
    let stats = world.stats().await;
    assert_eq!((&stats["crm"]["most_heavy_in_flight"], &stats["violations"]["heavy_in_flight"]), (&json!(2), &json!(1)));
}
