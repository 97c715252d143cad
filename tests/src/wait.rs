//! Waiting for something to become true, with a limit.

use std::time::{Duration, Instant};

/// Asks again and again, first at once and then after growing pauses of 1 to 50 ms, until the answer is `true`.
///
/// # Panics
/// When the answer is still `false` after `limit`. The panic names the caller's line.
#[track_caller]
pub fn wait_until<F, Fut>(limit: Duration, mut question: F) -> impl Future<Output = ()>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let caller = std::panic::Location::caller();
    async move {
        let deadline = Instant::now() + limit;
        let mut pause = Duration::from_millis(1);
        while !question().await {
            assert!(Instant::now() < deadline, "{caller}: not so within {limit:?}");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}
