//! What one process may send at most, whatever the ledger grants: a window's calls in any window, by this process's own count. It stands behind the
//! ledger, never in its place: an organisation that is over its minute is blocked for half an hour, web users included, so a mistake in the ledger,
//! in its SQL or in somebody's hand on its tables must not be able to cause that.
//!
//! Counted exactly, not by a rate: a rate limiter that lets a window's calls go at once, as the ledger may, lets nearly twice as many go in some
//! window. A process that keeps to the ledger is never refused here, since a place comes back a window after the answer at the earliest.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use sluice_core::config::{Config, Product};

/// The calls that this process sent in the last window, by connection and budget.
#[derive(Debug, Default)]
pub(crate) struct Share {
    sent: Mutex<BTreeMap<(String, String), VecDeque<Instant>>>,
    /// A call was refused: until then nothing is claimed.
    rests_until: Mutex<Option<Instant>>,
}

/// How long a process claims nothing after a refusal, or it would claim and give back without end.
const REST: Duration = Duration::from_millis(500);

/// More calls were granted than a window may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany;

impl Share {
    /// Counts a call that is about to be sent, or refuses it.
    pub(crate) fn take(&self, config: &Config, connection: &str, product: &str) -> Result<(), TooMany> {
        let product = Product::ALL.into_iter().find(|one| one.as_str() == product);
        let Some((product, file)) = product.zip(config.connections.get(connection)) else { return Ok(()) };
        let (scope, budget) = file.budget_of(product);
        let window = Duration::from_secs(u64::from(budget.window_seconds));
        let cap = usize::try_from(budget.per_minute).unwrap_or(usize::MAX);
        self.count((connection.to_owned(), scope.to_owned()), cap, window, Instant::now()).inspect_err(|TooMany| {
            *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
        })
    }

    /// How long nothing is to be claimed.
    pub(crate) fn rests(&self) -> Duration {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn count(&self, budget: (String, String), cap: usize, window: Duration, now: Instant) -> Result<(), TooMany> {
        let mut all = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let sent = all.entry(budget).or_default();
        while sent.pop_front_if(|at| now.saturating_duration_since(*at) >= window).is_some() {}
        if sent.len() >= cap {
            return Err(TooMany);
        }
        sent.push_back(now);
        Ok(())
    }

    /// The call was not sent after all. Which of the latest ones it was makes no difference.
    pub(crate) fn give_back(&self, config: &Config, connection: &str, product: &str) {
        let product = Product::ALL.into_iter().find(|one| one.as_str() == product);
        let Some((product, file)) = product.zip(config.connections.get(connection)) else { return };
        let scope = file.budget_of(product).0.to_owned();
        if let Some(sent) = self.sent.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&(connection.to_owned(), scope)) {
            sent.pop_back();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn no_window_has_more_calls_than_the_cap_whenever_they_are_asked_for() {
        let (share, start) = (Share::default(), Instant::now());
        let budget = || ("main".to_owned(), "finance".to_owned());
        let sent: Vec<u64> = (0..3_000)
            .map(|step| step * 97)
            .filter(|at| share.count(budget(), 10, WINDOW, start + Duration::from_millis(*at)).is_ok())
            .collect();
        let window = u64::try_from(WINDOW.as_millis()).unwrap_or(u64::MAX);
        let most = (0..sent.len()).map(|first| sent[first..].iter().take_while(|at| **at < sent[first] + window).count()).max();
        assert_eq!(most, Some(10));
        assert!(sent.len() >= 40, "and no fewer: {} in four windows and a half", sent.len());
    }

    #[test]
    fn budgets_are_counted_apart() {
        let (share, now) = (Share::default(), Instant::now());
        for scope in ["finance", "crm"] {
            assert_eq!(share.count(("main".to_owned(), scope.to_owned()), 1, WINDOW, now), Ok(()));
        }
        assert_eq!(share.count(("main".to_owned(), "crm".to_owned()), 1, WINDOW, now), Err(TooMany));
    }
}
