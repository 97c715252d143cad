//! Heartbeats. A lease lives as long as somebody holds its guard, and not one beat longer.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_core::db::Db;
use tokio_util::sync::CancellationToken;

use crate::store;

/// Extends the leases of the batches in hand. Its own task: the worker runtime does not poll its backend while it drains.
#[derive(Debug, Clone)]
pub struct Keeper {
    held: Arc<Mutex<BTreeSet<i64>>>,
}

/// Keeps one batch's lease alive until it is dropped.
#[derive(Debug)]
pub struct Guard {
    token: i64,
    held: Arc<Mutex<BTreeSet<i64>>>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        lock(&self.held).remove(&self.token);
    }
}

impl Keeper {
    /// Starts the beat, three per lease, until `shutdown`.
    pub fn spawn(db: Db, worker: Arc<str>, lease: Duration, shutdown: CancellationToken) -> Self {
        let keeper = Self { held: Arc::default() };
        let held = keeper.held.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = tokio::time::sleep(lease / 3) => {}
                }
                let tokens: Vec<i64> = lock(&held).iter().copied().collect();
                if tokens.is_empty() {
                    continue;
                }
                match store::extend(&db, &worker, &tokens, lease).await {
                    Ok(kept) => {
                        for lost in tokens.iter().filter(|t| !kept.contains(t)) {
                            // Settled in between, or rescued: either way there is nothing to keep, and the fence stops whoever still works on it.
                            tracing::debug!(token = lost, "no longer extending a lease");
                            lock(&held).remove(lost);
                        }
                    }
                    Err(error) => tracing::warn!(%error, "leases could not be extended; trying again"),
                }
            }
        });
        keeper
    }

    /// Keeps a batch's lease until the guard is dropped.
    pub fn hold(&self, token: i64) -> Guard {
        lock(&self.held).insert(token);
        Guard { token, held: self.held.clone() }
    }
}

fn lock(held: &Mutex<BTreeSet<i64>>) -> MutexGuard<'_, BTreeSet<i64>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}
