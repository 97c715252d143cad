//! One batch's calls to Zoho: every one with a grant of this batch, every one reported to the ledger. A refusal that concerns more than
//! the call stops what it concerns before anything is settled, so that nobody sends the next one into the same wall.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_queue::Cost;
use sluice_queue::calls::{Calls, NoGrant};
use sluice_queue::settle::Seen;
use sluice_zoho::{AccessToken, Answer, Client, Error, Evidence, Failed, Limits, Sent, cost};

use sluice_core::grant::Grant;

use crate::engine::Engine;
use crate::outcome::{self, Stops};
use crate::pause;
use crate::tokens::Live;
use crate::work::Work;

/// What a batch calls with.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    engine: &'a Engine,
    work: &'a Work,
    client: Client,
    live: Live,
    paused: AtomicBool,
    dated: Mutex<Option<DateTime<Utc>>>,
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
    pub(crate) fn open(engine: &'a Engine, work: &'a Work) -> Option<Self> {
        let (client, live) = engine.tokens.of(&work.batch.connection)?;
        Some(Self { engine, work, client, live, paused: AtomicBool::new(false), dated: Mutex::new(None) })
    }

    /// The finance organisation that calls are made for.
    pub(crate) fn organization(&self) -> Option<&str> {
        self.client.settings().organization_id.as_deref()
    }

    /// Whether the token took the place of one that was refused moments ago.
    pub(crate) fn token_replaces_refused(&self) -> bool {
        self.live.replaces_refused()
    }

    /// When Zoho gave its last answer in this session, by its own clock.
    pub(crate) fn dated(&self) -> Option<DateTime<Utc>> {
        *self.dated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refusal has paused the sync or the connection.
    pub(crate) fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
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
        let answer = self.ask(cost, send).await;
        if let Err(Ended::Zoho(error, _)) = &answer {
            match outcome::stops(error, self.live.replaces_refused()) {
                Some(Stops::Connection) => self.pause_connection(&error.to_string()).await,
                Some(Stops::Sync { cause }) => self.pause_sync(cause, error).await,
                Some(Stops::Token) | None => {}
            }
        }
        answer
    }

    /// The same for a call that serves no sync: its refusal stops no more than a token.
    pub(crate) async fn ask<T, F>(&self, cost: cost::Cost, send: F) -> Result<T, Ended>
    where
        F: AsyncFnOnce(Grant, &Client, &AccessToken) -> sluice_zoho::Result<T>,
    {
        let cost = Cost { units: cost.units, heavy: cost.heavy };
        let grant = self.work.calls.grant(&self.engine.db, cost).await.map_err(Ended::NoGrant)?;
        let Engine { share, config, .. } = self.engine;
        let (connection, product) = (&self.work.batch.connection, &self.work.batch.product);
        if share.take(config, connection, product).is_err() {
            tracing::error!(
                connection,
                product,
                "the ledger granted more calls than a window may have; not sent. Is the file's per_minute that of `sluice budget`?"
            );
            return Err(Ended::NoGrant(NoGrant::Later)); // the grant goes back unused
        }
        self.work.calls.sending();
        match send(grant, &self.client, &self.live.token).await {
            Ok(Answer { value, evidence }) => {
                report(&self.work.calls, &evidence, cost, None);
                *self.dated.lock().unwrap_or_else(PoisonError::into_inner) = evidence.limits.date;
                Ok(value)
            }
            Err(Failed { error, evidence }) => {
                report(&self.work.calls, &evidence, cost, Some(&error));
                self.work.calls.tell_refusal(&self.engine.db).await;
                if evidence.sent == Sent::Nothing {
                    share.give_back(config, connection, product);
                }
                if outcome::stops(&error, self.live.replaces_refused()) == Some(Stops::Token) {
                    self.engine.tokens.refused(&self.work.batch.connection, &self.live).await;
                }
                Err(Ended::Zoho(Box::new(error), evidence.latency))
            }
        }
    }

    /// Pauses the connection: with the organisation that it has, or has not, it can do nothing.
    pub(crate) async fn pause_connection(&self, why: &str) {
        let connection = &self.work.batch.connection;
        let why = why.trim_end_matches('.');
        let reason = format!(
            "{why}. Set organization_id in [connections.{connection}] (in Zoho: Settings, Organization Profile; without it the account's only or default \
             organisation is used), publish it with `sluice attach`; or, if Zoho was changed: sluice resume --connection {connection}"
        );
        self.paused.store(true, Ordering::Relaxed);
        self.say(connection, &reason, pause::connection(&self.engine.db, connection, self.organization(), &reason).await);
        self.engine.tokens.look_again();
    }

    /// Pauses the batch's sync. A `call` job has none: its own refusal says all.
    async fn pause_sync(&self, cause: &'static str, error: &Error) {
        let (connection, sync) = (&self.work.batch.connection, &self.work.batch.sync);
        let Some(definition) = self.engine.definition(sync) else { return };
        let (module, error) = (&definition.module, error.to_string());
        let error = error.trim_end_matches('.');
        let reason = match cause {
            "module" => format!(
                "{error}. Mend `module = \"{module}\"` and publish it with `sluice attach`; or make the module in Zoho, then: sluice resume --sync {sync}"
            ),
            _ => format!(
                "{error}. Give the connection's user the right to {module} in Zoho, then: sluice resume --sync {sync}; or its token the scope, with `sluice auth {connection}`"
            ),
        };
        self.paused.store(true, Ordering::Relaxed);
        let bound = (self.live.fingerprint(), definition.hash());
        self.say(sync, &reason, pause::sync(&self.engine.db, sync, bound, cause, &reason).await);
    }

    fn say(&self, what: &str, reason: &str, paused: Result<bool, sqlx::Error>) {
        match paused {
            Ok(true) => tracing::error!(reason, "paused {what}; its records wait"),
            Ok(false) => tracing::debug!(what, "paused already, or mended meanwhile"),
            Err(error) => tracing::warn!(%error, what, reason, "could not be paused; it will be when Zoho refuses the next call"),
        }
    }
}

/// Tells the ledger what became of a call.
pub(crate) fn report(calls: &Calls, evidence: &Evidence, cost: Cost, error: Option<&Error>) {
    match (evidence.sent, evidence.status) {
        (Sent::Answered, Some(status)) => {
            let throttled = error.and_then(outcome::throttled);
            calls.answered(evidence.latency, status < 500, cost, throttled, seen(&evidence.limits));
        }
        (Sent::Answered, None) | (Sent::Maybe, _) => calls.unanswered(),
        (Sent::Nothing, _) => match error {
            Some(Error::Unavailable { .. }) => calls.unreachable(),
            _ => calls.not_sent(),
        },
    }
}

/// What the ledger can use of an answer's headers.
fn seen(limits: &Limits) -> Seen {
    Seen {
        day_limit: limits.day_limit,
        day_remaining: limits.day_remaining,
        day_resets_in: limits.day_resets_in,
        credits_remaining: limits.credits_remaining,
        minute_remaining: limits.minute_remaining,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_is_told_every_figure_that_an_answers_headers_name() {
        let limits = Limits {
            day_limit: Some(1),
            day_remaining: Some(2),
            day_resets_in: Some(Duration::from_secs(3)),
            credits_remaining: Some(4),
            minute_limit: Some(5),
            minute_remaining: Some(6),
            ..Limits::default()
        };
        let told = Seen {
            day_limit: Some(1),
            day_remaining: Some(2),
            day_resets_in: Some(Duration::from_secs(3)),
            credits_remaining: Some(4),
            minute_remaining: Some(6),
        };
        assert_eq!(seen(&limits), told);
    }
}
