//! Brakes: a mass change becomes no jobs before a person has seen it.
//!
//! `[syncs.NAME] brake` says how many records may change, or be deleted, within a time. What goes beyond is held with its keys until
//! `sluice.approve` or `sluice.reject`. A statement over many rows is taken in several gulps, so while a gulp is full, what a brake might hold is
//! gathered: none of it is sent until all of it was seen. What needs no call is never counted.
//!
//! One producer at a time works on the brake of a sync, others leave that sync's tables to it for as long; nobody waits. A person who approves in an
//! open transaction holds nobody up either: what comes meanwhile is held by itself.

use std::collections::{BTreeMap, BTreeSet};

use sluice_core::config::sync::Brake;
use sluice_core::config::units::{Limit, format_duration};
use sluice_core::db::Tx;
use sluice_sync::definition::Definition;
use sluice_sync::read::Reader;

use super::sift::Sifted;
use crate::definitions::Definitions;

mod judge;
mod store;

use judge::Judged;

/// Records that a held change shows.
const SAMPLE: usize = 10;

/// Which limit a record falls under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It is created or updated in Zoho.
    Change,
    /// It is deleted, voided or marked in Zoho.
    Delete,
}

impl Class {
    const ALL: [Self; 2] = [Self::Change, Self::Delete];

    fn as_str(self) -> &'static str {
        match self {
            Self::Change => "change",
            Self::Delete => "delete",
        }
    }
}

/// The brakes on which this drain works, and what they hold.
#[derive(Debug)]
pub(super) struct Brakes {
    mine: BTreeSet<String>,
    busy: BTreeSet<String>,
    open: Vec<store::Open>,
}

/// One sync while its brake is applied.
struct Applied<'a> {
    definition: &'a Definition,
    open: Vec<&'a store::Open>,
    /// The gulp was full: there may be more.
    full: bool,
    held: u64,
}

impl Brakes {
    /// Takes the brakes that nobody else works on: of syncs that have one, and of those of which something is held.
    pub(super) async fn take(tx: &mut Tx, definitions: &Definitions) -> Result<Self, sqlx::Error> {
        let (mine, busy) = store::lock(tx, definitions).await?;
        let open = if mine.is_empty() { Vec::new() } else { store::open(tx, &mine).await? };
        Ok(Self { mine, busy, open })
    }

    /// The syncs that are another producer's for as long as its drain lasts.
    pub(super) fn busy(&self) -> &BTreeSet<String> {
        &self.busy
    }

    /// Whether something waits for the end of a mass change, and so for this drain even if nothing else came.
    pub(super) fn gathering(&self) -> bool {
        self.open.iter().any(|open| open.gathering)
    }

    /// Takes out of `sifted.wanted` what is held, and puts in what is no longer. Returns how many records are held now that were not before.
    pub(super) async fn apply(
        &self,
        tx: &mut Tx,
        reader: &Reader,
        definitions: &Definitions,
        agreed: &BTreeSet<String>,
        sifted: &mut Sifted,
        full: bool,
    ) -> Result<u64, sqlx::Error> {
        let mut held = 0;
        for sync in self.mine.intersection(agreed) {
            let Some(definition) = definitions.by_name.get(sync) else { continue };
            let open: Vec<_> = self.open.iter().filter(|open| open.sync == *sync).collect();
            let wanted = sifted.wanted.entry(sync.clone()).or_default();
            if open.is_empty() && wanted.is_empty() {
                continue;
            }
            if !open.is_empty() {
                let equal = sifted.equal.get(sync).map_or(&[][..], Vec::as_slice);
                store::leave(tx, sync, equal).await?;
            }
            let mut applied = Applied { definition, open, full, held: 0 };
            applied.apply(tx, reader, wanted).await?;
            held += applied.held;
        }
        Ok(held)
    }
}

impl Applied<'_> {
    async fn apply(&mut self, tx: &mut Tx, reader: &Reader, wanted: &mut BTreeMap<String, u64>) -> Result<(), sqlx::Error> {
        let sync = self.definition.name();
        let keys: Vec<String> = wanted.keys().cloned().collect();
        let held = if self.open.is_empty() { BTreeMap::new() } else { store::held(tx, sync, &keys).await? };
        let asked = match self.definition.sync.brake {
            Some(_) => keys,
            None => held.keys().cloned().collect(),
        };
        let mut left = Vec::new();
        let mut fresh: BTreeMap<Class, Vec<Judged>> = BTreeMap::new();
        for one in judge::judge(tx, reader, self.definition, &asked).await? {
            match held.get(&one.key) {
                // A later edit of a held record: the push that is approved, or not, is of the row as it is then.
                Some(class) if *class == Some(one.class) => drop(wanted.remove(&one.key)),
                other => {
                    left.extend(other.map(|_| one.key.clone()));
                    fresh.entry(one.class).or_default().push(one);
                }
            }
        }
        store::leave(tx, sync, &left).await?;
        for class in Class::ALL {
            self.limit(tx, class, fresh.remove(&class).unwrap_or_default(), wanted).await?;
        }
        Ok(())
    }

    /// Lets the records of one class through, or holds them.
    async fn limit(
        &mut self,
        tx: &mut Tx,
        class: Class,
        fresh: Vec<Judged>,
        wanted: &mut BTreeMap<String, u64>,
    ) -> Result<(), sqlx::Error> {
        let sync = self.definition.name();
        let (gathered, overdue) = self.gathered(tx, class).await?;
        let Some(limit) = self.allowed(tx, class).await? else {
            for key in store::release(tx, gathered).await? {
                wanted.insert(key, 1);
            }
            return Ok(());
        };
        let mut gathering = gathered;
        if !fresh.is_empty() && (gathering.is_some() || self.full) {
            let id = match gathering {
                Some(id) => id,
                None => store::begin(tx, sync, class).await?,
            };
            self.hold(tx, id, fresh, wanted).await?;
            gathering = Some(id);
        } else if !fresh.is_empty() {
            let keys: Vec<String> = fresh.iter().map(|one| one.key.clone()).collect();
            let passed = store::passed(tx, sync, class, limit.per, &keys).await?;
            if limit.exceeded_by(passed, keys.len() as u64) {
                let (id, joined) = match self.joinable(tx, class).await? {
                    Some(id) => (id, true),
                    None => (store::begin(tx, sync, class).await?, false),
                };
                self.hold(tx, id, fresh, wanted).await?;
                if !joined {
                    store::trip(tx, sync, id, &limit.reason(class, passed, keys.len() as u64)).await?;
                }
            } else {
                store::pass(tx, sync, class, limit.per, &keys).await?;
            }
        }
        match gathering {
            Some(id) if !self.full || overdue => self.decide(tx, id, class, &limit, wanted).await,
            _ => Ok(()),
        }
    }

    /// All of it was seen: it is a mass change, or it goes on as if it had come at once.
    async fn decide(
        &mut self,
        tx: &mut Tx,
        id: i64,
        class: Class,
        limit: &Allowed,
        wanted: &mut BTreeMap<String, u64>,
    ) -> Result<(), sqlx::Error> {
        let sync = self.definition.name();
        let keys = store::keys_of(tx, id).await?;
        let count = keys.len() as u64;
        let passed = store::passed(tx, sync, class, limit.per, &keys).await?;
        if limit.exceeded_by(passed, count) {
            return match self.joinable(tx, class).await? {
                Some(other) => store::merge(tx, id, other).await,
                None => store::trip(tx, sync, id, &limit.reason(class, passed, count)).await,
            };
        }
        store::pass(tx, sync, class, limit.per, &keys).await?;
        self.held = self.held.saturating_sub(count);
        wanted.extend(store::release(tx, Some(id)).await?.into_iter().map(|key| (key, 1)));
        Ok(())
    }

    async fn hold(&mut self, tx: &mut Tx, id: i64, fresh: Vec<Judged>, wanted: &mut BTreeMap<String, u64>) -> Result<(), sqlx::Error> {
        for one in &fresh {
            wanted.remove(&one.key);
        }
        self.held += fresh.len() as u64;
        store::add(tx, self.definition.name(), id, &fresh).await
    }

    /// What is being gathered of this class, and whether that goes on for too long.
    async fn gathered(&self, tx: &mut Tx, class: Class) -> Result<(Option<i64>, bool), sqlx::Error> {
        for open in self.open.iter().filter(|open| open.gathering && open.class == Some(class)) {
            if store::lock_held(tx, open.id).await? {
                return Ok((Some(open.id), open.overdue));
            }
        }
        Ok((None, false))
    }

    /// A held change of this class that nobody is deciding just now.
    async fn joinable(&self, tx: &mut Tx, class: Class) -> Result<Option<i64>, sqlx::Error> {
        for open in self.open.iter().filter(|open| !open.gathering && open.class == Some(class)) {
            if store::lock_held(tx, open.id).await? {
                return Ok(Some(open.id));
            }
        }
        Ok(None)
    }

    async fn allowed(&self, tx: &mut Tx, class: Class) -> Result<Option<Allowed>, sqlx::Error> {
        let Some(Brake { max_changes, max_deletes, per }) = self.definition.sync.brake else { return Ok(None) };
        let limit = match class {
            Class::Change => max_changes,
            Class::Delete => Some(max_deletes),
        };
        let Some(limit) = limit else { return Ok(None) };
        let total = match limit {
            Limit::Count(_) => 0,
            Limit::Percent(_) => store::total(tx, self.definition.name()).await?,
        };
        Ok(Some(Allowed::new(limit, total, per)))
    }
}

/// What a brake allows within its time.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Allowed {
    records: u64,
    per: std::time::Duration,
    text: String,
}

impl Allowed {
    fn new(limit: Limit, total: u64, per: std::time::Duration) -> Self {
        let records = limit.braked(total);
        let text = match limit {
            Limit::Count(count) => count.to_string(),
            Limit::Percent(share) => format!("{records} ({share} % of {total}, at least {})", Limit::SHARE_MIN),
        };
        Self { records, per, text }
    }

    fn exceeded_by(&self, passed: u64, fresh: u64) -> bool {
        passed.saturating_add(fresh) > self.records
    }

    fn reason(&self, class: Class, passed: u64, fresh: u64) -> String {
        let what = match class {
            Class::Change => "changed",
            Class::Delete => "deleted",
        };
        let before = if passed > 0 { format!(" after {passed} others") } else { String::new() };
        format!("{fresh} records would be {what}{before}; within {} the brake allows {}", format_duration(self.per), self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_share_is_of_the_syncs_records_and_at_least_twenty() {
        for (limit, total, passed, fresh, exceeded) in [
            (Limit::Percent(5), 5000, 0, 250, false),
            (Limit::Percent(5), 5000, 0, 251, true),
            (Limit::Percent(5), 5000, 200, 51, true),
            (Limit::Percent(20), 3, 0, 3, false),
            (Limit::Percent(20), 0, 0, 21, true),
            (Limit::Count(2), 1_000_000, 0, 3, true),
            (Limit::Count(0), 0, 0, 1, true),
        ] {
            let allowed = Allowed::new(limit, total, Duration::from_secs(600));
            assert_eq!(allowed.exceeded_by(passed, fresh), exceeded, "{limit} of {total}: {passed} + {fresh}");
        }
    }
}
