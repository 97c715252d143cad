//! What Zoho drops without a word is told of.

use serde_json::json;

use crate::world::{Setup, World};

const TABLES: &str = "create table people (id bigint primary key, name text, mail text, nick text);";
const CONFIG: &str = r#"
[syncs.people]
connection = "main"
table = "people"
key = "id"
module = "billing/customers"
match_on = ["email"]
[syncs.people.fields]
display_name = "name"
email = "mail"
nickname = "nick"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_zoho_drops_stands_in_the_timeline_and_is_not_sent_again() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    world.run("insert into people values (1, 'Thandi', 't@people.example', 'Tee'), (2, 'Sipho', 's@people.example', null)").await;
    world.all_arrived().await;
    let told = async |key: &str| {
        let told = format!("select says from sluice.explain('people', '{key}') where says like '%not in Zoho%'");
        world.rows(&told).await
    };
    let [line] = &told("1").await[..] else { panic!("{:?}", told("1").await) };
    assert!(line["says"].as_str().is_some_and(|says| says.ends_with("; sent, and not in Zoho's answer: nickname")), "{line}");
    assert_eq!(told("2").await, Vec::<serde_json::Value>::new(), "nothing was sent that could be dropped");

    world.zoho.forget_calls().await;
    world.run("update people set nick = nick || '!'; update people set name = 'Thandiwe' where id = 1").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.count_writes().await, 1, "one record changed, and each change goes once");
    assert_eq!(world.rows("select count(*) from sluice.dead_letter").await, [json!({"count": 0})]);
}
