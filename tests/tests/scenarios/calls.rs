//! No call is wasted: records share calls, edits of one record share calls, and what changes nothing costs none.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::arriving::CRM;
use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, born text, note text);";

const ITEMS: &str = "create table items (code text primary key, name text not null, price numeric, note text, codes jsonb, colour text);";
const PRODUCTS: &str = r#"
[syncs.items]
connection = "main"
table = "public.items"
key = "code"
module = "crm/Products"
match_on = ["Product_Name"]
min_interval = "0s"
[syncs.items.fields]
Product_Name = "name"
Unit_Price = "price"
Codes = { sql = "this.codes" }
Product_Code = { sql = "upper(this.colour)" }
"#;

#[tokio::test]
async fn five_thousand_rows_changed_at_once_arrive_in_at_most_sixty_calls() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 5000) n").await;
    world.settled().await;
    let calls = world.zoho.count_calls().await;
    assert!(calls <= 60, "{calls} calls for new rows");
    assert_eq!(world.zoho.records("crm", "Contacts").await.len(), 5000);

    world.zoho.forget_calls().await;
    world.run("update people set name = name || ' the Second'").await;
    world.settled().await;
    let calls = world.zoho.count_calls().await;
    assert!(calls <= 60, "{calls} calls for changed rows");
    let names = world.zoho.values("crm", "Contacts", "Last_Name").await;
    assert!(names.len() == 5000 && names.iter().all(|name| name.ends_with(" the Second")));
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

#[tokio::test]
async fn updates_that_change_no_mapped_value_cost_no_call() {
    let scenario = "[[crm.fields]]\nmodule = \"Products\"\napi_name = \"Codes\"\ndata_type = \"jsonobject\"";
    let world = World::new(Setup { scenario, ..Setup::new(ITEMS, PRODUCTS) }).await;
    world.run(r#"insert into items select 'c' || n, 'Item ' || n, 1.10, null, '{"a": 1, "b": [2.50]}', 'Red' from generate_series(1, 1000) n"#).await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.zoho.forget_calls().await;
    // a column that nobody mapped; mapped ones set to what they are; the same number and the same JSON, spelt differently
    world.run("update items set note = 'looked at'").await;
    world.run("update items set name = name, price = 1.1").await;
    world.run(r#"update items set price = 1.1000, codes = '{"b": [2.5], "a": 1.0}'"#).await;
    // a mapped column of which only the mapping's expression knows that nothing changed
    world.run("update items set colour = 'RED'").await;
    world.settled().await;
    assert_eq!(world.zoho.count_calls().await, 0);
    let avoided =
        world.count("select coalesce(sum(calls), 0)::bigint from sluice.avoided where sync = 'items' and reason <> 'batched'").await;
    assert!(avoided >= 2000, "only {avoided} calls are counted as avoided");
    world.run("update items set price = 1.11 where code = 'c7'").await;
    world.settled().await;
    assert_eq!(world.zoho.count_calls().await, 1, "what does change is sent");
    world.check_rules().await;
}

#[tokio::test]
async fn fifty_edits_of_one_row_within_a_second_cost_at_most_two_calls_and_the_last_state_arrives() {
    let mut setup = Setup::new(PEOPLE, CRM);
    setup.config = setup.config.replace("[syncs.people.fields]", "min_interval = \"2s\"\n[syncs.people.fields]");
    let world = World::new(setup).await;
    world.run("insert into people values (1, 'Person', 'p@people.example')").await;
    world.settled().await;
    // at rest again, without waiting for it
    world.run("update sluice.link set pushed_at = pushed_at - interval '1 hour'").await;
    world.zoho.forget_calls().await;
    let began = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    for edit in 1..=50 {
        tick.tick().await;
        world.run(&format!("update people set name = 'Edit {edit}'")).await;
    }
    let spread = began.elapsed();
    world.settled().await;
    let calls = world.zoho.count_calls().await;
    // one at once, then one in each min_interval: two, unless a busy machine stretched that second
    let most = 2 + usize::try_from(spread.as_secs() / 2).unwrap();
    assert!((1..=most).contains(&calls), "{calls} calls for edits spread over {spread:?}");
    assert_eq!(world.zoho.records("crm", "Contacts").await[0]["Last_Name"], json!("Edit 50"));
    world.check_rules().await;
}
