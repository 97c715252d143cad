//! Jobs for the records that changed: one statement for all of them.

use std::collections::BTreeMap;

use serde_json::json;
use sluice_core::db::Tx;

use super::store::Held;

type Wanted = BTreeMap<String, BTreeMap<String, u64>>;

/// Inserts a `push` for each record, in the lane of its sync. A record that the insert refuses is returned to be held; it never keeps the
/// others from their jobs.
pub(super) async fn enqueue(tx: &mut Tx, wanted: &Wanted) -> Result<(u64, Vec<Held>), sqlx::Error> {
    let (syncs, keys): (Vec<String>, Vec<String>) =
        wanted.iter().flat_map(|(sync, keys)| keys.keys().map(move |key| (sync.clone(), key.clone()))).unzip();
    if syncs.is_empty() {
        return Ok((0, Vec::new()));
    }
    sqlx::query("savepoint jobs").execute(&mut *tx).await?;
    match insert(tx, &syncs, &keys).await {
        Ok(jobs) => Ok((jobs, Vec::new())),
        Err(sqlx::Error::Database(refusal)) if is_refusal(&*refusal) => {
            sqlx::query("rollback to savepoint jobs").execute(&mut *tx).await?;
            one_by_one(tx, &syncs, &keys).await
        }
        Err(error) => Err(error),
    }
}

async fn insert(tx: &mut Tx, syncs: &[String], keys: &[String]) -> Result<u64, sqlx::Error> {
    let inserted = sqlx::query!(
        "insert into sluice.job (kind, args)
         select 'push', jsonb_build_object('sync', w.sync, 'key', w.key) from unnest($1::text[], $2::text[]) as w (sync, key)",
        syncs,
        keys
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected())
}

async fn one_by_one(tx: &mut Tx, syncs: &[String], keys: &[String]) -> Result<(u64, Vec<Held>), sqlx::Error> {
    let mut jobs = 0;
    let mut held = Vec::new();
    for (sync, key) in syncs.iter().zip(keys) {
        sqlx::query("savepoint one").execute(&mut *tx).await?;
        match insert(tx, std::slice::from_ref(sync), std::slice::from_ref(key)).await {
            Ok(inserted) => jobs += inserted,
            Err(sqlx::Error::Database(refusal)) if is_refusal(&*refusal) => {
                sqlx::query("rollback to savepoint one").execute(&mut *tx).await?;
                held.push(Held { sync: sync.clone(), reason: refusal.message().to_owned(), operation: "key", sample: json!([key]) });
            }
            Err(error) => return Err(error),
        }
        sqlx::query("release savepoint one").execute(&mut *tx).await?;
    }
    Ok((jobs, held))
}

/// What `sluice.check_job` raises for a row that it does not take.
fn is_refusal(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.code().as_deref() == Some("22023")
}
