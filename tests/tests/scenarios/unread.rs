//! Rows that cannot be read, or not in time, and the batches that they ride in.

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
