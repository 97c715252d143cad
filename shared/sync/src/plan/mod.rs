//! What one record needs: the decision between a row, its link and the sync's policies. Pure; it reads and sends nothing.
//!
//! Only fields whose local half changed are sent. The same inputs always give the same step, so a step that was carried out and
//! agreed on is followed by [`Step::Nothing`].

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_core::config::field::{Field, Owner};
use sluice_core::config::sync::{OnDelete, WhenFalse};

use crate::definition::Definition;
use crate::link::agreed::field_in;
use crate::link::{Link, turns};
use crate::read::{Parents, Problem, Ref, Row};
use crate::value;

mod body;
pub use body::replace_rows;

/// The name under which a link remembers that its record was voided or marked. No Zoho field is called so.
pub(crate) const WITHDRAWN: &str = "sluice:withdrawn";

/// Why an edit of a row whose Zoho record was deleted there is not sent.
pub const GONE: &str = "its Zoho record is gone (deleted there); edits of the row are not sent";

/// Why a row that came back as it was is not in step: no write takes a void back.
const VOIDED: &str =
    "its Zoho record was voided when the row went away; take that back in Zoho, then: sluice trigger SYNC --key KEY --force";

/// What is known about a record when it is decided.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The row as it is now; `None` if it is gone.
    pub row: Option<&'a Row>,
    /// What was agreed on.
    pub link: Option<&'a Link>,
    /// Zoho ids of the records that the row refers to, as far as they have one.
    pub parents: &'a Parents,
    /// Fields to leave out for now: a reference that closes a cycle follows in a second push.
    pub leave_out: &'a BTreeSet<String>,
    /// Fields to send although they did not change: Zoho's value is to be overwritten.
    pub repair: &'a BTreeSet<String>,
    /// Send every field, also unchanged ones.
    pub force: bool,
}

/// What a record needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// No call.
    Nothing(Reason),
    /// Zoho ids that the write needs and that do not exist yet, by field.
    WaitFor(Vec<Ref>),
    /// A new Zoho record.
    Create(Write),
    /// A changed Zoho record.
    Update {
        /// The record.
        zoho_id: String,
        /// What is sent.
        write: Write,
        /// The fields whose local half changed; the write may carry their neighbours as well.
        changed: Vec<String>,
        /// CRM: subforms in the body whose rows would be appended. The record is read first and [`replace_rows`] applied.
        subforms: Vec<String>,
    },
    /// The record is deleted in Zoho, and its link removed.
    Delete {
        /// The record.
        zoho_id: String,
    },
    /// The record is voided in Zoho.
    Void {
        /// The record.
        zoho_id: String,
    },
    /// The fields of `mark` are set.
    Mark {
        /// The record.
        zoho_id: String,
        /// What is sent.
        body: Value,
    },
    /// The record is left as it is, and shown as held.
    Held {
        /// Why, for people.
        reason: String,
    },
    /// The row cannot be sent until it is mended: a dead letter at once.
    Unsendable {
        /// By field; never empty.
        problems: Vec<Problem>,
    },
}

/// Why a record needs no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// No mapped value differs from what was agreed on.
    NoChange,
    /// The row does not match `when`, and never came to Zoho.
    WhenFalse,
    /// The row is gone and never came to Zoho.
    NeverCreated,
    /// The row has no Zoho record, and the sync makes none.
    CreatesNothing,
    /// The row is gone and `on_delete` is `ignore`.
    DeleteIgnored,
    /// The record was marked or voided already.
    AlreadyWithdrawn,
}

/// A body and the mapped fields that it carries.
#[derive(Debug, Clone, PartialEq)]
pub struct Write {
    /// The record as it is sent, without the product's envelope.
    pub body: Value,
    /// The mapped fields in it.
    pub sent: Vec<String>,
}

/// What was done to a record whose row went away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withdrawal {
    /// It was marked.
    Mark,
    /// It was voided.
    Void,
}

impl Withdrawal {
    /// The name in configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mark => "mark",
            Self::Void => "void",
        }
    }
}

impl Reason {
    /// The name under which avoided calls are counted.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoChange => "no_change",
            Self::WhenFalse => "when_false",
            Self::NeverCreated => "never_created",
            Self::CreatesNothing => "creates_nothing",
            Self::DeleteIgnored => "delete_ignored",
            Self::AlreadyWithdrawn => "already_withdrawn",
        }
    }
}

/// Decides what a record needs.
pub fn decide(definition: &Definition, facts: Facts<'_>) -> Step {
    let zoho_id = facts.link.and_then(|link| link.zoho_id.as_deref());
    let Some(row) = facts.row else {
        return withdraw(definition, facts.link);
    };
    if !row.when {
        return match (definition.sync.when_false, zoho_id) {
            (_, None) if facts.link.is_some_and(Link::may_be_lost) => Step::Held {
                reason: "the row no longer matches `when`, but a create was sent whose outcome is unknown; look for it in Zoho".to_owned(),
            },
            (_, None) => Step::Nothing(Reason::WhenFalse),
            (WhenFalse::Delete, Some(_)) => withdraw(definition, facts.link),
            (WhenFalse::Keep, Some(_)) => {
                Step::Held { reason: "the row no longer matches `when`; its Zoho record is left as it is".to_owned() }
            }
        };
    }
    if facts.link.is_some_and(|link| link.gone_at.is_some()) {
        return Step::Held { reason: GONE.to_owned() };
    }
    if zoho_id.is_none() && !definition.sync.creates {
        return Step::Nothing(Reason::CreatesNothing);
    }
    if !row.problems.is_empty() {
        return Step::Unsendable { problems: row.problems.clone() };
    }
    match (zoho_id, facts.link) {
        (Some(zoho_id), Some(link)) => update(definition, row, link, zoho_id, facts),
        _ => create(definition, row, facts),
    }
}

/// Whether a change of this row is worth no job: nothing would be sent for it. Parents need not be known, since only changed
/// fields need them.
pub fn is_unchanged(definition: &Definition, row: Option<&Row>, link: Option<&Link>) -> bool {
    let facts = Facts { row, link, parents: &Parents::new(), leave_out: &BTreeSet::new(), repair: &BTreeSet::new(), force: false };
    matches!(decide(definition, facts), Step::Nothing(_))
}

/// The mapped fields whose value differs from the agreed local half. A field that was never agreed on counts as null there; one that the loop
/// breaker has parked is left alone.
pub fn changed_fields(definition: &Definition, row: &Row, link: &Link) -> Vec<String> {
    let changed = row.fields.iter().filter(|(path, field)| {
        let agreed = link.fields.get(*path).map_or(&Value::Null, |pair| &pair.local);
        is_pushed(definition, path) && !value::same(&field.local(), agreed) && !turns::is_parked(&link.fields, path)
    });
    changed.map(|(path, _)| path.clone()).collect()
}

/// Whether local changes of this field count: not if Zoho owns it.
pub(crate) fn is_pushed(definition: &Definition, path: &str) -> bool {
    let owner = match definition.fields().get(path) {
        Some(Field::Column(field)) => field.owner,
        Some(Field::Ref(field)) => field.owner,
        Some(Field::Sql(_) | Field::Value(_) | Field::List(_)) => None,
        Some(Field::Rows(_) | Field::File(_)) | None => Some(Owner::Zoho),
    };
    owner != Some(Owner::Zoho)
}

fn create(definition: &Definition, row: &Row, facts: Facts<'_>) -> Step {
    let fields =
        row.fields.iter().filter(|(path, field)| is_pushed(definition, path) && !field.is_null() && !facts.leave_out.contains(*path));
    let sent: Vec<String> = fields.map(|(path, _)| path.clone()).collect();
    if sent.is_empty() {
        return Step::Unsendable {
            problems: vec![Problem::validation("fields", "every mapped field is null, so there is nothing to create")],
        };
    }
    match body::write(definition, row, facts.link, sent, facts.parents) {
        Ok(write) => Step::Create(write),
        Err(missing) => Step::WaitFor(missing),
    }
}

fn update(definition: &Definition, row: &Row, link: &Link, zoho_id: &str, facts: Facts<'_>) -> Step {
    let allowed = |path: &String| !facts.leave_out.contains(path);
    let changed: Vec<String> = changed_fields(definition, row, link).into_iter().filter(allowed).collect();
    // What is empty is cleared only where the lost write may have filled it.
    let lost = |path: &str| link.lost().any(|body| field_in(&definition.module, body, path).is_some());
    let forced = row.fields.iter().filter(|(path, field)| facts.force && is_pushed(definition, path) && (!field.is_null() || lost(path)));
    let repaired = facts.repair.iter().filter(|path| row.fields.contains_key(*path)).cloned();
    let forced = forced.map(|(path, _)| path.clone()).chain(repaired).filter(allowed);
    let wanted: BTreeSet<String> = changed.iter().cloned().chain(forced).collect();
    if wanted.is_empty() {
        let voided = link.fields.get(WITHDRAWN).is_some_and(|how| how.zoho == Withdrawal::Void.as_str());
        return if voided { Step::Held { reason: VOIDED.to_owned() } } else { Step::Nothing(Reason::NoChange) };
    }
    let sent = body::with_neighbours(definition, row, &wanted).into_iter().filter(allowed).collect();
    match body::write(definition, row, Some(link), sent, facts.parents) {
        Err(missing) => Step::WaitFor(missing),
        Ok(write) => Step::Update { zoho_id: zoho_id.to_owned(), subforms: subforms(definition, &write), write, changed },
    }
}

/// What would have been created is written to a record that Zoho has already.
pub fn adopted(definition: &Definition, zoho_id: &str, write: Write) -> Step {
    let (changed, subforms) = (write.sent.clone(), subforms(definition, &write));
    Step::Update { zoho_id: zoho_id.to_owned(), write, changed, subforms }
}

/// The fields of a write whose rows CRM would append to those of a record that it has.
pub fn subforms(definition: &Definition, write: &Write) -> Vec<String> {
    let subform = |path: &&String| definition.module.appends_rows() && matches!(definition.fields().get(*path), Some(Field::List(_)));
    write.sent.iter().filter(subform).cloned().collect()
}

fn withdraw(definition: &Definition, link: Option<&Link>) -> Step {
    let Some(link) = link else {
        return Step::Nothing(Reason::NeverCreated);
    };
    let Some(zoho_id) = link.zoho_id.clone() else {
        return if link.may_be_lost() {
            Step::Held { reason: "the row is gone, but a create was sent whose outcome is unknown; look for it in Zoho".to_owned() }
        } else {
            Step::Nothing(Reason::NeverCreated)
        };
    };
    let done = link.fields.contains_key(WITHDRAWN);
    match definition.sync.on_delete {
        OnDelete::Ignore => Step::Nothing(Reason::DeleteIgnored),
        OnDelete::Delete => Step::Delete { zoho_id },
        OnDelete::Mark | OnDelete::Void if done => Step::Nothing(Reason::AlreadyWithdrawn),
        OnDelete::Void => Step::Void { zoho_id },
        OnDelete::Mark => Step::Mark { zoho_id, body: body::mark(definition) },
    }
}

#[cfg(test)]
mod tests;
