//! What a benchmark runs on: a private PostgreSQL, a simulated Zoho, and worker processes of this binary. It leaves nothing behind.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sluice_core::config::{Config, Environment};
use sluice_core::db::{self, Db, dynamic};
use sluice_core::postgres::{self, DataDir, Options, Server};
use sluice_core::secrets::random_key;
use sluice_simulator::{Scenario, Simulator};
use tokio::process::{Child, Command};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::figures::Arrivals;
use crate::publish;
use crate::session;

const ORGANIZATION: &str = "60000000001";

/// What is measured.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// Seconds of a window; Zoho's minute is as long in the simulator.
    pub(crate) window: u32,
    /// Calls in a window, for ledger and simulator alike.
    pub(crate) cap: u32,
    /// Calls under way, likewise.
    pub(crate) in_flight: u32,
    /// Milliseconds that an answer takes.
    pub(crate) latency: [u64; 2],
    /// More of the budget's sections and of the syncs.
    pub(crate) config: String,
    /// Run in the database before the configuration is published.
    pub(crate) tables: String,
}

/// Ends with everything in it when it is dropped.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) setup: Setup,
    zoho: String,
    http: reqwest::Client,
    folder: PathBuf,
    config: PathBuf,
    stop: DropGuard,
    server: Server,
}

/// A worker process. Killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Replica(Child);

impl Replica {
    /// SIGKILL.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        Ok(self.0.kill().await?)
    }
}

impl World {
    pub(crate) async fn make(setup: Setup) -> anyhow::Result<Self> {
        sluice_zoho::install_tls();
        let server = postgres::start(Options {
            data: DataDir::Temporary,
            durable: true,
            settings: vec![("max_connections".to_owned(), "200".to_owned())],
        })
        .await?;
        let mut scenario = Scenario { time_scale: 60.0 / f64::from(setup.window), latency_ms: setup.latency, ..Scenario::default() };
        scenario.finance.per_minute = usize::try_from(setup.cap)?;
        scenario.finance.in_flight = usize::try_from(setup.in_flight)?;
        scenario.finance.per_day = 1_000_000;
        scenario.crm.in_flight = usize::try_from(setup.in_flight)?;
        scenario.oauth.token_seconds *= scenario.time_scale;
        scenario.oauth.mint_window_seconds *= scenario.time_scale;
        let listen = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::bind(sluice_simulator::Config { listen, scenario }).await?;
        let zoho = simulator.url();
        let text = configuration(&setup, server.url(), &simulator);
        let stop = CancellationToken::new();
        tokio::spawn(simulator.serve(stop.clone()));
        let folder = std::env::temp_dir().join(format!(
            "sluice-bench-{}",
            random_key().expose_secret().chars().filter(char::is_ascii_alphanumeric).take(12).collect::<String>()
        ));
        std::fs::create_dir(&folder)?;
        let config = folder.join("sluice.toml");
        std::fs::write(&config, &text)?;
        let parsed = Config::parse(&text, &Environment::default())?;
        let db = session::connect(&parsed, &SecretString::from(server.url()), "sluice bench").await?;
        db::migrate::run(&db).await?;
        let world =
            Self { db, setup, zoho, http: reqwest::Client::builder().no_proxy().build()?, folder, config, stop: stop.drop_guard(), server };
        world.run(world.setup.tables.clone()).await?;
        publish::publish(&world.db, &parsed, false).await?;
        Ok(world)
    }

    /// Starts a worker process that holds up to `concurrency` calls.
    pub(crate) fn replica(&self, concurrency: u16) -> anyhow::Result<Replica> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--config".as_ref(), self.config.as_os_str(), "-q".as_ref(), "worker".as_ref(), "--concurrency".as_ref()])
            .arg(concurrency.to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        Ok(Replica(command.spawn().context("this program could not start itself again")?))
    }

    pub(crate) fn replicas(&self, count: u16, concurrency: u16) -> anyhow::Result<Vec<Replica>> {
        (0..count).map(|_| self.replica(concurrency)).collect()
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) -> anyhow::Result<()> {
        dynamic::script(sql.into()).execute(&self.db).await?;
        Ok(())
    }

    pub(crate) async fn number(&self, sql: impl Into<String>) -> anyhow::Result<i64> {
        use sqlx::Row as _;
        Ok(dynamic::script(sql.into()).fetch_one(&self.db).await?.try_get(0)?)
    }

    /// Jobs of one call each, a list of customers.
    pub(crate) async fn enqueue(&self, lane: &str, jobs: u32) -> anyhow::Result<()> {
        let call = r#"{"connection": "main", "product": "billing", "method": "GET", "path": "/customers"}"#;
        self.run(format!("insert into sluice.job (kind, args, lane) select 'call', '{call}', '{lane}' from generate_series(1, {jobs})"))
            .await
    }

    /// One job of one call that can be told from the others by its page; when it was due, in microseconds.
    pub(crate) async fn enqueue_marked(&self, lane: &str, mark: usize) -> anyhow::Result<i64> {
        let call = format!(
            r#"{{"connection": "main", "product": "billing", "method": "GET", "path": "/customers", "query": {{"page": "{mark}"}}}}"#
        );
        let due = Utc::now().timestamp_micros();
        self.run(format!("insert into sluice.job (kind, args, lane) values ('call', '{call}', '{lane}')")).await?;
        Ok(due)
    }

    pub(crate) fn window(&self) -> Duration {
        Duration::from_secs(self.setup.window.into())
    }

    pub(crate) fn window_us(&self) -> i64 {
        i64::from(self.setup.window) * 1_000_000
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(format!("{}/admin/{path}", self.zoho)).send().await?.json().await?)
    }

    /// Tells the simulator something: `faults`, `settings`.
    pub(crate) async fn tell(&self, what: &str, body: Value) -> anyhow::Result<()> {
        self.http.post(format!("{}/admin/{what}", self.zoho)).json(&body).send().await?.error_for_status()?;
        Ok(())
    }

    /// What the simulator saw, by its own arithmetic.
    pub(crate) async fn stats(&self) -> anyhow::Result<Value> {
        self.get("stats").await
    }

    /// Every call to a product, oldest first.
    pub(crate) async fn calls(&self, product: &str) -> anyhow::Result<Vec<Value>> {
        let mut calls = Vec::new();
        let mut since = 0;
        loop {
            let page = self.get(&format!("log?product={product}&since={since}")).await?;
            let Some(requests) = page["requests"].as_array().filter(|requests| !requests.is_empty()) else { return Ok(calls) };
            calls.extend(requests.iter().cloned());
            since = page["next"].as_u64().unwrap_or_default();
        }
    }

    pub(crate) async fn arrivals(&self, product: &str) -> anyhow::Result<Arrivals> {
        Ok(Arrivals::new(self.calls(product).await?.iter().filter_map(|call| call["arrived_us"].as_i64()).collect()))
    }

    /// Waits until the first call of a product has arrived, and says when.
    pub(crate) async fn first_arrival(&self, product: &str) -> anyhow::Result<i64> {
        for _ in 0..600 {
            if let Some(first) = self.arrivals(product).await?.first() {
                return Ok(first);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::bail!("no call arrived within a minute")
    }

    pub(crate) async fn end(self) {
        let Self { db, folder, stop, server, .. } = self;
        db.close().await;
        drop((stop, server));
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            eprintln!("{} could not be removed: {error}", folder.display());
        }
    }
}

/// Waits until that moment, in microseconds since 1970.
pub(crate) async fn until(at: i64) {
    let wait = at - Utc::now().timestamp_micros();
    tokio::time::sleep(Duration::from_micros(u64::try_from(wait).unwrap_or(0))).await;
}

/// The lease and the request time-out shrink with the window.
fn configuration(setup: &Setup, database: &str, simulator: &Simulator) -> String {
    let zoho = simulator.credentials();
    let url = simulator.url();
    let half = (u64::from(setup.window) * 500).max(1000);
    format!(
        "[database]\nurl = \"{database}\"\n[http]\nlisten = \"127.0.0.1:0\"\n[security]\nkey = \"{key}\"\n[worker]\nlease = \"{half}ms\"\nrequest_timeout = \"{half}ms\"\ngrace = \"1s\"\n\
         [connections.main]\nclient_id = \"{id}\"\nclient_secret = \"{secret}\"\nrefresh_token = \"{token}\"\norganization_id = \"{ORGANIZATION}\"\naccounts_url = \"{url}\"\napi_url = \"{url}\"\n\
         [connections.main.budget.finance]\nper_minute = {cap}\nin_flight = {in_flight}\nwindow_seconds = {window}\n{more}",
        key = random_key().expose_secret(),
        id = zoho.client_id,
        secret = zoho.client_secret,
        token = zoho.refresh_token,
        cap = setup.cap,
        in_flight = setup.in_flight,
        window = setup.window,
        more = setup.config,
    )
}
