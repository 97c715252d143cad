//! A claim costs the same however much waits and however much is kept.

use serde_json::Value;

use crate::world::{WORKER, World};

/// Pages that one statement touched.
async fn pages(world: &World, sql: &str) -> i64 {
    let plan: Value = world.get(format!("explain (analyze, buffers, format json) {sql}")).await;
    let plan = &plan[0]["Plan"];
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|name| plan[name].as_i64().unwrap()).sum()
}

/// Pages of a claim of one record by a worker that has claimed often: the cheapest of four, since a plan that is made anew because autovacuum came
/// by reads the catalogue. A scan would cost every one of them.
async fn claim_costs(world: &World) -> i64 {
    let shapes: Vec<String> = world.shapes.iter().map(ToString::to_string).collect();
    let sql = format!("select sluice.claim('{WORKER}', '{{{}}}', '30 s', '30 s')", shapes.join(","));
    let mut cost = i64::MAX;
    for round in 0..10 {
        world.run("update sluice.budget set grid_at = '-infinity'; update sluice.place set free_at = '-infinity'").await;
        let before: i64 = world.get("select count(*) from sluice.batch").await;
        let pages = pages(world, &sql).await;
        if round >= 6 {
            cost = cost.min(pages);
        }
        assert_eq!(world.get::<i64>("select count(*) from sluice.batch").await, before + 1, "something was claimed");
    }
    cost
}

async fn wait_in_slots(world: &World, keys: &str) {
    world
        .run(format!(
            "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select 'shop', k::text, h.id, 'push', 2, clock_timestamp() - interval '1 h' + k * interval '1 ms'
             from sluice.shape h, generate_series({keys}) k where h.sync = 'shop'"
        ))
        .await;
}

#[tokio::test]
async fn a_claim_touches_no_more_pages_with_200_000_records_waiting_than_with_200() {
    let world = World::new().await;
    // what autovacuum might find out on its own would only help
    world.run("alter table sluice.slot set (autovacuum_enabled = off); alter table sluice.job set (autovacuum_enabled = off)").await;
    wait_in_slots(&world, "1, 200").await;
    let small = claim_costs(&world).await;
    wait_in_slots(&world, "201, 200000").await;
    let large = claim_costs(&world).await;
    assert!(large <= 2 * small + 50, "{small} pages with 200 waiting, {large} with 200,000");
}

#[tokio::test]
async fn fold_claim_and_settle_touch_no_more_pages_with_a_long_history() {
    let world = World::new().await;
    let round = async || {
        world.push("shop", 1).await;
        let mut cost = pages(&world, "select * from sluice.fold()").await;
        world.run("update sluice.budget set grid_at = '-infinity'; update sluice.place set free_at = '-infinity'").await;
        cost += pages(&world, &format!("select sluice.claim('{WORKER}', (select array_agg(id) from sluice.shape), '30 s', '30 s')")).await;
        let settle = "select sluice.settle(b.token, b.worker, '{\"sent\": true, \"answered\": true, \"answer_ms\": 1}',
            (select jsonb_agg(jsonb_build_object('slot', id, 'outcome', 'done')) from sluice.slot where batch = b.token)) from sluice.batch b";
        cost + pages(&world, settle).await
    };
    for _ in 0..6 {
        round().await;
    }
    let small = round().await;
    world
        .run(
            "insert into sluice.attempt (batch, worker, connection, product, kind, sync, key, attempt, outcome) select n, 'w', 'twin', 'billing', 'push', 'shop', n % 100, 1, 'done' from generate_series(1, 100000) n;
             insert into sluice.job_history (job_id, kind, args, sync, key, lane, run_at, created_at, created_by, result) select -n, 'push', '{}', 'shop', '1', 'normal', now(), now(), '', 'done' from generate_series(1, 100000) n;
             insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message, resolution) select 'push', '{}', 'shop', n % 100, 'normal', 'validation', '', 'superseded' from generate_series(1, 50000) n;
             insert into sluice.link (sync, key, zoho_id) select 'shop', n, n from generate_series(1000, 60000) n;
             select sluice.gather_counts()",
        )
        .await;
    // The cheapest of a few: autovacuum may look at the new rows meanwhile, and a plan made anew reads the catalogue. A scan of the history
    // would cost every one of them.
    let mut large = i64::MAX;
    for _ in 0..5 {
        large = large.min(round().await);
    }
    assert!(large <= 2 * small + 50, "{small} pages without history, {large} with it");
}
