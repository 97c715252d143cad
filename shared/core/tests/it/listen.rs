//! Wake-ups: they come, they come back, and nobody depends on them.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::db::listen::{Listener, State};
use sluice_core::db::{Pooler, Settings};
use sluice_tests::{TestDb, wait_until};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_notification_wakes_also_after_the_connection_was_lost() {
    let test = TestDb::new().await;
    let mut settings = Settings::new(test.url());
    settings.application_name = "the listener".to_owned();
    let wake = Arc::new(Notify::new());
    let listener = Listener::spawn(&settings, &["sluice_wake"], wake.clone(), CancellationToken::new());
    for _ in 0..2 {
        wait_until(LIMIT, || async { listener.state() == State::Listening }).await;
        // The connection itself wakes once, because something may have been missed.
        tokio::time::timeout(LIMIT, wake.notified()).await.unwrap();
        sqlx::query("notify sluice_wake").execute(test.db()).await.unwrap();
        tokio::time::timeout(LIMIT, wake.notified()).await.unwrap();
        let mut states = listener.watch();
        states.mark_unchanged();
        sqlx::query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'the listener' and datname = current_database()")
            .execute(test.db())
            .await
            .unwrap();
        tokio::time::timeout(LIMIT, states.changed()).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn behind_a_pooler_without_a_direct_address_there_is_polling_only() {
    let mut settings = Settings::new("postgres://nobody@127.0.0.1:1/none");
    settings.pooler = Pooler::Transaction;
    let shutdown = CancellationToken::new();
    let listener = Listener::spawn(&settings, &["sluice_wake"], Arc::new(Notify::new()), shutdown.clone());
    assert_eq!(listener.state(), State::PollingOnly);
    let mut states = listener.watch();
    shutdown.cancel();
    let ended = tokio::time::timeout(LIMIT, states.changed()).await.unwrap();
    assert!(ended.is_err(), "the task ends at shutdown");
}
