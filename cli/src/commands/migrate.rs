//! `sluice migrate`: the schema, and then the configuration that belongs in it.

use serde_json::json;
use sluice_core::db;

use crate::exit::Answer;
use crate::output;
use crate::publish;
use crate::session::{self, Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Leave the published configuration as it is.
    #[arg(long)]
    no_publish: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let config = session.config()?;
    let db = session::connect(&config, &session::running(&config)?, "sluice migrate").await?;
    let applied = db::migrate::run(&db).await?;
    let published = if args.no_publish { None } else { Some(publish::publish(&db, &config, false).await?) };
    if session.options.json {
        output::json(&json!({ "applied": applied, "published": published }))?;
        return Ok(Answer::Yes);
    }
    match applied.as_slice() {
        [] => output::line("the schema is up to date")?,
        versions => output::line(&format!("applied {} migration(s), up to version {}", versions.len(), versions[versions.len() - 1]))?,
    }
    if let Some(published) = &published {
        publish::print(published)?;
    }
    Ok(Answer::Yes)
}
