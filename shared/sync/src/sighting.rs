//! Zoho records as they were read, kept until a run has acted on them (`sluice.sighting`): what a poll found, and what a run had read
//! before it was refused the call to write. The newer reading of a record always replaces the older one.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::db::Tx;

/// One record as it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct Sighting {
    /// The record; `None`: Zoho has none with this id.
    pub record: Option<Value>,
    /// Whether it shows every field that the sync maps.
    pub complete: bool,
    /// The database's time before it was asked for.
    pub seen_at: DateTime<Utc>,
    /// When Zoho answered, by its own clock.
    pub dated: Option<DateTime<Utc>>,
    /// How long ago that is.
    pub age: Duration,
    /// The run that asked.
    pub run_id: Option<i64>,
}

/// The readings of these records that are kept.
///
/// # Errors
/// When the database does not answer.
pub async fn load(tx: &mut Tx, sync: &str, zoho_ids: &[String]) -> Result<BTreeMap<String, Sighting>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select zoho_id, record, complete, seen_at, dated, run_id, extract(epoch from clock_timestamp() - seen_at)::float8 as "age!"
           from sluice.sighting where sync = $1 and zoho_id = any ($2)"#,
        sync,
        zoho_ids
    )
    .fetch_all(tx)
    .await?;
    let sighting = rows.into_iter().map(|row| {
        let age = Duration::try_from_secs_f64(row.age.max(0.0)).unwrap_or_default();
        (
            row.zoho_id,
            Sighting { record: row.record, complete: row.complete, seen_at: row.seen_at, dated: row.dated, age, run_id: row.run_id },
        )
    });
    Ok(sighting.collect())
}

/// Keeps what a page showed, and that `run_id` is to be told what becomes of each. A run whose record was still to be looked at has it taken away: it
/// counts it as unchanged, since what was read for it is not acted on any more.
///
/// # Errors
/// When the database does not answer.
pub async fn found(tx: &mut Tx, sync: &str, run_id: i64, sightings: &[(String, Sighting)]) -> Result<(), sqlx::Error> {
    keep(tx, sync, sightings).await?;
    let ids: Vec<&str> = sightings.iter().map(|(id, _)| id.as_str()).collect();
    sqlx::query!(
        "with was as (select zoho_id, run_id from sluice.sighting where sync = $1 and zoho_id = any ($2::text[]) order by zoho_id for update),
         mine as (update sluice.sighting s set run_id = $3 from was where s.sync = $1 and s.zoho_id = was.zoho_id)
         update sluice.run r set unchanged = r.unchanged + w.records
         from (select run_id, count(*) as records from was where run_id is not null group by run_id) w where r.id = w.run_id",
        sync,
        &ids as &[&str],
        run_id
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A record that `run_id` is still to be told about has to be read anew.
///
/// # Errors
/// When the database does not answer.
pub async fn owed(tx: &mut Tx, sync: &str, zoho_id: &str, run_id: i64) -> Result<(), sqlx::Error> {
    let epoch = DateTime::UNIX_EPOCH; // older than any reading, so that it replaces none
    let unread = Sighting { record: None, complete: false, seen_at: epoch, dated: None, age: Duration::ZERO, run_id: None };
    found(tx, sync, run_id, &[(zoho_id.to_owned(), unread)]).await
}

/// Keeps readings for a later run. Whom that is to tell is not changed.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(tx: &mut Tx, sync: &str, sightings: &[(String, Sighting)]) -> Result<(), sqlx::Error> {
    let rows: Vec<Value> = sightings
        .iter()
        .map(|(id, one)| serde_json::json!({"zoho_id": id, "record": one.record, "complete": one.complete, "seen_at": one.seen_at, "dated": one.dated}))
        .collect();
    sqlx::query!(
        "insert into sluice.sighting as s (sync, zoho_id, record, complete, seen_at, dated)
         select $1, n.zoho_id, nullif(n.record, 'null'), n.complete, n.seen_at, n.dated
         from jsonb_to_recordset($2) as n (zoho_id text, record jsonb, complete bool, seen_at timestamptz, dated timestamptz) order by n.zoho_id
         on conflict on constraint sighting_pkey do update set record = excluded.record, complete = excluded.complete, seen_at = excluded.seen_at, dated = excluded.dated
         where excluded.seen_at >= s.seen_at",
        sync,
        Value::Array(rows)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A reading that a run went by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The record.
    pub zoho_id: String,
    /// The database's time before it was read.
    pub seen_at: DateTime<Utc>,
    /// Nothing is left to be done for the record; else it has to be read anew.
    pub over: bool,
}

/// Forgets readings that were acted on, unless there is a newer one by now. Of the records of which nothing is left to be done, the run that is to be
/// told what became of it: it is told once, by whoever gets this answer.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, sync: &str, used: &[Used]) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let ids: Vec<&str> = used.iter().map(|one| one.zoho_id.as_str()).collect();
    let times: Vec<DateTime<Utc>> = used.iter().map(|one| one.seen_at).collect();
    let over: Vec<bool> = used.iter().map(|one| one.over).collect();
    let told = sqlx::query!(
        r#"with used as (select * from unnest($2::text[], $3::timestamptz[], $4::bool[]) as n (zoho_id, seen_at, over)),
           unread as (
             update sluice.sighting s set record = null, complete = false from used n
             where s.sync = $1 and s.zoho_id = n.zoho_id and s.seen_at <= n.seen_at and not n.over and s.run_id is not null)
           delete from sluice.sighting s using used n
           where s.sync = $1 and s.zoho_id = n.zoho_id and s.seen_at <= n.seen_at and (n.over or s.run_id is null)
           returning s.zoho_id, s.run_id"#,
        sync,
        &ids as &[&str],
        &times,
        &over
    )
    .fetch_all(tx)
    .await?;
    Ok(told.into_iter().filter_map(|row| Some((row.zoho_id, row.run_id?))).collect())
}

/// Tells runs of records that nobody looks at any more, since their jobs were cancelled or ended without a look: as failed where a dead letter says so, else as
/// unchanged. How many there were.
///
/// # Errors
/// When the database does not answer.
pub async fn abandoned(tx: &mut Tx) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        r#"with left_ as (
             delete from sluice.sighting s using (
               select s.sync, s.zoho_id, array['zoho:' || s.zoho_id, l.key] as keys
               from sluice.sighting s left join sluice.link l on l.sync = s.sync and l.zoho_id = s.zoho_id
               where not exists (select from sluice.slot t where t.sync = s.sync and t.key = 'zoho:' || s.zoho_id)
                 and not exists (select from sluice.slot t where t.sync = s.sync and t.key = l.key)
                 and not exists (select from sluice.job j where j.sync = s.sync and j.sync <> '' and j.key = 'zoho:' || s.zoho_id)
                 and not exists (select from sluice.job j where j.sync = s.sync and j.sync <> '' and j.key = l.key)
               limit 10000) a
             where s.sync = a.sync and s.zoho_id = a.zoho_id
             returning s.run_id, exists (select from sluice.dead_letter d where d.sync = a.sync and d.key = any (a.keys) and d.resolution is null) as dead)
           update sluice.run r set failed = r.failed + w.failed, unchanged = r.unchanged + w.unchanged
           from (select run_id, count(*) filter (where dead) as failed, count(*) filter (where not dead) as unchanged
                 from left_ where run_id is not null group by run_id) w
           where r.id = w.run_id"#
    )
    .execute(tx)
    .await?;
    Ok(done.rows_affected())
}
