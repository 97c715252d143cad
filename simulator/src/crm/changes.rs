//! Where records are written and deleted, by a client or by a person, and each change is noted.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Context, Crm, Values};
use crate::{
    clock::Zone,
    exchange::Request,
    outgoing::{Change, Hand, Operation},
};

/// When a write happens, and by whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) now: DateTime<Utc>,
    pub(super) zone: Zone,
    pub(super) by_person: bool,
    pub(super) workflow: bool,
    /// How far the search index is behind.
    pub(super) lag: TimeDelta,
}

impl Context<'_> {
    pub(super) fn stamp(&self) -> Stamp {
        Stamp { now: self.now, zone: self.zone(), by_person: false, workflow: self.workflow, lag: self.scenario.search_lag() }
    }

    /// Whether a moment is "modified since".
    pub(super) fn is_since(&self, at: DateTime<Utc>, since: DateTime<Utc>) -> bool {
        at > since || (at == since && self.scenario.modified_since_inclusive)
    }
}

impl Hand<'_> {
    fn stamp(&self) -> Stamp {
        Stamp { now: self.now, zone: self.zone, by_person: true, workflow: true, lag: self.search_lag }
    }
}

/// Whether a write runs workflow rules: `trigger` is absent or names them, `wf_trigger` is not false (CRM facts 2.3, 2.8).
pub(super) fn runs_workflows(request: &Request) -> bool {
    if request.method == "DELETE" {
        return request.query("wf_trigger") != Some("false");
    }
    let trigger = request.json_object().and_then(|mut body| body.remove("trigger"));
    match trigger {
        Some(Value::Array(names)) => names.iter().any(|name| name == "workflow"),
        _ => true,
    }
}

impl Crm {
    /// Writes a record and notes the change.
    pub(super) fn store(&mut self, module: &str, id: &str, values: Values, stamp: &Stamp, changes: &mut Vec<Change>) {
        let Some(found) = self.modules.get_mut(module) else { return };
        let before = found.records.get(id).map(|record| record.values.clone());
        let changed = |(name, value): (&String, &Value)| {
            let old = before.as_ref().and_then(|before| before.get(name)).unwrap_or(&Value::Null);
            (old != value).then(|| name.clone())
        };
        let fields: Vec<String> = values.iter().filter_map(changed).collect();
        let operation = if before.is_some() { Operation::Edit } else { Operation::Create };
        found.store(id, values, stamp);
        self.note(module, id, operation, fields, stamp, changes);
    }

    /// Deletes a record and notes it; false if there was none.
    pub(super) fn erase(&mut self, module: &str, id: &str, permanent: bool, stamp: &Stamp, changes: &mut Vec<Change>) -> bool {
        self.note(module, id, Operation::Delete, Vec::new(), stamp, changes);
        self.modules.get_mut(module).is_some_and(|module| module.remove(id, permanent, stamp))
    }

    fn note(&self, module: &str, id: &str, operation: Operation, fields: Vec<String>, stamp: &Stamp, changes: &mut Vec<Change>) {
        let Some((found, record)) = self.modules.get(module).and_then(|found| Some((found, found.records.get(id)?))) else { return };
        changes.push(Change {
            product: "crm",
            organization: String::new(),
            module: module.to_owned(),
            key: "record",
            id: id.to_owned(),
            operation,
            record: self.full(found, id, record, stamp.zone),
            fields,
            workflow: stamp.workflow,
        });
    }

    /// Changes or adds a record as a person in Zoho would, without any check. `None` if there is no such module or
    /// record.
    pub(crate) fn put_by_hand(&mut self, module: &str, id: Option<&str>, mut given: Values, hand: &mut Hand<'_>) -> Option<Value> {
        let found = self.modules.get(module)?;
        // The form that a person saves has all rows.
        found.merge_rows(None, &mut given, hand.ids);
        let id = match id {
            Some(id) => found.records.contains_key(id).then(|| id.to_owned())?,
            None => hand.ids.record(),
        };
        self.store(module, &id, given, &hand.stamp(), hand.changes);
        let found = self.modules.get(module)?;
        Some(self.full(found, &id, found.records.get(&id)?, hand.zone))
    }

    /// Deletes a record as a person in Zoho would, into the recycle bin or for good.
    pub(crate) fn delete_by_hand(&mut self, module: &str, id: &str, permanent: bool, hand: &mut Hand<'_>) -> bool {
        self.erase(module, id, permanent, &hand.stamp(), hand.changes)
    }
}
