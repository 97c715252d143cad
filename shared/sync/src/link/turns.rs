//! The loop breaker: how often a field went to and fro between the sides.
//!
//! A turn is a value that one side gave and the other took back: Zoho changes a field within minutes of our writing it, or the row one that we
//! pulled and that is not its own. [`MOST`] of them in a row, each at most half an hour after the one before, are no conversation of people's: the
//! field is parked. It is left alone on both sides until somebody decides, or both say the same. Levels, such as an item's stock, move on both sides
//! by their nature and are not counted.
//!
//! Two fields can drive each other, though each goes one way only: what we write makes Zoho change another field, and its arrival here makes a trigger
//! change the first again. The second half is certain, since that change was captured in a transaction of ours; the first is taken for granted if Zoho's
//! change followed our write by at most [`SOON`]. Each such round is counted at the field that is sent, and [`MOST_ROUNDS`] of them park it.

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
/// With so many rounds a field is parked that drives another, which drives it: more than [`MOST`], since a person who edits in Zoho while we write is
/// told from a workflow only by the time.
pub const MOST_ROUNDS: u32 = 10;
/// Zoho's change of another field answers our write if it follows by at most this, by Zoho's own clock.
pub const SOON: TimeDelta = TimeDelta::seconds(30);
/// The name under which a link remembers a field's rounds; without a field: when Zoho last answered a write of ours with another field.
pub(crate) const ROUNDS: &str = "rounds:";
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
    of(pairs, field).is_some_and(|turns| turns.count >= MOST) || drives(pairs, field)
}

/// Whether it is left alone since it and another field drive each other.
pub(crate) fn drives(pairs: &Pairs, field: &str) -> bool {
    rounds(pairs, field).is_some_and(|rounds| rounds.count >= MOST_ROUNDS)
}

/// Whether Zoho has answered a write of ours with another field lately.
pub fn is_answered(pairs: &Pairs, at: DateTime<Utc>) -> bool {
    rounds(pairs, "").is_some_and(|answer| at - answer.at <= APART)
}

/// Notes that it has.
pub(crate) fn answered(pairs: &mut Pairs, at: DateTime<Utc>) {
    keep_as(pairs, ROUNDS.to_owned(), Turns { count: 0, at, written: false });
}

/// Notes that the row's own triggers changed a field when such an answer arrived; each answer counts once.
pub(crate) fn round(pairs: &mut Pairs, field: &str, at: DateTime<Utc>) {
    let Some(answer) = rounds(pairs, "").filter(|_| is_answered(pairs, at)) else { return };
    let count = match rounds(pairs, field).filter(|last| at - last.at <= APART) {
        Some(last) if last.at >= answer.at => return,
        Some(last) => last.count + 1,
        None => 1,
    };
    keep_as(pairs, format!("{ROUNDS}{field}"), Turns { count, at, written: false });
}

/// Begins to count a field's rounds anew: somebody else has changed it.
pub(crate) fn forget_rounds(pairs: &mut Pairs, field: &str) {
    pairs.remove(&format!("{ROUNDS}{field}"));
}

fn rounds(pairs: &Pairs, field: &str) -> Option<Turns> {
    serde_json::from_value(pairs.get(&format!("{ROUNDS}{field}"))?.zoho.clone()).ok()
}

/// Notes that a side has changed what the other gave. `answers`: whether it is known that this answers a write of ours.
pub(crate) fn note(pairs: &mut Pairs, field: &str, at: DateTime<Utc>, answers: bool) {
    let turns = match of(pairs, field).filter(|turns| at - turns.at <= APART) {
        Some(turns) if turns.written || answers => Turns { count: turns.count + 1, at, written: false },
        Some(turns) => turns,
        None if answers => Turns { count: 1, at, written: false },
        None => return drop(pairs.remove(&name(field))),
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
    forget_rounds(pairs, field);
}

fn keep(pairs: &mut Pairs, field: &str, turns: Turns) {
    keep_as(pairs, name(field), turns);
}

fn keep_as(pairs: &mut Pairs, name: String, turns: Turns) {
    let zoho = serde_json::to_value(turns).unwrap_or(Value::Null);
    pairs.insert(name, Pair { local: Value::Null, zoho, confirmed: true });
}

fn name(field: &str) -> String {
    format!("{TURNS}{field}")
}
