//! `sluice.wait`.

use sluice_core::db::dynamic::script;
use sluice_queue::outcome::Class;

use crate::world::{World, dead, done, said};

#[tokio::test]
async fn wait_returns_when_everything_asked_for_has_ended() {
    let world = World::new().await;
    world.run("call sluice.wait('orders', '042')").await;
    world.push("orders", 42).await;
    let waiting = script("call sluice.wait('orders', '042', '20 s')".into()).execute(&world.db);
    let working = async {
        let batch = world.batch().await;
        assert!(world.settle(&batch, done()).await);
        std::time::Instant::now()
    };
    let (answer, settled) = tokio::join!(waiting, working);
    answer.unwrap();
    assert!(settled.elapsed().as_secs() < 15, "returned because it was settled, not because of its limit");
}

#[tokio::test]
async fn wait_says_that_its_time_is_over_or_that_the_record_died() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let (code, message) = world.refused("call sluice.wait('orders', '1', '10 ms')").await;
    assert_eq!(code, "57014", "{message}");
    let waiting = script("call sluice.wait('orders', '1', '20 s')".into()).execute(&world.db);
    let working = async {
        sluice_tests::wait_until(std::time::Duration::from_secs(60), || async {
            world.get::<bool>("select exists (select from pg_stat_activity where datname = current_database() and query like 'call sluice.wait%20 s%' and pid <> pg_backend_pid())").await
        })
        .await;
        let batch = world.batch().await;
        assert!(world.settle(&batch, dead(Class::Validation)).await);
    };
    let (answer, ()) = tokio::join!(waiting, working);
    assert_eq!(said(&answer.unwrap_err()).0, "P0001");
    // Whoever asks only now, since the worker was quicker, is told the same; until somebody has dealt with the letter.
    assert_eq!(world.refused("call sluice.wait('orders', '1')").await.0, "P0001");
    world.run("select sluice.discard(id) from sluice.dead_letter").await;
    world.run("call sluice.wait('orders', '1')").await;
    assert!(world.refused("call sluice.wait('nobody', '1')").await.1.contains("unknown sync"));
}

#[tokio::test]
async fn wait_refuses_to_run_inside_a_transaction_and_runs_as_a_prepared_statement_outside() {
    let world = World::new().await;
    let mut tx = world.db.begin().await.unwrap();
    let error = sqlx::query("call sluice.wait($1, $2)").bind("orders").bind("1").execute(&mut tx).await.unwrap_err();
    assert_eq!(said(&error).0, "2D000");
    tx.rollback().await.unwrap();
    for _ in 0..2 {
        sqlx::query("call sluice.wait($1, $2)").bind("orders").bind("1").execute(&world.db).await.unwrap();
    }
}
