//! What must happen now and then, by whichever worker comes first: rescuing the dead, waking who waits, re-reading what is agreed on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sluice_core::db::Db;
use sluice_queue::store;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::handlers::Kind;
use crate::shapes;
use crate::tokens::Tokens;

/// How often dead workers are looked for, and waiting records.
const SWEEP: Duration = Duration::from_secs(1);
/// How often the published hashes are read again.
const AGREE: Duration = Duration::from_secs(5);

/// Gives back what dead workers held, until `shutdown`.
pub(crate) async fn sweep(db: Db, wake: Arc<Notify>, shutdown: CancellationToken) {
    loop {
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

async fn sweep_once(db: &Db) -> Result<bool, sqlx::Error> {
    let mut found = false;
    while store::rescue(db).await? {
        tracing::warn!("a worker died; its batch was taken back");
        found = true;
    }
    Ok(store::sweep_waiting(db).await? > 0 || found)
}

/// Keeps the list of shapes that may be claimed: re-read every five seconds, and whenever a token comes or goes.
pub(crate) async fn agree(
    db: Db,
    hashes: BTreeMap<String, String>,
    tokens: Arc<Tokens>,
    changed: Arc<Notify>,
    shapes: watch::Sender<Arc<Vec<i64>>>,
    wake: Arc<Notify>,
    shutdown: CancellationToken,
) {
    let mut known_differing = Vec::new();
    loop {
        let told = changed.notified();
        match shapes::load(&db).await {
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
