//! The numeric codes of Books, Inventory and Billing (Zoho's error pages, and live reports where those are silent).
//!
//! Codes are reused between modules with different meanings, so a rule looks at (status, code) and never at the prose.

use std::time::Duration;

use serde_json::Value;

use super::{Facts, message, rejected, server_error, throttled};
use crate::{AuthKind, Error, LimitScope, RejectionKind};

/// How long code 44 blocks an organisation when no `Retry-After` says otherwise (measured once, on Inventory).
pub(super) const MINUTE_BLOCK: Duration = Duration::from_secs(1800);

pub(super) fn error(facts: &Facts<'_>, number: i64, at: &Value) -> Error {
    let code = number.to_string();
    let refuse = |kind| rejected(facts, kind, &code, field(at), at);
    match (facts.status, number) {
        (_, 44) => throttled(facts, LimitScope::Minute, code),
        (_, 45) => throttled(facts, LimitScope::Day, code),
        (_, 1070) => throttled(facts, LimitScope::InFlight, code),
        (_, 43) | (429, _) => throttled(facts, LimitScope::Unknown, code),
        (_, 14) => Error::Unauthorized { kind: AuthKind::InvalidToken, code, message: message(at) },
        (_, 57) => Error::Unauthorized { kind: AuthKind::Denied, code, message: message(at) },
        (_, 4029 | 6041) => Error::Unauthorized { kind: AuthKind::Organization, code, message: message(at) },
        (401, _) => Error::Unauthorized { kind: AuthKind::Other, code, message: message(at) },
        (408 | 500.., _) => server_error(facts),
        // 1000 is "internal error", except on 4xx, where Billing's items use it for a name that exists.
        (200..=399, 1000) => server_error(facts),
        (_, 1000 | 1001 | 3062 | 5012) => refuse(RejectionKind::Duplicate),
        (403, _) => refuse(RejectionKind::Permission),
        (_, 2007) => refuse(RejectionKind::Dependency),
        (_, 2049 | 2076 | 4041) | (409, _) => refuse(RejectionKind::Conflict),
        (_, 5 | 37 | 1038) | (405 | 413 | 415, _) => refuse(RejectionKind::Payload),
        (_, 1002 | 2006) | (404, _) => absent(facts, &code, at),
        _ => refuse(RejectionKind::Validation),
    }
}

/// "Does not exist". A create addresses no record, so there it is something the payload refers to.
fn absent(facts: &Facts<'_>, code: &str, at: &Value) -> Error {
    if facts.effect == super::Effect::Create {
        rejected(facts, RejectionKind::Dependency, code, field(at), at)
    } else {
        Error::NotFound { code: code.to_owned(), message: message(at) }
    }
}

/// The field's name out of the sentences that carry one. For people only: nothing branches on it.
fn field(at: &Value) -> Option<String> {
    let text = at.get("message")?.as_str()?;
    let name = if let Some(rest) = text.strip_prefix("Invalid value passed for ") {
        rest
    } else if let Some(rest) = text.strip_prefix("Please ensure that the ") {
        rest.split_once(" has less than")?.0
    } else {
        text.split_once("mandatory field ")?.1
    };
    // `amount_applied: more than the balance`: what follows the name explains it
    let name = name.trim_start().split(|c: char| c.is_whitespace() || matches!(c, ':' | ',')).next()?;
    let name = name.trim_end_matches('.').trim_matches(|c| matches!(c, '"' | '\'' | '<' | '>'));
    (!name.is_empty() && name.len() <= 100).then(|| name.to_owned())
}
