//! Access tokens: one for all workers, renewed when Zoho refuses it, and never more often than Zoho allows.

use std::sync::Arc;

use secrecy::SecretString;
use serde_json::{Value, json};
use sluice_core::config::Config;

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

#[tokio::test]
async fn a_revoked_refresh_token_pauses_its_connection_alone_says_so_once_and_another_one_goes_on() {
    let connections: String = [("main", "ZOHO_REFRESH_TOKEN"), ("other", "ZOHO_WHOLESALE_REFRESH_TOKEN")]
        .map(|(name, token)| {
            format!("[connections.{name}]\nclient_id = \"${{ZOHO_CLIENT_ID}}\"\nclient_secret = \"${{ZOHO_CLIENT_SECRET}}\"\nrefresh_token = \"${{{token}}}\"\norganization_id = \"${{ZOHO_ORG_ID}}\"\n")
        })
        .concat();
    let others =
        BILLING.split_once("[syncs.people]").unwrap().1.replace("public.people", "public.strangers").replace("\"main\"", "\"other\"");
    let config = format!("{connections}{BILLING}[syncs.strangers]{}", others.replace("[syncs.people.fields]", "[syncs.strangers.fields]"));
    let tables = "create table people (id bigint primary key, name text, mail text); create table strangers (id bigint primary key, name text, mail text);";
    let world = World::new(Setup { elsewhere: Some("other"), ..Setup::new(tables, config) }).await;
    let elsewhere = world.elsewhere.clone().unwrap();
    people(&world, 1, 5).await;
    world.settled().await;
    world.zoho.post("oauth/revoke", json!({})).await;
    people(&world, 6, 10).await;
    world.run("insert into strangers select n, 'Stranger ' || n, 's' || n || '@people.example' from generate_series(1, 5) n").await;
    world.until("select paused_at is not null and pause_cause = 'token' from sluice.connection where name = 'main'").await;
    world.until("select count(*) = 5 from sluice.link where sync = 'strangers' and zoho_id is not null").await;
    assert_eq!(elsewhere.records("billing", "customers").await.len(), 5, "the other connection goes on");
    let reason = world.rows("select pause_reason as said from sluice.connection where name = 'main'").await.remove(0)["said"].clone();
    assert!(reason.as_str().unwrap().contains("sluice auth main"), "{reason}");
    for _ in 0..3 {
        world.run("select sluice.raise_alerts()").await;
    }
    let alerts = world.rows("select occasion, subject from sluice.alert").await;
    assert_eq!(alerts, [json!({"occasion": "connection_paused", "subject": "connection main"})]);
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 5, "five wait");
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());

    // The replica with the old file goes on beside the new one, and does not bring the old token back.
    let mut config = Config::clone(&world.config);
    let token = world.zoho.post("oauth/refresh-tokens", json!({})).await["refresh_token"].as_str().unwrap().to_owned();
    config.connections.get_mut("main").unwrap().refresh_token = Some(SecretString::from(token));
    let (stop, stopped) = world.start_worker_with(Arc::new(config));
    world.settled().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 10);
    // The new one ends. The old one looks, and mints the next access token: with what is stored, not with what is in its file.
    stop.cancel();
    stopped.await.unwrap();
    world.run("update sluice.credential set access_token = null, expires_at = null").await;
    world.until("select r.access_token is not null from sluice.connection c join sluice.credential r on r.fingerprint = c.credential where c.name = 'main'").await;
    people(&world, 11, 15).await;
    world.settled().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 15);
    assert_eq!(world.count("select count(*) from sluice.connection where paused_at is not null").await, 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}
