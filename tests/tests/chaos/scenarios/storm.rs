//! Four workers, one killed each second, while records with parents sync, people edit and Zoho fails in every way that loses an answer.

use std::time::{Duration, Instant};

use sluice_simulator::{FaultKind, FaultSpec};
use sluice_tests::TestDb;
use tokio::time::{MissedTickBehavior, interval};

use crate::fleet::Process;
use crate::role::Role;
use crate::rows::{self, Counts, Editor};
use crate::verdict;
use crate::world::World;

/// The size of a storm.
#[derive(Debug, Clone)]
pub(crate) struct Storm {
    /// Records of Billing; the CRM gets a quarter as many besides.
    pub(crate) records: u64,
    pub(crate) workers: usize,
    pub(crate) between_kills: Duration,
    pub(crate) seed: u64,
}

impl Storm {
    pub(crate) fn small() -> Self {
        Self { records: 120, workers: 3, between_kills: Duration::from_secs(1), seed: 1 }
    }

    pub(crate) fn full() -> Self {
        Self { records: 2000, workers: 4, between_kills: Duration::from_secs(1), seed: 1 }
    }

    /// Four times what the calls alone take, and what a handful of lost answers cost one after the other.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(180 + self.records / 16 * 4)
    }

    /// Runs it; the figures, or what is wrong.
    pub(crate) async fn run(&self) -> anyhow::Result<String> {
        let database = TestDb::new().await;
        let mut world = World::new(database.url(), self.seed, faults(), "").await?;
        match self.rage(&mut world).await {
            Ok(figures) => Ok(figures),
            Err(error) => Err(world.keep_logs(error)),
        }
    }

    async fn rage(&self, world: &mut World) -> anyhow::Result<String> {
        let started = Instant::now();
        let counts = Counts::of(i64::try_from(self.records)?);
        let _producer = world.fleet.start(Role::Producer)?;
        let mut workers = Vec::new();
        for _ in 0..self.workers {
            workers.push(world.fleet.start(Role::Worker)?);
        }
        let db = world.db.clone();
        let people = async {
            rows::insert(&db, &counts).await?;
            self.edit(&db, counts).await?;
            verdict::settled(&db, self.limit()).await
        };
        let mut kills = 0;
        tokio::select! {
            ended = people => ended?,
            failed = self.kill(world, &mut workers, &mut kills) => failed?,
        }
        let seconds = started.elapsed().as_secs();
        verdict::holds(world).await?;
        Ok(format!("{} records; {}", counts.total(), verdict::figures(world, kills, seconds).await?))
    }

    /// Half as many edits as there are records, while they sync.
    async fn edit(&self, db: &sluice_core::db::Db, counts: Counts) -> anyhow::Result<()> {
        let mut editor = Editor::new(counts, self.seed);
        let mut tick = interval(Duration::from_millis(50));
        for _ in 0..self.records / 2 {
            tick.tick().await;
            editor.edit(db).await?;
        }
        Ok(())
    }

    /// Kills one after the other, and starts another in its place. Ends only with an error.
    async fn kill(&self, world: &mut World, workers: &mut [Process], kills: &mut usize) -> anyhow::Result<()> {
        let mut tick = interval(self.between_kills);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tick.tick().await;
        loop {
            tick.tick().await;
            let victim = *kills % workers.len();
            workers[victim].kill().await?;
            workers[victim] = world.fleet.start(Role::Worker)?;
            *kills += 1;
        }
    }
}

fn faults() -> Vec<FaultSpec> {
    use FaultKind::{DropAfter, DropLate, ErrorAfter, ErrorBefore};
    let chances = [(ErrorBefore, 0.05), (ErrorAfter, 0.05), (DropAfter, 0.05), (DropLate, 0.01)];
    chances.map(|(kind, probability)| FaultSpec { probability, ..FaultSpec::new(kind) }).to_vec()
}
