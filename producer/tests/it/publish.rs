//! Publishing.

use sluice_core::db::dynamic;
use sluice_producer::definitions::Definitions;
use sluice_producer::publish::{Error, How, Options, adjust_budgets, publish};
use sluice_queue::agreement::Agreement;

use crate::setting::{CUSTOMERS, ORDERS, Setting, config, names};

#[tokio::test]
async fn what_is_published_already_is_not_published_again() {
    let setting = Setting::of(CUSTOMERS).await;
    let again = publish(setting.db(), &config(CUSTOMERS), &Options::default()).await.unwrap();
    assert!(again.changes.is_empty(), "{again:?}");
    let types: Vec<String> = sqlx::query_scalar("select unnest(key_types) from sluice.sync").fetch_all(setting.db()).await.unwrap();
    assert_eq!(types, ["bigint"]);
    assert_eq!(
        setting.count("select count(*) from sluice.place p join sluice.budget b on b.id = p.budget_id where b.scope = 'finance'").await,
        110
    );
    assert_eq!(setting.count("select count(distinct budget_id) from sluice.product").await, 3, "finance, crm, fsm");
    assert_eq!(setting.count("select count(*) from sluice.shape where kind = 'call'").await, 5);
}

#[tokio::test]
async fn two_publishes_at_once_leave_one_of_everything() {
    let setting = Setting::of("").await;
    let config = config(&format!("{CUSTOMERS}{ORDERS}"));
    let options = Options::default();
    let (a, b) = tokio::join!(publish(setting.db(), &config, &options), publish(setting.db(), &config, &options));
    let mut changes = [names(&a.unwrap()), names(&b.unwrap())];
    changes.sort();
    assert_eq!(changes, [vec![], vec!["sync customers".to_owned(), "sync orders".to_owned()]]);
    assert_eq!(setting.count("select count(*) from sluice.shape where kind = 'push'").await, 2);
    assert_eq!(setting.count("select count(*) from sluice.place").await, 110 + 120 + 105, "finance; crm with its heavy ones; fsm");
}

#[tokio::test]
async fn a_changed_mapping_says_how_many_records_keep_the_old_one() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.link("1", "a", None).await;
    let changed = publish(setting.db(), &config(&CUSTOMERS.replace("\"email\" }", "\"note\" }")), &Options::default()).await.unwrap();
    assert_eq!(changed.changes.len(), 1);
    assert_eq!(changed.changes[0].how, How::Changed { linked: 1 });
    let own = setting.definitions.hashes();
    let agreement = Agreement::read(setting.db(), &own).await.unwrap();
    assert_eq!(agreement.differing.len(), 1);
    assert!(agreement.differing[0].to_string().starts_with("config differs: customers (published "), "{}", agreement.differing[0]);
    assert_eq!((agreement.syncs.len(), agreement.shapes.len()), (0, 5), "calls belong to no sync");
}

#[tokio::test]
async fn a_sync_that_the_file_lost_is_retired_only_when_told() {
    let setting = Setting::of(&format!("{CUSTOMERS}{ORDERS}")).await;
    setting.link("1", "a", None).await;
    setting.run("insert into sluice.job (kind, args) values ('push', '{\"sync\": \"customers\", \"key\": 1}')").await;
    match publish(setting.db(), &config(ORDERS), &Options::default()).await {
        Err(Error::Retirable(lost)) => {
            assert_eq!((lost.len(), lost[0].name.as_str(), lost[0].waiting, lost[0].linked), (1, "customers", 1, 1))
        }
        other => panic!("{other:?}"),
    }
    let options = Options { retire: true, ..Options::default() };
    assert_eq!(names(&publish(setting.db(), &config(ORDERS), &options).await.unwrap()), ["sync customers"]);
    let refused = sqlx::query("insert into sluice.job (kind, args) values ('push', '{\"sync\": \"customers\", \"key\": 2}')")
        .execute(setting.db())
        .await;
    assert!(refused.unwrap_err().to_string().contains("was retired"));
    assert_eq!(
        setting.count("select (select count(*) from sluice.job) * 10 + (select count(*) from sluice.link)").await,
        11,
        "work and links are kept"
    );
    let back = publish(setting.db(), &config(&format!("{CUSTOMERS}{ORDERS}")), &Options::default()).await.unwrap();
    assert_eq!(back.changes[0].how, How::Returned);
}

#[tokio::test]
async fn a_smaller_budget_takes_no_place_that_is_in_use() {
    let setting = Setting::of(CUSTOMERS).await;
    let finance = "from sluice.place p join sluice.budget b on b.id = p.budget_id where b.scope = 'finance' and p.kind = 'window'";
    let _ = finance;
    setting
        .run("update sluice.place set free_at = now() + interval '1 h' where id in (select p.id from sluice.place p join sluice.budget b on b.id = p.budget_id where b.scope = 'finance' and p.kind = 'window' limit 60)")
        .await;
    let smaller = config(&format!("[connections.main.budget.finance]\nper_minute = 50\n{CUSTOMERS}"));
    publish(setting.db(), &smaller, &Options::default()).await.unwrap();
    let places =
        "select count(*) from sluice.place p join sluice.budget b on b.id = p.budget_id where b.scope = 'finance' and p.kind = 'window'";
    assert_eq!(setting.count(places).await, 60);
    setting.run("update sluice.place set free_at = '-infinity'").await;
    adjust_budgets(setting.db()).await.unwrap();
    assert_eq!(setting.count(places).await, 50);
}

#[tokio::test]
async fn a_product_that_gets_its_own_budget_does_not_get_a_second_minute() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("update sluice.place set free_at = now() + interval '40 s'").await;
    let own = config(&format!("[connections.main.budget.billing]\nper_minute = 100\n{CUSTOMERS}"));
    publish(setting.db(), &own, &Options::default()).await.unwrap();
    assert_eq!(
        setting.count("select count(*) from sluice.budget where scope = 'billing' and blocked_until > now() + interval '30 s'").await,
        1
    );
}

#[tokio::test]
async fn a_mapping_that_does_not_fit_the_table_is_not_published() {
    let setting = Setting::of("").await;
    match publish(setting.db(), &config(&CUSTOMERS.replace("\"email\" }", "\"e_mail\" }")), &Options::default()).await {
        Err(Error::Invalid(findings)) => assert!(findings.iter().any(|finding| finding.message.contains("e_mail")), "{findings:?}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(setting.count("select count(*) from sluice.sync").await, 0);
    dynamic::script("create domain public.code as text; alter table customers add column code public.code unique".to_owned())
        .execute(setting.db())
        .await
        .unwrap();
    let by_code = config(&CUSTOMERS.replace("key = \"id\"", "key = \"code\"").replace("this.customer_id", "this.street"));
    publish(setting.db(), &by_code, &Options::default()).await.unwrap();
    setting.run("insert into sluice.job (kind, args) values ('push', '{\"sync\": \"customers\", \"key\": \"x\"}')").await;
    assert_eq!(Definitions::compile(setting.db(), &by_code).await.unwrap().by_name.len(), 1);
}
