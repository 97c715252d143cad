//! A mass change reaches neither side before somebody has decided.

use serde_json::json;

use crate::world::{Setup, World};

const PRODUCTS: &str = "create table products (id bigint primary key, code text not null, name text);";

const CONFIG: &str = r#"
    [syncs.products]
    connection = "main"
    table = "products"
    key = "id"
    module = "crm/Products"
    match_on = ["Product_Name"]
    brake = { max_changes = "5%" }
    [syncs.products.fields]
    Product_Name = "code"
    Description = "name"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_update_of_five_thousand_products_costs_no_call_and_only_what_is_approved_is_sent() {
    let world = World::new(Setup::new(PRODUCTS, CONFIG)).await;
    world.run("insert into products select n, 'P-' || n, 'Product ' || n from generate_series(1, 5000) n").await;
    world.until("select exists (select from sluice.held_change where not gathering)").await;
    assert_eq!(world.count("select sluice.approve(id) from sluice.held_change").await, 5000, "a first import is a mass change as well");
    world.all_arrived().await;
    world.run("delete from sluice.alert").await;
    world.zoho.forget_calls().await;

    world.run("update products set name = null").await;
    world.until("select exists (select from sluice.held_change where resolution is null and not gathering)").await;
    world.settled().await;
    assert_eq!(world.zoho.count_calls().await, 0);
    let held = world
        .rows("select operation, records, jsonb_array_length(sample) as sample from sluice.held_change where resolution is null")
        .await;
    assert_eq!(held, [json!({ "operation": "change", "records": 5000, "sample": 10 })]);
    assert_eq!(world.count("select count(*) from sluice.alert where occasion = 'brake'").await, 1);

    let approve = "select sluice.approve(id, max_records => 100) from sluice.held_change where resolution is null";
    assert_eq!(world.count(approve).await, 100);
    world.settled().await;
    let emptied = world.zoho.records("crm", "Products").await.iter().filter(|product| product["Description"].is_null()).count();
    assert_eq!(emptied, 100);
    assert_eq!(world.count("select records from sluice.held_change where resolution is null").await, 4900);

    // The mistake is mended: nothing is left to decide, and what was approved gets its values back.
    world.run("update products set name = 'Product ' || id").await;
    world.until("select not exists (select from sluice.held_change where resolution is null)").await;
    world.all_arrived().await;
    let emptied = world.zoho.records("crm", "Products").await.iter().filter(|product| product["Description"].is_null()).count();
    assert_eq!(emptied, 0);
    world.check_rules().await;
}

const ITEMS: &str = r#"
    [syncs.items]
    connection = "main"
    table = "items"
    key = "id"
    module = "inventory/items"
    direction = "both"
    min_interval = "10ms"
    brake = { max_changes = 3 }
    writeback = { id = "zoho_id" }
    fields = { name = "name", rate = "price" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_from_zoho_is_shown_as_it_is_by_now_keeps_no_other_edit_back_and_is_approved_once() {
    let tables = "create table items (id bigint generated always as identity primary key, zoho_id text, name text not null, price int)";
    let world = World::new(Setup::new(tables, ITEMS)).await;
    let ids = world.zoho.seed(("inventory", "items"), 10, json!({"name": "Item {n}", "rate": 5}), 10).await;
    world.poll("items").await;
    const APPROVE: &str = "select sluice.approve(id) from sluice.held_change where resolution is null";
    assert_eq!(world.count(APPROVE).await, 10, "a first import is a mass change as well");
    world.all_arrived().await;
    let raised = async |rate: i64| {
        world.zoho.pass(60).await;
        for id in &ids {
            world.zoho.put("inventory", "items", Some(id), json!({"rate": rate})).await;
        }
        world.poll("items").await;
    };
    raised(6).await;
    let held = "select h.records, r.pull #>> '{columns,price}' as price from sluice.held_change h join sluice.held_record r on r.held_id = h.id join sluice.link l on l.sync = r.sync and l.key = r.key
        where h.resolution is null and r.resolution is null";
    let first = format!("{held} and l.zoho_id = '{}'", ids[0]);
    assert_eq!(world.rows(&first).await, [json!({"records": 10, "price": "6"})]);

    // Zoho says something else of one, and somebody renames its row.
    world.zoho.put_later("inventory", "items", &ids[0], json!({"rate": 8})).await;
    world.poll("items").await;
    assert_eq!(world.rows(&first).await, [json!({"records": 10, "price": "8"})]);
    world.run(&format!("update items set name = 'Renamed' where zoho_id = '{}'", ids[0])).await;
    world.all_arrived().await;
    let item = world.zoho.records("inventory", "items").await.into_iter().find(|item| item["item_id"] == ids[0].as_str());
    let item = item.expect("the item");
    assert_eq!((item["name"].as_str(), item["rate"].as_i64()), (Some("Renamed"), Some(8)));
    assert_eq!(world.count("select count(*) from items where price = 5").await, 10);

    assert_eq!(world.count(APPROVE).await, 10);
    world.all_arrived().await;
    assert_eq!(
        world.rows("select price, count(*) from items group by price order by price").await,
        [json!({"price": 6, "count": 9}), json!({"price": 8, "count": 1})]
    );

    // What was approved was approved once.
    raised(9).await;
    assert_eq!(world.count("select count(*) from items where price = 9").await, 0);
    assert_eq!(world.rows("select records from sluice.held_change where resolution is null").await, [json!({"records": 10})]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_brake_holds_is_sent_by_no_run_that_something_else_asks_for() {
    let tables = "create table items (id bigint generated always as identity primary key, zoho_id text, name text not null, price int)";
    let world = World::new(Setup::new(tables, ITEMS)).await;
    let ids = world.zoho.seed(("inventory", "items"), 30, json!({"name": "Item {n}", "rate": 5}), 10).await;
    world.poll("items").await;
    assert_eq!(world.count("select sluice.approve(id) from sluice.held_change where resolution is null").await, 30, "a first import");
    world.all_arrived().await;
    // A price that is due, and cannot go yet, waits in the queue.
    world.run("select sluice.pause(sync => 'items')").await;
    world.run(&format!("update items set price = 6 where zoho_id = '{}'", ids[0])).await;
    world.until("select exists (select from sluice.slot where sync = 'items')").await;
    world.run("update items set price = 0").await;
    world.until("select exists (select from sluice.held_change where resolution is null and not gathering)").await;
    world.run("select sluice.resume(sync => 'items')").await;
    world.settled().await;
    let prices = async || world.zoho.values("inventory", "items", "rate").await;
    assert!(prices().await.iter().all(|price| price == "5"), "{:?}", prices().await);

    // Zoho's own change of another field is taken over, a person's `trigger --force` and a job of another service do nothing.
    world.zoho.pass(60).await;
    world.zoho.put("inventory", "items", Some(&ids[1]), json!({"name": "Renamed there"})).await;
    world.poll("items").await;
    world.force("items").await;
    world.run("insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'items', 'key', id::text) from items").await;
    world.settled().await;
    assert_eq!(world.count("select count(*) from items where name = 'Renamed there'").await, 1);
    assert!(prices().await.iter().all(|price| price == "5"), "{:?}", prices().await);
    let told = format!(
        "select says from items i, sluice.explain('items', i.id::text) where i.zoho_id = '{}' and says like '%the brake holds%' limit 1",
        ids[0]
    );
    assert_eq!(world.rows(&told).await.len(), 1);

    let approve = "select sluice.approve(id, max_records => 10) from sluice.held_change where resolution is null";
    assert_eq!(world.count(approve).await, 10);
    world.settled().await;
    assert_eq!(prices().await.iter().filter(|price| *price == "0").count(), 10);
    world.run("select sluice.reject(id) from sluice.held_change where resolution is null").await;
    world.run(&format!("update items set price = 7 where zoho_id in ('{}', '{}')", ids[28], ids[29])).await;
    world.all_arrived().await;
    let seven = prices().await.iter().filter(|price| *price == "7").count();
    assert_eq!(seven, 2, "a rejected record goes on with its next edit");
    world.check_rules().await;
}
