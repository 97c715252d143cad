//! What the parts of one worker process share, and the loop that finds work: fold, then grant and claim in one round trip.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_queue::calls::Calls;
use sluice_queue::retry::Policy;
use sluice_queue::wake::{self, Channel};
use sluice_queue::{Claim, Cost, lease, store};
use sluice_sync::definition::Definition;
use sluice_sync::read::Reader;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::handlers::matching::Walks;
use crate::pace::Pace;
use crate::share::Share;
use crate::tokens::Tokens;
use crate::work::Work;

/// The guarantee behind every wake-up.
const POLL: Duration = Duration::from_secs(1);
/// Between two looks while jobs keep coming: nobody needs to be notified meanwhile.
const AWAKE: Duration = Duration::from_millis(25);

/// Each takes up to 1,000 jobs.
const FOLDS_PER_LOOK: usize = 3;

/// The syncs of this process's file that fit their tables, by name.
pub(crate) type Definitions = BTreeMap<String, Arc<Definition>>;

/// What the parts of one worker process share.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) db: Db,
    pub(crate) config: Arc<Config>,
    /// Name and random incarnation: a restarted namesake does not shelter the dead.
    pub(crate) worker: Arc<str>,
    pub(crate) policy: Policy,
    /// Compiled anew now and then, since tables change.
    pub(crate) definitions: watch::Receiver<Arc<Definitions>>,
    pub(crate) reader: Reader,
    pub(crate) tokens: Arc<Tokens>,
    pub(crate) keeper: lease::Keeper,
    pub(crate) shapes: watch::Receiver<Arc<Vec<i64>>>,
    pub(crate) wake: Arc<Notify>,
    pub(crate) pace: Pace,
    pub(crate) share: Share,
    pub(crate) walks: Walks,
    /// Told when a settle left a writeback.
    pub(crate) written: Arc<Notify>,
}

impl Engine {
    /// The sync's definition, if this process can work on it.
    pub(crate) fn definition(&self, sync: &str) -> Option<Arc<Definition>> {
        self.definitions.borrow().get(sync).cloned()
    }

    pub(crate) fn lease(&self) -> Duration {
        self.config.worker.lease
    }

    pub(crate) fn request_timeout(&self) -> Duration {
        self.config.worker.request_timeout
    }

    /// Finds one batch of work and hands it over; runs to completion as its own task, whoever polls or drops the backend. What cannot be
    /// handed over is given back.
    pub(crate) async fn find_work(self: Arc<Self>, stop: CancellationToken, hand_over: oneshot::Sender<Work>) {
        let mut trouble = Duration::from_millis(50);
        let mut asleep: Option<Instant> = None; // since when it is said
        while !stop.is_cancelled() && !hand_over.is_closed() {
            let woken = self.wake.notified(); // armed before the query: no wake-up is lost
            let pause = match self.look_once().await {
                Ok(Look::Found(work)) => {
                    let work = *work;
                    if stop.is_cancelled() {
                        self.give_back(&work).await;
                    } else if let Err(work) = hand_over.send(work) {
                        self.give_back(&work).await;
                    }
                    return;
                }
                Ok(Look::Nothing { folded, wait }) => {
                    trouble = Duration::from_millis(50);
                    let wait = wait.unwrap_or(POLL).min(POLL);
                    if folded {
                        asleep = None;
                        wait.min(AWAKE)
                    } else if wait > AWAKE && asleep.is_none_or(|said| said.elapsed() > wake::SAY_AGAIN) {
                        // Say so, then look once more: a job that came in between told nobody.
                        asleep = self.say_asleep(true).await.then(Instant::now);
                        Duration::ZERO
                    } else {
                        wait
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the queue cannot be asked; nothing is claimed until it can");
                    trouble = (trouble * 2).min(Duration::from_secs(2));
                    trouble
                }
            };
            if pause.is_zero() {
                continue;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = woken => asleep = None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn look_once(&self) -> Result<Look, sqlx::Error> {
        let mut folded = false;
        let mut next_in = None;
        // A flood of inserts is folded bit by bit, urgent jobs first, so that it holds up no claim.
        for _ in 0..FOLDS_PER_LOOK {
            let fold = store::fold(&self.db).await?;
            folded |= fold.jobs > 0;
            next_in = fold.next_in;
            if fold.jobs < 1000 {
                break;
            }
        }
        if folded {
            self.say_asleep(false).await;
        }
        let shapes = self.shapes.borrow().clone();
        if shapes.is_empty() {
            return Ok(Look::Nothing { folded: false, wait: None });
        }
        let too_soon = self.share.rests().max(self.pace.wait());
        if !too_soon.is_zero() {
            return Ok(Look::Nothing { folded: true, wait: Some(too_soon) });
        }
        let asked_at = Instant::now();
        match store::claim(&self.db, &self.worker, &shapes, self.lease(), self.request_timeout()).await? {
            Claim::Batch(batch, grant) => {
                let lease = Arc::new(self.keeper.hold(batch.token));
                let reserved = Cost { units: batch.cost, heavy: batch.heavy };
                let calls = Calls::new(batch.token, self.worker.clone(), grant, reserved);
                Ok(Look::Found(Box::new(Work { batch: Arc::new(*batch), calls, _lease: lease, asked_at })))
            }
            Claim::Wait(wait) => Ok(Look::Nothing { folded, wait: [wait, next_in].into_iter().flatten().min() }),
        }
    }

    async fn say_asleep(&self, asleep: bool) -> bool {
        // Where nothing listens, a notification would cost every commit something and wake nobody.
        if self.db.settings().only_polls() {
            return asleep;
        }
        match wake::set_asleep(&self.db, Channel::Job, asleep).await {
            Ok(()) => asleep,
            Err(error) => {
                tracing::debug!(%error, "could not say whether this worker sleeps");
                false
            }
        }
    }

    /// Gives a batch back untouched: its grant unused, its records due again, nothing counted.
    pub(crate) async fn give_back(&self, work: &Work) {
        let started = Instant::now();
        let settlements: Vec<_> = work
            .batch
            .slots
            .iter()
            .map(|slot| sluice_queue::Settlement::new(slot.id, sluice_queue::Outcome::Continue { progress: slot.progress.clone() }))
            .collect();
        // Beyond the lease somebody else gives it back.
        while started.elapsed() < self.lease() {
            match store::settle(&self.db, work.batch.token, &self.worker, &work.calls.report(), &settlements).await {
                Ok(_) => {
                    tracing::debug!(token = work.batch.token, records = settlements.len(), "gave an undelivered batch back");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, token = work.batch.token, "a batch could not be given back; trying again");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }
}

enum Look {
    Found(Box<Work>),
    Nothing { folded: bool, wait: Option<Duration> },
}
