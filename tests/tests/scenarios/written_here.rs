//! What Zoho changed and is still to be written to its row: until it is, the record's other runs leave it alone.

use serde_json::{Value, json};
use sluice_core::db::dynamic;

use crate::world::{Setup, World};

/// A row cannot be written while somebody holds the lock 4712 for himself.
const TABLES: &str = "
    create table products (id bigint generated always as identity primary key, zoho_id text, name text not null, price numeric(12, 2));
    create function hold() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(4712); return new; end $$;
    create trigger hold before insert or update on products for each row execute function hold();";

const ITEMS: &str = r#"
    [syncs.items]
    connection = "main"
    table = "products"
    key = "id"
    module = "inventory/items"
    direction = "both"
    min_interval = "10ms"
    writeback = { id = "zoho_id" }
    [syncs.items.fields]
    name = "name"
    rate = "price""#;

async fn open(world: &World, sql: &str) -> sluice_core::db::Tx {
    let mut tx = world.connect().await.begin().await.expect("a transaction");
    dynamic::script(sql.to_owned()).execute(&mut tx).await.expect("what it is to hold");
    tx
}

async fn prices(world: &World) -> Vec<Value> {
    world.rows("select price::text from products").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_row_is_still_to_be_written_is_not_read_again() {
    let world = World::new(Setup::new(TABLES, ITEMS)).await;
    let item = world.zoho.put("inventory", "items", None, json!({"name": "Cable", "rate": 1})).await;
    let id = item["item_id"].as_str().expect("an id");
    // it has no row yet; then its row is to be changed
    for price in ["1.00", "2.00"] {
        world.zoho.put_later("inventory", "items", id, json!({"rate": price})).await;
        let held = open(&world, "select pg_advisory_xact_lock(4712)").await;
        world.ask_for_poll("items").await;
        world.until("select exists (select from sluice.local_write where pull is not null)").await;
        world.until("select not exists (select from sluice.slot)").await;
        world.zoho.forget_calls().await;
        world.run("delete from sluice.attempt").await;
        world.run(&format!("insert into sluice.job (kind, args) values ('pull', '{{\"sync\": \"items\", \"zoho_id\": \"{id}\"}}')")).await;
        world
            .until("select exists (select from sluice.attempt where outcome = 'snooze') or (select count(*) > 1 from sluice.local_write)")
            .await;
        assert_eq!((world.zoho.count_calls().await, world.count("select count(*) from sluice.local_write").await), (0, 1));
        held.rollback().await.expect("an end");
        world.all_arrived().await;
        assert_eq!(prices(&world).await, [json!({"price": price})]);
    }
    world.check_rules().await;
}
