//! Rows that go away, or stop belonging to their sync: each policy does what it says and no more.

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

/// One table and sync for each policy, all on CRM contacts.
fn setup() -> Setup {
    let sync = |name: &str, policy: &str| {
        format!(
            "[syncs.{name}]\nconnection = \"main\"\ntable = \"public.{name}\"\nkey = \"id\"\nmodule = \"crm/Contacts\"\nmatch_on = [\"Email\"]\nmin_interval = \"0s\"\n{policy}\n\
             [syncs.{name}.fields]\nLast_Name = \"name\"\nEmail = \"mail\"\nTitle = \"title\"\n"
        )
    };
    let config = [
        sync("ignored", "on_delete = \"ignore\""),
        sync("marked", "on_delete = \"mark\"\nmark = { Title = \"gone\" }"),
        sync("deleted", "on_delete = \"delete\""),
        sync("kept", "on_delete = \"delete\"\nwhen = \"title <> 'private'\""),
        sync("dropped", "on_delete = \"delete\"\nwhen = \"title <> 'private'\"\nwhen_false = \"delete\""),
    ];
    Setup::new(
        "create table ignored (id bigint primary key, name text, mail text, title text); create table marked (like ignored including all);
         create table deleted (like ignored including all); create table kept (like ignored including all); create table dropped (like ignored including all);",
        config.concat(),
    )
}

const ALL: &[&str] = &["ignored", "marked", "deleted", "kept", "dropped"];

async fn titles(world: &World) -> Vec<(String, String)> {
    let mut titles: Vec<_> =
        world.zoho.records("crm", "Contacts").await.iter().map(|r| (text(&r["Last_Name"]), text(&r["Title"]))).collect();
    titles.sort();
    titles
}

fn expect(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(name, title)| ((*name).to_owned(), (*title).to_owned())).collect()
}

#[tokio::test]
async fn a_deleted_row_is_ignored_marked_or_deleted_in_zoho_as_its_sync_says() {
    let world = World::new(setup()).await;
    for sync in ALL {
        world.run(&format!("insert into {sync} values (1, '{sync}', '{sync}@people.example', 'here')")).await;
    }
    world.all_arrived().await;
    assert_eq!(titles(&world).await.len(), 5);
    for sync in &ALL[..3] {
        world.run(&format!("delete from {sync}")).await;
    }
    world.all_arrived().await;
    assert_eq!(titles(&world).await, expect(&[("dropped", "here"), ("ignored", "here"), ("kept", "here"), ("marked", "gone")]));
    // a row that comes back has its record back
    world.run("insert into marked values (1, 'marked', 'marked@people.example', 'here'); insert into deleted values (1, 'deleted', 'deleted@people.example', 'again')").await;
    world.all_arrived().await;
    assert_eq!(
        titles(&world).await,
        expect(&[("deleted", "again"), ("dropped", "here"), ("ignored", "here"), ("kept", "here"), ("marked", "here")])
    );
    world.check_rules().await;
}

#[tokio::test]
async fn a_row_that_stops_matching_when_is_left_as_it_is_or_deleted_as_its_sync_says() {
    let world = World::new(setup()).await;
    for sync in ["kept", "dropped"] {
        world
            .run(&format!(
                "insert into {sync} values (1, '{sync}', '{sync}@people.example', 'here'), (2, 'never', 'never@people.example', 'private')"
            ))
            .await;
    }
    world.all_arrived().await;
    assert_eq!(titles(&world).await, expect(&[("dropped", "here"), ("kept", "here")]), "what never matched never came");
    for sync in ["kept", "dropped"] {
        world.run(&format!("update {sync} set title = 'private' where id = 1")).await;
    }
    world.all_arrived().await;
    assert_eq!(titles(&world).await, expect(&[("kept", "here")]));
    let held = "select count(*) from sluice.record_status where sync = 'kept' and key = '1' and status = 'held'";
    assert_eq!(world.count(held).await, 1);
    let open = "select count(*) from sluice.dead_letter where resolution is null";
    world
        .run(
            "insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message)
             values ('push', '{\"sync\": \"kept\", \"key\": \"1\"}', 'kept', '1', 'normal', 'exhausted', 'an earlier edit gave up');
             update kept set name = 'private too' where id = 1",
        )
        .await;
    world.settled().await;
    assert_eq!(world.count(open).await, 1, "what is left as it is closes no letter");
    // it matches again with the very values that both sides agree on: nothing to send, and no longer held
    world.zoho.forget_calls().await;
    world.run("update kept set name = 'kept', title = 'here' where id = 1").await;
    world.settled().await;
    assert_eq!(world.count(open).await, 0, "it is in step again");
    assert_eq!(world.count("select count(*) from sluice.record_status where sync = 'kept' and key = '1' and status = 'synced'").await, 1);
    assert_eq!(world.zoho.count_calls().await, 0);
    world.check_rules().await;
}

#[tokio::test]
async fn a_row_that_comes_and_goes_before_it_was_pushed_costs_no_call() {
    let world = World::without_worker(setup()).await;
    for sync in ALL {
        world.run(&format!("insert into {sync} values (1, '{sync}', '{sync}@people.example', 'here')")).await;
    }
    world.until("select count(*) = 5 from sluice.job").await;
    for sync in ALL {
        world.run(&format!("delete from {sync}")).await;
    }
    world.start_worker();
    world.all_arrived().await;
    assert_eq!(world.zoho.count_calls().await, 0);
    assert_eq!(world.count("select count(*) from sluice.link").await, 0, "no intent is left behind");
    world.check_rules().await;
}

/// A customer with an invoice, both in Zoho.
async fn invoiced() -> World {
    let world =
        World::new(Setup::new(include_str!("../../../recipes/billing/tables.sql"), include_str!("../../../recipes/billing/sluice.toml")))
            .await;
    world
        .run(
            "insert into products (code, name) values ('installation', 'Installation');
             insert into customers (id, account_number, name, email) values (1, 'A-1', 'One', 'a@customer.example');
             insert into customer_invoices (id, customer_id, number, type, description, amount, issued_on, due_on)
               values (1, 1, 'INV-1', 'installation', 'Installation', 10, '2026-01-05', '2026-01-12')",
        )
        .await;
    world.all_arrived().await;
    world
}

#[tokio::test]
async fn an_invoice_whose_row_is_deleted_is_voided_once() {
    let world = invoiced().await;
    world.run("delete from customer_invoices").await;
    world.all_arrived().await;
    let statuses = world.zoho.values("billing", "invoices", "status").await;
    assert_eq!(statuses, ["void"]);
    world.zoho.forget_calls().await;
    sqlx::query("select sluice.enqueue('push', '{\"sync\": \"invoices\", \"key\": 1}')").execute(world.db()).await.unwrap();
    world.all_arrived().await;
    assert_eq!(world.zoho.calls().await, Vec::<Value>::new(), "done already");
    assert_eq!(
        world.rows("select zoho_id is not null as linked from sluice.link where sync = 'invoices'").await,
        [json!({"linked": true})]
    );
    // the very row comes back: nothing that could be sent takes the void back
    world
        .run(
            "insert into customer_invoices (id, customer_id, number, type, description, amount, issued_on, due_on)
               values (1, 1, 'INV-1', 'installation', 'Installation', 10, '2026-01-05', '2026-01-12')",
        )
        .await;
    world.all_arrived().await;
    let told =
        "select count(*) from customer_invoices where zoho_sync_status = 'failed' and zoho_last_sync_error like 'held: % was voided %'";
    assert_eq!((world.count(told).await, world.zoho.count_calls().await), (1, 0));
    world.check_rules().await;
}

#[tokio::test]
async fn what_zoho_does_not_let_go_of_is_a_letter_that_does_not_speak_of_the_row() {
    let world = invoiced().await;
    world
        .run(
            "insert into payments (id, customer_id, amount, method, status, paid_on) values (1, 1, 10, 'eft', 'completed', '2026-01-06');
             insert into payment_allocations (payment_id, invoice_id, amount) values (1, 1, 10)",
        )
        .await;
    world.all_arrived().await;
    world.run("set session_replication_role = replica; delete from payment_allocations; set session_replication_role = origin; delete from customer_invoices").await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(text(&letters[0]["hint"]).contains("the row is gone, and Zoho does not let go of its record"), "{letters:?}");
    world.check_rules().await;
}
