//! Mass changes are held until a person decides.

use serde_json::{Value, json};

use crate::setting::{CUSTOMERS, Setting, pairs};

fn braked(brake: &str) -> String {
    CUSTOMERS.replace("fields =", &format!("on_delete = \"delete\"\nbrake = {brake}\nfields ="))
}

impl Setting {
    /// So many rows that Zoho has as they are.
    async fn with_linked_rows(sections: &str, rows: u32) -> Self {
        let setting = Self::of(sections).await;
        setting
            .run(&format!(
                "insert into customers select n, 'name ' || n, null from generate_series(1, {rows}) n;
                 truncate sluice.change;
                 insert into sluice.link (sync, key, zoho_id, fields, synced_at)
                 select 'customers', n::text, 'z' || n,
                        jsonb_build_object('display_name', jsonb_build_object('local', 'name ' || n, 'zoho', 'name ' || n, 'confirmed', true)), now()
                 from generate_series(1, {rows}) n;
                 update sluice.sync set total = {rows}"
            ))
            .await;
        setting
    }

    /// Every held change: operation, records, whether it is still gathered, resolution.
    async fn held(&self) -> Vec<(String, i64, bool, Option<String>)> {
        sqlx::query_as("select operation, records, gathering, resolution from sluice.held_change order by id")
            .fetch_all(self.db())
            .await
            .unwrap()
    }

    async fn approve(&self, arguments: &str) -> i64 {
        let sql = format!("select sluice.approve({arguments})");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(self.db()).await.unwrap()
    }
}

fn held(operation: &str, records: i64, resolution: Option<&str>) -> (String, i64, bool, Option<String>) {
    (operation.to_owned(), records, false, resolution.map(str::to_owned))
}

#[tokio::test]
async fn a_statement_over_five_thousand_rows_is_held_whole_with_a_sample_and_one_alert_and_sent_as_far_as_it_is_approved() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = \"5%\" }"), 5000).await;
    setting.run("update customers set name = null").await;
    let first = setting.drain().await;
    assert_eq!((first.taken, first.jobs, first.held), (5000, 0, 5000));
    setting.drain().await;
    assert_eq!(setting.jobs().await, []);
    assert_eq!(setting.held().await, [held("change", 5000, None)]);

    let (reason, sample): (String, Value) =
        sqlx::query_as("select reason, sample from sluice.held_change").fetch_one(setting.db()).await.unwrap();
    assert_eq!(reason, "5000 records would be changed; within 10m the brake allows 250 (5 % of 5000, at least 20)");
    assert_eq!(sample.as_array().unwrap().len(), 10);
    let key = sample[0]["key"].as_str().unwrap();
    assert_eq!(
        sample[0],
        json!({ "key": key, "operation": "update", "changed": { "display_name": { "old": format!("name {key}"), "new": null } } })
    );
    let alerts: Vec<(String, String)> = sqlx::query_as("select occasion, subject from sluice.alert").fetch_all(setting.db()).await.unwrap();
    assert_eq!(alerts, pairs(&[("brake", "customers")]));

    assert_eq!(setting.approve("1, max_records => 100").await, 100);
    assert_eq!(setting.count("select count(*) from sluice.job").await, 100);
    assert_eq!(setting.held().await, [held("change", 4900, None)]);
    setting.run("delete from sluice.job").await;
    let key: String = sqlx::query_scalar("select key from sluice.held_record where resolution is null order by id desc limit 1")
        .fetch_one(setting.db())
        .await
        .unwrap();
    setting.run(&format!("update customers set name = 'later' where id = {key}")).await;
    setting.drain().await;
    assert_eq!(setting.jobs().await, [], "a later edit of a held record joins it");
    let status: String = sqlx::query_scalar("select status from sluice.record_status where sync = 'customers' and key = $1")
        .bind(&key)
        .fetch_one(setting.db())
        .await
        .unwrap();
    assert_eq!(status, "held");
    let waited = sqlx::raw_sql(sqlx::AssertSqlSafe(format!("call sluice.wait('customers', '{key}', '1 s')")))
        .execute(setting.db())
        .await
        .unwrap_err();
    assert!(waited.to_string().contains("is held by a brake"), "{waited}");
    assert_eq!(setting.approve(&format!("1, keys => array['0{key}']")).await, 1);
    assert_eq!(setting.jobs().await, pairs(&[("customers", &key)]));
    setting.run("select sluice.reject(1)").await;
    assert_eq!(setting.held().await, [held("change", 4899, Some("rejected"))]);
    assert_eq!(setting.count("select count(*) from sluice.held_record where resolution is null").await, 0);
}

#[tokio::test]
async fn a_mass_change_that_takes_several_gulps_is_one_held_change_of_which_nothing_was_sent() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = \"90%\" }"), 10_500).await;
    setting.run("update customers set name = 'x'").await;
    let mut gulps = Vec::new();
    loop {
        let drained = setting.drain().await;
        if !drained.progressed() {
            break;
        }
        gulps.push((drained.taken, drained.jobs));
    }
    assert_eq!(gulps, [(5000, 0), (5000, 0), (500, 0)]);
    assert_eq!(setting.held().await, [held("change", 10_500, None)]);
    assert_eq!(setting.count("select count(*) from sluice.alert").await, 1);
}

#[tokio::test]
async fn what_was_gathered_and_is_no_mass_change_goes_on() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = \"50%\" }"), 10_400).await;
    setting.run("update customers set name = 'x' where id <= 5000").await;
    assert_eq!(setting.drain().await.jobs, 0, "there may be more of it");
    let refused = sqlx::query("select sluice.approve(1)").execute(setting.db()).await.unwrap_err();
    assert!(refused.to_string().contains("still being gathered"), "{refused}");
    assert_eq!(setting.drain().await.jobs, 5000);
    assert_eq!(setting.held().await, []);
    setting.run("update customers set name = 'y' where id <= 5100; delete from sluice.job").await;
    setting.drain().await;
    assert_eq!(setting.drain().await.jobs, 5100, "a record that went through counts once");
    setting.run("delete from sluice.job; update customers set name = 'z' where id > 5100 and id <= 5300").await;
    assert_eq!(setting.drain().await.jobs, 0, "5100 went through within the ten minutes");
    setting.run("update sluice.brake_record set passed_at = now() - interval '11 min'; update customers set name = 'z' where id > 5300 and id <= 5400").await;
    assert_eq!(setting.drain().await.jobs, 100);
}

#[tokio::test]
async fn what_needs_no_call_is_not_counted() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5 }"), 100).await;
    setting
        .run("update customers set note = 'x'; update customers set name = name || '!'; update customers set name = rtrim(name, '!')")
        .await;
    let drained = setting.drain().await;
    assert_eq!((drained.jobs, drained.held), (0, 0));
    setting.run("update customers set name = 'x' where id <= 5").await;
    assert_eq!(setting.drain().await.jobs, 5);
}

#[tokio::test]
async fn deletes_have_a_limit_of_their_own_and_a_table_of_three_rows_is_not_braked() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = \"1%\", max_deletes = \"50%\" }"), 100).await;
    setting.run("delete from customers where id <= 3; update customers set name = 'x' where id > 90").await;
    assert_eq!(setting.drain().await.jobs, 13, "one per cent of 100 is fewer than the twenty that always go through");
    setting.run("delete from sluice.job; delete from customers where id <= 60; update customers set name = 'y' where id > 90").await;
    assert_eq!(setting.drain().await.jobs, 10);
    assert_eq!(setting.held().await, [held("delete", 57, None)]);
}

#[tokio::test]
async fn what_was_held_as_an_edit_and_is_deleted_since_is_weighed_as_a_delete() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5, max_deletes = 5 }"), 40).await;
    setting.run("update customers set name = 'x'").await;
    setting.drain().await;
    assert_eq!(setting.held().await, [held("change", 40, None)]);
    setting.run("delete from customers where id = 1").await;
    assert_eq!(setting.drain().await.jobs, 1, "one delete is no mass change");
    setting.run("delete from customers").await;
    setting.drain().await;
    assert_eq!(setting.held().await, [held("change", 39, Some("undone")), held("delete", 39, None)]);
}

#[tokio::test]
async fn rows_that_come_back_to_what_zoho_has_are_held_no_longer() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5 }"), 40).await;
    setting.run("update customers set name = null").await;
    setting.drain().await;
    setting.run("update customers set name = 'name ' || id where id > 10").await;
    setting.drain().await;
    assert_eq!(setting.held().await, [held("change", 10, None)]);
    setting.run("update customers set name = 'name ' || id").await;
    assert_eq!(setting.drain().await.jobs, 0);
    assert_eq!(setting.held().await, [held("change", 10, Some("undone"))]);
}

#[tokio::test]
async fn a_person_deciding_in_an_open_transaction_holds_nobody_up_and_nothing_is_lost() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5 }"), 40).await;
    setting.run("update customers set name = 'x' where id <= 30").await;
    setting.drain().await;
    let mut deciding = setting.db().begin().await.unwrap();
    sqlx::query("select sluice.approve(1)").execute(&mut deciding).await.unwrap();
    setting.run("update customers set name = 'y'").await;
    let limit = std::time::Duration::from_secs(60);
    let drained = tokio::time::timeout(limit, setting.drain()).await.unwrap();
    assert_eq!((drained.jobs, drained.held), (0, 10), "what was held before joins, the rest is held by itself");
    deciding.commit().await.unwrap();
    assert_eq!(setting.count("select count(*) from sluice.job").await, 30);
    assert_eq!(setting.held().await, [held("change", 30, Some("approved")), held("change", 10, None)]);
}

#[tokio::test]
async fn while_one_producer_works_on_a_brake_another_leaves_its_table_alone_and_does_not_wait() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5 }"), 3).await;
    let mut other = setting.db().begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('sluice.brake customers', 0))").execute(&mut other).await.unwrap();
    setting.run("update customers set name = 'x'").await;
    assert_eq!(setting.drain().await.taken, 0);
    other.rollback().await.unwrap();
    assert_eq!(setting.drain().await.jobs, 3);
}

#[tokio::test]
async fn a_truncate_is_held_without_a_brake_and_approved_by_the_number() {
    let setting = Setting::with_linked_rows(CUSTOMERS, 30).await;
    setting.run("truncate customers").await;
    setting.drain().await;
    assert_eq!(setting.count("select count(*) from sluice.alert where occasion = 'brake'").await, 1);
    assert_eq!(setting.approve("1, max_records => 10").await, 10);
    assert_eq!(setting.held().await, [held("truncate", 20, None)]);
    setting.run("insert into customers values (30, 'again')").await;
    setting.drain().await;
    assert_eq!(setting.count("select count(*) from sluice.job where key = '30'").await, 1, "a row that is there again is no longer held");
    assert_eq!(setting.approve("1").await, 19);
    assert_eq!(setting.held().await, [held("truncate", 19, Some("approved"))]);
    let refused = sqlx::query("select sluice.approve(1)").execute(setting.db()).await.unwrap_err();
    assert!(refused.to_string().contains("no open held change 1"), "{refused}");
}

#[tokio::test]
async fn administrators_decide_and_readers_look() {
    let setting = Setting::with_linked_rows(&braked("{ max_changes = 5 }"), 40).await;
    setting.run("update customers set name = null").await;
    setting.drain().await;
    let as_role = |role: &'static str, sql: &'static str| {
        let db = setting.db();
        async move {
            let mut tx = db.begin().await.unwrap();
            sqlx::query(sqlx::AssertSqlSafe(format!("set local role {role}"))).execute(&mut tx).await.unwrap();
            let done = sqlx::query(sql).fetch_all(&mut tx).await;
            tx.rollback().await.unwrap();
            done.map(|rows| rows.len()).map_err(|error| error.to_string())
        }
    };
    for (role, sql, allowed) in [
        ("sluice_read", "select * from sluice.held_record", true),
        ("sluice_read", "select * from sluice.explain('customers', '1')", true),
        ("sluice_read", "select sluice.approve(1)", false),
        ("sluice_read", "select sluice.reject(1)", false),
        ("sluice_enqueue", "select sluice.approve(1)", false),
        ("sluice_admin", "select sluice.approve(1, max_records => 1)", true),
        ("sluice_admin", "select sluice.reject(1)", true),
        ("sluice_admin", "select * from sluice.alert_delivery", true),
    ] {
        let done = as_role(role, sql).await;
        assert_eq!(done.is_ok(), allowed, "{role}: {sql}: {done:?}");
    }
}
