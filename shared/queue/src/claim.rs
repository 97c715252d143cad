//! What a claim answers: a batch of records with a grant for one call, or when to ask again.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::Value;

use sluice_core::grant::Grant;

/// The answer to one claim.
#[derive(Debug)]
pub enum Claim {
    /// Work, and the right to make one call for it.
    Batch(Box<Batch>, Grant),
    /// Nothing may be done now. `None`: nothing is due at all; wait to be woken.
    Wait(Option<Duration>),
}

/// The records that one call is to carry, all of one shape.
#[derive(Debug, Clone, Deserialize)]
pub struct Batch {
    /// The fence: settle, extend and rescue name it.
    pub token: i64,
    /// The connection whose budget and credentials are used.
    pub connection: String,
    /// The Zoho product.
    pub product: String,
    /// The job kind.
    pub kind: String,
    /// The sync, or empty for kinds that have none.
    #[serde(default)]
    pub sync: String,
    /// The lane it was granted in.
    pub lane: String,
    /// The records, by key.
    pub slots: Vec<Claimed>,
}

/// One record of a batch.
#[derive(Debug, Clone, Deserialize)]
pub struct Claimed {
    /// The slot.
    pub id: i64,
    /// The record's canonical key; `job:<id>` for kinds that never coalesce.
    pub key: String,
    /// The arguments, for kinds that never coalesce.
    pub args: Option<Value>,
    /// Failures counted so far.
    pub failures: u32,
    /// Runs since the last success, whatever became of them: the backoff grows with it.
    pub tries: u32,
    /// Panics in a row, alone in the batch.
    pub panics: u32,
    /// The largest `max_failures` any of its jobs asked for.
    pub max_failures: Option<u32>,
    /// What an earlier run stored with `continue`.
    pub progress: Option<Value>,
    /// A create may have happened whose answer nobody saw.
    pub doubt: Option<Doubt>,
    /// Milliseconds since that create may have been sent, by the database's clock.
    pub doubt_age_ms: Option<i64>,
    /// The oldest job that the run answers for.
    pub job_id: Option<i64>,
}

/// A create in doubt.
#[derive(Debug, Clone, Deserialize)]
pub struct Doubt {
    /// Creates sent whose outcome nobody learnt.
    pub creates: i16,
}

#[derive(Deserialize)]
struct Answer {
    wait_ms: Option<u64>,
    place: Option<i64>,
    send_by_ms: Option<u64>,
    #[serde(flatten)]
    batch: Option<Batch>,
}

impl Claim {
    /// Reads what `sluice.claim` answered. `asked_at` is this process's clock from before it asked.
    pub(crate) fn read(answer: Value, asked_at: Instant) -> Result<Self, serde_json::Error> {
        let answer: Answer = serde_json::from_value(answer)?;
        Ok(match (answer.batch, answer.place) {
            (Some(batch), Some(place)) => {
                let valid = Duration::from_millis(answer.send_by_ms.unwrap_or(0));
                Self::Batch(Box::new(batch), Grant::issued(place, asked_at, valid))
            }
            _ => Self::Wait(answer.wait_ms.map(Duration::from_millis)),
        })
    }
}
