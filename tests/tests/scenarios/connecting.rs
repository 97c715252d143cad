//! What concerns a connection, and not a record: which organisation it is, and what its token may do. Records wait for it; none dies of it.

use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_producer::publish;

use crate::world::{ORGANIZATION, Setup, World};

const TABLES: &str =
    "create table people (id bigint primary key, name text, mail text); create table goods (id bigint primary key, title text);";
const SYNCS: &str = r#"
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
[syncs.goods]
connection = "main"
table = "public.goods"
key = "id"
module = "billing/products"
[syncs.goods.fields]
name = "title"
"#;
const ONE_ORGANIZATION: &str = "[finance]\norganizations = [\"60000000001\"]";
const TWO_ORGANIZATIONS: &str = "[finance]\norganizations = [\"60000000001\", \"60000000002\"]";

/// The syncs, on a connection whose file says this about its organisation.
fn naming(organization: &str, scenario: &'static str) -> Setup {
    let connection = format!(
        "[connections.main]\nclient_id = \"${{ZOHO_CLIENT_ID}}\"\nclient_secret = \"${{ZOHO_CLIENT_SECRET}}\"\nrefresh_token = \"${{ZOHO_REFRESH_TOKEN}}\"\n{organization}\n"
    );
    Setup { scenario, ..Setup::new(TABLES, format!("{connection}{SYNCS}")) }
}

async fn rows(world: &World) {
    world
        .run(
            "insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 8) n;
             insert into goods select n, 'Thing ' || n from generate_series(1, 4) n",
        )
        .await;
}

async fn everything_arrived(world: &World) {
    world.all_arrived().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 8);
    assert_eq!(world.zoho.records("billing", "products").await.len(), 4);
}

async fn nobody_was_blamed(world: &World) {
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
}

/// The same file with an organisation named, published as `sluice attach` does; the running worker has the old one.
async fn publish_naming(world: &World, organization: &str) {
    let mut config = Config::clone(&world.config);
    config.connections.get_mut("main").unwrap().organization_id = Some(organization.to_owned());
    publish(world.db(), &config, &Default::default()).await.unwrap();
}

fn asked_for_organizations(calls: &[Value]) -> usize {
    calls.iter().filter(|call| call["path"] == "/billing/v1/organizations").count()
}

#[tokio::test]
async fn an_organisation_that_the_file_does_not_name_is_asked_for_once_and_its_budget_goes_on() {
    let world = World::without_worker(naming("", ONE_ORGANIZATION)).await;
    rows(&world).await;
    world.start_worker();
    everything_arrived(&world).await;
    let calls = world.zoho.calls().await;
    assert_eq!((asked_for_organizations(&calls), calls.len()), (1, 13), "one question and one call a record");
    let known = world.rows("select organization_id from sluice.connection").await;
    assert_eq!(known, [json!({"organization_id": ORGANIZATION})]);
    assert_eq!(world.count("select count(*) from sluice.budget where organization_id <> '60000000001'").await, 0);
    world.check_rules().await;

    world.zoho.forget_calls().await;
    world.run("update people set name = 'Somebody else'").await;
    world.start_worker();
    world.settled().await;
    assert_eq!(asked_for_organizations(&world.zoho.calls().await), 0, "another worker knows it from the table");
}

#[tokio::test]
async fn several_workers_that_start_at_once_ask_which_organisation_it_is_with_one_call() {
    let world = World::without_worker(naming("", ONE_ORGANIZATION)).await;
    world.zoho.fault(json!({"kind": "slow", "path": "/billing/v1/organizations", "latency_ms": [1_000, 1_000]})).await;
    rows(&world).await;
    world.until("select count(*) = 12 from sluice.job").await;
    for _ in 0..3 {
        world.start_worker();
    }
    everything_arrived(&world).await;
    assert_eq!(asked_for_organizations(&world.zoho.calls().await), 1);
    nobody_was_blamed(&world).await;
    world.check_rules().await;
}

#[tokio::test]
async fn a_connection_that_turns_out_to_be_an_organisation_with_a_budget_draws_from_it() {
    let mut setup = naming("", ONE_ORGANIZATION);
    let twin = setup.config.split("[retry]").next().unwrap().replace("connections.main", "connections.twin")
        + "organization_id = \"60000000001\"\n";
    setup.config = format!("{twin}{}", setup.config);
    let world = World::without_worker(setup).await;
    let budgets = "select count(distinct budget_id) from sluice.product where product = 'billing'";
    assert_eq!(world.count(budgets).await, 2, "nobody knows yet that they are one");
    rows(&world).await;
    world.start_worker();
    everything_arrived(&world).await;
    assert_eq!(world.count(budgets).await, 1);
    world.check_rules().await;
}

#[tokio::test]
async fn of_several_organisations_none_is_guessed_and_the_connection_waits_until_one_is_named() {
    let world = World::without_worker(naming("", TWO_ORGANIZATIONS)).await;
    rows(&world).await;
    world.start_worker();
    world.until("select exists (select from sluice.connection where paused_at is not null)").await;
    let paused = world.rows("select paused_by, pause_cause, pause_reason from sluice.connection").await.remove(0);
    let reason = paused["pause_reason"].as_str().unwrap();
    for said in ["60000000001 (Organisation 60000000001)", "60000000002 (", "organization_id in [connections.main]", "sluice attach"] {
        assert!(reason.contains(said), "{said}: {paused}");
    }
    world.until("select not exists (select from sluice.slot where state = 'running')").await;
    nobody_was_blamed(&world).await;
    assert!(world.zoho.count_calls().await <= 4, "at most one call for each batch that was under way");
    publish_naming(&world, ORGANIZATION).await;
    everything_arrived(&world).await;
    world.check_rules().await;
}

#[tokio::test]
async fn a_wrong_organisation_pauses_the_connection_and_the_right_one_once_published_lets_everything_arrive() {
    let world = World::without_worker(naming("organization_id = \"71\"", ONE_ORGANIZATION)).await;
    rows(&world).await;
    world.start_worker();
    world
        .until("select coalesce(pause_cause = 'organization' and pause_reason like '%6041%organization_id%', false) from sluice.connection")
        .await;
    world.until("select not exists (select from sluice.slot where state = 'running')").await;
    nobody_was_blamed(&world).await;
    assert!(world.zoho.count_calls().await <= 4, "{:#?}", world.zoho.calls().await);
    publish_naming(&world, ORGANIZATION).await;
    // The worker still has the old file; it calls for the organisation that is published.
    everything_arrived(&world).await;
    assert_eq!(world.count("select count(*) from sluice.connection where paused_at is not null").await, 0);
}

#[tokio::test]
async fn a_pause_that_a_person_made_is_not_ended_by_publishing() {
    let world = World::without_roles(naming("organization_id = \"71\"", ONE_ORGANIZATION)).await;
    world.run("select sluice.pause('main', reason => 'month end')").await;
    publish_naming(&world, ORGANIZATION).await;
    assert_eq!(world.count("select count(*) from sluice.connection where pause_reason = 'month end' and paused_at is not null").await, 1);
}

#[tokio::test]
async fn a_right_that_is_missing_for_one_module_pauses_its_sync_and_no_other() {
    let world = World::without_worker(naming("organization_id = \"60000000001\"", ONE_ORGANIZATION)).await;
    world.zoho.fault(json!({"kind": "denied", "path": "/billing/v1/customers*"})).await;
    rows(&world).await;
    world.start_worker();
    world.until("select paused_at is not null from sluice.sync where name = 'people'").await;
    world.until("select count(*) = 4 from sluice.link where sync = 'goods' and zoho_id is not null").await;
    world.until("select not exists (select from sluice.slot where state = 'running')").await;
    nobody_was_blamed(&world).await;
    let calls = world.zoho.calls().await;
    let refused = calls.iter().filter(|call| call["path"] == "/billing/v1/customers").count();
    // once with the token it had, once with a new one, for each batch that was under way
    assert!((2..=8).contains(&refused), "{refused}");
    let reason = world.rows("select pause_reason from sluice.sync where name = 'people'").await.remove(0);
    assert!(reason["pause_reason"].as_str().unwrap().contains("sluice resume --sync people"), "{reason}");
    world.zoho.clear_faults().await;
    world.run("select sluice.resume(sync => 'people')").await;
    everything_arrived(&world).await;
    world.check_rules().await;
}

#[tokio::test]
async fn a_scope_that_crm_misses_kills_no_record_and_another_refresh_token_resumes() {
    const CRM: &str = "[syncs.contacts]\nconnection = \"main\"\ntable = \"public.people\"\nkey = \"id\"\nmodule = \"crm/Contacts\"\nmatch_on = [\"Email\"]\n\
                       [syncs.contacts.fields]\nLast_Name = \"name\"\nEmail = \"mail\"\n";
    let world = World::without_worker(Setup::new(TABLES, CRM)).await;
    world.zoho.fault(json!({"kind": "denied", "product": "crm"})).await;
    rows(&world).await;
    world.start_worker();
    world.until("select coalesce(pause_reason like '%OAUTH_SCOPE_MISMATCH%', false) from sluice.sync where name = 'contacts'").await;
    world.until("select not exists (select from sluice.slot where state = 'running')").await;
    nobody_was_blamed(&world).await;
    assert_eq!(world.zoho.count_calls().await, 1, "one call, of which all eight records learnt it");
    world.zoho.clear_faults().await;
    let keys = sluice_core::secrets::KeyRing::load(&world.config.security, std::path::Path::new(".")).unwrap();
    let token = world.config.connections["main"].refresh_token.clone().unwrap();
    sluice_worker::store_refresh_token(world.db(), &keys, "main", &token).await.unwrap();
    world.all_arrived().await;
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 8);
    world.check_rules().await;
}

#[tokio::test]
async fn a_sync_whose_table_lost_a_column_before_the_worker_came_goes_on_once_it_is_mended_without_a_restart() {
    let world = World::without_worker(naming("organization_id = \"60000000001\"", ONE_ORGANIZATION)).await;
    rows(&world).await;
    world.until("select count(*) = 12 from sluice.job").await;
    world.run("alter table people rename column mail to email").await;
    world.start_worker();
    world.until("select count(*) = 4 from sluice.link where sync = 'goods' and zoho_id is not null").await;
    nobody_was_blamed(&world).await;
    assert_eq!(world.count("select count(*) from sluice.link where sync = 'people'").await, 0);
    world.run("alter table people rename column email to mail").await;
    everything_arrived(&world).await;
    world.check_rules().await;
}
