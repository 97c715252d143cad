//! Three values, one decision: what the row says, what Zoho says, and what both agreed on last. Pure; it reads and writes nothing.
//!
//! A side has changed when it differs from its own half of the pair, so rounding, trims, time zones and many-to-one values are never
//! edits. A field that Zoho's answer does not carry is unknown, never empty, and is left as it is.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::field::Field;

use crate::definition::Definition;
use crate::link::adjusting::{self, ADJUSTING};
use crate::link::agreed::{field_in, known_part};
use crate::link::{Link, Pair, Pairs, turns};
use crate::read::{FieldValue, Parents, Row};
use crate::value;

pub mod children;
mod fields;
pub mod files;
mod local;

use fields::{Verdict, changed, means, verdict, was_sent};
pub use local::{Incoming, NewRow, insert, mark};

/// The name under which a link remembers what a pull's own column (`[syncs.NAME.columns]`) was given. No Zoho field is called so.
pub(crate) const COLUMN: &str = "columns:";

/// Why a field is parked.
const FLAPS: &str = "it flaps: what one side writes the other changes again; left alone on both sides until it is resolved";

/// The same, where it takes another field to do so.
const DRIVES: &str = "it and another field drive each other: each write of it makes Zoho change the other, whose arrival changes it here again; left alone on both sides until it is resolved";

/// Local keys of records that Zoho's record refers to, by (sync, Zoho id).
pub type Keys = BTreeMap<(String, String), String>;

/// What is known of a linked record on both sides.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The row as it is now.
    pub row: &'a Row,
    /// What was agreed on; no pairs after a first match.
    pub link: &'a Link,
    /// Zoho's record as it was read.
    pub record: &'a Value,
    /// Whether it was read by itself: what is a list's row may lack what the record has.
    pub single: bool,
    /// What the pull's own columns are to be, by column.
    pub columns: &'a BTreeMap<String, Value>,
    /// Zoho ids of what the row refers to.
    pub parents: &'a Parents,
    /// Rows that Zoho's record refers to.
    pub keys: &'a Keys,
    /// When Zoho's record was read, by the database's clock.
    pub read_at: DateTime<Utc>,
    /// When fields were last changed here, by the capture; one that is absent is not known, then Zoho's change is taken for the later one.
    pub changed_at: &'a BTreeMap<String, DateTime<Utc>>,
    /// Fields whose last change here was made by the row's own triggers, in a transaction of ours.
    pub driven: &'a BTreeSet<String>,
    /// Fields that a person has decided.
    pub decided: &'a BTreeMap<String, Side>,
}

/// One of the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The row's value stands.
    Local,
    /// Zoho's value stands.
    Zoho,
}

/// What becomes of a record.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merge {
    /// The local columns to write.
    pub columns: BTreeMap<String, Value>,
    /// The fields behind these columns: Zoho's half of what is agreed on once they are written.
    pub pulled: BTreeMap<String, Value>,
    /// The fields for which Zoho's value was chosen, also where nothing can be written for it.
    pub chosen: BTreeSet<String>,
    /// Rows of child tables, by field; the fields are among `pulled`.
    pub rows: BTreeMap<String, children::Children>,
    /// Files to be fetched: what they were fetched as is among `pulled` only then.
    pub files: Vec<files::Wanted>,
    /// What the row must still say of these fields when it is written.
    pub expected: BTreeMap<String, Value>,
    /// The link's pairs now: what needs no write to be agreed on has advanced.
    pub pairs: Pairs,
    /// Fields that must not be sent.
    pub keep_back: BTreeSet<String>,
    /// Fields to send although the row did not change.
    pub repair: BTreeSet<String>,
    /// Fields that wait for a person.
    pub conflicts: Vec<Clash>,
    /// Changes of a side that does not own the field: recorded, not applied.
    pub ignored: Vec<Ignored>,
    /// Records that Zoho's refers to and that have no row here yet: (sync, Zoho id).
    pub missing: Vec<(String, String)>,
    /// Whether anything in `pairs` differs from the link's.
    pub agreed_more: bool,
}

/// A field that changed on both sides.
#[derive(Debug, Clone, PartialEq)]
pub struct Clash {
    /// The field.
    pub field: String,
    /// What was agreed on.
    pub base: Option<Pair>,
    /// What the row says.
    pub local: Value,
    /// What Zoho says.
    pub zoho: Value,
    /// Why nobody but a person can tell.
    pub reason: &'static str,
    /// Whether the loop breaker parked it.
    pub flapping: bool,
}

/// A change that was seen and not applied.
#[derive(Debug, Clone, PartialEq)]
pub struct Ignored {
    /// The field.
    pub field: String,
    /// Whose change it was.
    pub of: Side,
    /// What it was changed to.
    pub to: Value,
    /// Why it is not applied.
    pub reason: &'static str,
}

/// Merges one record.
pub fn merge(definition: &Definition, facts: Facts<'_>) -> Merge {
    let mut merge = Merge { pairs: facts.link.fields.clone(), ..Merge::default() };
    let fresh = definition.module.modified_at(facts.record);
    // The very state that our last write left.
    let ours = fresh.is_some() && fresh == facts.link.zoho_modified_at;
    for (path, list) in definition.rows() {
        merge.children(definition, facts, path, list);
    }
    merge.want_files(definition, facts);
    for path in definition.fields().keys() {
        let (Some(local), Some(answered)) = (facts.row.fields.get(path), field_in(&definition.module, facts.record, path)) else {
            continue;
        };
        let zoho = value::null_if_empty(&known_part(definition, path, answered));
        let pair = facts.link.fields.get(path);
        let refers = matches!(definition.fields().get(path), Some(Field::Ref(_)));
        let changed = pair.map(|pair| changed(pair, local, &zoho, ours, refers));
        let verdict = verdict(definition, facts, path, local, &zoho, pair.zip(changed), fresh);
        let verdict = merge.break_loop(definition, facts, path, &zoho, changed, verdict);
        if let (Some(pair), Verdict::Pull | Verdict::Clash(_) | Verdict::Park | Verdict::Push) =
            (pair.filter(|pair| !pair.confirmed), &verdict)
        {
            // It was compared with what was sent: a later write of ours must not pass for the answer to that one.
            merge.pairs.insert(path.clone(), Pair { confirmed: true, ..pair.clone() });
            merge.agreed_more = true;
        }
        match verdict {
            Verdict::Rest | Verdict::Push => {}
            Verdict::Repair => drop(merge.repair.insert(path.clone())),
            Verdict::Agree => {
                // The level is what was wanted, wherever it came from. What would lead elsewhere may be on its way still.
                let arrived = || adjusting::pending(facts.link).is_some_and(|pending| means(&pending.to, &zoho));
                if definition.module.level() == Some(path) && arrived() {
                    merge.pairs.remove(ADJUSTING);
                    merge.agreed_more = true;
                }
                merge.agree(path, local.local(), zoho);
            }
            Verdict::Pull => merge.pull(definition, facts, path, local, zoho),
            Verdict::Ignore(of, reason) => {
                let to = if of == Side::Zoho { zoho.clone() } else { local.local() };
                // its own half follows, so that it is told once
                let kept = pair.cloned().unwrap_or(Pair { local: Value::Null, zoho: Value::Null, confirmed: true });
                let half = match of {
                    Side::Zoho => Pair { zoho, confirmed: true, ..kept },
                    Side::Local => Pair { local: local.local(), ..kept },
                };
                merge.ignored.push(Ignored { field: path.clone(), of, to, reason });
                merge.pairs.insert(path.clone(), half);
                merge.agreed_more = true;
            }
            Verdict::Clash(_) | Verdict::Park => {
                let flapping = matches!(verdict, Verdict::Park);
                let reason = match verdict {
                    Verdict::Clash(reason) => reason,
                    _ if turns::drives(&merge.pairs, path) => DRIVES,
                    _ => FLAPS,
                };
                merge.keep_back.insert(path.clone());
                merge.conflicts.push(Clash { field: path.clone(), base: pair.cloned(), local: local.local(), zoho, reason, flapping });
            }
        }
    }
    for (column, to) in facts.columns {
        let name = format!("{COLUMN}{column}");
        if !facts.link.fields.get(&name).is_some_and(|pair| value::same(&pair.zoho, to)) {
            merge.columns.insert(column.clone(), to.clone());
            merge.pulled.insert(name, to.clone());
        }
    }
    merge
}

impl Merge {
    /// Counts what goes to and fro, and parks it when there is no end of it (see [`turns`]).
    fn break_loop(
        &mut self,
        definition: &Definition,
        facts: Facts<'_>,
        path: &str,
        zoho: &Value,
        changed: Option<(bool, bool)>,
        verdict: Verdict,
    ) -> Verdict {
        let Some((_, zoho_changed)) = changed else { return verdict };
        let decided = facts.decided.contains_key(path);
        if decided || matches!(verdict, Verdict::Agree | Verdict::Rest) && turns::is_parked(&self.pairs, path) {
            turns::forget(&mut self.pairs, path);
            self.agreed_more = true;
            return verdict;
        }
        let fresh = definition.module.modified_at(facts.record);
        let prompt = fresh.zip(facts.link.zoho_modified_at).is_none_or(|(fresh, known)| fresh - known <= turns::PROMPT);
        let undone = match verdict {
            _ if definition.module.level() == Some(path) || zoho_changed && !prompt => false,
            Verdict::Pull => true,
            Verdict::Repair => !was_sent(definition, facts.link, path, zoho),
            Verdict::Push => zoho_changed,
            _ => false,
        };
        if undone && !turns::is_parked(&self.pairs, path) {
            // what the row says against us is always an answer to what we wrote there
            let first = turns::of(&self.pairs, path).is_none();
            let wrote = first && facts.link.pushed_at.is_some_and(|at| facts.read_at - at <= turns::APART);
            turns::note(&mut self.pairs, path, facts.read_at, wrote || !zoho_changed);
            self.agreed_more |= turns::of(&self.pairs, path) != turns::of(&facts.link.fields, path);
        }
        let soon = || fresh.zip(facts.link.zoho_modified_at).is_some_and(|(fresh, known)| fresh - known <= turns::SOON);
        let pushed = || facts.link.pushed_at.is_some_and(|at| facts.read_at - at <= turns::APART);
        match verdict {
            Verdict::Pull if zoho_changed && definition.module.level() != Some(path) && soon() && pushed() => {
                turns::answered(&mut self.pairs, facts.read_at);
                self.agreed_more = true;
            }
            Verdict::Push if !zoho_changed && facts.driven.contains(path) => {
                turns::round(&mut self.pairs, path, facts.read_at);
                self.agreed_more = true;
            }
            Verdict::Push if !zoho_changed && !turns::drives(&self.pairs, path) => turns::forget_rounds(&mut self.pairs, path),
            _ => {}
        }
        if turns::is_parked(&self.pairs, path) { Verdict::Park } else { verdict }
    }

    fn agree(&mut self, path: &str, local: Value, zoho: Value) {
        self.pairs.insert(path.to_owned(), Pair { local, zoho, confirmed: true });
        self.agreed_more = true;
    }

    fn pull(&mut self, definition: &Definition, facts: Facts<'_>, path: &str, local: &FieldValue, zoho: Value) {
        self.chosen.insert(path.to_owned());
        match local::incoming(&definition.table, definition.fields().get(path), &zoho, facts.keys) {
            // the row says so already, in other words
            Incoming::Column { as_sent: Some(sent), .. } if value::same(&sent, &local.local()) => self.agree(path, local.local(), zoho),
            Incoming::Column { column, value, .. } => {
                self.keep_back.insert(path.to_owned());
                self.expected.insert(path.to_owned(), local.local());
                self.columns.insert(column, value);
                self.pulled.insert(path.to_owned(), zoho);
            }
            Incoming::Unmapped => {
                self.ignored.push(Ignored {
                    field: path.to_owned(),
                    of: Side::Zoho,
                    to: zoho.clone(),
                    reason: "the value stands in none of the field's `values`",
                });
                self.agree(path, local.local(), zoho);
            }
            Incoming::Missing { sync, zoho_id } => {
                self.keep_back.insert(path.to_owned());
                self.missing.push((sync, zoho_id));
            }
            Incoming::PushOnly => {}
        }
    }
}

#[cfg(test)]
mod tests;
