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

/// Keeps readings.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(tx: &mut Tx, sync: &str, sightings: &[(String, Sighting)]) -> Result<(), sqlx::Error> {
    let rows: Vec<Value> = sightings
        .iter()
        .map(|(id, one)| serde_json::json!({"zoho_id": id, "record": one.record, "complete": one.complete, "seen_at": one.seen_at, "dated": one.dated, "run_id": one.run_id}))
        .collect();
    sqlx::query!(
        "insert into sluice.sighting as s (sync, zoho_id, record, complete, seen_at, dated, run_id)
         select $1, n.zoho_id, nullif(n.record, 'null'), n.complete, n.seen_at, n.dated, n.run_id
         from jsonb_to_recordset($2) as n (zoho_id text, record jsonb, complete bool, seen_at timestamptz, dated timestamptz, run_id bigint) order by n.zoho_id
         on conflict on constraint sighting_pkey do update set record = excluded.record, complete = excluded.complete, seen_at = excluded.seen_at, dated = excluded.dated,
           run_id = coalesce(excluded.run_id, s.run_id)
         where excluded.seen_at >= s.seen_at",
        sync,
        Value::Array(rows)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets readings that were acted on, unless there is a newer one by now.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, sync: &str, acted_on: &[(String, DateTime<Utc>)]) -> Result<(), sqlx::Error> {
    let (ids, times): (Vec<String>, Vec<DateTime<Utc>>) = acted_on.iter().cloned().unzip();
    sqlx::query!(
        "delete from sluice.sighting s using unnest($2::text[], $3::timestamptz[]) as n (zoho_id, seen_at)
         where s.sync = $1 and s.zoho_id = n.zoho_id and s.seen_at <= n.seen_at",
        sync,
        &ids,
        &times
    )
    .execute(tx)
    .await?;
    Ok(())
}
