//! `call` jobs: any request under the shared budget, repeated only where that is harmless.

use std::time::Duration;

use serde_json::json;

use crate::arriving::CRM;
use crate::world::{Setup, World, text};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, born text);";

async fn call(world: &World, args: serde_json::Value) -> i64 {
    sqlx::query_scalar("insert into sluice.job (kind, args) values ('call', $1) returning id")
        .bind(args)
        .fetch_one(world.db())
        .await
        .unwrap()
}

#[tokio::test]
async fn the_answer_of_a_call_is_kept() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    let there = world.zoho.put("billing", "customers", None, json!({"display_name": "One", "email": "a@people.example"})).await;
    let path = format!("/customers/{}", text(&there["customer_id"]));
    // the first answer is lost, which costs a GET nothing
    world.zoho.fault(json!({"kind": "drop_after", "product": "billing", "method": "GET", "times": 1})).await;
    let job = call(&world, json!({"connection": "main", "product": "billing", "method": "GET", "path": path})).await;
    world.all_arrived().await;
    let result = world.rows(&format!("select http_status, body -> 'customer' ->> 'display_name' as name, sluice.job_result(job_id) from sluice.call_result where job_id = {job}")).await;
    assert_eq!(result, [json!({"http_status": 200, "name": "One", "job_result": "done"})]);
    world.check_rules().await;
}

#[tokio::test]
async fn a_post_whose_answer_is_lost_is_shown_and_never_repeated() {
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(PEOPLE, CRM) }).await;
    world.zoho.fault(json!({"kind": "drop_after", "product": "billing", "method": "POST", "times": 1})).await;
    let body = json!({"display_name": "One", "email": "a@people.example"});
    call(&world, json!({"connection": "main", "product": "billing", "method": "POST", "path": "/customers", "body": body})).await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((&letters[0]["error_class"], letters[0]["hint"].is_string()), (&json!("unknown"), true), "{}", letters[0]);
    assert_eq!(world.zoho.count_calls().await, 1);
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 1);
    world.check_rules().await;
}
