//! Webhooks: hints that lead to a read, never values that are believed. Echoes of our own writes cost nothing; lost, doubled, overtaken and
//! forged ones change nothing about the end.

use serde_json::{Value, json};

use crate::world::{ORGANIZATION, Setup, World, sized};

const PRODUCTS: &str = "
    create table products (
      id bigint generated always as identity primary key, zoho_item_id text, name text not null, sku text, price numeric(12, 2), note text);
    create table touched (like products);
    create function touch() returns trigger language plpgsql as $$ begin insert into touched select new.*; return null; end $$;
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
    // a machine that is busy with a thousand of them is no outage
    Setup { request_timeout: std::time::Duration::from_secs(30), ..Setup::new(PRODUCTS, config) }
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
    world.ask_for_poll("items").await;
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

/// `SLUICE_ECHOES=1000` tries as many.
#[tokio::test(flavor = "multi_thread")]
async fn echoes_of_our_own_writes_cost_no_call_and_no_local_write_and_a_persons_edit_among_them_is_polled() {
    let count = sized("SLUICE_ECHOES", 100);
    let (world, ..) = with_items(count, json!({})).await;
    world.zoho.forget_calls().await;
    world.run("truncate touched; update products set price = price + 1; truncate touched").await;
    // A person edits an item that was written already, and nobody hears of it.
    world.until("select count(*) >= 50 from sluice.event where outcome = 'echo'").await;
    let id = world.rows("select zoho_ids[1] as id from sluice.event where outcome = 'echo' order by id limit 1").await.remove(0);
    world.zoho.post("settings", json!({"delivery": {"lose": 1.0}})).await;
    world.zoho.put_later("inventory", "items", id["id"].as_str().expect("an id"), json!({"description": "by a person"})).await;
    world.zoho.post("settings", json!({"delivery": {"lose": 0.0}})).await;
    world.settled_within(std::time::Duration::from_secs(120)).await;
    told(&world).await;
    let lost = world.zoho.deliveries().await["counts"]["lost"].as_u64().expect("some are lost");
    let outcomes = world.rows("select outcome, count(*) from sluice.event group by 1").await;
    assert_eq!(outcomes, [json!({"outcome": "echo", "count": count as u64 + 1 - lost})]);
    let writes = world.zoho.calls().await.iter().filter(|call| call["method"] == "PUT").count();
    assert_eq!((writes, world.count("select count(*) from touched").await), (count, 0));
    let reads = world.zoho.count_calls().await - writes;
    assert!(reads <= count / 5, "what both sides say is read together before it is written: {reads} reads");
    assert_eq!(world.count("select count(*) from products where note = 'by a person'").await, 0);
    // The next poll finds it, and what it lists of our own writes is written nowhere.
    world.zoho.forget_calls().await;
    poll(&world).await;
    assert_eq!(world.rows("select zoho_item_id as id from products where note = 'by a person'").await, [id]);
    assert_eq!(world.count("select count(*) from touched").await, 1);
    let calls = world.zoho.count_calls().await;
    assert!(calls <= count / 200 + 2, "{calls} calls: {:#?}", world.zoho.calls().await);
    world.all_arrived().await;
    world.check_rules().await;
}

/// `SLUICE_WEBHOOKS=1000` makes as many edits.
#[tokio::test(flavor = "multi_thread")]
async fn lost_doubled_overtaken_and_forged_webhooks_and_a_restarting_producer_change_nothing_about_the_end() {
    let edits = sized("SLUICE_WEBHOOKS", 300);
    let delivery = json!({"lose": 0.1, "double": 0.1, "reorder": 0.1, "forge": 0.05, "hold_ms": 300});
    let (world, at, mut stop, mut producer) = with_items(60, delivery).await;
    world.run("truncate touched; delete from sluice.run").await;
    let ids: Vec<String> =
        world.zoho.records("inventory", "items").await.iter().map(|i| i["item_id"].as_str().expect("an id").to_owned()).collect();
    for n in 0..edits {
        let id = &ids[n * 7 % ids.len()];
        world.zoho.put("inventory", "items", Some(id), json!({"rate": 100 + n, "description": format!("edit {n}")})).await;
        if n % 25 == 0 {
            world.zoho.post("clock", json!({"advance_seconds": 2})).await;
        }
        if n == edits / 3 || n == edits * 2 / 3 {
            stop.cancel();
            producer.await.expect("the producer ends");
            (_, stop, producer) = world.start_listening(Some(at)).await;
        }
        if n % 3 == 0 {
            world.run(&format!("update products set name = 'Ours {n}' where zoho_item_id = '{}'", ids[n * 11 % ids.len()])).await;
        }
    }
    world.settled_within(std::time::Duration::from_secs(120)).await;
    told(&world).await;
    // Each restart has swept its gap; what that cost is told with the run.
    let sweeps = world.rows("select state, calls from sluice.run where kind = 'poll' order by id").await;
    assert_eq!(sweeps.len(), 2, "{sweeps:?}");
    assert!(sweeps.iter().all(|run| run["state"] == "done" && run["calls"].as_i64() >= Some(1)), "{sweeps:?}");
    let counts = world.zoho.deliveries().await["counts"].clone();
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    world.zoho.forget_calls().await;
    poll(&world).await;
    let last = world.rows("select calls from sluice.run where kind = 'poll' order by id desc limit 1").await.remove(0);
    assert_eq!(last["calls"], json!(world.zoho.count_calls().await), "{:#?}", world.zoho.calls().await);
    let (rows, items) = both_say(&world).await;
    assert_eq!(rows, items);
    assert!(items.iter().any(|item| item["name"].as_str().is_some_and(|name| name.starts_with("Ours"))));
    // Every event's verdict can be seen, and nothing that was forged has ever stood in a row.
    let count = |name: &str| counts[name].as_i64().unwrap_or_default();
    assert!(count("forged") > 0 && count("lost") > 0 && count("doubled") > 0 && count("reordered") > 0, "{counts}");
    assert!(
        world.count("select count(*) from sluice.event where verdict = 'verified' and outcome is not null").await >= count("answered 200")
    );
    assert_eq!(
        world.count("select count(*) from sluice.event where verdict = 'verified' and outcome = 'refused' or outcome is null").await,
        0
    );
    assert_eq!(world.count("select coalesce(sum(refused), 0)::int8 from sluice.event_refusal").await, count("answered 401"), "{counts}");
    assert_eq!(world.count("select count(*) from touched where name = 'forged' or note = 'forged' or price = 1").await, 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

/// Until everything that Zoho had to tell was told, and decided.
async fn told(world: &World) {
    let zoho = world.zoho.clone();
    sluice_tests::wait_until(crate::world::PATIENCE, move || {
        let zoho = zoho.clone();
        async move { zoho.deliveries().await["counts"]["pending"] == 0 }
    })
    .await;
    world.until("select count(*) = 0 from sluice.event where outcome is null").await;
    world.settled().await;
}
