//! Everything again through pgbouncer in transaction mode, with fewer server connections than clients, so that each transaction
//! meets another one.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use secrecy::SecretString;
use sluice_core::db::{Db, Pooler, Settings, migrate};
use sluice_tests::{Bouncer, TestDb};
use sqlx::Row;
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

fn settings(bouncer: &Bouncer) -> Settings {
    Settings { pooler: Pooler::Transaction, max_connections: 6, ..Settings::new(&bouncer.url) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn statements_and_transactions_of_many_tasks_work_behind_a_transaction_pooler() {
    let test = TestDb::new().await;
    let Some(bouncer) = Bouncer::start(test.url()).await else {
        return;
    };
    let db = Db::connect(settings(&bouncer)).await.unwrap();
    sqlx::raw_sql("create type mood as enum ('calm', 'busy'); create table t (id bigint primary key, at timestamptz, j jsonb, m mood)")
        .execute(&db)
        .await
        .unwrap();
    let tasks = (0..12).map(|task: i64| {
        let db = db.clone();
        tokio::spawn(async move {
            for turn in 0..40 {
                hammer(&db, task * 1000 + turn).await.unwrap_or_else(|error| panic!("task {task}, turn {turn}: {error}"));
            }
        })
    });
    futures::future::try_join_all(tasks).await.unwrap();
    let count: i64 = sqlx::query_scalar("select count(*) from t").fetch_one(&db).await.unwrap();
    assert_eq!(count, 12 * 40 * 2);
}

/// Every shape of access: typed parameters and results, user-defined types, streams, transactions, failures.
async fn hammer(db: &Db, id: i64) -> Result<(), sqlx::Error> {
    let now: DateTime<Utc> = DateTime::from_timestamp(1_700_000_000 + id, 0).unwrap();
    let json = serde_json::json!({ "id": id });
    sqlx::query("insert into t values ($1, $2, $3, 'busy')").bind(id).bind(now).bind(&json).execute(db).await?;
    let row = sqlx::query("select id, at, j, m, m::text as word from t where id = any($1)").bind(vec![id]).fetch_one(db).await?;
    assert_eq!((row.get::<i64, _>(0), row.get::<DateTime<Utc>, _>(1), row.get::<serde_json::Value, _>(2)), (id, now, json));
    // A type that no connection could know when it was opened.
    let mood: String = sqlx::query("select 'calm'::mood").fetch_one(db).await?.try_get_unchecked(0)?;
    assert_eq!(mood, "calm");
    let numbers: Vec<i32> = sqlx::query_scalar::<_, i32>("select generate_series(1, $1)").bind(50).fetch(db).try_collect().await?;
    assert_eq!(numbers.len(), 50);
    let failed = sqlx::query("insert into t values ($1)").bind(id).execute(db).await;
    assert!(failed.is_err(), "the key is taken");

    let mut tx = db.begin().await?;
    let twin = -id - 1;
    sqlx::query("insert into t values ($1, $2)").bind(twin).bind(now).execute(&mut tx).await?;
    let seen: i64 = sqlx::query_scalar("select id from t where id = $1").bind(twin).fetch_one(&mut tx).await?;
    assert_eq!(seen, twin);
    tx.commit().await?;

    let mut tx = db.begin_read_only(None, Duration::from_secs(5)).await?;
    let limit: String = sqlx::query_scalar("select current_setting('statement_timeout')").fetch_one(&mut tx).await?;
    assert_eq!(limit, "5s");
    drop(tx);
    let limit: String = sqlx::query_scalar("select current_setting('statement_timeout')").fetch_one(db).await?;
    assert_eq!(limit, "0", "a setting left its transaction");
    Ok(())
}

#[tokio::test]
async fn a_transaction_behind_the_pooler_knows_the_database_s_own_types() {
    let test = TestDb::new().await;
    let Some(bouncer) = Bouncer::start(test.url()).await else {
        return;
    };
    sqlx::raw_sql("create type mood as enum ('calm'); create domain big as bigint check (value > 9); create type pair as (a int, b mood)")
        .execute(test.db())
        .await
        .unwrap();
    let db = Db::connect(settings(&bouncer)).await.unwrap();
    // More connections than the pooler has, at the same time: none may meet a name that another left.
    let open = (0..6).map(|_| async {
        let mut tx = db.begin().await.unwrap();
        let all = "select 'calm'::mood, array['calm'::mood], 10::big, row(1, 'calm')::pair, array[row(1, 'calm')::pair]";
        sqlx::query(all).fetch_one(&mut tx).await.unwrap();
        let name = "select name from pg_prepared_statements";
        let left: Option<String> = sqlx::query_scalar(name).fetch_optional(&mut tx).await.unwrap();
        assert!(left.unwrap_or_default().is_empty(), "a named statement stayed behind");
        tx.commit().await.unwrap();
    });
    futures::future::join_all(open).await;
}

#[tokio::test]
async fn migrations_run_through_the_pooler_and_beside_it() {
    let test = TestDb::new().await;
    let Some(bouncer) = Bouncer::start(test.url()).await else {
        return;
    };
    // The template has the binary's own migrations; these stand for a fresh database.
    sqlx::raw_sql("drop schema if exists sluice cascade").execute(test.db()).await.unwrap();
    let sql = "create schema if not exists sluice; create table sluice.probe (a int)".into_sql_str();
    let set = Migrator::with_migrations(vec![Migration::new(1, "probe".into(), MigrationType::Simple, sql, false)]);
    let through = Db::connect(settings(&bouncer)).await.unwrap();
    let beside = Settings { listen_url: Some(SecretString::from(test.url())), ..settings(&bouncer) };
    let beside = Db::connect(beside).await.unwrap();
    let (one, two, three) =
        tokio::join!(migrate::run_set(&through, &set), migrate::run_set(&through, &set), migrate::run_set(&beside, &set));
    assert_eq!([one.unwrap(), two.unwrap(), three.unwrap()].concat(), [1]);
}
