//! What every scenario runs in: a database with the application's tables, the simulated Zoho, the published configuration, processes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sluice_core::config::Config;
use sluice_core::db::dynamic;
use sluice_core::db::{Db, Settings, migrate};
use sluice_core::secrets::random_key;
use sluice_producer::Definitions;
use sluice_producer::capture::{self, LOCK_PATIENCE};
use sluice_producer::publish::{self, Options};
use sluice_simulator::scenario::Finance;
use sluice_simulator::{FaultSpec, Scenario, Simulator};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::fleet::Fleet;
use crate::log::Log;

/// How many times as fast as Zoho's the simulator's windows pass; the configuration's fit.
const SPEED: f64 = 10.0;

/// Everything but the processes.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) config: Arc<Config>,
    pub(crate) fleet: Fleet,
    zoho: String,
    http: reqwest::Client,
    folder: Option<TempDir>,
    _stop_zoho: DropGuard,
}

impl World {
    /// In an empty or a migrated database. `more` is added to the configuration.
    pub(crate) async fn new(url: &str, seed: u64, faults: Vec<FaultSpec>, more: &str) -> anyhow::Result<Self> {
        sluice_zoho::install_tls(); // for the client of the simulator's admin API
        // what a day allows would be spent in ten minutes at this speed, and the day be planned accordingly
        let finance = Finance { per_day: 1_000_000, ..Finance::default() };
        let scenario = Scenario { seed, time_scale: SPEED, faults, finance, ..Scenario::default() };
        let simulator = Simulator::bind(sluice_simulator::Config { listen: ([127, 0, 0, 1], 0).into(), scenario }).await?;
        let folder = tempfile::Builder::new().prefix("sluice-chaos-").tempdir()?;
        let file = folder.path().join("sluice.toml");
        std::fs::write(&file, configuration(url, &simulator) + more)?;
        let zoho = simulator.url();
        let stop = CancellationToken::new();
        tokio::spawn(simulator.serve(stop.clone()));

        let config = Config::load(Some(&file))?;
        let db = Db::connect(Settings::new(url)).await?;
        migrate::run(&db).await?;
        dynamic::script(include_str!("tables.sql").to_owned()).execute(&db).await?;
        publish::publish(&db, &config, &Options { retire: false, by: "chaos".to_owned() }).await?;
        let world = Self {
            fleet: Fleet::new(folder.path(), &file),
            http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(20)).build()?,
            folder: Some(folder),
            _stop_zoho: stop.drop_guard(),
            config: Arc::new(config),
            zoho,
            db,
        };
        world.attach().await?;
        Ok(world)
    }

    /// Installs the capture triggers, as `sluice attach` does.
    pub(crate) async fn attach(&self) -> anyhow::Result<()> {
        let definitions = Definitions::compile(&self.db, &self.config).await?;
        capture::attach(&self.db, &definitions, &[], LOCK_PATIENCE).await?;
        Ok(())
    }

    /// The requests that the simulator saw after the one with this number.
    pub(crate) async fn log(&self, mut since: u64) -> anyhow::Result<Log> {
        let mut requests = Vec::new();
        loop {
            let page = self.ask(&format!("log?since={since}")).await?;
            let page = page["requests"].as_array().cloned().unwrap_or_default();
            let Some(last) = page.last() else { return Log::read(&requests) };
            since = last["number"].as_u64().context("a request without number")?;
            requests.extend(page);
        }
    }

    /// Every record of a module, as the simulator holds them.
    pub(crate) async fn records(&self, product: &str, module: &str) -> anyhow::Result<Vec<Value>> {
        let state = self.ask(&format!("state?product={product}&module={module}")).await?;
        state["records"].as_array().cloned().with_context(|| format!("no records of {module}: {state}"))
    }

    pub(crate) async fn stats(&self) -> anyhow::Result<Value> {
        self.ask("stats").await
    }

    /// Breaks something more.
    pub(crate) async fn fault(&self, fault: &FaultSpec) -> anyhow::Result<()> {
        self.http.post(format!("{}/admin/faults", self.zoho)).json(fault).send().await?.error_for_status()?;
        Ok(())
    }

    async fn ask(&self, what: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(format!("{}/admin/{what}", self.zoho)).send().await?.error_for_status()?.json().await?)
    }

    /// Says where the processes' logs are, and keeps them.
    pub(crate) fn keep_logs(&mut self, error: anyhow::Error) -> anyhow::Error {
        match self.folder.take() {
            Some(folder) => error.context(format!("the logs of all processes are kept in {}", folder.keep().display())),
            None => error,
        }
    }
}

fn configuration(url: &str, simulator: &Simulator) -> String {
    let (zoho, key) = (simulator.credentials(), random_key());
    let token = random_key();
    [
        ("{database}", url),
        ("{zoho}", &simulator.url()),
        ("{token}", token.expose_secret()),
        ("{key}", key.expose_secret()),
        ("{client_id}", &zoho.client_id),
        ("{client_secret}", &zoho.client_secret),
        ("{refresh_token}", &zoho.refresh_token),
    ]
    .iter()
    .fold(include_str!("config.toml").to_owned(), |text, (name, value)| text.replace(name, value))
}

/// Asks every 100 ms until the answer is yes.
pub(crate) async fn until<F>(limit: Duration, what: &str, mut question: F) -> anyhow::Result<()>
where
    F: AsyncFnMut() -> anyhow::Result<bool>,
{
    let deadline = tokio::time::Instant::now() + limit;
    while !question().await? {
        anyhow::ensure!(tokio::time::Instant::now() < deadline, "not so within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}
