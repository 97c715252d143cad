//! Both sides compared as a whole: what was missed is put right, and a list that lies deletes nothing.

use serde_json::{Value, json};

use crate::world::{Setup, World};

const PRODUCTS: &str = "
    create table products (id bigint generated always as identity primary key, zoho_item_id text, name text not null, price numeric(12, 2));";

fn items(settings: &str) -> String {
    format!(
        r#"
        [syncs.items]
        connection = "main"
        table = "products"
        key = "id"
        module = "inventory/items"
        direction = "pull"
        on_delete = "delete"
        writeback = {{ id = "zoho_item_id" }}
        {settings}
        [syncs.items.fields]
        name = "name"
        rate = "price"
        "#
    )
}

const CUSTOMERS: &str = "create table customers (id bigint primary key, email text not null, note text);";

fn contacts(settings: &str) -> String {
    format!(
        r#"
        [syncs.contacts]
        connection = "main"
        table = "customers"
        key = "id"
        module = "crm/Contacts"
        match_on = ["Email"]
        {settings}
        [syncs.contacts.fields]
        Last_Name = "email"
        Email = "email"
        Description = {{ column = "note", owner = "local" }}
        "#
    )
}

async fn seed(world: &World, count: i64) -> Vec<String> {
    world.zoho.seed(("inventory", "items"), count, json!({"name": "Item {n}", "sku": "S{n}", "rate": 5}), 10).await
}

/// Sweeps once, and answers the run.
async fn sweep(world: &World, sync: &str) -> Value {
    world.run(&format!("select sluice.reconcile('{sync}')")).await;
    swept(world).await
}

/// The run of a sweep that was asked for, when it is over.
async fn swept(world: &World) -> Value {
    world.until("select not exists (select from sluice.run where kind = 'reconcile' and state = 'running')").await;
    world.settled().await;
    world.until("select not exists (select from sluice.sighting)").await;
    let run = world.rows("select state, total, created, updated, unchanged, failed, messages from sluice.run where kind = 'reconcile' order by id desc limit 1");
    let run = run.await.remove(0);
    let uncounted = "select count(*) from sluice.run where total <> created + updated + unchanged + failed";
    assert_eq!(world.count(uncounted).await, 0, "every record of a run ends in one count: {run}");
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_comes_back_empty_by_mistake_deletes_nothing() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    seed(&world, 60).await;
    world.poll("items").await;
    assert_eq!(world.count("select count(*) from products").await, 60);

    world.zoho.fault(json!({"kind": "empty_list", "path": "/inventory/v1/items"})).await;
    world.poll("items").await;
    let run = sweep(&world, "items").await;
    assert_eq!(run["state"], "held", "{run}");
    assert_eq!(world.count("select count(*) from products").await, 60);
    let held = world
        .rows("select operation, records, jsonb_array_length(sample) as sample from sluice.held_change where resolution is null")
        .await;
    assert_eq!(held, [json!({"operation": "missing", "records": 60, "sample": 10})]);
    assert_eq!(world.count("select count(*) from sluice.alert where occasion = 'brake'").await, 1);

    // Approved all the same: each is read by its id, and is there.
    assert_eq!(world.count("select sluice.approve(id) from sluice.held_change where resolution is null").await, 60);
    world.settled().await;
    assert_eq!(world.count("select count(*) from products").await, 60);

    // Few enough to be asked for at once: likewise, even if every list is empty.
    world.zoho.fault(json!({"kind": "empty_list", "product": "inventory"})).await;
    world.run("delete from products where id > 10; delete from sluice.link where key::int > 10").await;
    let run = sweep(&world, "items").await;
    assert_eq!(run["state"], "done", "{run}");
    assert_eq!(world.count("select count(*) from products").await, 10);
    assert_eq!(world.count("select count(*) from sluice.link where gone_at is not null").await, 0);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_finds_what_no_poll_told_of() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    let ids = seed(&world, 450).await;
    world.poll("items").await;
    // A link that is wrong, a row that was forgotten, a record deleted in Zoho, which Inventory tells nobody.
    world.run("update sluice.link set fields = jsonb_set(fields, '{rate,zoho}', '4') where key = '7'").await;
    world.run("delete from sluice.link where key = '8'; update products set zoho_item_id = null, name = 'other' where id = 8").await;
    world.zoho.forget_calls().await;
    world.zoho.delete("inventory", "items", &ids[100]).await;
    let run = sweep(&world, "items").await;
    assert_eq!((&run["state"], &run["total"], &run["failed"]), (&json!("done"), &json!(449), &json!(0)), "{run}");
    assert_eq!((&run["created"], &run["unchanged"]), (&json!(1), &json!(447)), "{run}");
    assert_eq!(world.count("select count(*) from products").await, 450, "one deleted, one made anew");
    assert_eq!(world.count("select count(*) from sluice.link where key = '7' and (fields #>> '{rate,zoho}')::numeric = 5").await, 1);
    let coverage = world.rows("select linked, verified_within, oldest_verified_at is not null as all, last_sweep_at is not null as swept, drift from sluice.coverage").await;
    assert_eq!(coverage, [json!({"linked": 449, "verified_within": 449, "all": true, "swept": true, "drift": 3})]);

    // Nothing is left to find: the pages, and nothing else.
    world.zoho.forget_calls().await;
    let run = sweep(&world, "items").await;
    assert_eq!((&run["unchanged"], &run["messages"]), (&json!(449), &json!([])));
    assert_eq!(world.zoho.count_calls().await, 3);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_whose_change_nobody_captured_are_pushed() {
    let world = World::new(Setup::new(CUSTOMERS, contacts(""))).await;
    world.run("insert into customers select n, 'c' || n || '@example.com', 'old' from generate_series(1, 300) n").await;
    world.all_arrived().await;
    world
        .run(
            "alter table customers disable trigger all; update customers set note = 'new' where id <= 5;
             insert into customers values (1000, 'late@example.com', 'late'); alter table customers enable trigger all",
        )
        .await;
    let run = sweep(&world, "contacts").await;
    assert_eq!(run["state"], "done", "{run}");
    world.all_arrived().await;
    let there = world.zoho.records("crm", "Contacts").await;
    assert_eq!(there.len(), 301);
    assert_eq!(there.iter().filter(|contact| contact["Description"] == "new").count(), 5);
    let drift = world.rows("select drift from sluice.coverage").await;
    assert_eq!(drift, [json!({"drift": 6})]);
    let run = sweep(&world, "contacts").await;
    assert_eq!((&run["messages"], &run["total"]), (&json!([]), &json!(301)));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_in_zoho_of_a_sync_that_pushes_are_shown_and_only_repaired_where_it_says_so() {
    for (repaired, expected) in [(false, "theirs"), (true, "ours")] {
        let config = contacts("").replace("owner = \"local\"", &format!("owner = \"local\", repair = {repaired}"));
        let world = World::new(Setup::new(CUSTOMERS, config)).await;
        world.run("insert into customers select n, 'c' || n || '@example.com', 'ours' from generate_series(1, 3) n").await;
        world.all_arrived().await;
        let id = world.rows("select zoho_id from sluice.link where key = '2'").await[0]["zoho_id"].as_str().expect("an id").to_owned();
        world.zoho.put_later("crm", "Contacts", &id, json!({"Description": "theirs"})).await;
        let run = sweep(&world, "contacts").await;
        let said = run["messages"][0].as_str().unwrap_or_default();
        assert!(said.starts_with(&format!("2 ({id}): Description is \"theirs\" in Zoho, not \"ours\"")), "{run}");
        let contact = world.zoho.records("crm", "Contacts").await.into_iter().find(|one| one["id"] == json!(id)).expect("the contact");
        assert_eq!(contact["Description"], expected);
        world.check_rules().await;
        world.all_arrived().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_that_nobody_captured_wait_for_a_person() {
    let world = World::new(Setup::new(CUSTOMERS, contacts("brake = { max_changes = 50 }"))).await;
    for hundred in 0..4 {
        world
            .run(&format!(
                "insert into customers select n, 'c' || n || '@example.com', 'old' from generate_series({}, {}) n",
                hundred * 40 + 1,
                hundred * 40 + 40
            ))
            .await;
        world.all_arrived().await;
        world.run("delete from sluice.brake_record").await;
    }
    world
        .run("alter table customers disable trigger all; update customers set note = null; alter table customers enable trigger all")
        .await;
    world.zoho.forget_calls().await;
    let run = sweep(&world, "contacts").await;
    assert_eq!(run["state"], "held", "{run}");
    let held = world.rows("select operation, records from sluice.held_change where resolution is null").await;
    assert_eq!(held, [json!({"operation": "change", "records": 160})]);
    assert_eq!(world.zoho.count_calls().await, 1, "the list, and no write");
    assert_eq!(world.count("select sluice.approve(id, max_records => 10) from sluice.held_change where resolution is null").await, 10);
    world.settled().await;
    let emptied = world.zoho.records("crm", "Contacts").await.iter().filter(|contact| contact["Description"].is_null()).count();
    assert_eq!(emptied, 10);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_goes_on_where_it_stopped_and_no_faster_than_its_calls_a_day() {
    let world = World::without_roles(Setup::new(PRODUCTS, items("reconcile = { within = \"30d\", max_calls_per_day = 2 }"))).await;
    // the producer is not to ask by itself before there is anything
    world.run("insert into sluice.reconcile_cursor (sync, asked_at) values ('items', clock_timestamp())").await;
    world.start_producer().await;
    world.start_worker();
    seed(&world, 450).await;
    world.poll("items").await;
    world.run("update sluice.link set verified_at = null, synced_at = null").await;
    // Two pages a day.
    world.run("select sluice.reconcile('items')").await;
    world.until("select exists (select from sluice.slot where key = 'reconcile:items' and state = 'available' and due_at > clock_timestamp() + interval '1 s')").await;
    let verified = world.count("select count(*) from sluice.link where verified_at is not null").await;
    assert!((300..=400).contains(&verified), "{verified}");
    assert_eq!(world.count("select calls::bigint from sluice.reconcile_cursor").await, 2);
    // Tomorrow
    world.run("update sluice.reconcile_cursor set calls_on = calls_on - 1; update sluice.slot set due_at = clock_timestamp(), not_before = '-infinity'; select sluice.reconcile('items')").await;
    world.until("select not exists (select from sluice.run where kind = 'reconcile' and state = 'running')").await;
    world.settled().await;
    assert_eq!(world.count("select verified_within from sluice.coverage").await, 450);
    assert_eq!(world.count("select count(*) from sluice.run where kind = 'reconcile'").await, 1);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_change_in_zoho_is_held_and_applied_when_somebody_approves() {
    let world = World::new(Setup::new(PRODUCTS, items("brake = { max_changes = \"5%\", max_deletes = 5 }"))).await;
    let ids = seed(&world, 200).await;
    world.poll("items").await;
    assert_eq!(world.count("select count(*) from products").await, 0, "a first import is a mass change as well");
    assert_eq!(world.count("select sluice.approve(id) from sluice.held_change where resolution is null").await, 200);
    world.settled().await;
    assert_eq!(world.count("select count(*) from products").await, 200);
    world.run("delete from sluice.alert").await;

    world.zoho.pass(60).await;
    for id in &ids {
        world.zoho.put("inventory", "items", Some(id), json!({"rate": 0})).await;
    }
    world.poll("items").await;
    assert_eq!(world.count("select count(*) from products where price = 5").await, 200, "nothing was applied");
    let held = world
        .rows("select operation, records, jsonb_array_length(sample) as sample, sample #>> '{0,changed,rate,old}' as old, sample #>> '{0,changed,rate,new}' as new from sluice.held_change where resolution is null")
        .await;
    assert_eq!(held, [json!({"operation": "pull", "records": 200, "sample": 10, "old": "5.00", "new": "0"})]);
    assert_eq!(world.count("select count(*) from sluice.alert where occasion = 'brake'").await, 1);

    // A part of it, the rest is dropped and is not asked about again.
    assert_eq!(world.count("select sluice.approve(id, max_records => 30) from sluice.held_change where resolution is null").await, 30);
    world.settled().await;
    assert_eq!(world.count("select count(*) from products where price = 0").await, 30);
    world.run("select sluice.reject(id) from sluice.held_change where resolution is null").await;
    let run = sweep(&world, "items").await;
    assert_eq!(run["state"], "done", "{run}");
    assert_eq!(world.count("select count(*) from sluice.held_change where resolution is null").await, 0);
    assert_eq!(world.count("select count(*) from products where price = 5").await, 170);

    // What is changed again is another change, and few enough go through.
    world.zoho.put_later("inventory", "items", &ids[150], json!({"rate": 7})).await;
    world.poll("items").await;
    assert_eq!(world.count("select count(*) from products where price = 7").await, 1);

    // Deletes have a limit of their own, and what is missing is asked about once.
    for id in &ids[..8] {
        world.zoho.delete("inventory", "items", id).await;
    }
    let run = sweep(&world, "items").await;
    assert_eq!(run["state"], "held", "{run}");
    assert_eq!(world.count("select sluice.approve(id) from sluice.held_change where resolution is null").await, 8);
    world.settled().await;
    assert_eq!(world.count("select count(*) from products").await, 192);
    assert_eq!(world.count("select count(*) from sluice.held_change where resolution is null").await, 0);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_is_asked_for_by_itself_and_once_however_many_producers_look() {
    let world = World::new(Setup::new(PRODUCTS, items("reconcile = { within = \"7d\" }"))).await;
    world.start_producer().await;
    world.start_producer().await;
    world.until("select exists (select from sluice.coverage where last_sweep_at is not null)").await;
    world.settled().await;
    let due = "select count(*) from (select sluice.reconcile_if_due(name, hash, interval '7 days') as run from sluice.sync) due where run is not null";
    assert_eq!(world.count(due).await, 0);
    assert_eq!(world.count("select count(*) from sluice.run where kind = 'reconcile'").await, 1);
    world.run("update sluice.reconcile_cursor set began_at = began_at - interval '8 days', completed_at = completed_at - interval '8 days', asked_at = asked_at - interval '8 days'").await;
    assert_eq!(world.count(due).await, 1);
    world.settled().await;
    assert_eq!(world.count("select count(*) from sluice.run where kind = 'reconcile' and state = 'done'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_row_is_gone_or_whose_run_was_cancelled_or_died_is_counted_all_the_same() {
    let settings = items("").replace("\"pull\"", "\"both\"").replace("\"delete\"", "\"ignore\"");
    let world = World::new(Setup::new(PRODUCTS, settings)).await;
    let ids = seed(&world, 30).await;
    world.poll("items").await;
    let edit = async |keys: &[usize], rate: i64| {
        world.zoho.pass(60).await;
        for key in keys {
            world.zoho.put("inventory", "items", Some(&ids[*key]), json!({"rate": rate})).await;
        }
    };

    // The row was deleted, and the sync leaves its Zoho record alone.
    world.run(&format!("delete from products where zoho_item_id = '{}'", ids[7])).await;
    assert_eq!(world.count("select count(*) from products").await, 29);
    world.settled().await;
    edit(&[7, 8], 6).await;
    let run = sweep(&world, "items").await;
    assert_eq!(
        (&run["total"], &run["updated"], &run["unchanged"], &run["failed"]),
        (&json!(30), &json!(1), &json!(29), &json!(0)),
        "{run}"
    );

    // Nobody comes to look, since the runs were cancelled, or gave up.
    world
        .run(&format!(
            "insert into sluice.run (kind, sync) values ('poll', 'items');
             insert into sluice.sighting (sync, zoho_id, complete, seen_at, run_id)
             select 'items', id, false, clock_timestamp(), (select max(id) from sluice.run) from unnest(array['{}', '{}', 'other']) id;
             update sluice.run set total = 3, state = 'done' where id = (select max(id) from sluice.run);
             insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message)
             select 'pull', '{{}}', 'items', key, 'normal', 'panic', 'twice' from sluice.link where zoho_id = '{}'",
            ids[9], ids[10], ids[10]
        ))
        .await;
    world.until("select not exists (select from sluice.sighting)").await;
    let told = world.rows("select unchanged, failed from sluice.run order by id desc limit 1").await;
    assert_eq!(told, [json!({"unchanged": 2, "failed": 1})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_row_goes_is_edited_or_refuses_before_it_is_written_is_counted_all_the_same() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    let ids = seed(&world, 4).await;
    world.poll("items").await;
    world.run("alter table products add check (price < 1000)").await;
    world.zoho.pass(60).await;
    for (id, rate) in ids.iter().zip([6, 6, 6, 1000]) {
        world.zoho.put("inventory", "items", Some(id), json!({"rate": rate})).await;
    }
    let mut tx = world.connect().await.begin().await.expect("a transaction");
    let edits =
        "delete from products where name = 'Item 1'; update products set price = 99 where name = 'Item 2'; select from products for update";
    sluice_core::db::dynamic::script(edits.to_owned()).execute(&mut tx).await.expect("edits");
    world.run("select sluice.reconcile('items')").await;
    world.until("select count(*) = 4 from sluice.local_write where tries > 0").await;
    tx.commit().await.expect("a commit");
    let run = swept(&world).await;
    assert_eq!((&run["total"], &run["updated"], &run["unchanged"], &run["failed"]), (&json!(4), &json!(2), &json!(1), &json!(1)), "{run}");
    let prices = world.rows("select price::text, count(*) from products group by price order by price").await;
    assert_eq!(prices, [json!({"price": "5.00", "count": 1}), json!({"price": "6.00", "count": 2})]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_two_runs_find_is_counted_once_by_each() {
    let world = World::without_roles(Setup::new(PRODUCTS, items(""))).await;
    world.run("insert into sluice.run (kind, sync, total) values ('poll', 'items', 5), ('poll', 'items', 10)").await;
    let mut tx = world.db().begin().await.expect("a transaction");
    let runs: Vec<i64> = sqlx::query_scalar("select id from sluice.run order by id").fetch_all(&mut tx).await.expect("runs");
    let seen = |age| sluice_sync::sighting::Sighting {
        record: None,
        complete: false,
        seen_at: chrono::Utc::now() - chrono::Duration::seconds(age),
        dated: None,
        age: std::time::Duration::ZERO,
        run_id: None,
    };
    let all = |age| (0..5).map(|n| (n.to_string(), seen(age))).collect::<Vec<_>>();
    for (run, age) in [(runs[0], 5), (runs[1], 9), (runs[1], 1)] {
        sluice_sync::sighting::found(&mut tx, "items", run, &all(age)).await.expect("found");
    }
    let used = |seen_at| (0..5).map(|n| sluice_sync::sighting::Used { zoho_id: n.to_string(), seen_at, over: true }).collect::<Vec<_>>();
    let early = chrono::Utc::now() - chrono::Duration::seconds(3);
    assert!(sluice_sync::sighting::forget(&mut tx, "items", &used(early)).await.expect("forgotten").is_empty(), "there are newer ones");
    let told = sluice_sync::sighting::forget(&mut tx, "items", &used(chrono::Utc::now())).await.expect("forgotten");
    assert!(told.len() == 5 && told.values().all(|run| *run == runs[1]), "{told:?}");
    assert!(sluice_sync::sighting::forget(&mut tx, "items", &used(chrono::Utc::now())).await.expect("forgotten").is_empty());
    tx.commit().await.expect("committed");
    let counted = world.rows("select unchanged from sluice.run order by id").await;
    assert_eq!(counted, [json!({"unchanged": 5}), json!({"unchanged": 5})], "the first lost its own; the second saw them twice");
}
