//! The worker: claims batches from the queue, runs them, settles them. Any number of replicas.
//!
//! apalis gives the runtime: the loop that polls for work only when a handler is free, time-outs, caught panics, tracing, the monitor that
//! restarts and drains. Everything that must survive a crash is in the queue. A worker makes no jobs of its own accord but those of
//! parents that a record needs first; it knows no webhook, no schedule and no page.

mod apply;
mod ask;
mod backend;
mod engine;
mod handlers;
mod local_write;
mod outcome;
mod pace;
mod pause;
mod provision;
mod session;
mod settle;
mod shapes;
mod share;
mod tokens;
mod upkeep;
mod work;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use apalis::prelude::{Data, Monitor, WorkerBuilder, WorkerBuilderExt as _};
use apalis_core::worker::ext::parallelize::ParallelizeExt as _;
use sluice_core::config::{Config, Connection};
use sluice_core::db::{Db, listen};
use sluice_core::secrets::KeyRing;
use sluice_queue::lease;
use sluice_queue::retry::Policy;
use sluice_queue::wake::Channel;
use sluice_sync::read::Reader;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

pub use crate::ask::{Asked, ask};
use crate::backend::QueueBackend;
use crate::engine::{Definitions, Engine};
pub use crate::provision::{Provision, provision};
use crate::tokens::Tokens;
pub use crate::tokens::store_refresh_token;
use crate::work::{Handled, Work};

/// How a worker is run.
#[derive(Debug, Clone)]
pub struct WorkerOptions {
    /// Batches at once; default `[worker] concurrency`.
    pub concurrency: Option<usize>,
    /// Shown in attempts and status; a random incarnation is added.
    pub name: String,
}

/// Runs a worker until `shutdown`, then finishes or gives back what it holds within `[worker] grace`.
///
/// # Errors
/// When it cannot start (a connection's settings are wrong, the database cannot be read), or when the runtime gave up.
pub async fn run(config: Arc<Config>, db: Db, options: WorkerOptions, shutdown: CancellationToken) -> anyhow::Result<()> {
    let concurrency = options.concurrency.unwrap_or(usize::try_from(config.worker.concurrency)?).max(1);
    // The background tasks outlive the claims: leases are kept and batches settled while the worker drains.
    let background = CancellationToken::new();
    let _stop_background = background.clone().drop_guard();
    let engine = start(config, db, options, concurrency, &background).await?;

    let gave_up = Arc::new(AtomicBool::new(false));
    let monitor = {
        let engine = engine.clone();
        let gave_up = gave_up.clone();
        Monitor::new()
            .register(move |_| {
                WorkerBuilder::new(engine.worker.as_ref())
                    .backend(QueueBackend::new(engine.clone()))
                    .parallelize(tokio::spawn)
                    .concurrency(concurrency)
                    .timeout(handler_limit(engine.request_timeout()))
                    .enable_tracing()
                    .catch_panic()
                    .data(engine.clone())
                    .build(handle)
            })
            .should_restart(move |_, error| {
                tracing::error!(%error, "the worker runtime stopped; starting it again");
                gave_up.store(true, Ordering::Relaxed);
                true
            })
    };
    let grace = engine.config.worker.grace;
    let stop = shutdown.clone();
    let draining = monitor.run_with_signal(async move {
        stop.cancelled().await;
        Ok(())
    });
    tokio::select! {
        ended = draining => ended.context("the worker runtime failed")?,
        () = async { shutdown.cancelled().await; tokio::time::sleep(grace).await } => {
            tracing::warn!(grace_s = grace.as_secs(), "not everything ended in time; leases run out and others take over");
        }
    }
    Ok(())
}

/// A run may make several calls, each with its own time-out.
fn handler_limit(request_timeout: Duration) -> Duration {
    request_timeout * 4 + Duration::from_secs(10)
}

async fn handle(work: Work, engine: Data<Arc<Engine>>) -> Result<Handled, std::convert::Infallible> {
    Ok(handlers::run(&engine, &work).await)
}

async fn start(
    config: Arc<Config>,
    db: Db,
    options: WorkerOptions,
    concurrency: usize,
    background: &CancellationToken,
) -> anyhow::Result<Arc<Engine>> {
    let worker = worker_id(&options.name);
    let keys = Arc::new(KeyRing::load(&config.security, config.folder())?);
    let compiled = upkeep::compile(&config, &db, &mut BTreeMap::new()).await.context("the tables' columns could not be read")?;
    let (compiled, definitions) = watch::channel(Arc::new(compiled));
    let wake = Arc::new(Notify::new());
    let changed = Arc::new(Notify::new());
    let tokens = Arc::new(Tokens::new(db.clone(), worker.clone(), keys, clients(&config, &config.connections)?, changed.clone()));
    let (shapes_sender, shapes) = watch::channel(Arc::new(Vec::new()));
    let engine = Arc::new(Engine {
        reader: Reader::new(db.clone(), config.database.expression_role.clone()),
        policy: Policy { max_failures: config.retry.max_failures, base: config.retry.base, cap: config.retry.cap },
        keeper: lease::Keeper::spawn(db.clone(), worker.clone(), config.worker.lease, background.clone()),
        pace: pace::Pace::new(concurrency),
        share: share::Share::default(),
        walks: handlers::matching::Walks::default(),
        written: Arc::new(Notify::new()),
        wake: wake.clone(),
        definitions,
        tokens,
        shapes,
        worker,
        config,
        db,
    });
    spawn_background(&engine, compiled, shapes_sender, changed, background);
    tracing::info!(worker = %engine.worker, syncs = engine.definitions.borrow().len(), "worker started");
    Ok(engine)
}

fn spawn_background(
    engine: &Arc<Engine>,
    compiled: watch::Sender<Arc<Definitions>>,
    shapes: watch::Sender<Arc<Vec<i64>>>,
    changed: Arc<Notify>,
    background: &CancellationToken,
) {
    let stop = || background.clone();
    let tokens = engine.tokens.clone();
    let keep = stop();
    tokio::spawn(async move { tokens.keep(keep).await });
    tokio::spawn(upkeep::agree(engine.clone(), changed.clone(), shapes, stop()));
    tokio::spawn(upkeep::keep_compiled(engine.clone(), compiled, changed, stop()));
    tokio::spawn(upkeep::sweep(engine.db.clone(), engine.wake.clone(), stop()));
    tokio::spawn(local_write::run(engine.clone(), engine.written.clone(), stop()));
    const JOBS: &[&str] = &[Channel::Job.notify_channel()];
    let listener = listen::Listener::spawn(engine.db.settings(), JOBS, engine.wake.clone(), stop());
    let end = stop();
    tokio::spawn(async move {
        end.cancelled().await;
        drop(listener);
    });
}

fn worker_id(name: &str) -> Arc<str> {
    let incarnation = uuid::Uuid::new_v4().simple().to_string();
    Arc::from(format!("{name}-{}", &incarnation[..12]))
}

type NamedClient = (String, sluice_zoho::Client, Option<sluice_core::secrets::SecretString>);

fn clients<'a>(config: &Config, connections: impl IntoIterator<Item = (&'a String, &'a Connection)>) -> anyhow::Result<Vec<NamedClient>> {
    connections
        .into_iter()
        .map(|(name, connection)| {
            let url = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
            let settings = sluice_zoho::Settings {
                data_center: connection.data_center.as_str().parse()?,
                accounts_url: url(&connection.accounts_url)?,
                api_url: url(&connection.api_url)?,
                client_id: connection.client_id.clone(),
                client_secret: connection.client_secret.clone(),
                organization_id: connection.organization_id.clone(),
                request_timeout: config.worker.request_timeout,
            };
            let client = sluice_zoho::Client::new(settings).with_context(|| format!("connections.{name}"))?;
            Ok((name.clone(), client, connection.refresh_token.clone()))
        })
        .collect()
}
