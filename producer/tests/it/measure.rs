//! Measurements, not tests: `cargo test -p sluice-producer measure -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::Duration;

use sluice_core::db::{Db, listen};
use sluice_producer::capture;
use sluice_producer::changes::Listener;
use sluice_producer::definitions::Definitions;
use sluice_producer::publish::{self, Options};
use sluice_sync::read::Reader;
use sluice_tests::{TestDb, wait_until};
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::setting::config;

const ACCOUNTS: &str = r#"
    [syncs.accounts]
    connection = "main"
    table = "public.pgbench_accounts"
    key = "aid"
    module = "billing/customers"
    fields = { display_name = "COLUMN" }
"#;

/// pgbench's simple update by 16 clients: without triggers and with the producer running, in turns, since the machine has other things to
/// do as well; for an unmapped and for a mapped column.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of a minute; needs pgbench on the PATH"]
async fn measure_commits_a_second_with_and_without_capture() {
    let test = TestDb::new().await;
    pgbench(&test, &["-i", "-s", "10", "-q"]).await;
    for column in ["filler", "abalance"] {
        let config = config(&ACCOUNTS.replace("COLUMN", column));
        publish::publish(test.db(), &config, &Options::default()).await.unwrap();
        let definitions = Definitions::compile(test.db(), &config).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listen_on(test.db().clone(), definitions.clone(), shutdown.clone()));
        let (mut bare, mut captured) = (0.0, 0.0);
        for _ in 0..5 {
            capture::detach(test.db(), &definitions, &[], Duration::from_secs(5)).await.unwrap();
            bare += commits_a_second(&test).await;
            capture::attach(test.db(), &definitions, &[], Duration::from_secs(5)).await.unwrap();
            captured += commits_a_second(&test).await;
        }
        let caught_up = std::time::Instant::now();
        wait_until(Duration::from_secs(60), || async {
            sqlx::query_scalar::<_, i64>("select count(*) from sluice.change").fetch_one(test.db()).await.unwrap() == 0
        })
        .await;
        let (bare, captured, share) = (bare / 5.0, captured / 5.0, captured / bare * 100.0);
        println!("{column}: {captured:.0} of {bare:.0} commits a second, {share:.0} %; {:?} behind at the end", caught_up.elapsed());
        shutdown.cancel();
        running.await.unwrap();
    }
}

async fn listen_on(db: Db, definitions: Definitions, shutdown: CancellationToken) {
    let wake = Arc::new(Notify::new());
    let _notified = listen::Listener::spawn(db.settings(), &["sluice_change"], Arc::clone(&wake), shutdown.clone());
    let (_keep, definitions) = watch::channel(Arc::new(definitions));
    let reader = Reader::new(db.clone(), None);
    Listener { db, reader, definitions, wake }.run(shutdown).await;
}

async fn commits_a_second(test: &TestDb) -> f64 {
    let output = pgbench(test, &["-n", "-N", "-M", "prepared", "-c", "16", "-j", "2", "-T", "3"]).await;
    let line = output.lines().find(|line| line.starts_with("tps")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

async fn pgbench(test: &TestDb, arguments: &[&str]) -> String {
    let output = Command::new("pgbench").args(arguments).arg(test.url()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
