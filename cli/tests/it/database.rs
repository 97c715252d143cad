//! Commands that look into a database and act on it.

use serde_json::json;
use sluice_tests::TestDb;

use crate::sluice::Folder;

const CONFIG: &str = r#"
[connections.main]
client_id = "id"
client_secret = "secret"
refresh_token = "token"
organization_id = "60000000001"

[syncs.customers]
connection = "main"
table = "public.customers"
key = "id"
module = "billing/customers"
match_on = ["email"]
reference = "cf_sluice_key"

[syncs.customers.fields]
display_name = "name"
email = "email"
"#;

/// A database with three customers, and a folder whose configuration is published there.
pub(crate) async fn attached() -> (TestDb, Folder) {
    let db = TestDb::new().await;
    sqlx::raw_sql(
        "create table public.customers (id bigint primary key, name text not null, email text);
         insert into public.customers select n, 'Customer ' || n, n || '@example.com' from generate_series(1, 3) n",
    )
    .execute(db.db())
    .await
    .unwrap();
    let folder = Folder::with(CONFIG).on(db.url());
    let ended = folder.run(&["attach"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    (db, folder)
}

/// That a command refuses a configuration, saying all of this.
pub(crate) fn refuses(folder: &Folder, arguments: &[&str], code: i32, said: &[&str]) {
    let ended = folder.run(arguments);
    let text = format!("{}{}", ended.out, ended.err);
    assert!(ended.code == code && said.iter().all(|said| text.contains(said)), "{arguments:?}: {ended:?}");
}

#[tokio::test]
async fn an_expression_that_postgresql_refuses_is_refused_by_every_command_with_its_place_and_nothing_is_published() {
    let (db, folder) = attached().await;
    let hash = || async { sqlx::query_scalar::<_, String>("select hash from sluice.sync").fetch_one(db.db()).await.unwrap() };
    let published = hash().await;
    for (line, at, said) in [
        (
            "when = \"status <> 'draft'\"\n",
            "syncs.customers.when",
            "column \"status\" does not exist (at character 1: `status <> 'draft'`)",
        ),
        ("when = \"name\"\n", "syncs.customers.when", "boolean"),
        (
            "[[syncs.customers.watch]]\ntable = \"public.addresses\"\nkey = \"customer\"\n",
            "syncs.customers.watch.public.addresses",
            "at character 1: `customer`",
        ),
        ("[syncs.customers.columns]\nid = \"zoho ->> 1 ->> 2 ||\"\n", "syncs.customers.columns.id", "syntax error"),
    ] {
        sqlx::raw_sql("create table if not exists public.addresses (customer_id bigint)").execute(db.db()).await.unwrap();
        let text = match line {
            _ if line.contains(".columns]") => format!("{}{line}", CONFIG.replace("match_on", "direction = \"both\"\nmatch_on")),
            _ if line.starts_with('[') => format!("{CONFIG}{line}"),
            _ => CONFIG.replace("match_on", &format!("{line}match_on")),
        };
        let folder = Folder::with(&text).on(db.url());
        for (arguments, code) in [(&["check", "--offline"][..], 1), (&["attach"], 2), (&["trigger", "customers"], 2), (&["migrate"], 2)] {
            refuses(&folder, arguments, code, &[at, said]);
        }
    }
    let bad = CONFIG.replace("email = \"email\"", "full = { sql = \"upper(this.nme)\" }").replace("match_on = [\"email\"]\n", "");
    let folder_with_bad_field = Folder::with(&bad).on(db.url());
    refuses(
        &folder_with_bad_field,
        &["check", "--offline"],
        1,
        &["syncs.customers.fields.full", "at character 7: `this.nme)`", "Perhaps you meant"],
    );
    assert_eq!(hash().await, published);
    drop(folder);
}

#[tokio::test]
async fn a_module_that_nothing_can_be_pushed_to_is_refused_with_the_one_that_was_meant() {
    let (db, _folder) = attached().await;
    let folder = Folder::with(&CONFIG.replace("billing/customers", "billing/custmers")).on(db.url());
    for (arguments, code) in [(&["check", "--offline"][..], 1), (&["attach"], 2), (&["trigger", "customers"], 2)] {
        refuses(&folder, arguments, code, &["syncs.customers.module", "did you mean `customers`", "subscriptions"]);
    }
}

#[tokio::test]
async fn status_says_of_a_published_sync_that_no_longer_fits_its_table_what_its_records_wait_for() {
    let (db, folder) = attached().await;
    assert_eq!(folder.run(&["status", "--json"]).json()["notices"], json!([]));
    sqlx::query("alter table public.customers drop column email").execute(db.db()).await.unwrap();
    let status = folder.run(&["status", "--json"]).json();
    let notice = status["notices"][0].as_str().unwrap();
    assert!(notice.starts_with("cannot work: syncs.customers.fields.email: `customers` has no column `email`"), "{status}");
}

#[tokio::test]
async fn a_key_without_a_row_is_said_and_not_enqueued() {
    let (db, folder) = attached().await;
    refuses(&folder, &["trigger", "customers", "--key", "99"], 2, &["public.customers has no row 99"]);
    assert_eq!(folder.run(&["jobs", "list", "--json"]).json(), json!([]));
    sqlx::query("insert into sluice.link (sync, key, zoho_id, fields, synced_at) values ('customers', '99', 'z', '{}', now())")
        .execute(db.db())
        .await
        .unwrap();
    assert_eq!(
        folder.run(&["trigger", "customers", "--key", "99", "--json"]).json(),
        json!({ "enqueued": 1 }),
        "what was synced may have to be withdrawn"
    );
}

async fn dead_letters(db: &TestDb) {
    sqlx::query(
        "insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, field, message, created_at)
         select 'push', jsonb_build_object('sync', 'customers', 'key', n::text), 'customers', n::text, 'normal', case n when 3 then 'duplicate' else 'validation' end,
           'email', 'Invalid value passed for email', clock_timestamp() - n * interval '1 hour' from generate_series(1, 3) n",
    )
    .execute(db.db())
    .await
    .unwrap();
}

#[tokio::test]
async fn attaching_publishes_and_captures_once_and_detaching_takes_the_triggers_away() {
    let (_db, folder) = attached().await;
    let again = folder.run(&["attach", "--json"]).json();
    assert_eq!(again["published"]["changes"], json!([]));
    assert_eq!(again["attached"]["installed"], json!([]));
    assert_eq!(folder.run(&["detach", "--json"]).json()["detached"]["removed"], json!(["public.customers"]));
    let unknown = folder.run(&["attach", "custmers"]);
    assert!(unknown.code == 2 && unknown.err.contains("there is customers"), "{unknown:?}");
}

#[tokio::test]
async fn trigger_enqueues_what_is_due_and_jobs_can_be_listed_shown_and_withdrawn() {
    let (_db, folder) = attached().await;
    assert_eq!(folder.run(&["trigger", "customers", "--json"]).json(), json!({ "enqueued": 3 }));
    let jobs = folder.run(&["jobs", "list", "--json"]).json();
    assert_eq!(jobs.as_array().unwrap().len(), 3);
    assert_eq!((&jobs[0]["sync"], &jobs[0]["key"], &jobs[0]["state"]), (&json!("customers"), &json!("1"), &json!("available")));
    let one = folder.run(&["jobs", "list", "--where", "key = '2'", "--json"]).json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    let id = one[0]["id"].to_string();
    assert_eq!(folder.run(&["jobs", "show", &id, "--json"]).json()["result"], "waiting");
    assert_eq!(folder.run(&["jobs", "cancel", &id, "--json"]).json()["cancelled"], json!([one[0]["id"]]));
    assert_eq!(folder.run(&["jobs", "show", &id, "--json"]).json()["result"], "cancelled");
    let again = folder.run(&["jobs", "cancel", &id]);
    assert!(again.code == 1 && again.err.contains(&format!("job {id} was withdrawn already")), "{again:?}");
}

#[tokio::test]
async fn a_key_or_a_condition_that_cannot_be_is_a_mistake_of_the_caller() {
    let (_db, folder) = attached().await;
    for (arguments, said) in [
        (&["trigger", "customers", "--key", "abc"][..], "bigint"),
        (&["jobs", "list", "--where", "colour = 1"], "colour"),
        (&["dlq", "show", "12345"], "no dead letter"),
        (&["dlq", "requeue", "12345"], "no open dead letter"),
        (&["dlq", "requeue"], "--all"),
        (&["pause", "--sync", "nonsense"], "unknown sync"),
    ] {
        let ended = folder.run(arguments);
        assert!(ended.code == 2 && ended.err.contains(said), "{arguments:?}: {ended:?}");
    }
}

#[tokio::test]
async fn acting_on_many_dead_letters_is_planned_first_and_done_only_when_told() {
    let (db, folder) = attached().await;
    dead_letters(&db).await;
    assert_eq!(folder.run(&["dlq", "list", "--class", "validation", "--since", "90m", "--json"]).json()[0]["key"], "1");
    let planned = folder.run(&["dlq", "requeue", "--class", "validation"]);
    assert!(
        planned.code == 2 && planned.err.contains("2 dead letter(s) would be requeued") && planned.err.contains("--yes"),
        "{planned:?}"
    );
    assert_eq!(folder.run(&["dlq", "list", "--json"]).json().as_array().unwrap().len(), 3, "a plan does nothing");
    let done = folder.run(&["dlq", "requeue", "--class", "validation", "--yes", "--json"]).json();
    assert_eq!(done["requeued"].as_array().unwrap().len(), 2);
    assert_eq!(folder.run(&["jobs", "list", "--json"]).json()[0]["lane"], "interactive");
    assert_eq!(folder.run(&["dlq", "discard", "--all", "--yes"]).code, 0);
    assert_eq!(folder.run(&["dlq", "list", "--json"]).json(), json!([]));
    assert_eq!(folder.run(&["dlq", "list", "--all", "--json"]).json().as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn status_shows_the_columns_of_the_contract_what_is_paused_and_what_is_held() {
    let (db, folder) = attached().await;
    assert_eq!(folder.run(&["pause", "--sync", "customers"]).code, 0);
    let status = folder.run(&["status", "--json"]).json();
    for column in ["sync", "total", "synced", "pending", "running", "retrying", "failed", "oldest_due_at", "last_success_at"] {
        assert!(status["syncs"][0].get(column).is_some(), "{column}: {status}");
    }
    assert!(status["notices"][0].as_str().unwrap().starts_with("paused: sync customers"), "{status}");
    assert_eq!(folder.run(&["resume", "--sync", "customers"]).code, 0);
    assert_eq!(folder.run(&["status", "--json"]).json()["notices"], json!([]));
    sqlx::query(
        "insert into sluice.held_change (sync, reason, operation) values ('customers', 'public.customers was truncated', 'truncate')",
    )
    .execute(db.db())
    .await
    .unwrap();
    let held = folder.run(&["status", "--json"]).json()["notices"].clone();
    assert!(held[0].as_str().unwrap().starts_with("held: 1 change(s) of customers since "), "{held}");
    assert!(folder.run(&["status"]).out.contains("COUNTED"), "a total without its time would pass for today's");
    let limits = folder.run(&["budget", "--json"]).json();
    let billing =
        limits.as_array().unwrap().iter().find(|row| row["product"] == "billing" && row["limit_kind"] == "calls_per_window").unwrap();
    assert_eq!((&billing["cap"], &billing["used"]), (&json!(100), &json!(0)));
}

#[tokio::test]
async fn check_says_yes_when_all_is_well_and_no_when_a_column_is_missing() {
    let (db, folder) = attached().await;
    let well = folder.run(&["check", "--offline", "--json"]).json();
    let messages = well["findings"].to_string();
    assert!(well["errors"] == 0 && messages.contains("found again among new records by display_name, email, cf_sluice_key"), "{well}");
    let drop_today =
        "do $$ begin execute format('drop table sluice.attempt_%s', to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD')); end $$";
    sqlx::raw_sql(drop_today).execute(db.db()).await.unwrap();
    let forgetful = folder.run(&["check", "--offline"]);
    assert!(forgetful.code == 0 && forgetful.out.contains("sluice.attempt has no partition for today"), "{forgetful:?}");
    sqlx::query("alter table public.customers rename column email to mail").execute(db.db()).await.unwrap();
    let ill = folder.run(&["check", "--offline", "--json"]);
    assert!(ill.code == 1 && ill.out.contains("syncs.customers.fields.email"), "{ill:?}");
}

#[tokio::test]
async fn check_looks_at_the_tables_that_lists_become_rows_of() {
    let db = TestDb::new().await;
    let tables =
        "create table invoices (id bigint primary key, number text); create table lines (invoice_id bigint, zoho_id text, price numeric);
         create schema apart; create table apart.lines (invoice_id bigint, zoho_id text unique, price numeric)";
    sqlx::raw_sql(tables).execute(db.db()).await.unwrap();
    let sync = "[syncs.invoices]\nconnection = \"main\"\ntable = \"invoices\"\nkey = \"id\"\nmodule = \"books/invoices\"\ndirection = \"pull\"\n\
                [syncs.invoices.fields]\ninvoice_number = \"number\"\nline_items = { rows = \"TABLE\", parent = \"invoice_id\", match_on = \"line_item_id\", item = { line_item_id = \"zoho_id\", rate = \"price\" } }\n";
    let start = CONFIG.find("[syncs.customers]").unwrap();
    let with = |table: &str| Folder::with(&format!("{}{}", &CONFIG[..start], sync.replace("TABLE", table))).on(db.url());
    refuses(&with("lines"), &["check", "--offline"], 1, &["run: create unique index on lines (invoice_id, zoho_id);"]);
    let well = with("apart.lines").run(&["check", "--offline"]);
    assert!(well.out.contains("fields.line_items: its objects are rows of apart.lines, told apart by invoice_id and zoho_id"), "{well:?}");
    // what a new row must have and is not given
    let given = ["`invoices`.`id` must not be null and has no default", "`apart.lines`.`unit` must not be null"];
    sqlx::raw_sql("alter table apart.lines add unit text not null").execute(db.db()).await.unwrap();
    let lacking = with("apart.lines").run(&["check", "--offline"]);
    assert!(lacking.code == 0 && given.iter().all(|said| lacking.out.contains(said)), "{lacking:?}");
    sqlx::raw_sql("alter table invoices alter id add generated always as identity; alter table apart.lines alter unit set default 'piece'")
        .execute(db.db())
        .await
        .unwrap();
    let well = with("apart.lines").run(&["check", "--offline"]);
    assert!(!well.out.contains("must not be null"), "{well:?}");
}

#[tokio::test]
async fn what_a_brake_holds_is_listed_shown_and_decided_with_a_plan_first() {
    let (db, folder) = attached().await;
    sqlx::raw_sql(
        "insert into sluice.held_change (sync, reason, operation, records, sample)
         values ('customers', '3 records would be changed', 'change', 3, '[{\"key\": \"1\", \"operation\": \"update\", \"changed\": {\"display_name\": {\"old\": \"a\", \"new\": null}}}]');
         insert into sluice.held_record (held_id, sync, key, operation) select 1, 'customers', n::text, 'update' from generate_series(1, 3) n",
    )
    .execute(db.db())
    .await
    .unwrap();
    let listed = folder.run(&["held", "list", "--sync", "customers", "--json"]).json();
    assert_eq!((listed[0]["id"].as_i64(), listed[0]["records"].as_i64()), (Some(1), Some(3)), "{listed}");
    assert_eq!(folder.run(&["held", "show", "1", "--json"]).json()["held_records"][2]["key"], "3");
    let named = folder.run(&["held", "approve", "1", "03"]);
    assert!(
        named.code == 2
            && named.err.contains("1 named of the 3")
            && named.err.contains("\n    update 3")
            && !named.err.contains("update 1"),
        "{named:?}"
    );
    refuses(&folder, &["held", "approve", "1", "9"], 2, &["held change 1 does not hold customers 9"]);
    let asked = folder.run(&["held", "approve", "1", "--limit", "1"]);
    assert!(asked.code == 2 && asked.err.contains("display_name: \"a\" → null") && asked.err.contains("add --yes"), "{asked:?}");
    assert_eq!(folder.run(&["held", "approve", "1", "--limit", "1", "--yes", "--json"]).json(), json!({ "id": 1, "jobs": 1, "left": 2 }));
    assert_eq!(folder.run(&["held", "approve", "1", "3", "--yes", "--json"]).json(), json!({ "id": 1, "jobs": 1, "left": 1 }));
    assert_eq!(folder.run(&["held", "reject", "1", "--yes", "--json"]).json()["resolution"], "rejected");
    assert_eq!(folder.run(&["held", "list", "--json"]).json(), json!([]));
    for act in [&["held", "approve", "1", "--yes"][..], &["held", "approve", "1", "2"], &["held", "reject", "1"]] {
        let ended = folder.run(act);
        assert!(
            ended.code == 2 && ended.err.contains("held change 1 was decided already: rejected") && !ended.err.contains("would be"),
            "{ended:?}"
        );
    }
    let keys: Vec<String> = sqlx::query_scalar("select key from sluice.job order by id").fetch_all(db.db()).await.unwrap();
    assert_eq!(keys, ["1", "3"]);
}

#[tokio::test]
async fn events_are_listed_reported_and_replayed_by_number_or_after_a_plan() {
    let (db, folder) = attached().await;
    sqlx::raw_sql(
        "update sluice.sync set direction = 'both';
         insert into sluice.shape (connection, product, kind, sync, batch_max) values ('main', 'billing', 'pull', 'customers', 1) on conflict do nothing;
         insert into sluice.event (source, connection, method, headers, query, body, verdict, mode, outcome, reason, sync, zoho_ids)
         select 'events', 'main', 'POST', '{}', '{}', 'some body', v, 'quarantine', o, r, s, case when s is null then '{}'::text[] else '{z1,z2}' end
         from (values ('verified', 'applied', null, 'customers'), ('unsigned', 'quarantined', 'no proof', 'customers'),
                      ('bad_signature', 'ignored', 'it names no record', null)) as t (v, o, r, s)",
    )
    .execute(db.db())
    .await
    .unwrap();

    let listed = folder.run(&["events", "list", "--source", "events", "--since", "1h", "--json"]).json();
    assert_eq!(listed.as_array().unwrap().iter().map(|event| event["id"].as_i64().unwrap()).collect::<Vec<_>>(), [3, 2, 1]);
    assert_eq!(folder.run(&["events", "list", "--where", "verdict = 'unsigned'", "--json"]).json()[0]["id"], 2);
    assert_eq!(folder.run(&["events", "list", "--outcome", "stored", "--json"]).json(), json!([]));
    assert_eq!(folder.run(&["events", "show", "2", "--json"]).json()["body"], "some body");
    let report = folder.run(&["events", "report", "--json"]).json();
    let would = |verdict: &str| report.as_array().unwrap().iter().find(|row| row["verdict"] == verdict).unwrap()["would_refuse"].clone();
    assert_eq!((would("verified"), would("unsigned")), (json!(0), json!(1)));

    refuses(&folder, &["events", "replay"], 2, &["--source"]);
    refuses(&folder, &["events", "replay", "--verdict", "unsigned"], 2, &["1 event(s) would be replayed: 2 record(s)", "--yes"]);
    refuses(&folder, &["events", "replay", "3"], 1, &["names no record"]);
    refuses(&folder, &["events", "show", "77"], 2, &["no event 77"]);
    refuses(&folder, &["events", "replay", "77"], 2, &["no event 77"]);
    assert_eq!(folder.run(&["events", "replay", "2", "--json"]).json()["replayed"][0]["id"], 2);
    let jobs: Vec<(String, String)> =
        sqlx::query_as("select key, lane from sluice.job where sync = 'customers' order by key").fetch_all(db.db()).await.unwrap();
    assert_eq!(jobs, ["zoho:z1", "zoho:z2"].map(|key| (key.to_owned(), "interactive".to_owned())));
}

#[tokio::test]
async fn an_unknown_sync_or_number_is_a_mistake_of_the_caller_in_every_command() {
    let (_db, folder) = attached().await;
    for (group, act) in [
        ("jobs", "list"),
        ("jobs", "cancel"),
        ("dlq", "list"),
        ("dlq", "requeue"),
        ("dlq", "discard"),
        ("events", "list"),
        ("events", "replay"),
        ("conflicts", "list"),
        ("held", "list"),
        ("runs", "list"),
    ] {
        refuses(&folder, &[group, act, "--sync", "nope"], 2, &["unknown sync \"nope\"; there is customers"]);
    }
    for (group, act) in [
        ("jobs", "show"),
        ("jobs", "cancel"),
        ("dlq", "requeue"),
        ("events", "replay"),
        ("held", "approve"),
        ("runs", "show"),
        ("conflicts", "show"),
    ] {
        refuses(&folder, &[group, act, "999999"], 2, &["999999"]);
    }
}

#[tokio::test]
async fn pause_and_resume_say_in_json_what_became_of_it_and_whether_anything_was_paused() {
    let (_db, folder) = attached().await;
    for (target, paused, idle) in [
        (&["--sync", "customers"][..], "sync customers resumed", "sync customers was not paused"),
        (&["--connection", "main"], "connection main resumed", "connection main was not paused"),
        (&[], "every connection resumed", "no connection was paused"),
    ] {
        let run = |act: &str| folder.run(&[&[act, "--json"], target].concat()).json();
        assert_eq!((&run("pause")["paused"], &run("resume")["message"]), (&json!(true), &json!(paused)));
        let again = run("resume");
        assert_eq!((&again["paused"], &again["message"]), (&json!(false), &json!(idle)));
    }
    refuses(&folder, &["resume", "--sync", "nope"], 2, &["unknown sync"]);
}

#[tokio::test]
async fn a_key_of_another_type_than_was_published_is_said_by_check_status_and_the_refusal_and_attach_publishes_it() {
    let (db, folder) = attached().await;
    sqlx::raw_sql(
        "alter table public.customers alter column id type text;
         insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message)
         values ('push', '{\"sync\": \"customers\", \"key\": \"A-1\"}', 'customers', 'A-1', 'normal', 'payload', 'invalid input syntax')",
    )
    .execute(db.db())
    .await
    .unwrap();
    let said = "the key of public.customers is text, but was published as bigint";
    refuses(&folder, &["check", "--offline"], 1, &["syncs.customers.key", said, "sluice attach"]);
    refuses(&folder, &["status"], 0, &[said]);
    refuses(&folder, &["dlq", "requeue", "1"], 2, &["which is bigint", "hint: if the column has another type by now, \"sluice attach\""]);
    assert_eq!(folder.run(&["attach"]).code, 0);
    let checked = folder.run(&["check", "--offline"]);
    assert!(checked.code == 0 && !checked.out.contains("was published as"), "{checked:?}");
    assert_eq!(folder.run(&["dlq", "requeue", "1"]).code, 0);
}

#[tokio::test]
async fn status_says_of_a_table_that_was_made_anew_that_its_changes_are_not_captured() {
    let (db, folder) = attached().await;
    sqlx::raw_sql("drop table public.customers; create table public.customers (id bigint primary key, name text not null, email text)")
        .execute(db.db())
        .await
        .unwrap();
    refuses(&folder, &["status"], 0, &["not captured: public.customers: it has no capture triggers: run \"sluice attach\""]);
}

#[tokio::test]
async fn a_changed_brake_concerns_no_linked_record_and_a_changed_mapping_all() {
    let (db, _folder) = attached().await;
    sqlx::query("insert into sluice.link (sync, key, zoho_id, fields, synced_at) values ('customers', '1', 'z', '{}', now())")
        .execute(db.db())
        .await
        .unwrap();
    let braked = CONFIG.replace("match_on", "brake = { max_changes = 50 }\nmatch_on");
    let ended = Folder::with(&braked).on(db.url()).run(&["attach"]);
    assert!(ended.code == 0 && ended.out.contains("sync customers: changed\n"), "{ended:?}");
    let mapped = braked.replace("display_name = \"name\"", "display_name = \"email\"");
    let ended = Folder::with(&mapped).on(db.url()).run(&["attach"]);
    assert!(ended.code == 0 && ended.out.contains("1 linked records keep what they have"), "{ended:?}");
}

#[tokio::test]
async fn check_asks_for_the_right_to_see_rows_that_a_policy_hides() {
    let (db, folder) = attached().await;
    let tables = "do $$ begin create role sluice_cli_reader; exception when duplicate_object or unique_violation then null; end $$;
                  grant select on public.customers to sluice_cli_reader; alter table public.customers enable row level security;
                  create policy everything on public.customers using (true);";
    sqlx::raw_sql(tables).execute(db.db()).await.unwrap();
    assert_eq!(folder.run(&["check", "--offline"]).code, 0, "it does not apply to a superuser");
    let folder = Folder::with(&format!("{CONFIG}\n[database]\nexpression_role = \"sluice_cli_reader\"\n")).on(db.url());
    let said = [
        "syncs.customers.table",
        "row-level security",
        "alter role \"sluice_cli_reader\" bypassrls;",
        "grant \"",
        "to \"sluice_cli_reader\";",
    ];
    for (arguments, code) in [(&["check", "--offline"][..], 1), (&["attach"], 2), (&["trigger", "customers"], 2)] {
        refuses(&folder, arguments, code, &said);
    }
    sqlx::raw_sql("alter table public.customers disable row level security").execute(db.db()).await.unwrap();
    assert_eq!(folder.run(&["check", "--offline"]).code, 0);
}
