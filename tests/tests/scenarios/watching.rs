//! Changes elsewhere that concern a record: watched tables, views over tables, partitions.

use crate::world::{Setup, World};

const TABLES: &str = "
    create table people (id bigint primary key, name text, mail text);
    create table addresses (id bigint primary key, person_id bigint, city text);
    create view cards as select p.id, p.name, p.mail, a.city from people p left join addresses a on a.person_id = p.id;
    create table visits (id bigint, day date, title text, primary key (id, day)) partition by range (day);
    create table visits_2026 partition of visits for values from ('2026-01-01') to ('2027-01-01');
    create table visits_2027 partition of visits for values from ('2027-01-01') to ('2028-01-01');";

const CONFIG: &str = r#"
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
Mailing_City = { sql = "(select city from addresses a where a.person_id = this.id)" }
[[syncs.people.watch]]
table = "public.addresses"
key = "person_id"

[syncs.cards]
connection = "main"
table = "public.cards"
key = "id"
module = "crm/Leads"
match_on = ["Email"]
min_interval = "0s"
[syncs.cards.fields]
Last_Name = "name"
Email = "mail"
City = "city"
[[syncs.cards.watch]]
table = "public.people"
key = "id"
[[syncs.cards.watch]]
table = "public.addresses"
key = "person_id"

[syncs.visits]
connection = "main"
table = "public.visits"
key = ["id", "day"]
module = "crm/Deals"
match_on = ["Deal_Name"]
min_interval = "0s"
[syncs.visits.fields]
Deal_Name = "title"
Stage = { value = "Won" }
"#;

#[tokio::test]
async fn a_change_in_a_watched_table_pushes_the_records_that_it_concerns_before_and_after() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    world.run("insert into people values (1, 'One', 'one@people.example'), (2, 'Two', 'two@people.example'), (3, 'Three', 'three@people.example')").await;
    world.all_arrived().await;
    world.run("insert into addresses values (1, 1, 'Durban')").await;
    world.all_arrived().await;
    for (module, field) in [("Contacts", "Mailing_City"), ("Leads", "City")] {
        assert_eq!(world.zoho.values("crm", module, field).await, ["Durban", "null", "null"], "{module}");
    }
    world.zoho.forget_calls().await;
    // moves to another person: both are concerned, the third is not
    world.run("update addresses set person_id = 2").await;
    world.all_arrived().await;
    for (module, field) in [("Contacts", "Mailing_City"), ("Leads", "City")] {
        let records = world.zoho.records("crm", module).await;
        let city = |name: &str| records.iter().find(|r| r["Last_Name"] == name).unwrap()[field].clone();
        assert_eq!((city("One"), city("Two")), (serde_json::Value::Null, "Durban".into()), "{module}");
    }
    assert!(world.zoho.calls().await.iter().all(|call| call["ids"].as_array().unwrap().len() <= 2));
    world.check_rules().await;
}

#[tokio::test]
async fn a_view_is_pushed_when_a_table_under_it_changes() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    world.run("insert into people values (1, 'One', 'one@people.example'); insert into addresses values (1, 1, 'Durban')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Leads", "City").await, ["Durban"]);
    world.run("update people set name = 'Uno'").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Leads", "Last_Name").await, ["Uno"]);
    world.check_rules().await;
}

#[tokio::test]
async fn rows_of_every_partition_arrive_with_keys_of_several_columns() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    world.run("insert into visits values (1, '2026-05-01', 'First'), (1, '2027-05-01', 'Second')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Deals", "Deal_Name").await, ["First", "Second"]);
    world.run("update visits_2027 set title = 'Later'").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Deals", "Deal_Name").await, ["First", "Later"]);
    world.check_rules().await;
}
