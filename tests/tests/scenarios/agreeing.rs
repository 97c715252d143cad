//! Replicas whose files differ from what is published leave those syncs to others, and nothing else.

use std::sync::Arc;

use crate::world::{PATIENCE, Setup, World};

const TABLES: &str = "create table people (id bigint primary key, name text, mail text); create table leads (like people including all);";
const CONFIG: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
[syncs.leads]
connection = "main"
table = "public.leads"
key = "id"
module = "crm/Leads"
match_on = ["Email"]
[syncs.leads.fields]
Last_Name = "name"
Email = "mail"
"#;

#[tokio::test]
async fn a_worker_whose_file_differs_leaves_that_sync_to_those_that_agree() {
    let world = World::without_worker(Setup::new(TABLES, CONFIG)).await;
    let mut other = (*world.config).clone();
    let people = other.syncs.get_mut("people").unwrap();
    let name = people.fields.get("Last_Name").unwrap().clone();
    people.fields.insert("First_Name".to_owned(), name);
    let (stop, task) = world.start_worker_with(Arc::new(other));
    world
        .run("insert into people values (1, 'Person', 'p@people.example'); insert into leads values (1, 'Lead', 'l@people.example')")
        .await;
    world.until("select synced_at is not null from sluice.link where sync = 'leads' union all select false limit 1").await;
    assert_eq!(world.count("select count(*) from sluice.attempt where sync = 'people'").await, 0);
    assert_eq!(
        world.count("select count(*) from sluice.job where sync = 'people'").await
            + world.count("select count(*) from sluice.slot where sync = 'people'").await,
        1
    );
    stop.cancel();
    tokio::time::timeout(PATIENCE, task).await.expect("a worker that stops").unwrap();
    world.start_worker();
    world.all_arrived().await;
    let contact = world.zoho.records("crm", "Contacts").await.remove(0);
    assert_eq!((&contact["Last_Name"], &contact["First_Name"]), (&"Person".into(), &serde_json::Value::Null));
    world.check_rules().await;
}
