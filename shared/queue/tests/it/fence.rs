//! Settle, extend and rescue name the batch; whoever lost it writes nothing.

use std::time::{Duration, Instant, SystemTime};

use sluice_core::grant::{Grant, Moment};
use sluice_queue::calls::{Calls, NoGrant};
use sluice_queue::settle::{Create, Seen};
use sluice_queue::{Claim, Cost, Settlement, store};

use crate::world::{LEASE, TIMEOUT, WORKER, World, answered, done, failed, unanswered};

/// Everything that a settle could write, in one value.
const STATE: &str = "select md5(coalesce((select string_agg(t::text, '' order by id) from sluice.slot t), '') || coalesce((select string_agg(t::text, '' order by id) from sluice.place t), '')
  || (select string_agg(t::text, '' order by connection, product) from sluice.product t) || coalesce((select string_agg(t::text, '') from sluice.link t), '')
  || (select count(*) from sluice.attempt) || (select count(*) from sluice.dead_letter) || (select count(*) from sluice.job_history))";

#[tokio::test]
async fn a_settle_after_the_lease_has_ended_writes_nothing() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    world.leases_end().await;
    let before: String = world.get(STATE).await;
    assert!(!world.settle(&batch, done()).await);
    assert!(store::extend(&world.db, WORKER, &[batch.token], LEASE).await.unwrap().is_empty());
    assert!(matches!(store::grant_again(&world.db, batch.token, WORKER, &answered(), Cost::ONE).await.unwrap(), store::Again::Lost));
    assert_eq!(world.get::<String>(STATE).await, before);
}

#[tokio::test]
async fn a_stale_worker_cannot_settle_or_extend_a_batch_that_was_rescued_and_claimed_again() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let stale = world.batch().await;
    world.leases_end().await;
    assert!(store::rescue(&world.db).await.unwrap());
    world.time_passes().await;
    let fresh = world.claim().await.unwrap();
    assert!(!world.settle(&stale, done()).await);
    assert_eq!(store::extend(&world.db, WORKER, &[stale.token, fresh.token], LEASE).await.unwrap(), [fresh.token]);
    assert!(world.settle(&fresh, done()).await);
    assert!(!world.settle(&fresh, done()).await, "settled once");
}

#[tokio::test]
async fn a_namesake_with_another_incarnation_cannot_settle_or_extend() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    let batch = world.claim_as("w1:b").await.unwrap();
    assert!(!world.settle(&batch, done()).await);
    assert!(store::extend(&world.db, WORKER, &[batch.token], LEASE).await.unwrap().is_empty());
    assert_eq!(store::extend(&world.db, "w1:b", &[batch.token], LEASE).await.unwrap(), [batch.token]);
}

#[tokio::test]
async fn a_rescue_cannot_revive_what_was_settled_or_is_alive() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    assert!(!store::rescue(&world.db).await.unwrap(), "alive");
    world.settle(&batch, done()).await;
    assert!(!store::rescue(&world.db).await.unwrap(), "settled");
    assert_eq!(world.get::<i64>("select count(*) from sluice.slot").await, 0);
}

#[tokio::test]
async fn a_record_that_a_settle_forgets_or_names_twice_is_not_stuck() {
    let world = World::new().await;
    for key in [1, 2, 3] {
        world.push("orders", key).await;
    }
    let batch = world.batch().await;
    let only =
        vec![Settlement::new(batch.slots[0].id, done()), Settlement::new(batch.slots[0].id, failed()), Settlement::new(987_654, done())];
    assert!(store::settle(&world.db, batch.token, WORKER, &answered(), &only).await.unwrap());
    let states: Vec<String> =
        sqlx::query_scalar("select state from sluice.slot where key in ('2', '3') order by key").fetch_all(&world.db).await.unwrap();
    assert_eq!(states, ["available", "available"]);
    assert_eq!(world.get::<i64>("select count(*) from sluice.slot where batch is not null").await, 0);
}

#[tokio::test]
async fn nothing_shortens_the_time_for_which_a_lost_write_is_waited_out() {
    let world = World::new().await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    let lost = sluice_queue::outcome::Retry { hold: Some(Duration::from_secs(35)), unbooked: true, ..Default::default() };
    world
        .settle_with(&batch, &unanswered(), |s| Settlement {
            create: Create::Doubt,
            ..Settlement::new(s, sluice_queue::Outcome::Retry(lost.clone()))
        })
        .await;
    let left = "select extract(epoch from min(due_at) - clock_timestamp())::float8 from sluice.slot";
    assert!(world.get::<f64>(left).await > 30.0);
    world.run(r#"select sluice.enqueue('push', '{"sync": "orders", "key": 1}', 'interactive')"#).await;
    world.fold().await;
    store::wake_waiting(&world.db, "orders", &["1".into()], true).await.unwrap();
    store::sweep_waiting(&world.db).await.unwrap();
    assert!(world.get::<f64>(left).await > 30.0, "an edit, a person, a parent");
    world.run("select sluice.cancel(job_id) from sluice.slot_job").await;
    assert!(world.get::<f64>(left).await > 30.0, "cancelled");
    world.run("delete from sluice.slot").await;
    world.push("orders", 1).await;
    world.fold().await;
    assert!(world.get::<f64>(left).await > 30.0, "the slot went, the hold did not");
}

#[tokio::test]
async fn a_batch_given_back_unsent_has_cost_nothing_and_is_due_at_once() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    let Claim::Batch(batch, grant) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("nothing claimed")
    };
    let calls = Calls::new(batch.token, WORKER.into(), grant, Cost::ONE);
    let back = vec![Settlement::new(batch.slots[0].id, sluice_queue::Outcome::Continue { progress: Some(1.into()) })];
    assert!(store::settle(&world.db, batch.token, WORKER, &calls.report(), &back).await.unwrap());
    assert_eq!(world.get::<i64>("select count(*) from sluice.place where free_at > clock_timestamp()").await, 0);
    assert_eq!(world.get::<i64>("select count(*) from sluice.link").await, 0, "no intent is left of a create that was not sent");
    let Claim::Batch(batch, _) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("the point of the grid came back too")
    };
    let slot = &batch.slots[0];
    assert_eq!((slot.failures, slot.tries, slot.progress.clone()), (0, 0, Some(1.into())));
}

/// Rows that take longer to read than a grant holds would cost their records every claim, and never be sent.
#[tokio::test]
async fn a_grant_whose_time_passed_while_the_rows_were_read_is_exchanged_for_its_own_place() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    let Claim::Batch(batch, grant) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("nothing claimed")
    };
    let read_since = Moment::shown(Instant::now() - Duration::from_secs(3), SystemTime::now() - Duration::from_secs(3));
    let outlived = Grant::issued(grant.place(), read_since, Duration::from_secs(2));
    let calls = Calls::new(batch.token, WORKER.into(), outlived, Cost::ONE);
    let exchanged = calls.grant(&world.db, Cost::ONE).await.expect("its own place is free for it, and its point of the grid");
    assert!(exchanged.spend(Moment::now()).is_ok());
    assert_eq!(world.get::<i64>("select count(*) from sluice.place where kind = 'window' and free_at > clock_timestamp()").await, 1);
    calls.sending();
    calls.answered(Duration::from_millis(50), true, Cost::ONE, None, Seen::default());
    assert!(matches!(calls.grant(&world.db, Cost::ONE).await, Err(NoGrant::Later)), "the next one waits for the grid");
}

#[tokio::test]
async fn a_job_that_came_while_the_claim_waited_for_the_budget_is_claimed_too() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    world.run("update sluice.slot_job set created_at = clock_timestamp() + interval '10 s'").await;
    let age = world.batch().await.slots[0].age_ms.expect("an age");
    assert!(age < 0, "{age}");
}

#[tokio::test]
async fn a_second_call_is_refused_once_the_lease_is_gone() {
    let world = World::new().await;
    world.push("orders", 1).await;
    world.fold().await;
    let Claim::Batch(batch, grant) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("nothing claimed")
    };
    let calls = Calls::new(batch.token, WORKER.into(), grant, Cost::ONE);
    let _first = calls.grant(&world.db, Cost::ONE).await.unwrap();
    calls.sending();
    calls.answered(Duration::from_millis(50), true, Cost::ONE, None, Seen::default());
    world.leases_end().await;
    assert!(matches!(calls.grant(&world.db, Cost::ONE).await, Err(NoGrant::Lost)));
}

#[tokio::test]
async fn everything_that_a_settlement_says_has_its_place_in_the_settle() {
    use sluice_queue::Outcome;
    use sluice_queue::outcome::{Class, Letter, Retry};
    let world = World::new().await;
    let known: Vec<String> = sqlx::query_scalar("select attname::text from pg_attribute where attrelid = 'sluice.outcome'::regclass")
        .fetch_all(&world.db)
        .await
        .unwrap();
    let second = Some(Duration::from_secs(1));
    let retry = Retry { hold: second, max_batch: Some(1), http_status: Some(500), progress: Some(1.into()), ..Retry::default() };
    let letter = Letter {
        code: Some("1".into()),
        http_status: Some(400),
        response: Some(1.into()),
        depends_on: Some(("a".into(), "b".into())),
        ..Letter::new(Class::Unknown, "no")
    };
    let outcomes = [
        Outcome::Done { reason: Some("unchanged") },
        Outcome::Continue { progress: Some(1.into()) },
        Outcome::Retry(retry),
        Outcome::Snooze { after: Duration::from_secs(1), reason: "later".into() },
        Outcome::Wait { sync: "a".into(), key: "b".into() },
        Outcome::Dead(Box::new(letter.hint("mend it").field("email"))),
    ];
    for outcome in outcomes {
        let whole = Settlement {
            create: Create::Doubt,
            pushed: true,
            ms: Some(1),
            calls: 1,
            request: Some(1.into()),
            response: Some(1.into()),
            ..Settlement::new(1, outcome)
        };
        for name in whole.to_json().as_object().unwrap().keys() {
            assert!(known.contains(name), "sluice.outcome has no {name}");
        }
    }
}
