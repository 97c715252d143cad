//! Who sleeps. A NOTIFY holds a lock of the whole database while it commits, so one is sent only to somebody who said that he sleeps.

use std::time::Duration;

use sqlx::PgExecutor;

/// The two things that are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Captured row changes: producers wait for these, on `sluice_change`.
    Change,
    /// Jobs: workers wait for these, on `sluice_job`.
    Job,
}

impl Channel {
    /// The name in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Job => "job",
        }
    }

    /// The channel of LISTEN and NOTIFY.
    pub const fn notify_channel(self) -> &'static str {
        match self {
            Self::Change => "sluice_change",
            Self::Job => "sluice_job",
        }
    }
}

/// How often a sleeper says so again: what he said counts for 30 s, so that one who was killed does not make others notify for ever.
pub const SAY_AGAIN: Duration = Duration::from_secs(8);

/// Says that somebody sleeps, or that nobody does. Whoever says so looks once more before he waits, and says it again every
/// [`SAY_AGAIN`]; nothing is written while it is known already.
///
/// # Errors
/// The database's.
pub async fn set_asleep(db: impl PgExecutor<'_>, channel: Channel, asleep: bool) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.set_asleep($1, $2)", channel.as_str(), asleep).execute(db).await?;
    Ok(())
}
