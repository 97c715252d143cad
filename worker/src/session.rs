//! One batch's calls to Zoho: every one with a grant of this batch, every one reported to the ledger.

use std::time::Duration;

use sluice_queue::calls::{Calls, NoGrant};
use sluice_zoho::{AccessToken, Answer, AuthKind, Client, Error, Evidence, Failed, Sent};

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

    /// Makes one call, if there is a grant for it.
    pub(crate) async fn call<T, F>(&self, send: F) -> Result<T, Ended>
    where
        F: AsyncFnOnce(Grant, &Client, &AccessToken) -> sluice_zoho::Result<T>,
    {
        let grant = self.calls.grant(&self.engine.db).await.map_err(Ended::NoGrant)?;
        self.calls.sending();
        match send(grant, &self.client, &self.live.token).await {
            Ok(Answer { value, evidence }) => {
                self.report(&evidence, None);
                Ok(value)
            }
            Err(Failed { error, evidence }) => {
                self.report(&evidence, Some(&error));
                if let Error::Unauthorized { kind: AuthKind::InvalidToken | AuthKind::Other, .. } = &error {
                    self.engine.tokens.refused(self.connection, &self.live).await;
                }
                Err(Ended::Zoho(Box::new(error), evidence.latency))
            }
        }
    }

    fn report(&self, evidence: &Evidence, error: Option<&Error>) {
        let blocked_for = error.and_then(outcome::blocked_for);
        match (evidence.sent, evidence.status) {
            (Sent::Answered, Some(status)) => self.calls.answered(evidence.latency, status < 500, blocked_for),
            (Sent::Answered, None) | (Sent::Maybe, _) => self.calls.unanswered(),
            (Sent::Nothing, _) => match error {
                Some(Error::Unavailable { .. }) => self.calls.unreachable(),
                _ => self.calls.not_sent(),
            },
        }
    }
}
