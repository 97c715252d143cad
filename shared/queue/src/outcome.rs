//! What can become of a record's run. A closed set: whoever adds one finds every place that must know.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// What became of one record's run.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Both sides agree, or there was nothing to do; `reason` then says why no call was made.
    Done {
        /// Why nothing was sent.
        reason: Option<&'static str>,
    },
    /// More calls are needed and the budget has none now: due at once, nothing counted, `progress` kept.
    Continue {
        /// What the next run goes on from.
        progress: Option<Value>,
    },
    /// It failed in a way that may pass.
    Retry(Retry),
    /// Not its fault: rate limited, paused, no token. Counts nothing.
    Snooze {
        /// When to look again.
        after: Duration,
        /// Shown by status and explain.
        reason: String,
    },
    /// It needs another record to be in Zoho first. Costs nothing until that one is linked or dead.
    Wait {
        /// The parent's sync.
        sync: String,
        /// The parent's canonical key.
        key: String,
    },
    /// It gave up: a person must look.
    Dead(Box<Letter>),
}

/// A failure that may pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Retry {
    /// The backoff.
    pub after: Duration,
    /// Whether it counts against `max_failures` now.
    pub counts: bool,
    /// It counts when the record is next claimed, if the product has answered somebody by then: a 5xx or a time-out.
    pub unbooked: bool,
    /// Nothing may touch the record before this: a lost write may still arrive.
    pub hold: Option<Duration>,
    /// The batch failed as a whole: from now on the record rides in batches of at most this many.
    pub max_batch: Option<u16>,
    /// A caught panic while the record was alone in its batch.
    pub panicked: bool,
    /// What went wrong, masked.
    pub message: String,
    /// The HTTP status, if there was an answer.
    pub http_status: Option<u16>,
    /// What the next run goes on from; `None` keeps what there is.
    pub progress: Option<Value>,
}

/// Why a job gave up: what a person reads in `sluice.dead_letter`.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The class.
    pub class: Class,
    /// Zoho's own code, or SQLSTATE.
    pub code: Option<String>,
    /// The field that is at fault.
    pub field: Option<String>,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// The HTTP status, if there was an answer.
    pub http_status: Option<u16>,
    /// The answer, masked.
    pub response: Option<Value>,
    /// Class `dependency`: the parent whose link will requeue this.
    pub depends_on: Option<(String, String)>,
}

impl Letter {
    /// A letter with a class and a message; the rest is filled in by whoever knows it.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, code: None, field: None, message: message.into(), hint: None, http_status: None, response: None, depends_on: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the field at fault.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.field = Some(field.into());
        self
    }
}

/// The classes of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Zoho refused a value; the field is named.
    Validation,
    /// A right or a scope is missing.
    Permission,
    /// The record is not in Zoho any more.
    NotFound,
    /// The record's state in Zoho forbids it: locked, in approval, already paid.
    Conflict,
    /// It exists already, or more than once.
    Duplicate,
    /// Its parent is missing, excluded or dead.
    Dependency,
    /// It cannot be built: an expression failed, a value has no mapping, arguments cannot be read.
    Payload,
    /// `max_failures` was reached.
    Exhausted,
    /// It killed its worker.
    Panic,
    /// Whether Zoho did it is not known and cannot be found out.
    Unknown,
}

impl Class {
    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Permission => "permission",
            Self::NotFound => "not_found",
            Self::Conflict => "conflict",
            Self::Duplicate => "duplicate",
            Self::Dependency => "dependency",
            Self::Payload => "payload",
            Self::Exhausted => "exhausted",
            Self::Panic => "panic",
            Self::Unknown => "unknown",
        }
    }
}

impl Outcome {
    /// The name in `sluice.attempt`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Done { .. } => "done",
            Self::Continue { .. } => "continue",
            Self::Retry(_) => "retry",
            Self::Snooze { .. } => "snooze",
            Self::Wait { .. } => "wait",
            Self::Dead(_) => "dead",
        }
    }
}
