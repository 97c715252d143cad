//! What the simulator saw: every request with its time, and every breach of Zoho's rules.
//!
//! Must never lose a breach: counts go on when the lists are full.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use chrono::{DateTime, SecondsFormat};
use serde_json::{Value, json};

use crate::{clock::now_us, limits::Excess};

/// Most requests that are kept; older ones are forgotten, their counts stay.
const MOST_REQUESTS: usize = 500_000;
/// Most breaches that are listed; all are counted.
const MOST_BREACHES: usize = 1_000;

/// One request, from its arrival to its end.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) arrived: Instant,
    arrived_us: i64,
    pub(crate) method: String,
    pub(crate) path: String,
    query: String,
    pub(crate) product: &'static str,
    pub(crate) scope: String,
    operation: Option<&'static str>,
    status: Option<u16>,
    latency_us: Option<u64>,
    fault: Option<&'static str>,
    committed: bool,
    ids: Vec<String>,
    body: Option<String>,
}

impl Entry {
    pub(crate) fn to_json(&self) -> Value {
        let at = DateTime::from_timestamp_micros(self.arrived_us).unwrap_or_default();
        json!({
            "number": self.number,
            "arrived_us": self.arrived_us,
            "arrived_at": at.to_rfc3339_opts(SecondsFormat::Micros, true),
            "method": self.method,
            "path": self.path,
            "query": self.query,
            "product": self.product,
            "scope": self.scope,
            "operation": self.operation,
            "status": self.status,
            "latency_us": self.latency_us,
            "fault": self.fault,
            "committed": self.committed,
            "ids": self.ids,
            "body": self.body,
        })
    }
}

/// A request at its arrival.
#[derive(Debug)]
pub(crate) struct Arrival<'a> {
    pub(crate) at: Instant,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) product: &'static str,
    pub(crate) scope: String,
    pub(crate) operation: Option<&'static str>,
}

/// The request log and the breaches.
#[derive(Debug, Default)]
pub(crate) struct Log {
    total: u64,
    /// Requests before the last clearing; numbers go on, so that a late end never lands on another request.
    cleared: u64,
    entries: VecDeque<Entry>,
    breach_counts: BTreeMap<&'static str, u64>,
    breaches: Vec<Value>,
    unknown_operations: BTreeMap<(String, String), u64>,
    unknown_parameters: BTreeMap<(String, String, String), u64>,
    ignored_fields: BTreeMap<String, u64>,
    refusals: BTreeMap<String, u64>,
    commits: u64,
}

impl Log {
    /// Forgets all but the numbering.
    pub(crate) fn clear(&mut self) {
        *self = Self { total: self.total, cleared: self.total, ..Self::default() };
    }

    /// Notes an arrival and returns its number, by which the rest is filled in.
    pub(crate) fn arrive(&mut self, arrival: Arrival<'_>) -> u64 {
        self.total += 1;
        if self.entries.len() == MOST_REQUESTS {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            number: self.total,
            arrived: arrival.at,
            arrived_us: now_us(),
            method: arrival.method.to_owned(),
            path: arrival.path.to_owned(),
            query: arrival.query.to_owned(),
            product: arrival.product,
            scope: arrival.scope,
            operation: arrival.operation,
            status: None,
            latency_us: None,
            fault: None,
            committed: false,
            ids: Vec::new(),
            body: None,
        });
        self.total
    }

    /// Keeps a request's body.
    pub(crate) fn body(&mut self, number: u64, body: &[u8]) {
        if let Some(entry) = self.entry(number) {
            entry.body = Some(String::from_utf8_lossy(body).into_owned());
        }
    }

    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let first = self.entries.front()?.number;
        let index = usize::try_from(number.checked_sub(first)?).ok()?;
        self.entries.get_mut(index)
    }

    pub(crate) fn fault(&mut self, number: u64, fault: &'static str) {
        if let Some(entry) = self.entry(number) {
            entry.fault = Some(fault);
        }
    }

    /// Notes that a request was carried out, on which records, and whether it was a write that succeeded.
    pub(crate) fn carried_out(&mut self, number: u64, committed: bool, ids: &[String]) {
        self.commits += u64::from(committed);
        if let Some(entry) = self.entry(number) {
            entry.committed = committed;
            entry.ids = ids.to_vec();
        }
    }

    /// `status` is absent when the connection was closed instead.
    pub(crate) fn answered(&mut self, number: u64, status: Option<u16>) {
        if let Some(entry) = self.entry(number) {
            entry.status = status;
            entry.latency_us = u64::try_from(entry.arrived.elapsed().as_micros()).ok();
        }
    }

    pub(crate) fn breach(&mut self, number: u64, excess: &Excess) {
        *self.breach_counts.entry(excess.kind).or_default() += 1;
        if self.breaches.len() < MOST_BREACHES {
            self.breaches.push(json!({ "kind": excess.kind, "detail": excess.detail, "request": number }));
        }
    }

    pub(crate) fn unknown_operation(&mut self, method: &str, path: &str) {
        if self.unknown_operations.len() < MOST_BREACHES {
            *self.unknown_operations.entry((method.to_owned(), path.to_owned())).or_default() += 1;
        }
    }

    pub(crate) fn unknown_parameter(&mut self, method: &str, template: &str, parameter: &str) {
        if self.unknown_parameters.len() < MOST_BREACHES {
            let key = (method.to_owned(), template.to_owned(), parameter.to_owned());
            *self.unknown_parameters.entry(key).or_default() += 1;
        }
    }

    /// A field that Zoho would silently drop.
    pub(crate) fn ignored_field(&mut self, module: &str, field: &str) {
        if self.ignored_fields.len() < MOST_BREACHES {
            *self.ignored_fields.entry(format!("{module}.{field}")).or_default() += 1;
        }
    }

    pub(crate) fn refusal(&mut self, code: String) {
        *self.refusals.entry(code).or_default() += 1;
    }

    pub(crate) fn entries(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The breaches and counts, as `/admin/stats` shows them.
    pub(crate) fn to_json(&self) -> Value {
        let operations = self.unknown_operations.iter();
        let parameters = self.unknown_parameters.iter();
        json!({
            "requests": self.total - self.cleared,
            "commits": self.commits,
            "violations": self.breach_counts,
            "violation_list": self.breaches,
            "refusals": self.refusals,
            "ignored_fields": self.ignored_fields,
            "unknown_operations": operations
                .map(|((method, path), count)| json!({ "method": method, "path": path, "count": count }))
                .collect::<Vec<_>>(),
            "unknown_parameters": parameters
                .map(|((method, template, parameter), count)| {
                    json!({ "method": method, "operation": template, "parameter": parameter, "count": count })
                })
                .collect::<Vec<_>>(),
        })
    }
}
