//! What cannot be turned into a job is held or left to a worker. It never stops the changes of others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::db::dynamic;
use sluice_producer::changes::Listener;
use sluice_producer::definitions::Definitions;
use sluice_producer::plan::{self, What};
use sluice_producer::{capture, publish, trigger};
use sluice_sync::read::Reader;
use sluice_tests::{TestDb, wait_until};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::setting::{CUSTOMERS, Setting, config, pairs};

const NAMES: &str = r#"
    [syncs.names]
    connection = "main"
    table = "public.names"
    key = "id"
    module = "billing/customers"
    fields = { display_name = "name" }
"#;

/// With a table of its own, before everything else.
async fn setting(table: &str, sections: &str) -> Setting {
    let test = TestDb::new().await;
    dynamic::script(format!("{}{table}", crate::setting::TABLES)).execute(test.db()).await.unwrap();
    let config = config(sections);
    publish::publish(test.db(), &config, &publish::Options::default()).await.unwrap();
    let definitions = Definitions::compile(test.db(), &config).await.unwrap();
    capture::attach(test.db(), &definitions, &[], Duration::from_secs(5)).await.unwrap();
    let reader = Reader::new(test.db().clone(), None);
    Setting { test, definitions, reader }
}

async fn held(setting: &Setting) -> Vec<(String, String, i64)> {
    sqlx::query_as("select operation, reason, records from sluice.held_change order by operation, reason")
        .fetch_all(setting.db())
        .await
        .unwrap()
}

/// The index of the record's job took them for "index row size exceeds", and nothing of any sync went on.
#[tokio::test]
async fn a_key_that_no_job_can_have_is_held_and_the_others_go_on() {
    let sections = format!("{NAMES}{}{CUSTOMERS}", NAMES.replace("names", "pairs").replace("\"id\"", "[\"a\", \"b\"]"));
    let setting = setting(
        "create table public.names (id text primary key, name text); create table public.pairs (a text, b text, name text, primary key (a, b));",
        &sections.replace("this.customer_id", "repeat(this.street, 3000)"),
    )
    .await;
    setting
        .run(
            "insert into names values ('good', 'a'), ('zoho:1', 'b'), (repeat('x', 1025), 'c'), (repeat('y', 1024), 'd');
             insert into pairs values (repeat('p', 1300), repeat('q', 1300), 'a'), ('p', 'q', 'b');
             insert into addresses values (1, 1, 's'); insert into customers values (1, 'a')",
        )
        .await;
    let drained = setting.drain().await;
    assert_eq!((drained.taken, drained.jobs, drained.held), (8, 4, 4));
    let long = "y".repeat(1024);
    assert_eq!(setting.jobs().await, pairs(&[("customers", "1"), ("names", "good"), ("names", &long), ("pairs", "[\"p\", \"q\"]")]));
    let held = held(&setting).await;
    assert_eq!(held.len(), 4);
    for (one, (operation, beginning, end)) in held.iter().zip([
        ("key", "the key `[\"ppp", "has 2608 bytes; at most 1024 are possible"),
        ("key", "the key `xxx", "has 1025 bytes; at most 1024 are possible"),
        ("key", "the key `zoho:1` begins with `zoho:`", "Zoho records without a row"),
        ("watch", "watch on public.addresses: the key `sss", "out of range for type bigint"),
    ]) {
        assert!(one.0 == operation && one.1.starts_with(beginning), "{one:?}");
        assert!(one.1.chars().count() < 1100, "{}", one.1.len());
        assert!(one.1.ends_with(end) || operation == "watch", "{one:?}");
    }
    let longest = setting.count("select max(octet_length(sample::text))::bigint from sluice.held_change").await;
    assert!(longest < 1000, "{longest}");
}

#[tokio::test]
async fn a_watch_that_raises_a_code_of_its_own_holds_its_change_only() {
    let told = "create function public.told(n bigint) returns bigint language plpgsql as $$ begin
        if n = 41 then raise 'told so' using errcode = 'U0001'; elsif n = 42 then raise 'no server' using errcode = '08001'; end if; return n; end $$;";
    let setting = setting(told, &CUSTOMERS.replace("this.customer_id", "public.told(this.customer_id)")).await;
    setting.run("insert into addresses values (7, 41, 's'), (8, 42, 's'), (9, 43, 's')").await;
    let drained = setting.drain().await;
    assert_eq!((drained.jobs, drained.held), (1, 2));
    assert_eq!(setting.jobs().await, pairs(&[("customers", "43")]));
}

#[tokio::test]
async fn a_key_whose_type_was_renamed_is_held() {
    let table = "create type public.colour as enum ('red', 'blue'); create table public.names (id public.colour primary key, name text);";
    let setting = setting(table, &format!("{NAMES}{CUSTOMERS}")).await;
    setting
        .run("alter type public.colour rename to color; insert into names values ('red', 'r'); insert into customers values (1, 'a')")
        .await;
    let drained = setting.drain().await;
    assert_eq!((drained.jobs, drained.held), (1, 1));
    assert!(held(&setting).await[0].1.contains("type \"public.colour\" does not exist"));
}

/// They were consumed, and nothing was said.
#[tokio::test]
async fn an_image_without_its_key_is_held_once_for_all_of_its_kind_and_approve_says_that_there_is_nothing_to_push() {
    let setting = Setting::of(CUSTOMERS).await;
    setting
        .run(
            "insert into sluice.change (relation, operation, after) select 'public.customers', 'insert', jsonb_build_object('ident', n) from generate_series(1, 15) n;
             insert into sluice.change (relation, operation, before) values ('public.customers', 'delete', '{\"id\": null}');
             insert into sluice.change (relation, operation, before) values ('public.addresses', 'delete', '{\"customer\": 7}');
             insert into customers values (1, 'a')",
        )
        .await;
    assert_eq!((setting.drain().await.held, setting.jobs().await), (17, pairs(&[("customers", "1")])));
    setting.run("insert into sluice.change (relation, operation, after) values ('public.customers', 'insert', '{}')").await;
    assert_eq!(setting.drain().await.held, 1);
    assert_eq!(
        held(&setting).await,
        [
            ("key".to_owned(), "the key column `id` is not in the captured row: was it renamed or dropped?".to_owned(), 16),
            ("key".to_owned(), "the key column `id` of a captured row is null".to_owned(), 1),
            (
                "watch".to_owned(),
                "watch on public.addresses: the column `customer_id` is not in the captured row: was it renamed or dropped?".to_owned(),
                1
            )
        ]
    );
    assert_eq!(setting.count("select max(jsonb_array_length(sample))::bigint from sluice.held_change").await, 10);
    let refused =
        sqlx::query("select sluice.approve(id) from sluice.held_change where records = 16").execute(setting.db()).await.unwrap_err();
    assert!(refused.to_string().contains("there is nothing to push: the key column `id`"), "{refused}");
}

#[tokio::test]
async fn a_row_that_gets_its_key_later_was_no_record_before_and_one_that_loses_it_is_held() {
    let setting = Setting::of(CUSTOMERS).await;
    let update = "insert into sluice.change (relation, operation, before, after, changed, move) values ('public.customers', 'update', ";
    setting.run(&format!("{update}'{{\"id\": null}}', '{{\"id\": 5}}', '{{id}}', 1)")).await;
    assert_eq!((setting.drain().await.held, setting.jobs().await), (0, pairs(&[("customers", "5")])));
    setting.run(&format!("{update}'{{\"id\": 6}}', '{{\"id\": null}}', '{{id}}', 2)")).await;
    assert_eq!((setting.drain().await.held, setting.jobs().await), (1, pairs(&[("customers", "5"), ("customers", "6")])));
}

/// A foreign server that was down stopped all syncs.
#[tokio::test]
async fn a_linked_row_whose_expression_fails_stays_wanted_whatever_the_code() {
    let told = "create function public.told(code text) returns text language plpgsql as $$ begin
        if code <> 'a' then raise 'no' using errcode = code; end if; return code; end $$;";
    let file = CUSTOMERS.replace("display_name = \"name\"", "display_name = { sql = \"public.told(this.name)\" }");
    let setting = setting(told, &file).await;
    setting.run("insert into customers select n, 'a' from generate_series(1, 9) n").await;
    setting.drain().await;
    for key in 1..=9 {
        setting.link(&key.to_string(), "a", None).await;
    }
    setting
        .run(
            "delete from sluice.job;
             update customers c set name = v.code from (values (1, '08001'), (2, 'HV00N'), (3, 'XX000'), (4, 'U0001'), (5, '53200'), (6, '40001'), (7, '57P01')) v (id, code) where v.id = c.id",
        )
        .await;
    assert_eq!(setting.drain().await.jobs, 7);
    setting.run("delete from sluice.job; update customers set name = 'a' where id <= 4; update customers set email = 'e' where id = 8; update customers set email = null where id = 8").await;
    let drained = setting.drain().await;
    assert_eq!((drained.jobs, drained.avoided), (0, 6), "what can be read again is seen to be as it was");
}

/// A bulk update of one sync kept an unrelated one waiting for 40 seconds.
#[tokio::test]
async fn a_drain_does_not_wait_for_slow_expressions_to_find_out_that_nothing_is_to_be_done() {
    let setting = Setting::of(
        &CUSTOMERS.replace("display_name = \"name\"", "display_name = { sql = \"this.name || left(pg_sleep(0.02)::text, 0)\" }"),
    )
    .await;
    setting.run("insert into customers select n, 'a' from generate_series(1, 700) n").await;
    setting.drain().await;
    setting
        .run(
            "delete from sluice.job; update customers set name = 'b';
             insert into sluice.link (sync, key, zoho_id, fields, synced_at) select 'customers', n::text, 'z' || n, '{}', now() from generate_series(1, 700) n",
        )
        .await;
    let started = Instant::now();
    assert_eq!(setting.drain().await.jobs, 700);
    assert!(started.elapsed() < Duration::from_secs(5), "14 s of reading: {:?}", started.elapsed());
}

/// Whatever fails in our own tables for one change, for a reason that nobody foresaw.
#[tokio::test]
async fn a_change_that_fails_the_drain_again_and_again_is_found_and_held_and_the_others_go_on() {
    let setting = Setting::of(CUSTOMERS).await;
    setting
        .run(
            "create function public.refuse() returns trigger language plpgsql as $$ begin
               if new.key in ('13', '77') then raise 'not %', new.key using errcode = 'U0001'; end if; return new; end $$;
             create trigger a_refuse before insert on sluice.job for each row execute function public.refuse();
             insert into customers select n, 'a' from generate_series(1, 100) n",
        )
        .await;
    let (shutdown, wake) = (CancellationToken::new(), Arc::new(Notify::new()));
    let (_keep, definitions) = watch::channel(Arc::new(setting.definitions.clone()));
    let listener = Listener { db: setting.db().clone(), reader: setting.reader.clone(), definitions, wake };
    let running = tokio::spawn({
        let shutdown = shutdown.clone();
        async move { listener.run(shutdown).await }
    });
    wait_until(Duration::from_secs(120), || async { setting.count("select count(*) from sluice.change").await == 0 }).await;
    shutdown.cancel();
    running.await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.job").await, 98);
    let reasons: Vec<String> = held(&setting).await.into_iter().map(|(_, reason, _)| reason).collect();
    assert_eq!(reasons, ["the change could not be turned into a job: not 13", "the change could not be turned into a job: not 77"]);
    assert_eq!(
        setting.count("select count(*) from sluice.held_change where sample @> '[{\"id\": 13}]' or sample @> '[{\"id\": 77}]'").await,
        2
    );
    assert_eq!(setting.count("select count(*) from sluice.change_log").await, 100, "what is held is history as well");
}

/// One such row failed the whole of them.
#[tokio::test]
async fn a_trigger_of_all_leaves_out_rows_whose_key_can_be_no_records_and_names_them() {
    let setting = setting("create table public.names (id text primary key, name text);", NAMES).await;
    setting.run("insert into names values ('a', 'a'), ('zoho:1', 'b'), (repeat('x', 2000), 'c'), ('z', 'd')").await;
    let done = trigger(setting.db(), &setting.reader, &setting.definitions, Some("names"), None, false).await.unwrap();
    assert_eq!((done.jobs, done.refused), (2, 2));
    assert!(done.reasons[0].contains("`xxx") && done.reasons[1].contains("`zoho:1`"), "{:?}", done.reasons);
    setting.run("delete from sluice.job").await;
    let what = What::Trigger { force: false };
    let plan =
        plan::plan(setting.db(), &setting.reader, &setting.definitions, &config(NAMES), ("names", &what), &mut |_| {}).await.unwrap();
    assert_eq!((plan.rows.looked_at, plan.rows.unmappable, plan.rows.create), (4, 2, 2));
    assert_eq!(plan.unmappable[0].field, "key");
    assert!(plan.unmappable[1].reason.contains("begins with `zoho:`"), "{:?}", plan.unmappable);
}

#[tokio::test]
async fn a_condition_that_fails_on_a_row_is_named_with_the_row() {
    let file = CUSTOMERS.replace("module =", "when = \"100 / (this.id - 1234) <> 0\"\n    module =");
    let setting = Setting::of(&file).await;
    setting.run("insert into customers select n, 'a' from generate_series(1, 2000) n").await;
    let said = "`when` of customers fails on public.customers 1234: division by zero";
    let refused = trigger(setting.db(), &setting.reader, &setting.definitions, Some("customers"), None, false).await.unwrap_err();
    assert_eq!(refused.to_string(), said);
    let what = What::Trigger { force: false };
    let refused = plan::plan(setting.db(), &setting.reader, &setting.definitions, &config(&file), ("customers", &what), &mut |_| {}).await;
    assert_eq!(refused.unwrap_err().to_string(), said);
}
