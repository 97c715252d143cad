//! What an insert refuses, and how it writes keys.

use crate::world::World;

async fn refusals(world: &World, rows: &[(&str, &str, &str)]) {
    for (kind, args, because) in rows {
        let (code, message) = world.refused(format!("insert into sluice.job (kind, args) values ('{kind}', '{args}')")).await;
        assert_eq!(code, "22023", "{kind} {args}: {message}");
        assert!(message.contains(because), "{kind} {args}: {message}");
    }
    assert_eq!(world.get::<i64>("select count(*) from sluice.job").await, 0);
}

#[tokio::test]
async fn a_row_that_no_worker_could_run_is_refused_by_the_insert_with_the_reason() {
    let world = World::new().await;
    refusals(
        &world,
        &[
            ("psuh", "{}", "unknown job kind"),
            ("push", r#"{"sync": "nobody", "key": "1"}"#, "unknown sync"),
            ("push", r#"{"sync": "gone", "key": "1"}"#, "retired"),
            ("push", r#"{"sync": "items", "key": "1"}"#, "only pulls"),
            ("push", r#"{"sync": "customers"}"#, r#"needs "key""#),
            ("push", r#"{"sync": "customers", "key": null}"#, r#"needs "key""#),
            ("push", r#"{"key": "1"}"#, r#"needs "sync""#),
            ("push", r#"{"sync": 7, "key": "1"}"#, "must be a string"),
            ("push", r#"{"sync": "customers", "key": "x"}"#, "does not fit"),
            ("push", r#"{"sync": "customers", "key": {"id": 1}}"#, "must be a string or a number"),
            ("push", r#"{"sync": "prices", "key": "7"}"#, "JSON array of 2 values"),
            ("push", r#"{"sync": "prices", "key": ["2026-01-01", null]}"#, "must not be null"),
            ("push", r#"{"sync": "customers", "key": "1", "force": true}"#, r#"has no "force""#),
            ("push", "[1]", "must be a JSON object"),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_call_that_is_not_plainly_one_request_to_a_published_connection_is_refused() {
    let world = World::new().await;
    let call = |connection: &str, product: &str, method: &str, path: &str| {
        format!(r#"{{"connection": "{connection}", "product": "{product}", "method": "{method}", "path": "{path}"}}"#)
    };
    let paths = [
        "items",
        "//evil.example/x",
        "/a//b",
        "/a/../b",
        "/a?b=1",
        "/a#b",
        r"/a\\b",
        "/a%2Fb",
        "/a%2e%2E/b",
        "/a%5cb",
        "/a%3fb",
        "/a%252fb",
        "/a%00b",
        "/a b",
    ];
    let mut rows = vec![
        (call("nobody", "billing", "GET", "/x"), "unknown connection"),
        (call("main", "desk", "GET", "/x"), "unknown product"),
        (call("main", "crm", "GET", "/x"), "no published connection can run this"),
        (call("main", "billing", "get", "/x"), "unknown method"),
        (r#"{"connection": "main", "product": "billing", "method": "GET"}"#.to_owned(), r#"needs "path""#),
        (r#"{"connection": "main", "product": "billing", "method": "GET", "path": "/x", "query": "a=1"}"#.to_owned(), "must be object"),
    ];
    rows.extend(paths.map(|path| (call("main", "billing", "GET", path), "must start with one")));
    let rows: Vec<_> = rows.iter().map(|(args, because)| ("call", args.as_str(), *because)).collect();
    refusals(&world, &rows).await;
    world
        .run(format!("insert into sluice.job (kind, args) values ('call', '{}')", call("main", "billing", "PATCH", "/items/1%20a/b")))
        .await;
}

/// A setting of the caller's session: with it, backslashes in constants meant something else, and every path was refused.
#[tokio::test]
async fn a_session_without_standard_conforming_strings_may_insert_calls_all_the_same() {
    let world = World::new().await;
    let call = |path: &str| format!(r#"'call', '{{"connection": "main", "product": "billing", "method": "GET", "path": "{path}"}}'"#);
    let insert = |path: &str| format!("set standard_conforming_strings = off; insert into sluice.job (kind, args) values ({})", call(path));
    world.run(insert("/items/1.5/ab")).await;
    let (code, message) = world.refused(insert("/a/../b")).await;
    assert!(code == "22023" && message.contains("must start with one"), "{code} {message}");
}

#[tokio::test]
async fn sizes_lanes_and_times_that_would_harm_everybody_else_are_refused() {
    let world = World::new().await;
    let call = |body: &str| {
        format!(
            "insert into sluice.job (kind, args) select 'call', jsonb_build_object('connection', 'main', 'product', 'billing', 'method', 'POST', 'path', '/x', 'body', {body})"
        )
    };
    world.run(call("repeat(E'\"', 1048576)")).await;
    assert!(world.refused(call("repeat('x', 1048577)")).await.1.contains("1 MiB"));
    let key = "insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'alone', 'key', ";
    world.run(format!("{key} repeat('k', 1024))")).await;
    assert!(world.refused(format!("{key} repeat('k', 1025))")).await.1.contains("1,024 bytes"));
    for (column, value, because) in [
        ("lane", "'urgent'", "unknown lane"),
        ("run_at", "'infinity'", "must be a time"),
        ("run_at", "'-infinity'", "must be a time"),
        ("run_at", "to_timestamp(extract(epoch from now()) * 1000)", "more than ten years ahead"),
        ("max_failures", "0", "from 1 to 1000"),
    ] {
        let insert =
            format!("insert into sluice.job (kind, args, {column}) values ('push', '{{\"sync\": \"customers\", \"key\": 1}}', {value})");
        let (_, message) = world.refused(insert).await;
        assert!(message.contains(because), "{message}");
    }
    assert_eq!(world.fold().await, 2, "what was accepted can be folded");
}

#[tokio::test]
async fn a_key_is_stored_as_its_columns_types_print_it_whatever_the_session_is_set_to() {
    let world = World::new().await;
    let upper = "6F9619FF-8B86-D011-B42D-00C04FC964FF";
    for (sync, given, stored) in [
        ("customers", r#""042""#, "42".to_owned()),
        ("customers", "42", "42".to_owned()),
        ("people", &format!("\"{upper}\""), upper.to_lowercase()),
        ("prices", r#"["2026-03-04", "a \"b\""]"#, r#"["2026-03-04", "a \"b\""]"#.to_owned()),
        ("prices", r#""[\"20260304\", \"x\"]""#, r#"["2026-03-04", "x"]"#.to_owned()),
        ("alone", r#""it is \"so\" ''ü''""#, "it is \"so\" 'ü'".to_owned()),
        ("alone", r#""""#, String::new()),
    ] {
        let key: String = world
            .get(format!(
                "begin; set local datestyle = 'German, DMY'; set local timezone = 'Asia/Tokyo';
                 insert into sluice.job (kind, args) values ('push', '{{\"sync\": \"{sync}\", \"key\": {given}}}'); commit;
                 select key from sluice.job order by id desc limit 1"
            ))
            .await;
        assert_eq!(key, stored, "{sync} {given}");
    }
    world.fold().await;
    let slots: i64 = world.get("select count(*) from sluice.slot where sync <> ''").await;
    assert_eq!(slots, 6, "042 and 42 are one record; the empty text is a key");
}

#[tokio::test]
async fn an_insert_that_is_rolled_back_leaves_no_job() {
    let world = World::new().await;
    let mut tx = world.db.begin().await.unwrap();
    sqlx::query(r#"select sluice.enqueue('push', '{"sync": "customers", "key": 1}')"#).execute(&mut tx).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(world.fold().await, 0);
}

/// What is stored in a column of this type is the key; what would become another value by being stored there is no key of the table.
#[tokio::test]
async fn a_key_has_the_scale_and_the_length_of_its_column_and_loses_nothing_by_it() {
    let world = World::new().await;
    world.run("update sluice.sync set key_types = array['numeric(10,2)', 'character(2)'] where name = 'prices'").await;
    for given in [r#"[43, "de"]"#, r#"["43.0", "de"]"#, r#"[43.00, "de "]"#] {
        let key: String = world.get(format!("select sluice.canonical_key('prices', '{given}')")).await;
        assert_eq!(key, r#"["43.00", "de"]"#, "{given}");
    }
    for given in [r#"[43.005, "de"]"#, r#"[43, "deutschland"]"#, r#"[99999999999, "de"]"#] {
        let (code, message) = world.refused(format!("select sluice.canonical_key('prices', '{given}')")).await;
        assert!(code == "22023" && message.contains("does not fit"), "{given}: {message}");
    }
}
