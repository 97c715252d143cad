//! A record of Zoho's that refers to another one waits for that one's row, however the two come.

use serde_json::json;
use sluice_core::db::dynamic;

use crate::world::{Setup, World};

/// A product's row cannot be made up while somebody holds the lock 4711 for himself.
const TABLES: &str = "
    create table categories (id bigint generated always as identity primary key, zoho_id text, name text not null);
    create table products (id bigint generated always as identity primary key, zoho_id text, name text not null, label text,
                           category_id bigint references categories);
    create function gate(text) returns text language sql as $$ select $1 || coalesce(pg_advisory_xact_lock_shared(4711)::text, '') $$;";

const CONFIG: &str = r#"
    [syncs.categories]
    connection = "main"
    table = "categories"
    key = "id"
    module = "inventory/categories"
    direction = "pull"
    writeback = { id = "zoho_id" }
    fields = { name = "name" }
    [syncs.items]
    connection = "main"
    table = "products"
    key = "id"
    module = "inventory/items"
    direction = "pull"
    writeback = { id = "zoho_id" }
    columns = { label = "gate(zoho ->> 'name')" }
    [syncs.items.fields]
    name = "name"
    category_id = { ref = "categories", column = "category_id" }"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_while_its_keys_were_being_read_is_referred_to_all_the_same() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    let category = world.zoho.put("inventory", "categories", None, json!({"name": "Cables"})).await["category_id"].clone();
    world.zoho.put("inventory", "items", None, json!({"name": "Patch cable", "category_id": category})).await;
    let mut gate = world.connect().await.begin().await.expect("a transaction");
    dynamic::script("select pg_advisory_xact_lock(4711)".to_owned()).execute(&mut gate).await.expect("the lock");
    // the item's run knows that its category has no row
    world.ask_for_poll("items").await;
    world.until("select exists (select from pg_locks where locktype = 'advisory' and objid = 4711 and not granted)").await;
    world.ask_for_poll("categories").await;
    world.until("select exists (select from sluice.link where sync = 'categories')").await;
    world.until("select not exists (select from sluice.slot where sync = 'categories')").await;
    gate.rollback().await.expect("an end");
    world.all_arrived().await;
    let of = world.rows("select p.name, c.name as category from products p left join categories c on c.id = p.category_id").await;
    assert_eq!(of, [json!({"name": "Patch cable", "category": "Cables"})]);
    world.check_rules().await;
}
