//! The model of the ledger holds against whatever workers do: processes that are stopped and go on, machines that sleep, clocks that are wrong or
//! set, crashes, lost and overtaken answers. What counts is what Zoho sees, by its own clock, at any moment.
//!
//! Whether a late grant is sent is decided by the code that workers run, [`Grant::spend`].

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use proptest::prelude::*;
use sluice_core::grant::{Grant, Moment};

use crate::model::{Became, Caps, Held, Meter, Model, SEND_WITHIN};

const CAPS: Caps = Caps { window_calls: 10, in_flight: 3, heavy: 2, window: 60_000, timeout: 30_000 };
const CREDITS: i64 = 60;
const LEASE: i64 = 30_000;
const DAY: i64 = 24 * 3600 * 1000;

/// One batch in the hands of one worker process.
#[derive(Debug, Clone)]
struct Fate {
    /// From the batch before to this one.
    after: i64,
    records: i64,
    calls: Vec<Call>,
}

/// One call: what happens between its grant and its settle.
#[derive(Debug, Clone)]
struct Call {
    /// From asking the ledger to its answer, on which the grant is dated.
    asking: i64,
    /// Stopped, asleep or slow between the grant and the sending.
    pause: i64,
    clock: Clock,
    /// From the sending to the arrival, and from there to the answer.
    travel: i64,
    answer: i64,
    /// From the answer to telling the ledger: answers are overtaken.
    telling: i64,
    end: End,
    /// What of the reserved units it really costs, in percent.
    costs: i64,
    /// What the call after it asks for.
    next: (i64, bool),
}

/// What a worker's clocks do between asking and sending.
#[derive(Debug, Clone, Copy)]
enum Clock {
    /// Both go on; the wall clock is wrong by so much.
    Wrong(i64),
    /// The machine sleeps: its monotonic clock stands still. The wall clock is wrong by so much.
    Asleep(i64),
    /// Somebody sets the wall clock: so far off when asking, and when sending.
    Set(i64, i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Answered,
    /// Zoho said that there are too many at once.
    Crowded,
    /// The answer is lost; the worker says so.
    Lost,
    DiesFirst,
    /// The worker dies after it sent; the request arrives all the same.
    DiesAfter,
}

fn wrong() -> impl Strategy<Value = i64> {
    const CENTURY: i64 = 100 * 365 * DAY;
    prop_oneof![2 => -5_000_i64..5_000, 1 => -CENTURY..CENTURY]
}

prop_compose! {
    fn call()(
        asking in prop_oneof![5 => 0_i64..50, 1 => 0_i64..4_000],
        pause in prop_oneof![5 => 0_i64..50, 1 => 1_900_i64..2_100, 1 => 0_i64..200_000],
        clock in prop_oneof![4 => wrong().prop_map(Clock::Wrong), 2 => wrong().prop_map(Clock::Asleep), 1 => (wrong(), wrong()).prop_map(|(a, b)| Clock::Set(a, b))],
        travel in prop_oneof![3 => 0_i64..300, 1 => 0_i64..CAPS.timeout],
        answer in prop_oneof![3 => 0_i64..1_500, 1 => 0_i64..CAPS.timeout],
        telling in prop_oneof![5 => 0_i64..50, 1 => 0_i64..100_000],
        end in prop_oneof![8 => Just(End::Answered), 1 => Just(End::Crowded), 1 => Just(End::Lost), 1 => Just(End::DiesFirst), 1 => Just(End::DiesAfter)],
        costs in prop_oneof![2 => Just(100_i64), 1 => 0_i64..=100],
        next in (1_i64..12, any::<bool>()),
    ) -> Call {
        Call { asking, pause, clock, travel, answer: answer.min(CAPS.timeout - travel), telling, end, costs, next }
    }
}

prop_compose! {
    /// Batches seconds apart, or, where `slow`, sometimes hours.
    fn fate(slow: bool)(
        after in prop_oneof![if slow { 2 } else { 20 } => 0_i64..2_000, u32::from(slow) => 0_i64..4 * 3600 * 1000],
        records in 1_i64..=100,
        calls in proptest::collection::vec(call(), 1..4),
    ) -> Fate {
        Fate { after, records, calls }
    }
}

/// A request as Zoho sees it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    arrival: i64,
    answer: i64,
    cost: i64,
    heavy: bool,
}

/// What happens at a moment.
#[derive(Debug, Clone)]
enum Event {
    Claim,
    /// The worker tells what became of a call and asks for the next one, or settles.
    Tells {
        held: Held,
        call: usize,
        became: Became,
    },
}

struct Play<'a> {
    fates: &'a [Fate],
    model: Model,
    /// By time, then in the order in which they came up.
    events: BTreeMap<(i64, usize), (usize, Event)>,
    noted: usize,
    seen: Vec<Seen>,
}

impl<'a> Play<'a> {
    fn of(fates: &'a [Fate], meter: Meter) -> Vec<Seen> {
        let mut play = Self { fates, model: Model::new(CAPS, meter), events: BTreeMap::new(), noted: 0, seen: Vec::new() };
        let mut at = 0;
        for (number, fate) in fates.iter().enumerate() {
            at += fate.after;
            play.note(at, number, Event::Claim);
        }
        while let Some(((now, _), (number, event))) = play.events.pop_first() {
            play.happen(now, number, event);
        }
        play.seen
    }

    fn note(&mut self, at: i64, number: usize, event: Event) {
        self.noted += 1;
        self.events.insert((at, self.noted), (number, event));
    }

    fn happen(&mut self, now: i64, number: usize, event: Event) {
        let fate = &self.fates[number];
        match event {
            Event::Claim => {
                if let Some(held) = self.model.grant(fate.records, now) {
                    let heavy = held.records > 10;
                    self.call(now, number, 0, held, heavy);
                }
            }
            Event::Tells { mut held, call, became } => {
                let asks = fate.calls.get(call + 1).is_some();
                let next = fate.calls[call].next;
                if !asks {
                    self.model.settle(held, became, now);
                } else if self.model.again(&mut held, became, next, now) {
                    self.call(now, number, call + 1, held, next.1);
                } else {
                    self.model.settle(held, Became::NotSent, now);
                }
            }
        }
    }

    /// What the worker does with a grant that the ledger gave it now.
    fn call(&mut self, now: i64, number: usize, index: usize, held: Held, heavy: bool) {
        let call = &self.fates[number].calls[index];
        if call.end == End::DiesFirst {
            return;
        }
        let sent = now + call.pause;
        if !in_time(call) {
            // Beyond the lease the batch is somebody else's, and this settle is refused.
            if call.pause + call.telling < LEASE {
                self.note(sent + call.telling, number, Event::Tells { held, call: index, became: Became::NotSent });
            }
            return;
        }
        let arrival = sent + call.travel;
        let answer = arrival + call.answer;
        let cost = (held.cost * call.costs + 99) / 100;
        self.seen.push(Seen { arrival, answer, cost, heavy });
        let (told, became) = match call.end {
            End::Answered => (answer, Became::Answered(cost)),
            End::Crowded => (answer, Became::Crowded),
            End::Lost => (sent + CAPS.timeout, Became::Unanswered),
            End::DiesFirst | End::DiesAfter => return,
        };
        self.note(told + call.telling, number, Event::Tells { held, call: index, became });
    }
}

/// Whether the worker sends, by its own clocks.
fn in_time(call: &Call) -> bool {
    let (steady, wall) = (Instant::now(), SystemTime::UNIX_EPOCH + Duration::from_millis(200 * 365 * 24 * 3600 * 1000));
    let shown = |by: i64, wrong: i64| {
        let wall = if by + wrong < 0 { wall - millis(-(by + wrong)) } else { wall + millis(by + wrong) };
        (steady + millis(by), wall)
    };
    let passed = call.asking + call.pause;
    let ((asked, asked_wall), (sent, sent_wall)) = match call.clock {
        Clock::Wrong(wrong) => (shown(0, wrong), shown(passed, wrong)),
        Clock::Asleep(wrong) => (shown(0, wrong), (steady + millis(call.asking), shown(passed, wrong).1)),
        Clock::Set(before, after) => (shown(0, before), shown(passed, after)),
    };
    let grant = Grant::issued(1, Moment::shown(asked, asked_wall), millis(SEND_WITHIN));
    grant.spend(Moment::shown(sent, sent_wall)).is_ok()
}

fn millis(count: i64) -> Duration {
    Duration::from_millis(count.unsigned_abs())
}

fn check(mut seen: Vec<Seen>, credits: bool) -> Result<(), TestCaseError> {
    seen.sort_unstable_by_key(|call| call.arrival);
    for (index, first) in seen.iter().enumerate() {
        let within = |length: i64| seen[index..].iter().take_while(move |call| call.arrival < first.arrival + length);
        let in_window = within(CAPS.window).count();
        prop_assert!(in_window <= CAPS.window_calls, "{in_window} calls from {} on", first.arrival);
        let under_way = |heavy: bool| {
            seen.iter().filter(|call| (call.heavy || !heavy) && call.arrival <= first.arrival && first.arrival < call.answer).count()
        };
        prop_assert!(under_way(false) <= CAPS.in_flight, "{} under way at {}", under_way(false), first.arrival);
        if credits {
            prop_assert!(under_way(true) <= CAPS.heavy, "{} heavy ones under way at {}", under_way(true), first.arrival);
            let spent: i64 = within(DAY).map(|call| call.cost).sum();
            prop_assert!(spent <= CREDITS, "{spent} credits in the 24 hours from {} on", first.arrival);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn zoho_never_sees_more_than_the_cap_in_any_window_nor_more_at_once(fates in proptest::collection::vec(fate(false), 1..300)) {
        check(Play::of(&fates, Meter::day(i64::MAX / 2)), false)?;
    }

    #[test]
    fn zoho_never_sees_more_heavy_calls_at_once_nor_more_credits_in_any_24_hours(fates in proptest::collection::vec(fate(true), 1..300)) {
        check(Play::of(&fates, Meter::credits(CREDITS)), true)?;
    }
}

/// Calls of a day, of which Zoho allows so few that they are spent on both sides of the midnight.
const CALLS_A_DAY: i64 = 15;
const MIDNIGHT: i64 = 150_000;

fn around_midnight(fates: &[Fate]) -> Vec<Seen> {
    Play::of(fates, Meter::Day { told: Some(CALLS_A_DAY), used: 0, others: 0, ends: MIDNIGHT })
}

fn of_each_day(seen: &[Seen], midnight: i64) -> [i64; 2] {
    [true, false].map(|first| seen.iter().filter(|call| (call.arrival < midnight) == first).map(|call| call.cost).sum())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn zoho_never_counts_more_calls_in_a_day_than_it_allows_though_its_clock_is_seconds_ahead_of_ours(
        fates in proptest::collection::vec(fate(false), 1..300), ahead in 0_i64..25_000,
    ) {
        let days = of_each_day(&around_midnight(&fates), MIDNIGHT - ahead);
        prop_assert!(days.iter().all(|calls| *calls <= CALLS_A_DAY), "{days:?}");
    }
}

#[test]
fn the_plays_come_near_every_limit() {
    // or the properties above would hold for want of calls
    use proptest::strategy::ValueTree as _;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut reached = [false; 6];
    for round in 0..100 {
        let credits = round % 2 == 0;
        let fates = proptest::collection::vec(fate(credits), 250).new_tree(&mut runner).unwrap().current();
        if !credits {
            let days = of_each_day(&around_midnight(&fates), MIDNIGHT);
            reached[4] |= days[0] == CALLS_A_DAY;
            reached[5] |= days[1] == CALLS_A_DAY;
        }
        let mut seen = Play::of(&fates, if credits { Meter::credits(CREDITS) } else { Meter::day(i64::MAX / 2) });
        seen.sort_unstable_by_key(|call| call.arrival);
        for (index, first) in seen.iter().enumerate() {
            let under_way =
                |heavy: bool| seen.iter().filter(|c| (c.heavy || !heavy) && c.arrival <= first.arrival && first.arrival < c.answer).count();
            let spent: i64 = seen[index..].iter().take_while(|call| call.arrival < first.arrival + DAY).map(|call| call.cost).sum();
            let in_window = seen[index..].iter().take_while(|call| call.arrival < first.arrival + CAPS.window).count();
            reached[0] |= in_window == CAPS.window_calls;
            reached[1] |= under_way(false) == CAPS.in_flight;
            reached[2] |= credits && under_way(true) == CAPS.heavy;
            reached[3] |= credits && spent > CREDITS - 5;
        }
    }
    assert_eq!(reached, [true; 6], "window, in flight, heavy, credits, the day before midnight and the one after");
}
