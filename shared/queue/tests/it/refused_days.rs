//! A day, or credits, that Zoho says are spent: one call at a time asks whether that is over, and a day that Zoho ends at another moment than we is not lost.

use std::time::Duration;

use sluice_queue::settle::{Limit, Seen, Throttled};
use sluice_queue::{Batch, Claim, Cost, Report, Settlement, store};

use crate::meters::{drain, fill, free_claim, limit_meter};
use crate::world::{LEASE, TIMEOUT, WORKER, World, answered, done};

/// What a claim that finds nothing is told to wait.
async fn wait(world: &World) -> Duration {
    match store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() {
        Claim::Wait(Some(wait)) => wait,
        other => panic!("not to wait for a time: {other:?}"),
    }
}

/// Moves all that a meter remembers of a refusal into the past.
async fn passes(world: &World, time: &str) {
    world
        .run(format!(
            "update sluice.meter set blocked_until = blocked_until - interval '{time}', refused_at = refused_at - interval '{time}'"
        ))
        .await;
    world.run(format!("update sluice.batch set granted_at = granted_at - interval '{time}'")).await;
}

#[tokio::test]
async fn a_day_that_ended_here_and_not_at_zoho_is_asked_about_by_one_call_an_hour_and_not_by_the_next_midnight() {
    let world = World::new().await;
    limit_meter(&world, "billing", 1000, 23.9).await;
    fill(&world, "shop", "interactive", 1..=20).await;
    let spent = Report { throttled: Some(Throttled { limit: Limit::Day, retry_after: None }), ..answered() };
    let refuse = async |batch: &Batch| {
        world.settle_with(batch, &spent, |s| Settlement::new(s, sluice_queue::Outcome::Continue { progress: None })).await
    };
    let (first, under_way) = (world.claim().await.unwrap(), world.claim().await.unwrap());
    refuse(&first).await;
    world.settle(&under_way, done()).await;
    for _ in 0..2 {
        let wait = wait(&world).await;
        assert!((3500..=3600).contains(&wait.as_secs()), "an answer to what was asked before says nothing; an hour, not {wait:?}");
        passes(&world, "1 h").await;
        let asks = world.claim().await.expect("one call asks");
        let again = store::grant_again(&world.db, asks.token, WORKER, &Report::default(), Cost::ONE).await.unwrap();
        assert!(matches!(again, store::Again::Later), "and is one call");
        let asks = world.claim().await.expect("it was not sent: another one asks");
        assert!(world.claim().await.is_none(), "one at a time");
        refuse(&asks).await;
    }
    passes(&world, "1 h").await;
    let lost = world.claim().await.unwrap();
    world.settle_with(&lost, &crate::world::unanswered(), |s| Settlement::new(s, done())).await;
    let rest = wait(&world).await;
    assert!((25..=32).contains(&rest.as_secs()), "until its answer can no longer come, not {rest:?}");
    passes(&world, "32 s").await;
    world.settle(&world.claim().await.unwrap(), done()).await;
    assert!(drain(&world).await.len() >= 12, "it answers: everything goes on");
    assert_eq!(world.get::<i64>("select count(*) from sluice.alert").await, 1, "one alert a day");
}

#[tokio::test]
async fn zohos_own_word_on_when_its_day_ends_is_kept_to() {
    let world = World::new().await;
    fill(&world, "shop", "interactive", 1..=5).await;
    let seen =
        Seen { day_limit: Some(1000), day_remaining: Some(0), day_resets_in: Some(Duration::from_secs(5 * 3600)), ..Seen::default() };
    let spent = Report { throttled: Some(Throttled { limit: Limit::Day, retry_after: None }), seen, ..answered() };
    let batch = world.claim().await.unwrap();
    world.settle_with(&batch, &spent, |s| Settlement::new(s, done())).await;
    assert!((17_900..=18_000).contains(&wait(&world).await.as_secs()));
}

#[tokio::test]
async fn a_day_that_began_at_zoho_before_ours_is_not_charged_with_the_one_before() {
    let world = World::new().await;
    // our clock says that the day has an hour to go: a zone that nobody told us
    limit_meter(&world, "billing", 2000, 1.0).await;
    world.run("update sluice.meter m set configured = null, told = 1000, told_by = 'header', used = 900, others = 90, normal = 600, bucket = floor(extract(epoch from clock_timestamp()) / 900),
               buckets = (select array_agg(case when i = (floor(extract(epoch from clock_timestamp()) / 900) - 20)::bigint % 98 then 900 else 0 end order by i) from generate_series(0, 97) i) where product = 'billing'").await;
    fill(&world, "shop", "interactive", 1..=3).await;
    let batch = world.claim().await.unwrap();
    let seen =
        Seen { day_limit: Some(1000), day_remaining: Some(998), day_resets_in: Some(Duration::from_secs(86_390)), ..Seen::default() };
    world.settle_with(&batch, &Report { seen, ..answered() }, |s| Settlement::new(s, done())).await;
    let meter: String = world
        .get("select concat_ws(' ', used, others, normal_before, round(extract(epoch from resets_at - clock_timestamp()) / 3600)) from sluice.meter where product = 'billing'")
        .await;
    assert_eq!(meter, "1 1 600 24", "used since it began, by others, by normal work the day before, hours left");
}

#[tokio::test]
async fn credits_that_others_used_are_asked_about_by_one_call_each_quarter_of_an_hour() {
    let world = World::new().await;
    let as_of = |quarters: u32| {
        format!("update sluice.meter set told = 1000, told_by = 'plan', used = 5, others = 995, bucket = floor(extract(epoch from clock_timestamp()) / 900),
        buckets = (select array_agg(case when i = (floor(extract(epoch from clock_timestamp()) / 900) - {quarters})::bigint % 98 then 5 else 0 end order by i) from generate_series(0, 97) i) where product = 'crm'")
    };
    fill(&world, "alone", "backfill", 1..=300).await;
    world.run(as_of(0)).await;
    assert!(free_claim(&world).await.is_none(), "somebody asked a moment ago");
    world.run(as_of(2)).await;
    let asks = free_claim(&world).await.expect("nobody has asked for a quarter of an hour");
    assert_eq!((asks.slots.len(), asks.cost), (10, 1), "it costs one credit");
    assert!(free_claim(&world).await.is_none(), "one call asks");
    let said = Report { seen: Seen { credits_remaining: Some(400), ..Seen::default() }, ..answered() };
    world.settle_with(&asks, &said, |s| Settlement::new(s, done())).await;
    assert!(free_claim(&world).await.is_none(), "400 are left, of which 500 are kept for more urgent work");
    fill(&world, "alone", "normal", 301..=500).await;
    assert_eq!(free_claim(&world).await.expect("200 are kept from this lane").slots.len(), 100);
}
