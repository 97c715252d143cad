//! A small business in a box: its own database and tables, a simulated Zoho, and our producer and worker between them.
//!
//! Everything is as in production but for time: a minute of Zoho's passes in a second, and so does the budget's window.

#![allow(dead_code, reason = "several test programs share this, and each uses a part")]

mod zoho;

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::config::{Config, Environment};
use sluice_core::db::{Db, Settings, dynamic};
use sluice_core::secrets::random_key;
use sluice_producer::capture::{self, LOCK_PATIENCE};
use sluice_producer::{Definitions, publish};
use sluice_simulator::Scenario;
use sluice_tests::{TestDb, wait_until};
use sluice_worker::WorkerOptions;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) use zoho::Zoho;

pub(crate) const ORGANIZATION: &str = "60000000001";
/// What the webhooks of a recipe are signed with.
pub(crate) const WEBHOOK_SECRET: &str = "aSecretThatZohoSignsWith";
/// How much faster than Zoho's the simulator's clock runs.
const SPEED: f64 = 60.0;
/// The longest that anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What a world is made of; the defaults are an empty database and a Zoho without faults.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    /// SQL of the business's own.
    pub(crate) tables: &'static str,
    /// The syncs, and whatever else the file is to say; its connection is `main`.
    pub(crate) config: String,
    /// A scenario of the simulator, in TOML.
    pub(crate) scenario: &'static str,
    /// How long a worker waits for an answer.
    pub(crate) request_timeout: Duration,
    /// How much faster than ours Zoho's clock runs: 1 where times of both sides are compared.
    pub(crate) speed: f64,
    /// The connection whose organisation is another Zoho, if one is.
    pub(crate) elsewhere: Option<&'static str>,
    /// Whether the file names the plans; otherwise Zoho is asked, a call for each product.
    pub(crate) plans: bool,
}

impl Setup {
    pub(crate) fn new(tables: &'static str, config: impl Into<String>) -> Self {
        Self {
            tables,
            config: config.into(),
            scenario: "",
            request_timeout: Duration::from_secs(5),
            speed: SPEED,
            elsewhere: None,
            plans: true,
        }
    }
}

/// The running world. Everything in it ends when it is dropped.
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) zoho: Zoho,
    /// The other Zoho, of [`Setup::elsewhere`].
    pub(crate) elsewhere: Option<Zoho>,
    pub(crate) key: sluice_core::secrets::SecretString,
    _stop: DropGuard,
    stop: CancellationToken,
    database: TestDb,
}

impl World {
    /// A world whose triggers are attached, with a producer and a worker.
    pub(crate) async fn new(setup: Setup) -> Self {
        let world = Self::without_worker(setup).await;
        world.start_worker();
        world
    }

    /// The same with a producer alone: what is asked for waits until [`World::start_worker`].
    pub(crate) async fn without_worker(setup: Setup) -> Self {
        let world = Self::without_roles(setup).await;
        world.start_producer().await;
        world
    }

    /// The same with neither.
    pub(crate) async fn without_roles(setup: Setup) -> Self {
        log();
        sluice_zoho::install_tls();
        let database = TestDb::new().await;
        let stop = CancellationToken::new();
        let (zoho, credentials) = Zoho::start(Scenario::from_toml(setup.scenario).expect("a scenario"), setup.speed, stop.clone()).await;
        let (elsewhere, other_token) = match setup.elsewhere {
            None => (None, credentials.refresh_token.clone()),
            Some(_) => {
                let mut scenario = Scenario { seed: 2, ..Scenario::default() };
                scenario.oauth.client_id = Some(credentials.client_id.clone());
                scenario.oauth.client_secret = Some(credentials.client_secret.clone());
                let (zoho, credentials) = Zoho::start(scenario, setup.speed, stop.clone()).await;
                (Some(zoho), credentials.refresh_token)
            }
        };
        let environment: Environment = [
            ("DATABASE_URL", database.url()),
            ("ZOHO_CLIENT_ID", &credentials.client_id),
            ("ZOHO_CLIENT_SECRET", &credentials.client_secret),
            ("ZOHO_REFRESH_TOKEN", &credentials.refresh_token),
            ("ZOHO_ORG_ID", ORGANIZATION),
            ("ZOHO_WHOLESALE_REFRESH_TOKEN", &other_token),
            ("ZOHO_WEBHOOK_SECRET", WEBHOOK_SECRET),
        ]
        .into_iter()
        .collect();
        let key = random_key();
        let mut world = Self {
            config: Arc::new(configuration(&setup, &environment, &zoho.url, &key)),
            zoho,
            elsewhere,
            key,
            _stop: stop.clone().drop_guard(),
            stop,
            database,
        };
        if let (Some(name), Some(elsewhere)) = (setup.elsewhere, &world.elsewhere) {
            let config = Arc::make_mut(&mut world.config);
            let connection = config.connections.get_mut(name).expect("the connection elsewhere");
            (connection.accounts_url, connection.api_url) = (Some(elsewhere.url.clone()), Some(elsewhere.url.clone()));
        }
        world.run(setup.tables).await;
        world.attach().await;
        world
    }

    /// Publishes the configuration and installs the triggers.
    pub(crate) async fn attach(&mut self) {
        publish(self.db(), &self.config, &Default::default()).await.expect("a configuration that can be published");
        let definitions = Definitions::compile(self.db(), &self.config).await.expect("definitions");
        capture::attach(self.db(), &definitions, &[], LOCK_PATIENCE).await.expect("triggers");
        // No test runs differently at a quarter past: whoever wants a tick sets its time.
        self.run("update sluice.schedule set next_at = next_at + interval '1 day'").await;
    }

    /// Where the database is, for its owner.
    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    /// A producer and a worker that reach the database through a transaction pooler.
    pub(crate) async fn start_roles_through(&self, pooler: &str) {
        let settings = Settings { pooler: sluice_core::db::Pooler::Transaction, ..Settings::new(pooler) };
        let (producer, worker) = (Db::connect(settings.clone()).await.expect("a pooler"), Db::connect(settings).await.expect("a pooler"));
        let producer = sluice_producer::run(self.config.clone(), producer, self.stop.child_token());
        let producer = Box::pin(producer);
        tokio::spawn(async move { producer.await.expect("the producer") });
        let options = WorkerOptions { concurrency: None, name: "pooled".to_owned() };
        let worker = sluice_worker::run(self.config.clone(), worker, options, self.stop.child_token());
        tokio::spawn(async move { worker.await.expect("the worker") });
    }

    pub(crate) async fn start_producer(&self) {
        let producer = sluice_producer::run(self.config.clone(), self.connect().await, self.stop.child_token());
        let producer = Box::pin(producer);
        tokio::spawn(async move { producer.await.expect("the producer") });
    }

    /// A producer whose web server Zoho can reach at the address that is returned, until the end of the world or of the token. `at` is the address of
    /// an earlier one.
    pub(crate) async fn start_listening(
        &self,
        at: Option<std::net::SocketAddr>,
    ) -> (std::net::SocketAddr, CancellationToken, JoinHandle<()>) {
        let socket = wait_for_port(at.unwrap_or_else(any_port)).await;
        let at = socket.local_addr().expect("an address");
        let stop = self.stop.child_token();
        let producer = Box::pin(sluice_producer::run_on(socket, self.config.clone(), self.connect().await, stop.clone()));
        let task = tokio::spawn(async move { producer.await.expect("the producer") });
        (at, stop, task)
    }

    /// Another worker, until the end of the world or of the token that is returned.
    pub(crate) fn start_worker(&self) -> (CancellationToken, JoinHandle<()>) {
        self.start_worker_with(self.config.clone())
    }

    /// A worker with a file of its own.
    pub(crate) fn start_worker_with(&self, config: Arc<Config>) -> (CancellationToken, JoinHandle<()>) {
        self.start_worker_at(config, self.database.url().to_owned())
    }

    /// A worker that has no more rights than this role.
    pub(crate) fn start_worker_as(&self, role: &str) -> (CancellationToken, JoinHandle<()>) {
        let url = self.database.url();
        let separator = if url.contains('?') { '&' } else { '?' };
        self.start_worker_at(self.config.clone(), format!("{url}{separator}options=-c%20role%3D{role}"))
    }

    fn start_worker_at(&self, config: Arc<Config>, url: String) -> (CancellationToken, JoinHandle<()>) {
        let stop = self.stop.child_token();
        let shutdown = stop.clone();
        let task = tokio::spawn(async move {
            let db = Db::connect(Settings::new(url)).await.expect("the database");
            let options = WorkerOptions { concurrency: None, name: "test".to_owned() };
            sluice_worker::run(config, db, options, shutdown).await.expect("the worker");
        });
        (stop, task)
    }

    /// The test's own handle.
    pub(crate) fn db(&self) -> &Db {
        self.database.db()
    }

    /// A session of the application's, apart from everybody else's.
    pub(crate) async fn connect(&self) -> Db {
        Db::connect(Settings::new(self.database.url())).await.expect("the database")
    }

    /// Runs the application's SQL; several statements are one transaction.
    pub(crate) async fn run(&self, sql: &str) {
        let mut tx = self.db().begin().await.expect("a transaction");
        dynamic::script(sql.to_owned()).execute(&mut tx).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        tx.commit().await.expect("a commit");
    }

    /// The first column of the first row.
    pub(crate) async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(self.db()).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// All rows of a query, as JSON objects.
    pub(crate) async fn rows(&self, sql: &str) -> Vec<Value> {
        let mut tx = self.db().begin().await.expect("a transaction");
        let text = format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) r");
        let rows = sqlx::Executor::fetch_one(&mut tx, dynamic::script(text)).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let rows: Value = sqlx::Row::get(&rows, 0);
        rows.as_array().cloned().unwrap_or_default()
    }

    /// The open dead letters: class, field, key, message, depends_sync, depends_key.
    pub(crate) async fn letters(&self) -> Vec<Value> {
        self.rows(
            "select id, sync, key, error_class, error_code, field, message, hint, depends_sync, depends_key, jsonb_array_length(history) as attempts
             from sluice.dead_letter where resolution is null order by id",
        )
        .await
    }

    /// Asks for every row of a sync, as `sluice trigger SYNC` does.
    pub(crate) async fn trigger(&self, sync: &str) -> u64 {
        self.trigger_with(sync, false).await
    }

    /// The same with `--force`.
    pub(crate) async fn force(&self, sync: &str) -> u64 {
        self.trigger_with(sync, true).await
    }

    async fn trigger_with(&self, sync: &str, force: bool) -> u64 {
        let definitions = Definitions::compile(self.db(), &self.config).await.expect("definitions");
        let reader = sluice_sync::read::Reader::new(self.db().clone(), None);
        sluice_producer::trigger(self.db(), &reader, &definitions, Some(sync), None, force).await.expect("a trigger").jobs
    }

    /// Asks for what changed in Zoho, as the schedule does.
    pub(crate) async fn ask_for_poll(&self, sync: &str) {
        self.run(&format!("insert into sluice.job (kind, args) values ('poll', '{{\"sync\": \"{sync}\"}}')")).await;
    }

    /// Asks for everything that Zoho has, changed or not.
    pub(crate) async fn ask_for_all(&self, sync: &str) {
        self.run(&format!("insert into sluice.job (kind, args) values ('poll', '{{\"sync\": \"{sync}\", \"full\": true}}')")).await;
    }

    /// What changed in Zoho since the last time is here, as far as it goes.
    pub(crate) async fn poll(&self, sync: &str) {
        self.ask_for_poll(sync).await;
        self.settled().await;
    }

    /// Everything arrived: nothing is left to do, and nothing died.
    pub(crate) async fn all_arrived(&self) {
        self.settled().await;
        assert_eq!(self.letters().await, Vec::<Value>::new());
    }

    /// Until nothing is left to do but what is due much later.
    pub(crate) async fn settled(&self) {
        self.settled_within(PATIENCE).await;
    }

    pub(crate) async fn settled_within(&self, limit: Duration) {
        let left = || async {
            self.rows(
                "with soon as (select clock_timestamp() + interval '20 s' as at)
                 select (select count(*) from sluice.change) as changes, (select count(*) from sluice.job, soon where run_at < at) as jobs,
                   (select jsonb_agg(to_jsonb(s)) from (select s.* from sluice.slot s, soon
                      where state = 'running' or due_at < at or waiting_sync is not null limit 5) s) as slots,
                   (select count(*) from sluice.local_write where error is null) as writes",
            )
            .await
            .remove(0)
        };
        let end = std::time::Instant::now() + limit;
        loop {
            let now = left().await;
            if now["changes"] == 0 && now["jobs"] == 0 && now["slots"].is_null() && now["writes"] == 0 {
                return;
            }
            assert!(std::time::Instant::now() < end, "not settled within {limit:?}: {now:#}\nletters: {:#?}", self.letters().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Until the query's first column is true.
    #[track_caller]
    pub(crate) fn until(&self, sql: &'static str) -> impl Future<Output = ()> {
        let db = self.db().clone();
        wait_until(PATIENCE, move || {
            let db = db.clone();
            async move { sqlx::query_scalar::<_, bool>(sql).fetch_one(&db).await.unwrap_or_else(|error| panic!("{sql}: {error}")) }
        })
    }

    /// What must hold after every run: Zoho understood every request and saw none of its rules broken.
    pub(crate) async fn check_rules(&self) {
        let stats = self.zoho.stats().await;
        assert_eq!(stats["unknown_operations"], json!([]), "requests that Zoho does not document");
        assert_eq!(stats["unknown_parameters"], json!([]), "parameters that Zoho does not document");
        assert_eq!(
            stats["ignored_fields"].as_object().map(serde_json::Map::len),
            Some(0),
            "fields that Zoho drops: {}",
            stats["ignored_fields"]
        );
        let violations = stats["violations"].as_object().cloned().unwrap_or_default();
        assert!(violations.values().all(|count| count == 0), "{}", stats["violation_list"]);
        for (scope, seen) in stats["scopes"].as_object().cloned().unwrap_or_default() {
            assert!(seen["most_in_window"].as_u64() <= Some(100), "{scope}: {seen}");
            assert!(seen["most_in_flight"].as_u64() <= Some(10), "{scope}: {seen}");
        }
        assert!(stats["tokens"]["most_in_window"].as_u64() <= Some(10), "{}", stats["tokens"]);
    }
}

/// A scalar without quotes.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// How many a test works with: what the environment says, else `usual`, which is cheap.
pub(crate) fn sized(variable: &str, usual: usize) -> usize {
    std::env::var(variable).ok().and_then(|count| count.parse().ok()).unwrap_or(usual)
}

fn configuration(setup: &Setup, environment: &Environment, zoho: &str, key: &sluice_core::secrets::SecretString) -> Config {
    const CONNECTION: &str = "[connections.main]\ndata_center = \"com\"\nclient_id = \"${ZOHO_CLIENT_ID}\"\nclient_secret = \"${ZOHO_CLIENT_SECRET}\"\n\
                              refresh_token = \"${ZOHO_REFRESH_TOKEN}\"\norganization_id = \"${ZOHO_ORG_ID}\"\n";
    let text = if setup.config.contains("[connections.main]") { setup.config.clone() } else { format!("{CONNECTION}{}", setup.config) };
    let mut config = Config::parse(&text, environment).unwrap_or_else(|error| panic!("{error}"));
    for connection in config.connections.values_mut() {
        connection.accounts_url = Some(zoho.to_owned());
        connection.api_url = Some(zoho.to_owned());
        for scope in ["finance", "crm", "fsm"] {
            let budget = connection.budget.entry(scope.to_owned()).or_default();
            budget.window_seconds = if setup.speed > 1.0 { 1 } else { 60 };
            if setup.plans {
                budget.plan.get_or_insert_with(|| if scope == "crm" { "standard" } else { "premium" }.to_owned());
            }
        }
    }
    config.security.key = Some(key.clone());
    config.http.listen = any_port();
    config.worker.request_timeout = setup.request_timeout;
    config.worker.lease = Duration::from_secs(2);
    config.worker.grace = Duration::from_secs(2);
    config
}

/// A port that was just given up may be in use for a moment.
async fn wait_for_port(at: std::net::SocketAddr) -> tokio::net::TcpListener {
    let bound = || async { tokio::net::TcpListener::bind(at).await.is_ok() };
    wait_until(PATIENCE, bound).await;
    tokio::net::TcpListener::bind(at).await.expect("the port")
}

fn any_port() -> std::net::SocketAddr {
    std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0))
}

/// What the programs log is shown with a test that fails.
fn log() {
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "info,sqlx=warn".to_owned());
    let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter(filter).try_init();
}
