//! What one process sends at most, whatever the ledger grants.

use serde_json::Value;

use crate::world::{Setup, World};

const LIMITED: &str = r#"
[connections.main]
client_id = "${ZOHO_CLIENT_ID}"
client_secret = "${ZOHO_CLIENT_SECRET}"
refresh_token = "${ZOHO_REFRESH_TOKEN}"
organization_id = "${ZOHO_ORG_ID}"
[connections.main.budget.finance]
per_minute = 1
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
reference = "cf_key"
[syncs.people.fields]
display_name = "name"
email = "mail"
"#;

#[tokio::test]
async fn a_process_sends_no_more_than_its_file_allows_even_if_the_ledger_grants_more() {
    let world = World::without_worker(Setup::new("create table people (id bigint primary key, name text, mail text);", LIMITED)).await;
    // somebody's hand on the tables
    world.run("update sluice.budget set cap = 500; insert into sluice.place (budget_id, kind) select id, 'window' from sluice.budget, generate_series(1, 500)").await;
    world.start_worker();
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 8) n").await;
    world.settled().await;
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 8);
    let most = world.zoho.stats().await["scopes"]["finance:60000000001"]["most_in_window"].as_u64();
    // some travel longer than others: those of three windows may meet
    assert!(most.is_some() && most <= Some(3), "one was to be sent in a window, {most:?} arrived in one");
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.count("select count(*) from sluice.slot where failures > 0").await, 0);
}
