//! The calls of one batch: the grant in hand, what became of the last one, and how to ask for another.
//!
//! Shared between the handler, which calls, and the settle, which must know what was sent even if the handler panicked.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sluice_core::db::Db;
use sluice_core::grant::{Grant, Moment};

use crate::settle::{Cost, Health, Report, Seen, Throttled};
use crate::store;

/// The calls of one batch.
#[derive(Debug, Clone)]
pub struct Calls {
    token: i64,
    worker: Arc<str>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    grant: Option<Grant>,
    /// What the grant in hand covers.
    reserved: Cost,
    report: Report,
    calls: u16,
}

/// Why there is no grant.
#[derive(Debug, thiserror::Error)]
pub enum NoGrant {
    /// The budget has none now: settle with `continue`.
    #[error("the budget has no further call now")]
    Later,
    /// The lease was lost: drop everything.
    #[error("the lease on the batch was lost")]
    Lost,
    /// The ledger could not be asked; without it nothing is sent.
    #[error("the ledger could not be asked")]
    Ledger(#[source] sqlx::Error),
}

impl Calls {
    /// The calls of a batch that was just claimed with a grant.
    pub fn new(token: i64, worker: Arc<str>, grant: Grant, reserved: Cost) -> Self {
        let state = State { grant: Some(grant), reserved, report: Report::default(), calls: 0 };
        Self { token, worker, state: Arc::new(Mutex::new(state)) }
    }

    /// The grant of the claim if it covers the call, or another one: asked for once, without waiting. One that does not cover it goes back, and so does one
    /// that has become too old: rows of slow expressions take longer to read than a grant is good for, and would never be sent.
    ///
    /// # Errors
    /// [`NoGrant`], for each of which nothing may be sent.
    pub async fn grant(&self, db: &Db, cost: Cost) -> Result<Grant, NoGrant> {
        let report = {
            let mut state = self.lock();
            if let Some(grant) = state.grant.take()
                && cost.fits_in(state.reserved)
                && grant.is_good(Moment::now())
            {
                return Ok(grant);
            }
            state.report
        };
        let asked_at = Moment::now();
        let answer = store::grant_again(db, self.token, &self.worker, &report, cost).await.map_err(NoGrant::Ledger)?;
        let mut state = self.lock();
        match answer {
            store::Again::Lost => Err(NoGrant::Lost),
            store::Again::Later => {
                // the place of the call before was settled by asking; nothing is in hand
                state.report = Report { sent: false, ..Report::default() };
                Err(NoGrant::Later)
            }
            store::Again::Granted { place, valid } => {
                state.report = Report::default();
                state.reserved = cost;
                Ok(Grant::issued(place, asked_at, valid))
            }
        }
    }

    /// Says that a request is about to leave. Before it does: what happens between is then taken for sent.
    pub fn sending(&self) {
        let mut state = self.lock();
        state.report = Report { sent: true, ..Report::default() };
        state.calls += 1;
    }

    /// The grant was late, or the request could not be made: nothing left after all.
    pub fn not_sent(&self) {
        let mut state = self.lock();
        state.report = Report::default();
        state.calls = state.calls.saturating_sub(1);
    }

    /// Nobody could be reached: nothing left, and the product does not answer.
    pub fn unreachable(&self) {
        let mut state = self.lock();
        state.report = Report { health: Health::Unanswered, ..Report::default() };
        state.calls = state.calls.saturating_sub(1);
    }

    /// An answer came, after `latency`, to a call of that cost. `below_500`: the product works.
    pub fn answered(&self, latency: Duration, below_500: bool, cost: Cost, throttled: Option<Throttled>, seen: Seen) {
        let health = if below_500 { Health::Answered } else { Health::Unanswered };
        self.lock().report =
            Report { sent: true, answered_in: Some(latency), health, cost: Some(cost.units), throttled, seen, told: false };
    }

    /// Tells the ledger at once if a limit refused the call in hand: others must not send into it until this batch is settled. If that fails, the settle
    /// tells it.
    pub async fn tell_refusal(&self, db: &Db) {
        let report = self.report();
        if report.throttled.is_none() || report.told {
            return;
        }
        match store::note_refusal(db, self.token, &report).await {
            Ok(()) => self.lock().report.told = true,
            Err(error) => tracing::warn!(%error, "the ledger could not be told of a refusal at once; the settle tells it"),
        }
    }

    /// No answer came.
    pub fn unanswered(&self) {
        self.lock().report = Report { sent: true, health: Health::Unanswered, ..Report::default() };
    }

    /// What became of the call in hand. A grant that was never used counts as not sent.
    pub fn report(&self) -> Report {
        self.lock().report
    }

    /// Calls made so far.
    pub fn made(&self) -> u16 {
        self.lock().calls
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
