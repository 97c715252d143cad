//! The places for mints as a model: it holds against whatever workers do, and the SQL does what it does, step by step.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sluice_core::db::dynamic::script;
use sluice_tests::TestDb;

use super::*;

const PLACES: usize = 10;
const TIMEOUT: Duration = Duration::from_secs(30);

/// Seconds at which each place is free again, and which taking it was.
#[derive(Debug, Default)]
struct Model {
    places: [(i64, u64); PLACES],
    takings: u64,
}

impl Model {
    fn take(&mut self, now: i64) -> Option<(usize, u64)> {
        let place = (0..PLACES).min_by_key(|place| self.places[*place].0).filter(|place| self.places[*place].0 <= now)?;
        self.takings += 1;
        self.places[place] = (now + seconds(SEND_WITHIN + TIMEOUT + WINDOW), self.takings);
        Some((place, self.takings))
    }

    fn give_back(&mut self, (place, taking): (usize, u64), now: i64) {
        if self.places[place].1 == taking {
            self.places[place].0 = now;
        }
    }

    fn free(&self, now: i64) -> i64 {
        i64::try_from(self.places.iter().filter(|(free_at, _)| *free_at <= now).count()).unwrap()
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// A mint: how long after the one before, how long its process is stopped before it sends, how long the request travels.
    #[test]
    fn zoho_never_sees_eleven_mints_in_ten_minutes(mints in proptest::collection::vec((0_i64..120, prop_oneof![4 => 0_i64..3, 1 => 0_i64..2_000], 0_i64..30), 1..200)) {
        let mut model = Model::default();
        let (mut now, mut arrivals, mut given_back) = (0, Vec::new(), Vec::new());
        for (after, stopped, travels) in mints {
            now += after;
            given_back.retain(|(at, taken)| {
                if *at <= now {
                    model.give_back(*taken, *at);
                }
                *at > now
            });
            let Some(taken) = model.take(now) else { continue };
            if stopped <= seconds(SEND_WITHIN) {
                arrivals.push(now + stopped + travels);
            } else {
                given_back.push((now + stopped, taken));
            }
        }
        arrivals.sort_unstable();
        for (index, first) in arrivals.iter().enumerate() {
            let seen = arrivals[index..].iter().take_while(|at| **at < first + seconds(WINDOW)).count();
            prop_assert!(seen <= PLACES, "{seen} from {first} on");
        }
    }
}

/// One step of the places' life.
#[derive(Debug, Clone)]
enum Step {
    Take,
    /// Of those that were ever taken; also long after.
    GiveBack(usize),
    /// In units of 41 seconds, no sum of which comes near a place's 632.
    TimePasses(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![5 => Just(Step::Take), 2 => (0_usize..40).prop_map(Step::GiveBack), 2 => (1_i64..20).prop_map(Step::TimePasses)]
}

#[tokio::test]
async fn the_sql_does_what_the_model_does_step_by_step() {
    const STEP: i64 = 41;
    let test = TestDb::new().await;
    let db = test.db();
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    for case in 0..10 {
        let fingerprint = format!("token {case}");
        sqlx::query("insert into sluice.credential (fingerprint, refresh_token) values ($1, '')")
            .bind(&fingerprint)
            .execute(db)
            .await
            .unwrap();
        sqlx::query("insert into sluice.mint (fingerprint, place) select $1, n from generate_series(0, 9) n")
            .bind(&fingerprint)
            .execute(db)
            .await
            .unwrap();
        let steps = proptest::collection::vec(step(), 60).new_tree(&mut runner).unwrap().current();
        let (mut model, mut now, mut taken) = (Model::default(), 0, Vec::new());
        for (number, step) in steps.iter().enumerate() {
            match step {
                Step::Take => {
                    let (sql, mine) = (take(db, &fingerprint, TIMEOUT).await.unwrap(), model.take(now));
                    assert_eq!(sql.is_some(), mine.is_some(), "case {case}, step {number} of {steps:?}");
                    taken.extend(sql.zip(mine));
                }
                Step::GiveBack(which) if *which < taken.len() => {
                    let (sql, mine) = taken[*which];
                    give_back(db, &fingerprint, sql).await.unwrap();
                    model.give_back(mine, now);
                }
                Step::GiveBack(_) => {}
                Step::TimePasses(steps) => {
                    now += steps * STEP;
                    script(format!("update sluice.mint set free_at = free_at - interval '{} s'", steps * STEP)).execute(db).await.unwrap();
                }
            }
            // a machine that stalls moves the database's clock on: two places' times are never within 20 s of the present
            let free: i64 = sqlx::query_scalar("select count(*) from sluice.mint where fingerprint = $1 and free_at <= clock_timestamp()")
                .bind(&fingerprint)
                .fetch_one(db)
                .await
                .unwrap();
            assert_eq!(free, model.free(now), "case {case}, after step {number} of {steps:?}");
        }
    }
}
