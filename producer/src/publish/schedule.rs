//! `sluice.schedule`: a row per schedule. A schedule that did not change keeps its next tick.

use serde_json::json;
use sluice_core::config::Config;
use sluice_core::config::trigger::{Missed, Schedule};
use sluice_core::db::Tx;
use sqlx::types::Json;

use super::{Change, Error, How, Published, hash};
use crate::schedules;

pub(super) async fn publish(tx: &mut Tx, config: &Config, published: &mut Published) -> Result<(), Error> {
    for (name, schedule) in &config.schedules {
        if let Some(how) = publish_one(tx, name, schedule).await? {
            published.changes.push(Change { what: "schedule", name: name.clone(), how });
        }
        if let Some(refusal) = trial(tx, schedule).await? {
            published.warnings.push(format!("schedules.{name}.job: {refusal}"));
        }
    }
    let names: Vec<String> = config.schedules.keys().cloned().collect();
    let retired = sqlx::query_scalar!(
        "update sluice.schedule set retired_at = clock_timestamp() where retired_at is null and name <> all ($1) returning name",
        &names
    )
    .fetch_all(tx)
    .await?;
    published.changes.extend(retired.into_iter().map(|name| Change { what: "schedule", name, how: How::Retired }));
    Ok(())
}

async fn publish_one(tx: &mut Tx, name: &str, schedule: &Schedule) -> Result<Option<How>, Error> {
    let missed = match schedule.missed {
        Missed::Once => "once",
        Missed::Skip => "skip",
    };
    let job = json!({ "kind": schedule.job.kind, "args": schedule.job.args, "lane": schedule.job.lane });
    let hash = hash(&json!([schedule.cron, job, missed]));
    let known = sqlx::query!("select hash, retired_at from sluice.schedule where name = $1", name).fetch_optional(&mut *tx).await?;
    let how = match known {
        None => How::Added,
        Some(known) if known.retired_at.is_some() => How::Returned,
        Some(known) if known.hash != hash => How::Changed { linked: 0 },
        Some(_) => return Ok(None),
    };
    let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&mut *tx).await?;
    let next_at = schedules::next_after(&schedule.cron, now).map_err(|message| Error::Cron { name: name.to_owned(), message })?;
    sqlx::query!(
        "insert into sluice.schedule (name, cron, job, missed, next_at, hash) values ($1, $2, $3, $4, $5, $6)
         on conflict on constraint schedule_pkey do update set cron = excluded.cron, job = excluded.job, missed = excluded.missed, next_at = excluded.next_at,
           hash = excluded.hash, last_error = null, retired_at = null",
        name,
        schedule.cron,
        Json(job) as _,
        missed,
        next_at,
        hash
    )
    .execute(tx)
    .await?;
    Ok(Some(how))
}

/// Inserts the job and takes it back: what would be refused at every tick is told now.
async fn trial(tx: &mut Tx, schedule: &Schedule) -> Result<Option<String>, sqlx::Error> {
    sqlx::query("savepoint trial").execute(&mut *tx).await?;
    let inserted = sqlx::query!(
        "insert into sluice.job (kind, args, lane) values ($1, $2, $3)",
        schedule.job.kind,
        Json(&schedule.job.args) as _,
        schedule.job.lane.map(|lane| lane.as_str())
    )
    .execute(&mut *tx)
    .await;
    sqlx::query("rollback to savepoint trial").execute(tx).await?;
    match inserted {
        Ok(_) => Ok(None),
        Err(sqlx::Error::Database(refusal)) => Ok(Some(refusal.message().to_owned())),
        Err(error) => Err(error),
    }
}
