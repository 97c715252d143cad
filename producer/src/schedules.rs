//! Cron schedules as rows: the producer whose update moves `next_at` is the one that enqueues, in the same transaction. All times UTC
//! and the database's.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use croner::Cron;
use serde::Deserialize;
use sluice_core::db::Db;
use sqlx::types::Json;

/// The most jobs that `missed = "all"` enqueues at once for ticks that came while no producer ran.
const CATCH_UP_MAX: usize = 100;

/// A tick later than this was missed: no producer ran.
const MISSED_AFTER: TimeDelta = TimeDelta::seconds(60);

/// The longest pause between two looks, so that a schedule published meanwhile is seen.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// The next tick of a cron expression (five fields, or six with seconds first) after a moment.
///
/// # Errors
/// What is wrong with the expression, for people.
pub fn next_after(cron: &str, after: DateTime<Utc>) -> Result<DateTime<Utc>, String> {
    let cron = Cron::from_str(cron).map_err(|error| error.to_string())?;
    cron.find_next_occurrence(&after, false).map_err(|error| error.to_string())
}

#[derive(Debug, Deserialize)]
struct Job {
    kind: String,
    args: serde_json::Value,
    lane: Option<String>,
}

/// Carries out every tick that is due and says how long until the next one, at most five seconds.
///
/// # Errors
/// The database's. A job that is refused is no error: the refusal stands in `sluice.schedule.last_error` and the schedule goes on.
pub async fn tick(db: &Db) -> Result<(u64, Duration), sqlx::Error> {
    let due = sqlx::query!(
        r#"select name, cron, job as "job: Json<Job>", missed, next_at, clock_timestamp() as "now!"
           from sluice.schedule where retired_at is null and next_at <= clock_timestamp() order by next_at, name limit 100"#
    )
    .fetch_all(db)
    .await?;
    let mut enqueued = 0;
    for schedule in due {
        let (jobs, next_at) = plan(&schedule.cron, &schedule.missed, schedule.next_at, schedule.now);
        enqueued += carry_out(db, &schedule.name, &schedule.job.0, schedule.next_at, next_at, jobs).await?;
    }
    let pause = sqlx::query_scalar!(
        r#"select extract(epoch from min(next_at) - clock_timestamp())::float8 from sluice.schedule where retired_at is null and next_at < 'infinity'"#
    )
    .fetch_one(db)
    .await?;
    let pause = pause.map_or(LOOK_EVERY, |seconds| Duration::from_secs_f64(seconds.clamp(0.001, LOOK_EVERY.as_secs_f64())));
    Ok((enqueued, pause))
}

/// How many jobs a late or punctual tick is worth, and when the next one is. `None`: never again.
fn plan(cron: &str, missed: &str, next_at: DateTime<Utc>, now: DateTime<Utc>) -> (usize, Option<DateTime<Utc>>) {
    let next = next_after(cron, now).ok();
    let late = now - next_at > MISSED_AFTER;
    let jobs = match missed {
        "skip" if late => 0,
        "all" => {
            let mut ticks = 1;
            let mut at = next_at;
            while let (true, Ok(following)) = (ticks < CATCH_UP_MAX, next_after(cron, at)) {
                if following > now {
                    break;
                }
                at = following;
                ticks += 1;
            }
            ticks
        }
        _ => 1,
    };
    (jobs, next)
}

async fn carry_out(
    db: &Db,
    name: &str,
    job: &Job,
    was: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
    jobs: usize,
) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin().await?;
    let won = sqlx::query!(
        "update sluice.schedule set next_at = coalesce($3::timestamptz, 'infinity'), last_at = clock_timestamp(), last_error = null
         where name = $1 and next_at = $2 and retired_at is null",
        name,
        was,
        next_at
    )
    .execute(&mut tx)
    .await?;
    if won.rows_affected() == 0 {
        tx.rollback().await?;
        return Ok(0);
    }
    sqlx::query("savepoint job").execute(&mut tx).await?;
    let inserted = sqlx::query!(
        "insert into sluice.job (kind, args, lane) select $1, $2, $3 from generate_series(1, $4::int)",
        job.kind,
        job.args,
        job.lane,
        i32::try_from(jobs).unwrap_or(1)
    )
    .execute(&mut tx)
    .await;
    let count = match inserted {
        Ok(done) => done.rows_affected(),
        Err(sqlx::Error::Database(refusal)) => {
            tracing::error!(schedule = name, error = refusal.message(), "the schedule's job was refused");
            sqlx::query("rollback to savepoint job").execute(&mut tx).await?;
            sqlx::query!("update sluice.schedule set last_error = $2 where name = $1", name, refusal.message()).execute(&mut tx).await?;
            0
        }
        Err(error) => return Err(error),
    };
    tx.commit().await?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn missed_ticks_count_as_the_policy_says() {
        let (was, now) = (at("2026-03-01T10:00:00Z"), at("2026-03-01T10:47:00Z"));
        for (missed, jobs) in [("once", 1), ("skip", 0), ("all", 4)] {
            assert_eq!(plan("*/15 * * * *", missed, was, now), (jobs, Some(at("2026-03-01T11:00:00Z"))), "{missed}");
        }
        assert_eq!(plan("*/15 * * * *", "skip", was, at("2026-03-01T10:00:02Z")).0, 1);
        assert_eq!(plan("* * * * *", "all", at("2025-03-01T10:00:00Z"), now).0, CATCH_UP_MAX);
    }

    #[test]
    fn a_cron_expression_may_have_seconds_and_a_wrong_one_says_why() {
        assert_eq!(next_after("*/10 * * * * *", at("2026-03-01T10:00:01Z")).unwrap(), at("2026-03-01T10:00:10Z"));
        assert!(next_after("61 * * * *", at("2026-03-01T10:00:01Z")).is_err());
    }
}
