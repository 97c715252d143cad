//! Who gets the next call.

use std::collections::BTreeMap;

use sluice_queue::{Claim, store};

use crate::world::{LEASE, TIMEOUT, WORKER, World, done};

async fn fill(world: &World, sync: &str, lane: &str, keys: std::ops::Range<u32>) {
    world
        .run(format!(
            "insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', '{sync}', 'key', k), '{lane}' from generate_series({}, {}) k",
            keys.start,
            keys.end - 1
        ))
        .await;
    while world.fold().await == 1000 {}
}

#[tokio::test]
async fn while_bulk_work_waits_grants_lie_on_a_grid() {
    let world = World::new().await;
    fill(&world, "shop", "normal", 1..10).await;
    let claim = || store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT);
    let Claim::Batch(batch, _) = claim().await.unwrap() else { panic!("the first point of the grid is now") };
    let point = "select extract(epoch from grid_at)::float8 from sluice.budget where id = 1";
    let granted: f64 = world.get("select extract(epoch from max(granted_at))::float8 from sluice.place").await;
    let step = world.get::<f64>(point).await - granted;
    assert!((0.599..=0.601).contains(&step), "60 s / 100 calls, not {step}");
    world.run("update sluice.budget set grid_at = clock_timestamp() + interval '1 h'").await;
    let Claim::Wait(Some(wait)) = claim().await.unwrap() else { panic!("not on the grid") };
    assert!((3500..=3600).contains(&wait.as_secs()), "{wait:?}");
    world.settle(&batch, done()).await;
    world.run("update sluice.place set answer = '2 s' where answer is not null").await;
    // on time, and late by less than a step: the grid stays where it is
    for late in ["0 s", "0.3 s"] {
        world.run(format!("update sluice.budget set grid_at = clock_timestamp() - interval '{late}'")).await;
        let before: f64 = world.get(point).await;
        assert!(matches!(claim().await.unwrap(), Claim::Batch(..)));
        let step = world.get::<f64>(point).await - before;
        assert!((0.619..=0.621).contains(&step), "(60 s + the slowest answer) / 100, not {step}");
    }
}

#[tokio::test]
async fn urgent_work_starts_at_once_while_no_bulk_work_waits() {
    let world = World::new().await;
    fill(&world, "shop", "interactive", 1..3).await;
    fill(&world, "shop", "realtime", 3..5).await;
    let mut lanes = Vec::new();
    for _ in 0..4 {
        match store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() {
            Claim::Batch(batch, _) => lanes.push(batch.lane),
            Claim::Wait(wait) => panic!("had to wait for {wait:?}"),
        }
    }
    assert_eq!(lanes, ["interactive", "interactive", "realtime", "realtime"]);
}

#[tokio::test]
async fn a_saturated_interactive_lane_does_not_starve_the_lanes_that_have_a_floor() {
    let world = World::new().await;
    world.limit(100, 100, "60 s").await;
    for (lane, keys) in [("interactive", 0..200), ("normal", 200..400), ("reconcile", 400..600), ("backfill", 600..800)] {
        fill(&world, "shop", lane, keys).await;
    }
    let mut got: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..100 {
        *got.entry(world.claim().await.expect("a call of the minute").lane).or_default() += 1;
    }
    assert!(world.claim().await.is_none(), "the minute is spent");
    let share = |lane: &str| got.get(lane).copied().unwrap_or(0);
    assert!((19..=22).contains(&share("normal")), "{got:?}");
    assert!((2..=4).contains(&share("reconcile")), "{got:?}");
    assert!((5..=7).contains(&share("backfill")), "{got:?}");
    assert!(share("interactive") >= 67, "{got:?}");
}

#[tokio::test]
async fn within_a_lane_the_sync_served_longest_ago_goes_first() {
    let world = World::new().await;
    fill(&world, "shop", "realtime", 1..20).await;
    fill(&world, "customers", "realtime", 1..400).await;
    let mut syncs = Vec::new();
    for _ in 0..6 {
        syncs.push(world.claim().await.unwrap().sync);
    }
    assert!(syncs.chunks(2).all(|pair| pair[0] != pair[1]), "{syncs:?}");
}

#[tokio::test]
async fn a_call_carries_up_to_a_hundred_records_the_most_urgent_first_and_others_ride_along() {
    let world = World::new().await;
    fill(&world, "orders", "backfill", 1..300).await;
    fill(&world, "orders", "interactive", 300..310).await;
    let batch = world.claim().await.unwrap();
    assert_eq!((batch.lane.as_str(), batch.slots.len()), ("interactive", 100));
    assert_eq!(batch.slots.iter().filter(|s| s.key.parse::<u32>().unwrap() >= 300).count(), 10);
}

#[tokio::test]
async fn urgent_jobs_are_folded_before_a_million_that_came_first() {
    let world = World::new().await;
    world.run("insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', 'orders', 'key', k), 'backfill' from generate_series(1, 1500) k").await;
    world.run(r#"insert into sluice.job (kind, args, lane) values ('push', '{"sync": "shop", "key": 1}', 'interactive')"#).await;
    assert_eq!(world.fold().await, 1000);
    assert_eq!(world.claim().await.unwrap().sync, "shop");
}
