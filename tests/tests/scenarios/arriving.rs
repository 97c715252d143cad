//! Rows arrive: parents first, each once; bad ones become dead letters and harm nobody else.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

const TABLES: &str = include_str!("../../../recipes/billing/tables.sql");
const ROWS: &str = "
    insert into products (code, name) values ('access', 'Internet access'), ('installation', 'Installation');
    insert into service_plans (code, product_code, name, monthly_price) values ('f100', 'access', 'Fibre 100', 49.90);
    insert into customers (id, account_number, name, email, street, city)
      select n, 'A-' || n, 'Customer ' || n, 'c' || n || '@customer.example', 'Main Road ' || n, 'Cape Town' from generate_series(1, 8) n;
    insert into services (id, customer_id, plan_code, status) select n, n, 'f100', 'active' from generate_series(1, 8) n;
    insert into customer_invoices (id, customer_id, number, type, description, lines, amount, issued_on, due_on)
      select n, n, 'INV-' || n, 'installation', 'Installation', case when n % 2 = 0 then '[]'::jsonb else
        jsonb_build_array(jsonb_build_object('product', 'installation', 'description', 'Work', 'price', 120.5, 'quantity', 2)) end,
        241, '2026-01-05', '2026-01-12' from generate_series(1, 8) n;
    insert into payments (id, customer_id, amount, method, status, paid_on) select n, n, 100.25, 'eft', 'completed', '2026-01-06' from generate_series(1, 8) n;
    insert into payment_allocations (payment_id, invoice_id, amount) select n, n, 100.25 from generate_series(1, 8) n;";

fn billing() -> Setup {
    Setup::new(TABLES, include_str!("../../../recipes/billing/sluice.toml"))
}

/// When each record was made in Zoho: id → the number of the request.
fn made(calls: &[Value]) -> BTreeMap<String, u64> {
    let creates = calls.iter().filter(|call| call["method"] == "POST" && call["committed"] == true);
    creates.filter_map(|call| Some((call["ids"].as_array()?.first()?.as_str()?.to_owned(), call["number"].as_u64()?))).collect()
}

#[tokio::test]
async fn customers_subscriptions_invoices_and_payments_arrive_parents_first_and_each_once() {
    let world = World::without_worker(billing()).await;
    // children first, so that only waiting for parents can bring them in order
    world.run(ROWS).await;
    for sync in ["payments", "invoices", "subscriptions", "customers"] {
        world.trigger(sync).await;
    }
    world.start_worker();
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());

    let zoho = &world.zoho;
    for (module, count) in [("products", 2), ("plans", 1), ("customers", 8), ("subscriptions", 8), ("invoices", 8), ("payments", 8)] {
        assert_eq!(zoho.records("billing", module).await.len(), count, "{module}");
    }
    let calls = zoho.calls().await;
    let made = made(&calls);
    for (module, id, parent) in [
        ("subscriptions", "subscription_id", "customer_id"),
        ("invoices", "invoice_id", "customer_id"),
        ("payments", "payment_id", "customer_id"),
    ] {
        for record in zoho.records("billing", module).await {
            assert!(made[&text(&record[parent])] < made[&text(&record[id])], "{module}: {record}");
        }
    }
    let payment = &zoho.records("billing", "payments").await[0];
    assert_eq!(payment["invoices"].as_array().map(Vec::len), Some(1), "{payment}");
    let customers = world.rows("select zoho_customer_id, zoho_sync_status, zoho_last_synced_at from customers").await;
    assert!(customers.iter().all(|row| row["zoho_sync_status"] == "synced" && row["zoho_last_synced_at"].is_string()), "{customers:?}");
    let mut ids: Vec<String> = customers.iter().map(|row| text(&row["zoho_customer_id"])).collect();
    ids.sort();
    assert_eq!(ids, zoho.values("billing", "customers", "customer_id").await);
    world.check_rules().await;
}

#[tokio::test]
async fn a_refused_row_is_a_dead_letter_with_its_field_within_one_attempt_and_synced_once_mended_and_requeued() {
    let world = World::new(billing()).await;
    world.run("insert into customers (id, account_number, name, email) values (1, 'A-1', 'Without e-mail', null), (2, 'A-2', 'With', 'b@customer.example')").await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter = &letters[0];
    assert_eq!((&letter["key"], &letter["error_class"], &letter["field"]), (&json!("1"), &json!("validation"), &json!("email")));
    assert_eq!(letter["attempts"], 1, "{letter}");
    assert!(letter["hint"].is_string());
    let row = world.rows("select zoho_sync_status, zoho_last_sync_error from customers where id = 1").await.remove(0);
    assert_eq!(row["zoho_sync_status"], "failed");
    assert!(text(&row["zoho_last_sync_error"]).contains("email"), "{row}");
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["With"], "the other row is not kept from Zoho");

    // mended where nothing is captured, so that the requeue alone pushes it
    world.run("alter table customers disable trigger all; update customers set email = 'a@customer.example' where id = 1; alter table customers enable trigger all").await;
    let id = letter["id"].as_i64().unwrap();
    sqlx::query("select sluice.requeue($1)").bind(id).execute(world.db()).await.unwrap();
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["With", "Without e-mail"]);
    let resolution = world.rows("select resolution from sluice.dead_letter").await;
    assert_eq!(resolution, [json!({"resolution": "requeued"})]);
    let row = world.rows("select zoho_sync_status, zoho_last_sync_error from customers where id = 1").await.remove(0);
    assert_eq!(row, json!({"zoho_sync_status": "synced", "zoho_last_sync_error": null}));
    world.check_rules().await;
}

#[tokio::test]
async fn a_dead_record_that_is_edited_and_arrives_closes_its_letter() {
    let world = World::new(billing()).await;
    world.run("insert into customers (id, account_number, name, email) values (1, 'A-1', 'One', null)").await;
    world.until("select exists (select from sluice.dead_letter where resolution is null)").await;
    world.run("update customers set email = 'a@customer.example'").await;
    world.until("select resolution is not null from sluice.dead_letter").await;
    assert_eq!(world.rows("select resolution from sluice.dead_letter").await, [json!({"resolution": "superseded"})]);
    assert_eq!(world.zoho.values("billing", "customers", "email").await, ["a@customer.example"]);
    world.check_rules().await;
}

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, born text);";

pub(crate) const CRM: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
Date_of_Birth = "born"
"#;

#[tokio::test]
async fn a_row_that_crm_takes_for_another_rows_record_is_a_dead_letter_and_the_record_gets_its_own_values_back() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people values (1, 'One', 'same@people.example', '1990-02-03')").await;
    world.all_arrived().await;
    world.run("insert into people values (2, 'Two', 'same@people.example', '1980-01-01')").await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(
        (letters.len(), text(&letters[0]["key"]), text(&letters[0]["error_class"])),
        (1, "2".into(), "duplicate".into()),
        "{letters:#?}"
    );
    assert_eq!(world.zoho.values("crm", "Contacts", "Last_Name").await, ["One"]);
    assert_eq!(world.zoho.values("crm", "Contacts", "Date_of_Birth").await, ["1990-02-03"]);
    world.check_rules().await;
}

#[tokio::test]
async fn of_two_rows_that_crm_takes_for_one_record_in_one_call_one_has_its_values_there() {
    let world = World::without_worker(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people values (1, 'One', 'same@people.example', null), (2, 'Two', 'same@people.example', null)").await;
    world.until("select count(*) = 2 from sluice.job").await;
    world.start_worker();
    world.settled().await;
    let linked = world.rows("select name from people p join sluice.link l on l.key = p.id::text and l.zoho_id is not null").await;
    assert_eq!((linked.len(), world.letters().await.len()), (1, 1), "{linked:?}");
    assert_eq!(world.zoho.values("crm", "Contacts", "Last_Name").await, [text(&linked[0]["name"])]);
    world.check_rules().await;
}

#[tokio::test]
async fn one_bad_record_never_fails_the_batch_it_rides_in() {
    let world = World::without_worker(Setup::new(PEOPLE, CRM)).await;
    world
        .run(
            "insert into people select n, case when n <> 7 then 'Person ' || n end, 'p' || n || '@people.example', case when n = 13 then 'yesterday' else '1990-02-03' end
             from generate_series(1, 40) n",
        )
        .await;
    world.until("select count(*) = 40 from sluice.job").await;
    world.start_worker();
    world.settled().await;
    let letters = world.letters().await;
    let of: Vec<_> = letters.iter().map(|l| (text(&l["key"]), text(&l["error_class"]), text(&l["field"]))).collect();
    let letter = |key: &str, field: &str| (key.to_owned(), "validation".to_owned(), field.to_owned());
    assert_eq!(of.len(), 2, "{letters:#?}");
    assert!(of.contains(&letter("7", "Last_Name")) && of.contains(&letter("13", "Date_of_Birth")), "{of:?}");
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 38);
    assert_eq!(world.zoho.count_calls().await, 1, "all rode in one call");
    world.check_rules().await;
}

#[tokio::test]
async fn a_text_that_crm_cannot_take_as_a_number_dies_with_a_hint_that_names_field_column_and_type() {
    const DEALS: &str = "[syncs.deals]\nconnection = \"main\"\ntable = \"public.deals\"\nkey = \"id\"\nmodule = \"crm/Deals\"\nmatch_on = [\"Deal_Name\"]\n\
                         [syncs.deals.fields]\nDeal_Name = \"title\"\nStage = { value = \"Qualification\" }\nAmount = \"price\"\n";
    let world = World::new(Setup::new("create table deals (id bigint primary key, title text, price text)", DEALS)).await;
    world.run("insert into deals values (1, 'Good', null), (2, 'Bad', 'twelve')").await;
    world.settled().await;
    let letter = world.letters().await.remove(0);
    assert_eq!((&letter["key"], &letter["field"]), (&json!("2"), &json!("Amount")), "{letter}");
    let hint = letter["hint"].as_str().unwrap();
    for said in ["`Amount` comes from the column `price`", "Zoho takes ", "[syncs.deals.fields]"] {
        assert!(hint.contains(said), "{hint}");
    }
}
