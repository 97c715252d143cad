//! How far the demo has come, and whether everything has settled.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sluice_core::db::Db;
use tokio_util::sync::CancellationToken;

/// How often the database is asked.
const INTERVAL: Duration = Duration::from_millis(400);
/// Work that is due later than this does not keep the demo from being settled: a repeated create is looked up again after five minutes.
const HORIZON_SECONDS: f64 = 20.0;

/// What is left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unfinished {
    /// Row changes that are not yet jobs.
    pub(crate) changes: i64,
    /// Jobs and records that are due, running, or waiting for a parent.
    pub(crate) records: i64,
    /// Status columns to be written back.
    pub(crate) writebacks: i64,
}

impl Unfinished {
    fn is_none(self) -> bool {
        self.changes + self.records + self.writebacks == 0
    }
}

/// Waits until everything has settled, which is none left in two looks in a row; the last look where `limit` or the shutdown came first.
pub(crate) async fn settled(
    db: &Db,
    total: u64,
    limit: Option<Duration>,
    shutdown: &CancellationToken,
) -> Result<Option<Unfinished>, sqlx::Error> {
    let bar = bar(total);
    let end = limit.map(|limit| Instant::now() + limit);
    let mut quiet = false;
    loop {
        let left = unfinished(db).await?;
        if left.is_none() && quiet {
            bar.finish_and_clear();
            return Ok(None);
        }
        quiet = left.is_none();
        bar.set_position(ended(db).await?);
        if shutdown.is_cancelled() || end.is_some_and(|end| Instant::now() > end) {
            bar.finish_and_clear();
            return Ok(Some(left));
        }
        let _ = tokio::time::timeout(INTERVAL, shutdown.cancelled()).await;
    }
}

/// Drawn on standard error, and only where that is a terminal.
fn bar(total: u64) -> ProgressBar {
    let bar = ProgressBar::new(total);
    if let Ok(style) = ProgressStyle::with_template("{elapsed:>4} {bar:40} {pos}/{len} records") {
        bar.set_style(style);
    }
    bar
}

async fn unfinished(db: &Db) -> Result<Unfinished, sqlx::Error> {
    sqlx::query_as!(
        Unfinished,
        r#"with soon as (select clock_timestamp() + make_interval(secs => $1) as at)
           select (select count(*) from sluice.change) as "changes!",
             (select count(*) from sluice.job, soon where run_at < at)
               + (select count(*) from sluice.slot, soon where state = 'running' or due_at < at or waiting_sync is not null) as "records!",
             (select count(*) from sluice.local_write where error is null) as "writebacks!""#,
        HORIZON_SECONDS
    )
    .fetch_one(db)
    .await
}

/// Records that are in Zoho, or given up.
async fn ended(db: &Db) -> Result<u64, sqlx::Error> {
    let ended = sqlx::query_scalar!(r#"select coalesce(sum(linked + failed), 0)::bigint as "ended!" from sluice.sync_counter"#)
        .fetch_one(db)
        .await?;
    Ok(u64::try_from(ended).unwrap_or(0))
}
