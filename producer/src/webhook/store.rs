//! Events in their table. Each function is one statement, so that an event is stored with its jobs or not at all.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use sluice_core::db::Db;
use sqlx::postgres::types::PgInterval;

use super::named::Named;
use super::verify::Verdict;

/// An event's columns but for the body.
#[derive(Debug, Serialize)]
pub(super) struct Event<'a> {
    pub(super) source: &'a str,
    pub(super) connection: &'a str,
    pub(super) remote: String,
    pub(super) method: &'a str,
    pub(super) headers: Value,
    pub(super) query: Value,
    pub(super) verdict: Verdict,
    pub(super) mode: &'a str,
    /// Where it is decided before it is stored.
    pub(super) outcome: Option<&'a str>,
    pub(super) reason: Option<String>,
    pub(super) dedupe_key: Option<String>,
    #[serde(flatten)]
    pub(super) named: Named,
}

/// What became of it.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) id: i64,
    pub(super) outcome: Option<String>,
    /// It is decided later: a run of its record is under way.
    pub(super) waits: bool,
}

/// Stores an event with its jobs. The same one again within `window` is a duplicate.
pub(super) async fn store(db: &Db, event: &Event<'_>, body: &[u8], window: Duration) -> Result<Stored, sqlx::Error> {
    let columns = serde_json::to_value(event).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let window = PgInterval::try_from(window).map_err(sqlx::Error::Encode)?;
    sqlx::query_as!(Stored, r#"select id as "id!", outcome, waits as "waits!" from sluice.store_event($1, $2, $3)"#, columns, body, window)
        .fetch_one(db)
        .await
}

/// Counts an event that is not acted on, and keeps it among the last of its source.
pub(super) async fn refuse(db: &Db, event: &Event<'_>, body: &[u8]) -> Result<(), sqlx::Error> {
    let columns = serde_json::to_value(event).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query!("select from sluice.refuse_event($1, $2)", columns, body).execute(db).await?;
    Ok(())
}

/// One event with all that came; the body as text, where it is text.
///
/// # Errors
/// The database's.
pub async fn show(db: &Db, id: i64) -> Result<Option<Value>, sqlx::Error> {
    let row =
        sqlx::query!(r#"select to_jsonb(e) - 'body' as "row!", body from sluice.event e where id = $1"#, id).fetch_optional(db).await?;
    Ok(row.map(|mut event| {
        event.row["body"] = String::from_utf8_lossy(&event.body).into();
        event.row
    }))
}

/// By source and verdict: `events` that are kept and were not refused, those among them that `enforce` would refuse, and those that it refused.
///
/// # Errors
/// The database's.
pub async fn report(db: &Db) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select to_jsonb(r) || jsonb_build_object('would_refuse', case when r.verdict <> 'verified' then r.events else 0 end) as "row!"
           from sluice.event_report r order by source, verdict"#
    )
    .fetch_all(db)
    .await
}

/// Deletes what retention no longer covers, at most `limit` rows of each table.
///
/// # Errors
/// The database's.
pub async fn prune(db: &Db, days_kept: i32, limit: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from sluice.event where id in (
           select id from sluice.event where received_at < clock_timestamp() - make_interval(days => $1) order by received_at limit $2 for update skip locked)",
        days_kept,
        limit
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from sluice.event_seen where (source, dedupe_key) in (
           select source, dedupe_key from sluice.event_seen where seen_at < clock_timestamp() - interval '7 days' order by seen_at limit $1 for update skip locked)",
        limit
    )
    .execute(db)
    .await?;
    Ok(())
}
