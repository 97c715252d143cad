//! What becomes of a dead worker's records.

use sluice_queue::outcome::Retry;
use sluice_queue::settle::Create;
use sluice_queue::{Outcome, Settlement, store};

use crate::world::{World, answered, done, failed};

#[tokio::test]
async fn a_batch_whose_worker_dies_is_retried_in_halves_until_the_guilty_record_stands_alone() {
    let world = World::new().await;
    for key in 1..=20 {
        world.push("orders", key).await;
    }
    world.fold().await;
    let mut sizes = Vec::new();
    let mut settled = 0;
    while sizes.last() != Some(&1) {
        let batch = world.claim().await.expect("the guilty one is still there");
        if batch.slots.iter().any(|s| s.key == "7") {
            sizes.push(batch.slots.len());
            world.leases_end().await;
            assert!(store::rescue(&world.db).await.unwrap());
        } else {
            settled += batch.slots.len();
            assert!(world.settle(&batch, done()).await);
        }
        world.time_passes().await;
        assert!(sizes.len() < 20, "{sizes:?}");
    }
    assert_eq!(sizes[0], 20);
    assert!(sizes.windows(2).all(|w| w[1] <= w[0].div_ceil(2)), "{sizes:?}");
    assert_eq!(
        world.get::<i64>("select count(*) from sluice.slot where deaths > 0").await,
        1,
        "only whoever was alone is suspected of a death"
    );
    while let Some(batch) = world.claim().await {
        if batch.slots[0].key == "7" {
            break;
        }
        settled += batch.slots.len();
        world.settle(&batch, done()).await;
    }
    assert_eq!(settled, 19);
    assert_eq!(world.get::<i64>("select count(*) from sluice.slot where failures > 0").await, 0, "a death is no failure");
}

#[tokio::test]
async fn eight_workers_that_die_alone_with_a_record_make_it_a_dead_letter_with_growing_pauses() {
    let world = World::new().await;
    let job = world.push("orders", 1).await;
    world.fold().await;
    let mut pauses = Vec::new();
    for death in 1..=8 {
        let batch = world.claim().await.expect("the record");
        assert_eq!(batch.slots.len(), 1);
        world.run("update sluice.batch set lease_until = clock_timestamp() - interval '1 ms', send_by = clock_timestamp() - interval '1 hour'").await;
        store::rescue(&world.db).await.unwrap();
        if death < 8 {
            pauses.push(world.get::<f64>("select extract(epoch from due_at - clock_timestamp())::float8 from sluice.slot").await);
            world.time_passes().await;
        }
        if death == 3 {
            // Given back by a worker that was stopped: says nothing about the record.
            let batch = world.claim().await.unwrap();
            world
                .settle_with(&batch, &sluice_queue::Report::default(), |s| {
                    sluice_queue::Settlement::new(s, Outcome::Continue { progress: None })
                })
                .await;
        }
    }
    assert!(pauses.windows(2).all(|w| w[1] > w[0]), "{pauses:?}");
    assert_eq!(world.get::<String>("select error_class from sluice.dead_letter").await, "panic");
    assert_eq!(world.get::<i32>("select jsonb_array_length(history) from sluice.dead_letter").await, 9);
    assert_eq!(world.result(job).await.as_deref(), Some("dead"));
}

#[tokio::test]
async fn a_run_that_ends_in_another_way_breaks_the_row_of_deaths() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.batch().await;
    world.leases_end().await;
    store::rescue(&world.db).await.unwrap();
    world.time_passes().await;
    let batch = world.claim().await.unwrap();
    world.settle(&batch, Outcome::Retry(Retry { counts: true, ..Retry::default() })).await;
    assert_eq!(world.get::<i32>("select deaths from sluice.slot").await, 0);
}

#[tokio::test]
async fn a_dead_workers_call_is_tried_again_only_if_it_was_a_get() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for method in ["GET", "POST", "DELETE"] {
        let enqueue = format!(
            r#"select sluice.enqueue('call', '{{"connection": "main", "product": "billing", "method": "{method}", "path": "/x"}}')"#
        );
        jobs.push(world.get::<i64>(enqueue).await);
    }
    world.fold().await;
    for _ in 0..3 {
        world.claim().await.unwrap();
    }
    world.leases_end().await;
    while store::rescue(&world.db).await.unwrap() {}
    let mut results = Vec::new();
    for job in jobs {
        results.push(world.result(job).await.unwrap());
    }
    assert_eq!(results, ["waiting", "dead", "dead"]);
    assert_eq!(world.get::<i64>("select count(*) from sluice.dead_letter where error_class = 'unknown' and hint is not null").await, 2);
    assert!(world.claim().await.is_some(), "a GET is due at once");
}

#[tokio::test]
async fn a_create_that_a_dead_worker_may_have_sent_stays_in_doubt_until_it_can_no_longer_arrive() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    assert!(batch.slots[0].doubt.is_none(), "the first claim is the intent, not a doubt");
    world.leases_end().await;
    store::rescue(&world.db).await.unwrap();
    let held: f64 = world.get("select extract(epoch from due_at - claimed_at)::float8 from sluice.slot, (select max(create_sent_at) as claimed_at from sluice.link) l").await;
    assert!((36.9..37.1).contains(&held), "send_by (2 s) + time-out (30 s) + 5 s, not {held}");
    assert!(world.claim().await.is_none());
    world.time_passes().await;
    let batch = world.claim().await.unwrap();
    let slot = &batch.slots[0];
    assert_eq!(slot.doubt.as_ref().map(|d| d.creates), Some(1));
    assert!(slot.doubt_age_ms.is_some());
    world.settle(&batch, done()).await;
    assert_eq!(world.get::<i64>("select count(*) from sluice.link where create_sent_at is not null or creates > 0").await, 0);
}

#[tokio::test]
async fn an_update_that_a_dead_worker_may_have_sent_is_held_but_puts_no_create_in_doubt() {
    let world = World::new().await;
    world.run("insert into sluice.link (sync, key, zoho_id) values ('orders', '1', '460000000026049')").await;
    world.push("orders", 1).await;
    world.batch().await;
    world.leases_end().await;
    store::rescue(&world.db).await.unwrap();
    assert!(world.claim().await.is_none(), "held");
    assert_eq!(world.get::<i64>("select count(*) from sluice.link where create_sent_at is not null or creates > 0").await, 0);
}

#[tokio::test]
async fn a_suspect_rides_only_with_its_like() {
    let world = World::new().await;
    for key in 1..=4 {
        world.push("orders", key).await;
    }
    world.batch().await;
    world.leases_end().await;
    store::rescue(&world.db).await.unwrap();
    for key in 5..=8 {
        world.push("orders", key).await;
    }
    world.fold().await;
    // due last, so that they would ride along with the others
    world.run("update sluice.slot set due_at = clock_timestamp(), not_before = '-infinity' where max_batch is not null").await;
    let mut sizes = Vec::new();
    while let Some(batch) = world.claim().await {
        let suspects = batch.slots.iter().filter(|s| s.key.parse::<u32>().unwrap() <= 4).count();
        assert!(suspects == 0 || suspects == batch.slots.len(), "the innocent do not ride with suspects");
        sizes.push(batch.slots.len());
    }
    sizes.sort_unstable();
    assert_eq!(sizes, [2, 2, 4]);
}

#[tokio::test]
async fn failures_are_forgotten_when_what_a_lost_create_left_was_found() {
    let world = World::new().await;
    let job = world.push("orders", 1).await;
    for failures in 1..=3 {
        let batch = world.batch().await;
        let lost = |slot| Settlement { create: Create::Doubt, ..Settlement::new(slot, failed()) };
        assert!(world.settle_with(&batch, &answered(), lost).await);
        assert_eq!(world.get::<i32>("select failures from sluice.slot".to_owned()).await, failures);
        world.run("update sluice.slot set due_at = '-infinity', not_before = '-infinity'; update sluice.link set hold_until = null").await;
    }
    let batch = world.batch().await;
    assert!(world.settle(&batch, Outcome::Continue { progress: None }).await);
    assert_eq!(world.get::<i32>("select failures from sluice.slot".to_owned()).await, 0);
    let batch = world.batch().await;
    assert!(world.settle(&batch, done()).await);
    assert_eq!(world.result(job).await.as_deref(), Some("done"));
}
