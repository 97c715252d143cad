//! How far a sync's sweep is (`sluice.reconcile_cursor`). Apart from the poll's cursor: a sweep looks at everything, and neither moves the other.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sluice_core::db::Tx;
use sqlx::types::Json;

use crate::cursor::Walk;

/// The place of a sweep that is under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Place {
    /// The run that it belongs to.
    pub run_id: i64,
    /// The database's time when it began.
    pub began: DateTime<Utc>,
    /// Where Zoho's list goes on; `None`: it is at its end, or is not looked at.
    pub walk: Option<Walk>,
    /// The page before said that this one follows.
    pub promised: bool,
    /// Why the list is not known to be complete.
    pub incomplete: Option<String>,
    /// Something of it waits for a person.
    pub held: bool,
    /// Records found to differ.
    pub drift: i64,
    /// The table's key that was looked at last.
    pub after: Option<String>,
}

/// What is known of a sync's sweeps.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// The sweep that is under way.
    pub place: Option<Place>,
    /// Pages of the list that were asked for today (UTC).
    pub calls: i32,
    /// The database's time now.
    pub now: DateTime<Utc>,
    /// Seconds until the day ends.
    pub day_ends_in: f64,
}

/// Where the sync's sweep is. A place whose run has ended is none.
///
/// # Errors
/// When the database does not answer.
pub async fn load(tx: &mut Tx, sync: &str) -> Result<Cursor, sqlx::Error> {
    let row = sqlx::query!(
        r#"select case when exists (select from sluice.run r where r.id = (c.place ->> 'run_id')::bigint and r.state = 'running') then c.place end as "place?: Json<Place>",
             case when c.calls_on = (one.now at time zone 'UTC')::date then c.calls end as "calls?", one.now as "now!",
             extract(epoch from date_trunc('day', one.now at time zone 'UTC') + interval '1 day' - one.now at time zone 'UTC')::float8 as "day_ends_in!"
           from (select clock_timestamp() as now) one left join sluice.reconcile_cursor c on c.sync = $1"#,
        sync
    )
    .fetch_one(tx)
    .await?;
    Ok(Cursor { place: row.place.map(|place| place.0), calls: row.calls.unwrap_or(0), now: row.now, day_ends_in: row.day_ends_in })
}

/// Keeps the place of a sweep, and counts the pages that were asked for since.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(tx: &mut Tx, sync: &str, place: &Place, calls: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.reconcile_cursor as c (sync, place, calls, calls_on) values ($1, $2, $3, (clock_timestamp() at time zone 'UTC')::date)
         on conflict on constraint reconcile_cursor_pkey do update set place = excluded.place, calls_on = excluded.calls_on,
           calls = case when c.calls_on = excluded.calls_on then c.calls else 0 end + excluded.calls",
        sync,
        Json(place) as _,
        calls
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends a sweep. Only one that saw everything counts as one.
///
/// # Errors
/// When the database does not answer.
pub async fn end(tx: &mut Tx, sync: &str, place: &Place, complete: bool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.reconcile_cursor set place = null, ended_at = clock_timestamp(), drift = $2,
           began_at = case when $4 then $3 else began_at end, completed_at = case when $4 then clock_timestamp() else completed_at end
         where sync = $1",
        sync,
        place.drift,
        place.began,
        complete
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets a sweep that gave up: the next one begins anew.
///
/// # Errors
/// When the database does not answer.
pub async fn give_up(tx: &mut Tx, sync: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.reconcile_cursor set place = null, ended_at = clock_timestamp() where sync = $1", sync)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("delete from sluice.drift where sync = $1", sync).execute(tx).await?;
    Ok(())
}
