//! The `sluice` binary: parses the command line, runs one command, and turns its end into an exit code.
//!
//! What a command prints for people or programs goes to standard output, everything else (logs, progress, questions, errors) to
//! standard error, so that `--json` output can always be piped.

mod args;
mod bench;
mod commands;
mod demo;
mod exit;
mod filter;
mod output;
mod process;
mod publish;
mod recipe;
mod session;

use std::process::ExitCode;

use clap::Parser;

use crate::args::Args;
use crate::session::Session;

fn main() -> ExitCode {
    let Args { options, command } = Args::parse();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return exit::report(&anyhow::Error::new(error).context("the runtime does not start")),
    };
    let outcome = runtime.block_on(Box::pin(commands::run(&Session::new(options), command)));
    // What still runs has had its grace; nothing is waited for twice.
    runtime.shutdown_background();
    match outcome {
        Ok(answer) => answer.into(),
        Err(error) => exit::report(&error),
    }
}
