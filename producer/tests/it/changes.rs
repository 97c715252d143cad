//! From a committed row change to a job.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::db::{Db, Pooler, Settings, listen};
use sluice_producer::changes::{Drained, Listener};
use sluice_producer::publish;
use sluice_tests::wait_until;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::setting::{CUSTOMERS, ORDERS, Setting, pairs};

#[tokio::test]
async fn every_kind_of_change_becomes_one_job_per_record() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (2, 'b'); update customers set name = 'c' where id = 1; update customers set name = 'd' where id = 1; delete from customers where id = 2").await;
    let drained = setting.drain().await;
    assert_eq!(drained, Drained { taken: 5, deferred: 0, jobs: 2, avoided: 0, held: 0 });
    assert_eq!(setting.jobs().await, pairs(&[("customers", "1"), ("customers", "2")]));
    assert_eq!(setting.count("select count(*) from sluice.change_log").await, 5);
    assert_eq!(setting.drain().await.taken, 0);
}

#[tokio::test]
async fn a_change_committed_late_with_an_older_id_arrives() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (2, 'b')").await;
    setting.drain().await;
    setting.run("delete from sluice.job").await;
    let mut late = setting.db().begin().await.unwrap();
    sqlx::query("update customers set name = 'late' where id = 1").execute(&mut late).await.unwrap();
    setting.run("update customers set name = 'early' where id = 2").await;
    assert_eq!(setting.drain().await.taken, 1);
    late.commit().await.unwrap();
    assert_eq!(setting.drain().await.taken, 1);
    assert_eq!(setting.jobs().await, pairs(&[("customers", "1"), ("customers", "2")]));
}

#[tokio::test]
async fn a_caller_idle_in_its_transaction_delays_nobody() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (2, 'b')").await;
    setting.drain().await;
    let mut idle = setting.db().begin().await.unwrap();
    sqlx::query("update customers set name = 'idle'").execute(&mut idle).await.unwrap();
    sqlx::query("insert into sluice.job (kind, args) values ('push', '{\"sync\": \"customers\", \"key\": 2}')")
        .execute(&mut idle)
        .await
        .unwrap();
    setting.run("insert into customers values (3, 'c')").await;
    // Would wait for ever, were a lock of the idle transaction needed.
    let drained = tokio::time::timeout(Duration::from_secs(60), setting.drain()).await.unwrap();
    assert_eq!((drained.taken, drained.jobs), (1, 1));
    idle.rollback().await.unwrap();
}

#[tokio::test]
async fn a_thousand_updates_that_change_no_mapped_column_make_no_job() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers select n, 'a' from generate_series(1, 1000) n").await;
    setting.drain().await;
    setting.run("delete from sluice.job; update customers set note = 'x'").await;
    let drained = setting.drain().await;
    assert_eq!((drained.taken, drained.jobs, drained.avoided), (1000, 0, 1000));
    assert_eq!(setting.count("select calls from sluice.avoided where sync = 'customers' and reason = 'unchanged'").await, 1000);
}

#[tokio::test]
async fn a_row_that_equals_its_link_makes_no_job_unless_a_run_is_about() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a', 'e@x'), (2, 'b', null), (3, 'c', null)").await;
    setting.drain().await;
    setting.run("delete from sluice.job").await;
    for (key, name, email) in [("1", "a", Some("e@x")), ("2", "b", None), ("3", "c", None)] {
        setting.link(key, name, email).await;
    }
    setting
        .run("insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select 'customers', '2', id, 'push', 2, now() from sluice.shape where kind = 'push'")
        .await;
    setting.run("update customers set name = name || '!'; update customers set name = rtrim(name, '!') where id < 3").await;
    let drained = setting.drain().await;
    assert_eq!(drained.avoided, 2, "the echo of 1: both of its changes");
    assert_eq!(setting.jobs().await, pairs(&[("customers", "2"), ("customers", "3")]));
}

#[tokio::test]
async fn a_watched_table_concerns_the_record_before_and_the_record_after() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into addresses values (7, 41, 's'); update addresses set customer_id = 42").await;
    setting.drain().await;
    assert_eq!(setting.jobs().await, pairs(&[("customers", "41"), ("customers", "42")]));
    setting.run("delete from sluice.job; update addresses set street = 't'; insert into addresses values (8, null, 's')").await;
    setting.drain().await;
    assert_eq!(setting.jobs().await, pairs(&[("customers", "42")]));
}

#[tokio::test]
async fn a_watch_whose_expression_fails_holds_its_change_and_aborts_nothing() {
    let setting = Setting::of(&CUSTOMERS.replace("this.customer_id", "100 / (this.customer_id - 41)")).await;
    setting.run("insert into addresses values (7, 41, 's'); insert into addresses values (8, 42, 's')").await;
    let drained = setting.drain().await;
    assert_eq!((drained.jobs, drained.held), (1, 1));
    assert_eq!(setting.jobs().await, pairs(&[("customers", "100")]));
    let reason: String =
        sqlx::query_scalar("select reason from sluice.held_change where sync = 'customers' and sample @> '[{\"customer_id\": 41}]'")
            .fetch_one(setting.db())
            .await
            .unwrap();
    assert!(reason.contains("division by zero"), "{reason}");
}

#[tokio::test]
async fn a_partitioned_table_is_captured_by_either_name() {
    let setting = Setting::of(ORDERS).await;
    setting.run("insert into orders values (1, '2024-05-01', 10); insert into orders_new values (2, '2026-05-01', 20)").await;
    assert_eq!(setting.drain().await.taken, 2);
    assert_eq!(setting.jobs().await, pairs(&[("orders", r#"["1", "2024-05-01"]"#), ("orders", r#"["2", "2026-05-01"]"#)]));
    // A row that moves to another partition is one update.
    setting.run("delete from sluice.job; update orders set placed = '2026-01-01' where id = 1").await;
    assert_eq!(setting.drain().await.taken, 1);
}

#[tokio::test]
async fn a_truncate_is_held_once_and_says_how_many_records() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.link("1", "a", None).await;
    setting.link("2", "b", None).await;
    setting.run("truncate customers").await;
    setting.run("truncate customers").await;
    let drained = setting.drain().await;
    assert_eq!((drained.taken, drained.jobs), (2, 0));
    let held: Vec<(String, i64)> =
        sqlx::query_as("select operation, records from sluice.held_change").fetch_all(setting.db()).await.unwrap();
    assert_eq!(held, [("truncate".to_owned(), 2)]);
}

#[tokio::test]
async fn a_changed_key_takes_its_link_along_unless_a_run_is_under_way() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (5, 'b')").await;
    setting.drain().await;
    setting.link("1", "a", None).await;
    setting.link("5", "b", None).await;
    setting.run("delete from sluice.job").await;
    setting
        .run("insert into sluice.slot (sync, key, shape_id, kind, lane, due_at, state, batch) select 'customers', '5', id, 'push', 2, now(), 'running', 9 from sluice.shape where kind = 'push'")
        .await;
    setting.run("update customers set id = id + 1").await;
    let drained = setting.drain().await;
    assert_eq!((drained.taken, drained.deferred), (2, 1));
    let keys = || async {
        sqlx::query_as::<_, (String, String)>("select key, zoho_id from sluice.link order by key").fetch_all(setting.db()).await.unwrap()
    };
    assert_eq!(keys().await, pairs(&[("2", "z1"), ("5", "z5")]));
    assert!(!setting.drain().await.progressed(), "it waits for the run");
    setting.run("delete from sluice.slot").await;
    assert_eq!(setting.drain().await.deferred, 0);
    assert_eq!(keys().await, pairs(&[("2", "z1"), ("6", "z5")]));
}

/// A listener that was killed asleep would make every commit notify, and commits that notify wait for one another.
#[tokio::test]
async fn a_commit_notifies_only_while_somebody_sleeps() {
    let setting = Setting::of(CUSTOMERS).await;
    let mut listener = sqlx::postgres::PgListener::connect(setting.test.url()).await.unwrap();
    listener.listen("sluice_change").await.unwrap();
    for (until, notified) in [("now() + interval '20 s'", true), ("now() - interval '1 s'", false)] {
        setting.run(&format!("select setval('sluice.change_sleeper', extract(epoch from {until})::bigint)")).await;
        setting.run("insert into customers values (1, 'a')").await;
        setting.run("update customers set name = 'b'").await;
        setting.run("update customers set id = 2").await;
        setting.run("delete from customers").await;
        setting.run("notify sluice_change, 'the end'").await;
        let mut heard = 0;
        while listener.recv().await.unwrap().payload() != "the end" {
            heard += 1;
        }
        assert_eq!(heard, if notified { 4 } else { 0 }, "{until}");
    }
}

/// Rows lie in the table where there was room for them.
#[tokio::test]
async fn earlier_changes_of_a_key_come_along_with_later_ones_wherever_they_lie() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a')").await;
    setting.drain().await;
    setting.link("1", "a", None).await;
    setting.run("update customers set id = 2; update customers set id = 3; update customers set name = 'b'").await;
    setting.run("with taken as (delete from sluice.change where after ->> 'id' = '2' returning *) insert into sluice.change select * from taken").await;
    let (names, hashes): (Vec<String>, Vec<String>) = setting.definitions.hashes().into_iter().unzip();
    let taken: Vec<String> = sqlx::query_scalar(
        "select c.after ->> 'id' from sluice.take_changes($1, $2, 1) p, unnest(p.after, p.moves) as c (after, move) order by c.move",
    )
    .bind(&names)
    .bind(&hashes)
    .fetch_all(setting.db())
    .await
    .unwrap();
    assert_eq!(taken, ["2", "3"]);
}

#[tokio::test]
async fn a_replica_leaves_alone_what_its_file_does_not_agree_on() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    let newer = crate::setting::config(&format!("{}{ORDERS}", CUSTOMERS.replace("email = \"email\"", "email = \"note\"")));
    publish::publish(setting.db(), &newer, &publish::Options::default()).await.unwrap();
    setting.run("insert into customers values (1, 'a'); insert into addresses values (1, 1, 's'); insert into orders values (1, '2024-05-01', 10)").await;
    assert_eq!(setting.drain().await.taken, 1);
    assert_eq!(setting.jobs().await, pairs(&[("orders", r#"["1", "2024-05-01"]"#)]));
    assert_eq!(setting.count("select count(*) from sluice.change").await, 2);
}

#[tokio::test]
async fn a_sleeping_listener_is_woken_by_a_commit() {
    let setting = Setting::of(CUSTOMERS).await;
    let (shutdown, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
    let notified = listen::Listener::spawn(setting.db().settings(), &["sluice_change"], Arc::clone(&wake), shutdown.clone());
    let (_keep, definitions) = watch::channel(Arc::new(setting.definitions.clone()));
    let listener = Listener { db: setting.db().clone(), reader: setting.reader.clone(), definitions, wake };
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { listener.run(shutdown).await }
    });
    wait_until(Duration::from_secs(60), || async { notified.state() == listen::State::Listening }).await;
    let mut waits = Vec::new();
    for id in 0..5_i64 {
        wait_until(Duration::from_secs(60), || async { setting.count("select sluice.has_sleeper('change')::int::bigint").await == 1 })
            .await;
        let started = Instant::now();
        sqlx::query("insert into customers values ($1, 'a')").bind(id).execute(setting.db()).await.unwrap();
        wait_until(Duration::from_secs(60), || async { setting.count("select count(*) from sluice.job").await == id + 1 }).await;
        waits.push(started.elapsed());
    }
    shutdown.cancel();
    running.await.unwrap();
    waits.sort();
    println!("commit to job, asleep: {waits:?}");
    assert!(waits[2] < Duration::from_millis(900), "the poll found it, not the notification: {waits:?}");
}

/// Behind a transaction pooler, without a direct address: every commit would pay for a notification to nobody, and none could be prepared.
#[tokio::test]
async fn a_listener_that_only_polls_asks_for_no_notification() {
    let setting = Setting::of(CUSTOMERS).await;
    setting
        .run(
            "create table said (asleep boolean);
             create or replace function sluice.set_asleep(p_channel text, p_asleep boolean) returns void language sql as 'insert into public.said values (p_asleep)'",
        )
        .await;
    for (pooler, says) in [(Pooler::Transaction, false), (Pooler::None, true)] {
        let db = Db::connect(Settings { pooler, ..setting.db().settings().clone() }).await.unwrap();
        let (shutdown, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
        let (_keep, definitions) = watch::channel(Arc::new(setting.definitions.clone()));
        let listener = Listener { db: db.clone(), reader: setting.reader.clone(), definitions, wake };
        let running = tokio::spawn({
            let shutdown = shutdown.clone();
            async move { listener.run(shutdown).await }
        });
        setting.run(&format!("insert into customers values ({}, 'a')", i32::from(says))).await;
        wait_until(Duration::from_secs(60), || async { setting.count("select count(*) from sluice.change").await == 0 }).await;
        shutdown.cancel();
        running.await.unwrap();
        db.close().await;
        // the first thing that a listener does is to say that he is awake
        assert_eq!(setting.count("select count(*) from said").await > 0, says, "{pooler:?}");
    }
}

/// A second producer would take the later step of a chain for the first.
#[tokio::test]
async fn changed_keys_are_taken_by_one_drain_at_a_time_and_the_rest_by_any() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (9, 'z')").await;
    setting.drain().await;
    setting.run("update customers set id = 2 where id = 1").await;
    let (names, hashes): (Vec<String>, Vec<String>) = setting.definitions.hashes().into_iter().unzip();
    let take = "select coalesce(sum(cardinality(captured_at)), 0)::bigint from sluice.take_changes($1, $2, 9)";
    let mut first = setting.db().begin().await.unwrap();
    let taken: i64 = sqlx::query_scalar(take).bind(&names).bind(&hashes).fetch_one(&mut first).await.unwrap();
    assert_eq!(taken, 1);
    setting.run("update customers set id = 3 where id = 2; update customers set name = 'y' where id = 9").await;
    let mut second = setting.db().begin().await.unwrap();
    let taken: i64 = sqlx::query_scalar(take).bind(&names).bind(&hashes).fetch_one(&mut second).await.unwrap();
    assert_eq!(taken, 1, "the row that kept its key");
    second.commit().await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.change where move is not null").await, 1);
}
