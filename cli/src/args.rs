//! The command line. What a command takes stands with the command.

use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};

use crate::commands::{
    alerts, attach, auth, bench, budget, check, completions, config, conflicts, demo, detach, dlq, events, explain, held, jobs, migrate,
    pause, plan, producer, reconcile, runs, simulate, status, trigger, up, worker,
};

/// Keeps Postgres and Zoho apps in step, through one shared budget of calls.
#[derive(Debug, Parser)]
#[command(name = "sluice", version, arg_required_else_help = true, infer_subcommands = false)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Options {
    /// The configuration; without it, the sluice.toml in this folder or the nearest above it.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Print data as JSON.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more; several times: still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Log less.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) quiet: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// No set-up at all: a private PostgreSQL, a simulated Zoho, producer and worker, and a recipe's tables and rows.
    Demo(demo::Args),
    /// Producer and worker in one process, for one machine.
    Up(up::Args),
    /// Turns row changes, schedules and webhooks into jobs, and serves HTTP. As many replicas as wanted.
    Producer(producer::Args),
    /// Does the jobs. As many replicas as wanted.
    Worker(worker::Args),
    /// The simulated Zoho alone, for your own tests.
    Simulate(simulate::Args),
    /// Create or upgrade the schema `sluice`, and publish the configuration.
    Migrate(migrate::Args),
    /// Publish the configuration and install the capture triggers.
    Attach(attach::Args),
    /// Remove the capture triggers.
    Detach(detach::Args),
    /// Sync one record, or everything that is due.
    Trigger(trigger::Args),
    /// What a trigger or a backfill would do: rows, calls, credits, and when it would be over. Changes nothing.
    Plan(plan::Args),
    /// Compare both sides of a sync as a whole, and put right what differs.
    Reconcile(reconcile::Args),
    /// How each sync stands.
    Status(status::Args),
    /// Unfinished work: look at it, or withdraw it.
    #[command(subcommand)]
    Jobs(jobs::Command),
    /// Dead letters: what gave up, why, and what to do about it.
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Webhook events: what came, what was made of it, and acting on it again.
    #[command(subcommand)]
    Events(events::Command),
    /// Mass changes that a brake holds: look at them, send them, or drop them.
    #[command(subcommand)]
    Held(held::Command),
    /// Fields that changed on both sides and wait for a person.
    #[command(subcommand)]
    Conflicts(conflicts::Command),
    /// Polls, backfills, reconciles: what each found and did.
    #[command(subcommand)]
    Runs(runs::Command),
    /// One timeline of a record: what happened to it, what was done or not, and why.
    Explain(explain::Args),
    /// What people were told of, and a test of an address.
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Look for whatever could keep the syncs from working, and say what to do about it.
    Check(check::Args),
    /// The configuration: its JSON Schema, or what it amounts to.
    #[command(subcommand)]
    Config(config::Command),
    /// Turn a grant code, read from standard input, into a stored refresh token.
    Auth(auth::Args),
    /// Stop the calls; jobs keep arriving and wait.
    Pause(pause::PauseArgs),
    /// Go on after a pause.
    Resume(pause::ResumeArgs),
    /// Every limit: cap, used, in flight, and when it is spent.
    Budget(budget::Args),
    /// Measure this installation against a simulated Zoho.
    #[command(subcommand)]
    Bench(bench::Command),
    /// Completions for your shell.
    Completions(completions::Args),
}
