//! First contact with records that Zoho has already: adopted where one matches, shown to a person where that is not clear.

use serde_json::{Value, json};

use crate::arriving::CRM;
use crate::world::{Setup, World, text};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, phone text, born text);";
const BILLING: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
match_on = ["email"]
reference = "cf_key"
[syncs.people.fields]
display_name = "name"
email = "mail"
phone = "phone"
"#;

#[tokio::test]
async fn an_existing_customer_is_adopted_and_only_what_differs_is_sent() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    let there =
        world.zoho.put("billing", "customers", None, json!({"display_name": "Old name", "email": "a@people.example", "phone": "1"})).await;
    world.run("insert into people values (1, 'New name', 'a@people.example', '1')").await;
    world.all_arrived().await;
    let customers = world.zoho.records("billing", "customers").await;
    assert_eq!(customers.len(), 1, "no second one");
    assert_eq!((&customers[0]["customer_id"], &customers[0]["display_name"]), (&there["customer_id"], &json!("New name")));
    let link = world.rows("select zoho_id from sluice.link").await;
    assert_eq!(text(&link[0]["zoho_id"]), text(&there["customer_id"]));
    assert!(world.zoho.calls().await.iter().all(|call| call["method"] != "POST"), "nothing was created");
    world.check_rules().await;
}

/// A list that was read for an earlier row does not show it.
#[tokio::test]
async fn a_customer_that_a_person_made_a_moment_before_the_row_is_adopted_in_whatever_case_its_address_is() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    world.run("insert into people values (1, 'One', 'a@people.example', '1')").await;
    world.all_arrived().await;
    world.zoho.put("billing", "customers", None, json!({"display_name": "Two", "email": "B@people.example"})).await;
    world.run("insert into people values (2, 'Two', 'b@People.example', '2')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("billing", "customers", "phone").await, ["1", "2"], "no third one");
    world.check_rules().await;
}

#[tokio::test]
async fn a_customer_whose_name_zoho_takes_for_the_same_is_adopted_or_the_letter_says_what_differs() {
    let config = BILLING.replace("[\"email\"]", "[\"display_name\"]");
    let scenario = "[finance]\nunique_display_name = true";
    let world = World::new(Setup { scenario, ..Setup::new(PEOPLE, config) }).await;
    world.zoho.put("billing", "customers", None, json!({"display_name": "ACME", "phone": "1"})).await;
    world.run("insert into people values (1, 'Acme', 'a@people.example', '2')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["Acme"]);
    world.check_rules().await;
    drop(world);
    let by_mail = World::new(Setup { scenario, ..Setup::new(PEOPLE, BILLING) }).await;
    by_mail.zoho.put("billing", "customers", None, json!({"display_name": "ACME", "email": "a@people.example"})).await;
    by_mail.run("insert into people values (1, 'Acme', 'b@people.example', '2')").await;
    by_mail.settled().await;
    let letters = by_mail.letters().await;
    assert_eq!((letters.len(), &letters[0]["error_class"], &letters[0]["error_code"]), (1, &json!("duplicate"), &json!("3062")));
    assert!(text(&letters[0]["hint"]).contains("none whose email is the row's"), "{letters:?}");
}

#[tokio::test]
async fn several_matches_are_a_dead_letter_that_lists_them() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    let mut ids = Vec::new();
    for name in ["One", "Two"] {
        let record = world.zoho.put("billing", "customers", None, json!({"display_name": name, "email": "a@people.example"})).await;
        ids.push(text(&record["customer_id"]));
    }
    world.run("insert into people values (1, 'Who?', 'a@people.example', '1')").await;
    world.settled().await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["error_class"], "duplicate");
    assert!(ids.iter().all(|id| text(&letters[0]["message"]).contains(id)), "{}", letters[0]);
    assert_eq!(world.zoho.records("billing", "customers").await.len(), 2);
    world.check_rules().await;
}

#[tokio::test]
async fn two_rows_for_one_record_of_billing_are_a_dead_letter_duplicate() {
    let world = World::new(Setup::new(PEOPLE, BILLING)).await;
    world.run("insert into people values (1, 'First', 'a@people.example', '1')").await;
    world.all_arrived().await;
    world.run("insert into people values (2, 'Second', 'a@people.example', '1')").await;
    world.settled().await;
    duplicate(&world, "billing", "customers").await;
}

#[tokio::test]
async fn two_rows_for_one_record_of_crm_are_a_dead_letter_duplicate_also_within_one_call() {
    let world = World::without_worker(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people values (1, 'First', 'a@people.example', '1'), (2, 'Second', 'a@people.example', '1'), (3, 'Third', 'c@people.example', '1')").await;
    world.until("select count(*) = 3 from sluice.job").await;
    world.start_worker();
    world.settled().await;
    assert_eq!(
        world.count("select count(*) from sluice.link where key = '3' and zoho_id is not null").await,
        1,
        "the third is not kept from it"
    );
    let letters: Vec<Value> = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!(letters[0]["error_class"], "duplicate", "{letters:?}");
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 2);
    world.check_rules().await;
}

async fn duplicate(world: &World, product: &str, module: &str) {
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert_eq!((&letters[0]["error_class"], &letters[0]["key"]), (&json!("duplicate"), &json!("2")));
    assert!(text(&letters[0]["message"]).contains("linked to 1"), "{}", letters[0]);
    assert_eq!(world.zoho.records(product, module).await.len(), 1);
    world.check_rules().await;
}
