//! `sluice config schema | show`

use clap::Subcommand;
use sluice_core::config::Config;

use crate::exit::Answer;
use crate::output;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The JSON Schema of sluice.toml, for editors.
    Schema,
    /// The effective configuration, defaults filled in and secrets masked.
    Show,
}

pub(crate) fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Schema => output::json(&Config::schema())?,
        Command::Show if session.options.json => output::json(&session.config()?.to_masked_json())?,
        Command::Show => output::line(&session.config()?.to_masked_toml())?,
    }
    Ok(Answer::Yes)
}
