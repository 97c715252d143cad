//! What a settle writes besides the queue's own part and the links.

use std::collections::BTreeMap;

use serde_json::json;
use sluice_core::db::{Db, Tx};
use sluice_queue::Outcome;
use sluice_queue::store::add_avoided;
use sluice_sync::link::store::{Agreed, LOOK_AGAIN_AFTER_SECONDS};
use sqlx::types::Json;

use crate::work::{CallResult, Handled, Work};

/// Asks for the second look at records that came of a repeated create.
pub(super) async fn look_again_later(tx: &mut Tx, sync: &str, agreed: &[Agreed]) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = agreed.iter().filter(|a| a.look_again).map(|a| a.key.clone()).collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into sluice.job (kind, args, lane, run_at)
         select 'push', jsonb_build_object('sync', $1::text, 'key', k), 'reconcile', clock_timestamp() + make_interval(secs => $3) from unnest($2::text[]) k",
        sync,
        &keys,
        f64::from(LOOK_AGAIN_AFTER_SECONDS + 1)
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Asks for parents, in the child's lane; one that is already asked for coalesces.
pub(super) async fn push_parents(tx: &mut Tx, parents: &[(String, String)], lane: &str) -> Result<(), sqlx::Error> {
    if parents.is_empty() {
        return Ok(());
    }
    let (syncs, keys): (Vec<String>, Vec<String>) = parents.iter().cloned().unzip();
    sqlx::query!(
        "insert into sluice.job (kind, args, lane)
         select distinct 'push', jsonb_build_object('sync', p.sync, 'key', p.key), $3 from unnest($1::text[], $2::text[]) as p (sync, key)
         where not exists (select from sluice.slot s where s.sync = p.sync and s.key = p.key)",
        &syncs,
        &keys,
        lane
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes in the links of these keys what somebody else's write made of their records, and asks for a run of each. Before the batch is settled and by
/// itself, so that no crash between the two forgets it and links are locked in one order.
pub(super) async fn overwritten(db: &Db, sync: &str, by: &BTreeMap<String, Agreed>, lane: &str) -> Result<(), sqlx::Error> {
    if by.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = by.keys().cloned().collect();
    let rows: Vec<_> =
        by.iter().map(|(key, is)| json!({"key": key, "fields": is.fields, "zoho_modified_at": is.zoho_modified_at})).collect();
    let mut tx = db.begin().await?;
    sqlx::query!(
        "update sluice.link l set fields = l.fields || k.fields, zoho_modified_at = greatest(l.zoho_modified_at, k.zoho_modified_at)
         from (select n.key, n.fields, n.zoho_modified_at from sluice.link o
               join jsonb_to_recordset($2) as n(key text, fields jsonb, zoho_modified_at timestamptz) on n.key = o.key
               where o.sync = $1 order by o.key for update of o) k
         where l.sync = $1 and l.key = k.key",
        sync,
        Json(rows) as _
    )
    .execute(&mut tx)
    .await?;
    sqlx::query!(
        "insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', $1::text, 'key', k), $3 from unnest($2::text[]) k",
        sync,
        &keys,
        lane
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await
}

/// Keeps the answer of a `call` job, for seven days.
pub(super) async fn keep_call_result(tx: &mut Tx, result: &CallResult) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.call_result (job_id, http_status, body) values ($1, $2, $3)
         on conflict (job_id) do update set http_status = excluded.http_status, body = excluded.body, answered_at = clock_timestamp()",
        result.job_id,
        i32::from(result.http_status),
        result.body
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Counts the calls that were not made: records that needed none, and records that shared one.
pub(super) async fn count_avoided(tx: &mut Tx, sync: &str, work: &Work, handled: &Handled) -> Result<(), sqlx::Error> {
    let mut unneeded = std::collections::BTreeMap::new();
    let mut carried = 0_i64;
    for settlement in &handled.settlements {
        match &settlement.outcome {
            Outcome::Done { reason: Some(reason) } => *unneeded.entry(*reason).or_insert(0_i64) += 1,
            Outcome::Done { reason: None } => carried += 1,
            Outcome::Continue { .. } | Outcome::Retry(_) | Outcome::Snooze { .. } | Outcome::Wait { .. } | Outcome::Dead(_) => {}
        }
    }
    let shared = carried - i64::from(work.calls.made());
    if shared > 0 {
        unneeded.insert("batched", shared);
    }
    for (reason, calls) in unneeded {
        add_avoided(&mut *tx, sync, reason, calls).await?;
    }
    Ok(())
}
