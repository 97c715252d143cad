//! What a batch's run comes to: what is written here, what is agreed on, what runs are told, and what is kept for the next run.

use std::collections::{BTreeMap, BTreeSet};

use sluice_queue::Outcome;
use sluice_sync::key::WITHOUT_ROW;
use sluice_sync::link::store::Agreed;
use sluice_sync::sighting::{Sighting, Used};

use super::{Gathered, Run, Verdict};
use crate::work::{Conflict, Fate, Handled, Pull, Sums};

impl Run<'_> {
    /// Puts the verdicts and what was merged together: what is written here, what is agreed on, and what is kept for the next run.
    pub(super) fn told(&self, mut verdicts: BTreeMap<i64, Verdict>, mut gathered: Gathered) -> Handled {
        let mut sums: BTreeMap<i64, Sums> = BTreeMap::new();
        let (mut pulls, mut gone, mut conflicts, mut compared) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let (mut acted_on, mut kept, mut undone, mut unwritten) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
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
            let closes = matches!(verdict.outcome, Outcome::Done { .. });
            unwritten.extend(merged.pull.as_ref().map(|_| slot.id));
            pulls.extend(merged.pull.map(|pull| Pull { closes, ..pull }));
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
        for settlement in &mut handled.settlements {
            settlement.unwritten = unwritten.contains(&settlement.slot);
        }
        Handled { pulls, gone, conflicts, compared, undone, acted_on, sightings: kept, sums, runs, adopted, moved, ..handled }
    }
}
