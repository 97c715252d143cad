//! What a brake holds is not sent, whatever asks for the run: a job that waited in the queue, a change of Zoho's, a sweep, a person's `trigger`. The
//! producer holds changes when they are captured; here is the last gate. Approving lets the record through, and asks for a run of its own.

use std::collections::BTreeMap;

use sluice_core::db::Tx;
use sluice_queue::Outcome;
use sluice_sync::plan::Step;

use super::Verdict;

/// The held change of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Braked {
    /// Only that the row is gone: of a truncate.
    only_withdrawal: bool,
}

/// Those of these records that wait for a decision.
pub(super) async fn of(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<BTreeMap<String, Braked>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select key, bool_and(operation = 'truncate') as "only_withdrawal!" from sluice.held_record
           where sync = $1 and key = any ($2) and resolution is null and operation in ('create', 'update', 'delete', 'truncate') group by key"#,
        sync,
        keys
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key, Braked { only_withdrawal: row.only_withdrawal })).collect())
}

impl Braked {
    /// The verdict on a step that would call.
    pub(super) fn verdict(self, step: &Step) -> Option<Verdict> {
        let held = match step {
            Step::Delete { .. } | Step::Void { .. } | Step::Mark { .. } => true,
            Step::Create(_) | Step::Update { .. } => !self.only_withdrawal,
            Step::Nothing(_) | Step::WaitFor(_) | Step::Held { .. } | Step::Unsendable { .. } => false,
        };
        held.then(|| Verdict::of(Outcome::Done { reason: Some("braked") }))
    }
}
