//! `recipes/inventory`, point by point: items of Zoho Inventory become products, and prices and stock that are edited here go back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{ORGANIZATION, Setup, WEBHOOK_SECRET, World};

const TABLES: &str = include_str!("../../../recipes/inventory/tables.sql");
const ROWS: &str = include_str!("../../../recipes/inventory/rows.sql");
/// What the recipe's own simulated Zoho has.
const ZOHO: &str = include_str!("../../../recipes/inventory/zoho.toml");

fn recipe() -> Setup {
    Setup::new(TABLES, include_str!("../../../recipes/inventory/sluice.toml"))
}

/// Without the 2 s of rest between two writes of a record.
fn hurried() -> Setup {
    let config = include_str!("../../../recipes/inventory/sluice.toml");
    Setup::new(TABLES, config.replace("creates = false", "creates = false\nmin_interval = \"10ms\""))
}

async fn poll(world: &World, sync: &str, full: bool) {
    world.run(&format!("insert into sluice.job (kind, args) values ('poll', '{{\"sync\": \"{sync}\", \"full\": {full}}}')")).await;
    world.settled().await;
}

/// An item as a person enters it; its Zoho id.
async fn item(world: &World, record: Value) -> String {
    world.zoho.put("inventory", "items", None, record).await["item_id"].as_str().expect("an id").to_owned()
}

/// Zoho's own record of an item.
async fn zoho_item(world: &World, id: &str) -> Value {
    world.zoho.records("inventory", "items").await.into_iter().find(|item| item["item_id"] == id).expect("the item")
}

async fn product(world: &World, columns: &str, zoho_id: &str) -> Value {
    world.rows(&format!("select {columns} from products where zoho_item_id = '{zoho_id}'")).await.remove(0)
}

async fn last_run(world: &World) -> Value {
    world
        .rows("select state, total, created, updated, unchanged, failed, messages from sluice.run order by id desc limit 1")
        .await
        .remove(0)
}

/// (method, path without its id) of all calls.
async fn calls(world: &World) -> Vec<String> {
    let name = |call: &Value| {
        let path: Vec<&str> = call["path"].as_str().unwrap_or_default().split('/').skip(3).collect();
        let path = path.iter().map(|part| if part.bytes().all(|b| b.is_ascii_digit()) { "ID" } else { part });
        format!("{} {}", call["method"].as_str().unwrap_or_default(), path.collect::<Vec<_>>().join("/"))
    };
    world.zoho.calls().await.iter().map(name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recipe_fits_its_tables_and_its_whole_catalogue_arrives_in_pages_of_200() {
    let world = World::new(Setup { scenario: ZOHO, ..recipe() }).await;
    let definitions = sluice_producer::Definitions::compile(world.db(), &world.config).await.expect("definitions");
    assert!(definitions.findings.is_empty(), "{:#?}", definitions.findings);
    world.run(ROWS).await;
    for sync in ["categories", "items", "price_lists"] {
        poll(&world, sync, false).await;
    }
    let sums = world.rows("select sync, state, total, created, updated, unchanged, failed from sluice.run order by sync").await;
    let sum = |sync: &str, total: i64, created: i64, failed: i64| json!({"sync": sync, "state": "done", "total": total, "created": created, "updated": 0, "unchanged": 0, "failed": failed});
    assert_eq!(sums, [sum("categories", 3, 3, 0), sum("items", 424, 423, 1), sum("price_lists", 2, 2, 0)]);
    let lists = world.zoho.calls().await.iter().filter(|call| call["path"].as_str().is_some_and(|path| path.ends_with("/items"))).count();
    let pictures = calls(&world).await.iter().filter(|call| *call == "GET items/ID/image").count();
    assert_eq!((lists, pictures, world.zoho.count_calls().await), (3, 10, 15), "{:#?}", calls(&world).await);

    // every column, of one item of each kind
    let columns = "p.name, p.sku, p.price::text, p.stock_quantity::text, p.is_active, c.name as category, p.image_name, p.image_type, p.zoho_sync_status";
    let of = async |sku: &str| {
        world.rows(&format!("select {columns} from products p left join categories c on c.id = p.category_id where p.sku = '{sku}'")).await
    };
    let row = |name: &str, sku: &str, price: &str, stock: &str, active: bool, category: &str, image: Option<&str>| {
        json!({"name": name, "sku": sku, "price": price, "stock_quantity": stock, "is_active": active, "category": category,
            "image_name": image, "image_type": image.map(|_| "png"), "zoho_sync_status": "synced"})
    };
    assert_eq!(of("R-9").await, [row("Router R9", "R-9", "129.00", "7.5000", true, "Routers", Some("r9.png"))]);
    assert_eq!(of("A-9").await, [row("Antenna A9", "A-9", "249.95", "0.0000", false, "Antennas", None)]);
    // the picture of ten items, whole
    let pictures = world.rows("select count(*), count(distinct image) as kinds, bool_and(substring(image, 1, 8) = '\\x89504e470d0a1a0a') as png from products where image is not null").await;
    assert_eq!(pictures, [json!({"count": 10, "kinds": 1, "png": true})]);
    // one SKU twice in Zoho, and once here by hand; an empty one is null
    assert_eq!(of("CAB-1").await.len(), 3);
    let survey = product(&world, "sku, stock_quantity, category_id, image_path", "770000000000100").await;
    assert_eq!(survey, json!({"sku": null, "stock_quantity": null, "category_id": null, "image_path": null}));
    let path = world.rows("select image_path = '/items/' || zoho_item_id || '/image' as right from products where sku = 'R-1'").await;
    assert_eq!(path, [json!({"right": true})]);
    // rows made by hand were not touched
    let by_hand = world
        .rows("select count(*) filter (where zoho_sync_status is null) as untouched, count(*) from products where zoho_item_id is null")
        .await;
    assert_eq!(by_hand, [json!({"untouched": 3, "count": 3})]);
    assert_eq!(world.zoho.records("inventory", "items").await.len(), 424);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_made_by_hand_stay_here_whatever_is_done_to_them() {
    let world = World::new(recipe()).await;
    world.run(ROWS).await;
    world.run("update products set price = price + 1, stock_quantity = 5").await;
    assert_eq!(world.trigger("items").await, 1, "a poll, and no row");
    world
        .run("insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'items', 'key', id::text) from products")
        .await;
    item(&world, json!({"name": "Cable, own brand", "sku": "CAB-1", "rate": 9})).await; // neither name nor SKU makes it theirs
    world.all_arrived().await;
    poll(&world, "items", false).await;
    world.all_arrived().await;
    assert_eq!(world.zoho.records("inventory", "items").await.len(), 1);
    let rows = world.rows("select price::text, zoho_item_id is null as by_hand from products where sku = 'CAB-1' order by price").await;
    assert_eq!(rows, [json!({"price": "5.20", "by_hand": true}), json!({"price": "9.00", "by_hand": false})]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_names_its_item_is_linked_to_it_and_its_own_price_waits_for_a_person() {
    let world = World::new(recipe()).await;
    let id = item(&world, json!({"name": "Cable", "sku": "C", "rate": 9, "stock_on_hand": 4})).await;
    world.run(&format!("insert into products (name, price, zoho_item_id) values ('Our cable', 8, '{id}')")).await;
    world.trigger("items").await;
    world.settled().await;
    let row = json!({"name": "Cable", "sku": "C", "price": "8.00", "stock_quantity": 4});
    assert_eq!(world.rows("select name, sku, price::text, stock_quantity::int from products").await, [row]);
    let open = world.rows("select id, field, local, zoho from sluice.conflict where resolution is null").await;
    let said = open.iter().map(|one| format!("{} {} {}", one["field"], one["local"], one["zoho"]));
    assert_eq!(said.collect::<Vec<_>>(), ["\"rate\" 8.00 9"]);
    world.run(&format!("select sluice.resolve({}, 'local')", open[0]["id"])).await;
    world.all_arrived().await;
    assert_eq!(zoho_item(&world, &id).await["rate"].to_string(), "8");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_category_that_nobody_has_looked_at_comes_with_its_first_item() {
    let world = World::new(recipe()).await;
    let category = world.zoho.put("inventory", "categories", None, json!({"name": "Cables"})).await["category_id"].clone();
    for n in 0..3 {
        item(&world, json!({"name": format!("Cable {n}"), "rate": n, "category_id": category})).await;
    }
    poll(&world, "items", false).await;
    let rows = world.rows("select c.name, count(*) from products p join categories c on c.id = p.category_id group by 1").await;
    assert_eq!(rows, [json!({"name": "Cables", "count": 3})]);
    assert_eq!(calls(&world).await, ["GET items", "GET categories/ID"]);
    world.all_arrived().await;
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_item_is_a_letter_with_its_field_and_the_rest_goes_on() {
    let world = World::new(recipe()).await;
    for n in 0..5 {
        item(&world, json!({"name": format!("Good {n}"), "rate": n})).await;
    }
    let negative = item(&world, json!({"name": "Below zero", "rate": -5})).await;
    let huge = item(&world, json!({"name": "Too large", "rate": 12_345_678_901_234_i64})).await;
    poll(&world, "items", false).await;
    assert_eq!(world.count("select count(*) from products").await, 5);
    let run = last_run(&world).await;
    assert_eq!((&run["total"], &run["created"], &run["failed"]), (&json!(7), &json!(5), &json!(2)));
    let messages = run["messages"].to_string();
    assert!(messages.contains(&negative) && messages.contains("products_price_check"), "{messages}");
    let letters = world.letters().await;
    let mut said: Vec<(&str, &str)> = letters.iter().map(|l| (l["key"].as_str().unwrap(), l["field"].as_str().unwrap_or("none"))).collect();
    said.sort_unstable();
    let mut expected = [(format!("zoho:{negative}"), "rate"), (format!("zoho:{huge}"), "rate")];
    expected.sort();
    assert_eq!(said, expected.each_ref().map(|(key, field)| (key.as_str(), *field)));
    // mended in Zoho, it comes with the next poll
    world.zoho.put_later("inventory", "items", &negative, json!({"rate": 5})).await;
    poll(&world, "items", false).await;
    assert_eq!(product(&world, "price::text", &negative).await, json!({"price": "5.00"}));
    assert_eq!(last_run(&world).await["created"], 1);
    assert_eq!(world.letters().await.len(), 1, "its letter is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_is_incremental_full_or_of_one_item() {
    let world = World::new(recipe()).await;
    let seed = json!({"product": "inventory", "module": "items", "organization": ORGANIZATION, "count": 250,
        "record": {"name": "Item {n}", "rate": 5, "stock_on_hand": 3}, "age_seconds": 864_000, "step_seconds": 60});
    let ids = world.zoho.post("seed", seed).await["ids"].clone();
    let id = |n: usize| ids[n].as_str().expect("an id").to_owned();
    poll(&world, "items", false).await;
    assert_eq!(world.count("select count(*) from products").await, 250);

    // incremental: one look at what was edited, and no more
    world.zoho.put_later("inventory", "items", &id(7), json!({"rate": 6, "status": "inactive"})).await;
    world.zoho.forget_calls().await;
    poll(&world, "items", false).await;
    assert_eq!(calls(&world).await, ["GET items"]);
    assert_eq!(product(&world, "price::text, is_active", &id(7)).await, json!({"price": "6.00", "is_active": false}));
    let run = last_run(&world).await;
    assert_eq!((&run["updated"], &run["created"], &run["failed"]), (&json!(1), &json!(0), &json!(0)), "{run}");

    // full: everything is compared, also what moves without an edit of the item; what is equal is counted and left alone
    sold(&world, &id(200), 2).await;
    poll(&world, "items", false).await;
    assert_eq!(product(&world, "stock_quantity::int", &id(200)).await, json!({"stock_quantity": 3}), "Zoho does not call that an edit");
    world.zoho.forget_calls().await;
    poll(&world, "items", true).await;
    assert_eq!(product(&world, "stock_quantity::int", &id(200)).await, json!({"stock_quantity": 1}));
    let run = last_run(&world).await;
    assert_eq!((&run["total"], &run["unchanged"], &run["updated"]), (&json!(250), &json!(249), &json!(1)), "{run}");
    assert_eq!(calls(&world).await, ["GET items", "GET items"]);

    // selective: one item by its Zoho id, also one that was never seen
    let new = item(&world, json!({"name": "New", "rate": 1})).await;
    sold(&world, &id(100), 1).await;
    world.zoho.forget_calls().await;
    for id in [&new, &id(100)] {
        world.run(&format!("insert into sluice.job (kind, args) values ('pull', '{{\"sync\": \"items\", \"zoho_id\": \"{id}\"}}')")).await;
    }
    world.all_arrived().await;
    assert_eq!(product(&world, "name", &new).await, json!({"name": "New"}));
    assert_eq!(product(&world, "stock_quantity::int", &id(100)).await, json!({"stock_quantity": 2}));
    assert!(world.zoho.count_calls().await <= 2, "{:#?}", calls(&world).await);
    world.check_rules().await;
}

/// Stock leaves by a document of Zoho's own: the item's time of modification stays.
async fn sold(world: &World, id: &str, quantity: i64) {
    let body = json!({"date": "2026-01-02", "reason": "Sold", "adjustment_type": "quantity", "line_items": [{"item_id": id, "quantity_adjusted": -quantity}]});
    world.zoho.post_to_inventory("inventoryadjustments", body).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_goes_as_an_update_and_a_stock_level_as_the_difference() {
    let world = World::new(hurried()).await;
    let id = item(&world, json!({"name": "Cable", "sku": "C", "rate": 10.5, "stock_on_hand": 40})).await;
    poll(&world, "items", false).await;
    world.zoho.forget_calls().await;
    world.run("update products set price = 12.25").await;
    world.all_arrived().await;
    assert_eq!(calls(&world).await, ["GET items/ID", "PUT items/ID"]);
    assert_eq!(zoho_item(&world, &id).await["rate"].to_string(), "12.25");

    world.zoho.forget_calls().await;
    world.run("update products set stock_quantity = 37.5").await;
    world.all_arrived().await;
    assert_eq!(calls(&world).await, ["GET items/ID", "POST inventoryadjustments"]);
    let adjustments = world.zoho.records("inventory", "inventory_adjustments").await;
    assert_eq!(adjustments.len(), 1);
    assert_eq!(adjustments[0]["line_items"][0]["quantity_adjusted"].to_string(), "-2.5", "{adjustments:#?}");
    let key = world.count("select id from products").await;
    assert!(adjustments[0]["reference_number"].as_str().is_some_and(|reference| reference.starts_with(&format!("items:{key}:"))));
    assert_eq!(zoho_item(&world, &id).await["stock_on_hand"].to_string(), "37.5");

    // both at once, and somebody in Zoho has sold two meanwhile: the level that was counted here stands
    sold(&world, &id, 2).await;
    world.run("update products set price = 13, stock_quantity = 50").await;
    world.all_arrived().await;
    let item = zoho_item(&world, &id).await;
    assert_eq!((item["rate"].to_string().as_str(), item["stock_on_hand"].to_string().as_str()), ("13", "50"), "{item}");
    // nothing is left to do on either side
    world.zoho.forget_calls().await;
    world.run("update products set stock_quantity = 50, price = 13.00").await;
    poll(&world, "items", true).await;
    assert_eq!(calls(&world).await, ["GET items"]);
    assert_eq!(
        product(&world, "stock_quantity::text, zoho_sync_status, zoho_last_sync_error", &id).await,
        json!({"stock_quantity": "50.0000", "zoho_sync_status": "synced", "zoho_last_sync_error": null})
    );
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_zoho_owns_is_not_sent_and_a_level_that_has_none_is_a_letter() {
    let world = World::new(hurried()).await;
    let id = item(&world, json!({"name": "Cable", "rate": 1, "stock_on_hand": 4})).await;
    let survey = item(&world, json!({"name": "Survey", "rate": 2, "item_type": "sales"})).await;
    poll(&world, "items", false).await;
    world.run(&format!("update products set name = 'Renamed here', is_active = false where zoho_item_id = '{id}'")).await;
    world.all_arrived().await;
    let theirs = zoho_item(&world, &id).await;
    assert_eq!((&theirs["name"], &theirs["status"]), (&json!("Cable"), &json!("active")));
    world.run(&format!("update products set stock_quantity = 3 where zoho_item_id = '{survey}'")).await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(
        (letters.len(), &letters[0]["error_class"], &letters[0]["field"]),
        (1, &json!("conflict"), &json!("stock_on_hand")),
        "{letters:?}"
    );
    assert_eq!(world.zoho.records("inventory", "inventory_adjustments").await.len(), 0);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_whose_answer_was_lost_is_found_again_and_never_posted_twice() {
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..hurried() }).await;
    let id = item(&world, json!({"name": "Cable", "rate": 1, "stock_on_hand": 10})).await;
    poll(&world, "items", false).await;
    let posts =
        json!({"product": "inventory", "method": "POST", "path": "/inventory/v1/inventoryadjustments", "kind": "drop_after", "times": 1});
    world.zoho.fault(posts).await;
    world.run("update products set stock_quantity = 12").await;
    world.until("select exists (select from sluice.slot where tries > 0)").await;
    // edited again while nobody knows
    world.run("update products set stock_quantity = 15").await;
    world.settled_within(Duration::from_secs(60)).await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(zoho_item(&world, &id).await["stock_on_hand"].to_string(), "15");
    let by: Vec<String> = adjusted(&world).await;
    assert_eq!(by, ["2", "3"]);
    assert_eq!(world.count("select count(*) from sluice.link where fields ? 'sluice:adjusting'").await, 0);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_that_may_be_on_its_way_is_not_repeated_before_five_minutes_have_shown_that_it_is_not() {
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..hurried() }).await;
    let id = item(&world, json!({"name": "Cable", "rate": 1, "stock_on_hand": 10})).await;
    poll(&world, "items", false).await;
    let posts =
        json!({"product": "inventory", "method": "POST", "path": "/inventory/v1/inventoryadjustments", "kind": "drop_before", "times": 1});
    world.zoho.fault(posts).await;
    world.run("update products set stock_quantity = 12").await;
    world.until("select exists (select from sluice.slot where last_error like '%does not list it yet%')").await;
    assert_eq!(adjusted(&world).await, Vec::<String>::new());
    world.run("update sluice.link set fields = jsonb_set(fields, '{sluice:adjusting,zoho,at}', to_jsonb(clock_timestamp() - interval '6 minutes')); update sluice.slot set due_at = clock_timestamp()").await;
    world.until("select not exists (select from sluice.slot)").await;
    assert_eq!(zoho_item(&world, &id).await["stock_on_hand"].to_string(), "12");
    assert_eq!(adjusted(&world).await, ["2"]);
    world.all_arrived().await;
    world.check_rules().await;
}

/// By how much stock was corrected, oldest first.
async fn adjusted(world: &World) -> Vec<String> {
    let adjustments = world.zoho.records("inventory", "inventory_adjustments").await;
    adjustments.iter().map(|one| one["line_items"][0]["quantity_adjusted"].to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_webhook_brings_live_stock_and_an_unsigned_one_is_refused() {
    let world = World::without_roles(Setup { scenario: "[inventory]\nstock_bumps = true", ..recipe() }).await;
    let (at, ..) = world.start_listening(None).await;
    world.start_worker();
    let id = item(&world, json!({"name": "Cable", "rate": 1, "stock_on_hand": 10})).await;
    poll(&world, "items", false).await;
    let webhook =
        json!({"product": "inventory", "modules": ["items"], "url": format!("http://{at}/webhook/inventory"), "secret": WEBHOOK_SECRET});
    let number = world.zoho.post("webhooks", webhook).await["ids"][0].clone();
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    sold(&world, &id, 3).await;
    world.until("select stock_quantity = 7 from products").await;
    let forged = json!({"webhook": number, "module": "items", "id": id, "record": {"rate": 0, "stock_on_hand": 999}, "signature": "wrong"});
    world.zoho.post("forge", forged).await;
    world.until("select exists (select from sluice.event where outcome = 'refused')").await;
    world.all_arrived().await;
    assert_eq!(product(&world, "price::int, stock_quantity::int", &id).await, json!({"price": 1, "stock_quantity": 7}));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn price_lists_give_each_product_its_price_in_other_currencies() {
    let world = World::new(recipe()).await;
    let cable = item(&world, json!({"name": "Cable", "rate": 10})).await;
    let radio = item(&world, json!({"name": "Radio", "rate": 99.99})).await;
    let list = |currency: &str, prices: Value| json!({"name": currency, "currency_code": currency, "pricebook_type": "per_item", "sales_or_purchase_type": "sales", "pricebook_items": prices});
    let euro = list("EUR", json!([{"item_id": cable, "pricebook_rate": 9.2}, {"item_id": radio, "pricebook_rate": 91.5}]));
    let euro = world.zoho.put("inventory", "pricebooks", None, euro).await;
    let resellers = json!({"name": "Resellers", "currency_code": "USD", "pricebook_type": "fixed_percentage", "sales_or_purchase_type": "sales", "percentage": 12.5});
    world.zoho.put("inventory", "pricebooks", None, resellers).await;
    poll(&world, "items", false).await;
    poll(&world, "price_lists", false).await;
    let prices = async || {
        let rows = world.rows("select p.name || ' ' || l.currency || ' ' || l.price as price from product_prices l join products p on p.id = product_id order by 1").await;
        rows.iter().map(|row| row["price"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(prices().await, ["Cable EUR 9.2", "Cable USD 8.75", "Radio EUR 91.5", "Radio USD 87.49"]);
    let fewer = json!({"pricebook_items": [{"item_id": cable, "pricebook_rate": 9.99}]});
    world.zoho.put_later("inventory", "pricebooks", euro["pricebook_id"].as_str().unwrap(), fewer).await;
    poll(&world, "price_lists", false).await;
    assert_eq!(prices().await, ["Cable EUR 9.99", "Cable USD 8.75", "Radio USD 87.49"]);
    world.all_arrived().await;
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedules_ask_for_what_changed_and_for_everything() {
    let world = World::new(recipe()).await;
    let id = item(&world, json!({"name": "Cable", "rate": 1, "stock_on_hand": 10})).await;
    let due = async |name: &str| {
        world.run(&format!("update sluice.schedule set next_at = clock_timestamp() - interval '1 second' where name = '{name}'")).await
    };
    due("items").await;
    world.until("select exists (select from products)").await;
    sold(&world, &id, 1).await;
    due("stock").await;
    world.until("select stock_quantity = 9 from products").await;
    assert_eq!(world.count("select count(*) from sluice.schedule").await, 4);
}
