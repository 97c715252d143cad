//! What a settle says: what became of the call, and of each record.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::outcome::Outcome;

/// What became of the call in hand, for the ledger and the circuit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Report {
    /// Bytes may have left. Pessimistic: set before sending.
    pub sent: bool,
    /// The answer's latency; `None` while there is none.
    pub answered_in: Option<Duration>,
    /// What the call says about the product's health.
    pub health: Health,
    /// What the call cost of the day's calls or credits; `None`: as much as was reserved for it.
    pub cost: Option<u16>,
    /// Zoho refused it because of a limit.
    pub throttled: Option<Throttled>,
    /// What the answer's headers said about limits.
    pub seen: Seen,
    /// The ledger knows of the refusal already.
    pub told: bool,
}

/// A refusal because of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// Which limit.
    pub limit: Limit,
    /// How long to stay away, if Zoho said so.
    pub retry_after: Option<Duration>,
}

/// Which limit a refusal was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The minute was overrun: everybody who draws from it stays away, half an hour if Zoho does not say.
    Minute,
    /// The product's day, or its credits, are spent.
    Day,
    /// Too many calls at once: fewer for a while.
    InFlight,
    /// It does not say which; taken for too many at once.
    Unknown,
}

impl Limit {
    fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Day => "day",
            Self::InFlight => "in_flight",
            Self::Unknown => "unknown",
        }
    }
}

/// Limits as an answer's headers told them; `None`: not told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls a day, for everybody who uses the organisation.
    pub day_limit: Option<i64>,
    /// Calls left of the day.
    pub day_remaining: Option<i64>,
    /// Until the day ends.
    pub day_resets_in: Option<Duration>,
    /// Credits left of the last 24 hours.
    pub credits_remaining: Option<i64>,
    /// Calls left of the minute (FSM).
    pub minute_remaining: Option<i64>,
}

/// What a call costs of the product's day or credits, and whether it needs a place in the heavy pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Calls of the day (always one), or CRM credits.
    pub units: u16,
    /// CRM counts it in its pool of heavy calls.
    pub heavy: bool,
}

impl Cost {
    /// An ordinary call.
    pub const ONE: Self = Self { units: 1, heavy: false };

    /// Whether what was reserved covers it.
    pub fn fits_in(self, reserved: Self) -> bool {
        self.units <= reserved.units && (reserved.heavy || !self.heavy)
    }
}

/// What a call says about its product.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing.
    #[default]
    Unsaid,
    /// An answer below 500.
    Answered,
    /// A 5xx, a time-out, no connection.
    Unanswered,
}

impl Report {
    /// The form that the SQL functions take.
    pub fn to_json(&self) -> Value {
        // Nothing that Zoho says may overflow the ledger's integers.
        let figure = |value: Option<i64>| value.map(|v| v.clamp(0, 1_000_000_000));
        json!({
            "sent": self.sent,
            "answered": self.answered_in.is_some(),
            "answer_ms": self.answered_in.map(millis),
            "health": match self.health { Health::Unsaid => None, Health::Answered => Some("answered"), Health::Unanswered => Some("unanswered") },
            "cost": self.cost,
            "throttle": self.throttled.map(|t| t.limit.as_str()),
            "retry_after_ms": self.throttled.and_then(|t| t.retry_after).map(millis),
            "day_limit": figure(self.seen.day_limit),
            "day_remaining": figure(self.seen.day_remaining),
            "day_resets_ms": self.seen.day_resets_in.map(millis),
            "credits_remaining": figure(self.seen.credits_remaining),
            "minute_remaining": figure(self.seen.minute_remaining),
            "told": self.told,
        })
    }
}

/// What is known of a create after a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Create {
    /// None was sent by this run; an older doubt stays.
    #[default]
    None,
    /// Whether there was one is known.
    Settled,
    /// One was sent whose outcome nobody knows.
    Doubt,
}

/// What became of one record.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// The slot.
    pub slot: i64,
    /// The outcome.
    pub outcome: Outcome,
    /// What is known of its create.
    pub create: Create,
    /// A write to the record was sent: `min_interval` counts from now.
    pub pushed: bool,
    /// How long the run took.
    pub ms: Option<u32>,
    /// Calls spent on it.
    pub calls: u16,
    /// Masked summary of what was sent.
    pub request: Option<Value>,
    /// Masked summary of what came back.
    pub response: Option<Value>,
    /// The Zoho fields of the write that was sent, by their outermost names.
    pub sent_fields: Option<Vec<String>>,
    /// The row is still to be told what Zoho says: an open dead letter of the record stays open until it is.
    pub unwritten: bool,
}

impl Settlement {
    /// A settlement about which nothing else is known.
    pub fn new(slot: i64, outcome: Outcome) -> Self {
        Self {
            slot,
            outcome,
            create: Create::None,
            pushed: false,
            ms: None,
            calls: 0,
            request: None,
            response: None,
            sent_fields: None,
            unwritten: false,
        }
    }

    /// The form that `sluice.settle` takes.
    pub fn to_json(&self) -> Value {
        let mut o = Map::new();
        let mut put = |name: &str, value: Value| {
            if !value.is_null() {
                o.insert(name.to_owned(), value);
            }
        };
        put("slot", json!(self.slot));
        put("outcome", json!(self.outcome.as_str()));
        put(
            "create",
            match self.create {
                Create::None => Value::Null,
                Create::Settled => json!("settled"),
                Create::Doubt => json!("doubt"),
            },
        );
        put("pushed", json!(self.pushed));
        put("calls", json!(self.calls));
        put("ms", json!(self.ms));
        put("request", json!(self.request));
        put("response", json!(self.response));
        put("sent_fields", json!(self.sent_fields));
        put("unwritten", json!(self.unwritten));
        match &self.outcome {
            Outcome::Done { reason } => put("reason", json!(reason)),
            Outcome::Continue { progress } => put("progress", json!(progress)),
            Outcome::Retry(r) => {
                put("delay_ms", json!(millis(r.after)));
                put("hold_ms", json!(r.hold.map(millis)));
                put("counts", json!(r.counts));
                put("unbooked", json!(r.unbooked));
                put("panic", json!(r.panicked));
                put("max_batch", json!(r.max_batch));
                put("message", json!(r.message));
                put("http_status", json!(r.http_status));
                put("progress", json!(r.progress));
            }
            Outcome::Snooze { after, reason } => {
                put("delay_ms", json!(millis(*after)));
                put("reason", json!(reason));
            }
            Outcome::Wait { sync, key } => {
                put("waiting_sync", json!(sync));
                put("waiting_key", json!(key));
                put("reason", json!(format!("waits for {sync} {key}")));
            }
            Outcome::Dead(letter) => {
                put("class", json!(letter.class));
                put("code", json!(letter.code));
                put("field", json!(letter.field));
                put("message", json!(letter.message));
                put("hint", json!(letter.hint));
                put("http_status", json!(letter.http_status));
                put("response", json!(letter.response));
                put("depends_sync", json!(letter.depends_on.as_ref().map(|d| &d.0)));
                put("depends_key", json!(letter.depends_on.as_ref().map(|d| &d.1)));
            }
        }
        Value::Object(o)
    }
}

fn millis(d: Duration) -> u64 {
    u64::try_from(d.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{Class, Letter, Retry};
    use proptest::prelude::*;

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        let pause = (0_u64..10_000_000).prop_map(Duration::from_millis);
        prop_oneof![
            Just(Outcome::Done { reason: Some("unchanged") }),
            Just(Outcome::Continue { progress: Some(json!({"read": []})) }),
            (pause.clone(), proptest::option::of(pause.clone()), any::<bool>(), any::<bool>(), proptest::option::of(1_u16..100)).prop_map(
                |(after, hold, counts, panicked, max_batch)| Outcome::Retry(Retry {
                    after,
                    hold,
                    counts,
                    panicked,
                    max_batch,
                    ..Retry::default()
                })
            ),
            pause.prop_map(|after| Outcome::Snooze { after, reason: "limited".into() }),
            Just(Outcome::Wait { sync: "customers".into(), key: "1".into() }),
            ".*".prop_map(|message| Outcome::Dead(Box::new(Letter::new(Class::Validation, message).field("email")))),
        ]
    }

    proptest! {
        #[test]
        fn a_settlement_says_its_slot_its_outcome_and_nothing_that_is_null(outcome in any_outcome(), slot in any::<i64>(), pushed in any::<bool>()) {
            let said = Settlement { pushed, ..Settlement::new(slot, outcome.clone()) }.to_json();
            prop_assert_eq!(&said["slot"], &json!(slot));
            prop_assert_eq!(&said["outcome"], &json!(outcome.as_str()));
            prop_assert_eq!(&said["pushed"], &json!(pushed));
            prop_assert!(said.as_object().is_some_and(|o| o.values().all(|v| !v.is_null())));
            if let Outcome::Retry(retry) = outcome {
                prop_assert_eq!(said["delay_ms"].as_u64(), u64::try_from(retry.after.as_millis()).ok());
                prop_assert_eq!(said["hold_ms"].as_u64(), retry.hold.and_then(|h| u64::try_from(h.as_millis()).ok()));
                prop_assert_eq!(said["max_batch"].as_u64(), retry.max_batch.map(u64::from));
            }
        }

        #[test]
        fn a_report_is_answered_exactly_if_it_has_a_latency(sent in any::<bool>(), latency in proptest::option::of(0_u64..100_000)) {
            let report = Report { sent, answered_in: latency.map(Duration::from_millis), ..Report::default() };
            let said = report.to_json();
            prop_assert_eq!(said["answered"].as_bool(), Some(latency.is_some()));
            prop_assert_eq!(said["answer_ms"].as_u64(), latency);
            prop_assert_eq!(said["sent"].as_bool(), Some(sent));
        }
    }
}
