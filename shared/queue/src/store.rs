//! The queue's SQL, each function named for what it does. The functions behind are in `migrations/`; they are fenced by the batch's token.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_core::grant::{Grant, Moment};
use sqlx::PgExecutor;

use crate::calls::Calls;
use crate::claim::Claim;
use crate::settle::{Cost, Report, Settlement};

/// What a fold did.
#[derive(Debug, Clone, Copy)]
pub struct Folded {
    /// Jobs folded; 1,000 at most, so a full fold is followed by another.
    pub jobs: i64,
    /// How long until the next job in the intake is due.
    pub next_in: Option<Duration>,
}

/// Turns due jobs into work on their slots.
///
/// # Errors
/// The database's; nothing was folded then.
pub async fn fold(db: impl PgExecutor<'_>) -> Result<Folded, sqlx::Error> {
    let row = sqlx::query!(
        r#"select folded as "folded!", (extract(epoch from next_run_at - clock_timestamp()) * 1000)::bigint as next_ms from sluice.fold()"#
    )
    .fetch_one(db)
    .await?;
    Ok(Folded { jobs: i64::from(row.folded), next_in: row.next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))) })
}

/// Takes a grant and the most urgent batch of work that fits into that one call.
///
/// # Errors
/// The database's, or a batch that this version cannot read. Nothing was claimed then, or its lease will run out.
pub async fn claim(
    db: impl PgExecutor<'_>,
    worker: &str,
    shapes: &[i64],
    lease: Duration,
    timeout: Duration,
) -> Result<Claim, sqlx::Error> {
    let asked_at = Moment::now();
    let answer = sqlx::query_scalar!(
        r#"select sluice.claim($1, $2, make_interval(secs => $3), make_interval(secs => $4)) as "answer!""#,
        worker,
        shapes,
        lease.as_secs_f64(),
        timeout.as_secs_f64()
    )
    .fetch_one(db)
    .await?;
    Claim::read(answer, asked_at).map_err(|e| sqlx::Error::Decode(e.into()))
}

/// The answer to a request for another call.
#[derive(Debug)]
pub enum Again {
    /// The lease is lost.
    Lost,
    /// No call is free now.
    Later,
    /// One is.
    Granted {
        /// The ledger's number.
        place: i64,
        /// How long from the asking the request may leave.
        valid: Duration,
    },
}

/// Settles the call before in the ledger and asks for another, once, without waiting.
///
/// # Errors
/// The database's; nothing may be sent then.
pub async fn grant_again(db: impl PgExecutor<'_>, token: i64, worker: &str, before: &Report, cost: Cost) -> Result<Again, sqlx::Error> {
    let answer = sqlx::query_scalar!(
        "select sluice.grant_again($1, $2, $3, $4, $5) as answer",
        token,
        worker,
        before.to_json(),
        i32::from(cost.units),
        cost.heavy
    )
    .fetch_one(db)
    .await?;
    let Some(answer) = answer else { return Ok(Again::Lost) };
    Ok(match answer["place"].as_i64() {
        Some(place) => Again::Granted { place, valid: Duration::from_millis(answer["send_by_ms"].as_u64().unwrap_or(0)) },
        None => Again::Later,
    })
}

/// Tells the ledger that a limit refused a batch's call, before the batch is settled.
///
/// # Errors
/// The database's; the settle tells it then.
pub async fn note_refusal(db: impl PgExecutor<'_>, token: i64, report: &Report) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.note_refusal($1, $2)", token, report.to_json()).execute(db).await?;
    Ok(())
}

/// A grant for one call that no job asks for.
#[derive(Debug)]
pub enum Alone {
    /// The connection is not published, so it has no budget.
    Unpublished,
    /// No call is free for so long.
    Later(Duration),
    /// One is. Settle it like a batch, without settlements.
    Granted {
        /// The batch's token.
        token: i64,
        /// What the call spends, and what became of it.
        calls: Calls,
    },
}

/// Takes a grant without a job; the batch it stands for has no records.
///
/// # Errors
/// The database's; nothing may be sent then.
pub async fn grant_alone(
    db: impl PgExecutor<'_>,
    worker: &Arc<str>,
    connection: &str,
    product: &str,
    lease: Duration,
    timeout: Duration,
) -> Result<Alone, sqlx::Error> {
    let asked_at = Moment::now();
    let answer = sqlx::query_scalar!(
        "select sluice.grant_alone($1, $2, $3, make_interval(secs => $4), make_interval(secs => $5)) as answer",
        worker,
        connection,
        product,
        lease.as_secs_f64(),
        timeout.as_secs_f64()
    )
    .fetch_one(db)
    .await?;
    let Some(answer) = answer else { return Ok(Alone::Unpublished) };
    let millis = |key: &str| Duration::from_millis(answer[key].as_u64().unwrap_or(0));
    Ok(match (answer["token"].as_i64(), answer["place"].as_i64()) {
        (Some(token), Some(place)) => {
            let grant = Grant::issued(place, asked_at, millis("send_by_ms"));
            Alone::Granted { token, calls: Calls::new(token, worker.clone(), grant, Cost::ONE) }
        }
        _ => Alone::Later(millis("wait_ms")),
    })
}

/// Heartbeat: the tokens that are still this worker's.
///
/// # Errors
/// The database's.
pub async fn extend(db: impl PgExecutor<'_>, worker: &str, tokens: &[i64], lease: Duration) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.extend($1, $2, make_interval(secs => $3)) as "token!""#, worker, tokens, lease.as_secs_f64())
        .fetch_all(db)
        .await
}

/// Settles a batch, inside the caller's transaction, which may add what else belongs to the outcome (links, local writes). `false`: the
/// lease is lost; nothing was written and nothing may be.
///
/// # Errors
/// The database's: settle again, until the lease is gone.
pub async fn settle(
    db: impl PgExecutor<'_>,
    token: i64,
    worker: &str,
    report: &Report,
    settlements: &[Settlement],
) -> Result<bool, sqlx::Error> {
    let outcomes = Value::Array(settlements.iter().map(Settlement::to_json).collect());
    sqlx::query_scalar!(r#"select sluice.settle($1, $2, $3, $4) as "held!""#, token, worker, report.to_json(), outcomes).fetch_one(db).await
}

/// Gives back what a dead worker held: one batch. `false`: there was none.
///
/// # Errors
/// The database's.
pub async fn rescue(db: impl PgExecutor<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.rescue() as "rescued!""#).fetch_one(db).await
}

/// Wakes the records that waited for these, and requeues the letters that died for want of them if they are `linked` now.
///
/// # Errors
/// The database's; the sweep wakes them later then.
pub async fn wake_waiting(db: impl PgExecutor<'_>, sync: &str, keys: &[String], linked: bool) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.wake_waiting($1, $2, $3) as "woken!""#, sync, keys, linked).fetch_one(db).await
}

/// Wakes whoever waits for a parent that is linked, dead or not asked for any more.
///
/// # Errors
/// The database's.
pub async fn sweep_waiting(db: impl PgExecutor<'_>) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.sweep_waiting() as "woken!""#).fetch_one(db).await
}

/// Whether a record waits, directly or over others, for another.
///
/// # Errors
/// The database's.
pub async fn waits_on(db: impl PgExecutor<'_>, waiting: (&str, &str), target: (&str, &str)) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.waits_on($1, $2, $3, $4) as "waits!""#, waiting.0, waiting.1, target.0, target.1)
        .fetch_one(db)
        .await
}

/// Adds to the count of calls that were not made.
///
/// # Errors
/// The database's.
pub async fn add_avoided(db: impl PgExecutor<'_>, sync: &str, reason: &str, calls: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.avoided as a (sync, reason, calls) values ($1, $2, $3) on conflict (sync, reason) do update set calls = a.calls + excluded.calls",
        sync,
        reason,
        calls
    )
    .execute(db)
    .await?;
    Ok(())
}
