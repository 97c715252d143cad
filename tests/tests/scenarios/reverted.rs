//! A row that goes back to what both sides agreed on, while the answer to another write of it is lost, must not stay in Zoho as the lost
//! write left it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Setup, World};

const TABLES: &str = include_str!("../../../recipes/billing/tables.sql");

#[tokio::test]
async fn a_row_that_went_back_while_its_write_was_lost_is_in_zoho_as_it_is() {
    let config = include_str!("../../../recipes/billing/sluice.toml");
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(TABLES, config) }).await;
    world
        .run("insert into customers (id, account_number, name, email, phone) values (1, 'A-1', 'One', 'one@customer.example', 'agreed')")
        .await;
    world.settled().await;

    world.zoho.lose("billing", "PUT", "/billing/v1/customers/*").await;
    world.run("update customers set phone = 'lost' where id = 1").await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["lost"], "it was carried out, and nobody knows");
    world.run("update customers set phone = 'agreed' where id = 1").await;
    world.settled().await;

    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["agreed"]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

/// The same, when the write gave up: what a person requeues says every field again.
#[tokio::test]
async fn a_row_that_went_back_after_its_lost_write_gave_up_is_in_zoho_as_it_is_once_requeued() {
    let config = format!("[retry]\nmax_failures = 1\n{}", include_str!("../../../recipes/billing/sluice.toml"));
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(TABLES, config) }).await;
    world
        .run("insert into customers (id, account_number, name, email, phone) values (1, 'A-1', 'One', 'one@customer.example', 'agreed'), (2, 'A-2', 'Two', 'two@customer.example', null)")
        .await;
    world.settled().await;

    world.zoho.lose("billing", "PUT", "/billing/v1/customers/*").await;
    world.run("update customers set phone = 'lost' where id = 1").await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    // a failure counts only once Zoho has answered somebody since
    world.run("update customers set phone = 'other' where id = 2").await;
    world.until("select count(*) = 1 from sluice.dead_letter where key = '1' and error_class = 'exhausted'").await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["lost", "other"]);
    world.run("update customers set phone = 'agreed' where id = 1; select sluice.requeue(id) from sluice.dead_letter where resolution is null").await;
    world.settled().await;

    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["agreed", "other"]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

/// Two writes are lost, the first after Zoho took it, the second before: what Zoho has is ours, though it is not what was sent last.
#[tokio::test]
async fn what_the_first_of_two_lost_writes_left_is_no_edit_of_zohos() {
    let tables = "create table things (id bigint generated always as identity primary key, zoho_id text, name text not null, note text);";
    let config = r#"
        [syncs.things]
        connection = "main"
        table = "things"
        key = "id"
        module = "inventory/items"
        direction = "both"
        min_interval = "10ms"
        conflict = "zoho"
        writeback = { id = "zoho_id" }
        fields = { name = "name", description = "note" }"#;
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(tables, config) }).await;
    world.run("insert into things (name, note) values ('Thing', 'agreed')").await;
    world.all_arrived().await;

    let failed_once = "select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'";
    let failed_twice = "select count(*) = 1 from sluice.slot where tries = 2 and state = 'available'";
    for (kind, note, failed) in [("error_after", "first", failed_once), ("error_before", "second", failed_twice)] {
        let fault = json!({"kind": kind, "product": "inventory", "method": "PUT", "path": "/inventory/v1/items/*", "times": 1});
        world.zoho.fault(fault).await;
        world.run(&format!("update things set note = '{note}'")).await;
        world.until(failed).await;
        assert_eq!(world.zoho.values("inventory", "items", "description").await, ["first"], "it was carried out, and nobody knows");
    }
    world.run("update things set note = 'third'").await;
    world.settled().await;

    assert_eq!(world.zoho.values("inventory", "items", "description").await, ["third"]);
    assert_eq!(world.rows("select note from things").await, [json!({"note": "third"})]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}
