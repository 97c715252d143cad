//! What both sides agreed on, record by record.
//!
//! A [`Link`] joins a local key to a Zoho id and keeps, per field, the pair of values last agreed on. Its halves advance only on
//! confirmed success ([`agreed`]); [`store`] is the only place that reads or writes the table.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod adjusting;
pub mod agreed;
pub mod store;
pub mod turns;

/// Zoho field → the pair of values last agreed on. A field that is absent was never agreed on.
pub type Pairs = BTreeMap<String, Pair>;

/// The value of one field on both sides, each as its own side prints it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// As it was read from the row; a reference is the key that the row holds.
    pub local: Value,
    /// As Zoho answered it; where its answer does not carry the record, as it was sent.
    pub zoho: Value,
    /// Whether `zoho` was read from Zoho.
    pub confirmed: bool,
}

/// A row of `sluice.link`. The default is one of which nothing is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Link {
    /// The sync.
    pub sync: String,
    /// The canonical local key.
    pub key: String,
    /// The Zoho record, once it is known.
    pub zoho_id: Option<String>,
    /// What was agreed on.
    pub fields: Pairs,
    /// Zoho's own time of the newest state that we know.
    pub zoho_modified_at: Option<DateTime<Utc>>,
    /// A create is under way, or lost, since then.
    pub create_sent_at: Option<DateTime<Utc>>,
    /// Creates sent whose outcome was never learnt.
    pub creates: i16,
    /// When a repeated create is to be looked up once more.
    pub look_again_at: Option<DateTime<Utc>>,
    /// A write gave up without an answer: Zoho may have what `fields` does not know of, so the next one sends every field.
    pub unsure: bool,
    /// When the last write had been answered, and was settled.
    pub pushed_at: Option<DateTime<Utc>>,
    /// A write whose answer was lost may still arrive until then.
    pub hold_until: Option<DateTime<Utc>>,
    /// When both sides were last known equal.
    pub synced_at: Option<DateTime<Utc>>,
    /// The bodies of writes whose outcome is not known, an array: Zoho may have any of them, and that is no edit of Zoho's.
    pub sending: Option<Value>,
    /// Our reference that its Zoho record carries, or will, where it is not the usual one of the key.
    pub reference: Option<String>,
    /// Since when Zoho has the record no more.
    pub gone_at: Option<DateTime<Utc>>,
}

impl Link {
    /// The link as [`store::forget_agreed`] leaves it.
    #[must_use]
    pub fn forgotten(mut self) -> Self {
        if self.zoho_id.is_some() {
            self.fields.retain(|name, _| name == adjusting::ADJUSTING);
        }
        self
    }

    /// Whether a create may have reached Zoho without our knowing: it must be looked for before another is sent.
    pub fn may_be_lost(&self) -> bool {
        self.zoho_id.is_none() && self.creates > 0
    }

    /// The bodies of writes whose outcome is not known, the newest last.
    pub fn lost(&self) -> impl DoubleEndedIterator<Item = &Value> {
        self.sending.as_ref().and_then(Value::as_array).into_iter().flatten()
    }

    /// Whether a reading that began then need not show what we wrote: our last write was not answered yet, or a lost one could still arrive. The
    /// record's own time of modification does not tell: it has seconds, and an adjustment of stock leaves it as it is.
    pub fn was_written_after(&self, began: DateTime<Utc>) -> bool {
        self.pushed_at.max(self.hold_until).is_some_and(|until| began < until)
    }
}
