//! Capture of whatever a table may hold and whoever may write it: nothing of the writer's is called, nothing is lost, no statement fails.

use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::db::dynamic;
use sluice_producer::definitions::Definitions;
use sluice_producer::{capture, publish};
use sluice_tests::TestDb;

use crate::setting::{CUSTOMERS, ORDERS, Setting, config};

/// Statements one after the other in one session: settings and `pg_temp` are its own.
async fn in_one_session(test: &TestDb, statements: &[&str]) {
    let mut tx = test.db().begin().await.unwrap();
    for sql in statements {
        dynamic::script((*sql).to_owned()).execute(&mut tx).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    tx.commit().await.unwrap();
}

async fn attach(test: &TestDb, config: &Config) -> Definitions {
    publish::publish(test.db(), config, &publish::Options::default()).await.unwrap();
    let definitions = Definitions::compile(test.db(), config).await.unwrap();
    capture::attach(test.db(), &definitions, &[], std::time::Duration::from_secs(5)).await.unwrap();
    definitions
}

/// Operation, kept columns before (where they differ) and after, and the changed ones, in the order of the statements; they are gone afterwards.
async fn captured(test: &TestDb) -> Vec<Value> {
    sqlx::query_scalar(
        "with taken as (delete from sluice.change returning *)
         select jsonb_build_array(operation, case when before = after then null else before end, coalesce(after, case when kept is not null then jsonb_build_object(kept, key) end), sluice.changed_columns(changed, relid, touched, layout))
         from taken order by captured_at",
    )
    .fetch_all(test.db())
    .await
    .unwrap()
}

async fn sprung(test: &TestDb) -> i64 {
    sqlx::query_scalar("select count(*) from public.sprung").fetch_one(test.db()).await.unwrap()
}

const ALL_WAYS: [&str; 9] = [
    "insert into public.customers (id, name) values (1, 'a')",
    "update public.customers set name = 'b'",
    "update public.customers set id = 2",
    "delete from public.customers",
    "insert into public.orders values (1, '2024-01-01', 1), (2, '2026-01-01', 1)",
    "update public.orders set total = 2",
    "update public.orders_new set total = 3",
    "update public.orders_old set id = 5",
    "delete from public.orders",
];

/// Wherever `pg_temp` is not named in a search path it is searched first for types and tables: a writer became Sluice's owner.
#[tokio::test]
async fn a_writers_own_types_and_views_in_pg_temp_are_never_used_by_capture() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    setting.run("create table public.sprung (once int)").await;
    let spring = "create function pg_temp.spring() returns boolean language plpgsql as $$ begin insert into public.sprung values (1); return true; end $$;
                  create function pg_temp.spring(pg_catalog.text) returns boolean language sql as $$ select pg_temp.spring() $$;";
    let types: String = ["text", "regclass", "jsonb", "name", "int4", "int8"]
        .iter()
        .map(|name| {
            format!("create function pg_temp.spring_{name}(pg_catalog.{name}) returns boolean language sql as $$ select pg_temp.spring() $$; create domain pg_temp.{name} as pg_catalog.{name} check (pg_temp.spring_{name}(value));")
        })
        .collect();
    let views: String = [
        ("pg_attribute", "attrelid, attname, attnum, attisdropped, atttypid"),
        ("pg_class", "*"),
        ("pg_type", "*"),
        ("pg_proc", "*"),
        ("pg_inherits", "*"),
    ]
    .iter()
    .map(|(name, columns)| format!("create view pg_temp.{name} as select {columns} from pg_catalog.{name} where pg_temp.spring();"))
    .collect();
    let traps = format!("{spring} {types} {views}");
    let mut statements = vec![traps.as_str()];
    statements.extend(ALL_WAYS);
    // with other columns than capture was made for
    statements.push("alter table public.customers add column more pg_catalog.int4");
    statements.push("insert into public.customers (id, name, more) values (1, 'a', 1); update public.customers set more = 2; delete from public.customers");
    statements.push("drop view pg_temp.pg_attribute, pg_temp.pg_class, pg_temp.pg_type, pg_temp.pg_proc, pg_temp.pg_inherits");
    in_one_session(&setting.test, &statements).await;
    assert_eq!(setting.count("select count(*) from sluice.change").await, 15);
    assert_eq!(sprung(&setting.test).await, 0);
}

const MOODS: &str = r#"
    [syncs.moods]
    connection = "main"
    table = "public.moods"
    key = ["id", "mood"]
    module = "billing/customers"
    fields = { display_name = "name" }
    [[syncs.moods.watch]]
    table = "public.notes"
    key = "array[this.moods::text, this.pair::text, this.many::text]::text"
"#;

/// Turning a value of such a type into JSON, or casting it to text, calls a function of the type's owner.
#[tokio::test]
async fn casts_of_a_type_of_somebodys_own_are_never_called_by_capture() {
    let test = TestDb::new().await;
    in_one_session(
        &test,
        &["create table public.sprung (once int);
           create type mood as enum ('calm', 'cross');
           create type pair as (a int, m mood);
           create table moods (id int, mood mood, name text, other mood, primary key (id, mood));
           create table notes (id int primary key, moods mood[], pair pair, many int[]);
           create function to_json(mood) returns json language plpgsql as $$ begin insert into public.sprung values (1); return '1'; end $$;
           create function to_text(mood) returns text language plpgsql as $$ begin insert into public.sprung values (1); return 'x'; end $$;
           create function all_to_text(mood[]) returns text language plpgsql as $$ begin insert into public.sprung values (1); return 'x'; end $$;
           create cast (mood as json) with function to_json(mood); create cast (mood as text) with function to_text(mood);
           create cast (mood[] as text) with function all_to_text(mood[])"],
    )
    .await;
    attach(&test, &config(MOODS)).await;
    let writes = [
        "insert into moods values (1, 'calm', 'a', 'calm')",
        "update moods set name = 'b', other = 'cross'",
        "update moods set mood = 'cross'",
        "delete from moods",
        "insert into notes values (1, '{cross,null}', '(1,calm)', '{1,2}')",
        "delete from notes",
    ];
    in_one_session(&test, &writes).await;
    let calm = json!({"id": 1, "mood": "calm"});
    let cross = json!({"id": 1, "mood": "cross"});
    let note = json!({"moods": ["cross", null], "pair": "(1,calm)", "many": [1, 2]});
    let expected = [
        json!(["insert", null, calm, null]),
        json!(["update", null, calm, ["name", "other"]]),
        json!(["update", calm, cross, ["mood"]]),
        json!(["delete", cross, null, null]),
        json!(["insert", null, note, null]),
        json!(["delete", note, null, null]),
    ];
    assert_eq!(captured(&test).await, expected);
    // and where capture was made for other columns
    in_one_session(&test, &["alter table moods add column more int; alter table notes add column more int"]).await;
    in_one_session(&test, &writes).await;
    assert_eq!(captured(&test).await, expected);
    let read: String =
        sqlx::query_scalar("select jsonb_populate_record(null::notes, $1)::text").bind(note).fetch_one(test.db()).await.unwrap();
    assert_eq!(read, r#"(,"{cross,NULL}","(1,calm)","{1,2}",)"#, "what a watch's expression sees is what was written");
    assert_eq!(sprung(&test).await, 0);
}

/// `r` is a row to PostgreSQL, unless a column is called that.
#[tokio::test]
async fn columns_called_like_what_capture_calls_its_rows_take_nothing_from_it() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    let named: String = ["r", "rr", "p", "q", "c", "g", "number", "fine", "before", "after", "touched", "new", "old", "record"]
        .iter()
        .map(|name| format!("alter table customers add column {name} int; alter table orders add column {name} int;"))
        .collect();
    setting.run(&named).await;
    for attached in [false, true] {
        if attached {
            capture::attach(setting.db(), &setting.definitions, &[], std::time::Duration::from_secs(5)).await.unwrap();
        }
        for sql in ALL_WAYS {
            setting.run(sql).await;
        }
        setting.run("insert into customers (id) values (3), (4); update customers set r = 1; delete from customers").await;
        let taken: Vec<Value> = captured(&setting.test).await;
        assert_eq!(taken.len(), 18, "{taken:?}");
        let keys =
            |change: &Value| [&change[1], &change[2]].into_iter().filter(|image| !image.is_null()).all(|image| image.get("id").is_some());
        assert!(taken.iter().all(keys), "{taken:?}");
    }
}

/// The table takes it and jsonb does not: text with a NUL, half a character, a number beyond all measure.
const NO_JSONB: [&str; 3] = [r#""\u0000""#, r#""\ud800""#, "1e999999"];

#[tokio::test]
async fn json_that_jsonb_refuses_fails_no_statement_and_hides_no_key() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    for attached in [false, true] {
        for (table, key, column) in [
            ("customers", "id, name", "1, 'a'"),
            ("orders", "id, placed", "1, '2024-01-01'"),
            ("orders_new", "id, placed", "1, '2026-01-01'"),
        ] {
            let parent = table.split('_').next().unwrap();
            if !attached && table == parent {
                setting.run(&format!("alter table {table} add column doc json")).await;
            }
            for doc in NO_JSONB {
                let writes = [
                    format!("insert into {table} ({key}, doc) values ({column}, '{doc}')"),
                    format!("update {table} set doc = '[{doc}]'"),
                    format!("update {table} set id = id + 1"),
                    format!("delete from {table}"),
                ];
                in_one_session(&setting.test, &writes.each_ref().map(String::as_str)).await;
                // the key as a text is the short form's
                let text = |change: &Value, at: usize| change[at]["id"].to_string().trim_matches('"').to_owned();
                let ids: Vec<[String; 2]> = captured(&setting.test).await.iter().map(|change| [text(change, 1), text(change, 2)]).collect();
                assert_eq!(ids, [["null", "1"], ["null", "1"], ["1", "2"], ["2", "null"]], "{table} {doc}");
            }
        }
        capture::attach(setting.db(), &setting.definitions, &[], std::time::Duration::from_secs(5)).await.unwrap();
    }
}

const DOCUMENTS: &str = r#"
    [syncs.documents]
    connection = "main"
    table = "public.documents"
    key = "id"
    module = "billing/customers"
    fields = { display_name = "name" }
    [[syncs.documents.watch]]
    table = "public.documents"
    key = "this.doc ->> 'parent'"
"#;

/// A column that is kept: what cannot be had of it is left out, and nothing else.
#[tokio::test]
async fn a_kept_value_that_cannot_become_jsonb_is_left_out_alone() {
    let test = TestDb::new().await;
    in_one_session(&test, &["create table documents (id int primary key, name text, doc json)"]).await;
    attach(&test, &config(DOCUMENTS)).await;
    for doc in NO_JSONB {
        let insert = format!("insert into documents values (1, 'a', '{{\"parent\": 7}}'), (2, 'b', '{doc}')");
        let update = format!("update documents set doc = '{doc}'");
        in_one_session(&test, &[&insert, &update, "update documents set name = 'n' where id = 2", "delete from documents"]).await;
        let whole = json!({"id": 1, "doc": {"parent": 7}});
        let left = |id: i32| json!({"id": id});
        assert_eq!(
            captured(&test).await,
            [
                json!(["insert", null, whole, null]),
                json!(["insert", null, left(2), null]),
                json!(["update", whole, left(1), ["doc"]]),
                json!(["update", null, left(2), ["name"]]),
                json!(["delete", left(1), null, null]),
                json!(["delete", left(2), null, null]),
            ],
            "{doc}"
        );
    }
}

/// 272 million characters as JSON, which holds 256 million.
#[tokio::test]
async fn a_huge_value_that_no_sync_reads_is_nobodys_trouble() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    setting.run("alter table customers add column scan bytea; alter table orders add column scan bytea").await;
    capture::attach(setting.db(), &setting.definitions, &[], std::time::Duration::from_secs(5)).await.unwrap();
    let huge = "convert_to(repeat('x', 136000000), 'SQL_ASCII')";
    for (table, key) in [
        ("customers (id, scan)", "1"),
        ("orders (id, placed, scan)", "1, '2024-01-01'"),
        ("orders_new (id, placed, scan)", "2, '2026-01-01'"),
    ] {
        setting.run(&format!("insert into {table} values ({key}, {huge})")).await;
    }
    setting.run("delete from customers; delete from orders").await;
    assert_eq!(captured(&setting.test).await.len(), 6);
}

/// What nobody can know is said as that: an image without the key, which is held, and never one with a null, which no record has.
#[tokio::test]
async fn a_change_of_a_table_whose_key_column_is_gone_lacks_the_key() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    setting
        .run("insert into customers (id, name) values (1, 'a'); insert into orders values (1, '2024-01-01', 1); delete from sluice.change")
        .await;
    setting.run("alter table customers rename id to number; alter table orders rename id to number").await;
    setting.run("insert into customers (number, name) values (2, 'a'); update customers set name = 'b' where number = 1; delete from customers where number = 1").await;
    let nothing = json!({});
    assert_eq!(
        captured(&setting.test).await,
        [json!(["insert", null, nothing, null]), json!(["update", null, nothing, ["name"]]), json!(["delete", nothing, null, null])]
    );
    setting.run("update orders set total = 2; update orders_old set total = 3; delete from orders").await;
    let placed = json!({"placed": "2024-01-01"});
    assert_eq!(
        captured(&setting.test).await,
        [json!(["update", null, placed, ["total"]]), json!(["update", null, placed, ["total"]]), json!(["delete", placed, null, null]),]
    );
}

/// The last resort: capture itself is broken, and says that something happened.
#[tokio::test]
async fn a_statement_goes_through_where_nothing_of_it_can_be_captured() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    setting.run("drop function sluice.careful_source(text[], text); alter table customers add column more int").await;
    setting.run("insert into customers (id) values (1); update customers set more = 1; delete from customers").await;
    setting.run("insert into orders_new values (1, '2026-01-01', 1); update orders_new set total = 2; delete from orders_new").await;
    let found: Vec<Value> = captured(&setting.test).await.into_iter().map(|change| json!([change[0], change[2]])).collect();
    let told = ["insert", "update", "delete"].map(|operation| json!([operation, {}]));
    assert_eq!(found, [told.clone(), told].concat());
}

const FLOATS: &str = r#"
    [syncs.floats]
    connection = "main"
    table = "public.floats"
    key = "id"
    module = "billing/customers"
    fields = { display_name = "name" }
    [syncs.parts]
    connection = "main"
    table = "public.parts"
    key = ["id", "f"]
    module = "billing/customers"
    fields = { display_name = "name" }
    [syncs.spans]
    connection = "main"
    table = "public.spans"
    key = "id"
    module = "billing/customers"
    fields = { display_name = "name" }
"#;

/// A setting of the writer's that rounds floats, and others that print values otherwise.
#[tokio::test]
async fn the_settings_of_the_writers_session_neither_hide_a_change_nor_alter_a_key() {
    let test = TestDb::new().await;
    in_one_session(
        &test,
        &["create table floats (id float8 primary key, name text, many float8[], at point);
           create table parts (id int, f float8, name text, g float8, primary key (id, f)) partition by list (id);
           create table parts_one partition of parts for values in (1);
           create table spans (id tstzrange primary key, name text)"],
    )
    .await;
    attach(&test, &config(FLOATS)).await;
    in_one_session(
        &test,
        &[
            "set local extra_float_digits = -15; set local datestyle = 'German'; set local timezone = 'Asia/Tokyo'; set local intervalstyle = 'sql_standard'",
            "insert into floats values (7.75, 'a', '{1.25}', '(1.25,1)')",
            "update floats set many = '{1.250001}'",
            "update floats set at = '(1.250001,1)'",
            "delete from floats",
            "insert into parts values (1, 7.75, 'a', 1.25)",
            "update parts set g = 1.250001",
            "update parts_one set g = 1.250002",
            "update parts set f = 7.750001",
            "insert into spans values ('[2024-02-03 00:00+00,2024-05-06 00:00+00)')",
        ],
    )
    .await;
    let key = json!({"id": 7.75});
    let (one, two) = (json!({"id": 1, "f": 7.75}), json!({"id": 1, "f": 7.750_001}));
    assert_eq!(
        captured(&test).await,
        [
            json!(["insert", null, key, null]),
            json!(["update", null, key, ["many"]]),
            json!(["update", null, key, ["at"]]),
            json!(["delete", key, null, null]),
            json!(["insert", null, one, null]),
            json!(["update", null, one, ["g"]]),
            json!(["update", null, one, ["g"]]),
            json!(["update", one, two, ["f"]]),
            json!(["insert", null, {"id": "[\"2024-02-03 00:00:00+00\",\"2024-05-06 00:00:00+00\")"}, null]),
        ]
    );
}
