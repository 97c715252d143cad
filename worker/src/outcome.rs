//! The one place where an error of Zoho's becomes an outcome. Pure.
//!
//! A rate limit, an outage or a token never costs a failure. What Zoho understood and refused is a dead letter at once. A write whose answer
//! was lost is left alone until it can no longer arrive.

use std::time::Duration;

use rand::Rng;
use sluice_queue::outcome::{Class, Letter, Retry};
use sluice_queue::retry::Policy;
use sluice_queue::settle::{Create, Limit, Throttled};
use sluice_queue::{Claimed, Outcome};
use sluice_zoho::{AuthKind, Error, LimitScope, Rejection, RejectionKind, UnknownReason};

/// A lost write is taken to be dead this long after the request's time-out.
pub(crate) const LATE_WRITE: Duration = Duration::from_secs(5);
/// The ledger knows how long everybody must stay away; the record itself is due again after this.
const REFUSED: Duration = Duration::from_secs(1);

/// The connection or sync is paused; what was in hand is due again when it is resumed, or this long after it was paused.
pub(crate) const PAUSED: Duration = Duration::from_secs(5);

/// What the error befell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation {
    /// The request could create a record.
    pub(crate) creates: bool,
    /// Records in the batch.
    pub(crate) batch: usize,
    /// The request's time-out.
    pub(crate) timeout: Duration,
    /// How long the call took.
    pub(crate) latency: Duration,
    /// The token in use took the place of one that was refused moments ago: refreshing again cannot help.
    pub(crate) token_replaces_refused: bool,
    /// The refusal has paused the sync or the connection: its records wait for a person.
    pub(crate) paused: bool,
}

/// What a refused call stops, besides itself, until somebody changed something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stops {
    /// The access token: another one is minted.
    Token,
    /// The sync: its module, or what is done with it, is not open to the token or its user. Other modules may be.
    Sync {
        /// As in `sluice.sync.pause_cause`.
        cause: &'static str,
    },
    /// The connection: the organisation is wrong, and so every call.
    Connection,
}

/// What an error of a whole call stops. A record's own refusal inside an answered batch stops nothing, nor does CRM's NO_PERMISSION: it may
/// concern one record (its owner, its territory), and Zoho does not say.
pub(crate) fn stops(error: &Error, token_replaces_refused: bool) -> Option<Stops> {
    match error {
        Error::Unauthorized { kind, .. } => Some(match kind {
            AuthKind::InvalidToken | AuthKind::Other => Stops::Token,
            // reportedly also an expired token: one more try (finance sheet §9)
            AuthKind::Denied if !token_replaces_refused => Stops::Token,
            AuthKind::Denied | AuthKind::ScopeMismatch => Stops::Sync { cause: "authorization" },
            AuthKind::Organization => Stops::Connection,
        }),
        Error::Rejected(rejection) if rejection.code == "INVALID_MODULE" => Some(Stops::Sync { cause: "module" }),
        _ => None,
    }
}

/// Which limit the error is about, for the ledger: everybody who draws from it must know.
pub(crate) fn throttled(error: &Error) -> Option<Throttled> {
    match error {
        Error::RateLimited { scope, retry_after, .. } => {
            let limit = match scope {
                LimitScope::Minute => Limit::Minute,
                LimitScope::Day => Limit::Day,
                LimitScope::InFlight => Limit::InFlight,
                LimitScope::Unknown => Limit::Unknown,
            };
            Some(Throttled { limit, retry_after: *retry_after })
        }
        _ => None,
    }
}

/// What becomes of one record whose call, or whose part of it, ended with this error; and what is known of its create then.
pub(crate) fn of(error: &Error, slot: &Claimed, policy: &Policy, s: Situation, rng: &mut impl Rng) -> (Outcome, Create) {
    match error {
        Error::RateLimited { .. } => (Outcome::Snooze { after: REFUSED, reason: error.to_string() }, Create::None),
        _ if s.paused => (Outcome::Snooze { after: PAUSED, reason: error.to_string() }, Create::None),
        Error::Unauthorized { .. } if stops(error, s.token_replaces_refused) == Some(Stops::Token) => {
            let after = if s.token_replaces_refused { Duration::from_secs(60) } else { Duration::from_millis(100) };
            (Outcome::Snooze { after, reason: error.to_string() }, Create::None)
        }
        Error::Unauthorized { code, .. } => {
            let mut letter = Letter::new(Class::Permission, error.to_string())
                .hint("give the connection's user or its token the missing right or scope (sluice auth), then requeue");
            letter.code = Some(code.clone());
            (dead(letter), Create::Settled)
        }
        Error::NotFound { code, .. } => {
            let mut letter = Letter::new(Class::NotFound, error.to_string())
                .hint("the record was deleted in Zoho: discard, or, to have it created again, delete its row of sluice.link (by sync and key), then requeue");
            letter.code = Some(code.clone());
            letter.http_status = Some(404);
            (dead(letter), Create::Settled)
        }
        Error::Rejected(rejection) => rejected(rejection, slot, policy, s, rng),
        Error::Unavailable { reason } => {
            let retry = Retry { after: policy.pause(slot.tries, None, rng), unbooked: true, message: reason.clone(), ..Retry::default() };
            (policy.decide(slot, retry), Create::None)
        }
        Error::Malformed { reason } => {
            let retry = Retry { after: policy.pause(slot.tries, None, rng), counts: true, message: reason.clone(), ..Retry::default() };
            (policy.decide(slot, retry), Create::None)
        }
        Error::OutcomeUnknown { reason } => {
            let (counts, http_status) = match reason {
                UnknownReason::Unreadable { status, .. } => (true, Some(*status)),
                UnknownReason::ServerError { status } => (false, Some(*status)),
                UnknownReason::TimedOut | UnknownReason::ConnectionLost => (false, None),
            };
            let retry = Retry {
                after: policy.pause(slot.tries, None, rng),
                hold: Some((s.timeout + LATE_WRITE).saturating_sub(s.latency)),
                counts,
                unbooked: !counts,
                message: error.to_string(),
                http_status,
                ..Retry::default()
            };
            (policy.decide(slot, retry), if s.creates { Create::Doubt } else { Create::None })
        }
        Error::NotSent(sluice_zoho::NotSent::Late { .. }) => (Outcome::Continue { progress: None }, Create::None),
        // too much for one call, for instance: the innocent go without the guilty
        Error::NotSent(sluice_zoho::NotSent::Invalid { reason }) if s.batch > 1 => (halved(s.batch, reason), Create::None),
        Error::NotSent(sluice_zoho::NotSent::Invalid { reason }) => (dead(Letter::new(Class::Payload, reason.clone())), Create::None),
    }
}

fn rejected(rejection: &Rejection, slot: &Claimed, policy: &Policy, s: Situation, rng: &mut impl Rng) -> (Outcome, Create) {
    let (class, hint) = match rejection.kind {
        RejectionKind::Validation => (Class::Validation, "mend the row; it is pushed again by itself when it changes, or requeue"),
        RejectionKind::Permission => (Class::Permission, "change the right in Zoho, then requeue"),
        RejectionKind::Duplicate => (Class::Duplicate, "name the field in match_on to adopt the existing record, or change the row"),
        RejectionKind::Conflict => (Class::Conflict, "the record's state in Zoho forbids this; change it there, then requeue"),
        RejectionKind::Dependency => (
            Class::Dependency,
            "what the row refers to does not exist in Zoho or is inactive: mend it there, or push it again, then requeue",
        ),
        RejectionKind::Payload => (Class::Payload, "the mapping builds something that Zoho does not take"),
        RejectionKind::Locked => {
            let retry = Retry {
                after: policy.pause(slot.tries, None, rng),
                counts: true,
                message: rejection.to_string(),
                http_status: Some(rejection.status),
                ..Retry::default()
            };
            return (policy.decide(slot, retry), Create::Settled);
        }
    };
    if s.batch > 1 && rejection.kind == RejectionKind::Payload && rejection.field.is_none() {
        return (halved(s.batch, &rejection.to_string()), Create::Settled);
    }
    let letter = Letter {
        class,
        code: Some(rejection.code.clone()),
        field: rejection.field.clone(),
        message: rejection.message.clone(),
        hint: Some(hint.to_owned()),
        http_status: Some(rejection.status),
        response: Some(rejection.response.clone()),
        depends_on: None,
    };
    (dead(letter), Create::Settled)
}

/// The batch failed as a whole: it is tried in halves until the guilty record stands alone. Costs nobody a failure.
pub(crate) fn halved(batch: usize, message: &str) -> Outcome {
    let half = u16::try_from(batch.div_ceil(2)).unwrap_or(50);
    Outcome::Retry(Retry { max_batch: Some(half), message: message.to_owned(), ..Retry::default() })
}

fn dead(letter: Letter) -> Outcome {
    Outcome::Dead(Box::new(letter))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    fn slot(failures: u32) -> Claimed {
        serde_json::from_value(serde_json::json!({"id": 1, "key": "1", "failures": failures, "tries": failures, "panics": 0}))
            .expect("a slot")
    }

    fn decide(error: &Error, batch: usize) -> (Outcome, Create) {
        let s = Situation {
            creates: true,
            batch,
            timeout: Duration::from_secs(30),
            latency: Duration::from_secs(1),
            token_replaces_refused: false,
            paused: false,
        };
        of(error, &slot(7), &Policy::default(), s, &mut rand::rngs::StdRng::seed_from_u64(1))
    }

    fn rejection(kind: RejectionKind, field: Option<&str>) -> Error {
        Error::Rejected(Box::new(Rejection {
            kind,
            code: "x".into(),
            field: field.map(str::to_owned),
            message: "no".into(),
            status: 400,
            duplicate_of: None,
            response: serde_json::Value::Null,
        }))
    }

    #[test]
    fn limits_tokens_and_outages_never_cost_a_failure_even_the_last_one() {
        let blameless = [
            Error::RateLimited { scope: LimitScope::Minute, retry_after: None, code: "44".into() },
            Error::Unauthorized { kind: AuthKind::InvalidToken, code: "14".into(), message: String::new() },
            Error::Unavailable { reason: "503".into() },
            Error::OutcomeUnknown { reason: UnknownReason::ServerError { status: 500 } },
            Error::OutcomeUnknown { reason: UnknownReason::TimedOut },
            Error::NotSent(sluice_zoho::NotSent::Late { late_by: Duration::from_secs(1) }),
        ];
        for error in blameless {
            let (outcome, _) = decide(&error, 1);
            let counts = matches!(&outcome, Outcome::Retry(r) if r.counts) || matches!(outcome, Outcome::Dead(_));
            assert!(!counts, "{error}: {outcome:?}");
        }
    }

    fn unauthorized(kind: AuthKind) -> Error {
        Error::Unauthorized { kind, code: "x".into(), message: "no".into() }
    }

    #[test]
    fn a_missing_right_stops_the_sync_a_wrong_organisation_the_connection_and_only_a_fresh_token_is_believed() {
        let sync = Some(Stops::Sync { cause: "authorization" });
        for (kind, first, after_a_new_token) in [
            (AuthKind::InvalidToken, Some(Stops::Token), Some(Stops::Token)),
            (AuthKind::Other, Some(Stops::Token), Some(Stops::Token)),
            (AuthKind::Denied, Some(Stops::Token), sync),
            (AuthKind::ScopeMismatch, sync, sync),
            (AuthKind::Organization, Some(Stops::Connection), Some(Stops::Connection)),
        ] {
            assert_eq!([stops(&unauthorized(kind), false), stops(&unauthorized(kind), true)], [first, after_a_new_token], "{kind:?}");
        }
        assert_eq!(stops(&rejection(RejectionKind::Permission, None), true), None, "it may be one record's alone");
    }

    #[test]
    fn a_record_whose_sync_or_connection_was_paused_waits_and_one_without_is_a_dead_letter() {
        let decide = |paused| {
            let s = Situation {
                creates: true,
                batch: 1,
                timeout: Duration::ZERO,
                latency: Duration::ZERO,
                token_replaces_refused: true,
                paused,
            };
            of(&unauthorized(AuthKind::ScopeMismatch), &slot(0), &Policy::default(), s, &mut rand::rngs::StdRng::seed_from_u64(1)).0
        };
        assert!(matches!(decide(true), Outcome::Snooze { .. }));
        assert!(matches!(decide(false), Outcome::Dead(letter) if letter.class == Class::Permission));
    }

    #[test]
    fn the_ledger_is_told_of_every_refusal_for_a_limit_and_of_nothing_else() {
        let said = |scope, retry_after| throttled(&Error::RateLimited { scope, retry_after, code: "44".into() });
        let seven = Some(Duration::from_secs(7));
        assert_eq!(said(LimitScope::Minute, seven), Some(Throttled { limit: Limit::Minute, retry_after: seven }));
        assert_eq!(said(LimitScope::Day, None), Some(Throttled { limit: Limit::Day, retry_after: None }));
        assert_eq!(said(LimitScope::InFlight, None), Some(Throttled { limit: Limit::InFlight, retry_after: None }));
        assert_eq!(throttled(&Error::Unavailable { reason: "503".into() }), None);
    }

    #[test]
    fn a_lost_create_is_in_doubt_and_held_until_it_can_no_longer_arrive() {
        let (outcome, create) = decide(&Error::OutcomeUnknown { reason: UnknownReason::ConnectionLost }, 1);
        assert_eq!(create, Create::Doubt);
        assert!(matches!(outcome, Outcome::Retry(r) if r.hold == Some(Duration::from_secs(34))));
    }

    #[test]
    fn refusals_are_dead_letters_of_their_class_with_the_field() {
        let classes = [
            (RejectionKind::Validation, Class::Validation),
            (RejectionKind::Permission, Class::Permission),
            (RejectionKind::Duplicate, Class::Duplicate),
            (RejectionKind::Conflict, Class::Conflict),
            (RejectionKind::Dependency, Class::Dependency),
            (RejectionKind::Payload, Class::Payload),
        ];
        for (kind, class) in classes {
            let (outcome, create) = decide(&rejection(kind, Some("email")), 100);
            let Outcome::Dead(letter) = outcome else { panic!("{kind:?}: {outcome:?}") };
            assert_eq!((letter.class, letter.field.as_deref(), create), (class, Some("email"), Create::Settled));
        }
        assert!(matches!(decide(&rejection(RejectionKind::Locked, None), 1).0, Outcome::Dead(l) if l.class == Class::Exhausted));
    }

    #[test]
    fn a_batch_refused_as_a_whole_is_halved_and_a_record_alone_is_not() {
        let (outcome, _) = decide(&rejection(RejectionKind::Payload, None), 100);
        assert!(matches!(outcome, Outcome::Retry(r) if r.max_batch == Some(50) && !r.counts));
        let (outcome, _) = decide(&rejection(RejectionKind::Payload, None), 3);
        assert!(matches!(outcome, Outcome::Retry(r) if r.max_batch == Some(2)));
        assert!(matches!(decide(&rejection(RejectionKind::Payload, None), 1).0, Outcome::Dead(_)));
        // what could not even be sent, such as a body of more than a call may have
        let unsendable = Error::NotSent(sluice_zoho::NotSent::Invalid { reason: "too large".into() });
        assert!(matches!(decide(&unsendable, 100), (Outcome::Retry(r), Create::None) if r.max_batch == Some(50) && !r.counts));
        assert!(matches!(decide(&unsendable, 1).0, Outcome::Dead(_)));
    }
}
