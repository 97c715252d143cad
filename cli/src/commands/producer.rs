//! `sluice producer`: turns row changes, schedules and webhooks into jobs, and serves HTTP. It never publishes.

use std::sync::Arc;

use crate::exit::Answer;
use crate::process;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) async fn run(session: &Session, _: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    let _log = session.log(&config.log, config.folder(), 0)?;
    let shutdown = process::shutdown_on_signal()?;
    Box::pin(sluice_producer::run(Arc::new(config), db, shutdown)).await?;
    Ok(Answer::Yes)
}
