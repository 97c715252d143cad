//! A changed key takes its link along, so that the Zoho record stays the same one.

use std::collections::BTreeSet;

use sluice_core::db::Tx;
use sluice_sync::read::{Error, Found, Reader};

use super::sift::{Move, Sifted};
use super::store::{self, Change};
use crate::definitions::Definitions;

enum Fate {
    /// The link has the new key now; the old one needs nothing.
    Moved,
    /// The old key's row is there again, or there is nothing to move: both keys are looked at.
    Both,
    /// A run under the old or the new key must end first.
    Later,
}

/// Moves links in the order of the changes, and puts back what must wait, or remembers it. Returns how many changes were put back.
pub(super) async fn follow<'a>(
    tx: &mut Tx,
    reader: &Reader,
    definitions: &Definitions,
    changes: &'a [Change],
    sifted: &mut Sifted,
) -> Result<u64, sqlx::Error> {
    let moves = std::mem::take(&mut sifted.moves);
    // Once one step of a chain waits, the rest of the same sync waits as well.
    let mut later: BTreeSet<i64> = BTreeSet::new();
    let mut waiting: BTreeSet<&str> = BTreeSet::new();
    for one in &moves {
        let fate = if waiting.contains(one.sync.as_str()) { Fate::Later } else { follow_one(tx, reader, definitions, one).await? };
        match fate {
            Fate::Both => {}
            Fate::Moved => forget(sifted, &one.sync, &one.from),
            Fate::Later => {
                forget(sifted, &one.sync, &one.from);
                forget(sifted, &one.sync, &one.to);
                later.insert(one.change);
                waiting.insert(&one.sync);
            }
        }
    }
    let numbered = changes.iter().filter_map(|change| Some((change.moved.as_ref()?.number, change)));
    let (back, settled): (Vec<_>, Vec<_>) = numbered.partition(|(number, _)| later.contains(number));
    let plain = |changes: Vec<(i64, &'a Change)>| -> Vec<&Change> { changes.into_iter().map(|(_, change)| change).collect() };
    if !back.is_empty() {
        store::put_back(tx, &plain(back)).await?;
    }
    store::remember(tx, &plain(settled)).await?;
    Ok(later.len() as u64)
}

fn forget(sifted: &mut Sifted, sync: &str, key: &str) {
    if let Some(keys) = sifted.wanted.get_mut(sync) {
        keys.remove(key);
    }
}

/// Whether no row has this key any more, or only one that is equal to it and written otherwise.
fn is_gone(found: Option<&Found>, key: &str) -> bool {
    match found {
        Some(Found::Gone) => true,
        Some(Found::Row(row)) => row.key != key,
        None => false,
    }
}

async fn follow_one(tx: &mut Tx, reader: &Reader, definitions: &Definitions, one: &Move) -> Result<Fate, sqlx::Error> {
    let Some(definition) = definitions.by_name.get(&one.sync) else { return Ok(Fate::Both) };
    let ends = [one.from.clone(), one.to.clone()];
    let link = sqlx::query!(
        r#"select zoho_id is not null as "linked!", create_sent_at is not null as "doubtful!" from sluice.link where sync = $1 and key = $2"#,
        one.sync,
        one.from
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(link) = link else { return Ok(Fate::Both) };
    match reader.rows(definition, &ends[..1]).await {
        Ok(rows) if is_gone(rows.get(&one.from), &one.from) => {}
        Ok(_) | Err(Error::Broken { .. }) => return Ok(Fate::Both),
        Err(Error::Unavailable(error)) => return Err(error),
    }
    // Slots before links, as settle locks them; a slot that somebody holds is not waited for.
    let slots = sqlx::query_scalar!(r#"select count(*) as "n!" from sluice.slot where sync = $1 and key = any ($2)"#, one.sync, &ends)
        .fetch_one(&mut *tx)
        .await?;
    let free = sqlx::query_scalar!(
        "select key from sluice.slot where sync = $1 and key = any ($2) and state = 'available' order by key for update skip locked",
        one.sync,
        &ends
    )
    .fetch_all(&mut *tx)
    .await?;
    let running = slots > i64::try_from(free.len()).unwrap_or(i64::MAX);
    if running || (!link.linked && link.doubtful && free.contains(&one.from)) {
        return Ok(Fate::Later);
    }
    let moved = sqlx::query!(
        // Zoho's record goes on carrying the reference that it was created with; so does one that a lost create may have left.
        "update sluice.link l set key = $3, reference = nullif(coalesce(l.reference, l.sync || ':' || l.key), l.sync || ':' || $3) where l.sync = $1 and l.key = $2 and (l.zoho_id is not null or l.creates > 0)
           and not exists (select from sluice.link o where o.sync = $1 and o.key = $3)",
        one.sync,
        one.from,
        one.to
    )
    .execute(tx)
    .await?;
    Ok(if moved.rows_affected() == 1 { Fate::Moved } else { Fate::Both })
}
