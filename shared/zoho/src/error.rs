//! The closed set of ways in which a call ends badly. One place elsewhere turns these into outcomes; nothing here decides.

use std::time::Duration;

use serde_json::Value;
use sluice_core::grant::Late;

use crate::Evidence;

/// An error, and what the request showed nevertheless.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed<E> {
    /// What went wrong.
    pub error: E,
    /// What the request showed; boxed, since it is larger than most values.
    pub evidence: Box<Evidence>,
}

impl<E> Failed<E> {
    pub(crate) fn new(error: E, evidence: Evidence) -> Self {
        Self { error, evidence: Box::new(evidence) }
    }
}

/// Why a call, or one record of a batch, did not succeed.
///
/// Only [`Error::OutcomeUnknown`] leaves it open whether Zoho acted; every other variant means it certainly wrote nothing.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A limit of Zoho's was reached; nothing was done. Counts as no failure.
    #[error("Zoho's {scope} limit was reached (code {code})")]
    RateLimited {
        /// Which limit, as far as the answer tells.
        scope: LimitScope,
        /// How long to stay away, when Zoho said or documents it.
        retry_after: Option<Duration>,
        /// Zoho's code, or the status where there was none.
        code: String,
    },
    /// The token, or the organisation named beside it, was not accepted for this call; nothing was done.
    #[error("Zoho refused access ({kind}, code {code}): {message}")]
    Unauthorized {
        /// What that calls for.
        kind: AuthKind,
        /// Zoho's code, or the status where there was none.
        code: String,
        /// Zoho's words, masked.
        message: String,
    },
    /// The record that the request addressed does not exist (any more).
    #[error("Zoho has no such record (code {code}): {message}")]
    NotFound {
        /// Zoho's code, or the status.
        code: String,
        /// Zoho's words, masked.
        message: String,
    },
    /// Zoho understood and said no; the same request would be refused again.
    #[error("{0}")]
    Rejected(Box<Rejection>),
    /// No answer, or a failing one, to a read; or a write that certainly did not happen (no connection, refused with an unreadable reason).
    #[error("Zoho is not available: {reason}")]
    Unavailable {
        /// What was seen, without address or content.
        reason: String,
    },
    /// An answer to a read that does not have the documented form.
    #[error("Zoho's answer could not be understood: {reason}")]
    Malformed {
        /// What was expected and not found.
        reason: String,
    },
    /// A write was, or may have been, delivered, and no answer tells whether it was carried out. It must be looked up, never simply repeated.
    #[error("it is unknown whether Zoho carried this out: {reason}")]
    OutcomeUnknown {
        /// How the answer was lost.
        reason: UnknownReason,
    },
    /// Nothing was sent.
    #[error("nothing was sent: {0}")]
    NotSent(NotSent),
}

/// Why nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotSent {
    /// The grant's deadline had passed; somebody else may hold the place, or the record, by now.
    #[error("the grant came too late by {late_by:?}")]
    Late {
        /// How long ago the deadline passed.
        late_by: Duration,
    },
    /// The request itself is impossible: a bad path, too many records, too large a body, a host that is not Zoho's.
    #[error("{reason}")]
    Invalid {
        /// What is wrong with it.
        reason: String,
    },
}

impl From<Late> for NotSent {
    fn from(late: Late) -> Self {
        Self::Late { late_by: late.late_by }
    }
}

/// Which of Zoho's limits was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitScope {
    /// Finance code 44: the organisation is blocked, for 30 minutes as measured.
    Minute,
    /// Finance code 45, or a CRM throttle with no credits left: nothing more until the reset.
    Day,
    /// Finance code 1070, or a CRM throttle with credits left: too many at once.
    InFlight,
    /// A throttle that does not say which.
    Unknown,
}

impl std::fmt::Display for LimitScope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Minute => "per-minute",
            Self::Day => "daily",
            Self::InFlight => "in-flight",
            Self::Unknown => "request",
        })
    }
}

/// What an authorisation failure calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthKind {
    /// The token expired, was revoked or belongs elsewhere: refresh once, then stop.
    InvalidToken,
    /// A scope is missing; refreshing cannot help, a person must consent again.
    ScopeMismatch,
    /// Finance code 57: scope, role or (reportedly) an expired token. Refresh once at most, then a person.
    Denied,
    /// Finance codes 6041 and 4029: the user does not belong to the organisation that was named, or none was. A person must set another.
    Organization,
    /// Any other 401, such as a header that the gateway could not use: do not loop.
    Other,
}

impl std::fmt::Display for AuthKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::InvalidToken => "invalid token",
            Self::ScopeMismatch => "missing scope",
            Self::Denied => "not authorised",
            Self::Organization => "wrong organization_id",
            Self::Other => "authentication failed",
        })
    }
}

/// What Zoho refused and why. All text is masked.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// The class it belongs to.
    pub kind: RejectionKind,
    /// Zoho's code (`"3062"`, `"DUPLICATE_DATA"`), or `"http 413"` where the body held none.
    pub code: String,
    /// The field it concerns, as far as Zoho names one: `Contact_Name.id`, `email`.
    pub field: Option<String>,
    /// Zoho's words.
    pub message: String,
    /// The HTTP status of the answer that carried it.
    pub status: u16,
    /// The existing record, where a duplicate was refused and Zoho named it (CRM).
    pub duplicate_of: Option<String>,
    /// The part of the answer that spoke of this, masked; a shortened text when it is long.
    pub response: Value,
}

/// The class of a rejection; the same words as the classes of dead letters where they exist there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// A value is missing or unacceptable.
    Validation,
    /// Role, edition or organisation does not allow it; a person must change something in Zoho.
    Permission,
    /// A record with this name, code or unique value exists.
    Duplicate,
    /// The record's state forbids it (approval, blueprint, changed meanwhile, used in transactions).
    Conflict,
    /// The record is locked at the moment; the same request may succeed later.
    Locked,
    /// Something the payload refers to does not exist or is inactive.
    Dependency,
    /// The request as such is wrong: path, method, size, form.
    Payload,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Zoho refused this ({:?}, code {}", self.kind, self.code)?;
        if let Some(field) = &self.field {
            write!(f, ", field {field}")?;
        }
        write!(f, "): {}", self.message)
    }
}

/// How the answer to a write was lost.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownReason {
    /// No complete answer within the request time-out.
    #[error("no answer in time")]
    TimedOut,
    /// The connection broke after the request may have left.
    #[error("the connection was lost")]
    ConnectionLost,
    /// A status of 500 or above (or 408), or an internal-error code.
    #[error("server error, status {status}")]
    ServerError {
        /// The HTTP status.
        status: u16,
    },
    /// The answer was no error, but not what the documentation says either.
    #[error("an answer of status {status} that cannot be understood: {what}")]
    Unreadable {
        /// The HTTP status.
        status: u16,
        /// What was wrong with it.
        what: String,
    },
}
