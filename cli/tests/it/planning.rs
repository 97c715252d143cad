//! `sluice plan`: what it prints for people and programs, and where it refuses. That its figures are true, a scenario of `tests` shows.

use serde_json::{Value, json};
use sluice_tests::TestDb;

use crate::database::{attached, refuses};
use crate::sluice::Folder;

#[tokio::test]
async fn a_plan_says_what_would_be_done_for_people_and_programs() {
    let (_db, folder) = attached().await;
    let ended = folder.run(&["plan", "customers"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    for said in [
        "sluice trigger customers, in lane normal. This is a plan: nothing was changed",
        "3  looked at",
        "3    created",
        "POST /billing/v1/customers  ",
        "0 to 3",
        "GET /billing/v1/customers?page=…",
        "about 1",
        "100 calls in 60 s and 10 at once; with answers of 1.5 s (assumed) that is 98 a minute",
        "FINISH",
    ] {
        assert!(ended.out.contains(said), "{said}: {}", ended.out);
    }
    let ended = folder.run(&["plan", "backfill", "customers", "--where", "id > 1", "--json"]);
    let plan: Value = serde_json::from_str(&ended.out).unwrap();
    let keys: Vec<&String> = plan.as_object().unwrap().keys().collect();
    let names = [
        "budgets",
        "bulk",
        "calls",
        "command",
        "credits",
        "finish",
        "force",
        "lane",
        "parents",
        "published",
        "pushes",
        "rows",
        "stopped",
        "sync",
        "total",
        "unmappable",
        "where",
    ];
    assert_eq!(keys, names);
    assert_eq!(
        (&plan["command"], &plan["lane"], &plan["where"], &plan["published"]),
        (&json!("backfill"), &json!("backfill"), &json!("id > 1"), &json!(true))
    );
    assert_eq!((&plan["rows"]["looked_at"], &plan["rows"]["create"], &plan["total"]["at_least"]), (&json!(2), &json!(2), &json!(2)));
    let created = plan["calls"].as_array().unwrap().iter().find(|call| call["purpose"] == "create").unwrap();
    let shown = [&created["method"], &created["path"], &created["calls"], &created["records_per_call"], &created["sync"]];
    assert_eq!(
        shown,
        [&json!("POST"), &json!("/billing/v1/customers"), &json!({"at_least": 0, "at_most": 2}), &json!(1), &json!("customers")]
    );
}

#[tokio::test]
async fn a_plan_refuses_what_a_trigger_refuses_and_a_condition_that_is_none() {
    let (_db, folder) = attached().await;
    refuses(&folder, &["plan", "custmers"], 2, &["there is no sync `custmers`; there is customers"]);
    refuses(&folder, &["plan", "backfill", "customers", "--where", "nope"], 2, &["--where: column \"nope\" does not exist"]);
    refuses(&folder, &["plan", "backfill", "customers", "--where", "id > 1); delete from customers; --"], 2, &["--where: "]);
    refuses(&folder, &["plan", "customers", "--where", "id > 1"], 2, &["sluice plan backfill customers --where"]);
    refuses(&folder, &["plan", "reconcile", "customers"], 2, &["`reconcile` cannot be planned"]);
    refuses(&folder, &["plan"], 2, &["sluice plan [OPTIONS] <SYNC>"]);
}

#[tokio::test]
async fn what_is_not_published_is_planned_from_the_file_and_the_budget_is_unknown() {
    let db = TestDb::new().await;
    sqlx::raw_sql("create table public.plans (code text primary key, name text); insert into public.plans values ('a', 'A'), ('b', null)")
        .execute(db.db())
        .await
        .unwrap();
    let folder = Folder::with(
        "[connections.main]\nclient_id = \"id\"\nclient_secret = \"secret\"\nrefresh_token = \"token\"\norganization_id = \"1\"\n[connections.main.budget.finance]\nper_minute = 50\n\
         [syncs.plans]\nconnection = \"main\"\ntable = \"public.plans\"\nkey = \"code\"\nmodule = \"billing/plans\"\n[syncs.plans.fields]\nplan_code = \"code\"\nname = \"name\"\n",
    )
    .on(db.url());
    let plan: Value = serde_json::from_str(&folder.run(&["plan", "plans", "--json"]).out).unwrap();
    assert_eq!((&plan["published"], &plan["finish"], &plan["budgets"][0]["known"]), (&json!(false), &json!(null), &json!(false)));
    assert_eq!((&plan["total"], &plan["budgets"][0]["pace"]["per_window"]), (&json!({"at_least": 2, "at_most": 2}), &json!(50)));
    let shown = folder.run(&["plan", "plans"]).out;
    assert!(shown.contains("is not published") && shown.contains("it is not known what is used of the budget"), "{shown}");
}
