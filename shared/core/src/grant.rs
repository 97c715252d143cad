//! A place in the budget for exactly one Zoho call.
//!
//! The queue issues a [`Grant`] out of the ledger; the Zoho client consumes it to send one request. There is no other way to
//! send, so a call outside the budget does not compile. This module knows neither Postgres nor HTTP, and must never learn.

use std::time::{Duration, Instant, SystemTime};

/// A moment by both of this machine's clocks. The monotonic one stands still while the machine sleeps (Linux and macOS alike); the wall clock does
/// not, but it can be set. So the longer of the two stretches counts: a clock that somebody sets makes a grant late at worst, never good again.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    steady: Instant,
    wall: SystemTime,
}

impl Moment {
    /// The present one.
    pub fn now() -> Self {
        Self { steady: Instant::now(), wall: SystemTime::now() }
    }

    /// The moment that two clocks show.
    pub fn shown(steady: Instant, wall: SystemTime) -> Self {
        Self { steady, wall }
    }

    /// How long it took from this moment to a later one; whatever the clocks did meanwhile, not less than the monotonic clock says.
    pub fn until(self, later: Self) -> Duration {
        let wall = later.wall.duration_since(self.wall).unwrap_or(Duration::ZERO);
        later.steady.saturating_duration_since(self.steady).max(wall)
    }
}

/// The right to send one request to Zoho before a deadline. Neither `Clone` nor `Copy`: one grant is one call.
#[derive(Debug)]
#[must_use = "a grant that is not spent must be given back to the ledger at settle"]
pub struct Grant {
    place: i64,
    asked_at: Moment,
    valid: Duration,
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
    /// Called by the ledger alone. `asked_at` is a moment *before* this process asked the ledger, so that a process that was stopped, or whose
    /// machine slept, between asking and sending finds the deadline passed. `valid` is the ledger's `send_by`, 2 s.
    pub fn issued(place: i64, asked_at: Moment, valid: Duration) -> Self {
        Self { place, asked_at, valid }
    }

    /// The ledger's number of this place.
    pub fn place(&self) -> i64 {
        self.place
    }

    /// Whether it could be spent now. [`Grant::spend`] asks again: time goes on.
    pub fn is_good(&self, now: Moment) -> bool {
        self.asked_at.until(now) <= self.valid
    }

    /// Spends the grant, immediately before the request is handed to the network.
    ///
    /// # Errors
    /// [`Late`] when `now` is past the deadline: the caller must not send.
    pub fn spend(self, now: Moment) -> Result<Spent, Late> {
        match self.asked_at.until(now).checked_sub(self.valid) {
            None | Some(Duration::ZERO) => Ok(Spent { place: self.place }),
            Some(late_by) => Err(Late { late_by }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: Duration = Duration::from_secs(2);

    /// Whether a grant that was asked for at zero is good when the clocks show these seconds.
    fn good(steady: f64, wall: f64) -> bool {
        let (instant, time) = (Instant::now(), SystemTime::now());
        let asked = Moment::shown(instant, time);
        let wall = if wall < 0.0 { time - Duration::from_secs_f64(-wall) } else { time + Duration::from_secs_f64(wall) };
        let (grant, now) = (Grant::issued(1, asked, VALID), Moment::shown(instant + Duration::from_secs_f64(steady), wall));
        let good = grant.is_good(now);
        assert_eq!(good, grant.spend(now).is_ok());
        good
    }

    #[test]
    fn a_grant_is_good_for_its_time_and_not_a_moment_longer() {
        assert!(good(0.0, 0.0) && good(2.0, 2.0));
        assert!(!good(2.001, 2.001));
    }

    #[test]
    fn a_machine_that_slept_finds_its_grant_too_late_though_its_monotonic_clock_stood_still() {
        assert!(!good(0.1, 3600.0));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_grant_good_for_longer() {
        assert!(!good(2.5, -86_400.0));
        assert!(good(1.5, -86_400.0));
    }
}
