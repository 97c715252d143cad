//! `sluice worker`: does the jobs. It never publishes.

use std::sync::Arc;

use sluice_worker::WorkerOptions;

use crate::exit::Answer;
use crate::process;
use crate::session::{self, Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Batches worked on at once; without it, `[worker] concurrency`.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: Option<u16>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    let _log = session.log(&config.log, config.folder(), 0)?;
    let shutdown = process::shutdown_on_signal()?;
    let options = WorkerOptions { concurrency: args.concurrency.map(usize::from), name: session::host_name() };
    sluice_worker::run(Arc::new(config), db, options, shutdown).await?;
    Ok(Answer::Yes)
}
