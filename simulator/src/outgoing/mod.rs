//! What Zoho tells others by itself: webhooks of the finance products and of CRM workflows, signed or not, and CRM
//! notifications. Any change is told, whoever made it; so a client also hears of its own writes.
//!
//! A delivery can be lost, doubled, delayed, overtaken and forged, as the scenario says. Nothing here promises order,
//! and nothing may be told of a change that was not made, but for a forgery.

mod body;
mod forge;
mod queue;
mod send;
mod signature;

pub(crate) use queue::Outgoing;
pub(crate) use send::run;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::{clock::Zone, ids::Ids};

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Edit,
    Delete,
}

impl Operation {
    /// As workflow rules call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Edit => "edit",
            Self::Delete => "delete",
        }
    }
}

/// A record that changed, by whomever.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) product: &'static str,
    /// The finance organisation; empty in the CRM.
    pub(crate) organization: String,
    /// As the admin API calls it.
    pub(crate) module: String,
    /// The key under which a webhook's default payload has the record.
    pub(crate) key: &'static str,
    pub(crate) id: String,
    pub(crate) operation: Operation,
    /// As a single read answers it now; of a deleted record as it was.
    pub(crate) record: Value,
    /// CRM: the fields that a change was given.
    pub(crate) fields: Vec<String>,
    /// Whether workflow rules run for it; a CRM write can suppress them.
    pub(crate) workflow: bool,
}

/// What an edit by a person needs besides the records.
#[derive(Debug)]
pub(crate) struct Hand<'a> {
    pub(crate) zone: Zone,
    /// The finance organisation that is edited; empty in the CRM.
    pub(crate) organization: String,
    pub(crate) now: DateTime<Utc>,
    /// How far the CRM's search index is behind.
    pub(crate) search_lag: TimeDelta,
    pub(crate) ids: &'a mut Ids,
    pub(crate) changes: &'a mut Vec<Change>,
}
