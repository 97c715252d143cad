//! Cron ticks as rows.

use sluice_producer::schedules::tick;

use crate::setting::{CUSTOMERS, Setting};

fn scheduled() -> String {
    format!("{CUSTOMERS}\n[schedules.nightly]\ncron = \"0 3 * * *\"\njob = {{ kind = \"push\", sync = \"customers\", key = \"1\" }}\n")
}

#[tokio::test]
async fn a_tick_enqueues_once_however_many_producers_run() {
    let setting = Setting::of(&scheduled()).await;
    assert_eq!(tick(setting.db()).await.unwrap().0, 0, "not due yet");
    setting.run("update sluice.schedule set next_at = now() - interval '1 s'").await;
    let db = setting.db();
    let ticks = tokio::join!(tick(db), tick(db), tick(db), tick(db));
    let enqueued = [ticks.0, ticks.1, ticks.2, ticks.3].into_iter().map(|tick| tick.unwrap().0).sum::<u64>();
    assert_eq!((enqueued, setting.jobs().await.len()), (1, 1));
    assert_eq!(setting.count("select count(*) from sluice.schedule where next_at > now() and last_at is not null").await, 1);
}

#[tokio::test]
async fn a_refused_job_is_written_down_and_the_schedule_goes_on() {
    let setting = Setting::of(&scheduled()).await;
    setting.run("update sluice.schedule set next_at = now() - interval '1 s', job = '{\"kind\": \"push\", \"args\": {\"sync\": \"gone\", \"key\": 1}, \"lane\": null}'").await;
    assert_eq!(tick(setting.db()).await.unwrap().0, 0);
    assert_eq!(setting.count("select count(*) from sluice.schedule where next_at > now() and last_error like 'unknown sync%'").await, 1);
}
