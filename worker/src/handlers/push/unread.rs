//! Rows that could not be read: nobody's fault among the records, so none of them is given up for it.

use std::time::Duration;

use sluice_core::db::{cut, message};
use sluice_queue::Outcome;
use sluice_queue::outcome::Retry;
use sluice_sync::definition::Definition;
use sluice_sync::read;

use super::Record;
use crate::engine::Engine;
use crate::handlers::{all, snooze};
use crate::outcome::halved;
use crate::work::{Handled, Work};

/// None of the rows could be read, so all records wait.
pub(in crate::handlers) fn unread(work: &Work, definition: &Definition, error: &read::Error) -> Handled {
    match error {
        read::Error::Broken { problems } => {
            let reason = cut(&problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect::<Vec<_>>().join("; "));
            tracing::error!(sync = definition.name(), reason, "the mapping no longer fits the table; the sync's records wait");
            all(work, |_| snooze(Duration::from_secs(60), &format!("the mapping no longer fits the table: {reason}")))
        }
        read::Error::Unavailable(error) => {
            tracing::warn!(error = message(error), sync = definition.name(), "rows could not be read");
            all(work, |_| snooze(Duration::from_secs(1), "rows could not be read"))
        }
    }
}

/// What becomes of a record whose row was not read this time: as one of fewer, if the batch took too long; otherwise what an expression of its own
/// asks does not answer, and it waits for that longer and longer.
pub(in crate::handlers) fn later(engine: &Engine, record: &Record<'_>, batch: usize) -> Option<Outcome> {
    let problem = record.row.as_ref()?.unread()?;
    let message = format!("{}: {}", problem.field, problem.message);
    Some(match problem.field.as_str() {
        "key" if batch > 1 => halved(batch, &problem.message),
        _ => Outcome::Retry(Retry { after: engine.policy.pause(record.slot.tries, None, &mut rand::rng()), message, ..Retry::default() }),
    })
}
