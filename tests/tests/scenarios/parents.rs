//! A record whose parent has no Zoho id waits for it, or becomes a dead letter that names it, or closes a cycle.

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

const TABLES: &str = "
    create table firms (id bigint primary key, name text, active boolean not null default true, contact_id bigint, owner_id bigint);
    create table people (id bigint primary key, name text, mail text, firm_id bigint);";

const CONFIG: &str = r#"
[syncs.firms]
connection = "main"
table = "public.firms"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
when = "active"
min_interval = "0s"
[syncs.firms.fields]
Account_Name = "name"
Main_Contact = { ref = "people", column = "contact_id" }
Parent_Account = { ref = "firms", column = "owner_id" }

[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
min_interval = "0s"
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
Account_Name = { ref = "firms", column = "firm_id" }
"#;

fn setup() -> Setup {
    let scenario = "[[crm.fields]]\nmodule = \"Accounts\"\napi_name = \"Main_Contact\"\ndata_type = \"lookup\"\nlookup = \"Contacts\"";
    Setup { scenario, ..Setup::new(TABLES, CONFIG) }
}

async fn one_letter(world: &World) -> Value {
    let mut letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    letters.remove(0)
}

async fn orphan(world: &World, says: &str) {
    world.settled().await;
    let letter = one_letter(world).await;
    assert_eq!(letter["error_class"], "dependency", "{letter}");
    assert_eq!((&letter["depends_sync"], &letter["depends_key"]), (&json!("firms"), &json!("7")));
    let message = text(&letter["message"]);
    assert!(message.contains("firms 7") && message.contains(says), "{message}");
}

async fn adopted(world: &World) {
    world.until("select exists (select from sluice.link where sync = 'people' and zoho_id is not null)").await;
    world.all_arrived().await;
    let firm = &world.zoho.records("crm", "Accounts").await[0];
    let person = &world.zoho.records("crm", "Contacts").await[0];
    assert_eq!(person["Account_Name"]["id"], firm["id"], "{person}");
    world.check_rules().await;
}

#[tokio::test]
async fn a_child_without_its_parents_row_is_a_dead_letter_that_names_it_and_comes_back_when_the_parent_is_linked() {
    let world = World::new(setup()).await;
    world.run("insert into people values (1, 'Child', 'c@people.example', 7)").await;
    orphan(&world, "no row").await;
    world.run("insert into firms values (7, 'Firm')").await;
    adopted(&world).await;
}

#[tokio::test]
async fn a_child_whose_parent_is_excluded_by_when_comes_back_when_it_no_longer_is() {
    let world = World::new(setup()).await;
    world.run("insert into firms values (7, 'Firm', false); insert into people values (1, 'Child', 'c@people.example', 7)").await;
    orphan(&world, "`when`").await;
    world.run("update firms set active = true").await;
    adopted(&world).await;
}

#[tokio::test]
async fn a_child_whose_parent_is_a_dead_letter_comes_back_when_the_parent_is_mended() {
    let world = World::new(setup()).await;
    world.run("insert into firms values (7, null); insert into people values (1, 'Child', 'c@people.example', 7)").await;
    world.settled().await;
    let letters = world.letters().await;
    let classes: Vec<_> = letters.iter().map(|l| (text(&l["sync"]), text(&l["error_class"]))).collect();
    assert!(classes.contains(&("firms".to_owned(), "validation".to_owned())), "{letters:#?}");
    assert!(classes.contains(&("people".to_owned(), "dependency".to_owned())), "{letters:#?}");
    world.run("update firms set name = 'Firm'").await;
    adopted(&world).await;
}

#[tokio::test]
async fn two_records_that_refer_to_each_other_arrive_with_both_references() {
    let world = World::without_worker(setup()).await;
    world.run("insert into firms (id, name, contact_id) values (1, 'Firm', 1); insert into people values (1, 'Person', 'p@people.example', 1)").await;
    world.until("select count(*) = 2 from sluice.job").await;
    world.start_worker();
    world.all_arrived().await;
    let (firms, people) = (world.zoho.records("crm", "Accounts").await, world.zoho.records("crm", "Contacts").await);
    assert_eq!((firms.len(), people.len()), (1, 1));
    assert_eq!(people[0]["Account_Name"]["id"], firms[0]["id"], "{}", people[0]);
    assert_eq!(firms[0]["Main_Contact"]["id"], people[0]["id"], "{}", firms[0]);
    world.check_rules().await;
}

#[tokio::test]
async fn a_record_that_refers_to_itself_arrives_with_its_reference() {
    let world = World::new(setup()).await;
    world.run("insert into firms (id, name, owner_id) values (1, 'Firm', 1)").await;
    world.all_arrived().await;
    let firms = world.zoho.records("crm", "Accounts").await;
    assert_eq!(firms.len(), 1);
    assert_eq!(firms[0]["Parent_Account"]["id"], firms[0]["id"], "{}", firms[0]);
    world.check_rules().await;
}

#[tokio::test]
async fn a_letter_whose_parent_was_linked_unnoticed_is_found_by_the_sweep() {
    let world = World::new(setup()).await;
    world.run("insert into people values (1, 'Child', 'c@people.example', 7)").await;
    orphan(&world, "no row").await;
    // as if the parent had been linked while the letter was being written
    world.run("alter table firms disable trigger all; insert into firms values (7, 'Firm'); alter table firms enable trigger all").await;
    let there = world.zoho.put("crm", "Accounts", None, json!({"Account_Name": "Firm"})).await;
    world.run(&format!("insert into sluice.link (sync, key, zoho_id) values ('firms', '7', '{}')", text(&there["id"]))).await;
    adopted(&world).await;
}
