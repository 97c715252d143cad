//! A mass change does not reach Zoho before somebody has decided.

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
