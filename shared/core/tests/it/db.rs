//! The handle, its transactions, and SQL that is put together at run time.

use std::time::Duration;

use sluice_core::db::dynamic::{self, Expression, Ident, Sql};
use sluice_core::db::{Db, Settings};
use sluice_tests::TestDb;

fn code(error: sqlx::Error) -> String {
    error.as_database_error().unwrap().code().unwrap().into_owned()
}

#[tokio::test]
async fn each_test_database_is_new_and_is_dropped_afterwards() {
    let first = TestDb::new().await;
    sqlx::raw_sql("create table mine (a int)").execute(first.db()).await.unwrap();
    let second = TestDb::new().await;
    let there: Option<String> = sqlx::query_scalar("select to_regclass('mine')::text").fetch_one(second.db()).await.unwrap();
    assert_eq!(there, None);
    let name = url::Url::parse(first.url()).unwrap().path()[1..].to_owned();
    drop(first);
    let left = sqlx::query("select from pg_database where datname = $1").bind(name).fetch_optional(second.db()).await;
    assert!(left.unwrap().is_none());
}

#[tokio::test]
async fn a_database_that_cannot_be_reached_is_reported_with_the_reason() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Db::connect(Settings::new(format!("postgres://nobody@{free}/none"))).await.unwrap_err();
    assert!(matches!(&error, sqlx::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused), "{error}");
}

#[tokio::test]
async fn a_dropped_transaction_leaves_no_trace() {
    let test = TestDb::new().await;
    sqlx::raw_sql("create table t (a int)").execute(test.db()).await.unwrap();
    let mut tx = test.db().begin().await.unwrap();
    sqlx::query("insert into t values (1)").execute(&mut tx).await.unwrap();
    drop(tx);
    let mut tx = test.db().begin().await.unwrap();
    sqlx::query("insert into t values (2)").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let all: Vec<i32> = sqlx::query_scalar("select a from t").fetch_all(test.db()).await.unwrap();
    assert_eq!(all, [2]);
}

#[tokio::test]
async fn an_expression_can_neither_write_nor_run_for_ever_nor_use_our_rights() {
    let test = TestDb::new().await;
    let role = Ident::name(&format!("reader {}", uuid::Uuid::new_v4()));
    let name = role.as_str().trim_matches('"').to_owned();
    dynamic::query(Sql::new("create role ").ident(&role)).execute(test.db()).await.unwrap();
    sqlx::raw_sql("create table secret (a int)").execute(test.db()).await.unwrap();

    let limit = Duration::from_millis(200);
    let mut tx = test.db().begin_read_only(None, limit).await.unwrap();
    let written = sqlx::query("insert into secret values (1)").execute(&mut tx).await;
    assert_eq!(code(written.unwrap_err()), "25006");
    let mut tx = test.db().begin_read_only(None, limit).await.unwrap();
    let endless = sqlx::query("select pg_sleep(60)").execute(&mut tx).await;
    assert_eq!(code(endless.unwrap_err()), "57014");
    let mut tx = test.db().begin_read_only(Some(&name), limit).await.unwrap();
    let peeked = sqlx::query("select a from secret").execute(&mut tx).await;
    assert_eq!(code(peeked.unwrap_err()), "42501");
    drop(tx);

    // None of it stays behind on the pool's connections.
    for _ in 0..4 {
        let mut tx = test.db().begin().await.unwrap();
        let (timeout, user, read_only): (String, String, String) =
            sqlx::query_as("select current_setting('statement_timeout'), current_user::text, current_setting('transaction_read_only')")
                .fetch_one(&mut tx)
                .await
                .unwrap();
        assert_eq!((timeout.as_str(), read_only.as_str()), ("0", "off"));
        assert_ne!(user, name);
    }
    dynamic::query(Sql::new("drop role ").ident(&role)).execute(test.db()).await.unwrap();
}

#[tokio::test]
async fn hostile_names_and_strings_stay_names_and_strings() {
    let test = TestDb::new().await;
    let hostile = [r#"a"b"#, "a'b", "a;b", r"a\b", "Größe", "select", "a.b", "a b", "$1", "/*"];
    for name in hostile {
        let table = Ident::qualified("public", name);
        let column = Ident::name(name);
        let create = Sql::new("create table ").ident(&table).text(" (").ident(&column).text(" text default ").literal(name).text(")");
        dynamic::query(create).execute(test.db()).await.unwrap();
        let insert = Sql::new("insert into ").ident(&table).text(" default values");
        dynamic::query(insert).execute(test.db()).await.unwrap();
        let select =
            Sql::new("select ").ident(&column).text(" from ").ident(&table).text(" where ").ident(&column).text(" = ").placeholder();
        let read: String = dynamic::query_scalar(select).bind(name).fetch_one(test.db()).await.unwrap();
        assert_eq!(read, name);
    }
}

#[tokio::test]
async fn a_second_statement_after_an_expression_is_refused() {
    let test = TestDb::new().await;
    let breaking = Expression::from_configuration("true); drop table t; select (true");
    let outcome = dynamic::query(Sql::new("select 1 where ").expression(&breaking)).execute(test.db()).await;
    assert_eq!(code(outcome.unwrap_err()), "42601");
}
