//! Rows that a policy hides from our role are not gone: nothing is deleted or left unmade for it, and what waits goes on when the role has its right.

use std::sync::Arc;

use serde_json::Value;
use sluice_tests::wait_until;

use crate::world::{PATIENCE, Setup, World, text};

const TABLES: &str = "
    create table people (id bigint primary key, name text, mail text, tenant text, zoho_id text);
    do $$ begin create role sluice_test_reader; exception when duplicate_object or unique_violation then null; end $$;
    do $$ begin create role sluice_test_writer; exception when duplicate_object or unique_violation then null; end $$;
    do $$ begin create role sluice_test_seer bypassrls; exception when duplicate_object or unique_violation then null; end $$;
    do $$ begin grant sluice_test_seer to sluice_test_writer; exception when unique_violation or internal_error then null; end $$;
    grant select, update on people to sluice_test_reader, sluice_test_seer, sluice_test_writer;
    create policy own_rows on people using (tenant = current_setting('app.tenant', true));";

const CONFIG: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
on_delete = "delete"
min_interval = "0s"
writeback = { id = "zoho_id" }
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
"#;

async fn world(reader: &str) -> World {
    let mut world = World::without_worker(Setup::new(TABLES, CONFIG)).await;
    Arc::make_mut(&mut world.config).database.expression_role = Some(reader.to_owned());
    world
}

async fn names(world: &World) -> Vec<String> {
    let mut names: Vec<_> = world.zoho.records("crm", "Contacts").await.iter().map(|record| text(&record["Last_Name"])).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_row_that_a_policy_hides_is_neither_deleted_in_zoho_nor_left_out_and_its_record_waits_and_says_so() {
    let world = world("sluice_test_reader").await;
    world.start_worker();
    world.run("insert into people values (1, 'Before', 'b@people.example', 'a')").await;
    world.all_arrived().await;
    world.run("alter table people enable row level security").await;
    world.run("update people set name = 'After'; insert into people values (2, 'New', 'n@people.example', 'a')").await;
    let waits = || async {
        let slots = world.rows("select last_error from sluice.job_status where sync = 'people' and state = 'available'").await;
        slots.len() == 2 && slots.iter().all(|slot| text(&slot["last_error"]).contains("row-level security"))
    };
    wait_until(PATIENCE, waits).await;
    assert_eq!(names(&world).await, ["Before"]);
    assert_eq!(world.letters().await, Vec::<Value>::new(), "a right that a person can give");

    world.run("alter table people disable row level security; update sluice.slot set due_at = clock_timestamp()").await;
    world.all_arrived().await;
    assert_eq!(names(&world).await, ["After", "New"]);
    world.check_rules().await;
}

/// Reads with a role that sees everything, and writes with one that does not.
#[tokio::test]
async fn what_is_to_be_written_into_a_hidden_row_is_kept_until_it_can_be() {
    let world = world("sluice_test_seer").await;
    world
        .run(
            "alter table people enable row level security; alter table sluice.credential owner to sluice_test_writer; grant usage on schema sluice to sluice_test_writer;
             grant all on all tables in schema sluice to sluice_test_writer; grant all on all sequences in schema sluice to sluice_test_writer;
             grant execute on all functions in schema sluice to sluice_test_writer; grant execute on all procedures in schema sluice to sluice_test_writer",
        )
        .await;
    world.start_worker_as("sluice_test_writer");
    world.run("insert into people values (1, 'Hidden', 'h@people.example', 'a')").await;
    world.until("select exists (select from sluice.local_write where error like '%row-level security%')").await;
    assert_eq!(names(&world).await, ["Hidden"]);
    world.run("alter table people disable row level security; update sluice.local_write set due_at = clock_timestamp()").await;
    world.until("select exists (select from people where zoho_id is not null)").await;
    world.all_arrived().await;
}
