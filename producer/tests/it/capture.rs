//! Attach and detach.

use std::time::Duration;

use sluice_core::db::dynamic;
use sluice_producer::capture::{self, Error};
use sluice_producer::changes::drain_once;
use sluice_producer::definitions::Definitions;
use sluice_producer::{publish, upkeep};

use serde_json::{Value, json};
use sluice_tests::TestDb;

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

/// Rows of such a table are rows of its parent's to every query, but only its own triggers fire for statements that name it.
#[tokio::test]
async fn changes_of_a_table_that_inherits_from_a_synced_one_are_captured_by_either_name() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("create table vips (since date, primary key (id)) inherits (customers); create table gold () inherits (vips)").await;
    let found: Vec<String> =
        capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().into_iter().map(|one| one.table).collect();
    assert_eq!(found, ["public.customers", "public.gold", "public.vips"], "the parent's own function would see half of an update");
    capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert!(capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().is_empty());
    for sql in [
        "insert into vips (id, name) values (7, 'a')",
        "update vips set name = 'b'",
        "update customers set name = 'c' where id = 7",
        "insert into gold (id, name) values (8, 'a')",
        "delete from gold where id = 8",
    ] {
        setting.run("delete from sluice.job; delete from sluice.slot").await;
        setting.run(sql).await;
        assert_eq!(setting.drain().await.jobs, 1, "{sql}");
    }
    setting.run("delete from sluice.job").await;
    setting.run("update vips set since = now()").await;
    assert_eq!(setting.drain().await.jobs, 0, "no mapped column");
    // A table that is synced by its own name has only its own triggers.
    let both = config(&format!(
        "{CUSTOMERS}{}",
        CUSTOMERS.split("[[").next().unwrap().replace("customers", "vips").replace("billing/vips", "billing/customers")
    ));
    let both = Definitions::compile(setting.db(), &both).await.unwrap();
    let told = capture::attach(setting.db(), &both, &[], SOON).await.unwrap().uncaptured;
    assert!(told.iter().any(|one| one.table == "public.vips" && one.why.contains("part of public.customers")), "{told:?}");
}

#[tokio::test]
async fn a_table_that_was_dropped_and_made_anew_is_told_of_once() {
    let setting = Setting::of(CUSTOMERS).await;
    let told = async || upkeep::tell_lost(setting.db(), &setting.definitions).await.unwrap();
    assert!(told().await.is_empty());
    // Triggers of a definition that is not this replica's are another's to judge.
    setting.run("alter table customers disable trigger all; update sluice.sync set hash = 'other' || hash").await;
    assert!(told().await.is_empty());
    setting.run("alter table customers enable trigger all; update sluice.sync set hash = substr(hash, 6)").await;
    setting.run("drop table customers; create table customers (id bigint primary key, name text, email text, note text)").await;
    for _ in 0..2 {
        let lost = told().await;
        assert!(lost.len() == 1 && lost.first().unwrap().starts_with("public.customers: it has no capture triggers"), "{lost:?}");
    }
    assert_eq!(setting.count("select count(*) from sluice.alert where occasion = 'uncaptured' and subject = 'public.customers'").await, 1);
    capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert!(told().await.is_empty());
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

const KINDS: &str = r#"
    create type mood as enum ('calm', 'cross');
    create domain short as varchar(20);
    create collation careless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    create table customers (
      id bigint primary key, name text, email text, j json, jb jsonb, p point, x xml, a text[], n numeric, m mood, d short, c text collate careless,
      f double precision, iv interval, b bytea, ch char(4), tz timetz, "odd ""name" text, unset text);
    create table addresses (id bigint primary key, customer_id bigint);
    insert into customers values (1, 'a', null, '{"a":1}', '{"a":1}', '(1,2)', '<a/>', '{a,b}', 1.5, 'calm', 'd', 'Same', 0.1, '1 day', '\x01', 'ab', '10:00+00', 'o', null);
"#;

/// Whatever the type and its idea of equality: what differs as text is a change.
#[tokio::test]
async fn every_kind_of_column_is_compared_as_exactly_as_its_text() {
    let test = TestDb::new().await;
    let run = async |sql: String| assert!(dynamic::script(sql).execute(test.db()).await.is_ok());
    run(KINDS.to_owned()).await;
    let definitions = Definitions::compile(test.db(), &config(CUSTOMERS)).await.unwrap();
    capture::attach(test.db(), &definitions, &[], SOON).await.unwrap();
    for (set, column) in [
        ("name = 'b'", "name"),
        (r#"j = '{"a": 1}'"#, "j"),
        (r#"jb = '{"a":2}'"#, "jb"),
        ("p = '(1,3)'", "p"),
        ("x = '<b/>'", "x"),
        ("a = '{a,NULL}'", "a"),
        ("n = 1.25", "n"),
        ("m = 'cross'", "m"),
        ("d = 'D'", "d"),
        ("c = 'SAME'", "c"),
        ("f = 0.2", "f"),
        ("iv = '24:00:00'", "iv"),
        ("b = '\\x02'", "b"),
        ("ch = 'abc'", "ch"),
        ("tz = '11:00+01'", "tz"),
        (r#""odd ""name" = 'p'"#, r#"odd "name"#),
        ("unset = ''", "unset"),
        ("f = 'NaN'", "f"),
        ("id = 2", "id"),
    ] {
        run(format!("delete from sluice.change; update customers set {set}")).await;
        let changed =
            sqlx::query_scalar::<_, Vec<String>>("select sluice.changed_columns(changed, relid, touched, layout) from sluice.change")
                .fetch_all(test.db())
                .await
                .unwrap();
        assert_eq!(changed, [[column]], "{set}");
    }
    run("delete from sluice.change; update customers set f = 'NaN', name = name, n = 1.250, unset = ''".to_owned()).await;
    let changes: i64 = sqlx::query_scalar("select count(*) from sluice.change").fetch_one(test.db()).await.unwrap();
    assert_eq!(changes, 0, "nothing changed");
}

const TWO_KEYS: &str = r#"
    [syncs.lines]
    connection = "main"
    table = "public.lines"
    key = ["document", "line"]
    module = "billing/customers"
    fields = { display_name = "document", email = "line" }
"#;

/// The short form of an update names its row and its columns by number; whoever takes it sees what the long form would have said.
#[tokio::test]
async fn an_update_is_told_whole_whatever_its_key_and_however_many_columns() {
    let test = TestDb::new().await;
    let run = async |sql: String| dynamic::script(sql).execute(test.db()).await.unwrap();
    run("create table customers (id uuid primary key, name text, email text); create table addresses (id int, customer_id uuid);
         insert into customers values ('6f9619ff-8b86-d011-b42d-00cf4fc964ff')"
        .to_owned())
    .await;
    for columns in [3, 70] {
        let more: String = (3..=columns).map(|number| format!(", c{number} int")).collect();
        run(format!(
            "drop table if exists lines; create table lines (document date, line int{more}, primary key (document, line));
             insert into lines values ('2026-01-02', 1)"
        ))
        .await;
        let config = config(&format!("{CUSTOMERS}{TWO_KEYS}"));
        publish::publish(test.db(), &config, &publish::Options::default()).await.unwrap();
        let definitions = Definitions::compile(test.db(), &config).await.unwrap();
        capture::attach(test.db(), &definitions, &[], SOON).await.unwrap();
        let (names, hashes): (Vec<String>, Vec<String>) = definitions.hashes().into_iter().unzip();
        let last = format!("c{columns}");
        for (update, expected) in [
            (format!("update lines set {last} = 5"), json!([null, {"document": "2026-01-02", "line": 1}, [last]])),
            (
                "update lines set document = '2026-01-03'".to_owned(),
                json!([{"document": "2026-01-02", "line": 1}, {"document": "2026-01-03", "line": 1}, ["document"]]),
            ),
            (
                "update lines set document = '2026-01-02', c3 = 7".to_owned(),
                json!([{"document": "2026-01-03", "line": 1}, {"document": "2026-01-02", "line": 1}, ["c3", "document"]]),
            ),
            (
                format!("update customers set name = 'n{columns}', email = 'e{columns}'"),
                json!([null, {"id": "6f9619ff-8b86-d011-b42d-00cf4fc964ff"}, ["email", "name"]]),
            ),
        ] {
            run(update.clone()).await;
            let seen: Value = sqlx::query_scalar(
                "select jsonb_build_array(case when c.before <> c.after then c.before end, coalesce(c.after, jsonb_build_object(p.kept, c.key)), (
                     select array_agg(n order by n)
                     from unnest(sluice.changed_columns(array(select jsonb_array_elements_text(c.changed)), p.relid, c.touched, p.layout)) n))
                 from sluice.take_changes($1, $2, 9) p, unnest(p.keys, p.before, p.after, p.changed, p.touched) as c (key, before, after, changed, touched)",
            )
                .bind(&names)
                .bind(&hashes)
                .fetch_one(test.db())
                .await
                .unwrap();
            assert_eq!(seen, expected, "{update}");
        }
    }
}

/// In one session that has run the trigger before, since sessions keep plans.
#[tokio::test]
async fn columns_dropped_renamed_retyped_or_added_since_attach_are_captured_all_the_same() {
    let setting = Setting::of(CUSTOMERS).await;
    let mut tx = setting.db().begin().await.unwrap();
    // None: not an update that is captured
    for (statement, changed) in [
        ("insert into customers (id, name) values (1, 'a')", None),
        ("update customers set name = 'b'", Some(vec!["name"])),
        ("alter table customers add column phone text", None),
        ("update customers set name = 'c', phone = '1'", Some(vec!["name", "phone"])),
        ("update customers set phone = '2'", Some(vec!["phone"])),
        ("alter table customers alter column name type jsonb using to_jsonb(name)", None),
        ("update customers set name = '7'", Some(vec!["name"])),
        ("alter table customers rename column name to title", None),
        ("update customers set title = '8'", Some(vec!["title"])),
        ("alter table customers drop column title", None),
        ("update customers set phone = '3'", Some(vec!["phone"])),
        ("update customers set phone = '3'", None),
    ] {
        sqlx::query("delete from sluice.change").execute(&mut tx).await.unwrap();
        dynamic::script(statement.to_owned()).execute(&mut tx).await.unwrap();
        let seen: Vec<Vec<String>> = sqlx::query_scalar(
            "select coalesce(sluice.changed_columns(changed, relid, touched, layout), '{}') from sluice.change where operation = 'update'",
        )
        .fetch_all(&mut tx)
        .await
        .unwrap();
        assert_eq!(seen, changed.map(|columns| vec![columns]).unwrap_or_default(), "{statement}");
    }
    tx.commit().await.unwrap();
    let found = capture::uncaptured(setting.db(), &setting.definitions).await.unwrap();
    assert!(found.len() == 1 && found[0].why.contains("sluice attach"), "{found:?}");
    capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert!(capture::uncaptured(setting.db(), &setting.definitions).await.unwrap().is_empty());
}

/// Such a transaction sees the catalogue as it was, and the table as it is.
#[tokio::test]
async fn a_column_renamed_under_a_transaction_with_an_older_snapshot_is_captured() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers (id, name) values (1, 'a')").await;
    let mut old = setting.db().begin().await.unwrap();
    dynamic::script("set transaction isolation level repeatable read; update customers set note = 'n'".to_owned())
        .execute(&mut old)
        .await
        .unwrap();
    old.rollback().await.unwrap();
    let mut old = setting.db().begin().await.unwrap();
    dynamic::script("set transaction isolation level repeatable read; select count(*) from pg_class".to_owned())
        .execute(&mut old)
        .await
        .unwrap();
    setting.run("alter table customers rename column name to title").await;
    dynamic::script("update customers set title = 'b'".to_owned()).execute(&mut old).await.unwrap();
    old.commit().await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.change where operation = 'update' and changed = '{title}'").await, 1);
}

#[tokio::test]
async fn a_capture_function_goes_with_its_table() {
    let setting = Setting::of(CUSTOMERS).await;
    let functions = "select count(*) from pg_proc where proname like 'capture\\_update\\_%'";
    assert_eq!(setting.count(functions).await, 2);
    setting.run("drop table addresses").await;
    capture::detach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    assert_eq!(setting.count(functions).await, 0);
}

/// Capture runs with its owner's rights under the search_path of whoever writes: what he has put there is not called.
#[tokio::test]
async fn a_writers_own_operators_and_functions_are_never_called_by_capture() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers (id, name) values (1, 'a')").await;
    let traps: String = ["bigint", "integer", "smallint", "text", "double precision"]
        .into_iter()
        .flat_map(|kind| ["=", "<>", "<", "<=", ">", "|", "&"].map(|operator| (kind, operator)))
        .map(|(kind, operator)| format!("create operator trap.{operator} (leftarg = {kind}, rightarg = {kind}, function = trap.sprung);"))
        .collect();
    let functions: String = ["bigint", "integer", "smallint", "text", "double precision"]
        .into_iter()
        .map(|kind| format!("create function trap.sprung({kind}, {kind}) returns boolean language sql as $$ insert into trap.sprung values (1); select true $$;"))
        .collect();
    let named = "create function trap.current_setting(text, boolean) returns text language sql as $$ insert into trap.sprung values (1); select '' $$;
                 create function trap.clock_timestamp() returns timestamptz language sql as $$ insert into trap.sprung values (1); select now() $$;
                 create domain trap.text as pg_catalog.text check (false);
                 create table trap.change (relation int);";
    setting.run(&format!("create schema trap; create table trap.sprung (once int); {functions} {traps} {named}")).await;
    let update =
        "set local search_path = trap, public, pg_catalog; update public.customers set name = 'b'; update public.customers set id = 2";
    let mut tx = setting.db().begin().await.unwrap();
    dynamic::script(update.to_owned()).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.change where operation = 'update'").await, 2);
    assert_eq!(setting.count("select count(*) from trap.sprung").await, 0);
}

/// Between `alter table` and `attach`: the mapping may name the new column already.
#[tokio::test]
async fn an_update_of_a_column_that_capture_does_not_know_is_looked_at_whatever_else_changed() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers (id, name) values (1, 'a'), (2, 'a')").await;
    setting.drain().await;
    setting.run("delete from sluice.job; alter table customers add column fax text").await;
    setting.run("update customers set note = 'n', fax = '1' where id = 1; update customers set fax = '2' where id = 2").await;
    let newer = config(&CUSTOMERS.replace("email = \"email\"", "email = \"fax\""));
    publish::publish(setting.db(), &newer, &publish::Options::default()).await.unwrap();
    let newer = Definitions::compile(setting.db(), &newer).await.unwrap();
    let drained = drain_once(setting.db(), &setting.reader, &newer).await.unwrap();
    assert_eq!((drained.taken, drained.jobs), (2, 2));
}

/// Names and nulls as they are today, not as they were when capture was made: the bits must not be read with other columns' names.
#[tokio::test]
async fn columns_that_changed_their_names_or_may_be_null_now_are_looked_at() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("alter table customers alter name set not null; insert into customers values (1, 'a', 'e', 'n'), (2, 'a', 'e', 'n'), (3, 'a', 'e', 'n')").await;
    capture::attach(setting.db(), &setting.definitions, &[], SOON).await.unwrap();
    let jobs_after = async |sql: &str| {
        setting.drain().await;
        setting.run("delete from sluice.job").await;
        setting.run(sql).await;
        setting.drain().await.jobs
    };
    assert_eq!(jobs_after("update customers set note = 'm' where id = 1").await, 0);
    assert_eq!(
        jobs_after("alter table customers alter name drop not null; update customers set name = null, note = 'n' where id = 1").await,
        1
    );
    let swap = "alter table customers rename note to other; alter table customers rename email to note; alter table customers rename other to email";
    assert_eq!(jobs_after(&format!("{swap}; update customers set email = 'x' where id = 2")).await, 1);
    assert_eq!(jobs_after("alter table customers rename email to gone; update customers set gone = 'y' where id = 3; alter table customers rename gone to email").await, 1);
    let gone = "alter table customers rename email to gone; update customers set gone = 'z' where id = 3";
    assert_eq!(jobs_after(gone).await, 1, "a mapped column is not there: whatever changed may be it");
}
