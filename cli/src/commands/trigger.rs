//! `sluice trigger`: syncs one record, or everything of a sync that is due.

use serde_json::json;
use sluice_core::db::Db;
use sluice_producer::trigger;

use crate::commands::attach::known;
use crate::exit::Answer;
use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sync.
    sync: String,
    /// This record only: its key as text; several columns as a JSON array.
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// Also records that are known to be equal on both sides.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    known(&config, std::slice::from_ref(&args.sync))?;
    if let Some(key) = &args.key {
        let job = push(&db, &args.sync, key).await?;
        if session.options.json { output::json(&json!({ "job": job }))? } else { output::line(&format!("job {job}"))? }
        return Ok(Answer::Yes);
    }
    let enqueued = trigger::all(&db, &config, &args.sync, args.force).await?;
    if session.options.json {
        output::json(&json!({ "enqueued": enqueued }))?;
    } else {
        output::line(&format!("{enqueued} record(s) of {} enqueued", args.sync))?;
    }
    Ok(Answer::Yes)
}

async fn push(db: &Db, sync: &str, key: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.enqueue('push', jsonb_build_object('sync', $1::text, 'key', $2::text), 'interactive') as "job!""#, sync, key).fetch_one(db).await
}
