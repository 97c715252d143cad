//! Access tokens: one for all workers, renewed when Zoho refuses it, and never more often than Zoho allows.

use serde_json::{Value, json};

use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text);";
const BILLING: &str = r#"
[retry]
max_failures = 1
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
reference = "cf_key"
min_interval = "0s"
[syncs.people.fields]
display_name = "name"
email = "mail"
"#;

async fn people(world: &World, from: u32, to: u32) {
    world
        .run(&format!("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series({from}, {to}) n"))
        .await;
}

#[tokio::test]
async fn two_workers_share_one_token() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    world.start_worker();
    people(&world, 1, 40).await;
    world.settled().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 40);
    let workers = world.rows("select distinct worker from sluice.attempt").await;
    assert_eq!(workers.len(), 2, "both worked");
    assert_eq!(world.zoho.stats().await["tokens"]["minted"], json!(1));
    world.check_rules().await;
}

#[tokio::test]
async fn a_token_that_ends_in_the_middle_of_a_run_is_renewed_once_for_all_and_costs_no_failure() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    world.start_worker();
    people(&world, 1, 20).await;
    world.until("select count(*) > 5 from sluice.link where zoho_id is not null").await;
    world.zoho.post("oauth/expire", json!({})).await;
    world.settled().await;
    people(&world, 21, 40).await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 40);
    assert_eq!(world.zoho.stats().await["tokens"]["minted"], json!(2));
    world.check_rules().await;
}

#[tokio::test]
async fn tokens_that_zoho_refuses_again_and_again_are_not_minted_again_and_again() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    world.zoho.fault(json!({"kind": "unauthorized", "product": "billing"})).await;
    people(&world, 1, 20).await;
    // twice in a row: another token would not help, so the connection waits
    world.until("select exists (select from sluice.credential where access_token is null and failure is not null and retry_at > now() + interval '30 s')").await;
    world.until("select not exists (select from sluice.slot where state = 'running')").await;
    let stats = world.zoho.stats().await;
    assert!(stats["tokens"]["minted"].as_u64() <= Some(3), "{}", stats["tokens"]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
    // mended over there, and asked again
    world.zoho.post("reset?what=log", json!({})).await;
    world.zoho.clear_faults().await;
    world.run("update sluice.credential set retry_at = '-infinity'; update sluice.slot set due_at = now()").await;
    world.settled().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 20);
    world.check_rules().await;
}

#[tokio::test]
async fn when_zoho_denies_another_token_nobody_asks_until_it_allows_one_again() {
    let world = World::new(Setup { scenario: "[oauth]\nmints = 1", ..Setup::new(PEOPLE, BILLING) }).await;
    world.start_worker();
    people(&world, 1, 5).await;
    world.settled().await;
    world.zoho.post("oauth/expire", json!({})).await;
    people(&world, 6, 10).await;
    world.until("select failure is not null and retry_at > now() + interval '30 s' from sluice.credential").await;
    let tokens = world.zoho.stats().await["tokens"].clone();
    assert_eq!((&tokens["minted"], &tokens["throttled"]), (&json!(1), &json!(1)), "asked once, denied once");
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
    world.check_rules().await;
}
