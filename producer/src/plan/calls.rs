//! Which calls the handlers of `worker` make for what was counted, and what they cost. Pure.
//!
//! It says the same as `worker/src/handlers/push` and `pull`: a change there is a change here, and the scenario `planning` runs both and compares.

use serde::Serialize;
use sluice_core::config::sync::{OnDelete, Product as Configured};
use sluice_sync::definition::Definition;
use sluice_zoho::cost::Cost;
use sluice_zoho::{Product, crm, finance};

/// Names that ride in one query for similar records, by how narrowly they are looked for.
const SIMILAR_TOGETHER: [u64; 3] = [crm::names::MAX_BEGINNINGS as u64, 6, 1];
/// Rows of a page, of whichever product.
const PER_PAGE: u64 = 200;
/// Pages of a CRM list before a bulk read takes over.
pub(super) const PAGES_BEFORE_BULK: u64 = 50;
/// Records of one bulk read, its credits, and about how many calls it takes: job, state (twice), file
/// (zoho.com/crm/developer/docs/api/v8/bulk-read/overview.html).
const BULK_READ: (u64, u64, u64) = (200_000, 50, 4);
/// Rows, credits and calls of one bulk write: upload, job, state, result (…/bulk-write/overview.html).
const BULK_WRITE: (u64, u64, u64) = (25_000, 500, 4);

/// From so many to so many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Range {
    /// At least.
    pub at_least: u64,
    /// At most; none: it depends on what Zoho has.
    pub at_most: Option<u64>,
}

impl Range {
    /// Exactly so many.
    pub fn exactly(count: u64) -> Self {
        Self { at_least: count, at_most: Some(count) }
    }

    /// From so many to so many, or to an unknown number.
    pub fn between(at_least: u64, at_most: impl Into<Option<u64>>) -> Self {
        let at_most = at_most.into().map(|at_most| at_most.max(at_least));
        Self { at_least, at_most }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { at_least: self.at_least + other.at_least, at_most: self.at_most.zip(other.at_most).map(|(one, two)| one + two) }
    }
}

/// Calls of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Call {
    /// The sync whose records they are for.
    pub sync: String,
    /// Its connection.
    pub connection: String,
    /// The product whose budget they draw from.
    pub product: &'static str,
    /// The HTTP method.
    pub method: &'static str,
    /// The path after the API host, with `{id}` for ids and `…` for values.
    pub path: String,
    /// What for: create, update, delete, void, mark, read, look_up, names, level, adjust, list, list_deleted, bulk_read, ask.
    pub purpose: &'static str,
    /// How many.
    pub calls: Range,
    /// CRM: what they cost.
    pub credits: Option<Range>,
    /// The records that they are for.
    pub records: u64,
    /// Records that one of them carries at most.
    pub records_per_call: u64,
    /// Where nobody can say how many at most: about so many, by the number of linked records. None: no idea.
    pub estimate: Option<u64>,
}

/// What CRM's bulk APIs would cost for the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bulk {
    /// read or write.
    pub what: &'static str,
    /// The sync.
    pub sync: String,
    /// Records.
    pub records: u64,
    /// Credits in bulk.
    pub credits: u64,
    /// Calls in bulk, about.
    pub calls: u64,
    /// Credits by ordinary calls.
    pub credits_by_calls: u64,
    /// Whether it would cost fewer credits.
    pub cheaper: bool,
    /// Whether it is done so.
    pub used: bool,
}

/// What was counted of one sync.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// Records that a run is asked for, whatever comes of it: they take room in a batch.
    pub(super) runs: u64,
    /// Of them, those that wait for a parent first: they come back in batches of their own.
    pub(super) waiting: u64,
    /// The most batches that they come in: a transaction's jobs are claimed together, the last batch of them may not be full.
    pub(super) batches: u64,
    pub(super) create: u64,
    /// Of these: those for which a list is looked through before.
    pub(super) matched: u64,
    /// Those whose name is looked for before.
    pub(super) similar: u64,
    /// Those of which an earlier create may be in Zoho, that have to be looked for.
    pub(super) lost: u64,
    /// Those that refer to themselves: the field follows in an update.
    pub(super) cyclic: u64,
    /// Those that may turn out to wait for themselves, through records of other syncs.
    pub(super) may_be_cyclic: u64,
    /// Records for which something is sent, apart from a level.
    pub(super) update: u64,
    /// Of these: those of which only the reading tells whether.
    pub(super) unsure: u64,
    /// Subforms' records are read before the update.
    pub(super) subforms: u64,
    /// Levels of stock.
    pub(super) level: u64,
    /// Of these, those that follow an update.
    pub(super) level_after: u64,
    /// Records of which both sides are read first.
    pub(super) read: u64,
    /// Of these, those that wait for a parent, and may be read again.
    pub(super) read_waiting: u64,
    pub(super) delete: u64,
    pub(super) void: u64,
    pub(super) mark: u64,
    /// Records of a repeated create that are looked up once more.
    pub(super) look_again: u64,
    pub(super) poll: Option<Poll>,
    /// Records that are linked already: about as many does Zoho's list have.
    pub(super) linked: u64,
}

impl Call {
    /// What the latest finish is reckoned with: the most, or what comes nearest to it. (calls, of the day or credits)
    pub(super) fn most(&self) -> (u64, u64) {
        let least = self.calls.at_least.max(self.estimate.unwrap_or(0));
        let calls = self.calls.at_most.unwrap_or(least);
        (calls, self.credits.map_or(calls, |credits| credits.at_most.unwrap_or(credits.at_least.max(least))))
    }
}

/// What a poll begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Poll {
    /// The whole module, not only what changed.
    pub(super) whole: bool,
    /// It asks for deleted records too.
    pub(super) deleted: bool,
}

/// The calls for what was counted.
pub(super) fn of(definition: &Definition, tally: &Tally) -> Vec<Call> {
    let mut list = List { definition, tally, calls: Vec::new() };
    if definition.module.product == Configured::Crm {
        list.crm();
    } else {
        list.single();
    }
    if let Some(poll) = tally.poll {
        list.poll(poll);
    }
    list.calls.retain(|call| call.calls != Range::exactly(0));
    list.calls
}

/// What CRM's bulk APIs would cost for the writes and the walk.
pub(super) fn bulk(definition: &Definition, tally: &Tally) -> Vec<Bulk> {
    if definition.module.product != Configured::Crm {
        return Vec::new();
    }
    let sync = definition.name();
    let offer = |what, records: u64, (each, credits, calls): (u64, u64, u64), by_calls: u64, used| {
        let jobs = records.div_ceil(each);
        let credits = jobs * credits;
        let cheaper = credits < by_calls;
        Bulk { what, sync: sync.to_owned(), records, credits, calls: jobs * calls, credits_by_calls: by_calls, cheaper, used }
    };
    let written = tally.create + tally.update;
    let mut offers = vec![offer("write", written, BULK_WRITE, written.div_ceil(10), false)];
    if tally.poll.is_some_and(|poll| poll.whole) {
        let linked = tally.linked;
        offers.push(offer("read", linked, BULK_READ, linked.div_ceil(PER_PAGE), linked > PAGES_BEFORE_BULK * PER_PAGE));
    }
    offers.retain(|offer| offer.records > 0);
    offers
}

struct List<'a> {
    definition: &'a Definition,
    tally: &'a Tally,
    calls: Vec<Call>,
}

impl List<'_> {
    fn product(&self) -> Product {
        self.definition.module.product.as_str().parse().unwrap_or(Product::Crm)
    }

    fn path(&self, rest: &str) -> String {
        format!("{}/{}{rest}", self.product().base_path(), self.definition.module.name)
    }

    fn push(&mut self, method: &'static str, path: String, purpose: &'static str, calls: Range, records: u64, per_call: u64) -> &mut Call {
        let call = Call {
            sync: self.definition.name().to_owned(),
            connection: self.definition.sync.connection.clone(),
            product: self.product().as_str(),
            method,
            path,
            purpose,
            calls,
            credits: None,
            records,
            records_per_call: per_call,
            estimate: None,
        };
        self.calls.push(call);
        let last = self.calls.len() - 1;
        &mut self.calls[last]
    }

    /// Finance products and FSM: a record a call.
    fn single(&mut self) {
        let t = self.tally.clone();
        // what is looked for may be there, and is then taken over
        let sought = t.matched + t.lost;
        self.push("POST", self.path(""), "create", Range::between(t.create - sought, t.create), t.create, 1);
        if t.matched > 0 {
            // one walk serves all rows for five minutes, in each worker process
            let pages = self.pages();
            self.push("GET", self.path("?page=…"), "look_up", Range::between(1, None), t.matched, PER_PAGE).estimate = Some(pages);
        }
        if t.lost > 0 {
            self.push("GET", self.path("?…"), "look_up", Range::between(1, None), t.lost, 1).estimate = Some(t.lost);
        }
        if t.look_again > 0 {
            self.push("GET", self.path("?…"), "look_up", Range::between(1, None), t.look_again, 1).estimate = Some(t.look_again);
        }
        self.reads();
        let most = t.update + sought + t.cyclic + t.may_be_cyclic;
        self.push("PUT", self.path("/{id}"), "update", Range::between(t.update - t.unsure + t.cyclic, most), t.update, 1);
        self.push("PUT", self.path("/{id}"), "mark", Range::exactly(t.mark), t.mark, 1);
        self.push("POST", self.path("/{id}/void"), "void", Range::exactly(t.void), t.void, 1);
        self.push("DELETE", self.path("/{id}"), "delete", Range::exactly(t.delete), t.delete, 1);
        if t.level > 0 {
            // the reading of both sides has the level, unless the item was written since
            self.push("GET", self.path("/{id}"), "level", Range::between(0, t.level_after), t.level_after, 1);
            let path = format!("{}/{}", self.product().base_path(), finance::Module::ADJUSTMENTS.as_str());
            self.push("POST", path, "adjust", Range::between(0, t.level), t.level, 1);
        }
    }

    /// Both sides of a record are looked at before it is written: up to a hundred a call where the module lets us.
    fn reads(&mut self) {
        let (t, module) = (self.tally.clone(), self.definition.module.clone());
        let taken_over = if self.definition.sync.direction.pulls() { t.matched + t.lost + t.similar } else { 0 };
        // what a poll finds to differ is read as well
        let (least, most) = (t.read, Some(t.read + t.read_waiting + taken_over).filter(|_| t.poll.is_none()));
        let together = u64::from(module.read_max());
        if together == 1 || !self.definition.rows().is_empty() {
            self.push("GET", self.path("/{id}"), "read", Range { at_least: least, at_most: most }, t.read, 1);
            return;
        }
        let batches = self.batches();
        let in_batches = most.map(|most| most.min(batches));
        if module.product == Configured::Crm {
            self.push("GET", self.path("?ids=…"), "read", Range::between(least.div_ceil(together), in_batches), t.read, together);
            return;
        }
        // one that is alone in its batch is read at its own address
        let full = least.div_ceil(together);
        let may_be_alone = least % together == 1 || in_batches.is_none_or(|most| most > full);
        let (alone, many) = match (least, most) {
            (1, Some(1)) => (Range::exactly(1), Range::exactly(0)),
            _ if may_be_alone => (Range::between(0, in_batches), Range::between(least / together, in_batches)),
            _ => (Range::exactly(0), Range::between(full, in_batches)),
        };
        let path = format!("{}/{}details?{}s=…", self.product().base_path(), module.facts.record_key, module.facts.id_key);
        self.push("GET", path, "read", many, t.read, together);
        self.push("GET", self.path("/{id}"), "read", alone, t.read.min(1), 1);
    }

    /// The most batches that the runs are claimed in.
    fn batches(&self) -> u64 {
        self.tally.batches.max(self.tally.runs.div_ceil(self.definition.batch_max().into()))
    }

    /// CRM: up to a hundred records a call, creates, updates and deletes apart.
    fn crm(&mut self) {
        let t = self.tally.clone();
        if t.similar > 0 {
            let [wide, narrow, alone] = SIMILAR_TOGETHER.map(|together| t.similar.div_ceil(together) + self.batches());
            let calls = Range::between(t.similar.div_ceil(SIMILAR_TOGETHER[0]), wide + narrow + alone);
            let call = self.push("POST", format!("{}/coql", Product::Crm.base_path()), "names", calls, t.similar, SIMILAR_TOGETHER[0]);
            call.credits = Some(times(calls, u64::from(crm::names::COST.units)));
        }
        self.push("GET", self.path("/{id}"), "read", Range::exactly(t.subforms), t.subforms, 1);
        self.reads();
        self.batch("POST", "/upsert", "create", (t.create - t.similar, t.create), |n| Cost::of_write(n).units);
        let sent = t.update + t.mark;
        self.batch("PUT", "", "update", (sent - t.unsure + t.cyclic, sent + t.similar + t.cyclic + t.may_be_cyclic), |n| {
            Cost::of_write(n).units
        });
        self.batch("DELETE", "?ids=…", "delete", (t.delete, t.delete), |n| Cost::of_delete(n).units);
        for read in self.calls.iter_mut().filter(|call| call.purpose == "read") {
            read.credits = Some(read.calls);
        }
    }

    fn batch(&mut self, method: &'static str, rest: &str, purpose: &'static str, (least, most): (u64, u64), cost: impl Fn(usize) -> u16) {
        let room = crm::MAX_RECORDS as u64;
        let calls = Range::between(least.div_ceil(room), most.min(most.div_ceil(room).max(self.batches())));
        // the cost of a call is rounded up, so that more calls for the same records may cost a little more
        let per_credit = if cost(11) > 1 { 10 } else { 100 };
        let dearest = calls.at_most.map_or(most, |calls| (most + calls * (per_credit - 1)) / per_credit);
        let credits = Range::between(least.div_ceil(per_credit), dearest.max(most.div_ceil(per_credit)));
        // a full batch costs no more than its records
        let credits = if calls == Range::exactly(least.div_ceil(room)) && least == most {
            Range::exactly(least.div_ceil(per_credit))
        } else {
            credits
        };
        self.push(method, self.path(rest), purpose, calls, most, room).credits = Some(credits);
    }

    /// About how many pages the module's list has: that is known when it is read.
    fn pages(&self) -> u64 {
        self.tally.linked.div_ceil(PER_PAGE).max(1)
    }

    fn poll(&mut self, poll: Poll) {
        let crm = self.definition.module.product == Configured::Crm;
        let (pages, records) = if poll.whole { (self.pages(), self.tally.linked) } else { (1, 0) };
        let listed = if crm { pages.min(PAGES_BEFORE_BULK) } else { pages };
        let path = self.path(if poll.whole { "?page=…" } else { "?page=… (changed since)" });
        let unknown = |at_least| Range { at_least, at_most: None };
        let call = self.push("GET", path, "list", unknown(1), records, PER_PAGE);
        call.estimate = Some(listed);
        call.credits = crm.then(|| unknown(crm::lists::LIST_COST.units.into()));
        if listed < pages {
            let rest = records - PAGES_BEFORE_BULK * PER_PAGE;
            let jobs = rest.div_ceil(BULK_READ.0);
            let call = self.push("POST", "/crm/bulk/v8/read".to_owned(), "bulk_read", unknown(0), rest, BULK_READ.0);
            call.estimate = Some(jobs * BULK_READ.2);
            // the job is what costs; its state and its file a credit each
            call.credits = Some(Range::between(0, jobs * (BULK_READ.1 + BULK_READ.2 - 1)));
        }
        if poll.deleted && crm && self.definition.sync.on_delete != OnDelete::Ignore {
            let call = self.push("GET", self.path("/deleted"), "list_deleted", unknown(1), 0, PER_PAGE);
            call.estimate = Some(1);
            call.credits = Some(unknown(crm::lists::DELETED_COST.units.into()));
        }
    }
}

fn times(range: Range, by: u64) -> Range {
    Range { at_least: range.at_least * by, at_most: range.at_most.map(|most| most * by) }
}

impl Call {
    /// The question for the plan, or the organisation, that nobody has answered yet: the first batch asks it.
    pub(super) fn question(sync: &str, connection: &str, product: &'static str, count: u64) -> Self {
        let crm = product == Product::Crm.as_str();
        let base = product.parse().unwrap_or(Product::Crm).base_path();
        Self {
            sync: sync.to_owned(),
            connection: connection.to_owned(),
            product,
            method: "GET",
            path: format!("{base}/{}", if crm { "org" } else { "organizations" }),
            purpose: "ask",
            calls: Range::between(1, count),
            credits: crm.then_some(Range::exactly(1)),
            records: 0,
            records_per_call: 0,
            estimate: None,
        }
    }
}
