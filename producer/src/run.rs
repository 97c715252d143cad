//! The producer's loops, from start to drained end.

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use anyhow::Context;
use sluice_core::config::Config;
use sluice_core::db::{Db, listen};
use sluice_queue::agreement::{self, Agreement};
use sluice_sync::definition::Level;
use sluice_sync::read::Reader;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::definitions::Definitions;
use crate::{alerts, changes, http, schedules, sweeps, upkeep, webhook};

/// How often the syncs are compiled anew: tables change while we run.
const COMPILE_EVERY: Duration = Duration::from_secs(60);

/// After an error of the database.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Runs the producer until `shutdown`, then finishes what is in hand.
///
/// # Errors
/// When it cannot start: the database does not answer, or the web server's address is taken. Once started, it goes on whatever happens.
pub async fn run(config: Arc<Config>, db: Db, shutdown: CancellationToken) -> anyhow::Result<()> {
    let socket = TcpListener::bind(config.http.listen).await.with_context(|| format!("listening on {}", config.http.listen))?;
    Box::pin(run_on(socket, config, db, shutdown)).await
}

/// The same, with the web server on a socket that the caller bound.
///
/// # Errors
/// As [`run`], but for the address.
pub async fn run_on(socket: TcpListener, config: Arc<Config>, db: Db, shutdown: CancellationToken) -> anyhow::Result<()> {
    let definitions = Definitions::compile(&db, &config).await.context("reading the database's catalog")?;
    for finding in definitions.findings.iter().filter(|finding| finding.level == Level::Error) {
        tracing::error!(%finding, "this sync produces nothing until it is mended");
    }
    let (compiled, definitions) = watch::channel(Arc::new(definitions));
    let reader = Reader::new(db.clone(), config.database.expression_role.clone());
    let agreed = Arc::new(RwLock::new(Agreement::default()));
    let wake = Arc::new(Notify::new());
    let listener = Arc::new(listen::Listener::spawn(db.settings(), &["sluice_change"], Arc::clone(&wake), shutdown.clone()));
    let changes = changes::Listener { db: db.clone(), reader: reader.clone(), definitions: definitions.clone(), wake };
    let server = http::State::new(&config, db.clone(), reader, definitions.clone(), Arc::clone(&agreed), listener).await?;
    let waiting = server.waiting();
    tokio::join!(
        changes.run(shutdown.clone()),
        tick(&db, &shutdown),
        keep_swept(&db, &definitions, &shutdown),
        keep_up(&config, &db, &definitions, &shutdown),
        keep_compiled(&config, &db, &compiled, &shutdown),
        keep_agreed(&db, &definitions, &agreed, &shutdown),
        webhook::keep_gaps_swept(&config, &db, &shutdown),
        webhook::keep_decided(&db, &waiting, &shutdown),
        alerts::run(&config, &db, &shutdown),
        http::serve(socket, server, shutdown.clone()),
    );
    Ok(())
}

async fn tick(db: &Db, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let pause = match schedules::tick(db).await {
            Ok((_, pause)) => pause,
            Err(error) => {
                tracing::error!(%error, "schedules could not be looked at; trying again");
                RETRY_AFTER
            }
        };
        pause_for(pause, shutdown).await;
    }
}

async fn keep_swept(db: &Db, definitions: &watch::Receiver<Arc<Definitions>>, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let current = Arc::clone(&definitions.borrow());
        match sweeps::ask(db, &current).await {
            Ok(runs) if runs.is_empty() => {}
            Ok(runs) => tracing::info!(?runs, "syncs are due to be compared as a whole"),
            Err(error) => tracing::warn!(%error, "whether a sync is due to be compared could not be asked"),
        }
        pause_for(sweeps::EVERY, shutdown).await;
    }
}

async fn keep_up(config: &Config, db: &Db, definitions: &watch::Receiver<Arc<Definitions>>, shutdown: &CancellationToken) {
    let mut lost = BTreeSet::new();
    while !shutdown.is_cancelled() {
        let current = Arc::clone(&definitions.borrow());
        match upkeep::tell_lost(db, &current).await {
            Ok(now) => {
                for one in now.difference(&lost) {
                    tracing::warn!("changes are not captured: {one}");
                }
                lost = now;
            }
            Err(error) => tracing::warn!(%error, "whether all tables are captured could not be asked"),
        }
        upkeep::round(db, &current, config.database.expression_role.as_deref(), config.retention.days).await;
        webhook::want_channels(config, db).await;
        pause_for(upkeep::EVERY, shutdown).await;
    }
}

async fn keep_compiled(config: &Config, db: &Db, compiled: &watch::Sender<Arc<Definitions>>, shutdown: &CancellationToken) {
    pause_for(COMPILE_EVERY, shutdown).await;
    while !shutdown.is_cancelled() {
        match Definitions::compile(db, config).await {
            Ok(definitions) => drop(compiled.send_replace(Arc::new(definitions))),
            Err(error) => tracing::warn!(%error, "the database's catalog could not be read"),
        }
        pause_for(COMPILE_EVERY, shutdown).await;
    }
}

async fn keep_agreed(db: &Db, definitions: &watch::Receiver<Arc<Definitions>>, agreed: &RwLock<Agreement>, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        let own = definitions.borrow().hashes();
        match Agreement::read(db, &own).await {
            Ok(now) => {
                if let Ok(mut agreed) = agreed.write() {
                    for differing in now.differing.iter().filter(|one| !agreed.differing.contains(one)) {
                        tracing::warn!("{differing}");
                    }
                    *agreed = now;
                }
            }
            Err(error) => tracing::warn!(%error, "the published configuration could not be read"),
        }
        pause_for(agreement::REREAD, shutdown).await;
    }
}

async fn pause_for(pause: Duration, shutdown: &CancellationToken) {
    shutdown.run_until_cancelled(tokio::time::sleep(pause)).await;
}
