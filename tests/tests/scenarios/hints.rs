//! Webhooks: hints that lead to a read, never values that are believed. Echoes of our own writes cost nothing; lost, doubled, overtaken and
//! forged ones change nothing about the end.

use serde_json::{Value, json};

use crate::world::{ORGANIZATION, Setup, World};

const PRODUCTS: &str = "
    create table products (
      id bigint generated always as identity primary key, zoho_item_id text, name text not null, sku text, price numeric(12, 2), note text);
    create table touched (id bigint);
    create function touch() returns trigger language plpgsql as $$ begin insert into touched values (new.id); return null; end $$;
    create trigger touch after update on products for each row execute function touch();";

const SECRET: &str = "a secret that Zoho signs with";

fn setup() -> Setup {
    let config = format!(
        r#"
        [syncs.items]
        connection = "main"
        table = "products"
        key = "id"
        module = "inventory/items"
        direction = "both"
        min_interval = "10ms"
        writeback = {{ id = "zoho_item_id" }}
        [syncs.items.fields]
        name = "name"
        sku = "sku"
        rate = "price"
        description = "note"
        [webhooks.items]
        connection = "main"
        verify = "zoho-signature"
        secret = "{SECRET}"
        sync = "items"
        per_minute = 100000
        "#
    );
    Setup::new(PRODUCTS, config)
}

/// A world with so many items, all of them products, whose webhooks are sent.
async fn with_items(
    count: usize,
    delivery: Value,
) -> (World, std::net::SocketAddr, tokio_util::sync::CancellationToken, tokio::task::JoinHandle<()>) {
    let world = World::without_roles(setup()).await;
    let seed = json!({"product": "inventory", "module": "items", "organization": ORGANIZATION, "count": count,
        "record": {"name": "Item {n}", "sku": "S{n}", "rate": 5}, "age_seconds": 864_000, "step_seconds": 1});
    world.zoho.post("seed", seed).await;
    let (at, stop, producer) = world.start_listening(None).await;
    world.start_worker();
    poll(&world).await;
    assert_eq!(world.count("select count(*) from products where zoho_item_id is not null").await, i64::try_from(count).expect("a count"));
    world.zoho.post("settings", json!({"delivery": delivery})).await;
    let webhook = json!({"product": "inventory", "modules": ["items"], "url": format!("http://{at}/webhook/items"), "secret": SECRET});
    world.zoho.post("webhooks", webhook).await;
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    (world, at, stop, producer)
}

async fn poll(world: &World) {
    world.run("insert into sluice.job (kind, args) values ('poll', '{\"sync\": \"items\"}')").await;
    world.settled_within(std::time::Duration::from_secs(120)).await;
}

/// What both sides say: name, price and note by Zoho id.
async fn both_say(world: &World) -> (Vec<Value>, Vec<Value>) {
    let rows = world
        .rows(
            "select zoho_item_id as id, name, price::float8::text as price, coalesce(note, '') as note from products order by zoho_item_id",
        )
        .await;
    let items = world.zoho.records("inventory", "items").await;
    let mut items: Vec<Value> = items
        .iter()
        .map(|item| json!({"id": item["item_id"], "name": item["name"], "price": item["rate"].as_f64().map(|rate| rate.to_string()), "note": item["description"]}))
        .collect();
    items.sort_by_key(|item| item["id"].as_str().map(str::to_owned));
    (rows, items)
}

#[tokio::test(flavor = "multi_thread")]
async fn echoes_of_our_own_writes_cost_no_call_and_no_local_write() {
    let (world, ..) = with_items(100, json!({})).await;
    world.zoho.forget_calls().await;
    world.run("truncate touched; update products set price = price + 1; truncate touched").await;
    world.settled_within(std::time::Duration::from_secs(120)).await;
    world.until("select count(*) >= 100 from sluice.event").await;
    world.until("select count(*) = 0 from sluice.event where outcome is null").await;
    world.settled().await;
    let outcomes = world.rows("select outcome, count(*) from sluice.event group by 1").await;
    assert_eq!(outcomes, [json!({"outcome": "echo", "count": 100})]);
    let writes = world.zoho.calls().await.iter().filter(|call| call["method"] == "PUT").count();
    assert_eq!((writes, world.count("select count(*) from touched").await), (100, 0));
    let reads = world.zoho.count_calls().await - writes;
    assert!(reads <= 20, "what both sides say is read together before it is written: {reads} reads");
    // A person's edit among them is no echo.
    let items = world.zoho.records("inventory", "items").await;
    let id = items[7]["item_id"].as_str().expect("an id");
    world.zoho.put_later("inventory", "items", id, json!({"description": "by a person"})).await;
    world.until("select exists (select from products where note = 'by a person')").await;
    world.all_arrived().await;
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_doubled_overtaken_and_forged_webhooks_and_a_restarting_producer_change_nothing_about_the_end() {
    let edits = 300;
    let delivery = json!({"lose": 0.1, "double": 0.1, "reorder": 0.1, "forge": 0.05, "hold_ms": 300});
    let (world, at, mut stop, mut producer) = with_items(60, delivery).await;
    let ids: Vec<String> =
        world.zoho.records("inventory", "items").await.iter().map(|i| i["item_id"].as_str().expect("an id").to_owned()).collect();
    for n in 0..edits {
        let id = &ids[n * 7 % ids.len()];
        world.zoho.put("inventory", "items", Some(id), json!({"rate": 100 + n, "description": format!("edit {n}")})).await;
        if n % 25 == 0 {
            world.zoho.post("clock", json!({"advance_seconds": 2})).await;
        }
        if n % 100 == 50 {
            stop.cancel();
            producer.await.expect("the producer ends");
            (_, stop, producer) = world.start_listening(Some(at)).await;
        }
        if n % 3 == 0 {
            world.run(&format!("update products set name = 'Ours {n}' where zoho_item_id = '{}'", ids[n * 11 % ids.len()])).await;
        }
    }
    world.settled_within(std::time::Duration::from_secs(120)).await;
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    poll(&world).await;
    let (rows, items) = both_say(&world).await;
    assert_eq!(rows, items);
    assert!(items.iter().any(|item| item["name"].as_str().is_some_and(|name| name.starts_with("Ours"))));
    // Every event's verdict can be seen; a forged one was believed by nobody.
    let deliveries = world.zoho.deliveries().await;
    let forged = deliveries["counts"]["forged"].as_u64().unwrap_or_default();
    assert!(forged > 0 && deliveries["counts"]["lost"].as_u64() > Some(0), "{}", deliveries["counts"]);
    assert_eq!(world.count("select count(*) from sluice.event where verdict = 'verified' and outcome = 'refused'").await, 0);
    assert!(world.count("select coalesce(sum(refused), 0)::int8 from sluice.event_refusal").await > 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}
