//! A caller's open transaction never blocks a worker, nor a worker a caller.

use std::time::Duration;

use sluice_core::db::Tx;
use sluice_core::db::dynamic::script;
use sluice_queue::outcome::Class;
use sluice_queue::store;

use crate::world::{World, answered, dead, done, failed};

/// Every statement of a worker's fails here instead of waiting.
async fn impatient(world: &World) {
    world.run(format!("alter database {} set lock_timeout = '1s'", world.get::<String>("select current_database()").await)).await;
    // connections that are there already keep their settings
    world
        .run("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")
        .await;
}

async fn open(world: &World, sql: &str) -> Tx {
    let mut tx = world.test.db().begin().await.unwrap();
    script(sql.to_owned()).execute(&mut tx).await.unwrap();
    tx
}

/// One round of everything a worker does, over two records.
async fn work(world: &World) {
    world.push("orders", 1).await;
    world.push("orders", 2).await;
    store::fold(&world.db).await.unwrap();
    let batch = world.claim().await.expect("a batch");
    assert!(world.settle(&batch, done()).await);
    store::rescue(&world.db).await.unwrap();
    store::sweep_waiting(&world.db).await.unwrap();
    store::wake_waiting(&world.db, "orders", &["1".into(), "2".into()], true).await.unwrap();
}

#[tokio::test]
async fn an_open_transaction_that_inserted_jobs_delays_no_other_record_and_not_even_its_own() {
    let world = World::new().await;
    impatient(&world).await;
    world.push("orders", 1).await;
    let running = world.batch().await;
    let caller = open(
        &world,
        r#"insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'orders', 'key', k) from generate_series(1, 100) k"#,
    )
    .await;
    assert!(world.settle(&running, done()).await);
    work(&world).await;
    caller.commit().await.unwrap();
    assert_eq!(world.fold().await, 100);
}

#[tokio::test]
async fn an_open_transaction_that_requeued_discarded_cancelled_or_paused_delays_nobody() {
    let world = World::new().await;
    impatient(&world).await;
    for key in [1, 2] {
        world.push("orders", key).await;
        let batch = world.batch().await;
        world.settle(&batch, dead(Class::Validation)).await;
    }
    let waiting = world.push("orders", 3).await;
    world.push("orders", 3).await;
    world.fold().await;
    let intake = world.push("orders", 4).await;
    let caller = open(
        &world,
        &format!("select sluice.requeue(1); select sluice.discard(2); select sluice.cancel({waiting}); select sluice.cancel({intake}); select sluice.pause('lone')"),
    )
    .await;
    world.push("orders", 3).await; // whose slot the caller holds
    work(&world).await;
    caller.rollback().await.unwrap();
    world.drain().await;
    assert_eq!(world.result(waiting).await.as_deref(), Some("done"));
    assert_eq!(world.result(intake).await.as_deref(), Some("done"));
}

#[tokio::test]
async fn a_cancel_that_is_rolled_back_after_the_run_leaves_the_job_to_another_run() {
    let world = World::new().await;
    impatient(&world).await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    let job = world.push("orders", 1).await;
    world.fold().await;
    let caller = open(&world, &format!("select sluice.cancel({job})")).await;
    assert!(world.settle(&batch, done()).await);
    let batch = world.claim().await.expect("the run that was asked for meanwhile");
    assert!(world.settle(&batch, done()).await);
    caller.rollback().await.unwrap();
    assert_eq!(world.result(job).await.as_deref(), Some("waiting"));
    world.drain().await;
    assert_eq!(world.result(job).await.as_deref(), Some("done"));
}

#[tokio::test]
async fn a_slot_that_somebody_holds_does_not_keep_other_shapes_from_the_budget() {
    let world = World::new().await;
    impatient(&world).await;
    let held = world.push("orders", 1).await;
    world.fold().await;
    let caller = open(&world, &format!("select sluice.cancel({held})")).await;
    world.push("customers", 1).await;
    world.fold().await;
    for _ in 0..3 {
        let batch = world.claim().await.expect("the other shape's record");
        assert_eq!(batch.sync, "customers");
        world.settle(&batch, failed()).await;
        world.time_passes_for("customers").await;
    }
    caller.commit().await.unwrap();
}

#[tokio::test]
async fn callers_that_insert_the_same_records_in_opposite_orders_never_meet_a_deadlock() {
    const ROUNDS: u32 = 12;
    let world = World::new().await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let caller = |order: &'static str, sync: &'static str| {
        let db = world.test.db().clone();
        async move {
            for _ in 0..ROUNDS {
                let insert = format!(
                    "insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', s, 'key', k)
                     from generate_series(1, 500) k, unnest(array['orders', '{sync}']) s order by k {order}, s {order}"
                );
                script(insert).execute(&db).await.unwrap();
            }
        }
    };
    let worker = |name: &'static str| {
        let (db, shapes) = (world.db.clone(), world.shapes.clone());
        async move {
            for round in 0..ROUNDS * 3 {
                store::fold(&db).await.unwrap();
                script("update sluice.budget set grid_at = '-infinity' where grid_at > clock_timestamp() and id = 1".into())
                    .execute(&db)
                    .await
                    .unwrap();
                let claim = store::claim(&db, name, &shapes, Duration::from_secs(30), Duration::from_secs(30)).await.unwrap();
                if let sluice_queue::Claim::Batch(batch, _) = claim {
                    let settlements: Vec<_> = batch
                        .slots
                        .iter()
                        .map(|s| sluice_queue::Settlement::new(s.id, if round % 4 == 0 { failed() } else { done() }))
                        .collect();
                    assert!(store::settle(&db, batch.token, name, &answered(), &settlements).await.unwrap());
                    let keys: Vec<String> = batch.slots.iter().map(|s| s.key.clone()).collect();
                    store::wake_waiting(&db, &batch.sync, &keys, true).await.unwrap();
                }
                store::sweep_waiting(&db).await.unwrap();
            }
        }
    };
    world.limit(10_000, 100, "60 s").await;
    let before: i64 = world.get(deadlocks).await;
    tokio::join!(caller("asc", "customers"), caller("desc", "customers"), worker("w1:a"), worker("w2:a"), worker("w3:a"));
    world.run("select pg_stat_clear_snapshot(); select pg_stat_force_next_flush()").await;
    assert_eq!(world.get::<i64>(deadlocks).await, before);
}
