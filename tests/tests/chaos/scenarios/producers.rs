//! Three replicas of the producer, one killed while they drain many changes, and `attach` run by several at the same time. Every change
//! becomes a job, and a clock that ticks for all ticks once.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_tests::TestDb;

use crate::role::Role;
use crate::rows::{self, Counts};
use crate::world::{World, until};

const LIMIT: Duration = Duration::from_secs(60);
const CONTACTS: i64 = 8000;
const CLOCK: &str = "
[schedules.clock]
cron = \"* * * * * *\"
job = { kind = \"call\", connection = \"main\", product = \"crm\", method = \"GET\", path = \"/org\" }
";

pub(super) async fn run() -> anyhow::Result<()> {
    let database = TestDb::new().await;
    let mut world = World::new(database.url(), 1, Vec::new(), CLOCK).await?;
    drain(&mut world).await.map_err(|error| world.keep_logs(error))
}

/// No worker runs, so jobs stay where they were inserted, and can be counted.
async fn drain(world: &mut World) -> anyhow::Result<()> {
    let db = world.db.clone();
    let first_tick = next_tick(world).await?;
    let mut producers = Vec::new();
    for _ in 0..3 {
        producers.push(world.fleet.start(Role::Producer)?);
    }
    let (one, other) = tokio::join!(world.attach(), world.attach());
    one?;
    other?;
    let counts = Counts { products: 0, plans: 0, customers: 0, subscriptions: 0, invoices: 0, payments: 0, contacts: CONTACTS };
    rows::insert(&db, &counts).await?;
    let changes = async || -> anyhow::Result<i64> { Ok(sqlx::query_scalar("select count(*) from sluice.change").fetch_one(&db).await?) };
    until(LIMIT, "all inserts have become jobs", async || Ok(changes().await? == 0)).await?;
    sqlx::query("delete from sluice.job where kind = 'push'").execute(&db).await?;

    for victim in &mut producers[..2] {
        // One statement: thousands of changes become visible at the same moment.
        sqlx::query("update contacts set note = note || '.'").execute(&db).await?;
        until(LIMIT, "somebody has begun to drain", async || {
            let draining = sqlx::query_scalar(
                "select count(*) from pg_stat_activity where datname = current_database() and state <> 'idle' and pid <> pg_backend_pid()",
            );
            Ok(draining.fetch_one(&db).await.map(|busy: i64| busy > 0)?)
        })
        .await?;
        victim.kill().await?;
        until(LIMIT, "all updates have become jobs", async || Ok(changes().await? == 0)).await?;
        let asked: i64 = sqlx::query_scalar("select count(distinct key) from sluice.job where kind = 'push'").fetch_one(&db).await?;
        anyhow::ensure!(asked == CONTACTS, "{asked} of {CONTACTS} changed records were asked for");
        sqlx::query("delete from sluice.job where kind = 'push'").execute(&db).await?;
    }

    // A tick that comes late swallows the ones before it; never does one count twice.
    let mut tx = db.begin().await?;
    sqlx::query("lock table sluice.schedule in share mode").execute(&mut tx).await?;
    let ticks: i64 = sqlx::query_scalar("select count(*) from sluice.job where kind = 'call'").fetch_one(&mut tx).await?;
    tx.rollback().await?;
    let seconds = (next_tick(world).await? - first_tick).num_seconds();
    anyhow::ensure!(ticks > 0 && ticks <= seconds, "{ticks} ticks in {seconds} seconds");
    Ok(())
}

async fn next_tick(world: &World) -> anyhow::Result<DateTime<Utc>> {
    Ok(sqlx::query_scalar("select next_at from sluice.schedule where name = 'clock'").fetch_one(&world.db).await?)
}
