//! Zoho is away, or asks to be left alone: work waits, nothing counts as a failure, and all of it arrives afterwards.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::db::dynamic;

use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text); create table leads (like people including all);";

/// A single failure that counts would make a dead letter.
const BILLING: &str = r#"
[retry]
max_failures = 1
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
reference = "cf_key"
[syncs.people.fields]
display_name = "name"
email = "mail"
[syncs.leads]
connection = "main"
table = "public.leads"
key = "id"
module = "crm/Leads"
match_on = ["Email"]
[syncs.leads.fields]
Last_Name = "name"
Email = "mail"
"#;

const TEN: &str = "insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 10) n;
                   insert into leads select n, 'Lead ' || n, 'l' || n || '@people.example' from generate_series(1, 10) n;";

#[tokio::test]
async fn while_zoho_is_down_jobs_wait_without_failures_and_arrive_afterwards() {
    let world = World::without_worker(Setup::new(PEOPLE, BILLING)).await;
    world.zoho.outage("billing", true).await;
    world.start_worker();
    world.run(TEN).await;
    world.until("select opened_at is not null from sluice.product where product = 'billing'").await;
    let before = world.zoho.calls().await.len();
    // the other product is not paused with it
    world.until("select count(*) = 10 from sluice.link where sync = 'leads' and synced_at is not null").await;
    assert_eq!(world.count("select count(*) from sluice.slot where sync = 'people'").await, 10);
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
    let probes = |calls: &[Value]| calls[before..].iter().filter(|call| call["product"] == "billing").count();
    // only probes get through: five calls opened the circuit, one more each five seconds
    world.until("select probe_at > opened_at + interval '5.5 s' from sluice.product where product = 'billing'").await;
    assert!(probes(&world.zoho.calls().await) <= 2);
    world.zoho.outage("billing", false).await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 10);
    assert_eq!(world.count("select count(*) from sluice.product where opened_at is not null").await, 0);
    world.check_rules().await;
}

#[tokio::test]
async fn a_record_that_alone_provokes_server_errors_dies_while_the_others_arrive() {
    let mut setup = Setup::new(PEOPLE, BILLING.replace("max_failures = 1", "max_failures = 2\nbase = \"10ms\"\ncap = \"50ms\""));
    setup.request_timeout = std::time::Duration::from_millis(500);
    let world = World::new(setup).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 2) n").await;
    world.settled().await;
    let id = world.rows("select zoho_id from sluice.link where key = '1'").await[0]["zoho_id"].as_str().unwrap().to_owned();
    world
        .zoho
        .fault(json!({"kind": "error_before", "product": "billing", "method": "PUT", "path": format!("/billing/v1/customers/{id}")}))
        .await;
    world.run("update sluice.sync set min_interval = '0'").await;
    world.run("update people set name = 'Poison' where id = 1").await;
    for edit in 0..40 {
        world.run(&format!("update people set name = 'Healthy {edit}' where id = 2")).await;
        world.until("select not exists (select from sluice.slot where key = '2') and not exists (select from sluice.change) and not exists (select from sluice.job)").await;
        world.run("update sluice.slot set due_at = now(), not_before = '-infinity' where key = '1' and state = 'available'").await;
        if !world.letters().await.is_empty() {
            break;
        }
    }
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["key"], &letters[0]["error_class"]), (&json!("1"), &json!("exhausted")));
    world.check_rules().await;
}

#[tokio::test]
async fn after_too_many_requests_nothing_is_sent_until_zoho_allows_it_and_nothing_fails() {
    let world = World::without_worker(Setup::new(PEOPLE, BILLING)).await;
    // somebody else used the organisation's minute up
    world.zoho.fault(json!({"kind": "rate_limited", "product": "billing", "retry_after": 2, "times": 1})).await;
    world.run(TEN).await;
    world.until("select count(*) = 20 from sluice.job").await;
    world.start_worker();
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 10);
    let calls: Vec<Value> = world.zoho.calls().await.into_iter().filter(|call| call["product"] == "billing").collect();
    let refused = calls.iter().position(|call| call["status"] == 429).unwrap();
    let answered = calls[refused]["arrived_us"].as_u64().unwrap() + calls[refused]["latency_us"].as_u64().unwrap();
    let early = calls[refused + 1..].iter().filter(|call| call["arrived_us"].as_u64().unwrap() < answered + 2_000_000).count();
    assert!(early <= 3, "{early} calls after the refusal; only the other three handlers had one in hand");
    assert!(calls.len() > refused + 1 + early, "the rest came later");
    world.check_rules().await;
}

#[tokio::test]
async fn a_refusal_stops_everybody_before_its_batch_is_settled() {
    let world = World::without_worker(Setup::new(PEOPLE, BILLING)).await;
    world.zoho.fault(json!({"kind": "rate_limited", "product": "billing", "retry_after": 20, "times": 1})).await;
    // one record: a settle that came before the refusal would hold the ledger, waiting for the attempts
    world.run("insert into people values (1, 'Person', 'p@people.example')").await;
    let mut somebody = world.connect().await.begin().await.unwrap();
    dynamic::script("lock table sluice.attempt in share mode".to_owned()).execute(&mut somebody).await.unwrap();
    world.start_worker();
    // no settle can end as long as nobody may write attempts
    world.until("select blocked_until > now() + interval '5 s' from sluice.budget where scope = 'finance'").await;
    assert_eq!(world.count("select count(*) from sluice.attempt").await, 0);
    somebody.rollback().await.unwrap();
    world.run("update sluice.budget set blocked_until = now()").await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
}

/// Sixty records that failed in one call wait equally long, or each would go by itself.
#[tokio::test]
async fn what_failed_in_one_call_goes_in_one_call_again() {
    // longer than a lost write is waited out, which would even them out
    let config = BILLING.replace("max_failures = 1", "base = \"9s\"");
    let world = World::without_worker(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(PEOPLE, config) }).await;
    world.zoho.fault(json!({"kind": "error_before", "product": "crm", "method": "POST", "path": "/crm/v8/Leads/upsert", "times": 1})).await;
    world.run("insert into leads select n, 'Lead ' || n, 'l' || n || '@people.example' from generate_series(1, 60) n").await;
    world.until("select count(*) = 60 from sluice.job").await;
    world.start_worker();
    world.all_arrived().await;
    assert_eq!(world.zoho.count_writes().await, 2, "{:?}", world.zoho.calls().await);
    world.check_rules().await;
}
