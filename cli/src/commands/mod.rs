//! One file per command: what it takes, and what it does.

pub(crate) mod alerts;
pub(crate) mod attach;
pub(crate) mod auth;
pub(crate) mod bench;
pub(crate) mod budget;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod conflicts;
pub(crate) mod demo;
pub(crate) mod detach;
pub(crate) mod dlq;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod held;
pub(crate) mod jobs;
pub(crate) mod migrate;
pub(crate) mod pause;
pub(crate) mod plan;
pub(crate) mod producer;
pub(crate) mod reconcile;
pub(crate) mod runs;
pub(crate) mod simulate;
pub(crate) mod status;
pub(crate) mod trigger;
pub(crate) mod up;
pub(crate) mod worker;

use crate::args::Command;
use crate::exit::Answer;
use crate::session::Session;

/// Runs one command.
pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::Demo(args) => Box::pin(demo::run(session, args)).await,
        Command::Up(args) => Box::pin(up::run(session, args)).await,
        Command::Producer(args) => Box::pin(producer::run(session, args)).await,
        Command::Worker(args) => Box::pin(worker::run(session, args)).await,
        Command::Simulate(args) => Box::pin(simulate::run(session, args)).await,
        Command::Migrate(args) => Box::pin(migrate::run(session, args)).await,
        Command::Attach(args) => Box::pin(attach::run(session, args)).await,
        Command::Detach(args) => Box::pin(detach::run(session, args)).await,
        Command::Trigger(args) => Box::pin(trigger::run(session, args)).await,
        Command::Plan(args) => Box::pin(plan::run(session, args)).await,
        Command::Status(args) => Box::pin(status::run(session, args)).await,
        Command::Jobs(command) => Box::pin(jobs::run(session, command)).await,
        Command::Dlq(command) => Box::pin(dlq::run(session, command)).await,
        Command::Events(command) => Box::pin(events::run(session, command)).await,
        Command::Held(command) => Box::pin(held::run(session, command)).await,
        Command::Conflicts(command) => Box::pin(conflicts::run(session, command)).await,
        Command::Reconcile(args) => Box::pin(reconcile::run(session, args)).await,
        Command::Runs(command) => Box::pin(runs::run(session, command)).await,
        Command::Explain(args) => Box::pin(explain::run(session, args)).await,
        Command::Alerts(command) => Box::pin(alerts::run(session, command)).await,
        Command::Check(args) => Box::pin(check::run(session, args)).await,
        Command::Config(command) => config::run(session, command),
        Command::Auth(args) => Box::pin(auth::run(session, args)).await,
        Command::Pause(args) => Box::pin(pause::pause(session, args)).await,
        Command::Resume(args) => Box::pin(pause::resume(session, args)).await,
        Command::Budget(args) => Box::pin(budget::run(session, args)).await,
        Command::Bench(command) => Box::pin(bench::run(session, command)).await,
        Command::Completions(args) => completions::run(args),
    }
}
