//! Who receives webhooks, and what is done about the time in which nobody did.

use std::collections::BTreeSet;

use sluice_producer::webhook;

use crate::served::SYNCS;
use crate::setting::{CUSTOMERS, Setting, config};

async fn receives(setting: &Setting, name: &str, stops: bool) -> i32 {
    let syncs = ["items", "deals", "customers", "nobody"];
    sqlx::query_scalar("select sluice.note_receiver($1, $2, $3)")
        .bind(name)
        .bind(&syncs[..])
        .bind(stops)
        .fetch_one(setting.db())
        .await
        .unwrap()
}

/// The syncs that are to be polled.
async fn polled(setting: &Setting) -> BTreeSet<String> {
    let syncs: Vec<String> =
        sqlx::query_scalar("with p as (delete from sluice.job where kind = 'poll' returning args) select args ->> 'sync' from p")
            .fetch_all(setting.db())
            .await
            .unwrap();
    syncs.into_iter().collect()
}

#[tokio::test]
async fn a_time_in_which_nobody_received_is_swept_once_and_a_rolling_restart_is_none() {
    let setting = Setting::of(&format!("{SYNCS}{CUSTOMERS}")).await;
    let pulling = || ["deals", "items"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(receives(&setting, "a", false).await, 0, "nothing was missed before the first");
    assert_eq!(receives(&setting, "b", false).await, 0);
    assert_eq!(receives(&setting, "a", true).await, 0);
    assert_eq!(receives(&setting, "c", false).await, 0, "b was there all the time");
    assert_eq!(receives(&setting, "b", true).await, 0);
    assert_eq!(receives(&setting, "c", true).await, 0);
    assert!(polled(&setting).await.is_empty());

    assert_eq!(receives(&setting, "d", false).await, 2, "after c nobody received");
    assert_eq!(receives(&setting, "d", false).await, 0);
    assert_eq!(polled(&setting).await, pulling());

    // one vanishes without a word: what it was sent is lost, though others were there
    assert_eq!(receives(&setting, "e", false).await, 0);
    setting.run("update sluice.receiver set seen_at = seen_at - interval '30 s' where name = 'd'").await;
    assert_eq!(receives(&setting, "e", false).await, 2);
    assert_eq!(receives(&setting, "e", false).await, 0);
    // and so it is when it could not reach the database, or slept
    setting.run("update sluice.receiver set seen_at = seen_at - interval '30 s' where name = 'e'").await;
    assert_eq!(receives(&setting, "e", false).await, 2);
    assert_eq!(polled(&setting).await, pulling());
}

#[tokio::test]
async fn a_channel_is_asked_for_once_and_again_when_it_is_due_or_something_else_is_wanted() {
    let sections = |secret: &str| {
        format!(
            "[http]\npublic_url = \"https://hooks.example\"\n{SYNCS}\n[webhooks.crm]\nconnection = \"main\"\nverify = \"crm-token\"\nsecret = \"{secret}\"\nsyncs = {{ Deals = \"deals\" }}\n
             [webhooks.other]\nconnection = \"main\"\nverify = \"secret-header\"\nsecret = \"s\"\nsync = \"items\""
        )
    };
    let setting = Setting::of(&sections("one")).await;
    let asked =
        async || setting.count("with j as (delete from sluice.job where kind = 'channel' returning 1) select count(*) from j").await;
    let want = async |secret: &str| webhook::want_channels(&config(&sections(secret)), setting.db()).await;
    for expected in [1, 0] {
        want("one").await;
        assert_eq!(asked().await, expected);
    }
    setting.run("select sluice.open_channel('crm', 7, now() + interval '6 days', true)").await;
    want("one").await;
    assert_eq!(asked().await, 0, "it is open for days");
    setting.run("update sluice.channel set renew_at = now() - interval '1 s'").await;
    want("one").await;
    assert_eq!(asked().await, 1, "half of its time is over");
    want("two").await;
    assert_eq!(asked().await, 1, "another secret is wanted");
    let urls: Vec<String> = sqlx::query_scalar("select notify_url from sluice.channel").fetch_all(setting.db()).await.unwrap();
    assert_eq!(urls, ["https://hooks.example/webhook/crm"]);

    // what was sent with the old secret was not taken: it is polled, and only where something was polled before for a first channel
    assert!(polled(&setting).await.is_empty());
    setting.run("select sluice.open_channel('crm', 7, now() + interval '6 days', false)").await;
    assert_eq!(polled(&setting).await.into_iter().collect::<Vec<_>>(), ["deals"]);
}
