//! PostgreSQL goes away under load, by an immediate shutdown and by hanging. Without the ledger nothing is sent: from the moment at which
//! the last grant ends, no call leaves any replica. Afterwards everything goes on, and nothing is lost or doubled.

use std::time::Duration;

use sluice_simulator::{FaultKind, FaultSpec};

use crate::fleet::Process;
use crate::log::now_us;
use crate::role::Role;
use crate::rows::{self, Counts};
use crate::server::{Victim, go_on};
use crate::verdict;
use crate::world::{World, until};

const LIMIT: Duration = Duration::from_secs(120);
/// For how long a grant may be used.
const SEND_BY: Duration = Duration::from_secs(2);
/// How long the database stays away: longer than grants, leases and time-outs last.
const AWAY: Duration = Duration::from_secs(7);
const RECORDS: i64 = 120;

pub(super) async fn run() -> anyhow::Result<()> {
    let mut victim = Victim::start().await?;
    let mut world = World::new(victim.url(), 1, Vec::new(), "").await?;
    let outcome = twice(&mut world, &mut victim).await.map_err(|error| world.keep_logs(error));
    world.db.close().await;
    victim.end().await?;
    outcome
}

async fn twice(world: &mut World, victim: &mut Victim) -> anyhow::Result<()> {
    // The second half is there only after the first is done, so that both faults meet a full queue.
    let counts = Counts::of(RECORDS);
    // Calls are long, so that some are under way at any moment.
    world.fault(&FaultSpec { latency_ms: [100, 400], ..FaultSpec::new(FaultKind::Slow) }).await?;
    let _processes: Vec<Process> = [Role::Producer, Role::Worker, Role::Worker, Role::Worker]
        .into_iter()
        .map(|role| world.fleet.start(role))
        .collect::<anyhow::Result<_>>()?;
    rows::insert(&world.db, &counts).await?;

    busy(world, 20).await?;
    let again = victim.shut_down().await?;
    let gone = now_us();
    tokio::time::sleep(AWAY).await;
    silent(world, gone, "shut down").await?;
    victim.start_again(again).await?;
    busy(world, 20).await?;

    let hung = victim.hang()?;
    let gone = now_us();
    tokio::time::sleep(AWAY).await;
    let silence = silent(world, gone, "hung").await;
    go_on(&hung);
    silence?;
    busy(world, 10).await?;

    verdict::settled(&world.db, LIMIT).await?;
    verdict::holds(world).await
}

/// So many more calls have been made.
async fn busy(world: &World, calls: usize) -> anyhow::Result<()> {
    let last = world.log(0).await?.last();
    until(LIMIT, "calls are made", async || Ok(world.log(last).await?.of("POST", "/billing").len() >= calls)).await
}

/// Nothing was sent since the last grant ended.
async fn silent(world: &World, gone_us: i64, how: &str) -> anyhow::Result<()> {
    let ended = gone_us + i64::try_from(SEND_BY.as_micros())?;
    let log = world.log(0).await?;
    let sent = log.between(ended, i64::MAX);
    anyhow::ensure!(sent.is_empty(), "the database was {how} and its grants had ended, but there were calls: {sent:?}");
    Ok(())
}
