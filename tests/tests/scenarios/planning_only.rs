//! `sluice plan` by itself: it changes nothing, asks nobody, and knows what waits and how short the day is.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_producer::plan::{self, What};

use crate::planning::{BACKFILL, FORCE, PEOPLE, PEOPLE_CONFIG, SHOP, SHOP_CONFIG, TRIGGER, planned, try_plan, unseen};
use crate::world::{Setup, World};

/// Every row of every table, ours and theirs.
async fn everything(world: &World) -> BTreeMap<String, Value> {
    let tables = world
        .rows("select quote_ident(n.nspname) || '.' || quote_ident(c.relname) as name, c.relkind = 'S' as counter from pg_class c join pg_namespace n on n.oid = c.relnamespace
               where c.relkind in ('r', 'S') and n.nspname in ('sluice', 'public') order by 1")
        .await;
    let mut all = BTreeMap::new();
    for table in tables {
        let name = table["name"].as_str().unwrap_or_default().to_owned();
        let columns = if table["counter"] == true { "last_value, is_called" } else { "t::text as row, t.xmin::text as written" };
        let rows = world.rows(&format!("select {columns} from {name} t order by 1")).await;
        all.insert(name, json!(rows));
    }
    assert!(all.len() > 20, "{:?}", all.keys());
    all
}

#[tokio::test]
async fn a_plan_changes_nothing_and_asks_zoho_nothing() {
    let world = World::without_roles(Setup::new(
        SHOP,
        SHOP_CONFIG.replace("reference = \"cf_key\"", "match_on = [\"email\"]\ndirection = \"both\""),
    ))
    .await;
    let before = everything(&world).await;
    for (sync, what) in [
        ("bills", &TRIGGER),
        ("bills", &FORCE),
        ("bills", &BACKFILL),
        ("customers", &BACKFILL),
        ("customers", &TRIGGER),
        ("customers", &FORCE),
    ] {
        planned(&world, sync, what).await;
    }
    let tries = [
        "pg_notify('x', '') is null",
        "exists (select from set_config('a.b', 'c', false)) and nextval('sluice.job_id_seq') > 0",
        "this.id =",
    ];
    for condition in tries {
        let what = What::Backfill { condition: Some(condition.to_owned()), force: false };
        let _ = try_plan(&world, "bills", &what).await.map(|plan| plan.rows);
    }
    let wrong = What::Backfill { condition: Some("no_such_column > 1".to_owned()), force: false };
    let refused = try_plan(&world, "bills", &wrong).await.expect_err("no such column").to_string();
    assert!(refused.starts_with("--where: ") && refused.contains("no_such_column"), "{refused}");
    let slow = What::Backfill { condition: Some("pg_sleep(30) is not null".to_owned()), force: false };
    let began = std::time::Instant::now();
    assert!(matches!(try_plan(&world, "bills", &slow).await, Err(plan::Error::Where(_))));
    assert!(began.elapsed().as_secs() < 20, "an expression has five seconds");
    assert_eq!(everything(&world).await, before);
    assert_eq!(world.zoho.count_calls().await, 0);
}

#[tokio::test]
async fn what_waits_before_and_a_day_that_is_short_are_in_the_plan() {
    let config = format!("{PEOPLE_CONFIG}[connections.main.budget.crm]\nper_day = 100\n");
    let world = World::without_roles(Setup::new(PEOPLE, format!("{CONNECTION}{config}"))).await;
    world.run("insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', 'firms', 'key', id::text), 'normal' from firms").await;
    let plan = planned(&world, "people", &FORCE).await;
    let [budget] = plan.budgets.as_slice() else { panic!("{:?}", plan.budgets) };
    let waiting: Vec<_> = budget.waiting.iter().map(|one| (one.lane.as_str(), one.jobs, one.calls, one.units)).collect();
    assert_eq!(waiting, [("normal", 30, 1, 3)]);
    let meter = budget.pace.meter.as_ref().expect("a bound of our own");
    assert_eq!((meter.cap, meter.left, meter.kept), (100, 100, 20));
    // 25 credits and 3 before them, of 80
    let finish = plan.finish.expect("a finish");
    assert!(finish.today, "{finish:?}");
    let backfill = What::Backfill { condition: None, force: true };
    unseen(&world, "insert into people select n, 'Person ' || n, 'p' || n || '@people.example' from generate_series(1001, 2000) n").await;
    let plan = planned(&world, "people", &backfill).await;
    // 125 credits, of which 50 a day
    let finish = plan.finish.expect("a finish");
    assert_eq!((finish.today, finish.bottleneck), (false, plan::finish::Bottleneck::Credits), "{finish:?}");
    let day = 86_400;
    assert!(finish.earliest_seconds > Some(2 * day) && finish.latest_seconds < Some(3 * day), "{finish:?}");
}

const CONNECTION: &str = "[connections.main]\ndata_center = \"com\"\nclient_id = \"${ZOHO_CLIENT_ID}\"\nclient_secret = \"${ZOHO_CLIENT_SECRET}\"\n\
                          refresh_token = \"${ZOHO_REFRESH_TOKEN}\"\norganization_id = \"${ZOHO_ORG_ID}\"\n";
