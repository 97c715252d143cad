//! Smoothing inside one process: how fast it may ask the ledger for calls, whatever work waits. It never stands in for the ledger, which alone says
//! what may be sent; and nothing is held while it makes somebody wait, since it comes before the claim.

use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};

/// Claims that one process makes in a second, over time. A hundred calls a minute need two; a budget of your own may allow more.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

/// Lets claims pass one by one.
#[derive(Debug)]
pub(crate) struct Pace(DefaultDirectRateLimiter);

impl Pace {
    /// As many at once as the process has handlers, then [`PER_SECOND`].
    pub(crate) fn new(concurrency: usize) -> Self {
        let burst = u32::try_from(concurrency).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self(RateLimiter::direct(Quota::per_second(PER_SECOND).allow_burst(burst)))
    }

    /// How long the next claim must wait; zero takes its turn.
    pub(crate) fn wait(&self) -> Duration {
        use governor::clock::{Clock as _, DefaultClock};
        self.0.check().err().map_or(Duration::ZERO, |later| later.wait_time_from(DefaultClock::default().now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_claims_as_often_as_it_has_handlers_and_then_waits() {
        let pace = Pace::new(4);
        let free = (0..100).take_while(|_| pace.wait().is_zero()).count();
        assert!((4..100).contains(&free), "{free} at once");
        assert!(pace.wait() <= Duration::from_millis(20));
    }
}
