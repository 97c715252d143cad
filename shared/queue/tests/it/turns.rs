//! Who gets the next point of the grid: the SQL does what a model of lanes, floors and grid does, step by step. One budget, two syncs, every lane.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sluice_queue::{Batch, Claim, Report, Settlement, store};

use crate::world::{LEASE, WORKER, World, answered, done};

const CAP: usize = 10;
const WINDOW: i64 = 60_000;
/// A call that is never answered holds its place for 2 s, this, and a window.
const TIMEOUT: i64 = 34_000;
/// Time passes in steps of so many milliseconds, and answers take a multiple of half a minute: all that has a time has it at a multiple of three
/// seconds. There it is kept, half a second early, so that what is over at a step is over, whatever the step itself takes.
const STEP: i64 = 15_000;
const LANES: [&str; 5] = ["interactive", "realtime", "normal", "reconcile", "backfill"];
/// Less than so much of the last window's grants, and a lane goes first at the next point: normal, reconcile, backfill, in percent.
const FLOORS: [(usize, usize); 3] = [(2, 20), (3, 2), (4, 5)];
/// By the number of their shapes, which decides between two that were never served.
const SYNCS: [&str; 2] = ["prices", "shop"];

/// One place of the window.
#[derive(Debug, Clone, Copy)]
struct Place {
    free_at: i64,
    /// Of the last call that it was granted for: when, in which lane, and how long the answer took.
    granted: Option<(i64, usize, i64)>,
}

#[derive(Debug)]
struct Model {
    places: Vec<Place>,
    grid_at: i64,
    /// Due records by sync and lane.
    due: [[usize; 5]; 2],
    /// The claim that served a sync last.
    served: [usize; 2],
    claims: usize,
}

impl Model {
    fn new() -> Self {
        let places = vec![Place { free_at: i64::MIN, granted: None }; CAP];
        Self { places, grid_at: i64::MIN, due: [[0; 5]; 2], served: [0; 2], claims: 0 }
    }

    /// The grants of the last window: in which lane, and how long the answer took.
    fn recent(&self, now: i64) -> impl Iterator<Item = (usize, i64)> + '_ {
        self.places
            .iter()
            .filter_map(|place| place.granted)
            .filter(move |(at, ..)| *at > now - WINDOW)
            .map(|(_, lane, answer)| (lane, answer))
    }

    /// The sync and the lane that are served now, if any are.
    fn claim(&mut self, now: i64) -> Option<(usize, usize)> {
        let waits = |lane: usize| self.due.iter().any(|of_sync| of_sync[lane] > 0);
        let urgent = (0..5).find(|lane| waits(*lane))?;
        let bulk = (2..5).any(waits);
        let place = (0..CAP).min_by_key(|place| self.places[*place].free_at).filter(|place| self.places[*place].free_at <= now)?;
        if bulk && self.grid_at > now {
            return None;
        }
        let all = self.recent(now).count();
        let starved =
            FLOORS.iter().find(|(lane, floor)| waits(*lane) && self.recent(now).filter(|(of, _)| of == lane).count() * 100 < floor * all);
        let lane = if bulk { starved.map_or(urgent, |(lane, _)| *lane) } else { urgent };
        let sync = (0..2).filter(|sync| self.due[*sync][lane] > 0).min_by_key(|sync| self.served[*sync])?;
        self.due[sync][lane] -= 1;
        self.claims += 1;
        self.served[sync] = self.claims;
        if bulk {
            let step = (WINDOW + self.recent(now).map(|(_, answer)| answer).max().unwrap_or(0)) / i64::try_from(CAP).unwrap_or(1);
            // whoever is late by more than four points does not catch up on them
            self.grid_at = if self.grid_at.saturating_add(4 * step) <= now { now } else { self.grid_at } + step;
        }
        self.places[place] = Place { free_at: now + 2_000 + TIMEOUT + WINDOW, granted: Some((now, lane, 0)) };
        Some((sync, lane))
    }

    /// An answer comes to the call that was granted longest ago of those in this lane at that time.
    fn answer(&mut self, (at, lane): (i64, usize), took: i64, now: i64) {
        let unanswered = at + 2_000 + TIMEOUT + WINDOW;
        if let Some(place) = self.places.iter_mut().find(|p| p.free_at == unanswered && p.granted == Some((at, lane, 0))) {
            *place = Place { free_at: now + WINDOW, granted: Some((at, lane, took)) };
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// So many records become due.
    Due {
        sync: usize,
        lane: usize,
        records: usize,
    },
    Claim,
    /// A call in hand is answered, after so many half minutes by the worker's clock; or never.
    Settle(usize, Option<i64>),
    TimePasses(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..2_usize, 0..5_usize, 1..6_usize).prop_map(|(sync, lane, records)| Step::Due { sync, lane, records }),
        9 => Just(Step::Claim),
        5 => (0..4_usize, proptest::option::weighted(0.9, prop_oneof![4 => Just(0_i64), 1 => 1..3_i64])).prop_map(|(call, took)| Step::Settle(call, took)),
        4 => prop_oneof![5 => 1..2_i64, 1 => 2..8_i64].prop_map(Step::TimePasses),
    ]
}

/// Both sides of the comparison.
struct Pair<'a> {
    world: &'a World,
    shapes: Vec<i64>,
    model: Model,
    now: i64,
    anchor: f64,
    keys: usize,
    held: Vec<(Batch, (i64, usize))>,
}

impl<'a> Pair<'a> {
    async fn new(world: &'a World) -> Self {
        world.limit(u32::try_from(CAP).unwrap(), 50, "60 s").await;
        world
            .run(
                "delete from sluice.slot_job; delete from sluice.slot; delete from sluice.batch; update sluice.shape set served_at = '-infinity';
                 update sluice.product set unanswered = 0, opened_at = null; update sluice.budget set grid_at = '-infinity', blocked_until = '-infinity' where id = 1",
            )
            .await;
        let mut shapes = Vec::new();
        for sync in SYNCS {
            shapes.push(world.get(format!("select id from sluice.shape where sync = '{sync}'")).await);
        }
        Self { world, shapes, model: Model::new(), now: 0, anchor: clock(world).await, keys: 0, held: Vec::new() }
    }

    /// Lets that much time pass and no more, whatever the steps took.
    async fn pass(&mut self, milliseconds: i64) {
        let now = clock(self.world).await;
        let by = now - self.anchor - milliseconds as f64 / 1_000.0;
        (self.anchor, self.now) = (now, self.now + milliseconds);
        let moved = |column: &str| {
            format!(
                "{column} = case when isfinite({column}) then to_timestamp({now} + floor((extract(epoch from {column})::float8 + {by} - {now} + 0.75) / 3) * 3 - 0.5) else {column} end"
            )
        };
        self.world
            .run(format!(
                "update sluice.place set {}, {} where budget_id = 1; update sluice.budget set {} where id = 1;
                 update sluice.batch set lease_until = clock_timestamp() + interval '1 day'; update sluice.product set unanswered = 0",
                moved("free_at"),
                moved("granted_at"),
                moved("grid_at")
            ))
            .await;
    }

    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Due { sync, lane, records } => {
                self.model.due[*sync][*lane] += records;
                let from = self.keys + 1;
                self.keys += records;
                self.world
                    .run(format!(
                        "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select '{}', k::text, {}, 'push', {lane}, '-infinity' from generate_series({from}, {}) k",
                        SYNCS[*sync], self.shapes[*sync], self.keys
                    ))
                    .await;
            }
            Step::Claim => {
                let timeout = Duration::from_millis(TIMEOUT.unsigned_abs());
                let claim = store::claim(&self.world.db, WORKER, &self.shapes, LEASE, timeout).await.unwrap();
                let served = match &claim {
                    Claim::Batch(batch, _) => Some((batch.sync.as_str(), batch.lane.as_str())),
                    Claim::Wait(_) => None,
                };
                let due = (self.model.due, self.model.grid_at);
                let model = self.model.claim(self.now);
                if served != model.map(|(sync, lane)| (SYNCS[sync], LANES[lane])) {
                    return Err(format!("at {} with {due:?}: the SQL serves {served:?}, the model {model:?}", self.now));
                }
                if let (Claim::Batch(batch, _), Some((_, lane))) = (claim, model) {
                    self.held.push((*batch, (self.now, lane)));
                }
            }
            Step::Settle(call, took) if *call < self.held.len() => {
                let (batch, granted) = self.held.remove(*call);
                let report = match took {
                    Some(halves) => {
                        self.model.answer(granted, halves * 30_000, self.now);
                        Report { answered_in: Some(Duration::from_secs(30 * halves.unsigned_abs())), ..answered() }
                    }
                    None => crate::world::unanswered(),
                };
                let settlements: Vec<_> = batch.slots.iter().map(|s| Settlement::new(s.id, done())).collect();
                assert!(store::settle(&self.world.db, batch.token, WORKER, &report, &settlements).await.unwrap(), "the lease holds");
            }
            Step::Settle(..) => {}
            Step::TimePasses(steps) => self.pass(steps * STEP).await,
        }
        self.pass(0).await;
        Ok(())
    }
}

async fn clock(world: &World) -> f64 {
    world.get("select extract(epoch from clock_timestamp())::float8").await
}

async fn play(world: &World, steps: &[Step]) -> Result<(), String> {
    let mut pair = Pair::new(world).await;
    for (number, step) in steps.iter().enumerate() {
        pair.take(step).await.map_err(|difference| format!("after step {number}, {step:?}: {difference}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn every_point_of_the_grid_goes_to_the_sync_and_lane_that_the_model_names() {
    let world = World::new().await;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = proptest::collection::vec(step(), 1..100);
    for case in 0..12 {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        // a machine that stalls for seconds moves the clock past a place's time: such a case is compared again
        let mut differences = Vec::new();
        while differences.len() < 3 {
            match play(&world, &steps).await {
                Ok(()) => break,
                Err(difference) => differences.push(difference),
            }
        }
        assert!(differences.len() < 3, "case {case}: {differences:?}\n{steps:?}");
    }
}
