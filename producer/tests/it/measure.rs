//! Measurements, not tests: `cargo test -p sluice-producer measure -- --ignored --nocapture`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::db::{Db, Settings, dynamic, listen, migrate};
use sluice_core::postgres::{self, DataDir, Options};
use sluice_producer::capture;
use sluice_producer::changes::Listener;
use sluice_producer::definitions::Definitions;
use sluice_producer::publish;
use sluice_sync::read::Reader;
use sluice_tests::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::served;
use crate::setting::{self, config};

const ACCOUNTS: &str = r#"
    [syncs.accounts]
    connection = "main"
    table = "public.pgbench_accounts"
    key = "aid"
    module = "billing/customers"
    fields = { display_name = "COLUMN" }
"#;

/// pgbench's updates by 16 clients on a durable server: without triggers and with the producer running, in turns, since the machine has other
/// things to do as well; for an unmapped and for a mapped column.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of some minutes; needs pgbench on the PATH"]
async fn measure_commits_a_second_with_and_without_capture() {
    let server = postgres::start(Options { data: DataDir::Temporary, durable: true, settings: Vec::new() }).await.unwrap();
    let db = Db::connect(Settings::new(server.url())).await.unwrap();
    migrate::run(&db).await.unwrap();
    pgbench(server.url(), &["-i", "-s", "10", "-q"]).await;
    let update = lone_update();
    let update = update.path().to_str().unwrap();
    for (column, name, script) in [
        ("filler", "tpcb-like", ["-b", "tpcb-like"]),
        ("filler", "simple-update", ["-b", "simple-update"]),
        ("abalance", "simple-update", ["-b", "simple-update"]),
        ("filler", "one update and nothing else", ["-f", update]),
        ("abalance", "one update and nothing else", ["-f", update]),
    ] {
        let config = config(&ACCOUNTS.replace("COLUMN", column));
        publish::publish(&db, &config, &publish::Options::default()).await.unwrap();
        let definitions = Definitions::compile(&db, &config).await.unwrap();
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(listen_on(db.clone(), definitions.clone(), shutdown.clone()));
        let (mut bare, mut captured) = (0.0, 0.0);
        for _ in 0..5 {
            capture::detach(&db, &definitions, &[], Duration::from_secs(5)).await.unwrap();
            bare += commits_a_second(server.url(), script).await;
            capture::attach(&db, &definitions, &[], Duration::from_secs(5)).await.unwrap();
            captured += commits_a_second(server.url(), script).await;
        }
        let caught_up = std::time::Instant::now();
        wait_until(Duration::from_secs(60), || async {
            sqlx::query_scalar::<_, i64>("select count(*) from sluice.change").fetch_one(&db).await.unwrap() == 0
        })
        .await;
        let (bare, captured, share) = (bare / 5.0, captured / 5.0, captured / bare * 100.0);
        let mapped = if column == "filler" { "an unmapped" } else { "a mapped" };
        println!(
            "{name}, {mapped} column: {captured:.0} of {bare:.0} commits a second, {share:.0} %; {:?} behind at the end",
            caught_up.elapsed()
        );
        shutdown.cancel();
        running.await.unwrap();
    }
    db.close().await;
    server.stop().await.unwrap();
}

/// Events a second, and for how long.
const EVENTS: u32 = 200;
const SECONDS: u32 = 30;

/// 200 signed events a second, each of 2 KiB and of another record, on a durable server: from the moment at which an event is due to its answer.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement of half a minute"]
async fn measure_how_fast_webhooks_are_answered() {
    let server = postgres::start(Options { data: DataDir::Temporary, durable: true, settings: Vec::new() }).await.unwrap();
    let db = Db::connect(Settings::new(server.url())).await.unwrap();
    migrate::run(&db).await.unwrap();
    dynamic::script(setting::TABLES.to_owned()).execute(&db).await.unwrap();
    let secret = format!("s{:x}", rand::random::<u64>());
    let sections = format!(
        "{}[webhooks.items]\nconnection = \"main\"\nverify = \"zoho-signature\"\nsecret = \"{secret}\"\nsync = \"items\"\nper_minute = 1000000",
        served::SYNCS
    );
    publish::publish(&db, &config(&sections), &publish::Options::default()).await.unwrap();
    let definitions = Definitions::compile(&db, &config(&sections)).await.unwrap();
    let shutdown = CancellationToken::new();
    let (address, running) = served::serve(&db, definitions, &sections, &shutdown).await;
    println!("{EVENTS} a second, each of 2 kB, {} in all", EVENTS * SECONDS);
    least(&db).await;
    // A new server makes its log's files as it goes, and each makes commits wait; from here on they are used again.
    sqlx::query("checkpoint").execute(&db).await.unwrap();
    let start = Instant::now() + Duration::from_millis(100);
    let senders = (0..16).map(|sender| {
        let secret = secret.clone();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut took = Vec::new();
            for number in (sender..EVENTS * SECONDS).step_by(16) {
                let body = format!(
                    r#"{{"item":{{"item_id":"{number}","last_modified_time":"2026-01-02T03:04:05+0000","description":"{}"}}}}"#,
                    "x".repeat(2000)
                );
                let signature = served::signature(&secret, &body);
                let length = body.len();
                let request =
                    format!("POST /webhook/items HTTP/1.1\r\nhost: h\r\ncontent-length: {length}\r\nx-zoho-webhook-signature: {signature}\r\n\r\n{body}");
                let due = start + Duration::from_secs(1) * number / EVENTS;
                tokio::time::sleep_until(due.into()).await;
                stream.write_all(request.as_bytes()).await.unwrap();
                let mut answer = [0; 4096];
                let read = stream.read(&mut answer).await.unwrap();
                assert!(answer[..read].starts_with(b"HTTP/1.1 200") && answer[..read].ends_with(b"}"), "{}", String::from_utf8_lossy(&answer[..read]));
                took.push(due.elapsed());
            }
            took
        })
    });
    let mut took: Vec<Duration> =
        futures::future::join_all(senders.collect::<Vec<_>>()).await.into_iter().flat_map(Result::unwrap).collect();
    took.sort();
    say("webhooks, answered", &took);
    let jobs: i64 = sqlx::query_scalar("select count(*) from sluice.job where kind = 'pull'").fetch_one(&db).await.unwrap();
    assert_eq!(jobs, i64::from(EVENTS * SECONDS));
    shutdown.cancel();
    running.await.unwrap();
    db.close().await;
    server.stop().await.unwrap();
}

/// What no receiver that keeps its events can be faster than on this disk: the body into a table of one column, at the same pace.
async fn least(db: &Db) {
    sqlx::query("create table least (body text)").execute(db).await.unwrap();
    let start = Instant::now() + Duration::from_millis(100);
    let writers = (0..16).map(|writer| {
        let url = db.settings().clone();
        tokio::spawn(async move {
            let db = Db::connect(url).await.unwrap();
            let mut took = Vec::new();
            for number in (writer..EVENTS * SECONDS).step_by(16) {
                let due = start + Duration::from_secs(1) * number / EVENTS;
                tokio::time::sleep_until(due.into()).await;
                sqlx::query("insert into least values ($1)").bind("x".repeat(2000)).execute(&db).await.unwrap();
                took.push(due.elapsed());
            }
            db.close().await;
            took
        })
    });
    let mut took: Vec<Duration> =
        futures::future::join_all(writers.collect::<Vec<_>>()).await.into_iter().flat_map(Result::unwrap).collect();
    took.sort();
    say("a bare insert, committed", &took);
}

fn say(what: &str, took: &[Duration]) {
    let at = |share: usize| took[(took.len() - 1) * share / 1000];
    println!("{what}: p50 {:.1?}, p99 {:.1?}, p99.9 {:.1?}, slowest {:.1?}", at(500), at(990), at(999), at(1000));
}

async fn listen_on(db: Db, definitions: Definitions, shutdown: CancellationToken) {
    let wake = Arc::new(Notify::new());
    let _notified = listen::Listener::spawn(db.settings(), &["sluice_change"], Arc::clone(&wake), shutdown.clone());
    let (_keep, definitions) = watch::channel(Arc::new(definitions));
    let reader = Reader::new(db.clone(), None);
    Listener { db, reader, definitions, wake }.run(shutdown).await;
}

/// The least that a transaction which updates a row can do, so the most that capture can weigh.
fn lone_update() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "\\set aid random(1, 1000000)\n\\set delta random(-5000, 5000)\nupdate pgbench_accounts set abalance = abalance + :delta where aid = :aid;\n";
    std::fs::write(file.path(), text).unwrap();
    file
}

async fn commits_a_second(url: &str, script: [&str; 2]) -> f64 {
    let output = pgbench(url, &["-n", script[0], script[1], "-M", "prepared", "-c", "16", "-j", "2", "-T", "3"]).await;
    let line = output.lines().find(|line| line.starts_with("tps")).unwrap();
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

async fn pgbench(url: &str, arguments: &[&str]) -> String {
    let output = Command::new("pgbench").args(arguments).arg(url).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
