//! SIGTERM: what is under way is finished within the grace, the rest is left for others, and no lease stays behind.

use std::time::{Duration, Instant};

use sluice_simulator::{FaultKind, FaultSpec};
use sluice_tests::TestDb;

use crate::role::Role;
use crate::rows::{self, Counts};
use crate::verdict;
use crate::world::{World, until};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run() -> anyhow::Result<()> {
    let database = TestDb::new().await;
    let slow = FaultSpec { latency_ms: [800, 1200], ..FaultSpec::new(FaultKind::Slow) };
    let mut world = World::new(database.url(), 1, vec![slow], "").await?;
    drain(&mut world).await.map_err(|error| world.keep_logs(error))
}

async fn drain(world: &mut World) -> anyhow::Result<()> {
    let counts = Counts { products: 1, plans: 1, customers: 20, subscriptions: 0, invoices: 0, payments: 0, contacts: 0 };
    rows::insert(&world.db, &counts).await?;
    let _producer = world.fleet.start(Role::Producer)?;
    let mut worker = world.fleet.start(Role::Worker)?;
    let db = world.db.clone();
    let running = async || -> anyhow::Result<i64> { Ok(sqlx::query_scalar("select count(*) from sluice.batch").fetch_one(&db).await?) };
    let creates = async |world: &World| -> anyhow::Result<usize> { Ok(world.log(0).await?.of("POST", "/billing/v1/customers").len()) };
    until(LIMIT, "several calls are under way", async || Ok(running().await? >= 2 && creates(world).await? >= 2)).await?;

    let asked = Instant::now();
    worker.terminate().await?;
    let took = asked.elapsed();
    anyhow::ensure!(took < world.config.worker.grace, "it took {took:?}");
    anyhow::ensure!(running().await? == 0, "a lease stayed behind");
    let left: i64 = sqlx::query_scalar("select count(*) from sluice.slot").fetch_one(&db).await?;
    anyhow::ensure!(left > 0, "it was to stop, not to finish everything");
    let blamed: i64 = sqlx::query_scalar("select count(*) from sluice.slot where failures + tries + deaths > 0").fetch_one(&db).await?;
    anyhow::ensure!(blamed == 0, "{blamed} records were blamed for the shutdown");
    // A call whose answer nobody waited for would show here: sent, and not linked.
    let linked: i64 =
        sqlx::query_scalar("select count(*) from sluice.link where zoho_id is not null and sync = 'customers'").fetch_one(&db).await?;
    anyhow::ensure!(linked == i64::try_from(creates(world).await?)?, "{linked} linked, of {} sent", creates(world).await?);

    let _next = world.fleet.start(Role::Worker)?;
    verdict::settled(&db, LIMIT).await?;
    verdict::holds(world).await
}
