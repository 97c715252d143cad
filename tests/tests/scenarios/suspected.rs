//! What a lost answer, an odd value or an unlucky order once did to a push: each story is the smallest that went wrong.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, phone text, kind text not null default 'home');";

const BILLING: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
reference = "cf_key"
[syncs.people.fields]
display_name = "name"
email = "mail"
phone = "phone"
website = { column = "kind", values = { home = "home.example", shop = "shop.example" } }
"#;

async fn billing() -> World {
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(PEOPLE, BILLING) }).await;
    world.run("insert into people values (1, 'One', 'one@people.example', null)").await;
    world.all_arrived().await;
    world
}

async fn lose_a_put(world: &World) {
    world.zoho.lose("billing", "PUT", "/billing/v1/customers/*").await;
    world.run("update people set phone = 'lost'").await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["lost"], "it was carried out, and nobody knows");
}

#[tokio::test]
async fn a_field_that_is_empty_again_after_its_write_was_lost_is_empty_in_zoho() {
    let world = billing().await;
    lose_a_put(&world).await;
    world.run("update people set phone = null").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, [""]);
    world.check_rules().await;
}

#[tokio::test]
async fn a_lost_write_is_not_forgotten_over_a_row_that_could_not_be_sent_meanwhile() {
    let world = billing().await;
    world.run("update people set phone = 'agreed'").await;
    world.all_arrived().await;
    lose_a_put(&world).await;
    world.run("update people set kind = 'neither', phone = 'agreed'").await;
    world.until("select exists (select from sluice.dead_letter where error_class = 'validation')").await;
    world.run("update people set kind = 'home'").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["agreed"]);
    world.check_rules().await;
}

/// Each further create could be lost as well: over a full budget, which leaves no call for the search, records gave up that way.
#[tokio::test]
async fn a_create_that_zoho_has_refused_as_a_second_one_is_looked_for_and_not_sent_again() {
    let config = include_str!("../../../recipes/billing/sluice.toml");
    let tables = include_str!("../../../recipes/billing/tables.sql");
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(tables, config) }).await;
    world
        .run(
            "insert into products (code, name) values ('fibre', 'Fibre');
             insert into customers (id, account_number, name, email) values (1, 'A-1', 'One', 'one@customer.example')",
        )
        .await;
    world.all_arrived().await;
    world.zoho.forget_calls().await;
    for path in ["/billing/v1/plans", "/billing/v1/invoices"] {
        world.zoho.lose("billing", "POST", path).await;
        world
            .zoho
            .fault(json!({"kind": "error_before", "product": "billing", "method": "GET", "path": format!("{path}*"), "times": 1}))
            .await;
    }
    world
        .run(
            "insert into service_plans (code, product_code, name, monthly_price) values ('F-100', 'fibre', 'Fibre 100', 50);
             insert into customer_invoices (id, customer_id, number, type, amount, issued_on, due_on, description, lines)
             values (1, 1, 'I-1', 'installation', 20, '2026-01-05', '2026-01-12', 'work',
                     '[{\"product\": \"fibre\", \"description\": \"work\", \"price\": 20, \"quantity\": 1}]')",
        )
        .await;
    world.all_arrived().await;
    assert_eq!(world.zoho.faults().await["error_before"], 2, "both searches failed once");
    for path in ["/billing/v1/plans", "/billing/v1/invoices"] {
        let calls = world.zoho.calls().await;
        let sent = calls.iter().filter(|call| call["method"] == "POST" && call["path"] == path).count();
        assert_eq!(sent, 2, "{path}: lost, then refused");
    }
    world.check_rules().await;
}

/// A grant holds for two seconds, and reading the row takes longer.
#[tokio::test]
async fn a_row_that_takes_longer_to_read_than_a_grant_holds_is_sent() {
    let config = BILLING.replace("phone = \"phone\"", "phone = { sql = \"(select this.phone from pg_sleep(2.5))\" }");
    let world = World::new(Setup::new(PEOPLE, config)).await;
    world.run("insert into people values (1, 'One', 'one@people.example', '1')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["1"]);
    world.check_rules().await;
}

const CONTACTS: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
Phone = "phone"
"#;

async fn contacts_lost(row: &str) -> World {
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(PEOPLE, CONTACTS) }).await;
    world.zoho.lose("crm", "POST", "/crm/v8/Contacts/upsert").await;
    world.run(row).await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    world
}

#[tokio::test]
async fn a_lost_create_without_a_value_to_match_by_is_not_sent_twice() {
    let world = contacts_lost("insert into people values (1, 'One', null, '1')").await;
    world.settled().await;
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 1);
    let letters = world.letters().await;
    assert_eq!((letters.len(), &letters[0]["error_class"]), (1, &json!("unknown")), "{letters:?}");
    // an edit is no decision; a person who has looked, and deleted it there, decides
    world.run("update people set phone = '2'").await;
    world.settled().await;
    let there = world.zoho.records("crm", "Contacts").await;
    assert_eq!((there.len(), world.letters().await.len()), (1, 1));
    world.zoho.delete("crm", "Contacts", &text(&there[0]["id"])).await;
    world.run("select sluice.requeue(id) from sluice.dead_letter where resolution is null").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Contacts", "Phone").await, ["2"]);
}

#[tokio::test]
async fn a_lost_create_whose_matched_value_is_edited_before_the_next_one_makes_no_second_record() {
    let world = contacts_lost("insert into people values (1, 'One', 'a@people.example', '1')").await;
    world.run("update people set mail = 'b@people.example'").await;
    world.settled().await;
    assert_eq!(world.zoho.values("crm", "Contacts", "Email").await.len(), 1, "{:?}", world.letters().await);
}

#[tokio::test]
async fn a_lost_create_with_a_subform_does_not_double_its_rows() {
    let config = r#"
        [syncs.deals]
        connection = "main"
        table = "deals"
        key = "id"
        module = "crm/Deals"
        reference = "Our_Key"
        [syncs.deals.fields]
        Deal_Name = "name"
        Stage = { value = "Proposal" }
        Sites = { each = "(select s.* from sites s where s.deal_id = this.id order by s.city)", item = { City = "city" } }
    "#;
    let tables = "create table deals (id bigint primary key, name text); create table sites (deal_id bigint, city text);";
    let fields = "[[crm.fields]]\nmodule = \"Deals\"\napi_name = \"Sites\"\ndata_type = \"subform\"\n
                  [[crm.fields]]\nmodule = \"Deals\"\napi_name = \"Our_Key\"\nunique = true";
    let world = World::new(Setup { scenario: fields, request_timeout: Duration::from_secs(1), ..Setup::new(tables, config) }).await;
    world.zoho.lose("crm", "POST", "/crm/v8/Deals/upsert").await;
    world.run("insert into sites values (1, 'Oslo'), (1, 'Rome'); insert into deals values (1, 'Fibre')").await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    world.all_arrived().await;
    let deals = world.zoho.records("crm", "Deals").await;
    let cities: Vec<String> = deals[0]["Sites"].as_array().unwrap().iter().map(|site| text(&site["City"])).collect();
    assert_eq!(cities, ["Oslo", "Rome"]);
    world.check_rules().await;
}

#[tokio::test]
async fn codes_that_differ_by_a_leading_zero_are_two_items() {
    let config = r#"
        [syncs.items]
        connection = "main"
        table = "items"
        key = "id"
        module = "inventory/items"
        match_on = ["sku"]
        reference = "cf_key"
        [syncs.items.fields]
        name = "name"
        sku = "sku"
        rate = "rate"
    "#;
    let tables = "create table items (id bigint primary key, name text, sku text, rate numeric(12, 2));";
    let world = World::new(Setup::new(tables, config)).await;
    world.zoho.put("inventory", "items", None, json!({"name": "Seven", "sku": "7", "rate": 1})).await;
    world.run("insert into items values (1, 'Agent', '007', 5)").await;
    world.settled().await;
    let mut skus = world.zoho.values("inventory", "items", "sku").await;
    skus.sort();
    assert_eq!(skus, ["007", "7"], "{:?}", world.letters().await);
}

#[tokio::test]
async fn a_nul_in_zohos_answer_holds_nobody_up() {
    let config = BILLING.replace("reference = \"cf_key\"", "reference = \"cf_key\"\nmatch_on = [\"email\"]");
    let world = World::new(Setup::new(PEOPLE, config)).await;
    world.zoho.put("billing", "customers", None, json!({"display_name": "One", "email": "one@people.example", "phone": "1\u{0}2"})).await;
    world.run("insert into people values (1, 'One', 'one@people.example', null)").await;
    world.settled_within(Duration::from_secs(20)).await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_parent_whose_sync_makes_no_records_is_not_waited_for_for_ever() {
    let config = r#"
        [syncs.accounts]
        connection = "main"
        table = "accounts"
        key = "id"
        module = "crm/Accounts"
        creates = false
        match_on = ["Account_Name"]
        direction = "both"
        [syncs.accounts.fields]
        Account_Name = "name"
        [syncs.people]
        connection = "main"
        table = "people"
        key = "id"
        module = "crm/Contacts"
        match_on = ["Email"]
        [syncs.people.fields]
        Last_Name = "name"
        Email = "mail"
        Account_Name = { ref = "accounts", column = "account_id" }
    "#;
    let tables = "create table accounts (id bigint primary key, name text);
                  create table people (id bigint primary key, name text, mail text, account_id bigint);";
    let world = World::new(Setup::new(tables, config)).await;
    world.run("insert into accounts values (1, 'Acme'); insert into people values (1, 'One', 'one@people.example', 1)").await;
    world.until("select exists (select from sluice.dead_letter where depends_sync = 'accounts') or (select count(*) > 6 from sluice.attempt where sync = 'people')").await;
    let letters = world.letters().await;
    assert_eq!((letters.len(), &letters[0]["error_class"]), (1, &json!("dependency")), "{letters:?}");
}

/// A customer without a reference of ours, whose create was carried out and its answer lost.
async fn customer_lost() -> World {
    let config = BILLING.replace("reference = \"cf_key\"\n", "");
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(PEOPLE, config) }).await;
    world.zoho.lose("billing", "POST", "/billing/v1/customers").await;
    world.run("insert into people values (1, 'One', 'one@people.example', null)").await;
    world.until("select count(*) = 1 from sluice.slot where tries = 1 and state = 'available'").await;
    world
}

/// Whatever of the row was edited meanwhile, what was sent is looked for as it was sent.
#[tokio::test]
async fn a_lost_create_is_found_though_the_row_was_edited_meanwhile() {
    let world = customer_lost().await;
    world.run("update people set name = 'Two'").await;
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["Two"], "{:?}", world.letters().await);
}

#[tokio::test]
async fn a_lost_payment_whose_amount_is_corrected_meanwhile_is_not_paid_twice() {
    let tables = include_str!("../../../recipes/billing/tables.sql");
    let config = include_str!("../../../recipes/billing/sluice.toml");
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(tables, config) }).await;
    world.run("insert into customers (id, account_number, name, email) values (1, 'A-1', 'One', 'one@people.example')").await;
    world.all_arrived().await;
    world.zoho.lose("billing", "POST", "/billing/v1/payments").await;
    world
        .run("insert into payments (id, customer_id, amount, method, status, paid_on) values (1, 1, 10, 'eft', 'completed', '2026-01-06')")
        .await;
    world.until("select count(*) = 1 from sluice.slot where sync = 'payments' and tries = 1 and state = 'available'").await;
    world.run("update payments set amount = 12").await;
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "payments", "amount").await.len(), 1, "{:?}", world.letters().await);
}

#[tokio::test]
async fn a_lost_create_follows_its_row_to_another_key() {
    let world = customer_lost().await;
    world.run("update people set id = 2").await;
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["One"], "{:?}", world.letters().await);
    assert_eq!(world.count("select count(*) from sluice.link where key = '2' and zoho_id is not null").await, 1);
}
