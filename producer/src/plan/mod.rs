//! What `sluice trigger`, or a backfill, would do: which rows, which calls, what they cost, and when it would be over under today's budget.
//!
//! It writes nothing and asks Zoho nothing: rows, links and the ledger are read in read-only transactions, and each record is decided by the same
//! code as in a run. So what Zoho alone knows (whether a record is there already, how long a list is) is a range.

mod budget;
mod calls;
pub mod finish;
mod record;
mod store;
mod walk;

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_sync::read::Reader;

pub use budget::{Standing, Waiting};
use calls::Tally;
pub use calls::{Bulk, Call, Range};
use finish::{Bottleneck, Others, Unit, Work};
use walk::Walk;

use crate::definitions::Definitions;
use crate::trigger;

/// What is planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// `sluice trigger SYNC`: what is due; with `force` every row and every field.
    Trigger {
        /// `--force`.
        force: bool,
    },
    /// Every row is looked at, in the lane `backfill`, and what differs is sent.
    Backfill {
        /// SQL over the row.
        condition: Option<String>,
        /// Every field of every row is sent.
        force: bool,
    },
}

impl What {
    /// Whether a run is asked for every row, due or not.
    fn every(&self) -> bool {
        matches!(self, Self::Trigger { force: true } | Self::Backfill { .. })
    }

    /// Whether what was agreed on is forgotten first.
    fn forgets(&self) -> bool {
        matches!(self, Self::Trigger { force: true } | Self::Backfill { force: true, .. })
    }

    /// Whether some rows of the table are left out by a condition.
    fn chooses(&self) -> bool {
        matches!(self, Self::Backfill { condition: Some(_), .. })
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The condition is no SQL over the row, or takes too long.
    #[error("--where: {0}")]
    Where(String),
    /// As a trigger would end.
    #[error(transparent)]
    Trigger(#[from] trigger::Error),
    /// The database did not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What would be done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The sync.
    pub sync: String,
    /// trigger or backfill.
    pub command: &'static str,
    /// Whether every field is sent.
    pub force: bool,
    /// The condition.
    #[serde(rename = "where")]
    pub condition: Option<String>,
    /// The lane of the work.
    pub lane: String,
    /// Whether the sync is published as the file has it; otherwise its jobs would be refused, or wait.
    pub published: bool,
    /// Why nothing of the sync goes on: it is paused or retired.
    pub stopped: Option<String>,
    /// Whether the sync pushes; otherwise it is polled, and no row is looked at.
    pub pushes: bool,
    /// The rows.
    pub rows: Rows,
    /// Parents that have to come first, by sync.
    pub parents: BTreeMap<String, Parent>,
    /// The first rows that cannot be sent, and why: they would be dead letters.
    pub unmappable: Vec<Letter>,
    /// The calls, by endpoint.
    pub calls: Vec<Call>,
    /// All of them.
    pub total: Range,
    /// CRM: what they cost.
    pub credits: Option<Range>,
    /// CRM: what its bulk APIs would cost.
    pub bulk: Vec<Bulk>,
    /// The budgets that the calls draw from.
    pub budgets: Vec<Standing>,
    /// When it would be over.
    pub finish: Option<Finish>,
}

/// Rows, by what becomes of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Rows {
    /// All that were looked at.
    pub looked_at: u64,
    /// Of them, excluded by `when`.
    pub excluded: u64,
    /// Nothing is asked for them: they are synced, under way, held by a brake, or may not be created.
    pub not_due: u64,
    /// A run is asked for them. The following say what it would do.
    pub due: u64,
    /// A new Zoho record.
    pub create: u64,
    /// Fields are sent.
    pub update: u64,
    /// The Zoho record is deleted.
    pub delete: u64,
    /// It is voided.
    pub void: u64,
    /// It is marked.
    pub mark: u64,
    /// Nothing: no call.
    pub unchanged: u64,
    /// Left as they are, and shown as held.
    pub held: u64,
    /// Dead letters at once, since they cannot be mapped or their parent never comes.
    pub unmappable: u64,
    /// Of those created or updated, these wait for a parent first.
    pub waiting: u64,
    /// Of those updated, these are read in Zoho before.
    pub read_first: u64,
    /// Of all, these have work waiting already.
    pub under_way: u64,
    /// Of all, these have an open dead letter.
    pub with_dead_letter: u64,
}

/// Records of another sync that have to come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// Rows that wait for one.
    pub waiting: u64,
    /// Different parents that are pushed too.
    pub pushed: u64,
}

/// A row that would become a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Its key.
    pub key: String,
    /// The dead letter's class.
    pub class: &'static str,
    /// The Zoho field.
    pub field: String,
    /// What is wrong.
    pub reason: String,
}

/// When the work would be over.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finish {
    /// The fewest calls, and nobody else needs the budget.
    pub earliest: Option<DateTime<Utc>>,
    /// The most calls, after all that waits before them, and others need all that is kept for them. None: it takes longer than a year.
    pub latest: Option<DateTime<Utc>>,
    /// The same in seconds from now.
    pub earliest_seconds: Option<u64>,
    /// Likewise.
    pub latest_seconds: Option<u64>,
    /// What holds it up.
    pub bottleneck: Bottleneck,
    /// Whether `latest` is reckoned with estimates: nobody knows how long Zoho's lists are.
    pub estimated: bool,
    /// Whether it is over before the day, or 24 hours for credits, are.
    pub today: bool,
}

/// Plans. `progress` is told how many rows were looked at.
///
/// # Errors
/// See [`Error`].
pub async fn plan(
    db: &Db,
    reader: &Reader,
    definitions: &Definitions,
    config: &Config,
    (sync, what): (&str, &What),
    progress: &mut (dyn FnMut(u64) + Send),
) -> Result<Plan, Error> {
    let definition = definitions.by_name.get(sync).ok_or_else(|| trigger::Error::UnknownSync(sync.to_owned()))?;
    let mut walk = Walk::new(db, reader, definitions, definition, what);
    if definition.sync.direction.pushes() {
        walk.all(progress).await?;
    }
    let Walk { rows, letters, mut tallies, parents, .. } = walk;
    if definition.sync.direction.pulls() && matches!(what, What::Trigger { .. }) {
        tallies.entry(sync.to_owned()).or_default().poll = Some(store::poll(db, definition, what.every()).await?);
    }
    let lane = match what {
        What::Trigger { .. } if !definition.sync.direction.pushes() => "normal",
        What::Trigger { .. } => definition.sync.lane.as_str(),
        What::Backfill { .. } => "backfill",
    };
    let (published, stopped) = store::published(db, definition).await?;
    waits(definitions, &mut tallies, sync);
    for (name, tally) in tallies.iter_mut().filter(|(_, tally)| tally.poll.is_some() || tally.matched > 0) {
        tally.linked = store::linked(db, name).await?;
    }
    let (mut calls, bulk) = counted(definitions, &tallies);
    let budgets = budgets(db, config, &mut calls, lane, &own(&tallies, sync, what, &rows)).await?;
    let total = calls.iter().fold(Range::exactly(0), |all, call| all.and(call.calls));
    let credits = calls.iter().filter_map(|call| call.credits).reduce(Range::and);
    let known = budgets.iter().all(|budget| budget.known);
    let finish = (known && !calls.is_empty()).then(|| finish_of(&calls, &budgets, budget::rank(lane), Utc::now()));
    let (command, force, condition) = match what {
        What::Trigger { force } => ("trigger", *force, None),
        What::Backfill { condition, force } => ("backfill", *force, condition.clone()),
    };
    Ok(Plan {
        sync: sync.to_owned(),
        command,
        force,
        condition,
        lane: lane.to_owned(),
        published,
        stopped,
        pushes: definition.sync.direction.pushes(),
        rows,
        parents,
        unmappable: letters,
        calls,
        total,
        credits,
        bulk,
        budgets,
        finish,
    })
}

/// The syncs whose waiting records are part of the plan: with `force` what is under way is asked for as well, and done once.
fn own(tallies: &BTreeMap<String, Tally>, sync: &str, what: &What, rows: &Rows) -> Vec<(String, u64)> {
    let again = if what.every() { rows.under_way } else { 0 };
    tallies.keys().filter(|name| *name == sync).map(|name| (name.clone(), again)).collect()
}

/// Parents are asked for by the batches of their children, and children come back with the batches of their parents.
fn waits(definitions: &Definitions, tallies: &mut BTreeMap<String, Tally>, sync: &str) {
    let full = |name: &String, records: u64| {
        definitions.by_name.get(name).map_or(records, |definition| records.div_ceil(definition.batch_max().into()))
    };
    let children = tallies.get(sync).map_or(0, |tally| tally.batches);
    let mut parents = 0;
    for (name, tally) in tallies.iter_mut().filter(|(name, _)| *name != sync) {
        tally.batches = full(name, tally.runs) + full(name, tally.waiting) + children;
        parents += tally.batches;
    }
    if let Some(own) = tallies.get_mut(sync).filter(|own| own.waiting > 0) {
        own.batches += full(&sync.to_owned(), own.waiting) + parents;
    }
    // a cycle is found when a record waits for itself; it is then created without the field, which follows in an update
    for (_, tally) in tallies.iter_mut().filter(|(name, _)| refers_back(definitions, name)) {
        tally.may_be_cyclic = tally.waiting;
    }
}

/// Whether the references of a sync lead back to it.
fn refers_back(definitions: &Definitions, sync: &str) -> bool {
    let parents =
        |name: &str| definitions.by_name.get(name).map(|definition| definition.parent_syncs().map(str::to_owned).collect::<Vec<_>>());
    let mut open = parents(sync).unwrap_or_default();
    let mut seen = BTreeSet::new();
    while let Some(next) = open.pop() {
        if next == sync {
            return true;
        }
        if seen.insert(next.clone()) {
            open.extend(parents(&next).unwrap_or_default());
        }
    }
    false
}

fn counted(definitions: &Definitions, tallies: &BTreeMap<String, Tally>) -> (Vec<Call>, Vec<Bulk>) {
    let of = |(name, tally): (&String, &Tally)| definitions.by_name.get(name).map(|definition| (definition.clone(), tally.clone()));
    let tallies: Vec<_> = tallies.iter().filter_map(of).collect();
    let calls = tallies.iter().flat_map(|(definition, tally)| calls::of(definition, tally)).collect();
    let bulk = tallies.iter().flat_map(|(definition, tally)| calls::bulk(definition, tally)).collect();
    (calls, bulk)
}

/// How it stands with every product that the calls are for, with the question that the first of them would ask.
async fn budgets(db: &Db, config: &Config, calls: &mut Vec<Call>, lane: &str, own: &[(String, u64)]) -> Result<Vec<Standing>, sqlx::Error> {
    let mut products: Vec<(String, &'static str, String)> =
        calls.iter().map(|call| (call.connection.clone(), call.product, call.sync.clone())).collect();
    products.sort();
    products.dedup_by(|one, other| (&one.0, one.1) == (&other.0, other.1));
    let mut budgets = Vec::new();
    for (connection, product, sync) in products {
        let standing = budget::standing(db, config, (&connection, product), lane, own).await?;
        if standing.questions > 0 {
            calls.push(Call::question(&sync, &connection, product, standing.questions));
        }
        budgets.push(standing);
    }
    Ok(budgets)
}

fn finish_of(calls: &[Call], budgets: &[Standing], rank: i16, now: DateTime<Utc>) -> Finish {
    let mut earliest: Option<finish::Finish> = None;
    let mut latest: Option<finish::Finish> = None;
    let mut today = true;
    for budget in budgets {
        let (least, most) = work(calls, budgets, budget, rank);
        let first = finish::finish(least, &budget.pace, Others::Idle);
        let last = finish::finish(most, &budget.pace, Others::Busy);
        let day = budget.pace.meter.as_ref().map_or(f64::MAX, |meter| if meter.unit == Unit::Calls { meter.resets_in } else { 86_400.0 });
        today &= last.seconds.is_some_and(|seconds| seconds <= day);
        let later = |known: Option<finish::Finish>, one: finish::Finish| match known {
            Some(known) if known.seconds.is_none_or(|known| one.seconds.is_some_and(|one| one <= known)) => Some(known),
            _ => Some(one),
        };
        earliest = later(earliest, first);
        latest = later(latest, last);
    }
    let seconds = |end: Option<finish::Finish>| end.and_then(|end| end.seconds).map(whole);
    let at =
        |seconds: Option<u64>| seconds.and_then(|seconds| now.checked_add_signed(chrono::Duration::seconds(i64::try_from(seconds).ok()?)));
    Finish {
        earliest: at(seconds(earliest)),
        latest: at(seconds(latest)),
        earliest_seconds: seconds(earliest),
        latest_seconds: seconds(latest),
        estimated: calls.iter().any(|call| call.calls.at_most.is_none()),
        bottleneck: latest.or(earliest).map_or(Bottleneck::Minute, |end| end.bottleneck),
        today,
    }
}

/// The calls of a budget with what goes before them: at least, and at most.
fn work(calls: &[Call], budgets: &[Standing], of: &Standing, rank: i16) -> (Work, Work) {
    let same = |call: &Call| call.connection == of.connection && call.product == of.product;
    // the minute is shared by all products of a budget
    let shares = |call: &Call| {
        budgets.iter().any(|other| other.budget_id == of.budget_id && call.connection == other.connection && call.product == other.product)
    };
    let work = |before: &dyn Fn(&Waiting) -> bool, count: &dyn Fn(&Call) -> (u64, u64)| {
        let waiting = of.waiting.iter().filter(|one| before(one));
        let (calls_before, units_before) = waiting.fold((0, 0), |(calls, units), one| (calls + one.calls, units + one.units));
        let of_budget: u64 = calls.iter().filter(|call| shares(call)).map(|call| count(call).0).sum();
        let of_product: u64 = calls.iter().filter(|call| same(call)).map(|call| count(call).1).sum();
        Work { calls: real(of_budget + calls_before), units: real(of_product + units_before) }
    };
    let least = |call: &Call| (call.calls.at_least, call.credits.unwrap_or(call.calls).at_least);
    (work(&|one| one.rank < rank, &least), work(&|one| one.rank <= rank, &Call::most))
}

#[allow(clippy::cast_precision_loss, reason = "numbers of calls are far below 2^52")]
fn real(count: u64) -> f64 {
    count as f64
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of at most a year, never negative")]
fn whole(seconds: f64) -> u64 {
    seconds.ceil() as u64
}
