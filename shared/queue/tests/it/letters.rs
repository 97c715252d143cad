//! Dead letters: what they tell, and how they are resolved.

use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Outcome, store};

use crate::world::{World, dead, done, failed};

#[tokio::test]
async fn a_dead_letter_tells_every_attempt_and_all_of_its_jobs() {
    let world = World::new().await;
    let (one, two) = (world.push("orders", 1).await, world.push("orders", 1).await);
    let batch = world.batch().await;
    world.settle(&batch, failed()).await;
    world.time_passes().await;
    let batch = world.claim().await.unwrap();
    let letter = Letter {
        code: Some("15".into()),
        http_status: Some(400),
        ..Letter::new(Class::Validation, "bad email").field("email").hint("mend it")
    };
    world.settle(&batch, Outcome::Dead(Box::new(letter))).await;
    let told: serde_json::Value = world
        .get("select jsonb_build_object('jobs', job_ids, 'args', args, 'class', error_class, 'code', error_code, 'field', field, 'hint', hint, 'status', http_status, 'history', (select jsonb_agg(h -> 'outcome') from jsonb_array_elements(history) h)) from sluice.dead_letter")
        .await;
    assert_eq!(
        told,
        serde_json::json!({"jobs": [one, two], "args": {"sync": "orders", "key": "1"}, "class": "validation", "code": "15", "field": "email",
                           "hint": "mend it", "status": 400, "history": ["retry", "dead"]})
    );
}

#[tokio::test]
async fn a_later_success_of_the_same_record_supersedes_its_letter() {
    let world = World::new().await;
    for key in [1, 2] {
        world.push("orders", key).await;
    }
    let batch = world.batch().await;
    world.settle(&batch, dead(Class::Validation)).await;
    world.push("orders", 1).await;
    let batch = world.batch().await;
    world.settle(&batch, done()).await;
    let letters: Vec<Option<String>> =
        sqlx::query_scalar("select resolution from sluice.dead_letter order by key").fetch_all(&world.db).await.unwrap();
    assert_eq!(letters, [Some("superseded".to_owned()), None]);
}

#[tokio::test]
async fn requeue_and_discard_resolve_a_letter_once_and_say_who() {
    let world = World::new().await;
    for key in [1, 2] {
        world.push("orders", key).await;
    }
    let batch = world.batch().await;
    world.settle(&batch, dead(Class::Validation)).await;
    let job: i64 = world.get("select sluice.requeue(1)").await;
    world.run("select sluice.discard(2)").await;
    for again in ["select sluice.requeue(1)", "select sluice.discard(1)", "select sluice.requeue(2)", "select sluice.requeue(99)"] {
        assert_eq!(world.refused(again).await.0, "02000", "{again}");
    }
    let batch = world.batch().await;
    assert_eq!((batch.slots.len(), batch.slots[0].job_id, batch.lane.as_str()), (1, Some(job), "interactive"));
    assert_eq!(
        world.get::<i64>("select count(*) from sluice.dead_letter where resolved_by = session_user and resolved_at is not null and resolution in ('requeued', 'discarded')").await,
        2
    );
}

#[tokio::test]
async fn a_letter_that_died_for_want_of_a_parent_is_requeued_when_the_parent_is_linked() {
    let world = World::new().await;
    for key in [1, 2] {
        world.push("orders", key).await;
    }
    let batch = world.batch().await;
    let letter = Letter { depends_on: Some(("customers".into(), "7".into())), ..Letter::new(Class::Dependency, "no parent") };
    world.settle(&batch, Outcome::Dead(Box::new(letter))).await;
    store::wake_waiting(&world.db, "customers", &["7".into()], false).await.unwrap();
    assert_eq!(world.fold().await, 0, "the parent died: nothing changes");
    store::wake_waiting(&world.db, "customers", &["7".into(), "8".into()], true).await.unwrap();
    assert_eq!(world.fold().await, 2);
    assert_eq!(
        world.get::<i64>("select count(*) from sluice.dead_letter where resolution = 'requeued' and resolved_by = 'sluice'").await,
        2
    );
    store::wake_waiting(&world.db, "customers", &["7".into()], true).await.unwrap();
    assert_eq!(world.fold().await, 0, "once");
}
