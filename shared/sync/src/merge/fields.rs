//! One field: what each side has changed, and which of them the policies let win.

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::field::{Conflict, Field, Owner};

use super::{Facts, Side};
use crate::definition::Definition;
use crate::link::adjusting;
use crate::link::agreed::field_in;
use crate::link::{Link, Pair};
use crate::read::FieldValue;
use crate::value;

/// What is to be done with one field.
pub(super) enum Verdict {
    Rest,
    Agree,
    Push,
    Repair,
    Pull,
    Ignore(Side, &'static str),
    Clash(&'static str),
    Park,
}

#[allow(clippy::too_many_arguments, reason = "the three values and what is known of them")]
pub(super) fn verdict(
    definition: &Definition,
    facts: Facts<'_>,
    path: &str,
    local: &FieldValue,
    zoho: &Value,
    pair: Option<(&Pair, (bool, bool))>,
    fresh: Option<DateTime<Utc>>,
) -> Verdict {
    let policy = Policy::of(definition, path);
    let sent = local.sent(path, facts.parents, definition.module.wraps_lookups());
    let agree = sent.as_ref().is_some_and(|sent| means(sent, zoho));
    if let Some(side) = facts.decided.get(path) {
        return match side {
            _ if agree => Verdict::Agree,
            Side::Local => Verdict::Repair,
            Side::Zoho => Verdict::Pull,
        };
    }
    let Some((pair, changed)) = pair else {
        return match (policy.owner, policy.conflict) {
            _ if agree => Verdict::Agree,
            _ if !policy.pulls || local.is_null() && policy.owner == Some(Owner::Local) => Verdict::Push,
            _ if local.is_null() => Verdict::Pull,
            _ if zoho.is_null() && policy.owner != Some(Owner::Zoho) => Verdict::Push,
            (Some(Owner::Local), _) | (None, Conflict::Local) if policy.pushes => Verdict::Push,
            (Some(Owner::Zoho), _) | (None, Conflict::Zoho) => Verdict::Pull,
            _ if !policy.pushes => Verdict::Pull,
            _ => Verdict::Clash("both sides have a value and were never compared before"),
        };
    };
    match changed {
        (false, false) if !pair.confirmed => Verdict::Agree,
        (false, false) => Verdict::Rest,
        (true, true) if agree => Verdict::Agree,
        // a write of ours whose answer was lost: the row decides
        (_, true) if was_sent(definition, facts.link, path, zoho) => Verdict::Repair,
        (local_changed, zoho_changed) => policy.decide(local_changed, zoho_changed, facts.changed_at.get(path).copied(), fresh),
    }
}

/// Which sides have changed, each compared with its own half: (here, in Zoho). Of a reference the record that it names.
pub(super) fn changed(pair: &Pair, local: &FieldValue, zoho: &Value, ours: bool, refers: bool) -> (bool, bool) {
    let here = !value::same(&local.local(), &pair.local);
    // What was sent and never read back: the state that our own write left is what Zoho made of it, whatever it says.
    let there = if pair.confirmed {
        let same = value::same(&pair.zoho, zoho) || same_time(&pair.zoho, zoho) || refers && value::same_lookup(&pair.zoho, zoho);
        !same
    } else {
        !ours && !means(&pair.zoho, zoho)
    };
    (here, there)
}

/// What the configuration says of one field.
struct Policy {
    owner: Option<Owner>,
    conflict: Conflict,
    repair: bool,
    /// Whether this sync, and this form of field, can bring Zoho's value here.
    pulls: bool,
    pushes: bool,
}

impl Policy {
    fn of(definition: &Definition, path: &str) -> Self {
        let sync = &definition.sync;
        let (owner, conflict, repair, form_pulls) = match definition.fields().get(path) {
            Some(Field::Column(field)) => (field.owner, field.conflict, field.repair, true),
            Some(Field::Ref(field)) => (field.owner, field.conflict, field.repair, true),
            // made of the row: nothing could be mapped back
            Some(Field::Sql(_) | Field::Value(_) | Field::List(_) | Field::Rows(_) | Field::File(_)) | None => {
                (Some(Owner::Local), None, false, false)
            }
        };
        Self {
            owner,
            conflict: conflict.unwrap_or(sync.conflict),
            repair,
            pulls: form_pulls && sync.direction.pulls(),
            pushes: sync.direction.pushes(),
        }
    }

    /// At least one side has changed, and they differ now.
    fn decide(&self, local: bool, zoho: bool, changed_at: Option<DateTime<Utc>>, fresh: Option<DateTime<Utc>>) -> Verdict {
        const OWNED_HERE: &str = "the field is owned by the local side";
        const OWNED_THERE: &str = "the field is owned by Zoho";
        match (self.owner, local, zoho) {
            _ if !self.pushes && !zoho => Verdict::Rest,
            (Some(Owner::Local), _, true) if self.repair => Verdict::Repair,
            (Some(Owner::Local), false, true) => Verdict::Ignore(Side::Zoho, OWNED_HERE),
            (Some(Owner::Local), true, _) => Verdict::Push,
            (Some(Owner::Zoho), true, false) if self.repair && self.pulls => Verdict::Pull,
            (Some(Owner::Zoho), true, false) => Verdict::Ignore(Side::Local, OWNED_THERE),
            (_, false, true) | (Some(Owner::Zoho), _, true) if self.pulls => Verdict::Pull,
            (None, true, false) => Verdict::Push,
            (None, true, true) if !self.pushes => Verdict::Pull,
            (None, true, true) => match self.conflict {
                Conflict::Local => Verdict::Push,
                Conflict::Zoho => Verdict::Pull,
                Conflict::Manual => Verdict::Clash("changed on both sides"),
                Conflict::Newest => match (changed_at, fresh) {
                    (Some(here), Some(there)) if here >= there => Verdict::Push,
                    _ => Verdict::Pull,
                },
            },
            _ => Verdict::Rest,
        }
    }
}

/// Whether one of the writes of unknown outcome carried what Zoho has now.
pub(super) fn was_sent(definition: &Definition, link: &Link, path: &str, zoho: &Value) -> bool {
    let adjusted = || adjusting::pending(link).is_some_and(|pending| definition.module.level() == Some(path) && means(&pending.to, zoho));
    link.lost().any(|body| field_in(&definition.module, body, path).is_some_and(|sent| means(sent, zoho))) || adjusted()
}

/// Whether what would be sent and what Zoho has mean the same; times by the moment, whatever zone they are printed in.
pub(super) fn means(sent: &Value, zoho: &Value) -> bool {
    value::alike(sent, zoho) || same_time(sent, zoho)
}

fn same_time(a: &Value, b: &Value) -> bool {
    match (a.as_str().and_then(crate::module::parse_time), b.as_str().and_then(crate::module::parse_time)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}
