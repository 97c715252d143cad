//! Captured row changes become jobs.
//!
//! [`drain::drain_once`] is the whole of it: one transaction that takes changes, finds out whom they concern, drops what cannot matter and
//! enqueues the rest. The table is the truth and polling every second the guarantee; LISTEN only spares the wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::db::{Db, message};
use sluice_queue::wake::{self, Channel};
use sluice_sync::read::Reader;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

mod brake;
pub mod drain;
mod enqueue;
mod held;
mod isolate;
mod keys;
mod moved;
mod packs;
mod sift;
mod store;
mod unchanged;
mod watched;

pub use drain::{Drained, drain_once};

use crate::definitions::Definitions;
use isolate::Suspicion;

/// Between two drains while awake.
const AWAKE_PAUSE: Duration = Duration::from_millis(40);

/// The same while the application writes much: what a drain costs beside its changes is then shared by more of them, and Zoho, which takes a
/// call every 0.6 s, notices nothing.
const BUSY_PAUSE: Duration = Duration::from_millis(250);

/// So many changes in one drain are much.
const BUSY: u64 = 64;

/// Empty drains in a row before the listener sleeps: a transaction that saw it awake may commit a little later.
const DRAINS_BEFORE_SLEEP: u32 = 4;

/// The guarantee for whatever no notification tells of.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// What the listener needs.
#[derive(Debug)]
pub struct Listener {
    /// The database.
    pub db: Db,
    /// For the rows and expressions of the user's tables.
    pub reader: Reader,
    /// Compiled anew from time to time, since tables change.
    pub definitions: tokio::sync::watch::Receiver<Arc<Definitions>>,
    /// Woken by `sluice_change`.
    pub wake: Arc<Notify>,
}

impl Listener {
    /// Drains until `shutdown`; what is in hand then is finished or rolled back. A failing database is tried again every second; a change that fails a
    /// database that works is held, and the others go on.
    pub async fn run(&self, shutdown: CancellationToken) {
        let mut suspicion = Suspicion::default();
        while !shutdown.is_cancelled() {
            if let Err(error) = self.until_quiet(&mut suspicion, &shutdown).await {
                tracing::error!(error = message(&error), "changes could not be turned into jobs; trying again");
                shutdown.run_until_cancelled(tokio::time::sleep(POLL_EVERY)).await;
            }
        }
    }

    /// Awake: drains until nothing comes. Then sleeps, and returns when something came.
    async fn until_quiet(&self, suspicion: &mut Suspicion, shutdown: &CancellationToken) -> Result<(), sqlx::Error> {
        self.say_asleep(false).await?;
        let mut empty = 0;
        while empty < DRAINS_BEFORE_SLEEP && !shutdown.is_cancelled() {
            let began = Instant::now();
            let drained = self.drain(suspicion).await?;
            empty = if drained.progressed() { 0 } else { empty + 1 };
            shutdown.run_until_cancelled(tokio::time::sleep(pause_after(&drained, began.elapsed()))).await;
        }
        self.say_asleep(true).await?;
        let mut said = Instant::now();
        // One more look: what committed before the flag was up sent no notification.
        while !shutdown.is_cancelled() && !self.drain(suspicion).await?.progressed() {
            if said.elapsed() > wake::SAY_AGAIN {
                self.say_asleep(true).await?;
                said = Instant::now();
            }
            let woken = tokio::time::timeout(POLL_EVERY, self.wake.notified());
            shutdown.run_until_cancelled(woken).await;
        }
        Ok(())
    }

    /// Where nothing listens, a notification would cost every commit something and wake nobody.
    async fn say_asleep(&self, asleep: bool) -> Result<(), sqlx::Error> {
        if self.db.settings().only_polls() {
            return Ok(());
        }
        wake::set_asleep(&self.db, Channel::Change, asleep).await
    }

    /// One drain. If it fails for the second time and that does not pass, smaller ones at once, down to the change that is to blame, which is held.
    async fn drain(&self, suspicion: &mut Suspicion) -> Result<Drained, sqlx::Error> {
        loop {
            let definitions = Arc::clone(&self.definitions.borrow());
            let gulp = suspicion.gulp();
            match drain::drain(&self.db, &self.reader, &definitions, gulp).await {
                Ok((drained, held)) => {
                    suspicion.went(held, &drained);
                    return Ok(drained);
                }
                Err(error) if isolate::passes(&error) || !suspicion.failed(&error) => return Err(error),
                Err(_) => {}
            }
        }
    }
}

/// What comes meanwhile is taken together. A listener with much to do leaves two thirds of its time to the application, whose writes are what
/// made the work and may still be going on: Zoho takes at most some 170 records a second, so a drain that hurries only takes from others.
fn pause_after(drained: &Drained, took: Duration) -> Duration {
    if drained.taken >= BUSY { (took * 2).max(BUSY_PAUSE) } else { AWAKE_PAUSE }
}
