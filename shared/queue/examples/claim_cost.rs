//! What a grant with its claim costs, one round trip, beside a commit of one row: `cargo run -p sluice-queue --example claim_cost`.
//!
//! Fills two databases of one private, durable PostgreSQL with 10,000 and 1,000,000 waiting records, and measures in turns, so that what else the
//! machine does weighs on all alike. Prints medians and the three ratios that are promised, with their bounds; exit 1 if one is missed.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use sluice_core::db::dynamic::script;
use sluice_core::db::{Db, Settings, migrate};
use sluice_core::postgres::{self, DataDir, Options};
use sluice_queue::settle::{Create, Health};
use sluice_queue::{Claim, Outcome, Report, Settlement, store};

const FEW: u32 = 10_000;
const MANY: u32 = 1_000_000;
/// The first of these make plans and fill caches; they are not counted.
const WARM_UP: usize = 20;
const ROUNDS: usize = 120;
const LIMIT: Duration = Duration::from_secs(30);
/// The shapes, by the number of records that a call carries.
const ONE: i64 = 1;
const HUNDRED: i64 = 2;
const CONFIGURATION: &str = "
insert into sluice.connection (name, data_center, hash) values ('main', 'com', '');
insert into sluice.sync (name, connection, product, module, relation, key_columns, key_types, direction, lane, batch_max, definition, hash) values
  ('single', 'main', 'billing', 'customers', 'public.a', '{id}', '{bigint}', 'push', 'normal', 1, '{}', ''),
  ('hundred', 'main', 'billing', 'items', 'public.b', '{id}', '{bigint}', 'push', 'normal', 100, '{}', '');
insert into sluice.budget (data_center, organization_id, scope, cap, call_window, in_flight) values ('com', '1', 'finance', 100, '60 s', 10);
insert into sluice.product (connection, product, budget_id) select 'main', 'billing', id from sluice.budget;
insert into sluice.place (budget_id, kind) select id, 'window' from sluice.budget, generate_series(1, 100) union all select id, 'in_flight' from sluice.budget, generate_series(1, 10);
insert into sluice.meter (budget_id, product, kind, told, resets_at) select id, 'billing', 'calls', 1000000, sluice.next_midnight('UTC', clock_timestamp()) from sluice.budget;
insert into sluice.shape (connection, product, kind, sync, batch_max) select connection, product, 'push', name, batch_max from sluice.sync order by batch_max;
create table public.one_row (id bigint generated always as identity, at timestamptz default now());
";

/// One database, and what was measured in it.
struct Bench {
    db: Db,
    waiting: u32,
    one: Vec<Duration>,
    hundred: Vec<Duration>,
    settle: Vec<Duration>,
    commit: Vec<Duration>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let server = postgres::start(Options { data: DataDir::Temporary, durable: true, settings: Vec::new() }).await?;
    let (mut few, mut many) = (Bench::new(server.url(), FEW).await?, Bench::new(server.url(), MANY).await?);
    for round in 0..WARM_UP + ROUNDS {
        for bench in [&mut few, &mut many] {
            bench.round(round >= WARM_UP).await?;
        }
    }
    println!("{:>10}  {:>14}  {:>14}  {:>14}  {:>14}", "waiting", "claim of 1", "claim of 100", "settle of 100", "one-row commit");
    for bench in [&few, &many] {
        let [one, hundred, settle, commit] = [&bench.one, &bench.hundred, &bench.settle, &bench.commit].map(|all| median(all));
        println!("{:>10}  {one:>14.2?}  {hundred:>14.2?}  {settle:>14.2?}  {commit:>14.2?}", bench.waiting);
    }
    let commits: Vec<Duration> = few.commit.iter().chain(&many.commit).copied().collect();
    let ones: Vec<Duration> = few.one.iter().chain(&many.one).copied().collect();
    let hundreds: Vec<Duration> = few.hundred.iter().chain(&many.hundred).copied().collect();
    let grown = ratio(&many.one, &few.one).max(ratio(&many.hundred, &few.hundred));
    let mut kept = true;
    for (what, ratio, bound) in [
        ("a claim of 1 record, in one-row commits", ratio(&ones, &commits), 2.5),
        ("a claim of 100 records, in one-row commits", ratio(&hundreds, &commits), 5.0),
        ("a claim among 1,000,000 waiting, in claims among 10,000", grown, 1.2),
    ] {
        kept &= ratio < bound;
        println!("{ratio:>6.2} (bound {bound}): {what}{}", if ratio < bound { "" } else { "  MISSED" });
    }
    few.db.close().await;
    many.db.close().await;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Bench {
    async fn new(server: &str, waiting: u32) -> Result<Self> {
        let first = Db::connect(Settings::new(server)).await?;
        script(format!("create database waiting_{waiting}")).execute(&first).await?;
        first.close().await;
        let (address, _) = server.rsplit_once('/').unwrap_or((server, ""));
        let db = Db::connect(Settings::new(format!("{address}/waiting_{waiting}"))).await?;
        migrate::run(&db).await?;
        script(CONFIGURATION.into()).execute(&db).await?;
        script(format!(
            "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select h.sync, k::text, h.id, 'push', 2, clock_timestamp() from sluice.shape h, generate_series(1, {waiting}) k"
        ))
        .execute(&db)
        .await?;
        script("vacuum analyze sluice.slot".into()).execute(&db).await?;
        script("checkpoint".into()).execute(&db).await?;
        Ok(Self { db, waiting, one: Vec::new(), hundred: Vec::new(), settle: Vec::new(), commit: Vec::new() })
    }

    async fn round(&mut self, counts: bool) -> Result<()> {
        let (one, _) = self.claim_and_settle(ONE).await?;
        let (hundred, settle) = self.claim_and_settle(HUNDRED).await?;
        let started = Instant::now();
        sqlx::query("insert into public.one_row default values").execute(&self.db).await?;
        let commit = started.elapsed();
        if counts {
            for (all, took) in [(&mut self.one, one), (&mut self.hundred, hundred), (&mut self.settle, settle), (&mut self.commit, commit)]
            {
                all.push(took);
            }
        }
        Ok(())
    }

    /// The records wait again afterwards: their number stays the same.
    async fn claim_and_settle(&self, shape: i64) -> Result<(Duration, Duration)> {
        let report = Report { sent: true, answered_in: Some(Duration::from_millis(1)), health: Health::Answered, ..Report::default() };
        script("update sluice.budget set grid_at = '-infinity'; update sluice.place set free_at = '-infinity'".into())
            .execute(&self.db)
            .await?;
        let started = Instant::now();
        let Claim::Batch(batch, _grant) = store::claim(&self.db, "bench:1", &[shape], LIMIT, LIMIT).await? else {
            anyhow::bail!("nothing to claim")
        };
        let claimed = started.elapsed();
        let settlements: Vec<_> = batch
            .slots
            .iter()
            .map(|s| Settlement { create: Create::Settled, ..Settlement::new(s.id, Outcome::Continue { progress: None }) })
            .collect();
        let started = Instant::now();
        anyhow::ensure!(store::settle(&self.db, batch.token, "bench:1", &report, &settlements).await?, "the lease was lost");
        Ok((claimed, started.elapsed()))
    }
}

fn median(all: &[Duration]) -> Duration {
    let mut all = all.to_vec();
    all.sort();
    all[all.len() / 2]
}

fn ratio(of: &[Duration], to: &[Duration]) -> f64 {
    median(of).as_secs_f64() / median(to).as_secs_f64()
}
