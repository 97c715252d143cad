//! Rows that cannot be read, or not in time, or under no key that a job can have; and the others beside them.

use serde_json::Value;

use crate::world::{Setup, World};

const TABLES: &str = "
    create table people (id bigint primary key, name text);
    create table elsewhere (up boolean); insert into elsewhere values (false);
    create function told(n bigint) returns text language plpgsql as $$ begin
      if n = 5 then raise 'told so' using errcode = 'U0001';
      elsif n = 6 and not (select up from elsewhere) then raise 'could not connect to server' using errcode = '08001';
      elsif n = 7 then return 1 / (n - 7);
      end if;
      perform pg_sleep(0.15);
      return 'x';
    end $$;";

const CONFIG: &str = r#"
[syncs.people]
connection = "main"
table = "people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
[syncs.people.fields]
Last_Name = "name"
Email = { sql = "this.name || '@people.example'" }
Description = { sql = "told(this.id)" }
"#;

/// One that raises its own code kept the whole batch waiting for ever, and slow ones died of the error of another.
#[tokio::test(flavor = "multi_thread")]
async fn each_row_has_its_own_fate_in_a_batch_that_is_slow_and_holds_rows_that_fail() {
    let world = World::without_worker(Setup::new(TABLES, CONFIG)).await;
    world.run("insert into people select n, 'p' || n from generate_series(1, 40) n").await;
    world.until("select count(*) = 40 from sluice.job").await;
    world.start_worker();
    world.until("select count(*) = 37 from sluice.link where zoho_id is not null").await;
    world.until("select count(*) = 2 from sluice.dead_letter where resolution is null").await;
    let letters = world.letters().await;
    let said = |key: &str| {
        let letter = letters.iter().find(|letter| letter["key"] == key).unwrap();
        (letter["field"].clone(), letter["message"].clone())
    };
    let expected = |message: &str| (Value::from("Description"), Value::from(format!("Description: {message}")));
    assert_eq!(said("5"), expected("told so"));
    assert_eq!(said("7"), expected("division by zero"));
    world
        .until("select status = 'retrying' and last_error like '%could not connect to server' from sluice.record_status where key = '6'")
        .await;

    world.run("update elsewhere set up = true; update sluice.slot set due_at = now()").await;
    world.until("select count(*) = 38 from sluice.link where zoho_id is not null").await;
    assert_eq!(world.letters().await.len(), 2);
    world.check_rules().await;
}

/// The insert of the jobs failed whole, and the sweep began again, for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_out_rows_whose_key_can_be_no_records_names_them_and_pushes_the_others() {
    let tables = "create table people (id text primary key, name text);";
    let world = World::new(Setup::new(tables, CONFIG.replace("told(this.id)", "this.name"))).await;
    world
        .run("alter table people disable trigger all; insert into people values ('a', 'a'), ('zoho:1', 'b'), (repeat('x', 1100), 'c')")
        .await;
    world.run("select sluice.reconcile('people')").await;
    world.until("select exists (select from sluice.run where kind = 'reconcile' and state <> 'running')").await;
    world.settled().await;
    assert_eq!(world.rows("select key from sluice.link where zoho_id is not null").await, [serde_json::json!({ "key": "a" })]);
    let run = world.rows("select messages from sluice.run where kind = 'reconcile'").await.remove(0).to_string();
    assert!(run.contains("left out: the key `zoho:1`") && run.contains("has 1100 bytes"), "{run}");
}
