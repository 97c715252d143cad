//! One bad row never fails the others, and a broken mapping says what is broken.

use std::time::{Duration, Instant};

use sluice_sync::definition::Definition;
use sluice_sync::read::{Class, Error, Found, Reader};

use crate::support::{database, definition, printed, read, run, things};

fn problems(found: &Found) -> Vec<(&str, &str)> {
    match found {
        Found::Row(row) => row.problems.iter().map(|problem| (problem.field.as_str(), problem.message.as_str())).collect(),
        Found::Gone => panic!("the row is gone"),
    }
}

#[tokio::test]
async fn rows_on_which_an_expression_fails_are_told_apart_with_the_fields_name() {
    let test = database(
        "create table things (id bigint primary key, n int, name text);
         insert into things select i, case when i in (13, 77) then 0 else i end, 'n' || i from generate_series(1, 100) i",
    )
    .await;
    let definition = things(&test, "share = { sql = \"100 / this.n\" }\nname = \"name\"").await;
    let keys: Vec<String> = (1..=101).map(|key| key.to_string()).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let found = read(&test, &definition, &keys).await;
    assert_eq!(found.len(), 101);
    assert_eq!(found["101"], Found::Gone);
    for key in ["13", "77"] {
        assert_eq!(problems(&found[key]), [("share", "division by zero")]);
        let Found::Row(row) = &found[key] else { panic!("no row") };
        assert_eq!(row.problems[0].class, Class::Payload);
        assert_eq!(printed(row), format!(r#"{{"name":"n{key}"}}"#), "the other fields are read");
    }
    let good =
        found.iter().filter(|(_, found)| matches!(found, Found::Row(row) if row.problems.is_empty() && row.fields.len() == 2)).count();
    assert_eq!(good, 98);
}

#[tokio::test]
async fn a_key_that_is_no_key_and_a_condition_that_fails_concern_their_row_only() {
    let test = database("create table things (id bigint primary key, n int); insert into things values (1, 1), (2, 0)").await;
    let file = "[things]\nconnection = \"main\"\ntable = \"things\"\nkey = \"id\"\nwhen = \"1 / n > 0\"\nmodule = \"billing/customers\"\n[things.fields]\nn = \"n\"\n";
    let definition = definition(&test, file, "things").await;
    let found = read(&test, &definition, &["1", "2", "x"]).await;
    assert_eq!(problems(&found["1"]), []);
    assert_eq!(problems(&found["2"]), [("when", "division by zero")]);
    let Found::Row(failed) = &found["2"] else { panic!("no row") };
    assert!(failed.when, "a condition that fails must not pass for one that is false");
    assert!(problems(&found["x"])[0].1.contains("invalid input syntax"), "{:?}", found["x"]);
}

#[tokio::test]
async fn two_rows_of_a_view_with_one_key_are_refused() {
    let test = database(
        "create table t (id int, name text); insert into t values (1, 'a'), (1, 'b'), (2, 'c');
         create view things as select * from t",
    )
    .await;
    let definition = things(&test, "name = \"name\"").await;
    let found = read(&test, &definition, &["1", "2"]).await;
    assert_eq!(problems(&found["1"]), [("key", "more than one row has this key")]);
    assert_eq!(problems(&found["2"]), []);
}

#[tokio::test]
async fn a_mapping_that_no_longer_fits_the_table_names_every_broken_field() {
    let test =
        database("create table things (id bigint primary key, name text, old text, n int); insert into things values (1, 'a', 'b', 1)")
            .await;
    let definition = things(&test, "name = \"name\"\nold = \"old\"\nwrong = { sql = \"this.n + nowhere\" }").await;
    run(&test, "alter table things drop column old").await;
    let reader = Reader::new(test.db().clone(), None);
    let broken = reader.rows(&definition, &["1".to_owned()]).await;
    let Err(Error::Broken { problems }) = broken else { panic!("{broken:?}") };
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["fields.old", "fields.wrong"]);
    assert_eq!(problems[1].message, "PostgreSQL says: column \"nowhere\" does not exist (at character 10: `nowhere`)");
    assert_eq!(reader.probe(&definition).await.unwrap(), problems, "check finds the same without any row");
}

#[tokio::test]
async fn an_expression_cannot_write_and_runs_under_its_own_role() {
    let test = database(
        "create table things (id bigint primary key, n int); insert into things values (1, 1);
         create table secret (n int); insert into secret values (5);
         create function sneaky() returns int language sql volatile as 'update things set n = 99 returning n';
         do $$ begin create role sluice_sync_expressions nologin; exception when duplicate_object then null; end $$;
         grant select on things to sluice_sync_expressions",
    )
    .await;
    let writing = things(&test, "n = { sql = \"sneaky()\" }").await;
    let found = read(&test, &writing, &["1"]).await;
    assert!(problems(&found["1"])[0].1.contains("read-only transaction"), "{found:?}");
    let reader = Reader::new(test.db().clone(), Some("sluice_sync_expressions".to_owned()));
    let spying = things(&test, "n = { sql = \"(select n from secret)\" }").await;
    let refused = reader.rows(&spying, &["1".to_owned()]).await;
    assert!(matches!(&refused, Err(Error::Broken { problems }) if problems[0].message.contains("permission denied")), "{refused:?}");
    let plain: Definition = things(&test, "n = \"n\"").await;
    let found = reader.rows(&plain, &["1".to_owned()]).await.unwrap();
    assert_eq!(problems(&found["1"]), []);
}

#[tokio::test]
async fn an_expression_that_takes_too_long_is_cut_off_and_bounded_over_the_batch() {
    let test = database("create table things (id bigint primary key); insert into things select generate_series(1, 20)").await;
    let definition = things(&test, "id = { sql = \"this.id + length(pg_sleep(30)::text)\" }").await;
    let keys: Vec<String> = (1..=20).map(|key| key.to_string()).collect();
    let started = Instant::now();
    let found = Reader::new(test.db().clone(), None)
        .with_limits(Duration::from_millis(300), Duration::from_millis(1000))
        .rows(&definition, &keys)
        .await
        .unwrap();
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    let unread = |found: &&Found| matches!(found, Found::Row(row) if row.unread().is_some() && row.when);
    assert!(found.values().filter(unread).count() >= 10, "most were not told apart: {found:?}");
    let guilty = found.values().filter(|found| !unread(found));
    assert!(guilty.clone().all(|found| problems(found)[0].0 == "id"), "those that were, by their field: {found:?}");
}

/// 50 rows became dead letters with the error of another.
#[tokio::test]
async fn what_was_not_told_apart_in_time_has_nobody_elses_error_and_is_read_among_fewer() {
    let test = database("create table things (id bigint primary key); insert into things select generate_series(1, 40)").await;
    let slow = "case this.id when 40 then length(pg_sleep(30)::text) when 39 then 1 / (this.id - 39) else this.id end";
    let definition = things(&test, &format!("n = {{ sql = \"{slow}\" }}")).await;
    let keys: Vec<String> = (1..=40).map(|key| key.to_string()).collect();
    let reader = Reader::new(test.db().clone(), None);
    let hasty = reader.clone().with_limits(Duration::from_millis(300), Duration::from_millis(200));
    let found = hasty.rows(&definition, &keys).await.unwrap();
    for (key, found) in &found {
        let Found::Row(row) = found else { panic!("{key} is gone") };
        assert!(row.problems.is_empty() || row.unread().is_some(), "{row:?}");
        assert!(row.problems.iter().all(|problem| !problem.message.contains("zero") && !problem.message.contains("canceling")), "{row:?}");
    }
    let few = reader.with_limits(Duration::from_millis(300), Duration::from_secs(60)).rows(&definition, &keys[37..]).await.unwrap();
    assert_eq!(problems(&few["38"]), []);
    assert_eq!(problems(&few["39"]), [("n", "division by zero")]);
    assert!(problems(&few["40"])[0].1.contains("statement timeout"), "{few:?}");
}

/// The whole batch waited for ever.
#[tokio::test]
async fn a_code_that_nobody_foresaw_concerns_its_row_and_a_foreign_server_that_is_down_kills_nobody() {
    let test = database(
        "create table things (id bigint primary key, n int); insert into things select i, i from generate_series(1, 12) i;
         create function told(n int) returns int language plpgsql as $$ begin
           if n = 5 then raise 'told so' using errcode = 'U0001'; elsif n = 6 then raise 'tuple' using errcode = 'XX000';
           elsif n = 7 then raise 'could not connect to server' using errcode = '08001'; elsif n = 8 then raise 'no session' using errcode = 'HV00N'; end if;
           return n; end $$",
    )
    .await;
    let definition = things(&test, "n = { sql = \"told(this.n)\" }").await;
    let keys: Vec<String> = (1..=12).map(|key| key.to_string()).collect();
    let found = read(&test, &definition, &keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    assert_eq!(problems(&found["5"]), [("n", "told so")]);
    assert_eq!(problems(&found["6"]), [("n", "tuple")]);
    assert_eq!(problems(&found["7"]), [("n", "could not connect to server")]);
    for (key, class) in [("5", Class::Payload), ("6", Class::Payload), ("7", Class::Unread), ("8", Class::Unread)] {
        assert!(matches!(&found[key], Found::Row(row) if row.problems[0].class == class), "{key}: {found:?}");
    }
    assert_eq!(found.values().filter(|found| problems(found).is_empty()).count(), 8);
}

#[tokio::test]
async fn an_error_that_holds_a_whole_value_is_cut() {
    let test = database("create table things (id bigint primary key, t text); insert into things values (1, repeat('x', 3000000))").await;
    let definition = things(&test, "t = { sql = \"this.t::int\" }").await;
    let found = read(&test, &definition, &["1"]).await;
    let message = problems(&found["1"])[0].1;
    assert!(message.starts_with("invalid input syntax for type integer") && message.ends_with('…'), "{:.100}", message);
    assert_eq!(message.chars().count(), sluice_core::db::MESSAGE_MAX + 1);
}

#[tokio::test]
async fn a_key_whose_type_is_gone_is_no_key_and_no_outage() {
    let test = database("create type colour as enum ('red'); create table things (id colour primary key, name text)").await;
    let definition = things(&test, "name = \"name\"").await;
    run(&test, "alter type colour rename to color").await;
    let reader = Reader::new(test.db().clone(), None);
    let said = reader.canonical_key(&definition.key, "red").await.unwrap();
    assert!(said.as_ref().is_err_and(|reason| reason.contains("does not exist")), "{said:?}");
}

#[tokio::test]
async fn whether_a_row_is_gone_asks_no_expression() {
    let test = database("create table things (id bigint primary key, n int); insert into things values (1, 0)").await;
    let definition = things(&test, "n = { sql = \"1 / this.n\" }").await;
    let reader = Reader::new(test.db().clone(), None);
    assert!(!reader.is_gone(&definition, "1").await.unwrap());
    assert!(reader.is_gone(&definition, "2").await.unwrap());
}

/// What cannot be written as Zoho writes times would arrive as another time, or as none.
#[tokio::test]
async fn a_time_that_zoho_has_no_form_for_is_a_problem_of_its_field() {
    let test = database(
        "create table things (id int primary key, at timestamptz, plain timestamp, n int);
         insert into things values (1, 'infinity', null, 1), (2, null, '-infinity', 1), (3, '0044-03-15 BC', '0001-01-01', 1), (4, '10000-01-01 00:00Z', null, 1),
           (5, '0001-01-01 00:00Z', '9999-12-31 23:59:59.9', 1), (6, null, null, 1)",
    )
    .await;
    let fields = "at = \"at\"\nplain = \"plain\"\nsql = { sql = \"this.at\" }\nn = \"n\"\n\
                  lines = { each = \"select this.plain as t where this.plain is not null\", item = { on = \"t\" } }";
    let definition = things(&test, fields).await;
    let found = read(&test, &definition, &["1", "2", "3", "4", "5", "6"]).await;
    for (key, fields) in
        [("1", &["at", "sql"][..]), ("2", &["lines[0].on", "plain"]), ("3", &["at", "sql"]), ("4", &["at", "sql"]), ("5", &[]), ("6", &[])]
    {
        let Found::Row(row) = &found[key] else { panic!("no row") };
        let mut at: Vec<_> = row.problems.iter().map(|problem| problem.field.as_str()).collect();
        at.sort_unstable();
        assert_eq!(at, fields, "{key}: {:?}", row.problems);
        assert!(
            row.problems.iter().all(|problem| problem.class == Class::Validation && problem.message.contains("the time")),
            "{:?}",
            row.problems
        );
        assert!(row.fields.contains_key("n"), "the other fields are read");
    }
    let Found::Row(latest) = &found["5"] else { panic!("no row") };
    assert_eq!(
        printed(latest),
        r#"{"at":"0001-01-01T00:00:00+0000","lines":[{"on":"9999-12-31T23:59:59+0000"}],"n":1,"plain":"9999-12-31T23:59:59+0000","sql":"0001-01-01T00:00:00+0000"}"#
    );
}
