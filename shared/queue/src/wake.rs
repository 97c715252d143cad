//! Who sleeps. A NOTIFY holds a lock of the whole database while it commits, so one is sent only to somebody who said that he sleeps.

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
    /// The name in `sluice.wake`.
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

/// Says whether somebody sleeps. Whoever sets it looks once more before waiting; nothing is written if it already says so.
///
/// # Errors
/// The database's.
pub async fn set_asleep(db: impl PgExecutor<'_>, channel: Channel, asleep: bool) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.wake set asleep = $2 where channel = $1 and asleep <> $2", channel.as_str(), asleep).execute(db).await?;
    Ok(())
}
