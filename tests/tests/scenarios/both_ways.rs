//! Both ways at once: an edit on either side reaches the other, edits of different fields both survive, echoes die.

use serde_json::{Value, json};

use crate::world::{Setup, World};

const DEALS: &str = "
    create table contracts (
      id bigint generated always as identity primary key, number text unique not null, title text, phase text default 'draft',
      amount numeric(12, 2), kyc text, signed_at timestamptz, zoho_id text, zoho_status text, zoho_error text);";

fn deals(settings: &str, fields: &str) -> String {
    format!(
        r#"
        [syncs.contracts]
        connection = "main"
        table = "contracts"
        key = "id"
        module = "crm/Deals"
        direction = "both"
        match_on = ["Contract_Number"]
        writeback = {{ id = "zoho_id", status = "zoho_status", error = "zoho_error" }}
        {settings}
        [syncs.contracts.fields]
        Contract_Number = "number"
        Deal_Name = "title"
        Stage = {{ column = "phase", values = {{ won = "Closed Won", lost = "Closed Lost", draft = ["Proposal", "Negotiation"] }} }}
        Amount = "amount"
        KYC_Status = {{ column = "kyc", owner = "local" }}
        {fields}
        "#
    )
}

/// The fields of our own that Deals have.
const FIELDS: &str = r#"
    [[crm.fields]]
    module = "Deals"
    api_name = "Contract_Number"
    unique = true
    [[crm.fields]]
    module = "Deals"
    api_name = "KYC_Status"
"#;

async fn world(settings: &str, speed: Option<f64>) -> World {
    let setup = Setup::new(DEALS, deals(settings, ""));
    World::new(Setup { speed: speed.unwrap_or(setup.speed), scenario: FIELDS, ..setup }).await
}

async fn contract(world: &World, number: &str) -> Value {
    world.rows(&format!("select title, phase, amount::text, kyc from contracts where number = '{number}'")).await.remove(0)
}

async fn deal(world: &World, number: &str) -> Value {
    let deals = world.zoho.records("crm", "Deals").await;
    deals.into_iter().find(|deal| deal["Contract_Number"] == number).expect("the deal")
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_different_fields_on_both_sides_both_survive() {
    let world = world("", None).await;
    world.run("insert into contracts (number, title, amount) values ('C-1', 'Fibre', 100)").await;
    world.all_arrived().await;
    let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
    world.zoho.put_later("crm", "Deals", &id, json!({"Stage": "Closed Won"})).await;
    world.run("update contracts set amount = 250 where number = 'C-1'").await;
    world.settled().await;
    world.poll("contracts").await;
    assert_eq!(contract(&world, "C-1").await, json!({"title": "Fibre", "phase": "won", "amount": "250.00", "kyc": null}));
    let deal = deal(&world, "C-1").await;
    assert_eq!((&deal["Stage"], deal["Amount"].to_string().as_str()), (&json!("Closed Won"), "250.00"), "{deal}");
    world.all_arrived().await;
    world.check_rules().await;
    // Both agree: nothing more is written anywhere.
    world.zoho.forget_calls().await;
    world.poll("contracts").await;
    assert_eq!(world.zoho.count_calls().await, 1, "{:#?}", world.zoho.calls().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_to_one_values_and_fields_of_our_own_cause_no_call_and_no_write() {
    let world = world("", None).await;
    world.run("insert into contracts (number, title, kyc) values ('C-1', 'Fibre', 'Completed')").await;
    world.all_arrived().await;
    let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
    // Negotiation is draft too; the field that we own is edited by somebody else; a stage that the map does not know
    world.zoho.put_later("crm", "Deals", &id, json!({"Stage": "Negotiation", "KYC_Status": "Declined"})).await;
    world.poll("contracts").await;
    world.zoho.put_later("crm", "Deals", &id, json!({"Stage": "Qualification"})).await;
    world.poll("contracts").await;
    assert_eq!(contract(&world, "C-1").await, json!({"title": "Fibre", "phase": "draft", "amount": null, "kyc": "Completed"}));
    let after = deal(&world, "C-1").await;
    assert_eq!((&after["Stage"], &after["KYC_Status"]), (&json!("Qualification"), &json!("Declined")), "theirs are left alone");
    world.zoho.forget_calls().await;
    world.poll("contracts").await;
    assert_eq!(world.zoho.count_calls().await, 1);
    // Our own edit of it is sent.
    world.run("update contracts set kyc = 'In Progress'").await;
    world.all_arrived().await;
    assert_eq!(deal(&world, "C-1").await["KYC_Status"], "In Progress");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conflict_waits_for_a_person_and_the_other_fields_go_on() {
    let world = world("conflict = \"manual\"", None).await;
    world.run("insert into contracts (number, title, amount) values ('C-1', 'Fibre', 100), ('C-2', 'Radio', 1)").await;
    world.all_arrived().await;
    for number in ["C-1", "C-2"] {
        let id = deal(&world, number).await["id"].as_str().expect("an id").to_owned();
        world.zoho.put_later("crm", "Deals", &id, json!({"Deal_Name": "Theirs", "Stage": "Closed Won"})).await;
    }
    world.run("update contracts set title = 'Ours', amount = 7").await;
    world.settled().await;
    world.poll("contracts").await;
    for number in ["C-1", "C-2"] {
        assert_eq!(contract(&world, number).await, json!({"title": "Ours", "phase": "won", "amount": "7.00", "kyc": null}));
        let deal = deal(&world, number).await;
        assert_eq!((&deal["Deal_Name"], deal["Amount"].to_string().as_str()), (&json!("Theirs"), "7.00"), "{deal}");
    }
    let open = world.rows("select id, field, local, zoho, base from sluice.conflict where resolution is null order by id").await;
    assert_eq!(open.len(), 2, "{open:#?}");
    assert_eq!((&open[0]["field"], &open[0]["local"], &open[0]["zoho"]), (&json!("Deal_Name"), &json!("Ours"), &json!("Theirs")));
    world.run(&format!("select sluice.resolve({}, 'zoho'), sluice.resolve({}, 'local')", open[0]["id"], open[1]["id"])).await;
    world.all_arrived().await;
    assert_eq!(contract(&world, "C-1").await["title"], "Theirs");
    assert_eq!(deal(&world, "C-2").await["Deal_Name"], "Ours");
    assert_eq!(world.count("select count(*) from sluice.conflict where applied_at is null").await, 0);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_of_two_edits_of_a_field_stands() {
    let world = world("", Some(1.0)).await;
    world.run("insert into contracts (number, title) values ('C-1', 'Fibre'), ('C-2', 'Radio')").await;
    world.all_arrived().await;
    let (first, second) = (deal(&world, "C-1").await["id"].clone(), deal(&world, "C-2").await["id"].clone());
    let id = |id: &Value| id.as_str().expect("an id").to_owned();
    // pushes wait: both sides are edited before either is looked at
    world.run("select sluice.pause(sync => 'contracts')").await;
    world.zoho.put("crm", "Deals", Some(&id(&first)), json!({"Deal_Name": "Earlier in Zoho"})).await;
    // Zoho's times have seconds: until its next one has begun, by the clock that the capture reads
    world.run("select pg_sleep_until(date_trunc('second', clock_timestamp()) + interval '1 second')").await;
    world.run("update contracts set title = 'Later here' where number = 'C-1'").await;
    world.run("update contracts set title = 'Earlier here' where number = 'C-2'").await;
    world.zoho.post("clock", json!({"advance_seconds": 2})).await;
    world.zoho.put("crm", "Deals", Some(&id(&second)), json!({"Deal_Name": "Later in Zoho"})).await;
    world.run("select sluice.resume(sync => 'contracts')").await;
    world.all_arrived().await;
    assert_eq!(
        (deal(&world, "C-1").await["Deal_Name"].clone(), contract(&world, "C-1").await["title"].clone()),
        (json!("Later here"), json!("Later here"))
    );
    assert_eq!(
        (deal(&world, "C-2").await["Deal_Name"].clone(), contract(&world, "C-2").await["title"].clone()),
        (json!("Later in Zoho"), json!("Later in Zoho"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tables_own_trigger_does_while_a_pull_is_applied_is_pushed() {
    let tables = "
        create table people (id bigint primary key, mail text not null, name text, nick text);
        create table deals (id bigint primary key, number text unique not null, phase text, person bigint references people);
        create function congratulate() returns trigger language plpgsql as $$
        begin
          if new.phase = 'won' then update people set nick = 'winner' where id = new.person; end if;
          return null;
        end $$;
        create trigger congratulate after update on deals for each row execute function congratulate();";
    let config = r#"
        [syncs.people]
        connection = "main"
        table = "people"
        key = "id"
        module = "crm/Contacts"
        match_on = ["Email"]
        [syncs.people.fields]
        Email = "mail"
        Last_Name = "name"
        Title = "nick"
        [syncs.deals]
        connection = "main"
        table = "deals"
        key = "id"
        module = "crm/Deals"
        direction = "both"
        match_on = ["Contract_Number"]
        [syncs.deals.fields]
        Contract_Number = "number"
        Deal_Name = "number"
        Stage = { column = "phase", values = { won = "Closed Won", draft = "Proposal" } }"#;
    let world = World::new(Setup { scenario: FIELDS, ..Setup::new(tables, config) }).await;
    world.run("insert into people values (1, 'a@example.com', 'Ada', null); insert into deals values (1, 'C-1', 'draft', 1)").await;
    world.all_arrived().await;
    let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
    world.zoho.put_later("crm", "Deals", &id, json!({"Stage": "Closed Won"})).await;
    world.run(&format!("insert into sluice.job (kind, args) values ('pull', '{{\"sync\": \"deals\", \"zoho_id\": \"{id}\"}}')")).await;
    world.all_arrived().await;
    assert_eq!(world.rows("select phase from deals").await, [json!({"phase": "won"})]);
    assert_eq!(world.zoho.records("crm", "Contacts").await[0]["Title"], "winner");
    assert_eq!(deal(&world, "C-1").await["Stage"], "Closed Won");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_deleted_in_zoho_follows_the_policy_and_is_not_made_again() {
    for (settings, left) in [("on_delete = \"delete\"", 1), ("on_delete = \"mark\"\nmark = { Stage = \"Closed Lost\" }", 2), ("", 2)] {
        let world = world(settings, None).await;
        world.run("insert into contracts (number, title) values ('C-1', 'Fibre'), ('C-2', 'Radio')").await;
        world.all_arrived().await;
        world.poll("contracts").await;
        let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
        world.zoho.post("clock", json!({"advance_seconds": 3})).await;
        world.zoho.delete("crm", "Deals", &id).await;
        if settings.is_empty() {
            // nothing follows from it, so nobody looks for it: told by hand
            world
                .run(&format!("insert into sluice.job (kind, args) values ('pull', '{{\"sync\": \"contracts\", \"zoho_id\": \"{id}\"}}')"))
                .await;
        }
        world.poll("contracts").await;
        assert_eq!(world.count("select count(*) from contracts").await, left, "{settings}");
        if settings.contains("mark") {
            assert_eq!(contract(&world, "C-1").await["phase"], "lost");
        }
        world.run("update contracts set title = title || '!'").await;
        world.settled().await;
        let deals = world.zoho.values("crm", "Deals", "Deal_Name").await;
        assert_eq!(deals, ["Radio!"], "{settings}");
        if settings.is_empty() {
            let said = "held: its Zoho record is gone (deleted there); edits of the row are not sent";
            assert_eq!(world.rows("select zoho_error from contracts where number = 'C-1'").await[0]["zoho_error"], said, "{settings}");
        }
        world.check_rules().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_somebody_holds_is_written_when_it_is_free_and_delays_no_other() {
    let world = world("", None).await;
    world.run("insert into contracts (number, title) values ('C-1', 'Fibre'), ('C-2', 'Radio')").await;
    world.all_arrived().await;
    let holder = world.connect().await;
    let mut held = holder.begin().await.expect("a transaction");
    sqlx::query("select 1 from contracts where number = 'C-1' for update").execute(&mut held).await.expect("the row");
    for number in ["C-1", "C-2"] {
        let id = deal(&world, number).await["id"].as_str().expect("an id").to_owned();
        world.zoho.put_later("crm", "Deals", &id, json!({"Deal_Name": format!("{number} by a person")})).await;
    }
    world.ask_for_poll("contracts").await;
    world.until("select exists (select from contracts where title = 'C-2 by a person')").await;
    // Its owner edits another field, and lets it go: both edits stand.
    sqlx::query("update contracts set amount = 5 where number = 'C-1'").execute(&mut held).await.expect("an edit");
    held.commit().await.expect("a commit");
    world.all_arrived().await;
    assert_eq!(contract(&world, "C-1").await, json!({"title": "C-1 by a person", "phase": "draft", "amount": "5.00", "kyc": null}));
    assert_eq!(deal(&world, "C-1").await["Amount"].to_string(), "5.00");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_comes_between_our_reading_and_our_writing_is_not_overwritten() {
    let world = world("conflict = \"zoho\"", None).await;
    world.run("insert into contracts (number, title) values ('C-1', 'Fibre')").await;
    world.all_arrived().await;
    let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
    world.zoho.post("clock", json!({"advance_seconds": 10})).await;
    // the write is slow to arrive, and a person is faster
    world.zoho.fault(json!({"kind": "slow", "product": "crm", "method": "PUT", "latency_ms": [1500, 1500], "times": 1})).await;
    world.run("update contracts set title = 'Ours'").await;
    world.until("select exists (select from sluice.link where sending is not null)").await;
    world.zoho.put_later("crm", "Deals", &id, json!({"Deal_Name": "Theirs"})).await;
    world.zoho.post("clock", json!({"advance_seconds": 10})).await;
    world.all_arrived().await;
    assert_eq!((&deal(&world, "C-1").await["Deal_Name"], &contract(&world, "C-1").await["title"]), (&json!("Theirs"), &json!("Theirs")));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_deleted_in_zoho_is_decided_and_holds_nobody_up_though_each_batch_has_one_call() {
    // as in production, where the next grant of bulk work lies more than half a second ahead
    let one_call = r#"
        [connections.main]
        client_id = "${ZOHO_CLIENT_ID}"
        client_secret = "${ZOHO_CLIENT_SECRET}"
        refresh_token = "${ZOHO_REFRESH_TOKEN}"
        organization_id = "${ZOHO_ORG_ID}"
        [connections.main.budget.crm]
        per_minute = 1"#;
    let config = format!("{one_call}\n{}", deals("on_delete = \"ignore\"", ""));
    let world = World::new(Setup { scenario: FIELDS, ..Setup::new(DEALS, config) }).await;
    world.run("insert into contracts (number, title) values ('C-1', 'Fibre'), ('C-2', 'Radio'), ('C-3', 'Copper')").await;
    world.all_arrived().await;
    for number in ["C-1", "C-3"] {
        let id = deal(&world, number).await["id"].as_str().expect("an id").to_owned();
        world.zoho.delete("crm", "Deals", &id).await;
    }
    world.zoho.forget_calls().await;
    world.run("update contracts set title = title || '!'").await;
    world.settled().await;
    assert_eq!(world.zoho.values("crm", "Deals", "Deal_Name").await, ["Radio!"]);
    // all together, the two that this did not show, and the write; a reading more where one of them took too long
    let calls = world.zoho.count_calls().await;
    assert!(calls <= 6, "{calls} calls: {:#?}", world.zoho.calls().await);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_that_finds_out_that_its_record_is_gone_is_told_of() {
    for settings in ["", "on_delete = \"mark\"\nmark = { Stage = \"Closed Lost\" }"] {
        let world = world(settings, None).await;
        world.run("insert into contracts (number, title) values ('C-1', 'Fibre')").await;
        world.all_arrived().await;
        let id = deal(&world, "C-1").await["id"].as_str().expect("an id").to_owned();
        world.zoho.delete("crm", "Deals", &id).await;
        world.run("update contracts set title = 'Fibre 2'").await;
        world.settled().await;
        let told =
            "select distinct r.status from sluice.record_status r, sluice.explain(r.sync, r.key) where says like '%was deleted there%'";
        assert_eq!(world.rows(told).await, [json!({"status": "held"})], "{settings}");
        world.check_rules().await;
    }
}
