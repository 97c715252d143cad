//! `sluice detach`: removes the capture triggers. Links, jobs and what is published stay.

use serde_json::json;
use sluice_producer::attach;

use crate::commands::attach::known;
use crate::exit::Answer;
use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// These syncs' tables; without any, all.
    #[arg(value_name = "SYNC")]
    syncs: Vec<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    known(&config, &args.syncs)?;
    let detached = attach::detach(&db, &config, &args.syncs).await?;
    if session.options.json {
        output::json(&json!({ "detached": detached }))?;
        return Ok(Answer::Yes);
    }
    for line in &detached {
        output::line(&line.to_string())?;
    }
    Ok(Answer::Yes)
}
