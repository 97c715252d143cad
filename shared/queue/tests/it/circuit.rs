//! A product that does not answer is left alone, and only that one; an outage costs nobody a failure.

use sluice_queue::outcome::Retry;
use sluice_queue::{Cost, Outcome, Settlement, store};

use crate::world::{WORKER, World, answered, done, unanswered};

fn outage() -> Outcome {
    Outcome::Retry(Retry { unbooked: true, message: "500".into(), ..Retry::default() })
}

/// Five calls in a row without an answer.
async fn break_it(world: &World) {
    for key in 1..=5 {
        world.push("shop", key).await;
    }
    world.fold().await;
    for _ in 0..5 {
        let batch = world.claim().await.expect("the circuit is closed");
        world.settle_with(&batch, &unanswered(), |s| Settlement::new(s, outage())).await;
        world.run("update sluice.slot set due_at = due_at + interval '1 s' where unbooked_at is not null").await;
    }
    world.time_passes().await;
}

#[tokio::test]
async fn five_calls_in_a_row_without_an_answer_leave_one_probe_every_five_seconds_until_it_answers() {
    let world = World::new().await;
    break_it(&world).await;
    assert!(world.claim().await.is_none());
    let probe_in: f64 =
        world.get("select extract(epoch from probe_at - clock_timestamp())::float8 from sluice.product where connection = 'twin'").await;
    assert!((4.0..=5.0).contains(&probe_in), "{probe_in}");
    world.push("orders", 1).await;
    world.fold().await;
    let other = world.claim().await.expect("another connection's product goes on");
    assert_eq!(other.sync, "orders");
    let five_seconds_pass = "update sluice.product set probe_at = probe_at - interval '5 s'";
    world.run(five_seconds_pass).await;
    let probe = world.claim().await.expect("the probe");
    assert!(world.claim().await.is_none(), "one at a time");
    assert!(
        matches!(store::grant_again(&world.db, probe.token, WORKER, &unanswered(), Cost::ONE).await.unwrap(), store::Again::Later),
        "a probe is one call"
    );
    world.settle_with(&probe, &unanswered(), |s| Settlement::new(s, outage())).await;
    world.time_passes().await;
    assert!(world.claim().await.is_none());
    world.run(five_seconds_pass).await;
    let probe = world.claim().await.expect("the next probe");
    world.settle(&probe, done()).await;
    assert!(world.claim().await.is_some() && world.claim().await.is_some(), "it answers: everything goes on");
}

#[tokio::test]
async fn an_answer_in_between_keeps_the_circuit_closed() {
    let world = World::new().await;
    for key in 1..=12 {
        world.push("shop", key).await;
    }
    world.fold().await;
    for call in 1..=10 {
        let batch = world.claim().await.unwrap_or_else(|| panic!("opened after call {call}"));
        let report = if call % 5 == 0 { answered() } else { unanswered() };
        world.settle_with(&batch, &report, |s| Settlement::new(s, done())).await;
    }
}

#[tokio::test]
async fn an_outage_costs_no_failure_but_a_record_that_alone_provokes_500s_is_counted() {
    let world = World::new().await;
    world.push("shop", 1).await;
    world.fold().await;
    let mut counted = Vec::new();
    for _ in 0..3 {
        let batch = world.claim().await.unwrap();
        counted.push(batch.slots[0].failures);
        world.settle_with(&batch, &unanswered(), |s| Settlement::new(s, outage())).await;
        world.time_passes().await;
    }
    assert_eq!(counted, [0, 0, 0], "nobody was answered: an outage");
    world.push("shop", 2).await;
    world.fold().await;
    world.run("update sluice.slot set due_at = clock_timestamp() + interval '1 min' where key = '1'").await;
    let other = world.claim().await.unwrap();
    assert_eq!(other.slots[0].key, "2");
    world.settle(&other, done()).await;
    world.time_passes().await;
    let batch = world.claim().await.unwrap();
    assert_eq!(batch.slots[0].failures, 1, "the product answers others");
    world.settle_with(&batch, &unanswered(), |s| Settlement::new(s, outage())).await;
    world.time_passes().await;
    assert_eq!(world.claim().await.unwrap().slots[0].failures, 1, "booked once");
}
