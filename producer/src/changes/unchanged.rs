//! Changes that change nothing: the row, as it is now, equals what both sides agreed on. No job, no call.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use sluice_core::db::Tx;
use sluice_sync::definition::Definition;
use sluice_sync::link::store as links;
use sluice_sync::plan::{self, Facts, Step};
use sluice_sync::read::{Error, Found, Reader};

use super::sift::Sifted;
use crate::definitions::Definitions;

/// How long one drain may read rows to find out that nothing is to be done for them. Other syncs' changes wait meanwhile; a job for what is in doubt costs
/// a worker what it would cost here.
const LIMIT: Duration = Duration::from_millis(500);

/// Rows that are read in one go.
const READ: usize = 500;

/// Drops the wanted records that need nothing. Whatever is in doubt stays, and so does what [`LIMIT`] leaves no time for.
pub(super) async fn drop_equal(tx: &mut Tx, reader: &Reader, definitions: &Definitions, sifted: &mut Sifted) -> Result<(), sqlx::Error> {
    let started = Instant::now();
    for (sync, wanted) in &mut sifted.wanted {
        let Some(definition) = definitions.by_name.get(sync) else { continue };
        let keys: Vec<String> = wanted.keys().cloned().collect();
        let candidates = at_rest(tx, sync, &keys).await?;
        for keys in candidates.chunks(READ) {
            let left = LIMIT.saturating_sub(started.elapsed());
            // a limit of less than a millisecond would be none
            if left < Duration::from_millis(1) {
                return Ok(());
            }
            let rows = match reader.clone().with_limits(left, left / 2).rows(definition, keys).await {
                Ok(rows) => rows,
                // The run will say what is wrong, in a dead letter.
                Err(Error::Broken { .. } | Error::Unavailable(sqlx::Error::Database(_))) => break,
                Err(Error::Unavailable(error)) => return Err(error),
            };
            for key in equal(tx, definition, &rows).await? {
                if let Some(changes) = wanted.remove(&key) {
                    *sifted.avoided.entry(sync.clone()).or_default() += changes;
                    sifted.equal.entry(sync.clone()).or_default().push(key);
                }
            }
        }
    }
    Ok(())
}

/// The linked records without a slot and without what only a run ends: an open dead letter, and being held.
async fn at_rest(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select k.key as "key!" from unnest($2::text[]) as k (key)
           where exists (select from sluice.link l where l.sync = $1 and l.key = k.key and l.zoho_id is not null and l.synced_at is not null and not l.held and not l.unsure)
             and not exists (select from sluice.slot s where s.sync = $1 and s.key = k.key)
             and not exists (select from sluice.dead_letter d where d.sync = $1 and d.key = k.key and d.resolution is null)"#,
        sync,
        keys
    )
    .fetch_all(tx)
    .await
}

/// Of the rows that were read, the keys that need nothing. Slots are looked at after the rows and before the links: a run that read an
/// older row has either a slot now, or has written its link by now.
async fn equal(tx: &mut Tx, definition: &Definition, rows: &BTreeMap<String, Found>) -> Result<Vec<String>, sqlx::Error> {
    let keys: Vec<String> = rows.keys().cloned().collect();
    let still: BTreeSet<String> = at_rest(tx, definition.name(), &keys).await?.into_iter().collect();
    let keys: Vec<String> = keys.into_iter().filter(|key| still.contains(key)).collect();
    let links = links::load(tx, definition.name(), &keys).await?;
    let refs: Vec<_> =
        rows.values().filter_map(|found| if let Found::Row(row) = found { Some(row.refs()) } else { None }).flatten().collect();
    let parents = links::parents(tx, &refs).await?;
    let leave_out = BTreeSet::new();
    let needs_nothing = |key: &String| {
        let row = match rows.get(key) {
            Some(Found::Row(row)) => Some(row),
            Some(Found::Gone) => None,
            None => return false,
        };
        let facts = Facts { row, link: links.get(key), parents: &parents, leave_out: &leave_out, repair: &leave_out, force: false };
        matches!(plan::decide(definition, facts), Step::Nothing(_))
    };
    Ok(keys.into_iter().filter(needs_nothing).collect())
}
