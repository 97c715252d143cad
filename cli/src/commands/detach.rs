//! `sluice detach`: removes the capture triggers. Links, jobs and what is published stay.

use serde_json::json;
use sluice_producer::Definitions;
use sluice_producer::capture::{self, LOCK_PATIENCE};

use crate::commands::attach::{known, print};
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
    let definitions = Definitions::compile(&db, &config).await?;
    let detached = capture::detach(&db, &definitions, &args.syncs, LOCK_PATIENCE).await?;
    if session.options.json {
        output::json(&json!({ "detached": detached }))?;
        return Ok(Answer::Yes);
    }
    print(&detached)?;
    Ok(Answer::Yes)
}
