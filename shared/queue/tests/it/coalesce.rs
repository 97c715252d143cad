//! Jobs for one record share a run, and a job is done when a run that began after it has ended.

use sluice_queue::Claim;
use sluice_queue::outcome::Class;
use sluice_queue::store;

use crate::world::{LEASE, TIMEOUT, WORKER, World, dead, done, failed};

#[tokio::test]
async fn jobs_for_one_record_share_one_run() {
    let world = World::new().await;
    let mut jobs = Vec::new();
    for key in ["7", "007", "7"] {
        jobs.push(world.push("customers", key).await);
    }
    let batch = world.batch().await;
    assert_eq!((batch.slots.len(), batch.slots[0].key.as_str(), batch.slots[0].job_id), (1, "7", Some(jobs[0])));
    world.settle(&batch, done()).await;
    for job in jobs {
        assert_eq!(world.result(job).await.as_deref(), Some("done"));
    }
    world.time_passes().await;
    assert!(world.claim().await.is_none());
    assert_eq!(world.get::<i64>("select calls from sluice.avoided where reason = 'coalesced'").await, 2);
}

#[tokio::test]
async fn a_job_inserted_during_a_run_leads_to_a_second_run() {
    let world = World::new().await;
    let first = world.push("orders", 1).await;
    let batch = world.batch().await;
    let second = world.push("orders", 1).await;
    world.fold().await;
    assert!(world.claim().await.is_none(), "one runner per record");
    assert_eq!((world.result(first).await.as_deref(), world.result(second).await.as_deref()), (Some("running"), Some("waiting")));
    world.settle(&batch, done()).await;
    assert_eq!((world.result(first).await.as_deref(), world.result(second).await.as_deref()), (Some("done"), Some("waiting")));
    let batch = world.claim().await.expect("the second run");
    world.settle(&batch, done()).await;
    assert_eq!(world.result(second).await.as_deref(), Some("done"));
    assert_eq!(world.get::<i64>("select count(*) from sluice.slot").await, 0);
}

#[tokio::test]
async fn a_later_run_at_is_never_absorbed_by_an_earlier_run() {
    let world = World::new().await;
    let later: i64 = world
        .get(r#"insert into sluice.job (kind, args, run_at) values ('push', '{"sync": "orders", "key": 1}', now() + interval '1 hour') returning id"#)
        .await;
    let now = world.push("orders", 1).await;
    let batch = world.batch().await;
    world.settle(&batch, done()).await;
    assert_eq!((world.result(now).await.as_deref(), world.result(later).await.as_deref()), (Some("done"), Some("waiting")));
    assert!(store::fold(&world.db).await.unwrap().next_in.unwrap().as_secs() > 3000);
    world.run("update sluice.job set run_at = now()").await;
    let batch = world.batch().await;
    world.settle(&batch, done()).await;
    assert_eq!(world.result(later).await.as_deref(), Some("done"));
}

#[tokio::test]
async fn of_coalesced_jobs_the_most_urgent_lane_the_earliest_time_and_the_largest_limit_count() {
    let world = World::new().await;
    world
        .run(
            r#"insert into sluice.job (kind, args, lane, run_at, max_failures) values
                 ('push', '{"sync": "orders", "key": 1}', 'backfill', now() - interval '1 hour', 3),
                 ('push', '{"sync": "orders", "key": 1}', 'realtime', now(), null)"#,
        )
        .await;
    world.fold().await;
    world.run(r#"insert into sluice.job (kind, args, lane, run_at, max_failures) values ('push', '{"sync": "orders", "key": 1}', 'normal', now(), 20)"#).await;
    world.fold().await;
    let slot: serde_json::Value = world
        .get("select jsonb_build_object('lane', lane, 'early', due_at < now() - interval '59 min', 'max', max_failures) from sluice.slot")
        .await;
    assert_eq!(slot, serde_json::json!({"lane": 1, "early": true, "max": 20}));
}

#[tokio::test]
async fn calls_never_coalesce() {
    let world = World::new().await;
    for _ in 0..2 {
        world.run(r#"select sluice.enqueue('call', '{"connection": "main", "product": "billing", "method": "GET", "path": "/x"}')"#).await;
    }
    let (one, two) = (world.batch().await, world.claim().await.unwrap());
    assert_eq!((one.kind.as_str(), one.slots.len(), two.slots.len()), ("call", 1, 1));
    assert_ne!(one.slots[0].job_id, two.slots[0].job_id);
    assert_eq!(one.slots[0].args.as_ref().unwrap()["path"], "/x");
}

#[tokio::test]
async fn cancel_withdraws_one_job_and_the_run_only_if_nobody_else_asks_for_it() {
    let world = World::new().await;
    let in_intake = world.push("orders", 9).await;
    assert!(world.get::<bool>(format!("select sluice.cancel({in_intake})")).await);
    let (one, two) = (world.push("orders", 1).await, world.push("orders", 1).await);
    world.fold().await;
    assert!(world.get::<bool>(format!("select sluice.cancel({one})")).await);
    assert_eq!((world.result(one).await.as_deref(), world.result(two).await.as_deref()), (Some("cancelled"), Some("waiting")));
    let batch = world.claim().await.expect("the run for the other job");
    assert!(!world.get::<bool>(format!("select sluice.cancel({two})")).await, "a running job is not withdrawn");
    let queued = world.push("orders", 1).await;
    world.fold().await;
    assert!(world.get::<bool>(format!("select sluice.cancel({queued})")).await);
    world.settle(&batch, done()).await;
    assert_eq!(world.get::<i64>("select count(*) from sluice.slot").await, 0, "nobody asks for another run");
    let last = world.push("orders", 1).await;
    world.fold().await;
    assert!(world.get::<bool>(format!("select sluice.cancel({last})")).await);
    assert!(world.claim().await.is_none());
    assert_eq!(world.result(last).await.as_deref(), Some("cancelled"));
    assert!(!world.get::<bool>(format!("select sluice.cancel({last})")).await);
    assert!(world.result(123_456).await.is_none());
}

#[tokio::test]
async fn a_job_with_an_older_id_that_is_committed_late_is_not_lost() {
    let world = World::new().await;
    let mut late = world.db.begin().await.unwrap();
    let older: i64 =
        sqlx::query_scalar(r#"insert into sluice.job (kind, args) values ('push', '{"sync": "orders", "key": 1}') returning id"#)
            .fetch_one(&mut late)
            .await
            .unwrap();
    let newer = world.push("orders", 1).await;
    assert!(older < newer);
    let batch = world.batch().await;
    world.settle(&batch, done()).await;
    late.commit().await.unwrap();
    let batch = world.batch().await;
    assert_eq!(batch.slots[0].job_id, Some(older));
    world.settle(&batch, done()).await;
    assert_eq!(world.result(older).await.as_deref(), Some("done"));
}

#[tokio::test]
async fn a_record_at_rest_is_pushed_at_once_and_then_not_again_within_its_min_interval() {
    let world = World::new().await;
    world.push("customers", 1).await;
    let batch = world.batch().await;
    world.push("customers", 1).await;
    world.fold().await;
    world.settle(&batch, done()).await;
    let next = "select extract(epoch from due_at - l.pushed_at)::float8 from sluice.slot s join sluice.link l using (sync, key)";
    assert_eq!(world.get::<f64>(next).await, 2.0, "asked for while it ran");
    assert!(world.claim().await.is_none());
    world.time_passes().await;
    let batch = world.claim().await.unwrap();
    world.settle(&batch, done()).await;
    world.push("customers", 1).await;
    world.fold().await;
    assert_eq!(world.get::<f64>(next).await, 2.0, "asked for afterwards");
}

#[tokio::test]
async fn a_backoff_is_not_shortened_by_an_edit_but_by_a_person_who_asks_now() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    world.settle(&batch, failed()).await;
    world.push("orders", 1).await;
    world.fold().await;
    assert!(world.claim().await.is_none(), "an edit");
    world.run(r#"insert into sluice.job (kind, args, lane) values ('push', '{"sync": "orders", "key": 1}', 'interactive')"#).await;
    let batch = world.batch().await;
    assert_eq!((batch.slots[0].tries, batch.slots[0].failures), (1, 1));
}

#[tokio::test]
async fn a_dead_letter_ends_the_jobs_of_its_run_but_not_those_that_came_meanwhile() {
    let world = World::new().await;
    let first = world.push("orders", 1).await;
    let batch = world.batch().await;
    let second = world.push("orders", 1).await;
    world.fold().await;
    world.settle(&batch, dead(Class::Validation)).await;
    assert_eq!((world.result(first).await.as_deref(), world.result(second).await.as_deref()), (Some("dead"), Some("waiting")));
    let batch = world.claim().await.expect("another run for the edit that came meanwhile");
    assert_eq!((batch.slots[0].failures, batch.slots[0].tries), (0, 0));
}

#[tokio::test]
async fn shapes_that_were_not_asked_for_are_not_claimed() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    let others: Vec<i64> = sqlx::query_scalar("select id from sluice.shape where sync <> 'orders'").fetch_all(&world.db).await.unwrap();
    let answer = store::claim(&world.db, WORKER, &others, LEASE, TIMEOUT).await.unwrap();
    assert!(matches!(answer, Claim::Wait(None)), "{answer:?}");
    assert!(world.claim().await.is_some());
}

/// Two at once could wait for each other: one for a slot that the other has made since it looked, the other for a slot that the one makes.
#[tokio::test]
async fn while_somebody_folds_others_neither_fold_nor_wait() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let mut folding = world.db.begin().await.unwrap();
    let folded: i32 = sqlx::query_scalar("select folded from sluice.fold()").fetch_one(&mut folding).await.unwrap();
    assert_eq!(folded, 1);
    world.push("orders", 2).await;
    let meanwhile = store::fold(&world.db).await.unwrap();
    assert_eq!(meanwhile.jobs, 0);
    assert!(meanwhile.next_in.is_some(), "it is looked at again");
    folding.commit().await.unwrap();
    assert_eq!(store::fold(&world.db).await.unwrap().jobs, 1);
}
