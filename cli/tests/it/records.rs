//! Commands about single records: their timeline, and conflicts over their fields.

use serde_json::json;
use sluice_tests::TestDb;

use crate::database::{attached, refuses};
use crate::sluice::{Ended, Folder};

const HISTORY: &str = "
    insert into sluice.link (sync, key, zoho_id, fields, synced_at) values ('customers', '1', 'z1', '{}', now() - interval '1 hour');
    insert into sluice.change_history (relation, operation, kept, relid, layout, keys, touched, captured_at, consumed_at)
    select 'public.customers', 'update', 'id', 'public.customers'::regclass, sluice.layout('public.customers'::regclass), '{1}'::text[], '{2}'::bigint[], array[now() - interval '3 hours'], now() - interval '3 hours'
    union all select 'public.customers', 'update', 'id', 'public.customers'::regclass, sluice.layout('public.customers'::regclass), '{1,2}', '{2,2}', array[now() - interval '2 hours', now() - interval '2 hours'], now() - interval '2 hours'
    union all select 'public.customers', 'update', 'id', 'public.customers'::regclass, sluice.layout('public.customers'::regclass), '{1}', '{2}', array[now() - interval '90 min'], now() - interval '90 min';
    insert into sluice.job_history (job_id, kind, args, sync, key, lane, run_at, created_at, created_by, result, finished_at)
    values (9, 'push', '{}', 'customers', '1', 'normal', now() - interval '2 hours', now() - interval '2 hours', 'app', 'done', now() - interval '119 min');
    insert into sluice.attempt (at, batch, worker, connection, product, kind, sync, key, attempt, outcome, http_status, calls, ms, request, response)
    values (now() - interval '119 min', 1, 'w', 'main', 'billing', 'push', 'customers', '1', 1, 'done', 200, 1, 40, '{\"display_name\": \"A\"}', '{\"code\": 0}');
    insert into sluice.attempt (at, batch, worker, connection, product, kind, sync, key, attempt, outcome, reason)
    values (now() - interval '100 min', 2, 'w', 'main', 'billing', 'push', 'customers', '1', 1, 'done', 'no_change');
    insert into sluice.held_change (sync, reason, operation, records, resolution) values ('customers', '3 records would be changed', 'change', 3, 'rejected');
    insert into sluice.held_record (held_id, sync, key, operation, held_at, resolution, resolved_at)
    values (1, 'customers', '1', 'update', now() - interval '90 min', 'rejected', now() - interval '80 min');
    insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, field, message, resolution, resolved_by, resolved_at, created_at)
    values ('push', '{}', 'customers', '1', 'normal', 'validation', 'email', 'not an address', 'superseded', 'sluice', now() - interval '69 min', now() - interval '70 min');
    insert into sluice.conflict (sync, key, zoho_id, field, base, local, zoho, reason, created_at)
    values ('customers', '1', 'z1', 'email', '{\"local\": \"a\", \"zoho\": \"a\"}', '\"b\"', '\"c\"', 'the policy is manual', now() - interval '50 min');
    insert into sluice.event (source, connection, method, headers, query, body, verdict, mode, outcome, reason, sync, zoho_ids, received_at)
    values ('crm', 'main', 'POST', '{}', '{}', '', 'verified', 'enforce', 'echo', 'it tells of our own write', 'customers', '{z1}', now() - interval '40 min');";

#[tokio::test]
async fn a_records_timeline_says_what_happened_what_was_done_and_why_not() {
    let (db, folder) = attached().await;
    // the hours of the rows below may lie on the day before
    sqlx::raw_sql("select sluice.keep_partitions(1, 90)").execute(db.db()).await.unwrap();
    for parent in ["change_history", "job_history", "attempt"] {
        let yesterday = format!(
            "do $$ declare d date := (now() at time zone 'UTC')::date - 1; begin
               execute format('create table sluice.{parent}_%s partition of sluice.{parent} for values from (%L) to (%L)', to_char(d, 'YYYYMMDD'), d || ' 00:00+00', d + 1 || ' 00:00+00');
             end $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(yesterday)).execute(db.db()).await.unwrap();
    }
    sqlx::raw_sql(HISTORY).execute(db.db()).await.unwrap();

    let timeline = folder.run(&["explain", "customers", "01", "--json"]).json();
    let lines: Vec<(&str, &str)> =
        timeline.as_array().unwrap().iter().map(|one| (one["what"].as_str().unwrap(), one["says"].as_str().unwrap())).collect();
    let expected = [
        ("change", "row updated: name: no call, no mapped column or no mapped value differs from what was agreed on"),
        ("change", "row updated: name"),
        ("job", "push asked for by app, lane normal: done at "),
        ("attempt", "push: done (200), 1 call(s), 40 ms"),
        ("attempt", "no call: no mapped value differs from what was agreed on"),
        ("change", "row updated: name: held for a person"),
        ("held", "update held, number 1: 3 records would be changed"),
        ("held", "held change 1: this record rejected"),
        ("dead_letter", "gave up, validation of email: not an address"),
        ("dead_letter", "dead letter 1 superseded by sluice"),
        ("conflict", "email changed on both sides: here \"b\", in Zoho \"c\"; the policy is manual"),
        ("event", "webhook 1 of crm, verified: echo, it tells of our own write"),
        ("now", "synced, Zoho record z1, last equal at "),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for ((what, says), (expected_what, expected_says)) in lines.iter().zip(expected) {
        assert!(*what == expected_what && says.starts_with(expected_says), "{what} {says}: not {expected_says}");
    }
    assert_eq!(timeline[3]["detail"]["request"]["display_name"], "A");
    let by_zoho = folder.run(&["explain", "customers", "--zoho-id", "z1", "--since", "1h", "--json"]).json();
    assert_eq!(by_zoho.as_array().unwrap().len(), 3, "{by_zoho}");
    let unlinked = folder.run(&["explain", "customers", "--zoho-id", "z9"]);
    assert!(unlinked.out.contains("no row is linked to Zoho record z9"), "{unlinked:?}");
    assert!(folder.run(&["explain", "customers", "1"]).out.contains("sent: {\"display_name\":\"A\"}"));
    refuses(&folder, &["explain", "nothing", "1"], 2, &["unknown sync"]);
}

#[tokio::test]
async fn conflicts_are_listed_shown_and_resolved_by_filter_with_a_plan_first() {
    let (db, folder) = attached().await;
    sqlx::raw_sql(
        "insert into sluice.conflict (sync, key, zoho_id, field, base, local, zoho, reason)
         select 'customers', n::text, 'z' || n, 'email', '{\"local\": \"a\", \"zoho\": \"a\"}', '\"b\"', '\"c\"', 'the policy is manual' from generate_series(1, 3) n",
    )
    .execute(db.db())
    .await
    .unwrap();
    refuses(&folder, &["status"], 0, &["undecided: 3 field(s) of customers, since 20"]);
    assert_eq!(folder.run(&["conflicts", "list", "--where", "key = '2'", "--json"]).json()[0]["id"], 2);
    assert_eq!(folder.run(&["conflicts", "show", "2", "--json"]).json()["base"], json!({ "local": "a", "zoho": "a" }));
    refuses(
        &folder,
        &["conflicts", "resolve", "--side", "local", "--sync", "customers"],
        2,
        &["3 conflict(s)", "customers email", "add --yes"],
    );
    refuses(&folder, &["conflicts", "resolve", "--side", "local"], 2, &["name the conflicts"]);
}

#[tokio::test]
async fn runs_are_listed_newest_first_with_their_sums() {
    let (db, folder) = attached().await;
    sqlx::raw_sql("insert into sluice.run (kind, sync, state, total, messages) values ('poll', 'customers', 'done', 3, '[]'), ('trigger', 'customers', 'running', 5, '[\"a message\"]')")
        .execute(db.db())
        .await
        .unwrap();
    let listed = folder.run(&["runs", "list", "--sync", "customers", "--json"]).json();
    assert_eq!((listed[0]["total"].as_i64(), listed[1]["total"].as_i64()), (Some(5), Some(3)), "{listed}");
    assert!(folder.run(&["runs", "show", "2"]).out.contains("a message"));
    refuses(&folder, &["runs", "show", "9"], 2, &["there is no run 9"]);
}

#[tokio::test]
async fn one_zoho_record_is_asked_for_by_its_id_where_the_sync_pulls() {
    let (db, pushing) = attached().await;
    refuses(&pushing, &["trigger", "customers", "--zoho-id", "460000000026049"], 2, &["only pushes"]);
    sqlx::raw_sql("create table public.products (id bigint primary key, name text)").execute(db.db()).await.unwrap();
    let config = "[connections.main]\nclient_id = \"id\"\nclient_secret = \"secret\"\nrefresh_token = \"token\"\norganization_id = \"60000000001\"\n
        [syncs.products]\nconnection = \"main\"\ntable = \"public.products\"\nkey = \"id\"\nmodule = \"inventory/items\"\ndirection = \"pull\"\ninserts = false\nfields = { name = \"name\" }\n";
    let folder = Folder::with(config).on(db.url());
    let ended = folder.run(&["attach", "--retire"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(folder.run(&["trigger", "products", "--zoho-id", "460000000026049", "--json"]).json(), json!({ "enqueued": 1 }));
    let job: (String, String, String) = sqlx::query_as("select kind, key, lane from sluice.job").fetch_one(db.db()).await.unwrap();
    assert_eq!(job, ("pull".to_owned(), "zoho:460000000026049".to_owned(), "interactive".to_owned()));
    assert_eq!(folder.run(&["explain", "products", "--zoho-id", "460000000026049", "--json"]).json()[0]["what"], "job");
}

#[tokio::test]
async fn an_address_of_an_alert_is_tested_without_telling_it() {
    let (_db, folder) = attached().await;
    let alerting = Folder::with("[alerts.ops]\nurl = \"http://127.0.0.1:1/secret-path\"\n");
    let ended = alerting.run(&["alerts", "test", "ops"]);
    assert!(ended.code == 1 && ended.out.contains("not sent: no answer") && !ended.out.contains("secret-path"), "{ended:?}");
    refuses(&alerting, &["alerts", "test", "nobody"], 2, &["unknown alert \"nobody\"; there are: ops"]);
    assert_eq!(folder.run(&["alerts", "list", "--json"]).json(), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn reconcile_asks_for_one_sweep_at_a_time_and_waiting_ends_with_what_became_of_it() {
    let (db, folder) = attached().await;
    let run = folder.run(&["reconcile", "customers", "--json"]).json();
    assert_eq!((&run["kind"], &run["sync"], &run["state"]), (&json!("reconcile"), &json!("customers"), &json!("running")));
    assert_eq!(folder.run(&["reconcile", "customers", "--lane", "interactive", "--json"]).json()["id"], run["id"]);
    let jobs: Vec<(String, String)> =
        sqlx::query_as("select key, lane from sluice.job where kind = 'reconcile' order by id").fetch_all(db.db()).await.unwrap();
    assert_eq!(jobs, [("reconcile:customers".into(), "reconcile".into()), ("reconcile:customers".into(), "interactive".into())]);
    refuses(&folder, &["reconcile", "customers", "--lane", "soon"], 2, &["unknown lane"]);
    refuses(&folder, &["reconcile", "nobody"], 2, &["unknown sync \"nobody\"; there is customers"]);
    let elsewhere = Folder::with("").on(db.url());
    assert_eq!(elsewhere.run(&["reconcile", "customers", "--json"]).code, 0, "what is published needs no file");
    refuses(&elsewhere, &["trigger", "customers"], 2, &["no sync `customers`: no sluice.toml with syncs is read here; go to its folder"]);

    let end = |state: &str| format!("update sluice.run set state = '{state}' where state = 'running'");
    sqlx::raw_sql(sqlx::AssertSqlSafe(end("done"))).execute(db.db()).await.unwrap();
    for (state, code) in [("done", 0), ("held", 1), ("failed", 1)] {
        let ended = waits(&db, &folder, vec![end(state)]).await;
        assert!(ended.code == code && ended.out.contains(state), "{ended:?}");
    }
    // What it asked for is read and applied first.
    let asked = "insert into sluice.sighting (sync, zoho_id, complete, seen_at, run_id) select 'customers', 'y', false, now(), max(id) from sluice.run;
        insert into sluice.link (sync, key, zoho_id, fields) values ('customers', '1', 'y', '{}');
        insert into sluice.job (kind, args) values ('push', '{\"sync\": \"customers\", \"key\": 1}')";
    let read = "delete from sluice.job where kind = 'push'; insert into sluice.local_write (sync, key, columns, pull)
        select 'customers', '1', '{}', jsonb_build_object('run_id', max(id)) from sluice.run";
    let applied = "delete from sluice.local_write";
    let ended = waits(&db, &folder, vec![format!("{asked}; {}", end("done")), read.to_owned(), applied.to_owned()]).await;
    assert_eq!(ended.code, 0, "{ended:?}");

    // A reading that nobody will look at any more: it is not waited for, whatever the counts say.
    sqlx::query("insert into sluice.sighting (sync, zoho_id, complete, seen_at, run_id) select 'customers', 'z', false, now(), max(id) + 1 from sluice.run")
        .execute(db.db())
        .await
        .unwrap();
    let ended = waits(&db, &folder, vec![end("done")]).await;
    assert_eq!(ended.code, 0, "{ended:?}");
}

/// `sluice reconcile customers --wait`, during which this happens, each when the command has looked anew and waits.
async fn waits(db: &TestDb, folder: &Folder, happens: Vec<String>) -> Ended {
    let other = db.db().clone();
    let happening = tokio::spawn(async move {
        for sql in happens {
            let now: chrono::DateTime<chrono::Utc> = sqlx::query_scalar("select clock_timestamp()").fetch_one(&other).await.unwrap();
            sluice_tests::wait_until(std::time::Duration::from_secs(60), || async {
                let looked = "select exists (select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
                    and query like 'select to_jsonb(r) as \"run!\"%' and state = 'idle' and query_start > $1)";
                sqlx::query_scalar(looked).bind(now).fetch_one(&other).await.unwrap()
            })
            .await;
            sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&other).await.unwrap();
        }
    });
    let ended = folder.run(&["reconcile", "customers", "--wait"]);
    happening.await.unwrap();
    ended
}
