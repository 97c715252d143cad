//! The SQL does what the model of the ledger does, step by step: the day and the credits, calls under way and heavy ones, second calls, workers that
//! die and come back, and midnights in a zone that is not ours.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use sluice_queue::settle::{Limit, Seen, Throttled};
use sluice_queue::{Batch, Claim, Cost, Report, Settlement, store};

use crate::model::{Became, Caps, DAY, Held, Meter, Model, QUARTER};
use crate::world::{LEASE, TIMEOUT, WORKER, World, answered, done, unanswered};

const CAPS: Caps = Caps { window_calls: 10, in_flight: 4, heavy: 2, window: 60_000, timeout: 30_000 };
const CREDITS: i64 = 60;

/// Time passes in steps of so many milliseconds: no sum of them comes within two seconds of any limit (32 s, 60 s, 92 s, pauses of 1, 2, 4 … 60 s,
/// tens of seconds up to 30), so that what a step itself takes decides nothing.
const STEP: i64 = 13_500;

/// A day ends so long after a step of time, and so long before another: neither its end nor the minute before it comes within two seconds of one.
const BEFORE_MIDNIGHT: i64 = 9_500;

/// A place is looked at by whether it is taken so many milliseconds from now.
const AHEAD: i64 = 1_000;

/// One step of a ledger's life. Calls are named by their number among those in hand.
#[derive(Debug, Clone)]
enum Step {
    /// Of so many records.
    Claim(i64),
    Settle(usize, Told),
    /// Asks for another call that costs so much, and may be heavy.
    Again(usize, Told, i64, bool),
    /// The worker dies, its batch is given to others; then it turns out to have been stopped, and settles all the same.
    Dies(usize),
    /// So many times [`STEP`].
    TimePasses(i64),
    /// Quarters of an hour.
    HoursPass(i64),
    /// It becomes late: so many times [`STEP`], and a little more, until midnight.
    Evening(i64),
}

/// What a worker tells of a call.
#[derive(Debug, Clone, Copy)]
enum Told {
    NotSent,
    /// Answered; it cost so much, in percent of what was reserved.
    Answered(i64),
    Unanswered,
    Crowded,
    /// Zoho's limit, and how much of it is used.
    Limits(i64, i64),
}

fn told() -> impl Strategy<Value = Told> {
    prop_oneof![
        3 => (0_i64..=100).prop_map(Told::Answered),
        1 => Just(Told::Unanswered),
        1 => Just(Told::NotSent),
        1 => Just(Told::Crowded),
        1 => (20_i64..60, 0_i64..60).prop_map(|(limit, used)| Told::Limits(limit, used)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let call = || 0..CAPS.in_flight;
    prop_oneof![
        8 => (1_i64..=100).prop_map(Step::Claim),
        5 => (call(), told()).prop_map(|(call, told)| Step::Settle(call, told)),
        3 => (call(), told(), 1_i64..12, any::<bool>()).prop_map(|(call, told, units, heavy)| Step::Again(call, told, units, heavy)),
        1 => call().prop_map(Step::Dies),
        4 => (1_i64..8).prop_map(Step::TimePasses),
        1 => prop_oneof![1_i64..8, 90_i64..100].prop_map(Step::HoursPass),
        2 => (0_i64..7).prop_map(Step::Evening),
    ]
}

/// Which budget is played on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    /// Billing's, number 1.
    Day,
    /// CRM's, number 2.
    Credits,
}

impl Counts {
    fn budget(self) -> u8 {
        if self == Self::Day { 1 } else { 2 }
    }

    fn sync(self) -> &'static str {
        if self == Self::Day { "shop" } else { "alone" }
    }

    fn meter(self) -> Meter {
        match self {
            Self::Day => Meter::day(5_000 * STEP + BEFORE_MIDNIGHT),
            Self::Credits => Meter::credits(CREDITS),
        }
    }

    /// The same step, as far as this budget knows it.
    fn step(self, step: &Step) -> Option<Step> {
        match (self, step) {
            (Self::Day, Step::Claim(_)) => Some(Step::Claim(1)),
            (Self::Day, Step::Again(call, told, ..)) => Some(Step::Again(*call, *told, 1, false)),
            (Self::Day, Step::HoursPass(_)) | (Self::Credits, Step::Evening(_)) => None,
            _ => Some(step.clone()),
        }
    }
}

/// Both sides of the comparison.
struct Pair<'a> {
    world: &'a World,
    counts: Counts,
    shape: i64,
    model: Model,
    now: i64,
    /// The database's clock when the model's was last made to agree with it.
    anchor: f64,
    held: Vec<(Batch, Held)>,
    /// The day's end as both were last made to agree on it: the model's, and the whole second that it is by the database's clock.
    midnight: (i64, i64),
    /// What was found to differ while time passed.
    differs: Option<String>,
}

impl<'a> Pair<'a> {
    async fn new(world: &'a World, counts: Counts) -> Self {
        let budget = counts.budget();
        let heavy = if counts == Counts::Day { 0 } else { CAPS.heavy };
        let Caps { window_calls, in_flight, .. } = CAPS;
        world
            .run(format!(
                "update sluice.slot set state = 'available', batch = null; delete from sluice.batch; delete from sluice.place where budget_id = {budget};
                 update sluice.budget set cap = {window_calls}, in_flight = {in_flight}, heavy = {heavy}, blocked_until = '-infinity', shrunk_to = null, shrunk_at = null, throttled = 0 where id = {budget};
                 insert into sluice.place (budget_id, kind) select {budget}, k from (values ('window', {window_calls}), ('in_flight', {in_flight}), ('heavy', {heavy})) v (k, n), generate_series(1, n);
                 update sluice.meter set told = case kind when 'credits' then {CREDITS} end, told_by = case kind when 'credits' then 'plan' end, used = 0, others = 0,
                   bucket = 0, buckets = array_fill(0, array[98]), resets_at = case kind when 'calls' then clock_timestamp() + interval '20 h' end"
            ))
            .await;
        // urgent work without end: the grid and the lanes have tests of their own
        world
            .run(format!(
                "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at) select h.sync, k::text, h.id, 'push', 0, '-infinity' from sluice.shape h, generate_series(1, 3000) k where h.sync = '{}'
                 on conflict do nothing",
                counts.sync()
            ))
            .await;
        let shape = world.get(format!("select id from sluice.shape where sync = '{}'", counts.sync())).await;
        let caps = Caps { heavy, ..CAPS };
        let anchor = clock(world).await;
        let model = Model::new(caps, counts.meter());
        let mut pair = Self { world, counts, shape, model, now: 0, anchor, held: Vec::new(), midnight: (0, 0), differs: None };
        pair.keep_midnight(true).await;
        pair
    }

    /// Compares the day's end, which the SQL works out from the organisation's zone, with the model's, and moves it with everything else that has a
    /// time: to the whole second at which it is midnight in the zone that is chosen for it.
    async fn keep_midnight(&mut self, first: bool) {
        let Meter::Day { ends, .. } = self.model.meter else { return };
        let sql: i64 = self.world.get("select extract(epoch from resets_at)::bigint from sluice.meter where product = 'billing'").await;
        let due = self.midnight.1 + (ends - self.midnight.0) / 1_000;
        if !first && sql != due {
            self.differs.get_or_insert(format!("the day ends at {sql} by the SQL, at {due} by the model"));
        }
        #[allow(clippy::cast_possible_truncation)]
        let second = (self.anchor + (ends - self.now) as f64 / 1_000.0).floor() as i64;
        self.midnight = (ends, second);
        // as POSIX writes it: what is to be added to local time
        let west = (second + 43_200).rem_euclid(86_400) - 43_200;
        let zone = format!(
            "<here>{}{:02}:{:02}:{:02}",
            if west < 0 { '-' } else { '+' },
            west.abs() / 3_600,
            west.abs() / 60 % 60,
            west.abs() % 60
        );
        self.world
            .run(format!(
                "update sluice.budget set time_zone = '{zone}' where id = 1; update sluice.meter set resets_at = to_timestamp({second}) where product = 'billing'"
            ))
            .await;
    }

    /// Lets that many milliseconds pass and no more, whatever the steps themselves took: everything that has a time is moved into the past.
    async fn pass(&mut self, milliseconds: i64) {
        let now = clock(self.world).await;
        let by = format!("make_interval(secs => {})", now - self.anchor - milliseconds as f64 / 1000.0);
        self.anchor = now;
        // What is counted by the quarter moves when one begins in the model's time: the database's clock stands somewhere within one.
        let quarters = (self.now + milliseconds).div_euclid(QUARTER) - self.now.div_euclid(QUARTER);
        self.now += milliseconds;
        let granted = if self.counts == Counts::Day { by.clone() } else { format!("interval '15 min' * {}", -quarters) };
        self.world
            .run(format!(
                "update sluice.place set free_at = free_at + {by}, granted_at = granted_at + {by};
                 update sluice.budget set blocked_until = blocked_until + {by}, shrunk_at = shrunk_at + {by};
                 update sluice.batch set lease_until = lease_until + {by} + interval '1 day', granted_at = granted_at + {granted};
                 update sluice.meter m set bucket = bucket - {quarters}, buckets = (select array_agg(m.buckets[(i + {quarters}) % 98 + 1] order by i) from generate_series(0, 97) i) where kind = 'credits';
                 update sluice.slot set due_at = '-infinity', max_batch = null, deaths = 0 where state = 'available';
                 update sluice.product set unanswered = 0"      // five lost answers would open the circuit, which is not looked at here
            ))
            .await;
        self.keep_midnight(false).await;
    }

    /// What both say of a call in hand. Without a grant in hand there was none.
    fn report(&self, told: Told, held: &Held) -> (Report, Became) {
        match told {
            _ if !held.may_send() => (Report::default(), Became::NotSent),
            Told::NotSent => (Report::default(), Became::NotSent),
            Told::Unanswered => (unanswered(), Became::Unanswered),
            Told::Answered(percent) => {
                let cost = held.cost * percent / 100;
                (Report { cost: u16::try_from(cost).ok(), ..answered() }, Became::Answered(cost))
            }
            Told::Crowded => {
                (Report { throttled: Some(Throttled { limit: Limit::InFlight, retry_after: None }), ..answered() }, Became::Crowded)
            }
            Told::Limits(limit, used) => {
                let left = (limit - used).max(0);
                let seen = match self.counts {
                    Counts::Day => Seen {
                        day_limit: Some(limit),
                        day_remaining: Some(left),
                        day_resets_in: Some(Duration::from_millis(self.until_midnight().unsigned_abs())),
                        ..Seen::default()
                    },
                    Counts::Credits => Seen { credits_remaining: Some(left), ..Seen::default() },
                };
                (Report { seen, ..answered() }, Became::Told(limit, left))
            }
        }
    }

    fn until_midnight(&self) -> i64 {
        let Meter::Day { ends, .. } = self.model.meter_at(self.now) else { return 0 };
        ends - self.now
    }

    /// The places that a batch has, by their number among those of their kind.
    async fn places_of(&self, token: i64) -> [Option<usize>; 3] {
        let mut found = [None; 3];
        for (place, column) in found.iter_mut().zip(["place_id", "flight_id", "heavy_id"]) {
            let number: Option<i64> = self
                .world
                .get(format!(
                    "select (select count(*) from sluice.place o join sluice.place p on p.id = x.{column} where o.budget_id = p.budget_id and o.kind = p.kind and o.id < p.id and x.{column} is not null)
                       + case when x.{column} is null then null else 0 end from sluice.batch x where token = {token}"
                ))
                .await;
            *place = number.and_then(|number| usize::try_from(number).ok());
        }
        found
    }

    async fn settle(&self, batch: &Batch, report: &Report) -> bool {
        let settlements: Vec<_> = batch.slots.iter().map(|s| Settlement::new(s.id, done())).collect();
        store::settle(&self.world.db, batch.token, WORKER, report, &settlements).await.unwrap()
    }

    /// Takes a step on both; what differs, if anything does.
    async fn take(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::Claim(records) => {
                self.world.run(format!("update sluice.shape set batch_max = {records} where id = {}", self.shape)).await;
                let claim = store::claim(&self.world.db, WORKER, &[self.shape], LEASE, TIMEOUT).await.unwrap();
                if let Claim::Batch(batch, _) = &claim {
                    self.model.preferred = self.places_of(batch.token).await;
                }
                match (claim, self.model.grant(*records, self.now)) {
                    (Claim::Batch(batch, _), Some(held)) => {
                        let sql = (batch.slots.len(), i64::from(batch.cost), batch.heavy);
                        let model = (usize::try_from(held.records).unwrap(), held.cost, held.has_heavy());
                        if sql != model {
                            return Err(format!("records, cost, heavy: the SQL {sql:?}, the model {model:?}"));
                        }
                        self.held.push((*batch, held));
                    }
                    (Claim::Wait(_), None) => {}
                    (claim, granted) => return Err(format!("the SQL {claim:?}, the model {granted:?}")),
                }
            }
            Step::Settle(call, told) if *call < self.held.len() => {
                let (batch, held) = self.held.remove(*call);
                let (report, became) = self.report(*told, &held);
                self.model.settle(held, became, self.now);
                assert!(self.settle(&batch, &report).await, "the lease holds");
            }
            Step::Again(call, told, units, heavy) if *call < self.held.len() => {
                let (batch, mut held) = self.held[*call].clone();
                let (report, became) = self.report(*told, &held);
                let cost = Cost { units: u16::try_from(*units).unwrap(), heavy: *heavy };
                let sql = store::grant_again(&self.world.db, batch.token, WORKER, &report, cost).await.unwrap();
                self.model.preferred = self.places_of(batch.token).await;
                let model = self.model.again(&mut held, became, (*units, *heavy), self.now);
                self.held[*call].1 = held;
                if matches!(sql, store::Again::Granted { .. }) != model {
                    return Err(format!("another call: the SQL {sql:?}, the model {model}"));
                }
            }
            Step::Dies(call) if *call < self.held.len() => {
                let (batch, _) = self.held.remove(*call);
                self.world.run(format!("update sluice.batch set lease_until = clock_timestamp() where token = {}", batch.token)).await;
                assert!(store::rescue(&self.world.db).await.unwrap(), "somebody takes over");
                assert!(!self.settle(&batch, &answered()).await, "a worker that comes back frees nothing");
            }
            Step::TimePasses(steps) => self.pass(steps * STEP).await,
            Step::HoursPass(quarters) => self.pass(quarters * QUARTER).await,
            Step::Evening(steps) => {
                let late = (self.until_midnight() - BEFORE_MIDNIGHT - steps * STEP).rem_euclid(DAY);
                self.pass(late).await;
            }
            Step::Settle(..) | Step::Again(..) | Step::Dies(_) => {}
        }
        self.pass(0).await;
        if let Some(difference) = self.differs.take() {
            return Err(difference);
        }
        self.agree().await
    }

    async fn agree(&self) -> Result<(), String> {
        let budget = self.counts.budget();
        // by the moment that both agree on: the clock has gone on since
        let now = format!("to_timestamp({})", self.anchor);
        let later = format!("{now} + interval '{AHEAD} ms'");
        let sql: String = self
            .world
            .get(format!(
                "select concat_ws(' ', p.window, p.flights, p.heavies, m.used, m.others, m.told)
                 from (select (sluice.meter_turned(x, b.time_zone, sluice.straddling(x, b), {now})).* from sluice.meter x join sluice.budget b on b.id = x.budget_id
                   where b.id = {budget}) m,
                   (select count(*) filter (where kind = 'window' and free_at > {later}) as window,
                      count(*) filter (where kind = 'in_flight' and free_at > {later}) as flights,
                      count(*) filter (where kind = 'heavy' and free_at > {later}) as heavies
                    from sluice.place where budget_id = {budget}) p"
            ))
            .await;
        let (window, flights, heavies) = self.model.taken(self.now + AHEAD);
        let meter = self.model.meter_at(self.now);
        let told = meter.told().map_or(String::new(), |told| format!(" {told}"));
        let model = format!("{window} {flights} {heavies} {} {}{told}", meter.used(self.now), meter.others(self.now));
        if sql == model { Ok(()) } else { Err(format!("the SQL has {sql}, the model {model}")) }
    }
}

async fn clock(world: &World) -> f64 {
    world.get("select extract(epoch from clock_timestamp())::float8").await
}

async fn play(world: &World, counts: Counts, steps: &[Step]) -> Result<(), String> {
    let mut pair = Pair::new(world, counts).await;
    for (number, step) in steps.iter().enumerate() {
        if let Some(step) = counts.step(step) {
            pair.take(&step).await.map_err(|difference| format!("after step {number}, {step:?}: {difference}"))?;
        }
    }
    Ok(())
}

async fn compare(counts: Counts, cases: u32) {
    let world = World::new().await;
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let steps = proptest::collection::vec(step(), 1..60);
    for case in 0..cases {
        let steps = steps.new_tree(&mut runner).unwrap().current();
        // The database's clock goes on between the steps, and a machine that stalls for seconds, or a quarter of an hour that begins, moves it past a
        // place's time. Such a case is compared again; a difference between SQL and model is there each time.
        let mut differences = Vec::new();
        while differences.len() < 3 {
            match play(&world, counts, &steps).await {
                Ok(()) => break,
                Err(difference) => differences.push(difference),
            }
        }
        assert!(differences.len() < 3, "case {case}: {differences:?}\n{steps:?}");
    }
}

#[tokio::test]
async fn the_sql_does_what_the_model_does_with_a_day_of_calls() {
    compare(Counts::Day, 16).await;
}

#[tokio::test]
async fn the_sql_does_what_the_model_does_with_credits_and_heavy_calls() {
    compare(Counts::Credits, 16).await;
}
