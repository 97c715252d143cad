//! The runner of migrations, with migrations of its own in databases that have none.

use std::time::Duration;

use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::migrate::{self, Error};
use sluice_core::db::{Db, Settings};
use sluice_tests::{TestDb, wait_until};
use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A database beside the test's own, empty. It is dropped with the server.
async fn empty(test: &TestDb) -> Db {
    let name = format!("empty_{}", uuid::Uuid::new_v4().simple());
    let create = Sql::new("create database ").ident(&Ident::name(&name)).text(" template template0");
    dynamic::query(create).execute(test.db()).await.unwrap();
    let mut url = url::Url::parse(test.url()).unwrap();
    url.set_path(&name);
    Db::connect(Settings::new(url.as_str())).await.unwrap()
}

fn set(migrations: &[(i64, &'static str)]) -> Migrator {
    let made = migrations.iter().map(|(version, sql)| {
        Migration::new(*version, format!("number {version}").into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(made.collect())
}

const ONE: (i64, &str) = (1, "create schema if not exists sluice; create table sluice.one (a int); insert into sluice.one values (1)");
const TWO: (i64, &str) = (2, "create table sluice.two (a int)");

#[tokio::test]
async fn each_migration_is_applied_once_in_order() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    assert_eq!(migrate::run_set(&db, &set(&[ONE])).await.unwrap(), [1]);
    assert_eq!(migrate::run_set(&db, &set(&[TWO, ONE])).await.unwrap(), [2]);
    assert!(migrate::run_set(&db, &set(&[ONE, TWO])).await.unwrap().is_empty());
}

#[tokio::test]
async fn of_many_runners_at_once_each_migration_is_applied_by_one() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    let set = set(&[ONE, TWO]);
    let runs = futures::future::try_join_all((0..8).map(|_| migrate::run_set(&db, &set))).await.unwrap();
    let mut applied: Vec<i64> = runs.into_iter().flatten().collect();
    applied.sort_unstable();
    assert_eq!(applied, [1, 2]);
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing_of_itself() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    let broken = set(&[ONE, (2, "create table sluice.two (a int); select 1/0")]);
    let error = migrate::run_set(&db, &broken).await.unwrap_err();
    assert!(matches!(error, Error::Failed { version: 2, .. }), "{error}");
    assert_eq!(migrate::run_set(&db, &set(&[ONE, TWO])).await.unwrap(), [2]);
}

#[tokio::test]
async fn a_changed_migration_and_a_newer_schema_are_refused() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    migrate::run_set(&db, &set(&[ONE, TWO])).await.unwrap();
    let changed = migrate::run_set(&db, &set(&[ONE, (2, "create table sluice.other ()")])).await.unwrap_err();
    assert!(matches!(changed, Error::Changed { version: 2, .. }), "{changed}");
    let newer = migrate::run_set(&db, &set(&[ONE])).await.unwrap_err();
    assert!(matches!(newer, Error::Newer { found: 2, known: 1 }), "{newer}");
}

#[tokio::test]
async fn a_migration_waits_for_a_table_without_holding_others_up() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    migrate::run_set(&db, &set(&[ONE])).await.unwrap();
    let mut reader = db.begin().await.unwrap();
    sqlx::query("select a from sluice.one").execute(&mut reader).await.unwrap();
    let altered = set(&[ONE, (2, "alter table sluice.one add b int")]);
    let migrating = migrate::run_set(&db, &altered);
    let callers = async {
        let waiting = "select from pg_locks where not granted and relation = 'sluice.one'::regclass";
        wait_until(Duration::from_secs(60), || async { sqlx::query(waiting).fetch_optional(&db).await.unwrap().is_some() }).await;
        // Were the ALTER to keep its place in the queue, this insert behind it would wait for the reader, and so for ever.
        sqlx::query("insert into sluice.one values (1)").execute(&db).await.unwrap();
        reader.commit().await.unwrap();
    };
    let (applied, ()) = tokio::join!(migrating, callers);
    assert_eq!(applied.unwrap(), [2]);
}

#[tokio::test]
async fn this_binary_s_own_migrations_are_all_applied_to_the_template() {
    let test = TestDb::new().await;
    migrate::check(test.db()).await.unwrap();
}

#[tokio::test]
async fn two_migrations_of_one_number_are_refused_before_anything_is_applied() {
    let test = TestDb::new().await;
    let db = empty(&test).await;
    let refused = migrate::run_set(&db, &set(&[ONE, TWO, (2, "create table sluice.other (a int)")])).await;
    assert!(matches!(refused, Err(Error::Duplicate { version: 2, .. })), "{refused:?}");
    let made: bool = sqlx::query_scalar("select to_regnamespace('sluice') is not null").fetch_one(&db).await.unwrap();
    assert!(!made);
}

#[test]
fn the_migrations_of_this_binary_have_numbers_of_their_own() {
    let mut numbers: Vec<i64> = migrate::MIGRATIONS.iter().map(|one| one.version).collect();
    let all = numbers.len();
    numbers.dedup();
    assert_eq!(numbers.len(), all);
}
