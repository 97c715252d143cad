//! Records that wait for their parents.

use sluice_queue::outcome::Class;
use sluice_queue::{Outcome, store};

use crate::world::{World, dead, done};

fn waits_for(sync: &str, key: &str) -> Outcome {
    Outcome::Wait { sync: sync.into(), key: key.into() }
}

/// Pushes a record and has it wait for another.
async fn wait(world: &World, child: (&str, &str), parent: (&str, &str)) {
    world.push(child.0, child.1).await;
    world.fold().await;
    let batch = world.claim().await.expect("the child");
    assert_eq!((batch.sync.as_str(), batch.slots[0].key.as_str()), child);
    world.settle(&batch, waits_for(parent.0, parent.1)).await;
}

#[tokio::test]
async fn a_child_waits_without_cost_until_its_parent_wakes_it() {
    let world = World::new().await;
    wait(&world, ("orders", "1"), ("customers", "7")).await;
    world
        .run(r#"insert into sluice.job (kind, args, run_at) values ('push', '{"sync": "customers", "key": 7}', now() + interval '1 min')"#)
        .await;
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 0, "the parent is asked for");
    assert!(world.claim().await.is_none());
    assert_eq!(world.get::<String>("select status from sluice.record_status where sync = 'orders'").await, "waiting");
    assert_eq!(store::wake_waiting(&world.db, "customers", &["6".into()], true).await.unwrap(), 0);
    assert_eq!(store::wake_waiting(&world.db, "customers", &["7".into()], true).await.unwrap(), 1);
    assert!(world.claim().await.is_some());
}

#[tokio::test]
async fn the_sweep_wakes_whoever_waits_for_a_parent_that_is_linked_or_that_nobody_asks_for_any_more() {
    let world = World::new().await;
    world.run("insert into sluice.link (sync, key, zoho_id) values ('customers', '1', 'z1')").await;
    world.push("customers", 3).await;
    let parent = world.batch().await;
    wait(&world, ("orders", "1"), ("customers", "1")).await;
    wait(&world, ("orders", "2"), ("customers", "2")).await;
    wait(&world, ("orders", "3"), ("customers", "3")).await;
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 2);
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 0);
    world.settle(&parent, dead(Class::Validation)).await;
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 1, "the parent died");
}

#[tokio::test]
async fn an_edit_wakes_a_waiting_record_since_its_parent_may_be_another_now() {
    let world = World::new().await;
    wait(&world, ("orders", "1"), ("customers", "7")).await;
    world.push("orders", 1).await;
    world.fold().await;
    assert!(world.claim().await.is_some());
}

#[tokio::test]
async fn a_record_that_waits_over_others_for_itself_is_found() {
    let world = World::new().await;
    wait(&world, ("orders", "1"), ("orders", "2")).await;
    wait(&world, ("orders", "2"), ("orders", "3")).await;
    let waits_on = async |a: &str, b: &str| store::waits_on(&world.db, ("orders", a), ("orders", b)).await.unwrap();
    assert!(waits_on("1", "3").await);
    assert!(!waits_on("3", "1").await);
    world.push("orders", 3).await;
    world.fold().await;
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 0, "a chain is no cycle");
    let batch = world.claim().await.unwrap();
    world.settle(&batch, waits_for("orders", "1")).await;
    assert!(waits_on("1", "1").await);
    assert_eq!(store::sweep_waiting(&world.db).await.unwrap(), 3);
}

#[tokio::test]
async fn the_sweep_looks_at_everybody_in_turn_a_thousand_at_a_time() {
    let world = World::new().await;
    world
        .run(
            "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at, waiting_sync, waiting_key)
               select 'orders', n::text, (select id from sluice.shape where sync = 'orders'), 'push', 2, 'infinity', 'customers', '1' from generate_series(1, 2500) n;
             insert into sluice.job (kind, args, run_at) values ('push', '{\"sync\": \"customers\", \"key\": 1}', now() + interval '1 hour');
             insert into sluice.slot (sync, key, shape_id, kind, lane, due_at, waiting_sync, waiting_key)
               select 'orders', 'last', id, 'push', 2, 'infinity', 'customers', '2' from sluice.shape where sync = 'orders'",
        )
        .await;
    let mut woken = Vec::new();
    for _ in 0..6 {
        woken.push(store::sweep_waiting(&world.db).await.unwrap());
    }
    assert_eq!(woken, [0, 0, 1, 0, 0, 0]);
    world.run("delete from sluice.job").await;
    let mut all = 0;
    for _ in 0..4 {
        all += store::sweep_waiting(&world.db).await.unwrap();
    }
    assert_eq!(all, 2500);
}

#[tokio::test]
async fn a_job_that_came_while_the_record_ran_into_a_wait_is_not_made_to_wait() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    world.push("orders", 1).await;
    world.fold().await;
    world.settle(&batch, waits_for("customers", "7")).await;
    let batch = world.claim().await.expect("the edit may have named another parent");
    world.settle(&batch, done()).await;
}
