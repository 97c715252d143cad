//! A place in the budget for exactly one Zoho call.
//!
//! The queue issues a [`Grant`] out of the ledger; the Zoho client consumes it to send one request. There is no other way to
//! send, so a call outside the budget does not compile. This module knows neither Postgres nor HTTP, and must never learn.

use std::time::{Duration, Instant};

/// The right to send one request to Zoho before a deadline. Neither `Clone` nor `Copy`: one grant is one call.
#[derive(Debug)]
#[must_use = "a grant that is not spent must be given back to the ledger at settle"]
pub struct Grant {
    place: i64,
    send_by: Instant,
}

/// The deadline passed before the request was sent, so it must not be sent: somebody else may hold the place, or the record, by now.
#[derive(Debug, thiserror::Error)]
#[error("the grant's deadline passed {late_by:?} ago; nothing was sent")]
pub struct Late {
    /// How long ago the deadline passed.
    pub late_by: Duration,
}

/// Proof that a grant was spent on a request that was handed to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The ledger's number of the place that was used.
    pub place: i64,
}

impl Grant {
    /// Called by the ledger alone. `asked_at` is this process's monotonic clock *before* it asked the ledger, so that a
    /// process that was stopped between asking and sending finds the deadline passed. `valid` is the ledger's `send_by`, 2 s.
    pub fn issued(place: i64, asked_at: Instant, valid: Duration) -> Self {
        Self { place, send_by: asked_at + valid }
    }

    /// The ledger's number of this place.
    pub fn place(&self) -> i64 {
        self.place
    }

    /// The latest moment at which a request may leave.
    pub fn send_by(&self) -> Instant {
        self.send_by
    }

    /// Spends the grant, immediately before the request is handed to the network.
    ///
    /// # Errors
    /// [`Late`] when `now` is past the deadline: the caller must not send.
    pub fn spend(self, now: Instant) -> Result<Spent, Late> {
        if now > self.send_by {
            return Err(Late { late_by: now - self.send_by });
        }
        Ok(Spent { place: self.place })
    }
}
