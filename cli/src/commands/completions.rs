//! `sluice completions SHELL`

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::exit::Answer;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// For which shell; its documentation says where the text goes.
    shell: Shell,
}

pub(crate) fn run(args: Args) -> anyhow::Result<Answer> {
    let mut text = Vec::new(); // the generator panics where it cannot write
    clap_complete::generate(args.shell, &mut crate::args::Args::command(), "sluice", &mut text);
    std::io::stdout().write_all(&text)?;
    Ok(Answer::Yes)
}
