//! The records of a sync that pulls. Both sides are read, merged field by field, and each side is told what it does not know: Zoho by the
//! way of every push, the application's row by a `local_write` that settle leaves.
//!
//! Reading comes first and is shared: up to a hundred records a call. Where the call for a write is then refused, what was read is kept for
//! the next run, so that no claim spends its grant on reading again what it has just read.

mod around;
mod comparing;
mod files;
mod first;
mod reading;
mod told;

use reading::Read;
pub(crate) use reading::crm_fields;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_queue::{Claimed, Outcome};
use sluice_sync::key::WITHOUT_ROW;
use sluice_sync::merge::Merge;
use sluice_sync::sighting::Sighting;

use super::push::{self, Record, Run, Verdict};
use super::{all, snooze};
use crate::engine::Engine;
use crate::session::Session;
use crate::work::{Handled, Next, Pull, Work};

/// What is sent to Zoho is decided on a reading no older than this.
const FRESH: Duration = Duration::from_secs(30);
/// A record that waits for a row of another sync's looks again after this; it is woken by nothing else.
const MISSING: Duration = Duration::from_secs(5);

/// A change that is still to be written to the row comes first.
const PENDING: Duration = Duration::from_millis(200);

/// A row that is not there may have another key, under which its link is soon.
const MOVING: Duration = Duration::from_millis(500);

/// What a run over a batch gathers beside the verdicts.
#[derive(Default)]
struct Gathered {
    /// The Zoho record of each slot.
    ids: BTreeMap<i64, String>,
    sights: BTreeMap<String, Sighting>,
    /// By slot.
    merged: BTreeMap<i64, Merged>,
    runs: BTreeSet<Next>,
    /// Rows that were found to be Zoho records': (key, Zoho id).
    adopted: Vec<(String, String)>,
    /// Links whose rows were found under another key: (from, to).
    moved: Vec<(String, String)>,
    /// Readings that another run goes on with.
    handed_on: Vec<(String, Sighting)>,
    /// What a run over many records is told though nothing failed.
    notes: Vec<(i64, String)>,
}

/// What becomes of a record apart from what is sent.
#[derive(Default)]
struct Merged {
    pull: Option<Pull>,
    gone: bool,
    merge: Merge,
    /// By field.
    changed_at: BTreeMap<String, DateTime<Utc>>,
    modified_at: Option<DateTime<Utc>>,
    /// What was read is newer than what the link knows of.
    newer: bool,
    compared: bool,
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    let Some(definition) = engine.definition(&work.batch.sync) else {
        return all(work, |_| snooze(Duration::from_secs(60), "this worker's file does not have the sync"));
    };
    // Asked before the rows and their links are read: what is written to them in between is seen either way.
    let pending = match reading::pending(engine, work).await {
        Ok(pending) => pending,
        Err(error) => return unknown(work, &error),
    };
    let (strangers, rows): (Vec<&Claimed>, Vec<&Claimed>) = work.batch.slots.iter().partition(|slot| slot.key.starts_with(WITHOUT_ROW));
    let (records, parents, keys_are_moving) = match push::load(engine, &rows, &definition).await {
        Ok(loaded) => loaded,
        Err(error) => return push::unread(work, &definition, &error),
    };
    let run = Run { engine, work, session, definition: &definition, parents, keys_are_moving };
    match run.both_sides(records, strangers, &pending).await {
        Ok(handled) => handled,
        Err(error) => unknown(work, &error),
    }
}

fn unknown(work: &Work, error: &sqlx::Error) -> Handled {
    tracing::warn!(error = sluice_core::db::message(error), sync = work.batch.sync, "what is known of the records could not be read");
    all(work, |_| snooze(Duration::from_secs(1), "what is known of the records could not be read"))
}

impl Run<'_> {
    async fn both_sides(
        &self,
        mut records: Vec<Record<'_>>,
        strangers: Vec<&Claimed>,
        pending: &BTreeSet<String>,
    ) -> Result<Handled, sqlx::Error> {
        let mut gathered = Gathered::default();
        let mut verdicts = BTreeMap::new();
        let linked = records.iter().filter_map(|record| Some((record.slot.id, zoho_id(record)?)));
        gathered.ids = linked.chain(strangers.iter().map(|slot| (slot.id, stranger_id(slot)))).collect();
        gathered.sights = self.kept(&gathered.ids.values().cloned().collect::<Vec<_>>()).await?;
        reading::set_aside_outdated(self.definition, &records, &mut gathered.sights);
        reading::set_aside_older(&self.work.batch.slots, &gathered.ids, &mut gathered.sights);
        self.set_aside_unlinked(&strangers, &mut gathered.sights).await?;
        for slot in self.work.batch.slots.iter().filter(|slot| pending.contains(&slot.key)) {
            verdicts.insert(slot.id, Verdict::of(snooze(PENDING, "what Zoho changed is being written to the row")));
        }
        for record in &records {
            if let Some(outcome) = push::later(self.engine, record, self.work.batch.slots.len()) {
                verdicts.entry(record.slot.id).or_insert_with(|| Verdict::of(outcome));
            }
        }
        records.retain(|record| !verdicts.contains_key(&record.slot.id));
        let strangers: Vec<&Claimed> = strangers.into_iter().filter(|slot| !pending.contains(&slot.key)).collect();
        let wanted: Vec<String> = records
            .iter()
            .filter_map(|record| zoho_id(record).filter(|id| self.needs_reading(record, gathered.sights.get(id))))
            .chain(strangers.iter().map(|slot| stranger_id(slot)).filter(|id| !self.usable(gathered.sights.get(id))))
            .collect();
        let singly = self.work.batch.slots.iter().filter(|slot| reading::to_be_read_singly(slot));
        let singly = singly.filter_map(|slot| gathered.ids.get(&slot.id).cloned()).collect();
        let Read { found, failed, unshown } = self.read(&wanted, &singly).await?;
        for (id, sight) in found {
            let run_id = gathered.sights.get(&id).and_then(|kept| kept.run_id);
            gathered.sights.insert(id, Sighting { run_id, ..sight });
        }

        self.know_strangers(&strangers, &failed, &mut gathered, &mut verdicts).await?;
        let around = self.around(&records, &gathered.sights).await?;
        let mut to_send = Vec::new();
        for mut record in records.drain(..) {
            match self.compare(&mut record, &failed, &around, &mut gathered).await? {
                Some(verdict) => drop(verdicts.insert(record.slot.id, verdict)),
                None => to_send.push(record),
            }
        }
        verdicts.extend(self.decide(to_send).await);
        // after what is sent, which must be decided on a fresh reading
        self.fetch_files(&mut gathered, &mut verdicts).await;
        for (slot, _) in gathered.ids.iter().filter(|(_, id)| unshown.contains(*id)) {
            if let Some(Verdict { outcome: outcome @ Outcome::Continue { .. }, .. }) = verdicts.get_mut(slot) {
                *outcome = reading::read_singly_next();
            }
        }
        Ok(self.told(verdicts, gathered))
    }

    fn pulls(&self, next: &Next) -> bool {
        let (Next::Key { sync, .. } | Next::Zoho { sync, .. } | Next::Anew { sync, .. }) = next;
        self.engine.config.syncs.get(sync).is_some_and(|sync| sync.direction.pulls())
    }
}

fn waits_for(missing: &[(String, String)]) -> String {
    let names: Vec<String> = missing.iter().map(|(sync, id)| format!("{sync} (Zoho id {id})")).collect();
    format!("refers to {}, which has no row yet", names.join(", "))
}

fn zoho_id(record: &Record<'_>) -> Option<String> {
    record.link.as_ref().and_then(|link| link.zoho_id.clone())
}

fn stranger_id(slot: &Claimed) -> String {
    slot.key.strip_prefix(WITHOUT_ROW).unwrap_or_default().to_owned()
}
