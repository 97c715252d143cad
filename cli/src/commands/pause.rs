//! `sluice pause` and `sluice resume`: the kill switch.

use serde_json::json;
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
    tell(session, &args.target, true, &format!("{} paused; jobs keep arriving and wait", args.target))
}

pub(crate) async fn resume(session: &Session, args: ResumeArgs) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    let said = match (go_on(&db, &args.target).await?, args.target.is_all()) {
        (true, _) => format!("{} resumed", args.target),
        (false, true) => "no connection was paused".to_owned(),
        (false, false) => format!("{} was not paused", args.target),
    };
    tell(session, &args.target, false, &said)
}

fn tell(session: &Session, target: &Target, paused: bool, said: &str) -> anyhow::Result<Answer> {
    if session.options.json {
        output::json(&json!({ "connection": target.connection, "sync": target.sync, "paused": paused, "message": said }))?;
    } else {
        output::line(said)?;
    }
    Ok(Answer::Yes)
}

async fn stop(db: &Db, target: &Target, reason: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.pause($1, $2, $3)", target.connection, target.sync, reason).execute(db).await.map(|_| ())
}

/// Whether anything was paused. What Sluice itself paused of a connection's syncs goes on with it.
async fn go_on(db: &Db, target: &Target) -> Result<bool, sqlx::Error> {
    let mut tx = db.begin().await?;
    let was_paused = sqlx::query_scalar!(
        r#"select exists (select from sluice.sync y where y.paused_at is not null
                            and case when $2::text is not null then y.name = $2 else y.pause_cause is not null and ($1::text is null or y.connection = $1) end)
             or $2 is null and exists (select from sluice.connection c where c.paused_at is not null and ($1 is null or c.name = $1)) as "paused!""#,
        target.connection,
        target.sync
    )
    .fetch_one(&mut tx)
    .await?;
    sqlx::query!("select sluice.resume($1, $2)", target.connection, target.sync).execute(&mut tx).await?;
    tx.commit().await?;
    Ok(was_paused)
}

impl Target {
    fn is_all(&self) -> bool {
        self.connection.is_none() && self.sync.is_none()
    }
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
