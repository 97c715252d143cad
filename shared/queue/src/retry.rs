//! The durable backoff, and when a record has failed often enough. Pure.

use std::time::Duration;

use rand::{Rng, RngExt as _};

use crate::claim::Claimed;
use crate::outcome::{Class, Letter, Outcome, Retry};

/// How often and how patiently a failing record is tried.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// Failures after which a record is dead, unless its job says otherwise.
    pub max_failures: u32,
    /// The first pause is up to this.
    pub base: Duration,
    /// No pause is longer.
    pub cap: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { max_failures: 8, base: Duration::from_secs(1), cap: Duration::from_secs(3600) }
    }
}

impl Policy {
    /// The longest pause before try number `tries` + 2: the base doubled per try, at most the cap.
    pub fn ceiling(&self, tries: u32) -> Duration {
        self.base.saturating_mul(2_u32.saturating_pow(tries.min(30))).min(self.cap)
    }

    /// Full jitter: anything up to the ceiling, so that records that failed together do not come back together. `at_least` is Zoho's
    /// `Retry-After`, which wins.
    pub fn pause(&self, tries: u32, at_least: Option<Duration>, rng: &mut impl Rng) -> Duration {
        let jittered = self.ceiling(tries).mul_f64(rng.random::<f64>());
        jittered.max(at_least.unwrap_or_default())
    }

    /// The limit for this record.
    pub fn limit(&self, slot: &Claimed) -> u32 {
        slot.max_failures.unwrap_or(self.max_failures)
    }

    /// A retry, or a dead letter if this failure is one too many. What is not counted now is booked at the next claim, and looked at there
    /// by [`Policy::exhausted`].
    pub fn decide(&self, slot: &Claimed, retry: Retry) -> Outcome {
        if retry.counts && slot.failures + 1 >= self.limit(slot) {
            return Outcome::Dead(Box::new(self.letter(slot.failures + 1, &retry.message, retry.http_status)));
        }
        Outcome::Retry(retry)
    }

    /// Whether the failures booked so far are one too many; asked before anything is sent.
    pub fn exhausted(&self, slot: &Claimed) -> Option<Letter> {
        (slot.failures >= self.limit(slot)).then(|| self.letter(slot.failures, "Zoho answers others, but not this record", None))
    }

    fn letter(&self, failures: u32, last: &str, http_status: Option<u16>) -> Letter {
        let mut letter = Letter::new(Class::Exhausted, format!("gave up after {failures} failures; the last: {last}"))
            .hint("see the attempts in this letter's history; requeue when the cause is gone");
        letter.http_status = http_status;
        letter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng as _;

    fn slot(failures: u32, max_failures: Option<u32>) -> Claimed {
        Claimed {
            id: 1,
            key: "1".into(),
            args: None,
            failures,
            tries: failures,
            panics: 0,
            max_failures,
            progress: None,
            doubt: None,
            doubt_age_ms: None,
            job_id: None,
            look: false,
            asked_at: None,
            age_ms: None,
        }
    }

    proptest! {
        #[test]
        fn a_pause_never_leaves_its_bounds(tries in 0_u32..100, seed in any::<u64>(), after in 0_u64..10_000) {
            let policy = Policy::default();
            let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
            let at_least = Duration::from_secs(after);
            let pause = policy.pause(tries, Some(at_least), &mut rng);
            prop_assert!(pause >= at_least);
            prop_assert!(pause <= policy.ceiling(tries).max(at_least));
            prop_assert!(policy.ceiling(tries) <= policy.cap);
        }
    }

    #[test]
    fn the_ceiling_doubles_until_the_cap() {
        let policy = Policy::default();
        let seconds: Vec<u64> = [0, 1, 2, 5, 11, 12, 99].iter().map(|t| policy.ceiling(*t).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 32, 2048, 3600, 3600]);
    }

    #[test]
    fn the_last_failure_is_a_dead_letter_and_the_jobs_own_limit_wins() {
        let policy = Policy::default();
        let failure = Retry { counts: true, message: "500".into(), ..Retry::default() };
        assert!(matches!(policy.decide(&slot(6, None), failure.clone()), Outcome::Retry(_)));
        assert!(matches!(policy.decide(&slot(7, None), failure.clone()), Outcome::Dead(l) if l.class == Class::Exhausted));
        assert!(matches!(policy.decide(&slot(1, Some(2)), failure.clone()), Outcome::Dead(_)));
        assert!(matches!(policy.decide(&slot(7, Some(9)), failure), Outcome::Retry(_)));
    }

    #[test]
    fn what_is_not_counted_never_kills_at_once() {
        let policy = Policy::default();
        let outage = Retry { counts: false, unbooked: true, ..Retry::default() };
        assert!(matches!(policy.decide(&slot(7, None), outage), Outcome::Retry(_)));
        assert!(policy.exhausted(&slot(7, None)).is_none());
        assert!(policy.exhausted(&slot(8, None)).is_some());
    }
}
