//! `recipes/crm`, point by point: contracts with compliance fields, quotes, people and customers ↔ Zoho CRM, two organisations side by side.

use std::sync::Arc;

use serde_json::{Value, json};
use sluice_producer::{Definitions, webhook};

use crate::world::{Setup, WEBHOOK_SECRET, World, text};

const TABLES: &str = include_str!("../../../recipes/crm/tables.sql");
const ROWS: &str = include_str!("../../../recipes/crm/rows.sql");
const CONFIG: &str = include_str!("../../../recipes/crm/sluice.toml");
const ZOHO: &str = concat!("log_bodies = true\n", include_str!("../../../recipes/crm/zoho.toml"));
/// A customer with a contact.
const CUSTOMER: &str = "
    insert into customers (id, name) values (1, 'Cape Bakery');
    insert into people (id, customer_id, last_name, email, phone, id_number) values (1, 1, 'Adams', 'anna@example.com', '+27 82 555 1111', '8001015009087');";
/// Their contract.
const CONTRACT: &str = "insert into contracts (id, number, customer_id, person_id, amount) values (1, 'C-1', 1, 1, 549.00)";

fn setup() -> Setup {
    Setup { scenario: ZOHO, ..Setup::new(TABLES, CONFIG) }
}

/// A world with a contract that has arrived.
async fn with_contract() -> World {
    let world = World::new(setup()).await;
    world.run(CUSTOMER).await;
    world.run(CONTRACT).await;
    world.all_arrived().await;
    world.zoho.forget_calls().await;
    world
}

async fn deal(world: &World) -> Value {
    world.zoho.records("crm", "Deals").await.into_iter().find(|deal| deal["Contract_Number"] == "C-1").expect("the deal")
}

async fn edit(world: &World, module: &str, record: &Value, change: Value) {
    world.zoho.put_later("crm", module, record["id"].as_str().expect("an id"), change).await;
}

async fn contract(world: &World) -> Value {
    world.rows("select status, amount::text, signed_on from contracts where number = 'C-1'").await.remove(0)
}

/// The bodies that were written to a module since the calls were last forgotten.
async fn written(world: &World, module: &str) -> Vec<Value> {
    let calls = world.zoho.calls().await;
    let writes = calls.iter().filter(|call| call["method"] != "GET" && text(&call["path"]).contains(&format!("/{module}")));
    let bodies = writes.filter_map(|call| serde_json::from_str::<Value>(call["body"].as_str()?).ok());
    bodies.filter_map(|body| body["data"].as_array().cloned()).flatten().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_people_quotes_and_contracts_arrive_parents_first_with_their_compliance_fields() {
    let world = World::without_worker(setup()).await;
    world
        .run(&format!(
            "{CUSTOMER}{CONTRACT};
             update contracts set status = 'active', signed_on = '2026-02-01';
             insert into kyc_sessions (customer_id, contract_id, status, risk, verified_on, id_number) values (1, 1, 'completed', 'high', '2026-02-03', '8001015009087');
             insert into rica_submissions (contract_id, status, id_number) values (1, 'submitted', '8001015009087');
             insert into packages (code, name, price) values ('fibre', 'Fibre', 549), ('router', 'Router', 899);
             insert into quotes (id, number, customer_id, person_id, title, status) values (1, 'Q-1', 1, 1, 'Fibre for the bakery', 'sent');
             insert into quote_lines values (1, 1, 'fibre', 1, 549), (1, 2, 'router', 3, 899)"
        ))
        .await;
    world.until("select not exists (select from sluice.change)").await;
    world.start_worker();
    world.all_arrived().await;
    let account = world.zoho.records("crm", "Accounts").await.remove(0);
    let contact = world.zoho.records("crm", "Contacts").await.remove(0);
    let deal = deal(&world).await;
    for (field, value) in [
        ("KYC_Status", json!("Completed")),
        ("KYC_Verified_Date", json!("2026-02-03")),
        ("Risk_Tier", json!("High")),
        ("RICA_Status", json!("Submitted")),
        ("Contract_Number", json!("C-1")),
        ("Contract_Signed_Date", json!("2026-02-01")),
        ("Stage", json!("Closed Won")),
        // the customer's name comes from a join
        ("Deal_Name", json!("Cape Bakery · C-1")),
    ] {
        assert_eq!(deal[field], value, "{field}: {deal}");
    }
    assert_eq!((&deal["Account_Name"]["id"], &deal["Contact_Name"]["id"]), (&account["id"], &contact["id"]));
    assert_eq!(contact["Account_Name"]["id"], account["id"]);
    let quote = world.zoho.records("crm", "Quotes").await.remove(0);
    let lines: Vec<i64> = quote["Quoted_Items"].as_array().expect("lines").iter().filter_map(|line| line["Quantity"].as_i64()).collect();
    assert_eq!((lines, &quote["Quote_Stage"]), (vec![1, 3], &json!("Delivered")), "{quote}");
    let row = world.rows("select zoho_deal_id, zoho_sync_status from contracts").await.remove(0);
    assert_eq!(row, json!({"zoho_deal_id": deal["id"], "zoho_sync_status": "synced"}));
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kyc_session_or_rica_submission_updates_its_contracts_deal_and_nothing_else_is_sent() {
    let world = with_contract().await;
    assert_eq!(deal(&world).await["KYC_Status"], "Not Started");
    world.run("insert into kyc_sessions (id, customer_id, contract_id, status) values (1, 1, 1, 'in_progress')").await;
    world.all_arrived().await;
    world.run("update kyc_sessions set status = 'completed', risk = 'low', verified_on = '2026-03-01' where id = 1").await;
    world.all_arrived().await;
    world.run("insert into rica_submissions (contract_id, status) values (1, 'approved')").await;
    world.all_arrived().await;
    let deal = deal(&world).await;
    for (field, value) in
        [("KYC_Status", "Completed"), ("Risk_Tier", "Low"), ("KYC_Verified_Date", "2026-03-01"), ("RICA_Status", "Approved")]
    {
        assert_eq!(deal[field], value, "{deal}");
    }
    let id = &deal["id"];
    assert_eq!(
        written(&world, "Deals").await,
        [
            json!({"id": id, "KYC_Status": "In Progress"}),
            json!({"id": id, "KYC_Status": "Completed", "KYC_Verified_Date": "2026-03-01", "Risk_Tier": "Low"}),
            json!({"id": id, "RICA_Status": "Approved"}),
        ]
    );
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kyc_session_without_a_contract_is_fine_and_costs_no_call() {
    let world = with_contract().await;
    world.run("insert into kyc_sessions (id, customer_id, status) values (1, 1, 'completed')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.count_calls().await, 0);
    // it is given its contract later
    world.run("update kyc_sessions set contract_id = 1").await;
    world.all_arrived().await;
    assert_eq!(deal(&world).await["KYC_Status"], "Completed");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_new_name_reaches_its_account_and_the_names_of_its_deals() {
    let world = with_contract().await;
    world.run("update customers set name = 'Cape Town Bakery'").await;
    world.all_arrived().await;
    assert_eq!(deal(&world).await["Deal_Name"], "Cape Town Bakery · C-1");
    assert_eq!(world.zoho.values("crm", "Accounts", "Account_Name").await, ["Cape Town Bakery"]);
    assert_eq!(written(&world, "Deals").await.len(), 1);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stage_of_the_crm_becomes_the_contracts_status_and_stages_without_meaning_change_nothing() {
    let world = with_contract().await;
    for (stage, status) in [
        ("Closed Won", "active"),
        ("Proposal", "draft"),
        ("Closed Lost", "terminated"),
        ("Negotiation", "draft"),
        ("Closed Won", "active"),
        ("Qualification", "active"),
        ("Id. Decision Makers", "active"),
    ] {
        edit(&world, "Deals", &deal(&world).await, json!({"Stage": stage})).await;
        world.poll("contracts").await;
        assert_eq!(contract(&world).await["status"], status, "{stage}");
        assert_eq!(deal(&world).await["Stage"], stage, "what was set in CRM is left as it is");
    }
    assert_eq!(written(&world, "Deals").await, Vec::<Value>::new());
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_of_contacts_and_quotes_in_the_crm_come_back() {
    let world = with_contract().await;
    world
        .run(
            "insert into packages (code, name, price) values ('fibre', 'Fibre', 549);
             insert into quotes (id, number, customer_id, title, status) values (1, 'Q-1', 1, 'Fibre for the bakery', 'sent');
             insert into quote_lines values (1, 1, 'fibre', 1, 549)",
        )
        .await;
    world.all_arrived().await;
    let contact = world.zoho.records("crm", "Contacts").await.remove(0);
    let quote = world.zoho.records("crm", "Quotes").await.remove(0);
    edit(&world, "Contacts", &contact, json!({"Phone": "+27 82 555 2222", "First_Name": "Anna"})).await;
    edit(&world, "Quotes", &quote, json!({"Quote_Stage": "Confirmed", "Valid_Till": "2026-12-31"})).await;
    world.zoho.forget_calls().await;
    world.poll("people").await;
    world.poll("quotes").await;
    assert_eq!(
        world.rows("select first_name, phone, customer_id from people").await,
        [json!({"first_name": "Anna", "phone": "+27 82 555 2222", "customer_id": 1})]
    );
    assert_eq!(world.rows("select status, valid_until from quotes").await, [json!({"status": "accepted", "valid_until": "2026-12-31"})]);
    assert_eq!((written(&world, "Contacts").await.len(), written(&world, "Quotes").await.len()), (0, 0));
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kyc_and_rica_fields_are_ours_an_edit_of_them_in_the_crm_is_recorded_and_not_applied() {
    let world = with_contract().await;
    world.run("insert into kyc_sessions (id, customer_id, contract_id, status) values (1, 1, 1, 'in_progress')").await;
    world.all_arrived().await;
    edit(&world, "Deals", &deal(&world).await, json!({"KYC_Status": "Completed", "Risk_Tier": "Low", "Contract_Number": "C-1"})).await;
    world.zoho.forget_calls().await;
    world.poll("contracts").await;
    assert_eq!(world.rows("select status, risk from kyc_sessions").await, [json!({"status": "in_progress", "risk": null})]);
    assert_eq!((written(&world, "Deals").await.len(), &deal(&world).await["KYC_Status"]), (0, &json!("Completed")));
    let story = world.rows("select says, detail -> 'response' -> 'not_applied' as edits from sluice.explain('contracts', '1') where detail ->> 'reason' = 'not_applied'").await;
    assert_eq!(story.len(), 1, "it is told once: {story:#?}");
    assert_eq!((&story[0]["edits"]["KYC_Status"]["to"], &story[0]["edits"]["Risk_Tier"]["of"]), (&json!("Completed"), &json!("zoho")));
    // our own next change is sent all the same
    world.run("update kyc_sessions set status = 'declined'").await;
    world.all_arrived().await;
    assert_eq!(deal(&world).await["KYC_Status"], "Declined");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_we_do_not_know_are_acknowledged_and_noted() {
    let world = with_contract().await;
    let there = world.zoho.put("crm", "Deals", None, json!({"Deal_Name": "Somebody else's", "Stage": "Closed Won"})).await;
    world.zoho.post("clock", json!({"advance_seconds": 3})).await;
    world.poll("contracts").await;
    assert_eq!(world.count("select count(*) from contracts").await, 1);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    let noted = world.rows(&format!("select reason from sluice.attempt where key = 'zoho:{}'", text(&there["id"]))).await;
    assert_eq!(noted, [json!({"reason": "no_row"})]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_organisations_stand_side_by_side_and_an_outage_of_one_is_not_the_others() {
    let world = World::new(Setup { elsewhere: Some("wholesale"), ..setup() }).await;
    let elsewhere = world.elsewhere.clone().expect("the other Zoho");
    elsewhere.outage("crm", true).await;
    world.run(CUSTOMER).await;
    world.run("insert into resellers (id, name) values (1, 'Signal Partners')").await;
    world.until("select exists (select from sluice.link where sync = 'people' and zoho_id is not null)").await;
    world.until("select exists (select from sluice.attempt where sync = 'resellers')").await;
    assert_eq!(world.zoho.values("crm", "Accounts", "Account_Name").await, ["Cape Bakery"]);
    elsewhere.outage("crm", false).await;
    world.until("select exists (select from sluice.link where sync = 'resellers' and zoho_id is not null)").await;
    assert_eq!(elsewhere.values("crm", "Accounts", "Account_Name").await, ["Signal Partners"]);
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 1);
    assert_eq!(world.count("select count(distinct fingerprint) from sluice.credential").await, 2);
    world.check_rules().await;
}

/// A world whose CRM notifies us: a channel is open.
async fn with_notifications() -> World {
    let mut world = World::without_roles(setup()).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    Arc::make_mut(&mut world.config).http.public_url = Some(format!("http://{free}"));
    let _ = world.start_listening(Some(free)).await;
    world.start_worker();
    world.until("select exists (select from sluice.channel where state = 'open')").await;
    world.run(CUSTOMER).await;
    world.run(CONTRACT).await;
    world.all_arrived().await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notification_with_the_token_leads_to_a_read_one_without_changes_nothing_and_both_stand_in_the_event_log() {
    let world = with_notifications().await;
    world.run("truncate sluice.event").await;
    edit(&world, "Deals", &deal(&world).await, json!({"Stage": "Closed Won"})).await;
    world.until("select status = 'active' from contracts").await;
    world.all_arrived().await;
    let events = world
        .rows("select source, sync, verdict, outcome, convert_from(body, 'UTF8') as body from sluice.event where outcome = 'applied'")
        .await;
    assert_eq!(events.len(), 1, "{events:#?}");
    assert_eq!((&events[0]["verdict"], &events[0]["sync"]), (&json!("verified"), &json!("contracts")));
    assert!(!text(&events[0]["body"]).contains(WEBHOOK_SECRET), "{}", events[0]);

    // a forged one, with another token
    let at = world.config.http.public_url.clone().expect("an address");
    let forged =
        json!({"module": "Deals", "operation": "update", "ids": [deal(&world).await["id"]], "token": "guessed", "channel_id": "1"});
    let answer = reqwest::Client::new().post(format!("{at}/webhook/crm")).json(&forged).send().await.expect("an answer");
    assert_eq!(answer.status(), 401);
    world.until("select exists (select from sluice.event where verdict = 'bad_signature' and outcome = 'refused')").await;

    // an event is replayed: the record is read again
    world.zoho.forget_calls().await;
    let id = world.count("select id from sluice.event where outcome = 'applied' order by id limit 1").await;
    webhook::replay(world.db(), &world.config, id, "interactive").await.expect("a replay");
    world.all_arrived().await;
    let reads = world.zoho.calls().await;
    assert!(reads.iter().any(|call| call["method"] == "GET" && text(&call["path"]).ends_with("/Deals")), "{reads:#?}");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_record_is_synced_by_force_and_an_edit_of_a_field_of_ours_is_overwritten() {
    let world = with_contract().await;
    edit(&world, "Deals", &deal(&world).await, json!({"KYC_Status": "Declined"})).await;
    world.poll("contracts").await;
    assert_eq!(deal(&world).await["KYC_Status"], "Declined");
    let definitions = Definitions::compile(world.db(), &world.config).await.expect("definitions");
    let reader = sluice_sync::read::Reader::new(world.db().clone(), None);
    sluice_producer::trigger(world.db(), &reader, &definitions, Some("contracts"), Some("1"), true).await.expect("a trigger");
    world.all_arrived().await;
    assert_eq!(deal(&world).await["KYC_Status"], "Not Started");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_id_number_leaves_and_what_is_logged_of_a_request_is_masked() {
    let world = World::without_worker(setup()).await;
    world.run(ROWS).await;
    for sync in ["customers", "people", "packages", "quotes", "contracts", "resellers"] {
        world.trigger(sync).await;
    }
    world.start_worker();
    world.settled().await;
    world.run("update kyc_sessions set id_number = '9002025009087', status = 'declined' where contract_id = 701; update people set id_number = '9002025009087'").await;
    world.settled().await;
    let sent = serde_json::to_string(&world.zoho.calls().await).expect("JSON");
    assert!(sent.contains("anna.adams0@example.com"), "the bodies are there");
    assert!(!sent.contains("8001015") && !sent.contains("9002025"), "an ID number was sent");
    let logged = world.rows("select request, response from sluice.attempt where sync = 'people' and request is not null").await;
    let logged = serde_json::to_string(&logged).expect("JSON");
    assert!(logged.contains("Adams") && !logged.contains("anna.adams0@example.com") && !logged.contains("+27 82 555 3000"), "{logged}");
    // the rows that are wrong on purpose
    let letters: Vec<String> =
        world.letters().await.iter().map(|l| format!("{} {} {}", text(&l["sync"]), text(&l["key"]), text(&l["error_class"]))).collect();
    let mut sorted = letters.clone();
    sorted.sort();
    assert_eq!(sorted, ["customers 131 duplicate", "people 1040 validation", "people 1041 dependency", "quotes 516 validation"]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_read_by_nobody_but_the_owner_of_the_schema() {
    let world = with_contract().await;
    assert_eq!(world.count("select count(*) from sluice.credential").await, 1);
    let locked = "select relrowsecurity from pg_class where oid = 'sluice.credential'::regclass";
    assert_eq!(world.rows(locked).await, [json!({"relrowsecurity": true})]);
    for role in ["sluice_read", "sluice_admin", "sluice_enqueue"] {
        assert_eq!(
            world.rows(&format!("select has_any_column_privilege('{role}', 'sluice.credential', 'select, insert, update') as may")).await,
            [json!({"may": false})],
            "{role}"
        );
    }
    // somebody grants it by mistake: no row is seen
    let mut tx = world.db().begin().await.expect("a transaction");
    for sql in ["grant select on sluice.credential to sluice_read", "set local role sluice_read"] {
        sqlx::query(sql).execute(&mut tx).await.expect(sql);
    }
    let seen: i64 = sqlx::query_scalar("select count(*) from sluice.credential").fetch_one(&mut tx).await.expect("a count");
    assert_eq!(seen, 0);
    tx.rollback().await.expect("a rollback");
    let stored = world.rows("select r.* from sluice.credential r").await;
    assert!(!serde_json::to_string(&stored).expect("JSON").contains("1000."), "tokens are encrypted");
}
