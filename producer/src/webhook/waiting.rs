//! Events that arrived while a run of their record was under way: most are echoes of what that run wrote, which its settling tells. They are
//! decided as soon as it has ended, by whichever producer looks first.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_core::db::Db;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How often it is looked whether another producer, or one that ended, left something.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Between two looks while something waits.
const PAUSE: Duration = Duration::from_millis(250);

/// Decides what can be decided. Returns how many, and when to look again if anything waits.
///
/// # Errors
/// The database's.
pub async fn decide_waiting(db: &Db) -> Result<(i32, Option<DateTime<Utc>>), sqlx::Error> {
    let row = sqlx::query!(r#"select decided as "decided!", next_at from sluice.decide_waiting()"#).fetch_one(db).await?;
    Ok((row.decided, row.next_at))
}

/// Runs until `shutdown`. `stored` tells of an event that waits.
pub async fn run(db: &Db, stored: &Notify, shutdown: &CancellationToken) {
    let mut pause = PAUSE;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = stored.notified(), if pause > PAUSE => {
                pause = PAUSE;
                continue;
            }
        }
        pause = match decide_waiting(db).await {
            Ok((_, next_at)) => {
                if next_at.is_some() {
                    PAUSE
                } else {
                    LOOK_EVERY
                }
            }
            Err(error) => {
                tracing::warn!(%error, "waiting events could not be looked at; trying again");
                LOOK_EVERY
            }
        };
    }
}
