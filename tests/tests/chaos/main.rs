//! Chaos with real processes: producers and workers as processes of their own, over a real PostgreSQL and the simulated Zoho, killed,
//! stopped and continued in the middle of their work. Afterwards Zoho holds each record exactly once, as its row is now, and never saw a
//! call too many.
//!
//! ```text
//! cargo test -p sluice-tests --test chaos                      every scenario, small
//! cargo test -p sluice-tests --test chaos -- storm             those whose name contains a word
//! cargo test --release -p sluice-tests --test chaos -- --full  the storm at full size (just chaos), with
//!     [--records N] [--workers N] [--seconds-between-kills S] [--seed N]
//! ```
//!
//! The processes are this very program, started again with a role in its environment (`role`), so nothing else must be built first. It
//! shows nothing while all is well; a scenario that fails keeps its folder with the logs of all its processes, and names it.

mod fleet;
mod log;
mod role;
mod rows;
mod scenarios;
mod server;
mod verdict;
mod world;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::scenarios::storm::Storm;

/// The scenarios that `cargo test` runs, one after the other: each is timed, and two cores are few.
const SCENARIOS: &[&str] = &[
    "a_storm_of_kills_and_faults_leaves_every_record_exactly_once",
    "a_worker_stopped_for_longer_than_its_lease_neither_sends_nor_settles",
    "a_worker_told_to_stop_finishes_what_it_holds_and_leaves_no_lease",
    "without_the_database_no_call_leaves_any_replica",
    "producers_killed_in_mid_drain_lose_no_change_and_tick_once",
];

/// No scenario takes longer; a hang is a failure.
const SCENARIO_LIMIT: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    if let Some(role) = role::asked_for() {
        return role::play(role);
    }
    match arguments(std::env::args().skip(1)) {
        Ok(Asked::List) => {
            SCENARIOS.iter().for_each(|name| println!("{name}: test"));
            ExitCode::SUCCESS
        }
        Ok(Asked::Full(storm)) => full(storm),
        Ok(Asked::Some(names)) => small(&names),
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(2)
        }
    }
}

enum Asked {
    List,
    Full(Storm),
    Some(Vec<&'static str>),
}

/// Reads our own arguments, and so much of libtest's that `cargo test -- FILTER` means what it always does.
fn arguments(mut given: impl Iterator<Item = String>) -> Result<Asked, String> {
    let (mut storm, mut full, mut exact, mut list) = (Storm::full(), false, false, false);
    let mut filters = Vec::new();
    while let Some(argument) = given.next() {
        let mut number = || {
            let text = given.next().unwrap_or_default();
            text.parse::<u64>().map_err(|_| format!("{argument} needs a whole number, not `{text}`"))
        };
        match argument.as_str() {
            "--full" => full = true,
            "--records" => storm.records = number()?,
            "--workers" => storm.workers = usize::try_from(number()?).map_err(|e| e.to_string())?,
            "--seconds-between-kills" => storm.between_kills = Duration::from_secs(number()?),
            "--seed" => storm.seed = number()?,
            "--list" => list = true,
            "--exact" => exact = true,
            "--skip" | "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => drop(given.next()),
            flag if flag.starts_with('-') => {}
            filter => filters.push(filter.to_owned()),
        }
    }
    if full {
        return Ok(Asked::Full(storm));
    }
    if list {
        return Ok(Asked::List);
    }
    let wanted = |name: &&str| filters.is_empty() || filters.iter().any(|f| if exact { f == name } else { name.contains(f.as_str()) });
    Ok(Asked::Some(SCENARIOS.iter().copied().filter(wanted).collect()))
}

fn small(names: &[&'static str]) -> ExitCode {
    println!("\nrunning {} tests", names.len());
    let mut failed = 0;
    for name in names {
        let started = Instant::now();
        let outcome = on_runtime(scenarios::run(name), SCENARIO_LIMIT);
        let seconds = started.elapsed().as_secs();
        match outcome {
            Ok(report) => println!("test {name} ... ok ({seconds} s{report})"),
            Err(error) => {
                failed += 1;
                println!("test {name} ... FAILED ({seconds} s)\n{error:#}\n");
            }
        }
    }
    println!("\ntest result: {}. {} passed; {failed} failed\n", if failed == 0 { "ok" } else { "FAILED" }, names.len() - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn full(storm: Storm) -> ExitCode {
    println!(
        "{} records, {} workers, one killed every {} s, seed {}",
        storm.records,
        storm.workers,
        storm.between_kills.as_secs(),
        storm.seed
    );
    let limit = storm.limit() * 2 + Duration::from_secs(60);
    match on_runtime(async move { storm.run().await }, limit) {
        Ok(figures) => {
            println!("{figures}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("FAILED\n{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime of its own, so that what one scenario leaves behind does not disturb the next.
fn on_runtime<T>(scenario: impl Future<Output = anyhow::Result<T>>, limit: Duration) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(limit, scenario).await })?
}
