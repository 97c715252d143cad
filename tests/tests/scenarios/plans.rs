//! The plan that nobody configured: Zoho is asked once for all workers, within the budget, and what it says sets the limits.

use serde_json::{Value, json};
use sluice_producer::publish;

use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint primary key, name text);";
const CRM: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
reference = "Sluice_Key"
min_interval = "0s"
[syncs.people.fields]
Last_Name = "name"
"#;
const ENTERPRISE: &str = r#"
[crm]
edition = "enterprise"
users = 12
credits = 62000
in_flight = 20
[[crm.fields]]
module = "Contacts"
api_name = "Sluice_Key"
data_type = "text"
unique = true
length = 255
"#;

async fn people(world: &World, from: u32, to: u32) {
    world.run(&format!("insert into people select n, 'Person ' || n from generate_series({from}, {to}) n")).await;
}

fn asked(calls: &[Value]) -> usize {
    calls.iter().filter(|call| call["path"] == "/crm/v8/org").count()
}

/// Calls under way, credits, and who said so.
async fn limits(world: &World) -> Value {
    let sql = "select b.in_flight, m.told, m.told_by, p.plan, p.plan_users as users, (select count(*) from sluice.place x where x.budget_id = b.id and x.kind = 'in_flight') as places
               from sluice.product p join sluice.budget b on b.id = p.budget_id join sluice.meter m on m.budget_id = b.id and m.product = 'crm' where p.product = 'crm'";
    world.rows(sql).await.remove(0)
}

#[tokio::test]
async fn an_edition_that_the_file_does_not_name_is_asked_for_once_by_all_workers_and_sets_credits_and_calls_at_once() {
    let world = World::without_worker(Setup { scenario: ENTERPRISE, plans: false, ..Setup::new(PEOPLE, CRM) }).await;
    assert_eq!(limits(&world).await["in_flight"], 10, "what every paid edition has");
    world.start_worker();
    world.start_worker();
    people(&world, 1, 300).await;
    world.settled().await;
    let learnt = json!({"in_flight": 20, "told": 62_000, "told_by": "organization", "plan": "enterprise", "users": 12, "places": 20});
    assert_eq!(limits(&world).await, learnt);
    let used = world.count("select used::bigint from sluice.meter where product = 'crm'").await;
    let credits = world.zoho.stats().await["crm"]["credits"].clone();
    assert_eq!(json!(used), credits, "the question is counted like any other call");
    publish(world.db(), &world.config, &Default::default()).await.unwrap();
    world.start_worker();
    people(&world, 301, 320).await;
    world.settled().await;
    assert_eq!(limits(&world).await, learnt, "publishing forgets nothing");
    let shown = "select limit_kind, cap, allowed, cap_by, plan, plan_users from sluice.budget_status where product = 'crm' and cap_by is not null order by 1";
    let status = |kind, cap| json!({"limit_kind": kind, "cap": cap, "allowed": cap, "cap_by": "organization", "plan": "enterprise", "plan_users": 12});
    assert_eq!(world.rows(shown).await, [status("credits_per_day", 62_000), status("in_flight", 20)]);
    assert_eq!(asked(&world.zoho.calls().await), 1);
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 320);
    assert_eq!(world.letters().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_token_that_may_not_ask_for_the_edition_stops_nothing() {
    let world = World::without_worker(Setup { scenario: ENTERPRISE, plans: false, ..Setup::new(PEOPLE, CRM) }).await;
    world.zoho.fault(json!({"kind": "denied", "path": "/crm/v8/org"})).await;
    world.start_worker();
    people(&world, 1, 20).await;
    world.settled().await;
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 20);
    assert_eq!(asked(&world.zoho.calls().await), 1);
    assert_eq!(limits(&world).await["in_flight"], 10);
    assert_eq!(
        world.count("select count(*) from sluice.product where product = 'crm' and plan_failure is not null and plan_due_at > now()").await,
        1
    );
    assert_eq!(world.count("select count(*) from sluice.sync where paused_at is not null").await, 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.count("select count(*) from sluice.attempt where error_class is not null").await, 0);
}
