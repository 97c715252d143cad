//! A worker is stopped by SIGSTOP for longer than its lease while it holds a batch, another takes over, and the first is continued. It
//! neither sends nor settles.
//!
//! That it does nothing is seen when it has done the next thing: a record that only it can have synced, since the other has ended.

use std::time::Duration;

use anyhow::Context as _;
use sluice_simulator::{FaultKind, FaultSpec};
use sluice_tests::TestDb;

use crate::fleet::Process;
use crate::role::Role;
use crate::verdict;
use crate::world::{World, until};

const LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn run() -> anyhow::Result<()> {
    let database = TestDb::new().await;
    let mut world = World::new(database.url(), 1, Vec::new(), "").await?;
    for stopped in [before_its_call(&mut world).await, during_its_call(&mut world).await] {
        stopped.map_err(|error| world.keep_logs(error))?;
    }
    verdict::holds(&world).await.map_err(|error| world.keep_logs(error))
}

/// It has claimed, and its grant is unused: the row that it reads is locked.
async fn before_its_call(world: &mut World) -> anyhow::Result<()> {
    customer(world, 1).await?;
    let mut lock = world.db.begin().await?;
    sqlx::query("lock table customers in access exclusive mode").execute(&mut lock).await?;
    let first = world.fleet.start(Role::Worker)?;
    push(world, 1).await?;
    until(LIMIT, "the first worker has claimed the record and waits for its row", async || {
        Ok(count(world, "select count(*) from sluice.batch").await? == 1
            && count(world, "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()")
                .await?
                == 1)
    })
    .await?;
    first.stop()?;
    lock.rollback().await?;
    let seen = world.log(0).await?;
    anyhow::ensure!(seen.of("POST", "/billing").is_empty(), "nothing was sent yet: {seen:?}");
    taken_over(world, first, 1).await
}

/// Its request is on the way, and the answer comes while it is stopped.
async fn during_its_call(world: &mut World) -> anyhow::Result<()> {
    customer(world, 11).await?;
    let slow = FaultSpec {
        method: Some("POST".to_owned()),
        path: Some("/billing/v1/customers".to_owned()),
        times: Some(1),
        latency_ms: [1500, 1500],
        ..FaultSpec::new(FaultKind::Slow)
    };
    world.fault(&slow).await?;
    let before = world.log(0).await?.last();
    let first = world.fleet.start(Role::Worker)?;
    push(world, 11).await?;
    until(LIMIT, "the first worker's request is under way", async || {
        Ok(!world.log(before).await?.of("POST", "/billing/v1/customers").is_empty())
    })
    .await?;
    first.stop()?;
    taken_over(world, first, 11).await
}

/// Another worker syncs the record; then the stopped one goes on, alone, and syncs another.
async fn taken_over(world: &mut World, mut first: Process, id: i64) -> anyhow::Result<()> {
    let mut second = world.fleet.start(Role::Worker)?;
    verdict::worked_off(&world.db, LIMIT).await.context("the second worker takes over")?;
    second.terminate().await?;
    let (link, seen) = (link(world, id).await?, world.log(0).await?.last());

    first.cont()?;
    customer(world, id + 1).await?;
    push(world, id + 1).await?;
    verdict::worked_off(&world.db, LIMIT).await.context("the first worker goes on")?;

    let calls = world.log(seen).await?;
    let creates = calls.of("POST", "/billing/v1/customers");
    anyhow::ensure!(creates.len() == 1, "continued, it sent something for a record that was not its own any more: {calls:?}");
    anyhow::ensure!(calls.of("PUT", "/billing").is_empty(), "{calls:?}");
    anyhow::ensure!(link == self::link(world, id).await?, "continued, it settled a record that was not its own any more");
    let settled: Vec<String> =
        sqlx::query_scalar("select worker from sluice.attempt where sync = 'customers' and key = $1 and outcome = 'done'")
            .bind(id.to_string())
            .fetch_all(&world.db)
            .await?;
    anyhow::ensure!(settled.len() == 1 && settled[0].starts_with(&second.name), "settled by {settled:?}, not by {} alone", second.name);
    anyhow::ensure!(first.said().contains("the lease was lost"), "it did not notice:\n{}", first.said());
    first.terminate().await
}

async fn customer(world: &World, id: i64) -> anyhow::Result<()> {
    sqlx::query("insert into customers (id, account_number, name, email, phone) values ($1, 'ACC-' || $1, 'Customer ' || $1, $1 || '@example.com', 'one')")
        .bind(id)
        .execute(&world.db)
        .await?;
    Ok(())
}

/// Made by hand: no producer runs here.
async fn push(world: &World, id: i64) -> anyhow::Result<()> {
    sqlx::query("insert into sluice.job (kind, args) values ('push', jsonb_build_object('sync', 'customers', 'key', $1::bigint))")
        .bind(id)
        .execute(&world.db)
        .await?;
    Ok(())
}

/// The whole link, as text.
async fn link(world: &World, id: i64) -> anyhow::Result<String> {
    let link = sqlx::query_scalar("select l::text from sluice.link l where sync = 'customers' and key = $1").bind(id.to_string());
    Ok(link.fetch_one(&world.db).await?)
}

async fn count(world: &World, sql: &'static str) -> anyhow::Result<i64> {
    Ok(sqlx::query_scalar(sql).fetch_one(&world.db).await?)
}
