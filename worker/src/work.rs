//! What travels through the worker runtime: a batch going in, what became of it coming out.

use std::sync::Arc;

use serde_json::Value;
use sluice_queue::calls::Calls;
use sluice_queue::{Batch, Settlement, lease};
use sluice_sync::link::store::Agreed;

/// A claimed batch. Clones share one batch; its lease lives as long as any of them.
#[derive(Debug, Clone)]
pub struct Work {
    /// The records.
    pub batch: Arc<Batch>,
    /// The grant, and what became of the calls.
    pub calls: Calls,
    /// Keeps the heartbeat going.
    pub(crate) _lease: Arc<lease::Guard>,
}

/// What a handler made of a batch: all of it is written in one transaction, if the lease still holds.
#[derive(Debug, Default)]
pub struct Handled {
    /// One per slot.
    pub settlements: Vec<Settlement>,
    /// Links that advanced.
    pub agreed: Vec<Agreed>,
    /// Keys whose link ends: the Zoho record was deleted.
    pub unlinked: Vec<String>,
    /// Keys whose second look for a doubled create was clean.
    pub looked_again: Vec<String>,
    /// Keys of parents to push first: (sync, key).
    pub parents: Vec<(String, String)>,
    /// Columns for the application's own rows.
    pub writebacks: Vec<Writeback>,
    /// The answer of a `call` job.
    pub call_result: Option<CallResult>,
}

/// What the application's own row is to say.
#[derive(Debug, Clone)]
pub struct Writeback {
    /// The record.
    pub key: String,
    /// `pending`, `synced`, `retrying` or `failed`.
    pub status: &'static str,
    /// The Zoho id, where it is known now.
    pub zoho_id: Option<String>,
    /// The error, or none.
    pub error: Option<String>,
}

/// The answer of a `call` job.
#[derive(Debug, Clone)]
pub struct CallResult {
    /// The job.
    pub job_id: i64,
    /// The HTTP status.
    pub http_status: u16,
    /// The body.
    pub body: Value,
}
