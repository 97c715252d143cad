//! CRM's long lists, read by bulk jobs: the rows are those that pages would have brought, whatever the file is like and whatever becomes of it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Setup, World, sized};

const TABLES: &str = "
    create table accounts (id bigint generated always as identity primary key, zoho_id text, name text);
    create table deals (id bigint generated always as identity primary key, zoho_id text, name text, stage text, amount numeric(12, 2),
      closing date, won boolean, topics jsonb, account_id bigint);
    create table paged (like deals including all);";

const ZOHO: &str = r#"
    [[crm.fields]]
    module = "Deals"
    api_name = "Won"
    data_type = "boolean"
    [[crm.fields]]
    module = "Deals"
    api_name = "Topics"
    data_type = "multiselectpicklist"
"#;

/// Deals that come into a table; the same into another table by pages.
fn deals(settings: &str, zoho: &'static str) -> Setup {
    let sync = |name: &str, settings: &str| {
        format!(
            r#"
            [syncs.{name}]
            connection = "main"
            table = "{name}"
            key = "id"
            module = "crm/Deals"
            direction = "pull"
            on_delete = "delete"
            writeback = {{ id = "zoho_id" }}
            {settings}
            [syncs.{name}.fields]
            Deal_Name = "name"
            Stage = "stage"
            Amount = "amount"
            Closing_Date = "closing"
            Won = "won"
            Topics = "topics"
            Account_Name = {{ ref = "accounts", column = "account_id" }}
            "#
        )
    };
    let config = format!(
        r#"{}{}
        [syncs.accounts]
        connection = "main"
        table = "accounts"
        key = "id"
        module = "crm/Accounts"
        direction = "pull"
        writeback = {{ id = "zoho_id" }}
        fields = {{ Account_Name = "name" }}"#,
        sync("deals", settings),
        sync("paged", "bulk_read = \"never\"")
    );
    Setup { request_timeout: Duration::from_secs(30), scenario: zoho, ..Setup::new(TABLES, config) }
}

/// As many deals of an account, each some seconds younger than the one before; some of them lack what others have.
async fn seed(world: &World, count: i64) -> Vec<String> {
    let account = world.zoho.put("crm", "Accounts", None, json!({"Account_Name": "Acme"})).await;
    world.poll("accounts").await;
    let full = json!({"Deal_Name": "Deal, \"{n}\"\nof many", "Stage": "Proposal", "Amount": 1234.5, "Closing_Date": "2026-02-03", "Won": true,
        "Topics": ["A", "B"], "Account_Name": {"id": account["id"]}});
    let bare = json!({"Deal_Name": "Bare {n}", "Stage": null, "Amount": 7, "Closing_Date": null, "Won": false, "Topics": null, "Account_Name": null});
    let at = |count: i64, record: &Value, age: i64, step: f64| json!({"product": "crm", "module": "Deals", "organization": "", "count": count, "record": record, "age_seconds": age, "step_seconds": step});
    let mut ids = Vec::new();
    for (count, record) in [(20, &bare), (count - 20, &full)] {
        let age = if ids.is_empty() { 864_000 } else { 860_000 };
        let made = world.zoho.post("seed", at(count, record, age, 10.0)).await["ids"].clone();
        ids.extend(made.as_array().expect("ids").iter().filter_map(Value::as_str).map(str::to_owned));
    }
    ids
}

const ROWS: &str = "select zoho_id, name, stage, amount::text, closing, won, topics, account_id from";

async fn same_rows(world: &World) {
    let (deals, paged) = (world.rows(&format!("{ROWS} deals order by 1")).await, world.rows(&format!("{ROWS} paged order by 1")).await);
    assert_eq!(deals, paged);
    let links = |sync: &str| {
        // of a lookup the file has the id, and no name
        format!(
            "select zoho_id, zoho_modified_at, fields #- '{{Account_Name,zoho,name}}' as fields, gone_at from sluice.link where sync = '{sync}' order by 1"
        )
    };
    assert_eq!(world.rows(&links("deals")).await, world.rows(&links("paged")).await);
}

/// How often Zoho was asked for a list's page, a job, its state, its file, and records by their ids.
async fn asked(world: &World) -> [usize; 5] {
    let calls = world.zoho.calls().await;
    let count = |fits: &dyn Fn(&Value) -> bool| calls.iter().filter(|call| fits(call)).count();
    let text = |call: &Value, key: &str| call[key].as_str().unwrap_or_default().to_owned();
    let operation = |of: &'static str| move |call: &Value| text(call, "operation") == of;
    let by_ids = |call: &Value| text(call, "query").contains("ids=");
    let list = operation("/crm/v8/{module}");
    [
        count(&|call| list(call) && text(call, "method") == "GET" && !by_ids(call)),
        count(&operation("/crm/bulk/v8/read")),
        count(&operation("/crm/bulk/v8/read/{job_id}")),
        count(&operation("/crm/bulk/v8/read/{job_id}/result")),
        count(&|call| by_ids(call) || text(call, "operation") == "/crm/v8/{module}/{id}"),
    ]
}

async fn run_of(world: &World, sync: &str) -> Value {
    world.rows(&format!("select state, total, created, updated, unchanged, failed, calls, messages from sluice.run where sync = '{sync}' order by id desc limit 1")).await.remove(0)
}

async fn poll(world: &World, sync: &str) -> Value {
    world.ask_for_poll(sync).await;
    world.settled_within(Duration::from_secs(1200)).await;
    run_of(world, sync).await
}

/// `SLUICE_DEALS=12000` has as many, and turns to a bulk read by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_read_in_bulk_gives_the_same_rows_and_links_as_its_pages_with_fewer_calls() {
    let count = i64::try_from(sized("SLUICE_DEALS", 1_200)).expect("a count");
    let setting = if count > 10_200 { "auto" } else { "always" };
    let world = World::new(deals(&format!("bulk_read = \"{setting}\""), ZOHO)).await;
    seed(&world, count).await;
    world.zoho.forget_calls().await;
    let run = poll(&world, "deals").await;
    assert_eq!(
        run,
        json!({"state": "done", "total": count, "created": count, "updated": 0, "unchanged": 0, "failed": 0, "calls": run["calls"], "messages": []})
    );
    let [pages, jobs, looks, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files, reads), (if setting == "auto" { 50 } else { 1 }, 1, 1, 0), "{looks} looks");
    assert_eq!(run["calls"], pages + jobs + looks + files);
    world.zoho.forget_calls().await;
    poll(&world, "paged").await;
    let [by_pages, no_jobs, ..] = asked(&world).await;
    assert!(no_jobs == 0 && by_pages > pages + jobs + looks + files, "{by_pages} pages");
    same_rows(&world).await;
    // what was seen is behind us, and what the file showed is what the list shows
    world.zoho.forget_calls().await;
    let run = poll(&world, "deals").await;
    assert_eq!((asked(&world).await, &run["updated"]), ([1, 0, 0, 0, 0], &json!(0)));
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_file_writes_otherwise_than_the_list_is_not_taken_from_it() {
    let zoho = Box::leak(format!("{ZOHO}\n[crm.bulk_read]\ndialect = \"spreadsheet\"").into_boxed_str());
    let world = World::new(deals("bulk_read = \"always\"", zoho)).await;
    let count = 500;
    seed(&world, count).await;
    world.zoho.forget_calls().await;
    let run = poll(&world, "deals").await;
    let said = run["messages"].to_string();
    assert!(said.contains("Closing_Date, Won otherwise") && run["messages"].as_array().map(Vec::len) == Some(1), "{run}");
    let [pages, jobs, _, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files), (1, 1, 1));
    assert!((3..=6).contains(&reads), "{reads}: three hundred records that no page has shown, a hundred a call");
    poll(&world, "paged").await;
    same_rows(&world).await;
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_whose_fields_are_not_believed_is_left_where_its_records_would_all_be_read_again() {
    let zoho = Box::leak(format!("{ZOHO}\n[crm.bulk_read]\ndialect = \"spreadsheet\"").into_boxed_str());
    let world = World::without_worker(deals("", zoho)).await;
    seed_without_accounts(&world, 500).await;
    // nothing is linked, and yet the sync is taken to be a long one
    world.run("insert into sluice.sync_difference (sync, linked) values ('deals', 10001)").await;
    world.ask_for_poll("deals").await;
    world.start_worker();
    world.until("select exists (select from sluice.poll_cursor where sync = 'deals' and walk #> '{bulk,job}' <> 'null')").await;
    world.run("insert into sluice.sync_difference (sync, linked) values ('deals', -10001)").await;
    world.settled().await;
    let run = run_of(&world, "deals").await;
    assert!(run["messages"].to_string().contains("most records would be read again"), "{run}");
    let [pages, jobs, _, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files, reads), (3, 1, 1, 0));
    assert_eq!(world.count("select count(*) from deals where zoho_id is not null and won").await, 480);
    world.check_rules().await;
}

async fn seed_without_accounts(world: &World, count: i64) {
    let record = |won: bool| json!({"Deal_Name": "Deal {n}", "Stage": "Proposal", "Amount": 5.5, "Closing_Date": "2026-02-03", "Won": won, "Topics": ["A"]});
    world.zoho.seed(("crm", "Deals"), 20, record(false), 1).await;
    world.zoho.seed(("crm", "Deals"), count - 20, record(true), 10).await;
}

/// Storing a part of a file after the first one fails as long as there is a row in `broken`, as it would for a worker that dies.
const BREAK_OFF: &str = "
    create table broken as select 1 as one;
    create sequence breaks;
    create function break_off() returns trigger language plpgsql as $$ begin
      if exists (select from public.broken) and (old.walk #>> '{bulk,job,stored}')::int > 0 and (new.walk #>> '{bulk,job,stored}')::int is distinct from (old.walk #>> '{bulk,job,stored}')::int then
        perform nextval('public.breaks');
        raise exception 'broken off'; end if;
      return new; end $$;
    create trigger break_off before update on sluice.poll_cursor for each row execute function break_off()";

const BROKEN_OFF: &str = "select is_called from breaks";

#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_breaks_off_between_two_parts_of_a_file_goes_on_after_the_first() {
    let world = World::new(deals("bulk_read = \"always\"", ZOHO)).await;
    seed(&world, 1_150).await;
    world.run(BREAK_OFF).await;
    world.zoho.forget_calls().await;
    world.ask_for_poll("deals").await;
    world.until(BROKEN_OFF).await;
    let stored = "select (walk #>> '{bulk,job,stored}')::bigint from sluice.poll_cursor where sync = 'deals'";
    assert_eq!(world.count(stored).await, 1_000);
    world.run("drop table broken; create table broken (one int)").await;
    world.settled().await;
    let run = run_of(&world, "deals").await;
    assert_eq!((&run["state"], &run["total"], &run["created"]), (&json!("done"), &json!(1_150), &json!(1_150)), "{run}");
    let [pages, jobs, _, files, _] = asked(&world).await;
    assert_eq!((pages, jobs), (1, 1), "the job is the same");
    assert!(files >= 2, "the file was read again");
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_gone_half_way_is_asked_for_once_more() {
    let world = World::new(deals("bulk_read = \"always\"", ZOHO)).await;
    seed(&world, 1_150).await;
    world.run(BREAK_OFF).await;
    world.zoho.forget_calls().await;
    world.ask_for_poll("deals").await;
    world.until(BROKEN_OFF).await;
    world.zoho.pass(25 * 3600).await;
    world.run("drop table broken; create table broken (one int)").await;
    world.settled().await;
    let [pages, jobs, _, _, reads] = asked(&world).await;
    assert_eq!((pages, jobs, reads), (1, 2, 0));
    assert_eq!(world.count("select count(*) from deals where zoho_id is not null").await, 1_150);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_becomes_of_a_job_the_walk_goes_on_by_pages_and_nothing_is_paused() {
    let without_scope = json!({"kind": "denied", "path": "/crm/bulk/v8/read"});
    let without_answer = json!({"kind": "drop_after", "path": "/crm/bulk/v8/read"});
    let broken = json!({"kind": "html", "status": 502, "path": "/crm/bulk/v8/read"});
    futures::join!(
        by_pages("", Some(without_scope), "the scope ZohoCRM.bulk.READ (sluice auth main)"),
        by_pages("", Some(without_answer), "were lost"),
        by_pages("", Some(broken), "were lost"),
        by_pages("fail = true", None, "INTERNAL_SERVER_ERROR"),
        by_pages("hours = 0", None, "were lost"),
        by_pages("seconds = 100000", None, "no file came within 30 minutes"),
    );
}

async fn by_pages(setting: &str, fault: Option<Value>, said: &str) {
    let zoho = Box::leak(format!("{ZOHO}\n[crm.bulk_read]\n{setting}").into_boxed_str());
    let world = World::without_worker(deals("bulk_read = \"always\"", zoho)).await;
    seed_without_accounts(&world, 450).await;
    if let Some(fault) = fault {
        world.zoho.fault(fault).await;
    }
    world.ask_for_poll("deals").await;
    world.start_worker();
    if setting.starts_with("seconds") {
        world.until("select exists (select from sluice.poll_cursor where sync = 'deals' and walk #> '{bulk,job}' <> 'null')").await;
        let older =
            "update sluice.poll_cursor set walk = jsonb_set(walk, '{bulk,wanted_at}', to_jsonb(clock_timestamp() - interval '31 min'))";
        world.run(older).await;
    }
    world.settled().await;
    let run = run_of(&world, "deals").await;
    assert_eq!((&run["state"], &run["created"]), (&json!("done"), &json!(450)), "{said}: {run}");
    let messages = run["messages"].as_array().cloned().unwrap_or_default();
    assert!(messages.len() == 1 && messages[0].as_str().is_some_and(|message| message.contains(said)), "{said}: {run}");
    let [pages, jobs, _, _, reads] = asked(&world).await;
    assert!(pages == 3 && jobs <= 2 && reads == 0, "{said}: {pages} pages, {jobs} jobs, {reads} reads");
    assert_eq!(world.count("select count(*) from sluice.sync where paused_at is not null").await, 0, "{said}");
    assert_eq!(world.count("select count(*) from sluice.connection where paused_at is not null").await, 0, "{said}");
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_edited_while_a_file_is_made_is_found_by_the_next_poll() {
    let zoho = Box::leak(format!("{ZOHO}\n[crm.bulk_read]\nseconds = 100\ntorn = true").into_boxed_str());
    let world = World::new(deals("bulk_read = \"always\"", zoho)).await;
    let ids = seed(&world, 600).await;
    world.ask_for_poll("deals").await;
    world.until("select exists (select from sluice.poll_cursor where sync = 'deals' and walk #> '{bulk,job}' <> 'null')").await;
    // the file shows the later edit, and not the one before it
    world.zoho.put_later("crm", "Deals", &ids[250], json!({"Amount": 1})).await;
    world.zoho.pass(60).await;
    world.zoho.put("crm", "Deals", Some(&ids[599]), json!({"Amount": 2})).await;
    world.zoho.pass(60).await;
    world.settled().await;
    assert_eq!(world.count("select count(*) from deals").await, 600);
    assert_eq!(world.rows("select amount::text from deals where amount < 7").await, [json!({"amount": "2.00"})]);
    poll(&world, "deals").await;
    assert_eq!(
        world.rows("select amount::text from deals where amount < 7 order by 1").await,
        [json!({"amount": "1.00"}), json!({"amount": "2.00"})]
    );
    world.check_rules().await;
    world.all_arrived().await;
}

/// A deal, and what a poll would have left of it so long ago that no run has followed yet.
async fn sighted(world: &World, name: &str, age: &str) -> String {
    let deal = world.zoho.put("crm", "Deals", None, json!({"Deal_Name": name, "Amount": 8, "Won": true})).await;
    let id = deal["id"].as_str().expect("an id").to_owned();
    let shown = json!({"id": id, "Modified_Time": deal["Modified_Time"], "Deal_Name": name, "Amount": 8, "Won": true, "Stage": null, "Closing_Date": null,
        "Topics": null, "Account_Name": null});
    let sighting = format!(
        "insert into sluice.sighting (sync, zoho_id, record, complete, seen_at) select 'deals', '{id}', '{shown}'::jsonb, true, clock_timestamp() - interval '{age}'"
    );
    world.run(&sighting).await;
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_deleted_before_its_row_is_made_becomes_none() {
    let world = World::new(deals("", ZOHO)).await;
    let ids = seed(&world, 25).await;
    poll(&world, "deals").await;
    let new = sighted(&world, "New", "30 min").await;
    world.zoho.pass(60).await;
    world.zoho.delete("crm", "Deals", &new).await;
    world.zoho.delete("crm", "Deals", &ids[3]).await;
    poll(&world, "deals").await;
    assert_eq!(world.count("select count(*) from deals").await, 24, "the other one is gone");
    assert_eq!(world.count("select count(*) from sluice.sighting where sync = 'deals'").await, 0);
    world.all_arrived().await;
}

/// Of a file's rows a grant takes over a hundred.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_within_the_hour_becomes_a_row_without_being_read_again() {
    let world = World::new(deals("", ZOHO)).await;
    let half_an_hour = sighted(&world, "Half an hour", "30 min").await;
    let more = sighted(&world, "More", "61 min").await;
    world.zoho.forget_calls().await;
    // as a list asks for its records; who asks for a look later gets one
    let job = |id: &str| {
        format!("insert into sluice.job (kind, args) values ('pull', '{{\"sync\": \"deals\", \"zoho_id\": \"{id}\", \"seen\": true}}');")
    };
    world.run(&job(&half_an_hour)).await;
    world.settled().await;
    assert_eq!((world.count("select count(*) from deals").await, asked(&world).await[4]), (1, 0));
    world.run(&job(&more)).await;
    world.settled().await;
    assert_eq!((world.count("select count(*) from deals").await, asked(&world).await[4]), (2, 1));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_into_a_file_comes_with_the_next_ones() {
    let zoho = Box::leak(format!("{ZOHO}\n[crm.bulk_read]\nper_file = 250").into_boxed_str());
    let world = World::new(deals("bulk_read = \"always\"", zoho)).await;
    seed(&world, 600).await;
    world.zoho.forget_calls().await;
    let run = poll(&world, "deals").await;
    assert_eq!((&run["total"], &run["created"]), (&json!(600), &json!(600)), "{run}");
    let [pages, jobs, _, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files, reads), (1, 3, 3, 0));
    assert_eq!(world.count("select count(*) from deals where won and topics = '[\"A\", \"B\"]' and account_id is not null").await, 580);
    world.check_rules().await;
    world.all_arrived().await;
}

/// Sweeps once, and answers the run.
async fn sweep(world: &World) -> Value {
    world.run("select sluice.reconcile('deals')").await;
    world.until("select not exists (select from sluice.run where kind = 'reconcile' and state = 'running')").await;
    world.settled().await;
    world.until("select not exists (select from sluice.sighting)").await;
    let uncounted = "select count(*) from sluice.run where total <> created + updated + unchanged + failed";
    let run = run_of(world, "deals").await;
    assert_eq!(world.count(uncounted).await, 0, "every record of a run ends in one count: {run}");
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_in_bulk_finds_drift_and_what_is_missing_and_a_file_that_is_short_deletes_nothing() {
    let world = World::new(deals("bulk_read = \"always\"", ZOHO)).await;
    let ids = seed(&world, 600).await;
    poll(&world, "deals").await;
    // Rows of the file are missing: nothing is asked for, let alone deleted.
    world.zoho.post("settings", json!({"crm": {"bulk_read": {"lose_rows": 5}}})).await;
    world.zoho.forget_calls().await;
    let run = sweep(&world).await;
    assert!(
        run["messages"].to_string().contains("has 595 rows, and Zoho says 600: what is missing in the list was not asked for"),
        "{run}"
    );
    let [pages, jobs, _, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files, reads), (1, 1, 1, 0));
    assert_eq!(world.count("select count(*) from deals").await, 600);
    assert_eq!(world.count("select count(*) from sluice.reconcile_cursor where sync = 'deals' and completed_at is not null").await, 0);
    // A link that is wrong, and a record that was deleted of which no list tells. A renamed account is no edit of its deals.
    let account = world.zoho.records("crm", "Accounts").await.remove(0);
    world.zoho.put("crm", "Accounts", account["id"].as_str(), json!({"Account_Name": "Acme Ltd"})).await;
    world.zoho.post("settings", json!({"crm": {"bulk_read": {"lose_rows": 0}}})).await;
    world
        .run(&format!(
            "update sluice.link set fields = jsonb_set(fields, '{{Amount,zoho}}', '4') where sync = 'deals' and zoho_id = '{}'",
            ids[400]
        ))
        .await;
    world.zoho.delete("crm", "Deals", &ids[500]).await;
    world.zoho.forget_calls().await;
    let run = sweep(&world).await;
    assert_eq!(run["state"], "done", "{run}");
    let [pages, jobs, _, files, reads] = asked(&world).await;
    assert_eq!((pages, jobs, files), (1, 1, 1));
    assert!((1..=3).contains(&reads), "{reads}: the record that is missing is read, and nothing else");
    assert_eq!(world.count("select count(*) from deals").await, 599);
    assert_eq!(world.rows("select drift from sluice.reconcile_cursor where sync = 'deals'").await, [json!({"drift": 2})]);
    assert_eq!(world.count("select count(*) from sluice.link where sync = 'deals' and fields #>> '{Amount,zoho}' = '4'").await, 0);
    world.check_rules().await;
    world.all_arrived().await;
}
