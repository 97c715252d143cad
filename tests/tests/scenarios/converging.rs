//! Random edits on both sides at once, while webhooks are lost, doubled and overtaken and workers come and go: in the end both sides say the
//! same, no edit that nobody contradicted is lost, and nothing plays ping-pong.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::world::{ORGANIZATION, Setup, World};

const TABLES: &str = "create table things (id bigint generated always as identity primary key, zoho_id text, name text not null, ours text, theirs text, shared text, price numeric);";

const SECRET: &str = "a secret that Zoho signs with";

const RECORDS: usize = 12;
const EDITS: usize = 120;

fn setup(policy: &str) -> Setup {
    Setup::new(
        TABLES,
        format!(
            r#"
            [syncs.things]
            connection = "main"
            table = "things"
            key = "id"
            module = "inventory/items"
            direction = "both"
            min_interval = "10ms"
            conflict = "{policy}"
            writeback = {{ id = "zoho_id" }}
            [syncs.things.fields]
            name = "name"
            sku = "ours"
            description = "theirs"
            unit = "shared"
            [webhooks.things]
            connection = "main"
            verify = "zoho-signature"
            secret = "{SECRET}"
            sync = "things"
            per_minute = 100000
            "#
        ),
    )
}

async fn poll(world: &World) {
    world.ask_for_poll("things").await;
    world.settled_within(std::time::Duration::from_secs(120)).await;
}

async fn converge(seed: u64, policy: &str) {
    let mut rng = StdRng::seed_from_u64(seed);
    let world = World::without_roles(setup(policy)).await;
    let (at, ..) = world.start_listening(None).await;
    let mut worker = world.start_worker();
    let record = json!({"name": "Thing {n}", "sku": "o0", "description": "t0", "unit": "s0"});
    let seeded = json!({"product": "inventory", "module": "items", "organization": ORGANIZATION, "count": RECORDS, "record": record, "age_seconds": 9000});
    world.zoho.post("seed", seeded).await;
    poll(&world).await;
    let delivery = json!({"lose": 0.1, "double": 0.1, "delay": 0.2, "delay_ms": [50, 300], "reorder": 0.2, "hold_ms": 200, "retries": 0});
    world.zoho.post("settings", json!({"delivery": delivery})).await;
    let webhook = json!({"product": "inventory", "modules": ["items"], "url": format!("http://{at}/webhook/things"), "secret": SECRET});
    world.zoho.post("webhooks", webhook).await;
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    world.zoho.forget_calls().await;

    let ids = world.zoho.values("inventory", "items", "item_id").await;
    let (mut ours, mut theirs) = (BTreeMap::new(), BTreeMap::new());
    let mut restarts = 0;
    for n in 1..=EDITS {
        let id = &ids[rng.random_range(0..ids.len())];
        match rng.random_range(0..10) {
            0..=2 => {
                world.run(&format!("update things set ours = 'o{n}' where zoho_id = '{id}'")).await;
                ours.insert(id.clone(), format!("o{n}"));
            }
            3..=5 => {
                world.zoho.put("inventory", "items", Some(id), json!({"description": format!("t{n}")})).await;
                theirs.insert(id.clone(), format!("t{n}"));
            }
            6 => world.run(&format!("update things set shared = 'l{n}' where zoho_id = '{id}'")).await,
            7 => drop(world.zoho.put("inventory", "items", Some(id), json!({"unit": format!("z{n}")})).await),
            8 => drop(world.zoho.post("clock", json!({"advance_seconds": 2})).await),
            _ => {
                // its task is dropped wherever it is: what it held is taken over
                let (stop, task) = std::mem::replace(&mut worker, world.start_worker());
                task.abort();
                drop(stop);
                restarts += 1;
            }
        }
        if rng.random_bool(0.2) {
            world.run("select pg_sleep(0.05)").await;
        }
    }
    world.settled_within(std::time::Duration::from_secs(120)).await;
    world.zoho.post("clock", json!({"advance_seconds": 60})).await;
    poll(&world).await;
    let calls = world.zoho.calls().await;
    let polls = calls.iter().filter(|call| call["path"] == "/inventory/v1/items" && call["method"] == "GET").count();
    assert!(calls.len() - polls <= 2 * (EDITS + restarts), "seed {seed}: {} calls and {polls} polls", calls.len() - polls);

    let rows = world.rows("select zoho_id as id, ours, theirs, shared from things order by zoho_id").await;
    let mut items: Vec<Value> = world.zoho.records("inventory", "items").await;
    items.sort_by_key(|item| item["item_id"].as_str().map(str::to_owned));
    let items: Vec<Value> = items
        .iter()
        .map(|item| json!({"id": item["item_id"], "ours": item["sku"], "theirs": item["description"], "shared": item["unit"]}))
        .collect();
    assert_eq!(rows, items, "seed {seed}");
    for row in &rows {
        let id = row["id"].as_str().expect("an id");
        assert_eq!(row["ours"], *ours.get(id).map_or("o0", String::as_str), "seed {seed}: {row}");
        assert_eq!(row["theirs"], *theirs.get(id).map_or("t0", String::as_str), "seed {seed}: {row}");
    }
    assert_eq!(world.letters().await, Vec::<Value>::new(), "seed {seed}");
    // At rest: another look writes nothing.
    world.zoho.forget_calls().await;
    poll(&world).await;
    assert!(world.zoho.calls().await.iter().all(|call| call["method"] == "GET"), "seed {seed}");
    world.check_rules().await;
}

/// `SLUICE_SEEDS=20` tries as many.
#[tokio::test(flavor = "multi_thread")]
async fn random_edits_on_both_sides_converge_and_no_edit_that_stands_alone_is_lost() {
    let seeds = std::env::var("SLUICE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    for seed in 1..=seeds {
        converge(seed, ["zoho", "local", "newest"][usize::try_from(seed).expect("a seed") % 3]).await;
    }
}
