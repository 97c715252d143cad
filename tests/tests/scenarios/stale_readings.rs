//! A reading that began before our own last write of the record was answered does not show it. It must neither come back as an edit of Zoho's
//! nor be what a difference is reckoned from, whatever the record's time of modification says: stock moves without one.

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

const TABLES: &str = include_str!("../../../recipes/inventory/tables.sql");
const CONFIG: &str = include_str!("../../../recipes/inventory/sluice.toml");

/// An answer that is kept back comes when the test says so, and not before.
const KEPT_BACK: std::time::Duration = std::time::Duration::from_secs(60);

/// A product at price 10 and level 40 on both sides. Zoho's calendar stands still: all of its times are the same second.
async fn world() -> (World, String) {
    world_with(|setup| Setup { request_timeout: KEPT_BACK, ..setup }).await
}

async fn world_with(change: impl FnOnce(Setup) -> Setup) -> (World, String) {
    let config = CONFIG.replace("creates = false", "creates = false\nmin_interval = \"10ms\"");
    let world = World::new(change(Setup::new(TABLES, config))).await;
    world.zoho.post("clock", json!({"frozen": true})).await;
    let item = world.zoho.put("inventory", "items", None, json!({"name": "Cable", "rate": 10, "stock_on_hand": 40})).await;
    world.ask_for_all("items").await;
    world.all_arrived().await;
    (world, item["item_id"].as_str().expect("an id").to_owned())
}

/// Zoho makes up the answer to the next read as things are now, and it is on its way until [`it_arrives`].
async fn an_answer_is_kept_back(world: &World, path: &str) {
    let late = KEPT_BACK.as_millis();
    world.zoho.fault(json!({"kind": "slow_after", "method": "GET", "path": path, "latency_ms": [late, late], "times": 1})).await;
}

async fn it_is_on_its_way(world: &World) {
    sluice_tests::wait_until(crate::world::PATIENCE, || async { world.zoho.faults().await["slow_after"] == 1 }).await;
}

async fn it_arrives(world: &World) {
    world.zoho.clear_faults().await;
}

/// Zoho makes up its list of the items as they are now, and it is on its way until [`it_arrives`].
async fn list_is_on_its_way(world: &World) {
    an_answer_is_kept_back(world, "/inventory/v1/items").await;
    world.ask_for_all("items").await;
    it_is_on_its_way(world).await;
}

/// (price, level) here, in Zoho, and as the link has Zoho's.
async fn everywhere(world: &World, id: &str) -> [(String, String); 3] {
    let of = |record: &Value, fields: [&str; 2]| (text(&record[fields[0]]), text(&record[fields[1]]));
    let here = world.rows("select price::int, stock_quantity::int from products").await.remove(0);
    let there = world.zoho.records("inventory", "items").await.into_iter().find(|item| item["item_id"] == id).expect("the item");
    let link = world
        .rows("select (fields #>> '{rate,zoho}')::numeric::int as rate, (fields #>> '{stock_on_hand,zoho}')::numeric::int as stock_on_hand from sluice.link where sync = 'items'")
        .await
        .remove(0);
    [of(&here, ["price", "stock_quantity"]), of(&there, ["rate", "stock_on_hand"]), of(&link, ["rate", "stock_on_hand"])]
}

fn all(price: &str, level: &str) -> [(String, String); 3] {
    std::array::from_fn(|_| (price.to_owned(), level.to_owned()))
}

/// By how much stock was corrected, oldest first.
async fn adjusted(world: &World) -> Vec<String> {
    let adjustments = world.zoho.records("inventory", "inventory_adjustments").await;
    adjustments.iter().map(|one| text(&one["line_items"][0]["quantity_adjusted"])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_was_read_before_our_own_adjustment_does_not_come_back() {
    let (world, id) = world().await;
    world.zoho.put("inventory", "items", Some(&id), json!({"stock_on_hand": 100})).await;
    list_is_on_its_way(&world).await;
    world.run("update products set stock_quantity = 5").await;
    world.until("select exists (select from sluice.link where (fields #>> '{stock_on_hand,zoho}')::numeric = 5)").await;
    it_arrives(&world).await;
    world.all_arrived().await;
    assert_eq!((everywhere(&world, &id).await, adjusted(&world).await), (all("10", "5"), vec!["-95".to_owned()]));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_difference_is_reckoned_from_a_level_that_was_read_before_our_own_adjustment() {
    let (world, id) = world().await;
    list_is_on_its_way(&world).await;
    world.run("update products set stock_quantity = 105").await;
    world.until("select exists (select from sluice.link where (fields #>> '{stock_on_hand,zoho}')::numeric = 105)").await;
    world.run("select sluice.pause(sync => 'items')").await;
    it_arrives(&world).await;
    world.until("select exists (select from sluice.sighting)").await;
    world.run("update products set stock_quantity = 302").await;
    world.until("select not exists (select from sluice.change) and exists (select from sluice.slot where kind = 'pull')").await;
    world.run("select sluice.resume(sync => 'items')").await;
    world.all_arrived().await;
    assert_eq!((everywhere(&world, &id).await, adjusted(&world).await), (all("10", "302"), vec!["65".to_owned(), "197".to_owned()]));
    // the run that asked is told what became of the record, though its reading was of no use
    let runs = world.rows("select total, created + updated + unchanged + failed as told from sluice.run order by id desc limit 1").await;
    assert_eq!(runs, [json!({"total": 1, "told": 1})]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_was_read_before_our_own_update_does_not_come_back_within_the_second() {
    let (world, id) = world().await;
    list_is_on_its_way(&world).await;
    world.run("update products set price = 12").await;
    world.until("select exists (select from sluice.link where (fields #>> '{rate,zoho}')::numeric = 12)").await;
    it_arrives(&world).await;
    world.all_arrived().await;
    assert_eq!(everywhere(&world, &id).await, all("12", "40"));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_table_refused_for_a_while_is_read_anew_if_we_wrote_to_zoho_meanwhile() {
    let (world, id) = world().await;
    world
        .run(
            "create function deny() returns trigger language plpgsql as $$ begin
               if current_setting('sluice.origin', true) = 'sluice' and new.stock_quantity is distinct from old.stock_quantity then
                 raise exception 'not now' using errcode = '42501';
               end if;
               return new;
             end $$;
             create trigger deny before update on products for each row execute function deny()",
        )
        .await;
    world.zoho.put("inventory", "items", Some(&id), json!({"stock_on_hand": 100})).await;
    world.ask_for_all("items").await;
    world.until("select exists (select from sluice.local_write where pull is not null and error is not null)").await;
    for (level, changed) in [("5", "update products set stock_quantity = 5"), ("40", "update products set stock_quantity = 40")] {
        world.run(changed).await;
        let there = || async { everywhere(&world, &id).await[1].1 == level };
        sluice_tests::wait_until(crate::world::PATIENCE, there).await;
        world.until("select not exists (select from sluice.slot where key not like 'poll%')").await;
    }
    world.run("drop trigger deny on products").await;
    assert_eq!(world.count("select count(*) from sluice.local_write where pull is not null").await, 1, "it still waits for the table");
    world.run("update sluice.local_write set due_at = clock_timestamp()").await;
    world.until("select not exists (select from sluice.local_write)").await;
    world.all_arrived().await;
    assert_eq!((everywhere(&world, &id).await, adjusted(&world).await), (all("10", "40"), vec!["-95".to_owned(), "35".to_owned()]));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_trigger_does_not_forget_an_adjustment_that_may_be_on_its_way() {
    // how long it may be on its way follows from how long a request may take
    let (world, id) = world_with(|setup| setup).await;
    let posts =
        json!({"product": "inventory", "method": "POST", "path": "/inventory/v1/inventoryadjustments", "kind": "drop_before", "times": 1});
    world.zoho.fault(posts).await;
    world.run("update products set stock_quantity = 42").await;
    world.until("select exists (select from sluice.link where fields ? 'sluice:adjusting') and exists (select from sluice.slot where tries > 0)").await;
    world.force("items").await;
    assert_eq!(world.count("select count(*) from sluice.link where fields ? 'sluice:adjusting' and not fields ? 'rate'").await, 1);
    // and while it may be, that the row says again what Zoho shows ends nothing
    world.run("update products set stock_quantity = 40").await;
    world.until("select exists (select from sluice.link where fields ? 'rate')").await;
    assert_eq!(world.count("select count(*) from sluice.link where fields ? 'sluice:adjusting'").await, 1);
    assert_eq!((everywhere(&world, &id).await[1].1.as_str(), adjusted(&world).await.len()), ("40", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_listed_before_our_own_update_confirms_nothing_in_a_sweep() {
    let config = "
        [syncs.contacts]
        connection = \"main\"
        table = \"customers\"
        key = \"id\"
        module = \"crm/Contacts\"
        match_on = [\"Email\"]
        [syncs.contacts.fields]
        Last_Name = \"email\"
        Email = \"email\"
        Description = \"note\"";
    let table = "create table customers (id bigint primary key, email text not null, note text)";
    let world = World::new(Setup { request_timeout: KEPT_BACK, ..Setup::new(table, config) }).await;
    world.zoho.post("clock", json!({"frozen": true})).await;
    world.run("insert into customers values (1, 'one@example.com', 'before')").await;
    world.all_arrived().await;
    an_answer_is_kept_back(&world, "/crm/*").await;
    world.run("select sluice.reconcile('contacts')").await;
    it_is_on_its_way(&world).await;
    world.run("update customers set note = 'after'").await;
    world.until("select exists (select from sluice.link where fields #>> '{Description,zoho}' = 'after')").await;
    it_arrives(&world).await;
    world.until("select not exists (select from sluice.run where state = 'running')").await;
    world.all_arrived().await;
    assert_eq!(world.rows("select fields #>> '{Description,zoho}' as note from sluice.link").await, [json!({"note": "after"})]);
    assert_eq!(world.zoho.values("crm", "Contacts", "Description").await, ["after"]);
    world.check_rules().await;
}
