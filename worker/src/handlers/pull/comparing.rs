//! One linked record: both sides compared and merged, or its end where Zoho has it no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::sync::{OnDelete, Product};
use sluice_queue::Outcome;
use sluice_sync::definition::Definition;
use sluice_sync::link::Link;
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::turns;
use sluice_sync::merge::children::all_removed;
use sluice_sync::merge::{self, Facts, Keys, Merge, Side};
use sluice_sync::plan::{GONE, Step};
use sluice_sync::read::Row;

use super::around::Around;
use super::{FRESH, Gathered, MOVING, Merged, Record, Run, Verdict, zoho_id};
use crate::handlers::snooze;
use crate::session::Ended;
use crate::work::{Act, Pull};

/// What is known of Zoho's side of a record, and around it.
struct Theirs<'a> {
    record: &'a Value,
    read_at: DateTime<Utc>,
    keys: &'a Keys,
    decided: Option<&'a BTreeMap<String, Side>>,
    own: Option<&'a BTreeMap<String, Value>>,
}

impl Run<'_> {
    /// What one record comes to; without a verdict it is decided what to send.
    pub(super) async fn compare(
        &self,
        record: &mut Record<'_>,
        failed: &BTreeMap<String, Arc<Ended>>,
        around: &Around,
        gathered: &mut Gathered,
    ) -> Result<Option<Verdict>, sqlx::Error> {
        let pushes = self.definition.sync.direction.pushes();
        let Some(id) = zoho_id(record) else {
            gathered.runs.extend(self.moved_on(record.slot).await?);
            // no Zoho record yet: what a push does with it
            return Ok((!pushes).then(|| Verdict::of(Outcome::Done { reason: Some("never_created") })));
        };
        if let Some(failure) = failed.get(&id) {
            return Ok(Some(self.ended(record, failure)));
        }
        if record.row.is_none() && self.keys_are_moving {
            return Ok(Some(Verdict::of(snooze(MOVING, "a key of its table has changed; the link goes first"))));
        }
        let sight = gathered.sights.get(&id).filter(|sight| sight.complete && (record.slot.look || sight.age <= FRESH));
        let verdict = match (sight.map(|sight| (sight, &sight.record)), &record.row) {
            (Some((_, None)), _) => Some(self.gone(record, &id, &mut gathered.merged)),
            (Some((sight, Some(theirs))), Some(row)) => {
                let facts = Theirs {
                    record: theirs,
                    read_at: sight.seen_at,
                    keys: &around.keys,
                    decided: around.decided.get(&record.slot.key),
                    own: around.own.get(&id),
                };
                let dated = sight.dated;
                let level = self.definition.module.level().filter(|_| sight.age <= FRESH);
                let level = level.and_then(|level| field_in(&self.definition.module, theirs, level).cloned());
                let kept = (self.definition.module.product != Product::Crm).then(|| theirs.clone());
                let merged = self.merge(record, row, &id, facts).await?;
                record.theirs = kept;
                let waits = self.await_rows(&merged.merge.missing, gathered).await?;
                if waits.is_none() {
                    record.dated = dated;
                    record.level = level;
                    take_over(record, merged, gathered);
                }
                waits
            }
            // the row is gone: a push withdraws its record, or leaves it
            (Some((_, Some(theirs))), None) if !pushes => {
                let theirs = theirs.clone();
                Some(self.row_elsewhere(&record.slot.key, &id, &theirs, gathered).await?)
            }
            (Some((_, Some(_))), None) | (None, _) => None,
        };
        Ok(verdict.or_else(|| (!pushes).then(|| Verdict::of(Outcome::Done { reason: Some("no_change") }))))
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
            closes: false,
            run_id: None,
        });
        // an edit that finds it out is told of like every later one
        let deletes = matches!(pull, Some(Pull { act: Act::Delete, .. }));
        let edited = self.definition.sync.direction.pushes()
            && matches!(self.step(record), Step::Update { .. } | Step::WaitFor(_) | Step::Unsendable { .. });
        merged.insert(record.slot.id, Merged { pull, gone: true, ..Merged::default() });
        if edited && !deletes { Verdict::held(GONE) } else { Verdict::of(Outcome::Done { reason: None }) }
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
pub(super) fn update(key: &str, zoho_id: &str, merge: &Merge, modified_at: Option<DateTime<Utc>>) -> Pull {
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
        closes: false,
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
