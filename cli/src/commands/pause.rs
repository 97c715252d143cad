//! `sluice pause` and `sluice resume`: the kill switch.

use sluice_core::db::Db;

use crate::exit::Answer;
use crate::output;
use crate::session::Session;

/// What is meant; without either, every connection.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct Target {
    /// This connection.
    #[arg(long, value_name = "C")]
    connection: Option<String>,
    /// This sync.
    #[arg(long, value_name = "S")]
    sync: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PauseArgs {
    #[command(flatten)]
    target: Target,
    /// Why; shown by `status` to whoever wonders.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn pause(session: &Session, args: PauseArgs) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    stop(&db, &args.target, args.reason.as_deref()).await?;
    output::line(&format!("{} paused; jobs keep arriving and wait", args.target))?;
    Ok(Answer::Yes)
}

pub(crate) async fn resume(session: &Session, args: ResumeArgs) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    go_on(&db, &args.target).await?;
    output::line(&format!("{} resumed", args.target))?;
    Ok(Answer::Yes)
}

async fn stop(db: &Db, target: &Target, reason: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.pause($1, $2, $3)", target.connection, target.sync, reason).execute(db).await.map(|_| ())
}

async fn go_on(db: &Db, target: &Target) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.resume($1, $2)", target.connection, target.sync).execute(db).await.map(|_| ())
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.connection, &self.sync) {
            (Some(connection), _) => write!(f, "connection {connection}"),
            (None, Some(sync)) => write!(f, "sync {sync}"),
            (None, None) => f.write_str("every connection"),
        }
    }
}
