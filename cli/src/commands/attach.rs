//! `sluice attach`: publishes the configuration and installs the capture triggers.

use serde_json::json;
use sluice_core::config::Config;
use sluice_producer::attach;

use crate::exit::{Answer, Usage};
use crate::output;
use crate::publish;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// These syncs' tables; without any, all.
    #[arg(value_name = "SYNC")]
    syncs: Vec<String>,
    /// Retire published syncs that the file no longer has: inserts are refused, waiting jobs held, links kept.
    #[arg(long)]
    retire: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    known(&config, &args.syncs)?;
    let published = publish::publish(&db, &config, args.retire).await?;
    let attached = attach::attach(&db, &config, &args.syncs).await?;
    if session.options.json {
        output::json(&json!({ "published": published, "attached": attached }))?;
        return Ok(Answer::Yes);
    }
    publish::print(&published)?;
    for line in &attached {
        output::line(&line.to_string())?;
    }
    Ok(Answer::Yes)
}

/// That the file has these syncs.
///
/// # Errors
/// [`Usage`], naming those it has.
pub(crate) fn known(config: &Config, syncs: &[String]) -> Result<(), Usage> {
    match syncs.iter().find(|name| !config.syncs.contains_key(*name)) {
        None => Ok(()),
        Some(name) => {
            let names: Vec<&str> = config.syncs.keys().map(String::as_str).collect();
            Err(Usage(format!("there is no sync `{name}`; there is {}", names.join(", "))))
        }
    }
}
