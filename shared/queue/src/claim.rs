//! What a claim answers: a batch of records with a grant for one call, or when to ask again.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use sluice_core::grant::{Grant, Moment};

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
    /// What was reserved of the day or the credits for the call.
    pub cost: u16,
    /// Whether a place in the heavy pool was.
    pub heavy: bool,
    /// Whether this batch's grant is to be spent on asking Zoho for the plan, which nobody knows yet.
    #[serde(default)]
    pub asks_plan: bool,
    /// The records, by key.
    pub slots: Vec<Claimed>,
}

/// One record of a batch. The SQL leaves out what a record has nothing of.
#[derive(Debug, Clone, Deserialize)]
pub struct Claimed {
    /// The slot.
    pub id: i64,
    /// The record's canonical key; `job:<id>` for kinds that never coalesce.
    pub key: String,
    /// The arguments, for kinds that never coalesce.
    pub args: Option<Value>,
    /// Failures counted so far.
    #[serde(default)]
    pub failures: u32,
    /// Runs since the last success, whatever became of them: the backoff grows with it.
    #[serde(default)]
    pub tries: u32,
    /// Panics in a row, alone in the batch.
    #[serde(default)]
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
    /// Whether Zoho's side is to be read even if the row did not change.
    #[serde(default)]
    pub look: bool,
    /// When that was last asked for, but by a list that has just shown the record: an older reading will not do.
    #[serde(default)]
    pub asked_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Milliseconds from the making of its newest job to the claim, by the database's clock. Below zero where the job came while the claim waited for the
    /// budget.
    #[serde(default)]
    pub age_ms: Option<i64>,
}

/// A create in doubt.
#[derive(Debug, Clone, Deserialize)]
pub struct Doubt {
    /// Creates sent whose outcome nobody learnt.
    pub creates: i16,
}

#[derive(Deserialize)]
struct Waiting {
    wait_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Granted {
    place: i64,
    send_by_ms: u64,
    #[serde(flatten)]
    batch: Batch,
}

impl Claim {
    /// Reads what `sluice.claim` answered. `asked_at` is a moment from before this process asked.
    pub(crate) fn read(answer: Value, asked_at: Moment) -> Result<Self, serde_json::Error> {
        // A batch that cannot be read must not pass for "nothing to do", as it would with optional fields.
        if answer.get("token").is_none() {
            let Waiting { wait_ms } = serde_json::from_value(answer)?;
            return Ok(Self::Wait(wait_ms.map(Duration::from_millis)));
        }
        let Granted { place, send_by_ms, batch } = serde_json::from_value(answer)?;
        Ok(Self::Batch(Box::new(batch), Grant::issued(place, asked_at, Duration::from_millis(send_by_ms))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    proptest! {
        #[test]
        fn an_answer_without_a_batch_is_a_wait_of_that_long(ms in proptest::option::of(0_u64..10_000_000)) {
            let read = Claim::read(json!({"wait_ms": ms}), Moment::now());
            prop_assert!(matches!(read, Ok(Claim::Wait(wait)) if wait == ms.map(Duration::from_millis)));
        }

        #[test]
        fn a_grants_deadline_counts_from_before_the_asking(ms in 0_u64..10_000, place in any::<i64>()) {
            let (steady, wall) = (Instant::now(), SystemTime::now());
            let at = |ms| Moment::shown(steady + Duration::from_millis(ms), wall);
            let answer = json!({"token": 1, "place": place, "send_by_ms": ms, "connection": "main", "product": "crm", "kind": "push", "sync": "a", "lane": "normal", "cost": 1, "heavy": false, "slots": []});
            let Ok(Claim::Batch(_, grant)) = Claim::read(answer.clone(), at(0)) else { return Err(TestCaseError::fail("a batch")) };
            prop_assert_eq!(grant.place(), place);
            prop_assert!(grant.spend(at(ms)).is_ok());
            let Ok(Claim::Batch(_, grant)) = Claim::read(answer, at(0)) else { return Err(TestCaseError::fail("a batch")) };
            prop_assert!(grant.spend(at(ms + 1)).is_err());
        }
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_an_error_and_never_a_wait() {
        let answer = json!({"token": 1, "place": 2, "connection": "main", "product": "crm", "kind": "push", "lane": "normal", "cost": 1, "heavy": false, "slots": [{"id": "x"}]});
        assert!(Claim::read(answer, Moment::now()).is_err());
    }
}
