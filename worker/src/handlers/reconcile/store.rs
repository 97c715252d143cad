//! The tables of a sweep: links that it looked at, its run.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::db::{Db, Tx};
use sluice_sync::link::Pairs;

pub(super) async fn now(db: &Db) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(db).await
}

/// The sync's run that is under way, or a new one.
pub(super) async fn run(tx: &mut Tx, sync: &str, worker: &str) -> Result<i64, sqlx::Error> {
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('sluice.reconcile ' || $1, 0))", sync).execute(&mut *tx).await?;
    sqlx::query_scalar!(
        r#"with open as (select id from sluice.run where kind = 'reconcile' and sync = $1 and state = 'running'),
             made as (insert into sluice.run (kind, sync, asked_by) select 'reconcile', $1, $2 where not exists (select from open) returning id)
           select id as "id!" from open union all select id from made"#,
        sync,
        worker
    )
    .fetch_one(tx)
    .await
}

/// Pairs that the list has shown to be otherwise: (key, as they were, as they are now). What was agreed on anew meanwhile stays.
pub(super) async fn agree(tx: &mut Tx, sync: &str, pairs: &[(String, Pairs, Pairs)]) -> Result<(), sqlx::Error> {
    if pairs.is_empty() {
        return Ok(());
    }
    let rows: Vec<Value> = pairs.iter().map(|(key, was, is)| json!({"key": key, "was": was, "now": is})).collect();
    sqlx::query!(
        r#"with given as (select * from jsonb_to_recordset($2) as g (key text, was jsonb, "now" jsonb)),
             locked as (select l.key from sluice.link l join given g on g.key = l.key where l.sync = $1 order by l.key for update of l)
           update sluice.link l set fields = l.fields || g."now" from given g join locked k on k.key = g.key
           where l.sync = $1 and l.key = g.key and l.fields @> g.was"#,
        sync,
        Value::Array(rows)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The list has shown these links' records; of some it said what the link says.
pub(super) async fn looked_at(
    tx: &mut Tx,
    sync: &str,
    began: DateTime<Utc>,
    seen: &[String],
    verified: &[String],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.link l set seen_at = $2, verified_at = case when l.key = any ($4) then clock_timestamp() else l.verified_at end
         from (select key from sluice.link where sync = $1 and key = any ($3) order by key for update) k
         where l.sync = $1 and l.key = k.key",
        sync,
        began,
        seen,
        verified
    )
    .execute(tx)
    .await?;
    Ok(())
}

pub(super) async fn end_run(tx: &mut Tx, run_id: i64, state: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.run set state = $2, finished_at = clock_timestamp() where id = $1", run_id, state).execute(tx).await?;
    Ok(())
}

/// The run under way has failed.
pub(super) async fn fail_run(tx: &mut Tx, sync: &str, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.run set state = 'failed', finished_at = clock_timestamp(), messages = messages || $2
         where kind = 'reconcile' and sync = $1 and state = 'running'",
        sync,
        json!([why])
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A held change, which a person is told of. It names no record yet.
pub(super) async fn hold(tx: &mut Tx, sync: &str, operation: &str, reason: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with held as (insert into sluice.held_change (sync, reason, operation, records) values ($1, $2, $3, 0) returning id),
             told as (insert into sluice.alert (occasion, subject, message)
               select 'brake', $1, format('%s: %s. See: sluice held show %s', $1::text, $2::text, id) from held)
           select id as "id!" from held"#,
        sync,
        reason,
        operation
    )
    .fetch_one(tx)
    .await
}
