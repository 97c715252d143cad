//! A database that is reached through a transaction pooler only: nothing listens.

use crate::world::{Setup, World};

const PEOPLE: &str = r#"
[connections.main]
client_id = "${ZOHO_CLIENT_ID}"
client_secret = "${ZOHO_CLIENT_SECRET}"
refresh_token = "${ZOHO_REFRESH_TOKEN}"
organization_id = "${ZOHO_ORG_ID}"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
reference = "cf_key"
fields = { display_name = "name", email = "mail" }
"#;

#[tokio::test]
async fn who_only_polls_does_his_work_and_asks_nobody_to_notify_him() {
    let world = World::without_roles(Setup::new("create table people (id bigint primary key, name text, mail text);", PEOPLE)).await;
    world
        .run(
            "create table said (channel text, asleep boolean);
             create or replace function sluice.set_asleep(p_channel text, p_asleep boolean) returns void language sql as 'insert into public.said values ($1, $2)'",
        )
        .await;
    world.start_roles_through(world.url()).await;
    world.run("insert into people values (1, 'a', 'a@people.example')").await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<serde_json::Value>::new());
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 1);
    assert_eq!(world.count("select count(*) from said").await, 0);
}
