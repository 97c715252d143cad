//! What travels through the worker runtime: a batch going in, what became of it coming out.

use std::sync::Arc;

use serde_json::Value;
use sluice_queue::calls::Calls;
use sluice_queue::{Batch, Settlement, lease};
use sluice_sync::link::store::Agreed;

/// A claimed batch. Clones share one batch; its lease lives as long as any of them.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    /// The records.
    pub(crate) batch: Arc<Batch>,
    /// The grant, and what became of the calls.
    pub(crate) calls: Calls,
    /// Keeps the heartbeat going.
    pub(crate) _lease: Arc<lease::Guard>,
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
