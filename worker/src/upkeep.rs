//! What must happen now and then, by whichever worker comes first: rescuing the dead, waking who waits, re-reading what is agreed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_queue::store;
use sluice_sync::catalog::Catalog;
use sluice_sync::definition::Definition;
use sluice_sync::sighting;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::engine::{Definitions, Engine};
use crate::handlers::Kind;
use crate::shapes;

/// How often dead workers are looked for, and waiting records.
const SWEEP: Duration = Duration::from_secs(1);
/// How often records of runs are looked for that nobody looks at any more.
const COUNT: Duration = Duration::from_secs(5);
/// How often the published hashes are read again.
const AGREE: Duration = Duration::from_secs(5);
/// How often definitions are compiled anew.
const COMPILE: Duration = Duration::from_secs(60);

/// Gives back what dead workers held, until `shutdown`.
pub(crate) async fn sweep(db: Db, wake: Arc<Notify>, shutdown: CancellationToken) {
    let mut counted = Instant::now();
    loop {
        if counted.elapsed() >= COUNT {
            counted = Instant::now();
            if let Err(error) = count_abandoned(&db).await {
                tracing::warn!(%error, "readings that nobody goes by could not be cleared away; trying again");
            }
        }
        match sweep_once(&db).await {
            Ok(true) => wake.notify_waiters(),
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "the sweep failed; trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP) => {}
        }
    }
}

async fn count_abandoned(db: &Db) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    // one at a time does, and who waits for none holds up no rescue
    let mine = sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(hashtextextended('sluice.abandoned', 0)) as "mine!""#)
        .fetch_one(&mut tx)
        .await?;
    if mine {
        sighting::abandoned(&mut tx).await?;
        sluice_sync::link::store::forget_unlinked(&mut tx).await?;
    }
    tx.commit().await
}

async fn sweep_once(db: &Db) -> Result<bool, sqlx::Error> {
    let mut found = false;
    while store::rescue(db).await? {
        tracing::warn!("a worker died; its batch was taken back");
        found = true;
    }
    Ok(store::sweep_waiting(db).await? > 0 || found)
}

/// The syncs that can be worked on; one that does not fit its table is left out and said, unless `said` has it already.
///
/// # Errors
/// The database's.
pub(crate) async fn compile(config: &Config, db: &Db, said: &mut BTreeMap<String, Vec<String>>) -> Result<Definitions, sqlx::Error> {
    let mut tx = db.begin().await?;
    let catalog = Catalog::load(&mut tx, &Definition::tables(config.syncs.values())).await?;
    tx.commit().await?;
    let mut definitions = Definitions::new();
    for (name, sync) in &config.syncs {
        match Definition::compile(sync, &config.syncs, &catalog) {
            Ok((definition, _)) => {
                said.remove(name);
                definitions.insert(name.clone(), Arc::new(definition));
            }
            Err(findings) => {
                let findings: Vec<String> = findings.iter().map(ToString::to_string).collect();
                if said.get(name) != Some(&findings) {
                    tracing::error!(sync = name, ?findings, "the sync does not fit its table; its records wait");
                    said.insert(name.clone(), findings);
                }
            }
        }
    }
    Ok(definitions)
}

/// Compiles the definitions anew every minute, and every five seconds while one does not fit its table: once that is mended, its records go on.
pub(crate) async fn keep_compiled(
    engine: Arc<Engine>,
    compiled: watch::Sender<Arc<Definitions>>,
    changed: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut said = BTreeMap::new();
    loop {
        let complete = engine.definitions.borrow().len() == engine.config.syncs.len();
        let pause = if complete { COMPILE } else { AGREE };
        if shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        match compile(&engine.config, &engine.db, &mut said).await {
            Ok(definitions) => {
                let more = definitions.len() > engine.definitions.borrow().len();
                compiled.send_replace(Arc::new(definitions));
                if more {
                    changed.notify_waiters();
                }
            }
            Err(error) => tracing::warn!(%error, "the tables' columns could not be read"),
        }
    }
}

/// Keeps the list of shapes that may be claimed: re-read every five seconds, and whenever a token or a definition comes or goes.
pub(crate) async fn agree(engine: Arc<Engine>, changed: Arc<Notify>, shapes: watch::Sender<Arc<Vec<i64>>>, shutdown: CancellationToken) {
    let (db, tokens, wake) = (&engine.db, &engine.tokens, &engine.wake);
    let mut known_differing = Vec::new();
    loop {
        let told = changed.notified();
        let hashes = engine.definitions.borrow().iter().map(|(name, definition)| (name.clone(), definition.hash().to_owned())).collect();
        match shapes::load(db).await {
            Ok(published) => {
                let (ids, differing) =
                    shapes::agreed(&published, &hashes, |kind| Kind::parse(kind).is_some(), |connection| tokens.of(connection).is_some());
                if differing != known_differing {
                    tracing::warn!(?differing, "this replica's file differs from what is published; it leaves these syncs to others");
                    known_differing = differing;
                }
                if shapes.send_if_modified(|current| {
                    let changed = **current != ids;
                    *current = Arc::new(ids);
                    changed
                }) {
                    wake.notify_waiters();
                }
            }
            Err(error) => tracing::warn!(%error, "the published configuration could not be read"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = told => {}
            () = tokio::time::sleep(AGREE) => {}
        }
    }
}
