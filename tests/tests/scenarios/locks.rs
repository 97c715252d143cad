//! Callers hold locks for as long as they like, and commit when they like: nobody else waits, and nothing is lost.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::db::{Db, Settings, dynamic};

use crate::world::{Setup, World};

const PEOPLE: &str = "create table people (id bigint primary key, name text, mail text, zoho_id text, zoho_status text);";
const CRM: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
min_interval = "0s"
writeback = { id = "zoho_id", status = "zoho_status" }
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
"#;

const CUSTOMERS: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
writeback = { id = "zoho_id", status = "zoho_status" }
fields = { display_name = "name", email = "mail" }
"#;

/// A transaction of the application's that has done this and stays open.
async fn open(world: &World, sql: &'static str) -> sluice_core::db::Tx {
    let mut tx = world.connect().await.begin().await.unwrap();
    dynamic::script(sql.to_owned()).execute(&mut tx).await.unwrap();
    tx
}

#[tokio::test]
async fn a_caller_who_sits_idle_in_a_transaction_delays_no_other_record() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 10) n").await;
    world.settled().await;

    let job = open(
        &world,
        "insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'people', 'key', n) from generate_series(1, 10) n",
    )
    .await;
    let edit = open(&world, "update people set name = 'Edited' where id = 1").await;
    world.run("update people set name = 'Changed ' || id where id > 1").await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(11, 20) n").await;
    world.settled().await;
    let names = world.zoho.values("crm", "Contacts", "Last_Name").await;
    assert_eq!(names.iter().filter(|name| name.starts_with("Changed")).count(), 9, "{names:?}");
    assert_eq!(names.len(), 20);

    edit.commit().await.unwrap();
    job.rollback().await.unwrap();
    world.settled().await;
    assert!(world.zoho.values("crm", "Contacts", "Last_Name").await.contains(&"Edited".to_owned()));
    world.check_rules().await;
}

#[tokio::test]
async fn a_locked_row_is_written_back_when_it_is_released_and_no_other_waits_for_it() {
    let world = World::without_worker(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 5) n").await;
    world.until("select count(*) = 5 from sluice.job").await;
    let lock = open(&world, "select from people where id = 3 for update").await;
    world.start_worker();
    world.until("select count(*) = 4 from people where zoho_status = 'synced'").await;
    // the record itself counts as settled: only its row is still to be written
    world.until("select count(*) = 5 from sluice.link where synced_at is not null").await;
    world.until("select count(*) = 0 from sluice.slot").await;
    world.until("select tries > 1 from sluice.local_write where key = '3'").await;
    lock.rollback().await.unwrap();
    world.settled().await;
    assert_eq!(world.count("select count(*) from people p join sluice.link l on l.key = p.id::text where p.zoho_id = l.zoho_id and p.zoho_status = 'synced'").await, 5);
    world.check_rules().await;
}

#[tokio::test]
async fn an_edit_that_is_committed_late_with_an_older_id_than_one_already_settled_arrives() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people values (1, 'One', 'one@people.example'), (2, 'Two', 'two@people.example')").await;
    world.settled().await;
    let late = open(&world, "update people set name = 'Late' where id = 1").await;
    world.run("update people set name = 'Soon' where id = 2").await;
    world.settled().await;
    assert_eq!(world.zoho.values("crm", "Contacts", "Last_Name").await, ["One", "Soon"]);
    late.commit().await.unwrap();
    world.settled().await;
    assert_eq!(world.zoho.values("crm", "Contacts", "Last_Name").await, ["Late", "Soon"]);

    // the same for jobs of one record
    let mut late = open(&world, "insert into sluice.job (kind, args) values ('push', '{\"sync\": \"people\", \"key\": 1}')").await;
    let job: i64 = sqlx::query_scalar("select max(id) from sluice.job").fetch_one(&mut late).await.unwrap();
    world.run("update people set name = 'Later' where id = 1").await;
    world.settled().await;
    late.commit().await.unwrap();
    world.settled().await;
    let result: Value = world.rows(&format!("select sluice.job_result({job}) as result")).await.remove(0);
    assert_eq!(result, json!({"result": "done"}));
    world.check_rules().await;
}

#[tokio::test]
async fn a_table_that_refuses_the_writeback_does_not_fail_the_sync() {
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("alter table people add check (zoho_status is null or zoho_status = 'by hand')").await;
    world.run("insert into people values (1, 'One', 'one@people.example')").await;
    world.until("select exists (select from sluice.local_write where error is not null)").await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    assert_eq!(world.zoho.values("crm", "Contacts", "Last_Name").await, ["One"]);
    let noted = world.rows("select error from sluice.local_write").await;
    assert!(noted[0]["error"].as_str().unwrap().contains("check constraint"), "{noted:?}");
    world.check_rules().await;
}

#[tokio::test]
async fn a_writeback_column_that_is_missing_is_said_with_the_statement_that_adds_it_and_keeps_back_no_other() {
    let world = World::without_worker(Setup::new(PEOPLE, CRM)).await;
    world.run("alter table people drop column zoho_status; insert into people values (1, 'One', 'one@people.example')").await;
    world.start_worker();
    world.until("select exists (select from sluice.local_write where error is not null)").await;
    world.settled().await;
    assert_eq!(world.count("select count(*) from people where zoho_id is not null").await, 1, "the other column is written");
    let noted = world.rows("select error, columns from sluice.local_write").await.remove(0);
    assert!(noted["error"].as_str().unwrap().contains(r#"alter table "public"."people" add column "zoho_status" text;"#), "{noted}");
    assert_eq!(noted["columns"], json!({"zoho_status": "synced"}));
    world.run("alter table public.people add column zoho_status text; update sluice.local_write set due_at = now()").await;
    world.until("select not exists (select from sluice.local_write)").await;
    assert_eq!(world.count("select count(*) from people where zoho_status = 'synced'").await, 1);
}

/// Somebody asks for the new key before the producer has taken the change in: no second record.
#[tokio::test]
async fn a_changed_key_that_is_asked_for_before_its_link_has_followed_makes_no_second_record() {
    let world = World::without_roles(Setup::new(PEOPLE, CUSTOMERS)).await;
    world.start_worker();
    world.run("insert into people values (1, 'One', 'one@people.example'); insert into sluice.job (kind, args) values ('push', '{\"sync\": \"people\", \"key\": 1}')").await;
    world.until("select count(*) = 1 from people where zoho_status = 'synced'").await;
    world.run("delete from sluice.change").await;
    world.run("update people set id = 2, name = 'Two'; insert into sluice.job (kind, args) values ('push', '{\"sync\": \"people\", \"key\": 2}')").await;
    world.until("select count(*) > 0 from sluice.attempt where key = '2'").await;
    world.start_producer().await;
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["Two"]);
    assert_eq!(world.rows("select key from sluice.link").await, [json!({"key": "2"})]);
    world.check_rules().await;
}

/// The old key's row is gone, but its record is not: the link is only late.
#[tokio::test]
async fn a_record_whose_key_has_changed_is_not_deleted_when_its_old_key_is_asked_for_first() {
    let world = World::without_roles(Setup::new(PEOPLE, format!("{CUSTOMERS}on_delete = \"delete\"\n"))).await;
    world.start_worker();
    world.run("insert into people values (1, 'One', 'one@people.example'); insert into sluice.job (kind, args) values ('push', '{\"sync\": \"people\", \"key\": 1}')").await;
    world.until("select count(*) = 1 from people where zoho_status = 'synced'").await;
    world.run("delete from sluice.change").await;
    assert_eq!(world.count("select count(*) from sluice.attempt where key = '1'").await, 1);
    let record = world.rows("select zoho_id from people").await;
    world.run("update people set id = 2, name = 'Two'; insert into sluice.job (kind, args) values ('push', '{\"sync\": \"people\", \"key\": 1}')").await;
    world.until("select count(*) > 1 from sluice.attempt where key = '1'").await;
    world.start_producer().await;
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await, ["Two"]);
    assert_eq!(world.rows("select key from sluice.link").await, [json!({"key": "2"})]);
    assert_eq!(world.rows("select zoho_id from sluice.link").await, record, "it is the same one");
    world.check_rules().await;
}

#[tokio::test]
async fn records_whose_keys_change_again_and_again_are_neither_deleted_nor_made_anew() {
    let world = World::new(Setup::new(PEOPLE, format!("{CUSTOMERS}on_delete = \"delete\"\nmin_interval = \"0s\"\n"))).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1, 9) n").await;
    world.settled().await;
    let ids = world.rows("select name, zoho_id from people order by name").await;
    for step in 0..4 {
        for person in 1..=9 {
            world.run(&format!("update people set id = id + 100 where id = {}", step * 100 + person)).await;
        }
    }
    world.settled().await;
    assert_eq!(world.zoho.values("billing", "customers", "display_name").await.len(), 9);
    assert_eq!(world.rows("select name, zoho_id from people order by name").await, ids);
    assert_eq!(world.count("select count(*) from sluice.link l join people p on p.id::text = l.key and p.zoho_id = l.zoho_id").await, 9);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

/// CRM finds a record by our reference, which it keeps when the key changes: a new row of the old key must not be taken for it.
#[tokio::test]
async fn a_new_row_with_a_key_that_another_record_had_before_gets_a_record_of_its_own() {
    let by_reference = CRM.replace("match_on = [\"Email\"]", "reference = \"Sluice_Key\"");
    let field = "[[crm.fields]]\nmodule = \"Contacts\"\napi_name = \"Sluice_Key\"\ndata_type = \"text\"\nunique = true\nlength = 255\n";
    let world = World::new(Setup { scenario: field, ..Setup::new(PEOPLE, by_reference) }).await;
    let arrive = async |from: u32, named: &str| {
        world.run(&format!("insert into people select n, '{named} ' || n, null from generate_series({from}, {}) n", from + 2)).await;
        world.settled().await;
    };
    let move_on = async |by: i32| {
        world.run(&format!("update people set id = id + {by} where id between 40 and 42")).await;
        world.settled().await;
    };
    arrive(40, "First").await;
    move_on(100).await;
    arrive(40, "Second").await;
    move_on(200).await;
    arrive(40, "Third").await;
    world.run("update people set name = name || ', edited'").await;
    world.settled().await;
    let agree = "select count(*) from sluice.link l join people p on p.id::text = l.key and p.zoho_id = l.zoho_id";
    assert_eq!(world.count(agree).await, 9);
    let mut names = world.zoho.values("crm", "Contacts", "Last_Name").await;
    names.sort();
    let expected: Vec<String> =
        ["First", "Second", "Third"].iter().flat_map(|name| (40..=42).map(move |n| format!("{name} {n}, edited"))).collect();
    assert_eq!(names, expected);
    let mut references = world.zoho.values("crm", "Contacts", "Sluice_Key").await;
    references.sort();
    assert_eq!(references[..3], ["people:40", "people:40~2", "people:40~3"]);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

/// As many transactions as `SLUICE_SOAK` says. `SLUICE_SOAK=10000` leaves half a million jobs, and takes accordingly.
fn transactions() -> u64 {
    std::env::var("SLUICE_SOAK").ok().and_then(|number| number.parse().ok()).unwrap_or(120)
}

/// Callers that insert jobs of the same 1,000 records, and callers that update the rows, in either order, while workers write those rows
/// back. Each updating caller has rows of its own: two callers that update the same rows in opposite orders meet a deadlock without us.
#[tokio::test(flavor = "multi_thread")]
async fn callers_in_opposite_orders_never_meet_a_deadlock_while_workers_drain_and_write_back() {
    const CALLERS: u64 = 3;
    let world = World::new(Setup::new(PEOPLE, CRM)).await;
    world.run("insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(0, 999) n").await;
    world.start_worker();
    world.start_worker();
    world.settled().await;
    let deadlocks = "select deadlocks from pg_stat_database where datname = current_database()";
    let before = world.count(deadlocks).await;
    let each = transactions() / (2 * CALLERS);
    let caller = |number: u64, updates: bool| {
        let url = world.url().to_owned();
        async move {
            let db = Db::connect(Settings::new(url)).await.unwrap();
            for turn in 0..each {
                // every tenth takes all of its rows, the others twenty; each second one backwards
                let (from, to) = if turn % 10 == 0 { (0, 1000) } else { (turn * 37 % 980, turn * 37 % 980 + 20) };
                let order = if turn % 2 == 0 { "" } else { "reverse" };
                let sql = if updates {
                    format!(
                        "do $$ begin for i in {order} {} loop
                           if i % {CALLERS} = {number} then update people set name = 'Turn {turn} of ' || i where id = i; end if;
                         end loop; end $$",
                        if turn % 2 == 0 { format!("{from}..{}", to - 1) } else { format!("{}..{from}", to - 1) }
                    )
                } else {
                    let order = if turn % 2 == 0 { "asc" } else { "desc" };
                    format!(
                        "insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', 'people', 'key', k)
                         from generate_series({from}, {}) k order by k {order}",
                        to - 1
                    )
                };
                let mut tx = db.begin().await.unwrap();
                dynamic::script(sql).execute(&mut tx).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
    };
    let callers: Vec<_> = (0..CALLERS).flat_map(|number| [false, true].map(|updates| tokio::spawn(caller(number, updates)))).collect();
    for one in callers {
        one.await.unwrap();
    }
    assert_eq!(world.count(deadlocks).await, before);
    // ten thousand leave half a million jobs
    world.settled_within(Duration::from_secs(120 + transactions() / 20)).await;
    assert_eq!(world.count(deadlocks).await, before);
    let names = world.zoho.values("crm", "Contacts", "Last_Name").await;
    let rows: Vec<String> = sqlx::query_scalar("select name from people").fetch_all(world.db()).await.unwrap();
    assert_eq!(names, sorted(rows));
    world.check_rules().await;
}

fn sorted(mut names: Vec<String>) -> Vec<String> {
    names.sort();
    names
}
