//! The loop breaker: how often a field went to and fro between the sides.
//!
//! A turn is a value that one side gave and the other took back: Zoho changes a field within minutes of our writing it, or the row one that we
//! pulled and that is not its own. [`MOST`] of them in a row, each at most half an hour after the one before, are no conversation of people's: the
//! field is parked. It is left alone on both sides until somebody decides, or both say the same. Levels, such as an item's stock, move on both sides
//! by their nature and are not counted.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Pair, Pairs};

/// With so many turns a field is parked.
pub const MOST: u32 = 5;
/// Turns that lie farther apart begin to be counted anew.
pub const APART: TimeDelta = TimeDelta::minutes(30);
/// Zoho's change answers our write if it follows by at most this, by Zoho's own clock: a workflow takes seconds, a person is seldom so fast.
pub const PROMPT: TimeDelta = TimeDelta::minutes(5);
/// The name under which a link remembers a field's turns. No Zoho field is called so.
pub(crate) const TURNS: &str = "turns:";

/// What is remembered of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// How many there were.
    pub count: u32,
    /// When the last one was seen, by the database's clock.
    pub at: DateTime<Utc>,
    /// Whether we have written the field since: only then is Zoho's next change another turn.
    pub written: bool,
}

/// What is remembered of this field.
pub fn of(pairs: &Pairs, field: &str) -> Option<Turns> {
    serde_json::from_value(pairs.get(&name(field))?.zoho.clone()).ok()
}

/// Whether the field is left alone on both sides.
pub fn is_parked(pairs: &Pairs, field: &str) -> bool {
    of(pairs, field).is_some_and(|turns| turns.count >= MOST)
}

/// Notes that a side has changed what the other gave. `answers`: whether it is known that this answers a write of ours.
pub(crate) fn note(pairs: &mut Pairs, field: &str, at: DateTime<Utc>, answers: bool) {
    let turns = match of(pairs, field).filter(|turns| at - turns.at <= APART) {
        Some(turns) if turns.written || answers => Turns { count: turns.count + 1, at, written: false },
        Some(turns) => turns,
        None if answers => Turns { count: 1, at, written: false },
        None => return forget(pairs, field),
    };
    keep(pairs, field, turns);
}

/// Notes that these fields were written in Zoho.
pub(crate) fn written(pairs: &mut Pairs, fields: &[String]) {
    for field in fields {
        if let Some(turns) = of(pairs, field) {
            keep(pairs, field, Turns { written: true, ..turns });
        }
    }
}

/// Begins to count anew.
pub(crate) fn forget(pairs: &mut Pairs, field: &str) {
    pairs.remove(&name(field));
}

fn keep(pairs: &mut Pairs, field: &str, turns: Turns) {
    let zoho = serde_json::to_value(turns).unwrap_or(Value::Null);
    pairs.insert(name(field), Pair { local: Value::Null, zoho, confirmed: true });
}

fn name(field: &str) -> String {
    format!("{TURNS}{field}")
}
