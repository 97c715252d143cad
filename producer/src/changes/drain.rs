//! One step of the listener: a transaction that takes changes and leaves jobs.

use sluice_core::db::Db;
use sluice_sync::read::Reader;

use super::brake::Brakes;
use super::{enqueue, moved, sift, store, unchanged};
use crate::definitions::Definitions;

/// The most changes that one transaction takes.
pub const MAX_CHANGES: u16 = 5000;

/// What one drain did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drained {
    /// Changes taken.
    pub taken: u64,
    /// Of these, put back because a run on their record must end first.
    pub deferred: u64,
    /// Jobs inserted.
    pub jobs: u64,
    /// Changes that need no call: no mapped column, or no mapped value, differs.
    pub avoided: u64,
    /// Held for a person: changes that could not be read, and records that a brake holds.
    pub held: u64,
}

impl Drained {
    /// Whether looking again at once is worth it.
    pub fn progressed(&self) -> bool {
        self.taken > self.deferred
    }
}

/// Takes at most [`MAX_CHANGES`] changes that concern syncs on which this replica agrees, and enqueues what they ask for.
///
/// The order matters. The changes are gone before rows are read, so a later change is always seen later. A change is dropped only if the
/// row, read afterwards, equals the link as it stands after a look that found no slot: a run that began earlier would have one, and one
/// that begins later reads the row itself.
///
/// # Errors
/// The database's; then nothing was taken.
pub async fn drain_once(db: &Db, reader: &Reader, definitions: &Definitions) -> Result<Drained, sqlx::Error> {
    let mut tx = db.begin().await?;
    let brakes = Brakes::take(&mut tx, definitions).await?;
    let changes = store::take(&mut tx, definitions, brakes.busy(), MAX_CHANGES.into()).await?;
    if changes.is_empty() && !brakes.gathering() {
        tx.rollback().await?;
        return Ok(Drained::default());
    }
    let taken = changes.iter().map(|change| change.changes).sum();
    let agreed = store::agreed(&mut tx, definitions, brakes.busy()).await?;
    let mut sifted = sift::sift(reader, definitions, &agreed, &changes).await?;
    let deferred = moved::follow(&mut tx, reader, definitions, &changes, &mut sifted).await?;
    unchanged::drop_equal(&mut tx, reader, definitions, &mut sifted).await?;
    let braked = brakes.apply(&mut tx, reader, definitions, &agreed, &mut sifted, taken >= u64::from(MAX_CHANGES)).await?;
    let jobs = enqueue::enqueue(&mut tx, &sifted.wanted).await?;
    store::hold(&mut tx, &sifted.held).await?;
    store::count_avoided(&mut tx, &sifted.avoided).await?;
    tx.commit().await?;
    Ok(Drained { taken, deferred, jobs, avoided: sifted.avoided.values().sum(), held: sifted.held.len() as u64 + braked })
}
