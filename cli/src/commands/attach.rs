//! `sluice attach`: publishes the configuration and installs the capture triggers.

use serde_json::json;
use sluice_core::config::Config;
use sluice_producer::Definitions;
use sluice_producer::capture::{self, Attached, LOCK_PATIENCE};

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
    let definitions = Definitions::compile(&db, &config).await?;
    let attached = capture::attach(&db, &definitions, &args.syncs, LOCK_PATIENCE).await?;
    if session.options.json {
        output::json(&json!({ "published": published, "attached": attached }))?;
        return Ok(Answer::Yes);
    }
    publish::print(&published)?;
    print(&attached)?;
    Ok(Answer::Yes)
}

/// Says what became of the triggers.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(attached: &Attached) -> std::io::Result<()> {
    for table in &attached.installed {
        output::line(&format!("{table}: capture triggers installed"))?;
    }
    for table in &attached.removed {
        output::line(&format!("{table}: capture triggers removed"))?;
    }
    for uncaptured in &attached.uncaptured {
        eprintln!("warning: {uncaptured}");
    }
    if attached.installed.is_empty() && attached.removed.is_empty() {
        output::line("the capture triggers are as they should be")?;
    }
    Ok(())
}

/// That the file has these syncs.
///
/// # Errors
/// [`Usage`], naming those it has.
pub(crate) fn known(config: &Config, syncs: &[String]) -> Result<(), Usage> {
    match syncs.iter().find(|name| !config.syncs.contains_key(*name)) {
        None => Ok(()),
        Some(name) if config.syncs.is_empty() => Err(Usage(format!(
            "there is no sync `{name}`: no sluice.toml with syncs is read here; go to its folder, or name it with --config (a demo prints its folder)"
        ))),
        Some(name) => {
            let names: Vec<&str> = config.syncs.keys().map(String::as_str).collect();
            Err(Usage(format!("there is no sync `{name}`; there is {}", names.join(", "))))
        }
    }
}
