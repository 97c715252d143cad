//! One batch's calls to Zoho: every one with a grant of this batch, every one reported to the ledger.

use std::time::Duration;

use sluice_queue::Cost;
use sluice_queue::calls::{Calls, NoGrant};
use sluice_queue::settle::Seen;
use sluice_zoho::{AccessToken, Answer, AuthKind, Client, Error, Evidence, Failed, Limits, Sent, cost};

use sluice_core::grant::Grant;

use crate::engine::Engine;
use crate::outcome;
use crate::tokens::Live;

/// What a batch calls with.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    engine: &'a Engine,
    connection: &'a str,
    calls: &'a Calls,
    client: Client,
    live: Live,
}

/// Why a call gave nothing.
#[derive(Debug)]
pub(crate) enum Ended {
    /// There was no grant for it: nothing was sent.
    NoGrant(NoGrant),
    /// Zoho's answer, or what became of it.
    Zoho(Box<Error>, Duration),
}

impl<'a> Session<'a> {
    /// `None`: the connection has no live token any more.
    pub(crate) fn open(engine: &'a Engine, connection: &'a str, calls: &'a Calls) -> Option<Self> {
        let (client, live) = engine.tokens.of(connection)?;
        Some(Self { engine, connection, calls, client, live })
    }

    /// Whether the token took the place of one that was refused moments ago.
    pub(crate) fn token_replaces_refused(&self) -> bool {
        self.live.replaces_refused()
    }

    /// Makes one ordinary call, if there is a grant for it.
    pub(crate) async fn call<T, F>(&self, send: F) -> Result<T, Ended>
    where
        F: AsyncFnOnce(Grant, &Client, &AccessToken) -> sluice_zoho::Result<T>,
    {
        self.call_costing(cost::Cost::ONE, send).await
    }

    /// Makes one call that costs so much, if there is a grant for it.
    pub(crate) async fn call_costing<T, F>(&self, cost: cost::Cost, send: F) -> Result<T, Ended>
    where
        F: AsyncFnOnce(Grant, &Client, &AccessToken) -> sluice_zoho::Result<T>,
    {
        let cost = Cost { units: cost.units, heavy: cost.heavy };
        let grant = self.calls.grant(&self.engine.db, cost).await.map_err(Ended::NoGrant)?;
        self.calls.sending();
        match send(grant, &self.client, &self.live.token).await {
            Ok(Answer { value, evidence }) => {
                self.report(&evidence, cost, None);
                Ok(value)
            }
            Err(Failed { error, evidence }) => {
                self.report(&evidence, cost, Some(&error));
                if let Error::Unauthorized { kind: AuthKind::InvalidToken | AuthKind::Other, .. } = &error {
                    self.engine.tokens.refused(self.connection, &self.live).await;
                }
                Err(Ended::Zoho(Box::new(error), evidence.latency))
            }
        }
    }

    fn report(&self, evidence: &Evidence, cost: Cost, error: Option<&Error>) {
        match (evidence.sent, evidence.status) {
            (Sent::Answered, Some(status)) => {
                let throttled = error.and_then(outcome::throttled);
                self.calls.answered(evidence.latency, status < 500, cost, throttled, seen(&evidence.limits));
            }
            (Sent::Answered, None) | (Sent::Maybe, _) => self.calls.unanswered(),
            (Sent::Nothing, _) => match error {
                Some(Error::Unavailable { .. }) => self.calls.unreachable(),
                _ => self.calls.not_sent(),
            },
        }
    }
}

/// What the ledger can use of an answer's headers.
fn seen(limits: &Limits) -> Seen {
    Seen {
        day_limit: limits.day_limit,
        day_remaining: limits.day_remaining,
        day_resets_in: limits.day_resets_in,
        credits_remaining: limits.credits_remaining,
    }
}
