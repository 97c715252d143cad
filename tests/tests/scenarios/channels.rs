//! CRM's notification channels: opened, renewed, and opened anew when Zoho has forgotten them; then what nobody was told of is polled.

use serde_json::{Value, json};
use sluice_producer::webhook;

use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint generated always as identity primary key, name text, zoho_id text);";
const CONFIG: &str = r#"
    [http]
    public_url = "https://hooks.example.com/"
    [syncs.people]
    connection = "main"
    table = "people"
    key = "id"
    module = "crm/Contacts"
    direction = "pull"
    writeback = { id = "zoho_id" }
    fields = { Last_Name = "name" }
    [webhooks.crm]
    connection = "main"
    verify = "crm-token"
    secret = "not-much-of-a-secret"
    syncs = { Contacts = "people" }
"#;

/// The channels that Zoho has, as it lists them.
async fn channels(world: &World) -> Value {
    let args = json!({"connection": "main", "product": "crm", "method": "GET", "path": "/actions/watch"});
    world.run(&format!("insert into sluice.job (kind, args) values ('call', '{args}')")).await;
    world.settled().await;
    world.rows("select body from sluice.call_result order by job_id desc limit 1").await.remove(0)["body"]["watch"].clone()
}

async fn renew(world: &World) {
    world.run("update sluice.channel set renew_at = now(), asked_until = null, expires_at = now() + interval '1 day'").await;
    webhook::want_channels(&world.config, world.db()).await;
    // any number of producers may say so
    webhook::want_channels(&world.config, world.db()).await;
    world.settled().await;
    world
        .until(
            "select state = 'open' and expires_at > now() + interval '6 days' and renew_at > now() + interval '3 days' from sluice.channel",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_opened_once_renewed_and_opened_anew_with_a_poll_of_the_gap() {
    let world = World::new(Setup { speed: 1.0, ..Setup::new(PEOPLE, CONFIG) }).await;
    world.until("select exists (select from sluice.channel where state = 'open')").await;
    let open = channels(&world).await;
    assert_eq!((&open[0]["notify_url"], &open[0]["events"]), (&json!("https://hooks.example.com/webhook/crm"), &json!(["Contacts.all"])));
    assert_eq!(world.count("select count(*) from sluice.run where kind = 'poll'").await, 0, "nothing was missed before the first");

    renew(&world).await;
    let renewed = channels(&world).await;
    assert_eq!((&renewed[0]["channel_id"], renewed.as_array().map(Vec::len)), (&open[0]["channel_id"], Some(1)));
    assert_eq!(world.count("select count(*) from sluice.run where kind = 'poll'").await, 0, "nothing is missed by renewing");

    let id = open[0]["channel_id"].as_str().unwrap();
    let args = json!({"connection": "main", "product": "crm", "method": "DELETE", "path": "/actions/watch", "query": {"channel_ids": id}});
    world.run(&format!("insert into sluice.job (kind, args) values ('call', '{args}')")).await;
    world.settled().await;
    world.zoho.put("crm", "Contacts", None, json!({"Last_Name": "Missed"})).await;
    renew(&world).await;
    world.all_arrived().await;
    assert_eq!(channels(&world).await[0]["events"], json!(["Contacts.all"]));
    assert_eq!(world.rows("select name from people").await, [json!({"name": "Missed"})]);
    world.check_rules().await;
}
