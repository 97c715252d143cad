//! How long a committed row change takes to reach Zoho in an idle system: from the return of COMMIT to the arrival of the request at the
//! simulator, by the machine's clock. `cargo bench -p sluice-tests --bench latency`.
#![allow(dead_code)]

#[path = "../tests/scenarios/world/mod.rs"]
mod world;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use world::{Setup, World};

const CHANGES: usize = 100;

const TABLES: &str = "create table public.people (id bigint primary key, name text not null, email text not null);
    insert into public.people select n, 'Person ' || n, 'person' || n || '@example.com' from generate_series(1, 100) n;";

const SYNC: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
direction = "push"
match_on = ["email"]
[syncs.people.fields]
display_name = "name"
email = "email"
"#;

#[tokio::main]
async fn main() {
    let world = World::new(Setup::new(TABLES, SYNC)).await;
    world.trigger("people").await;
    world.settled_within(Duration::from_secs(60)).await;
    // past every record's min_interval, so that each change finds its record at rest
    tokio::time::sleep(Duration::from_millis(2500)).await;

    let mut latencies = Vec::new();
    for id in 1..=CHANGES {
        let before = world.zoho.count_calls().await;
        world.run(&format!("update public.people set name = 'Changed ' || id where id = {id}")).await;
        let committed = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock");
        let asked = Instant::now();
        while world.zoho.count_calls().await == before {
            assert!(asked.elapsed() < Duration::from_secs(10), "the change of {id} did not arrive");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let calls = world.zoho.calls().await;
        let arrived = calls.last().and_then(|call| call["arrived_us"].as_i64()).expect("a call");
        let committed = i64::try_from(committed.as_micros()).expect("a time");
        latencies.push((arrived - committed).max(0));
        world.settled().await;
    }
    latencies.sort_unstable();
    let at = |share: usize| latencies.get(latencies.len() * share / 100).copied().unwrap_or_default() as f64 / 1000.0;
    println!("commit to arrival at Zoho, {CHANGES} changes, one at a time, idle otherwise:");
    println!("  fastest {:.1} ms, median {:.1} ms, 90 % {:.1} ms, 99 % {:.1} ms", at(0), at(50), at(90), at(99));
}
