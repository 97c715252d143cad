//! A new account is made only if none is called like it: surely meant ones are adopted, a person decides what is not clear.

use serde_json::{Value, json};

use crate::world::{Setup, World, text};

const COMPANIES: &str = "create table companies (id bigint primary key, name text, phone text, zoho_id text, zoho_status text);";
const CONFIG: &str = r#"
[syncs.companies]
connection = "main"
table = "public.companies"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
match_similar = "Account_Name"
writeback = { id = "zoho_id", status = "zoho_status" }
[syncs.companies.fields]
Account_Name = "name"
Phone = "phone"
"#;

async fn world() -> World {
    World::new(Setup { scenario: "log_bodies = true", ..Setup::new(COMPANIES, CONFIG) }).await
}

async fn account(world: &World, name: &str) -> String {
    text(&world.zoho.put("crm", "Accounts", None, json!({"Account_Name": name})).await["id"])
}

async fn queries(world: &World) -> usize {
    world.zoho.calls().await.iter().filter(|call| text(&call["path"]).ends_with("/coql")).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_of_the_same_name_is_adopted_also_where_it_is_written_otherwise() {
    let world = world().await;
    let (exact, normalised) = (account(&world, "Karoo Optics").await, account(&world, "A.B.C. Corp.").await);
    world.run("insert into companies values (1, 'karoo optics', '1'), (2, 'ABC Corp', '2'), (3, 'Overberg Vineyards', '3')").await;
    world.all_arrived().await;
    let rows = world.rows("select id, zoho_id from companies order by id").await;
    assert_eq!((text(&rows[0]["zoho_id"]), text(&rows[1]["zoho_id"])), (exact, normalised));
    assert_eq!(world.zoho.values("crm", "Accounts", "Phone").await, ["1", "2", "3"]);
    assert_eq!(world.zoho.values("crm", "Accounts", "Account_Name").await, ["ABC Corp", "Overberg Vineyards", "karoo optics"]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_similar_name_waits_for_a_person_who_names_the_account_that_is_meant() {
    let world = world().await;
    let there = account(&world, "ABC Corporation").await;
    world.run("insert into companies values (1, 'ABC Corp', '1')").await;
    world.settled().await;
    let letter = world.letters().await.remove(0);
    assert_eq!((&letter["error_class"], &letter["field"]), (&json!("duplicate"), &json!("Account_Name")));
    assert!(text(&letter["message"]).contains(&format!("{there} \"ABC Corporation\"")), "{letter}");
    assert!(text(&letter["hint"]).contains("update public.companies set zoho_id = "), "{letter}");
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 1, "nothing was made");

    world.run(&format!("update companies set zoho_id = '{there}'")).await;
    world.all_arrived().await;
    let accounts = world.zoho.records("crm", "Accounts").await;
    assert_eq!((accounts.len(), &accounts[0]["Account_Name"], &accounts[0]["Phone"]), (1, &json!("ABC Corp"), &json!("1")));
    assert_eq!(world.rows("select zoho_id, zoho_status from companies").await, [json!({"zoho_id": there, "zoho_status": "synced"})]);
    // our own writeback of the column is no edit
    world.zoho.forget_calls().await;
    world.run("update companies set zoho_id = zoho_id || ''").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.count_calls().await, 0);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_says_that_it_is_a_new_one_or_something_that_is_no_answer() {
    let world = world().await;
    account(&world, "ABC Corporation").await;
    world.run("insert into companies values (1, 'ABC Corp', '1')").await;
    world.settled().await;
    world.run("update companies set zoho_id = 'that one'").await;
    world.until("select exists (select from sluice.dead_letter where resolution is null and error_class = 'validation')").await;
    assert!(text(&world.letters().await.last().expect("a letter")["message"]).contains("says `that one`"));
    world.run("update companies set zoho_id = 'new'").await;
    world.until("select zoho_id ~ '^[0-9]+$' from companies").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Accounts", "Account_Name").await, ["ABC Corp", "ABC Corporation"]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_similar_new_rows_one_is_made_and_the_other_waits_for_a_person() {
    let world = World::without_worker(Setup::new(COMPANIES, CONFIG)).await;
    world.run("insert into companies values (1, 'ABC Corp', '1'), (2, 'ABC Corporation', '2')").await;
    world.until("select count(*) = 2 from sluice.job").await;
    world.start_worker();
    world.until("select exists (select from sluice.dead_letter where resolution is null)").await;
    world.settled().await;
    let letters: Vec<Value> = world.letters().await;
    assert_eq!((letters.len(), &letters[0]["error_class"], &letters[0]["key"]), (1, &json!("duplicate"), &json!("2")));
    assert!(text(&letters[0]["message"]).contains("(linked to 1)"), "{letters:?}");
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 1);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_names_cost_a_query_for_each_twenty_four_and_one_call_that_makes_them() {
    let world = World::without_worker(Setup::new(COMPANIES, CONFIG)).await;
    for at in 0..50 {
        account(&world, &format!("Nobody's {at}")).await;
    }
    // a hundred beginnings
    world.run("insert into companies select n, translate(to_char(n, 'FM000'), '0123456789', 'abdeghiklm') || 'xy ' || n, n from generate_series(1, 100) n").await;
    world.until("select count(*) = 100 from sluice.job").await;
    world.start_worker();
    world.all_arrived().await;
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 150);
    assert_eq!((queries(&world).await, world.zoho.count_calls().await), (5, 6), "{:#?}", world.zoho.calls().await);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_beginning_that_many_names_have_is_looked_for_more_narrowly() {
    let world = world().await;
    let seed = json!({"product": "crm", "module": "Accounts", "count": 450, "record": {"Account_Name": "South Branch {n}"}});
    world.zoho.post("seed", seed).await;
    let there = account(&world, "South Harbour Bank").await;
    world.run("insert into companies values (1, 'South African Bank', '1'), (2, 'South Harbour Bank.', '2')").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 452);
    assert_eq!(world.rows("select zoho_id from companies where id = 2").await, [json!({"zoho_id": there})]);
    assert!(queries(&world).await <= 6, "{}", queries(&world).await);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_quotes_is_only_a_name() {
    let world = world().await;
    let there = account(&world, "O'Brien & Sons").await;
    world.run("insert into companies values (1, 'O''Brien and Sons', '1'), (2, 'Bobby'') or (id > ''1', '2')").await;
    world.all_arrived().await;
    assert_eq!(world.rows("select zoho_id from companies where id = 1").await, [json!({"zoho_id": there})]);
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), 2);
    world.check_rules().await;
}
