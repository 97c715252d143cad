//! One step of the listener: a transaction that takes changes and leaves jobs.

use std::collections::BTreeSet;

use sluice_core::db::{Db, Tx, message};
use sluice_sync::read::Reader;

use super::brake::Brakes;
use super::held::Held;
use super::store::Change;
use super::{enqueue, isolate, moved, sift, store, unchanged};
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

/// How much a drain takes, and what it does about an error that does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gulp {
    /// At most so many changes; with an error nothing is taken.
    Up(u16),
    /// One change, with the changed keys that go before it. With an error it is held, and told.
    Suspect,
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
    drain(db, reader, definitions, Gulp::Up(MAX_CHANGES)).await.map(|(drained, _)| drained)
}

/// A drain of that size. With what it did, whether that was to hold the suspect.
pub(super) async fn drain(db: &Db, reader: &Reader, definitions: &Definitions, gulp: Gulp) -> Result<(Drained, bool), sqlx::Error> {
    let limit = match gulp {
        Gulp::Up(limit) => limit,
        Gulp::Suspect => 1,
    };
    let mut tx = db.begin().await?;
    let brakes = Brakes::take(&mut tx, definitions).await?;
    let changes = store::take(&mut tx, definitions, brakes.busy(), limit.into()).await?;
    if changes.is_empty() && !brakes.gathering() {
        tx.rollback().await?;
        return Ok((Drained::default(), false));
    }
    let agreed = store::agreed(&mut tx, definitions, brakes.busy()).await?;
    let drawn = Drawn { reader, definitions, brakes: &brakes, agreed: &agreed, limit };
    let drained = match gulp {
        Gulp::Up(_) => (drawn.turn(&mut tx, &changes).await?, false),
        Gulp::Suspect => drawn.turn_or_hold(&mut tx, &changes).await?,
    };
    tx.commit().await?;
    Ok(drained)
}

/// What has been taken is turned into jobs by these.
struct Drawn<'a> {
    reader: &'a Reader,
    definitions: &'a Definitions,
    brakes: &'a Brakes,
    agreed: &'a BTreeSet<String>,
    limit: u16,
}

impl Drawn<'_> {
    async fn turn(&self, tx: &mut Tx, changes: &[Change]) -> Result<Drained, sqlx::Error> {
        let &Self { reader, definitions, brakes, agreed, limit } = self;
        let taken = changes.iter().map(|change| change.changes).sum();
        let mut sifted = sift::sift(reader, definitions, agreed, changes).await?;
        let deferred = moved::follow(tx, reader, definitions, changes, &mut sifted).await?;
        unchanged::drop_equal(tx, reader, definitions, &mut sifted).await?;
        let braked = brakes.apply(tx, reader, definitions, agreed, &mut sifted, taken >= u64::from(limit)).await?;
        let jobs = enqueue::enqueue(tx, &sifted.wanted).await?;
        let held = sifted.held.len() + braked;
        sifted.held.store(tx).await?;
        store::count_avoided(tx, &sifted.avoided).await?;
        Ok(Drained { taken, deferred, jobs, avoided: sifted.avoided.values().sum(), held })
    }

    /// The last resort for what nobody foresaw: one change must not stop all others. It is held only if all goes well without it, or the fault is not its own.
    async fn turn_or_hold(&self, tx: &mut Tx, changes: &[Change]) -> Result<(Drained, bool), sqlx::Error> {
        sqlx::query("savepoint sluice_suspect").execute(&mut *tx).await?;
        let error = match self.turn(tx, changes).await {
            Ok(drained) => return Ok((drained, false)),
            Err(error) if isolate::passes(&error) => return Err(error),
            Err(error) => error,
        };
        sqlx::query("rollback to savepoint sluice_suspect").execute(&mut *tx).await?;
        if self.turn(tx, &[]).await.is_err() {
            return Err(error);
        }
        let mut held = Held::default();
        isolate::hold(&mut held, self.definitions, self.agreed, changes, &message(&error));
        let numbered: Vec<&Change> = changes.iter().filter(|change| change.moved.is_some()).collect();
        store::remember(tx, &numbered).await?;
        let drained = Drained { taken: changes.iter().map(|change| change.changes).sum(), held: held.len(), ..Drained::default() };
        held.store(tx).await?;
        tracing::error!(error = message(&error), "a change could not be turned into a job and is held: sluice held list");
        Ok((drained, true))
    }
}
