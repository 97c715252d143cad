//! The records of a sync that pulls. Both sides are read, merged field by field, and each side is told what it does not know: Zoho by the
//! way of every push, the application's row by a `local_write` that settle leaves.
//!
//! Reading comes first and is shared: up to a hundred records a call. Where the call for a write is then refused, what was read is kept for
//! the next run, so that no claim spends its grant on reading again what it has just read.

mod files;
mod first;
mod reading;

use reading::Read;
pub(crate) use reading::crm_fields;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::sync::{OnDelete, Product};
use sluice_queue::{Claimed, Outcome};
use sluice_sync::definition::Definition;
use sluice_sync::link::Link;
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::store::Agreed;
use sluice_sync::link::turns;
use sluice_sync::merge::children::all_removed;
use sluice_sync::merge::{self, Facts, Keys, Merge, Side};
use sluice_sync::plan::{GONE, Step};
use sluice_sync::read::Row;
use sluice_sync::sighting::{Sighting, Used};

use super::push::{self, Record, Run, Verdict};
use super::{all, snooze};
use crate::engine::Engine;
use crate::session::Session;
use crate::work::{Act, Conflict, Fate, Handled, Next, Pull, Sums, Work};

/// What is sent to Zoho is decided on a reading no older than this.
const FRESH: Duration = Duration::from_secs(30);
/// A record that waits for a row of another sync's looks again after this; it is woken by nothing else.
const MISSING: Duration = Duration::from_secs(5);

/// A change that is still to be written to the row comes first.
const PENDING: Duration = Duration::from_millis(200);

/// A row that is not there may have another key, under which its link is soon.
const MOVING: Duration = Duration::from_millis(500);

/// The prefix of the slot of a Zoho record without a row.
const WITHOUT_ROW: &str = "zoho:";

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

/// What is known of Zoho's side of a record, and around it.
struct Theirs<'a> {
    record: &'a Value,
    read_at: DateTime<Utc>,
    keys: &'a Keys,
    decided: Option<&'a BTreeMap<String, Side>>,
    own: Option<&'a BTreeMap<String, Value>>,
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
    tracing::warn!(%error, sync = work.batch.sync, "what is known of the records could not be read");
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
        records.retain(|record| !pending.contains(&record.slot.key));
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
        let (keys, decided, own) = self.around(&records, &gathered.sights).await?;
        let mut to_send = Vec::new();
        for mut record in records.drain(..) {
            let Some(id) = zoho_id(&record) else {
                gathered.runs.extend(self.moved_on(record.slot).await?);
                // no Zoho record yet: what a push does with it
                if self.definition.sync.direction.pushes() {
                    to_send.push(record);
                } else {
                    verdicts.insert(record.slot.id, Verdict::of(Outcome::Done { reason: Some("never_created") }));
                }
                continue;
            };
            if let Some(failure) = failed.get(&id) {
                verdicts.insert(record.slot.id, self.ended(&record, failure));
                continue;
            }
            if record.row.is_none() && self.keys_are_moving {
                verdicts.insert(record.slot.id, Verdict::of(snooze(MOVING, "a key of its table has changed; the link goes first")));
                continue;
            }
            let sight = gathered.sights.get(&id).filter(|sight| sight.complete && (record.slot.look || sight.age <= FRESH));
            let verdict = match (sight.map(|sight| (sight, &sight.record)), &record.row) {
                (Some((_, None)), _) => Some(self.gone(&record, &id, &mut gathered.merged)),
                (Some((sight, Some(theirs))), Some(row)) => {
                    let facts = Theirs {
                        record: theirs,
                        read_at: sight.seen_at,
                        keys: &keys,
                        decided: decided.get(&record.slot.key),
                        own: own.get(&id),
                    };
                    let dated = sight.dated;
                    let level = self.definition.module.level().filter(|_| sight.age <= FRESH);
                    let level = level.and_then(|level| field_in(&self.definition.module, theirs, level).cloned());
                    record.theirs = (self.definition.module.product != Product::Crm).then(|| theirs.clone());
                    let merged = self.merge(&record, row, &id, facts).await?;
                    match self.await_rows(&merged.merge.missing, &mut gathered).await? {
                        Some(verdict) => Some(verdict),
                        None => {
                            record.dated = dated;
                            record.level = level;
                            take_over(&mut record, merged, &mut gathered);
                            None
                        }
                    }
                }
                // the row is gone: a push withdraws its record, or leaves it
                (Some((_, Some(theirs))), None) if !self.definition.sync.direction.pushes() => {
                    let theirs = theirs.clone();
                    Some(self.row_elsewhere(&record.slot.key, &id, &theirs, &mut gathered).await?)
                }
                (Some((_, Some(_))), None) | (None, _) => None,
            };
            match verdict {
                Some(verdict) => drop(verdicts.insert(record.slot.id, verdict)),
                None if self.definition.sync.direction.pushes() => to_send.push(record),
                None => drop(verdicts.insert(record.slot.id, Verdict::of(Outcome::Done { reason: Some("no_change") }))),
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

    /// Merges what is known of a linked record.
    async fn merge(
        &self,
        record: &Record<'_>,
        row: &Row,
        id: &str,
        Theirs { record: theirs, read_at, keys, decided, own }: Theirs<'_>,
    ) -> Result<Merged, sqlx::Error> {
        let Some(link) = &record.link else { return Ok(Merged::default()) };
        let (no_columns, nothing_decided, not_driven, unknown) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let modified_at = self.definition.module.modified_at(theirs);
        let mut facts = Facts {
            row,
            link,
            record: theirs,
            single: self.reads_single(),
            columns: own.unwrap_or(&no_columns),
            parents: &self.parents,
            keys,
            read_at,
            changed_at: &unknown,
            driven: &not_driven,
            decided: decided.unwrap_or(&nothing_decided),
        };
        let mut merge = merge::merge(self.definition, facts);
        // Only a field that both sides changed asks when that was, and finding out takes a walk through the history.
        let changed_at;
        let both = if self.definition.sync.direction.pushes() { edited(self.definition, row, link, &merge) } else { Vec::new() };
        if !both.is_empty() {
            changed_at = self.changed_at(&record.slot.key, &both, modified_at).await?;
            facts.changed_at = &changed_at;
            merge = merge::merge(self.definition, facts);
        }
        // And only what may be part of a loop asks whose change it was.
        let driven;
        if turns::is_answered(&link.fields, read_at) {
            driven = self.driven(&record.slot.key, &sluice_sync::plan::changed_fields(self.definition, row, link)).await?;
            if !driven.is_empty() {
                facts.driven = &driven;
                merge = merge::merge(self.definition, facts);
            }
        }
        let changed_at = facts.changed_at.clone();
        let writes = !merge.columns.is_empty() || !merge.rows.is_empty();
        let pull = writes.then(|| update(&record.slot.key, id, &merge, modified_at));
        let newer = modified_at > link.zoho_modified_at;
        Ok(Merged { pull, gone: false, merge, changed_at, modified_at, newer, compared: true })
    }

    fn pulls(&self, next: &Next) -> bool {
        let (Next::Key { sync, .. } | Next::Zoho { sync, .. } | Next::Anew { sync, .. }) = next;
        self.engine.config.syncs.get(sync).is_some_and(|sync| sync.direction.pulls())
    }

    /// Zoho has the record no more. What that means here is the sync's `on_delete`.
    fn gone(&self, record: &Record<'_>, id: &str, merged: &mut BTreeMap<i64, Merged>) -> Verdict {
        let act = match (self.definition.sync.on_delete, &record.row) {
            (_, None) | (OnDelete::Ignore | OnDelete::Void, _) => None,
            (OnDelete::Delete, Some(_)) => Some((Act::Delete, BTreeMap::new())),
            (OnDelete::Mark, Some(_)) => Some((Act::Update, merge::mark(self.definition))),
        };
        // a row that stays keeps its children
        let rows = record.link.as_ref().filter(|_| matches!(act, Some((Act::Delete, _)))).map(|link| all_removed(self.definition, link));
        let pull = act.map(|(act, columns)| Pull {
            key: record.slot.key.clone(),
            zoho_id: id.to_owned(),
            act,
            gone: true,
            columns,
            expected: BTreeMap::new(),
            pulled: BTreeMap::new(),
            rows: rows.unwrap_or_default(),
            files: BTreeMap::new(),
            modified_at: None,
            run_id: None,
        });
        // an edit that finds it out is told of like every later one
        let deletes = matches!(pull, Some(Pull { act: Act::Delete, .. }));
        let edited = self.definition.sync.direction.pushes()
            && matches!(self.step(record), Step::Update { .. } | Step::WaitFor(_) | Step::Unsendable { .. });
        merged.insert(record.slot.id, Merged { pull, gone: true, ..Merged::default() });
        if edited && !deletes { Verdict::held(GONE) } else { Verdict::of(Outcome::Done { reason: None }) }
    }

    /// Puts the verdicts and what was merged together: what is written here, what is agreed on, and what is kept for the next run.
    fn told(&self, mut verdicts: BTreeMap<i64, Verdict>, mut gathered: Gathered) -> Handled {
        let mut sums: BTreeMap<i64, Sums> = BTreeMap::new();
        let (mut pulls, mut gone, mut conflicts, mut compared) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut acted_on, mut kept, mut undone) = (Vec::new(), Vec::new(), Vec::new());
        for slot in &self.work.batch.slots {
            let Some(verdict) = verdicts.get_mut(&slot.id) else { continue };
            let merged = gathered.merged.remove(&slot.id).unwrap_or_default();
            let id = gathered.ids.remove(&slot.id).unwrap_or_default();
            let sight = gathered.sights.get(&id);
            let ended = match &verdict.outcome {
                Outcome::Done { .. } | Outcome::Dead(_) => true,
                Outcome::Continue { .. } | Outcome::Snooze { .. } | Outcome::Wait { .. } | Outcome::Retry(_) => false,
            };
            let fate = match &verdict.outcome {
                Outcome::Dead(letter) => Fate::Failed(letter.message.clone()),
                _ if ended && merged.pull.is_none() => Fate::Unchanged,
                _ => Fate::Later,
            };
            let used = |sight: &Sighting| Used { zoho_id: id.clone(), seen_at: sight.seen_at, over: ended };
            match sight {
                Some(sight) if ended || verdict.outdated => acted_on.push((used(sight), fate)),
                // a call for the write was refused: the next run needs not read again
                Some(sight) if matches!(verdict.outcome, Outcome::Continue { .. }) && verdict.agreed.is_none() => {
                    kept.push((id.clone(), sight.clone()))
                }
                Some(sight) if verdict.agreed.is_some() => acted_on.push((used(sight), fate)),
                Some(_) | None => {}
            }
            if !ended {
                continue;
            }
            // also where nothing but its time is new, so that no poll reads it again
            let more = merged.merge.agreed_more || (merged.newer && merged.pull.is_none());
            if merged.compared && verdict.agreed.is_none() && more {
                verdict.agreed = Some(Agreed {
                    key: slot.key.clone(),
                    zoho_id: id.clone(),
                    fields: merged.merge.pairs.clone(),
                    // not before the row says what Zoho says
                    zoho_modified_at: merged.modified_at.filter(|_| merged.pull.is_none()),
                    written: false,
                    look_again: false,
                });
            }
            if merged.compared {
                compared.push(slot.key.clone());
                if !matches!(verdict.outcome, Outcome::Done { reason } if !matches!(reason, Some("braked" | "held"))) {
                    undone.push(slot.key.clone());
                }
            }
            conflicts.extend(merged.merge.conflicts.into_iter().map(|clash| Conflict {
                key: slot.key.clone(),
                zoho_id: id.clone(),
                local_changed_at: merged.changed_at.get(&clash.field).copied(),
                clash,
                zoho_modified_at: merged.modified_at,
            }));
            match &mut verdict.outcome {
                Outcome::Done { reason } if *reason == Some("no_change") && merged.pull.is_some() => *reason = None,
                Outcome::Done { reason } if *reason == Some("no_change") && !merged.merge.ignored.is_empty() => {
                    *reason = Some("not_applied")
                }
                _ => {}
            }
            verdict.note_not_applied(&merged.merge.ignored);
            if merged.gone {
                gone.push(slot.key.clone());
            }
            pulls.extend(merged.pull);
        }
        if let (Some(run_id), made @ 1..) = (gathered.sights.values().filter_map(|sight| sight.run_id).max(), self.work.calls.made()) {
            sums.entry(run_id).or_default().calls = i64::from(made);
        }
        for (run_id, message) in std::mem::take(&mut gathered.notes) {
            sums.entry(run_id).or_default().messages.push(message);
        }
        kept.extend(gathered.handed_on);
        let (adopted, moved, runs) = (gathered.adopted, gathered.moved, gathered.runs.into_iter().collect());
        let mut handled = self.report(verdicts);
        // the row is told with the pull, and one without row is told nothing
        handled.writebacks.retain(|told| {
            !told.key.starts_with(WITHOUT_ROW)
                && (told.status != "synced" || told.zoho_id.is_some() || !pulls.iter().any(|pull| pull.key == told.key))
        });
        Handled { pulls, gone, conflicts, compared, undone, acted_on, sightings: kept, sums, runs, adopted, moved, ..handled }
    }
}

/// What the merge says is taken over into the record before it is decided what to send.
fn take_over(record: &mut Record<'_>, merged: Merged, gathered: &mut Gathered) {
    record.keep_back = merged.merge.keep_back.clone();
    record.repair = merged.merge.repair.clone();
    record.compared = true;
    if let Some(link) = &mut record.link {
        link.fields = merged.merge.pairs.clone();
    }
    gathered.merged.insert(record.slot.id, merged);
}

/// What a merge changes of the row.
fn update(key: &str, zoho_id: &str, merge: &Merge, modified_at: Option<DateTime<Utc>>) -> Pull {
    Pull {
        key: key.to_owned(),
        zoho_id: zoho_id.to_owned(),
        act: Act::Update,
        gone: false,
        columns: merge.columns.clone(),
        expected: merge.expected.clone(),
        pulled: merge.pulled.clone(),
        rows: merge.rows.clone(),
        files: BTreeMap::new(),
        modified_at,
        run_id: None,
    }
}

/// The fields for which Zoho's value was chosen though the row has edits of them.
fn edited(definition: &Definition, row: &Row, link: &Link, merge: &Merge) -> Vec<String> {
    if merge.chosen.is_empty() {
        return Vec::new();
    }
    let changed = sluice_sync::plan::changed_fields(definition, row, link);
    changed.into_iter().filter(|field| merge.chosen.contains(field)).collect()
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
