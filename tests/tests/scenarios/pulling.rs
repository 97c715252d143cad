//! From Zoho into the tables: items become products, a person's edits arrive, rows made by hand are left alone.

use serde_json::{Value, json};

use crate::world::{Setup, World, sized};

const PRODUCTS: &str = "
    create table products (
      id bigint generated always as identity primary key,
      zoho_item_id text, name text not null, sku text, description text, price numeric(12, 2), stock_quantity integer,
      is_active boolean not null default true, zoho_sync_status text, zoho_last_synced_at timestamptz);";

fn items(settings: &str) -> String {
    format!(
        r#"
        [syncs.items]
        connection = "main"
        table = "products"
        key = "id"
        module = "inventory/items"
        direction = "pull"
        writeback = {{ id = "zoho_item_id", status = "zoho_sync_status", synced_at = "zoho_last_synced_at" }}
        {settings}
        [syncs.items.fields]
        name = "name"
        sku = "sku"
        description = "description"
        rate = "price"
        stock_on_hand = "stock_quantity"
        [syncs.items.columns]
        is_active = "zoho ->> 'status' = 'active'"
        "#
    )
}

/// Updates of products, whoever makes them, are rows of `touched` from now on.
async fn watch_updates(world: &World) {
    world
        .run(
            "create table touched (id bigint);
             create function touch() returns trigger language plpgsql as $$ begin insert into touched values (new.id); return null; end $$;
             create trigger touch after update on products for each row execute function touch()",
        )
        .await;
}

async fn products(world: &World) -> Vec<Value> {
    world
        .rows("select name, sku, price::text, stock_quantity, is_active, zoho_item_id is not null as linked from products order by name")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn items_become_products_and_rows_made_by_hand_are_left_alone() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    world.run("insert into products (name, sku, price) values ('By hand', 'B1', 5)").await;
    for (name, sku, rate) in [("Cable", "C1", 10.5), ("Twin", "C1", 11.0), ("No sku", "", 3.0)] {
        world.zoho.put("inventory", "items", None, json!({"name": name, "sku": sku, "rate": rate})).await;
    }
    world.poll("items").await;
    let row = |name: &str, sku: Value, price: &str, linked: bool| json!({"name": name, "sku": sku, "price": price, "stock_quantity": if linked { json!(0) } else { Value::Null }, "is_active": true, "linked": linked});
    assert_eq!(
        products(&world).await,
        [
            row("By hand", json!("B1"), "5.00", false),
            row("Cable", json!("C1"), "10.50", true),
            row("No sku", Value::Null, "3.00", true),
            row("Twin", json!("C1"), "11.00", true),
        ]
    );
    world.check_rules().await;

    // Nothing changed: one look at the list, and nothing else.
    world.zoho.forget_calls().await;
    world.poll("items").await;
    assert_eq!(world.zoho.count_calls().await, 1);
    let runs = world.rows("select state, created, updated, failed from sluice.run order by id").await;
    assert_eq!(runs[0], json!({"state": "done", "created": 3, "updated": 0, "failed": 0}));
    assert_eq!(runs[1], json!({"state": "done", "created": 0, "updated": 0, "failed": 0}));
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_edit_arrives_with_the_next_poll_and_touches_no_other_row() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    let mut ids = Vec::new();
    for n in 0..5 {
        let item = world.zoho.put("inventory", "items", None, json!({"name": format!("Item {n}"), "rate": n})).await;
        ids.push(item["item_id"].as_str().expect("an id").to_owned());
    }
    world.poll("items").await;
    watch_updates(&world).await;
    world.zoho.put_later("inventory", "items", &ids[3], json!({"rate": 99.95, "status": "inactive"})).await;
    world.poll("items").await;
    let row = world.rows("select price::text, is_active, zoho_sync_status from products where name = 'Item 3'").await;
    assert_eq!(row, [json!({"price": "99.95", "is_active": false, "zoho_sync_status": "synced"})]);
    assert_eq!(world.count("select count(*) from touched").await, 1);
    world.check_rules().await;
    world.all_arrived().await;
}

/// `SLUICE_ITEMS=10000` has as many.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_changed_items_of_many_are_pulled_in_at_most_five_calls() {
    let world = World::new(Setup::new(PRODUCTS, items("brake = { max_deletes = 50 }"))).await;
    let count = i64::try_from(sized("SLUICE_ITEMS", 1_000)).expect("a count");
    let ids = world.zoho.seed(("inventory", "items"), count, json!({"name": "Item {n}", "sku": "S{n}", "rate": 5}), 10).await;
    world.ask_for_poll("items").await;
    world.settled_within(std::time::Duration::from_secs(300)).await;
    assert_eq!(world.count("select count(*) from products where zoho_item_id is not null").await, count);
    world.zoho.pass(60).await;
    for id in ids.iter().take(200) {
        world.zoho.put("inventory", "items", Some(id), json!({"rate": 6.5})).await;
    }
    world.zoho.forget_calls().await;
    world.poll("items").await;
    assert_eq!(world.count("select count(*) from products where price = 6.5").await, 200);
    let calls = world.zoho.count_calls().await;
    assert!(calls <= 5, "{calls} calls: {:#?}", world.zoho.calls().await);
    world.check_rules().await;
}

/// Pages of CRM's have two hundred, which take their time.
fn deals(settings: &str) -> Setup {
    let tables = "create table deals (id bigint generated always as identity primary key, zoho_id text, name text, stage text, amount numeric(12, 2));";
    let config = format!(
        r#"
        [syncs.deals]
        connection = "main"
        table = "deals"
        key = "id"
        module = "crm/Deals"
        direction = "pull"
        writeback = {{ id = "zoho_id" }}
        {settings}
        fields = {{ Deal_Name = "name", Stage = "stage", Amount = "amount" }}"#
    );
    Setup { request_timeout: std::time::Duration::from_secs(30), ..Setup::new(tables, config) }
}

/// `SLUICE_DEALS=10000` has as many.
#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_changed_deals_of_many_are_pulled_in_at_most_five_calls() {
    let world = World::new(deals("")).await;
    let count = i64::try_from(sized("SLUICE_DEALS", 1_000)).expect("a count");
    let ids = world.zoho.seed(("crm", "Deals"), count, json!({"Deal_Name": "Deal {n}", "Stage": "Proposal", "Amount": 5}), 10).await;
    world.ask_for_poll("deals").await;
    world.settled_within(std::time::Duration::from_secs(1200)).await;
    assert_eq!(world.count("select count(*) from deals where zoho_id is not null").await, count);
    world.zoho.pass(60).await;
    for id in ids.iter().take(200) {
        world.zoho.put("crm", "Deals", Some(id), json!({"Amount": 6.5})).await;
    }
    world.zoho.forget_calls().await;
    world.ask_for_poll("deals").await;
    world.settled_within(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.count("select count(*) from deals where amount = 6.5").await, 200);
    let calls = world.zoho.count_calls().await;
    assert!(calls <= 5, "{calls} calls: {:#?}", world.zoho.calls().await);
    world.check_rules().await;
}

/// A mass update in CRM gives thousands of records one and the same time, and by number no row beyond the two thousandth can be had.
#[tokio::test(flavor = "multi_thread")]
async fn more_records_of_one_time_than_pages_have_numbers_are_all_found_also_after_a_page_token_went_stale() {
    let world = World::without_worker(deals("inserts = false")).await;
    let count = 2_300;
    world.zoho.seed(("crm", "Deals"), count, json!({"Deal_Name": "Deal {n}", "Amount": 5}), 0).await;
    // A walk that was broken off for more than a day, half-way through them.
    let half_way = "with r as (insert into sluice.run (kind, sync) values ('poll', 'deals') returning id)
        insert into sluice.poll_cursor (sync, walk) select 'deals', jsonb_build_object('run_id', id, 'from', null, 'page', 7, 'token', 'stale', 'newest', null,
          'deleted', false, 'seen', '[]'::jsonb, 'began', clock_timestamp()) from r";
    world.run(half_way).await;
    world.ask_for_poll("deals").await;
    world.start_worker();
    world.settled_within(std::time::Duration::from_secs(300)).await;
    assert_eq!(world.count("select count(distinct key) from sluice.attempt where sync = 'deals' and key like 'zoho:%'").await, count);
    assert_eq!(world.count("select total from sluice.run").await, count, "none twice");
    let lists = |calls: Vec<Value>| calls.iter().filter(|call| call["method"] == "GET" && call["path"] == "/crm/v8/Deals").count();
    assert_eq!(lists(world.zoho.calls().await), 14, "one refused, one to find their time, and twelve pages");
    // what was seen is behind us
    world.zoho.forget_calls().await;
    world.ask_for_poll("deals").await;
    world.settled_within(std::time::Duration::from_secs(60)).await;
    assert_eq!(world.count("select count(*) from sluice.run where state = 'done'").await, 2);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_of_a_field_that_is_not_mapped_is_read_once_and_writes_nothing() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    let item = world.zoho.put("inventory", "items", None, json!({"name": "Cable", "rate": 1})).await;
    world.poll("items").await;
    watch_updates(&world).await;
    world.zoho.put_later("inventory", "items", item["item_id"].as_str().expect("an id"), json!({"brand": "Acme"})).await;
    world.zoho.forget_calls().await;
    world.poll("items").await;
    assert_eq!(world.zoho.count_calls().await, 2, "the list, and the item, whose rows in a list are partial");
    world.zoho.forget_calls().await;
    world.ask_for_all("items").await;
    world.settled().await;
    assert_eq!(world.zoho.count_calls().await, 1, "{:#?}", world.zoho.calls().await);
    assert_eq!(world.count("select count(*) from touched").await, 0);
    world.all_arrived().await;
}

/// One letter and a word in the row, however often the list shows the record; closed when the row says it, and not by a run that did nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_table_refuses_is_one_letter_until_the_row_says_it() {
    let world = World::new(Setup::new(PRODUCTS, items(""))).await;
    world.zoho.put("inventory", "items", None, json!({"name": "Cable", "sku": "C1", "rate": 10})).await;
    world.poll("items").await;
    world.run("alter table products add check (price < 100)").await;
    let id = world.zoho.records("inventory", "items").await[0]["item_id"].as_str().expect("an id").to_owned();
    world.zoho.put("inventory", "items", Some(&id), json!({"rate": 200})).await;
    for _ in 0..3 {
        world.poll("items").await;
        world.run(&format!("select sluice.enqueue('pull', '{{\"sync\": \"items\", \"zoho_id\": \"{id}\"}}')")).await;
        world.settled().await;
    }
    let letters = "select error_class, field, resolution from sluice.dead_letter";
    assert_eq!(world.rows(letters).await, [json!({"error_class": "validation", "field": "rate", "resolution": null})]);
    assert_eq!(world.rows("select zoho_sync_status, price::int from products").await, [json!({"zoho_sync_status": "failed", "price": 10})]);
    world.zoho.put("inventory", "items", Some(&id), json!({"rate": 20})).await;
    world.poll("items").await;
    world.settled().await;
    assert_eq!(world.rows("select resolution from sluice.dead_letter").await, [json!({"resolution": "superseded"})]);
    assert_eq!(world.rows("select zoho_sync_status, price::int from products").await, [json!({"zoho_sync_status": "synced", "price": 20})]);
    world.check_rules().await;
}
