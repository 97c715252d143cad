//! What the kinds of jobs do, one file each. Handlers decide and call; they write nothing: what they return is settled in one transaction.

mod bulk;
mod call;
mod channel;
mod listing;
pub(crate) mod matching;
pub(crate) mod organization;
mod plan;
mod poll;
mod pull;
mod push;
mod reconcile;

use std::time::Duration;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use sluice_queue::calls::NoGrant;
use sluice_queue::settle::Create;
use sluice_queue::{Claimed, Outcome, Settlement};

use crate::engine::Engine;
use crate::outcome::{self, Situation};
use crate::session::{Ended, Session};
use crate::work::{Handled, Work};

/// The kinds that this program has a handler for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Push,
    Pull,
    Poll,
    Reconcile,
    Call,
    Channel,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        match name {
            "push" => Some(Self::Push),
            "pull" => Some(Self::Pull),
            "poll" => Some(Self::Poll),
            "reconcile" => Some(Self::Reconcile),
            "call" => Some(Self::Call),
            "channel" => Some(Self::Channel),
            _ => None,
        }
    }
}

/// Runs a batch.
pub(crate) async fn run(engine: &Engine, work: &Work) -> Handled {
    let Some(kind) = Kind::parse(&work.batch.kind) else {
        return all(work, |_| snooze(Duration::from_secs(60), "this worker does not know the kind"));
    };
    let Some(session) = Session::open(engine, work) else {
        return all(work, |_| snooze(Duration::from_millis(250), "the connection has no access token now"));
    };
    if let Some(product) = organization::needed(work, &session) {
        return organization::find(engine, work, &session, product).await;
    }
    if work.batch.asks_plan {
        return plan::ask(engine, work, &session).await;
    }
    match kind {
        Kind::Push => push::run(engine, work, &session).await,
        Kind::Pull => pull::run(engine, work, &session).await,
        Kind::Poll => poll::run(engine, work, &session).await,
        Kind::Reconcile => reconcile::run(engine, work, &session).await,
        Kind::Call => call::run(engine, work, &session).await,
        Kind::Channel => channel::run(engine, work, &session).await,
    }
}

/// The same outcome for every record.
pub(crate) fn all(work: &Work, outcome: impl Fn(&Claimed) -> Outcome) -> Handled {
    let settlements = work.batch.slots.iter().map(|slot| Settlement::new(slot.id, outcome(slot))).collect();
    Handled { settlements, ..Handled::default() }
}

pub(crate) fn snooze(after: Duration, reason: &str) -> Outcome {
    Outcome::Snooze { after, reason: reason.to_owned() }
}

/// What becomes of a record whose call ended this way.
pub(crate) fn ended(
    engine: &Engine,
    work: &Work,
    session: &Session<'_>,
    slot: &Claimed,
    ended: &Ended,
    creates: bool,
) -> (Outcome, Create) {
    match ended {
        Ended::NoGrant(NoGrant::Later | NoGrant::Lost) => (Outcome::Continue { progress: slot.progress.clone() }, Create::None),
        Ended::NoGrant(NoGrant::Ledger(_)) => (snooze(Duration::from_secs(1), "the ledger could not be asked"), Create::None),
        Ended::Zoho(error, latency) => {
            let situation = Situation {
                creates,
                batch: work.batch.slots.len(),
                timeout: engine.request_timeout(),
                latency: *latency,
                token_replaces_refused: session.token_replaces_refused(),
                paused: session.paused(),
            };
            // one draw for the whole batch, so that what failed in one call is due, and goes, in one call again
            let mut draw = StdRng::seed_from_u64(work.batch.token.unsigned_abs());
            outcome::of(error, slot, &engine.policy, situation, &mut draw)
        }
    }
}
