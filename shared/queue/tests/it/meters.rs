//! The day, the credits and the heavy pool: reserved together with the call or not at all, corrected by what answers say.

use std::time::Duration;

use sluice_queue::settle::{Limit, Seen, Throttled};
use sluice_queue::{Batch, Claim, Cost, Report, Settlement, store};

use crate::world::{LEASE, TIMEOUT, WORKER, World, answered, done};

pub(crate) async fn fill(world: &World, sync: &str, lane: &str, keys: std::ops::RangeInclusive<u32>) {
    world
        .run(format!(
            "insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', '{sync}', 'key', k), '{lane}' from generate_series({}, {}) k",
            keys.start(),
            keys.end()
        ))
        .await;
    while world.fold().await == 1000 {}
}

/// Makes the day of billing's calls, or crm's credits, that large, with so much of the day ahead.
pub(crate) async fn limit_meter(world: &World, product: &str, cap: u32, hours_ahead: f64) {
    world
        .run(format!(
            "update sluice.meter set configured = {cap}, resets_at = case when kind = 'calls' then clock_timestamp() + {hours_ahead} * interval '1 h' end where product = '{product}'"
        ))
        .await;
}

/// Claims and settles until there is nothing to be had; the lanes that were served.
pub(crate) async fn drain(world: &World) -> Vec<String> {
    let mut lanes = Vec::new();
    while let Some(batch) = free_claim(world).await {
        lanes.push(batch.lane.clone());
        world.settle(&batch, done()).await;
    }
    lanes
}

/// A claim that neither the grid nor the window stands in the way of.
pub(crate) async fn free_claim(world: &World) -> Option<Batch> {
    world.run("update sluice.place set free_at = '-infinity' where batch is null").await;
    world.claim().await
}

fn count(lanes: &[String], lane: &str) -> usize {
    lanes.iter().filter(|l| *l == lane).count()
}

async fn used(world: &World, product: &str) -> i32 {
    world.get(format!("select used from sluice.meter where product = '{product}'")).await
}

#[tokio::test]
async fn bulk_work_leaves_a_share_of_the_day_and_urgent_work_may_use_all_of_it() {
    let world = World::new().await;
    limit_meter(&world, "billing", 40, 24.0).await;
    fill(&world, "shop", "backfill", 1..=60).await;
    assert_eq!(count(&drain(&world).await, "backfill"), 20, "half of the day is kept for more urgent work");
    fill(&world, "shop", "normal", 101..=160).await;
    assert_eq!(count(&drain(&world).await, "normal"), 12, "a fifth of the day is kept for urgent work");
    fill(&world, "shop", "interactive", 201..=210).await;
    let lanes = drain(&world).await;
    assert_eq!((count(&lanes, "interactive"), lanes.len()), (8, 8), "all that is left");
    assert_eq!(used(&world, "billing").await, 40);
    let Claim::Wait(Some(wait)) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("the day is spent")
    };
    assert!(wait > Duration::from_secs(3600), "until the day ends, not {wait:?}");
    assert_eq!(world.get::<i64>("select count(*) from sluice.alert where occasion = 'budget_low'").await, 1, "one alert a day");
    assert_eq!(world.get::<i64>("select coalesce(sum(failures), 0)::bigint from sluice.slot").await, 0);
}

#[tokio::test]
async fn what_is_kept_back_is_set_free_as_the_day_goes_by() {
    let world = World::new().await;
    limit_meter(&world, "billing", 40, 24.0).await;
    fill(&world, "shop", "backfill", 1..=60).await;
    assert_eq!(drain(&world).await.len(), 20);
    limit_meter(&world, "billing", 40, 6.0).await;
    assert_eq!(drain(&world).await.len(), 15, "a quarter of the day is ahead: 5 of 20 are still kept");
    limit_meter(&world, "billing", 40, 0.001).await;
    assert_eq!(drain(&world).await.len(), 4, "nothing but one is left over at midnight");
}

#[tokio::test]
async fn at_the_days_end_work_goes_on_and_calls_around_midnight_count_for_both_days() {
    let world = World::new().await;
    limit_meter(&world, "billing", 10, 24.0).await;
    fill(&world, "shop", "interactive", 1..=30).await;
    assert_eq!(drain(&world).await.len(), 10);
    world.run("update sluice.place set granted_at = clock_timestamp() - interval '10 min' where id <> (select max(id) from sluice.place where granted_at is not null and kind = 'window')").await;
    world.run("update sluice.meter set resets_at = clock_timestamp() where product = 'billing'").await;
    assert_eq!(drain(&world).await.len(), 9, "one of the ten was granted in the last minute: Zoho may count it for either day");
    assert!(world.get::<bool>("select resets_at between clock_timestamp() + interval '23 h' and clock_timestamp() + interval '24 h' from sluice.meter where product = 'billing'").await);
}

#[tokio::test]
async fn a_day_ends_at_midnight_in_the_organisations_zone_also_when_its_clocks_change() {
    let world = World::new().await;
    for (zone, now, midnight) in [
        ("'Asia/Kolkata'", "2026-01-01 18:29:59+00", "2026-01-01 18:30+00"),
        ("'Asia/Kolkata'", "2026-01-01 18:30:00+00", "2026-01-02 18:30+00"),
        ("'America/New_York'", "2026-07-01 03:00:00+00", "2026-07-01 04:00+00"),
        ("'Europe/Berlin'", "2026-03-29 00:30:00+01", "2026-03-29 22:00+00"), // a day of 23 hours
        ("'Europe/Berlin'", "2026-10-25 00:30:00+02", "2026-10-25 23:00+00"), // and one of 25
        ("null", "2026-01-01 18:30:00+00", "2026-01-02 00:00+00"),
    ] {
        let right = format!("select sluice.next_midnight({zone}, '{now}') = '{midnight}'::timestamptz");
        assert!(world.get::<bool>(right).await, "{zone} {now}");
    }
}

#[tokio::test]
async fn a_call_that_was_not_made_costs_nothing_and_a_lost_one_all_that_was_reserved() {
    let world = World::new().await;
    fill(&world, "alone", "normal", 1..=100).await;
    let batch = world.claim().await.unwrap();
    assert_eq!((batch.slots.len(), batch.cost, batch.heavy), (100, 10, true));
    assert_eq!(used(&world, "crm").await, 10);
    world.settle_with(&batch, &Report::default(), |s| Settlement::new(s, sluice_queue::Outcome::Continue { progress: None })).await;
    assert_eq!(used(&world, "crm").await, 0);
    let batch = world.claim().await.unwrap();
    let only_three = Report { cost: Some(3), ..answered() };
    world.settle_with(&batch, &only_three, |s| Settlement::new(s, sluice_queue::Outcome::Continue { progress: None })).await;
    assert_eq!(used(&world, "crm").await, 3, "what was reserved and not spent comes back");
    let batch = world.claim().await.unwrap();
    world.settle_with(&batch, &crate::world::unanswered(), |s| Settlement::new(s, done())).await;
    assert_eq!(used(&world, "crm").await, 13);
}

#[tokio::test]
async fn credits_bound_the_records_of_a_call_and_come_back_a_day_after_their_quarter_of_an_hour() {
    let world = World::new().await;
    limit_meter(&world, "crm", 40, 0.0).await;
    fill(&world, "alone", "normal", 1..=1000).await;
    let mut records = Vec::new();
    while let Some(batch) = free_claim(&world).await {
        records.push(batch.slots.len());
        world.settle(&batch, done()).await;
    }
    assert_eq!(records, [100, 100, 100, 20], "32 of 40 credits: a fifth is kept for urgent work");
    let moved = |hours: &str| {
        format!(
            "update sluice.meter m set buckets = (select array_agg(m.buckets[(i + {hours} * 4) % 98 + 1] order by i) from generate_series(0, 97) i) where product = 'crm'"
        )
    };
    world.run(moved("24")).await;
    assert!(free_claim(&world).await.is_none(), "24 hours later their quarter of an hour is not yet a day over");
    world.run("update sluice.meter set bucket = bucket - 98 where product = 'crm'").await;
    assert_eq!(free_claim(&world).await.unwrap().slots.len(), 100);
    assert_eq!(used(&world, "crm").await, 10);
}

#[tokio::test]
async fn ten_heavy_calls_are_under_way_and_a_further_one_carries_ten_records() {
    let world = World::new().await;
    world.run("update sluice.budget set in_flight = 15 where id = 2; insert into sluice.place (budget_id, kind) select 2, 'in_flight' from generate_series(1, 5)").await;
    fill(&world, "alone", "normal", 1..=2000).await;
    let mut batches = Vec::new();
    for _ in 0..12 {
        batches.push(world.claim().await.unwrap());
    }
    let sizes: Vec<_> = batches.iter().map(|b| (b.slots.len(), b.heavy)).collect();
    assert_eq!(sizes[..10], [(100, true); 10]);
    assert_eq!(sizes[10..], [(10, false); 2]);
    let again =
        async |heavy| store::grant_again(&world.db, batches[11].token, WORKER, &answered(), Cost { units: 2, heavy }).await.unwrap();
    assert!(matches!(again(true).await, store::Again::Later), "no place in the heavy pool");
    world.settle(&batches[0], done()).await;
    world.run("update sluice.budget set grid_at = '-infinity'").await;
    assert!(matches!(again(true).await, store::Again::Granted { .. }));
    world.settle(&batches[1], done()).await;
    assert_eq!(world.claim().await.unwrap().slots.len(), 100);
}

#[tokio::test]
async fn headers_tell_the_day_and_what_others_used_but_never_take_our_own_calls_for_theirs() {
    let world = World::new().await;
    fill(&world, "shop", "realtime", 1..=10).await;
    let (one, two) = (world.claim().await.unwrap(), world.claim().await.unwrap());
    let seen = |remaining| Seen {
        day_limit: Some(1000),
        day_remaining: Some(remaining),
        day_resets_in: Some(Duration::from_secs(5 * 3600)),
        ..Seen::default()
    };
    let said = |remaining| Report { seen: seen(remaining), ..answered() };
    let row = async || {
        world
            .get::<String>("select concat_ws(' ', told, told_by, used, others, round(extract(epoch from resets_at - clock_timestamp()) / 3600)) from sluice.meter where product = 'billing'")
            .await
    };
    world.settle_with(&one, &said(998), |s| Settlement::new(s, done())).await;
    assert_eq!(row().await, "1000 header 2 0 5", "both calls are ours");
    world.settle_with(&two, &said(900), |s| Settlement::new(s, done())).await;
    assert_eq!(row().await, "1000 header 2 98 5");
    let late = world.claim().await.unwrap();
    world.settle_with(&late, &said(950), |s| Settlement::new(s, done())).await;
    assert_eq!(row().await, "1000 header 3 98 5", "an answer that was overtaken gives nothing back");
    let shown: i32 = world.get("select others from sluice.budget_status where connection = 'twin' and limit_kind = 'calls_per_day'").await;
    assert_eq!(shown, 98);
}

#[tokio::test]
async fn credits_that_zoho_says_are_left_are_all_that_is_spent() {
    let world = World::new().await;
    fill(&world, "alone", "interactive", 1..=1000).await;
    let (first, under_way) = (world.claim().await.unwrap(), world.claim().await.unwrap());
    let said = Report { seen: Seen { credits_remaining: Some(25), ..Seen::default() }, ..answered() };
    world.settle_with(&first, &said, |s| Settlement::new(s, done())).await;
    let mut spent = u32::from(under_way.cost);
    while let Some(batch) = free_claim(&world).await {
        spent += u32::from(batch.cost);
        world.settle(&batch, done()).await;
    }
    assert!((15..=25).contains(&spent), "25 were left, {spent} were reserved");
}

#[tokio::test]
async fn a_spent_day_stops_one_product_until_it_ends_and_no_other() {
    let world = World::new().await;
    world.run("insert into sluice.meter (budget_id, product, kind, resets_at) values (1, 'books', 'calls', sluice.next_midnight('UTC', clock_timestamp()))").await;
    fill(&world, "shop", "interactive", 1..=3).await;
    let batch = world.claim().await.unwrap();
    let spent = Report { throttled: Some(Throttled { limit: Limit::Day, retry_after: None }), ..answered() };
    world.settle_with(&batch, &spent, |s| Settlement::new(s, done())).await;
    assert!(world.claim().await.is_none());
    assert_eq!(world.get::<i64>("select count(*) from sluice.alert").await, 1);
    world.run("insert into sluice.job (kind, args) values ('call', '{\"connection\": \"main\", \"product\": \"books\", \"method\": \"GET\", \"path\": \"/items\"}')").await;
    world.fold().await;
    assert_eq!(world.claim().await.expect("books has a day of its own").product, "books");
    world.run("update sluice.meter set resets_at = clock_timestamp() where product = 'billing'").await;
    assert_eq!(world.claim().await.expect("a new day").product, "billing");
}

#[tokio::test]
async fn too_many_at_once_halves_what_is_under_way_and_every_ten_seconds_one_more_is_tried() {
    let world = World::new().await;
    fill(&world, "shop", "realtime", 1..=40).await;
    let mut batches = Vec::new();
    for _ in 0..10 {
        batches.push(world.claim().await.unwrap());
    }
    let crowded = Report { throttled: Some(Throttled { limit: Limit::InFlight, retry_after: None }), ..answered() };
    world.settle_with(&batches[0], &crowded, |s| Settlement::new(s, done())).await;
    for batch in &batches[1..] {
        world.settle(batch, done()).await;
    }
    assert!(world.claim().await.is_none(), "a pause first");
    let flights = async || {
        world.run("update sluice.budget set blocked_until = '-infinity'").await;
        let mut claimed = Vec::new();
        while let Some(batch) = world.claim().await {
            claimed.push(batch);
        }
        for batch in &claimed {
            world.settle(batch, done()).await;
        }
        claimed.len()
    };
    assert_eq!(flights().await, 5);
    world.run("update sluice.budget set shrunk_at = clock_timestamp() - interval '20 s'").await;
    assert_eq!(flights().await, 7);
    world.run("update sluice.budget set shrunk_at = shrunk_at - interval '2 min'").await;
    assert_eq!(flights().await, 10, "never more than allowed");
}

#[tokio::test]
async fn what_waits_longer_than_fresh_within_goes_one_lane_up_and_never_above_realtime() {
    let world = World::new().await;
    world.run("update sluice.sync set fresh_within = '5 min' where name in ('shop', 'orders')").await;
    fill(&world, "shop", "reconcile", 1..=1).await;
    fill(&world, "orders", "realtime", 1..=1).await;
    fill(&world, "customers", "normal", 1..=1).await;
    fill(&world, "alone", "interactive", 1..=1).await;
    world.run("update sluice.slot set due_at = due_at - interval '6 min' where sync in ('shop', 'orders')").await;
    world.run("update sluice.shape set served_at = clock_timestamp() where sync = 'customers'").await;
    let mut order = Vec::new();
    while let Some(batch) = world.claim().await {
        order.push(batch.sync);
    }
    assert_eq!(order, ["alone", "orders", "shop", "customers"]);
}

#[tokio::test]
async fn a_minute_that_others_have_used_up_is_waited_for_before_zoho_refuses() {
    let world = World::new().await;
    fill(&world, "shop", "realtime", 1..=5).await;
    let batches = [world.claim().await.unwrap(), world.claim().await.unwrap(), world.claim().await.unwrap()];
    let left = |minute_remaining| Report { seen: Seen { minute_remaining: Some(minute_remaining), ..Seen::default() }, ..answered() };
    world.settle_with(&batches[0], &left(3), |s| Settlement::new(s, done())).await;
    let another = world.claim().await.expect("one is left beside the two under way");
    world.settle_with(&batches[1], &left(2), |s| Settlement::new(s, done())).await;
    let Claim::Wait(Some(wait)) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("three were under way, and two left")
    };
    assert!((55..=60).contains(&wait.as_secs()), "{wait:?}");
    assert!(world.settle(&another, done()).await);
}
