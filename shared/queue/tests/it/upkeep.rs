//! Partitions by day.

use sluice_core::db::dynamic::script;

use crate::world::{World, dead, done};
use sluice_queue::outcome::Class;

const PARTITIONS: &str = "select count(*) from pg_inherits where inhparent = 'sluice.attempt'::regclass";

#[tokio::test]
async fn a_missing_partition_costs_history_but_never_a_settle() {
    let world = World::new().await;
    world.run("do $$ declare t text; begin for t in select inhrelid::regclass from pg_inherits where inhparent in ('sluice.attempt'::regclass, 'sluice.job_history'::regclass) loop execute 'drop table ' || t; end loop; end $$").await;
    for key in [1, 2] {
        world.push("shop", key).await;
    }
    let (one, two) = (world.batch().await, world.claim().await.unwrap());
    assert!(world.settle(&one, done()).await);
    assert!(world.settle(&two, dead(Class::Validation)).await);
    assert_eq!(
        world
            .get::<i64>(
                "select (select count(*) from sluice.slot) + (select count(*) from sluice.slot_job) + (select count(*) from sluice.batch)"
            )
            .await,
        0
    );
    assert_eq!(world.get::<i64>("select count(*) from sluice.dead_letter").await, 1);
}

#[tokio::test]
async fn days_ahead_are_made_and_days_past_their_keeping_are_dropped() {
    let world = World::new().await;
    assert_eq!(world.get::<i64>(PARTITIONS).await, 8, "today and a week");
    world
        .run(
            "create table sluice.attempt_20200101 partition of sluice.attempt for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00');
             insert into sluice.call_result (job_id, http_status, answered_at) values (1, 200, now() - interval '8 days'), (2, 200, now() - interval '6 days');
             analyze pg_catalog.pg_inherits; analyze pg_catalog.pg_class; -- what the planner knows must not make it read other tables' names as days
             select sluice.keep_partitions(9, 90), sluice.keep_partitions(9, 90)",
        )
        .await;
    assert_eq!(world.get::<i64>(PARTITIONS).await, 10);
    assert!(world.get::<bool>("select to_regclass('sluice.attempt_20200101') is null").await);
    let stored = "select count(distinct a.attstorage) from pg_attribute a join pg_inherits i on a.attrelid in (i.inhrelid, i.inhparent)
                  where i.inhparent = 'sluice.change_history'::regclass and a.attname = 'keys'";
    assert_eq!(world.get::<i64>(stored).await, 1, "a day is stored as its table says");
    assert_eq!(world.get::<i64>("select job_id from sluice.call_result").await, 2);
    assert_eq!(world.get::<i64>("select count(*) from pg_indexes where tablename like 'attempt_2%'").await, 10, "each has the index");
}

#[tokio::test]
async fn a_partition_that_is_in_use_is_not_waited_for_and_the_days_ahead_are_made_all_the_same() {
    let world = World::new().await;
    world.run("create table sluice.attempt_20200101 partition of sluice.attempt for values from ('2020-01-01 00:00+00') to ('2020-01-02 00:00+00')").await;
    let mut reader = world.db.begin().await.unwrap();
    script("select count(*) from sluice.attempt".into()).execute(&mut reader).await.unwrap();
    let started = std::time::Instant::now();
    world.run("select sluice.keep_partitions(9, 90)").await;
    assert!(started.elapsed().as_secs() < 5, "gave up after 200 ms, not {:?}", started.elapsed());
    assert_eq!(world.get::<i64>(PARTITIONS).await, 11);
    reader.rollback().await.unwrap();
    world.run("select sluice.keep_partitions(9, 90)").await;
    assert_eq!(world.get::<i64>(PARTITIONS).await, 10);
}
