//! What a claim and its settle cost beside a commit of one row: `cargo run -p sluice-queue --example claim_cost [SLOTS…]`.
//!
//! Fills a private PostgreSQL with waiting records, 10,000 and 1,000,000 unless told otherwise, and prints medians of `ROUNDS` rounds. It
//! asserts nothing: the figures depend on the machine.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sluice_core::db::dynamic::script;
use sluice_core::db::{Db, Settings, migrate};
use sluice_core::postgres::{self, DataDir, Options};
use sluice_queue::settle::{Create, Health};
use sluice_queue::{Claim, Outcome, Report, Settlement, store};

const ROUNDS: usize = 50;
const LIMIT: Duration = Duration::from_secs(30);
const CONFIGURATION: &str = "
insert into sluice.connection (name, data_center, hash) values ('main', 'com', '');
insert into sluice.sync (name, connection, product, module, relation, key_columns, key_types, direction, lane, batch_max, definition, hash) values
  ('single', 'main', 'billing', 'customers', 'public.a', '{id}', '{bigint}', 'push', 'normal', 1, '{}', ''),
  ('hundred', 'main', 'billing', 'items', 'public.b', '{id}', '{bigint}', 'push', 'normal', 100, '{}', '');
insert into sluice.budget (data_center, organization_id, scope, cap, call_window, in_flight) values ('com', '1', 'finance', 100, '60 s', 10);
insert into sluice.product (connection, product, budget_id) select 'main', 'billing', id from sluice.budget;
insert into sluice.place (budget_id, kind) select id, 'window' from sluice.budget, generate_series(1, 100) union all select id, 'in_flight' from sluice.budget, generate_series(1, 10);
insert into sluice.meter (budget_id, product, kind, told, resets_at) select id, 'billing', 'calls', 1000000, sluice.next_midnight('UTC', clock_timestamp()) from sluice.budget;
insert into sluice.shape (connection, product, kind, sync, batch_max) select connection, product, 'push', name, batch_max from sluice.sync;
create table public.one_row (id bigint generated always as identity, at timestamptz default now());
";

#[tokio::main]
async fn main() -> Result<()> {
    let mut sizes: Vec<u32> = std::env::args().skip(1).map(|n| n.parse().context("a number of slots")).collect::<Result<_>>()?;
    if sizes.is_empty() {
        sizes = vec![10_000, 1_000_000];
    }
    let server = postgres::start(Options { data: DataDir::Temporary, durable: true, settings: Vec::new() }).await?;
    let db = Db::connect(Settings::new(server.url())).await?;
    migrate::run(&db).await?;
    script(CONFIGURATION.into()).execute(&db).await?;
    println!("{:>10}  {:>12}  {:>12}  {:>12}  {:>12}", "waiting", "records", "claim", "settle", "one-row commit");
    let mut filled = 0;
    for size in sizes {
        let fill = "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select h.sync, k::text, h.id, 'push', 2, clock_timestamp() from sluice.shape h";
        script(format!("{fill}, generate_series({}, {size}) k", filled + 1)).execute(&db).await?;
        filled = size;
        for shape in [1, 2] {
            let (claim, settle) = claim_and_settle(&db, shape).await?;
            let commit = commit_one_row(&db).await?;
            let records = if shape == 1 { 1 } else { 100 };
            println!("{size:>10}  {records:>12}  {claim:>12.2?}  {settle:>12.2?}  {commit:>12.2?}");
        }
    }
    db.close().await;
    Ok(())
}

async fn claim_and_settle(db: &Db, shape: i64) -> Result<(Duration, Duration)> {
    let report = Report { sent: true, answered_in: Some(Duration::from_millis(1)), health: Health::Answered, ..Report::default() };
    let (mut claims, mut settles) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        script("update sluice.budget set grid_at = '-infinity'; update sluice.place set free_at = '-infinity'".into()).execute(db).await?;
        let started = Instant::now();
        let Claim::Batch(batch, _grant) = store::claim(db, "bench:1", &[shape], LIMIT, LIMIT).await? else {
            anyhow::bail!("nothing to claim")
        };
        claims.push(started.elapsed());
        let settlements: Vec<_> = batch
            .slots
            .iter()
            .map(|s| Settlement { pushed: true, create: Create::Settled, ..Settlement::new(s.id, Outcome::Done { reason: None }) })
            .collect();
        let started = Instant::now();
        anyhow::ensure!(store::settle(db, batch.token, "bench:1", &report, &settlements).await?, "the lease was lost");
        settles.push(started.elapsed());
    }
    Ok((median(claims), median(settles)))
}

async fn commit_one_row(db: &Db) -> Result<Duration> {
    let mut commits = Vec::new();
    for _ in 0..ROUNDS {
        let started = Instant::now();
        sqlx::query("insert into public.one_row default values").execute(db).await?;
        commits.push(started.elapsed());
    }
    Ok(median(commits))
}

fn median(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() / 2]
}
