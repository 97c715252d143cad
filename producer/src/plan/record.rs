//! What a run of one record would come to, by the same [`plan::decide`] that a worker asks. Pure.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_core::config::sync::Product;
use sluice_sync::definition::Definition;
use sluice_sync::link::Link;
use sluice_sync::module::Create as Way;
use sluice_sync::plan::{self, Facts, Step, Write};
use sluice_sync::read::{Class, FieldValue, Parents, Ref, Row};
use sluice_sync::value;

use super::calls::Tally;

/// What a record needs.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Need {
    Nothing,
    /// The row is excluded by `when`, and has no Zoho record.
    Excluded,
    /// It is left as it is, and shown as held.
    Held,
    /// A dead letter at once.
    Dead(Problem),
    Create {
        /// A list is looked through for a record to adopt.
        matched: bool,
        /// The name that is looked for before.
        similar: Option<String>,
        /// An earlier create may be in Zoho.
        lost: bool,
        /// It refers to itself.
        cyclic: bool,
    },
    Update {
        /// Anything but a level is sent.
        put: bool,
        /// A level is sent.
        level: bool,
        subforms: bool,
        /// Only the reading of Zoho's side tells what is sent.
        unsure: bool,
        /// Zoho's side is read first.
        read: bool,
    },
    Delete,
    Void,
    Mark,
    LookAgain,
}

/// Why a row would become a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) class: &'static str,
    pub(super) field: String,
    pub(super) reason: String,
}

/// What a run would do, given the parents' Zoho ids; or the references that have none yet.
pub(super) fn need(
    definition: &Definition,
    row: Option<&Row>,
    link: Option<&Link>,
    parents: &Parents,
    forgotten: bool,
) -> Result<Need, Vec<Ref>> {
    let own = |missing: &Ref| row.is_some_and(|row| missing.sync == definition.name() && missing.key == row.key);
    let mut leave_out = BTreeSet::new();
    let step = loop {
        match decided(definition, row, link, parents, &leave_out) {
            // a record that waits for itself goes without that field first
            Step::WaitFor(missing) if leave_out.is_empty() && missing.iter().any(own) => {
                let fields = missing.iter().filter(|missing| own(missing));
                leave_out.extend(fields.map(|missing| missing.field.split('[').next().unwrap_or(&missing.field).to_owned()));
            }
            step => break step,
        }
    };
    Ok(match step {
        Step::WaitFor(missing) => return Err(missing),
        Step::Nothing(_) if looks_again(link) => Need::LookAgain,
        Step::Nothing(plan::Reason::WhenFalse) => Need::Excluded,
        Step::Nothing(_) => Need::Nothing,
        Step::Held { .. } => Need::Held,
        Step::Unsendable { problems } => Need::Dead(problems.into_iter().next().map_or_else(
            || Problem { class: "validation", field: String::new(), reason: String::new() },
            |problem| Problem {
                class: if problem.class == Class::Validation { "validation" } else { "payload" },
                field: problem.field,
                reason: problem.message,
            },
        )),
        Step::Create(write) => create(definition, row, link, &write, !leave_out.is_empty()),
        Step::Update { write, subforms, .. } => update(definition, link, &write, !subforms.is_empty(), forgotten),
        Step::Delete { .. } => Need::Delete,
        Step::Void { .. } => Need::Void,
        Step::Mark { .. } => Need::Mark,
    })
}

fn decided(definition: &Definition, row: Option<&Row>, link: Option<&Link>, parents: &Parents, leave_out: &BTreeSet<String>) -> Step {
    // after a write whose answer was lost every field is sent
    let force = link.is_some_and(|link| link.unsure) && !looks_again(link);
    plan::decide(definition, Facts { row, link, parents, leave_out, repair: &BTreeSet::new(), force })
}

fn looks_again(link: Option<&Link>) -> bool {
    link.is_some_and(|link| link.look_again_at.is_some_and(|at| at <= chrono::Utc::now()))
}

fn create(definition: &Definition, row: Option<&Row>, link: Option<&Link>, write: &Write, cyclic: bool) -> Need {
    let crm = definition.module.product == Product::Crm;
    let may_be_lost = !crm && link.is_some_and(Link::may_be_lost);
    let lost = match definition.create_way() {
        Way::Parked if may_be_lost => {
            let reason = "an earlier create was sent whose answer was lost; Zoho offers no way to find the record again".to_owned();
            return Need::Dead(Problem { class: "unknown", field: String::new(), reason });
        }
        Way::FoundAgain { .. } => may_be_lost,
        Way::Refused { .. } | Way::Parked => false,
    };
    let matched = !crm && !may_be_lost && definition.matched_by(&write.body).is_some();
    let name = definition.sync.match_similar.as_ref().and_then(|field| match row?.fields.get(field)? {
        FieldValue::Plain(Value::Null) | FieldValue::Ref { .. } | FieldValue::List(_) => None,
        FieldValue::Plain(name) => Some(value::scalar_text(name).trim().to_owned()),
    });
    Need::Create { matched, similar: name.filter(|name| !name.is_empty()), lost, cyclic }
}

fn update(definition: &Definition, link: Option<&Link>, write: &Write, subforms: bool, forgotten: bool) -> Need {
    let level = definition.module.level();
    let is_level = |field: &String| Some(field.as_str()) == level;
    let read = definition.sync.direction.pulls();
    Need::Update {
        put: write.sent.iter().any(|field| !is_level(field)),
        level: write.sent.iter().any(is_level),
        subforms,
        // what both sides say is compared anew
        unsure: read && (forgotten || link.is_some_and(|link| link.unsure)),
        read,
    }
}

impl Tally {
    /// One more record, for which a run is asked.
    pub(super) fn add(&mut self, need: &Need, waits: bool) {
        self.runs += 1;
        self.waiting += u64::from(waits);
        match need {
            Need::Nothing | Need::Excluded | Need::Held | Need::Dead(_) => {}
            Need::Create { matched, similar, lost, cyclic } => {
                self.create += 1;
                self.matched += u64::from(*matched);
                self.similar += u64::from(similar.is_some());
                self.lost += u64::from(*lost);
                self.cyclic += u64::from(*cyclic);
            }
            Need::Update { put, level, subforms, unsure, read } => {
                self.update += u64::from(*put);
                self.unsure += u64::from(*put && *unsure);
                self.level += u64::from(*level);
                self.level_after += u64::from(*level && *put);
                self.subforms += u64::from(*subforms);
                self.read += u64::from(*read);
                self.read_waiting += u64::from(*read && waits);
            }
            Need::Delete => self.delete += 1,
            Need::Void => self.void += 1,
            Need::Mark => self.mark += 1,
            Need::LookAgain => self.look_again += 1,
        }
    }
}
