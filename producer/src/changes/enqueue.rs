//! Jobs for the records that changed: one statement for all of them.

use std::collections::BTreeMap;

use sluice_core::db::Tx;

type Wanted = BTreeMap<String, BTreeMap<String, u64>>;

/// Inserts a `push` for each record, in the lane of its sync. The rows are whole, keys canonical, so the check that others' inserts go
/// through, at ten times the price, has nothing to do. A sync that was retired a moment ago gets none.
pub(super) async fn enqueue(tx: &mut Tx, wanted: &Wanted) -> Result<u64, sqlx::Error> {
    let records = wanted.iter().flat_map(|(sync, keys)| keys.keys().map(move |key| (sync.clone(), key.clone())));
    let (syncs, keys): (Vec<String>, Vec<String>) = records.unzip();
    if syncs.is_empty() {
        return Ok(0);
    }
    let inserted = sqlx::query!(
        "insert into sluice.job (kind, args, lane, run_at, shape_id, sync, key)
         select 'push', jsonb_build_object('sync', w.sync, 'key', w.key), y.lane, clock_timestamp(), s.id, w.sync, w.key
         from unnest($1::text[], $2::text[]) as w (sync, key)
         join sluice.sync y on y.name = w.sync and y.retired_at is null
         join sluice.shape s on s.sync = w.sync and s.kind in ('push', 'pull')",
        &syncs,
        &keys
    )
    .execute(tx)
    .await?;
    Ok(inserted.rows_affected())
}
