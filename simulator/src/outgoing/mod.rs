//! What Zoho tells others by itself: webhooks and notifications about records that changed.

use chrono::{DateTime, Utc};
use serde_json::Value;

use crate::{clock::Zone, ids::Ids};

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Create,
    Edit,
    Delete,
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
    pub(crate) now: DateTime<Utc>,
    pub(crate) ids: &'a mut Ids,
    pub(crate) changes: &'a mut Vec<Change>,
}
