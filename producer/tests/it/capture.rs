//! Attach and detach.

use std::time::Duration;

use sluice_core::db::dynamic;
use sluice_producer::capture::{self, Error};
use sluice_producer::definitions::Definitions;

use crate::setting::{CUSTOMERS, ORDERS, Setting, config};

const SOON: Duration = Duration::from_millis(300);

#[tokio::test]
async fn attaching_twice_changes_nothing_and_a_new_watch_only_its_table() {
    let setting = Setting::of(CUSTOMERS).await;
    let again = capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert_eq!((again.installed.len(), again.removed.len()), (0, 0));
    let wider = config(&CUSTOMERS.replace("this.customer_id", "coalesce(this.customer_id, this.id)"));
    let wider = Definitions::compile(setting.db(), &wider).await.unwrap();
    assert_eq!(capture::uncaptured(setting.db(), &wider).await.unwrap().len(), 1);
    let changed = capture::attach(setting.db(), &wider, &[], SOON).await.unwrap();
    assert_eq!(changed.installed, ["public.addresses"]);
}

#[tokio::test]
async fn what_no_sync_needs_any_more_loses_its_triggers() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    let fewer = Definitions::compile(setting.db(), &config(ORDERS)).await.unwrap();
    let changed = capture::attach(setting.db(), &fewer, &[], SOON).await.unwrap();
    assert_eq!(changed.removed, ["public.addresses", "public.customers"]);
    let detached = capture::detach(setting.db(), &fewer, &[], SOON).await.unwrap();
    assert_eq!(detached.removed, ["public.orders", "public.orders_new", "public.orders_old"]);
    assert_eq!(setting.count("select count(*) from pg_trigger where tgname like 'sluice%'").await, 0);
}

#[tokio::test]
async fn a_new_partition_and_a_disabled_trigger_are_reported() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    assert!(capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().is_empty());
    setting.run("create table orders_2035 partition of orders for values from ('2035-01-01') to ('2036-01-01'); alter table customers disable trigger all").await;
    let found: Vec<String> =
        capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().into_iter().map(|one| one.table).collect();
    assert_eq!(found, ["public.customers", "public.orders_2035"]);
    capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert!(capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().is_empty());
}

#[tokio::test]
async fn attach_says_who_holds_the_lock_that_it_cannot_get() {
    let setting = Setting::of(CUSTOMERS).await;
    capture::detach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    let mut holder = setting.db().begin().await.unwrap();
    sqlx::query("insert into customers values (1, 'mine')").execute(&mut holder).await.unwrap();
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut holder).await.unwrap();
    match capture::attach(setting.db(), &setting.definitions, &[], SOON).await {
        Err(Error::Locked { table, holders }) => {
            assert_eq!(table, "public.customers");
            assert!(
                holders.len() == 1 && holders[0].contains(&pid.to_string()) && holders[0].contains("idle in transaction"),
                "{holders:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    holder.rollback().await.unwrap();
    assert_eq!(capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap().installed, ["public.customers"]);
}

#[tokio::test]
async fn a_bulk_update_after_single_ones_in_the_same_session_stays_fast() {
    let setting = Setting::of(CUSTOMERS).await;
    let mut tx = setting.db().begin().await.unwrap();
    sqlx::query("insert into customers select n, 'a' from generate_series(1, 20000) n").execute(&mut tx).await.unwrap();
    for id in 1..20_i64 {
        sqlx::query("update customers set name = 'b' where id = $1").bind(id).execute(&mut tx).await.unwrap();
    }
    // With a nested loop over both images this takes minutes.
    sqlx::query("set local statement_timeout = '20s'").execute(&mut tx).await.unwrap();
    sqlx::query("update customers set id = id + 100000, name = 'c'").execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    let paired =
        "select count(*) from sluice.change where operation = 'update' and (after ->> 'id')::bigint = (before ->> 'id')::bigint + 100000";
    assert_eq!(setting.count(paired).await, 20000);
}

#[tokio::test]
async fn a_dropped_column_never_aborts_the_business_statement() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("alter table addresses rename column customer_id to buyer").await;
    dynamic::script("insert into addresses (id, buyer) values (1, 2)".to_owned()).execute(setting.db()).await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.change").await, 1);
}
