//! What travels through the worker runtime: a batch going in, what became of it coming out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_queue::calls::Calls;
use sluice_queue::{Batch, Settlement, lease};
use sluice_sync::link::store::Agreed;
use sluice_sync::merge::Clash;
use sluice_sync::merge::children::Children;
use sluice_sync::sighting::{Sighting, Used};

/// A claimed batch. Clones share one batch; its lease lives as long as any of them.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The records.
    pub(crate) batch: Arc<Batch>,
    /// The grant, and what became of the calls.
    pub(crate) calls: Calls,
    /// Keeps the heartbeat going.
    pub(crate) _lease: Arc<lease::Guard>,
    /// When the claim was asked for.
    pub(crate) asked_at: Instant,
}

/// What a handler made of a batch: all of it is written in one transaction, if the lease still holds.
#[derive(Debug, Default)]
pub(crate) struct Handled {
    /// One per slot.
    pub(crate) settlements: Vec<Settlement>,
    /// Links that advanced.
    pub(crate) agreed: Vec<Agreed>,
    /// Keys whose link ends: the Zoho record was deleted.
    pub(crate) unlinked: Vec<String>,
    /// Keys whose second look for a doubled create was clean.
    pub(crate) looked_again: Vec<String>,
    /// Keys of parents to push first: (sync, key).
    pub(crate) parents: Vec<(String, String)>,
    /// Columns for the application's own rows.
    pub(crate) writebacks: Vec<Writeback>,
    /// The answer of a `call` job.
    pub(crate) call_result: Option<CallResult>,
    /// What Zoho's side changes here.
    pub(crate) pulls: Vec<Pull>,
    /// Keys whose Zoho record is gone.
    pub(crate) gone: Vec<String>,
    /// Readings for a later run, by Zoho id.
    pub(crate) sightings: Vec<(String, Sighting)>,
    /// Readings that were acted on, and what their run is to be told.
    pub(crate) acted_on: Vec<(Used, Fate)>,
    /// Fields that wait for a person.
    pub(crate) conflicts: Vec<Conflict>,
    /// Records whose conflicts are to be looked at anew: those that are not among `conflicts` are over.
    pub(crate) compared: Vec<String>,
    /// Of these, records to which nothing was sent that was to be sent: what a person has decided is still to be carried out.
    pub(crate) undone: Vec<String>,
    /// Records to run next: the row of a Zoho record was found.
    pub(crate) runs: Vec<Next>,
    /// Rows that were found to be Zoho records': (key, Zoho id).
    pub(crate) adopted: Vec<(String, String)>,
    /// Links whose rows were found under another key: (from, to).
    pub(crate) moved: Vec<(String, String)>,
    /// What a run over many records is told besides.
    pub(crate) sums: BTreeMap<i64, Sums>,
}

/// A change of Zoho's for the application's own row, as settle leaves it in `sluice.local_write`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pull {
    /// The slot's key: the row's, or `zoho:<id>` where it is to be made.
    #[serde(skip)]
    pub(crate) key: String,
    pub(crate) zoho_id: String,
    pub(crate) act: Act,
    /// Zoho has the record no more: the row is deleted, or marked.
    #[serde(default)]
    pub(crate) gone: bool,
    /// Column → value; the database casts it.
    pub(crate) columns: BTreeMap<String, Value>,
    /// Field → what the row must still say of it.
    pub(crate) expected: BTreeMap<String, Value>,
    /// Field → Zoho's half of what is agreed on then.
    pub(crate) pulled: BTreeMap<String, Value>,
    /// Field → rows of its child table.
    #[serde(default)]
    pub(crate) rows: BTreeMap<String, Children>,
    /// Column → a file's bytes, as PostgreSQL prints `bytea`. Apart from `columns`, so that nobody is shown them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) files: BTreeMap<String, String>,
    pub(crate) modified_at: Option<DateTime<Utc>>,
    /// The run that left it was a success but for this: the record's open dead letters are closed when the row says it.
    #[serde(default)]
    pub(crate) closes: bool,
    /// The run over many records that is told what became of it; settle sets it.
    pub(crate) run_id: Option<i64>,
}

impl Pull {
    /// Whether it gives this column of the row a value.
    pub(crate) fn writes(&self, column: &str) -> bool {
        self.columns.contains_key(column) || self.files.contains_key(column)
    }

    /// How many rows it deletes or marks, those of child tables included.
    pub(crate) fn removes(&self) -> usize {
        let children: usize = self.rows.values().map(|children| children.removed.len()).sum();
        usize::from(self.gone) + children
    }
}

/// What is done to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Act {
    Insert,
    Update,
    Delete,
}

/// A field of a record that waits for a person.
#[derive(Debug, Clone)]
pub(crate) struct Conflict {
    pub(crate) key: String,
    pub(crate) zoho_id: String,
    pub(crate) clash: Clash,
    pub(crate) local_changed_at: Option<DateTime<Utc>>,
    pub(crate) zoho_modified_at: Option<DateTime<Utc>>,
}

/// A record to run next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Next {
    /// By its key.
    Key { sync: String, key: String },
    /// By its Zoho id.
    Zoho { sync: String, zoho_id: String },
    /// The same, and what was read of it before will not do.
    Anew { sync: String, zoho_id: String },
}

/// What became of one record of a run over many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Nothing is to be done to its row, or it was said already.
    Unchanged,
    /// It is a dead letter, and why.
    Failed(String),
    /// A pull tells what became of it; or the record's next run does.
    Later,
}

/// What became of a run's records.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sums {
    pub(crate) total: i64,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) unchanged: i64,
    pub(crate) failed: i64,
    pub(crate) messages: Vec<String>,
    /// Calls that were made for it.
    pub(crate) calls: i64,
}

/// What the application's own row is to say.
#[derive(Debug, Clone)]
pub(crate) struct Writeback {
    /// The record.
    pub(crate) key: String,
    /// `pending`, `synced`, `retrying` or `failed`.
    pub(crate) status: &'static str,
    /// The Zoho id, where it is known now.
    pub(crate) zoho_id: Option<String>,
    /// The error, or none.
    pub(crate) error: Option<String>,
}

/// The answer of a `call` job.
#[derive(Debug, Clone)]
pub(crate) struct CallResult {
    /// The job.
    pub(crate) job_id: i64,
    /// The HTTP status.
    pub(crate) http_status: u16,
    /// The body.
    pub(crate) body: Value,
}
