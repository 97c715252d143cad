//! When work would be finished: the arithmetic of docs/budget.md, forwards in time. Pure.
//!
//! It walks through time in quarters of an hour. In each, as much is done as the minute lets through and the day, or the credits of 24 hours, leave to
//! the lane. What else happens in the organisation nobody knows, so there are two answers: nobody needs what is kept for more urgent work, or all of it.

use std::collections::VecDeque;

use serde::Serialize;

/// A step of the walk, in seconds: as the ledger's buckets.
const STEP: f64 = 900.0;
const DAY: f64 = 86_400.0;
/// Credits come back this many seconds after the quarter of an hour in which they were spent began (98 buckets).
const COMES_BACK: f64 = 98.0 * STEP;
/// Tells the end of a day from the beginning of the next.
const MOMENT: f64 = 1e-3;
/// What takes longer than a year is not worth a date.
const LONGEST: f64 = 366.0 * DAY;

/// How fast calls go, and how many.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pace {
    /// Calls in any window.
    pub per_window: u32,
    /// Seconds of a window.
    pub window_seconds: f64,
    /// Calls under way at once.
    pub in_flight: u32,
    /// The slowest answer that is reckoned with, in seconds.
    pub answer_seconds: f64,
    /// Nothing is granted for so many seconds.
    pub wait_seconds: f64,
    /// The day's calls, or credits; none: no limit is known.
    pub meter: Option<Meter>,
}

/// The day, as it stands for one lane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Meter {
    /// What it counts.
    pub unit: Unit,
    /// All of it.
    pub cap: u32,
    /// What is left of it now.
    pub left: i64,
    /// What of that is kept for more urgent lanes.
    pub kept: i64,
    /// The least part of a whole day that is kept for them: 0, 0.2 or 0.5.
    pub kept_share: f64,
    /// Calls: seconds until the day ends.
    pub resets_in: f64,
    /// Credits: when how many of those that are used come back: (seconds, credits).
    pub returns: Vec<(f64, f64)>,
}

/// What a meter counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Calls until midnight.
    Calls,
    /// Credits in any 24 hours.
    Credits,
}

/// What is to be done, and what is done before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Calls.
    pub calls: f64,
    /// What they cost of the meter.
    pub units: f64,
}

/// What is assumed of more urgent work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// It needs nothing of what is kept for it.
    Idle,
    /// It needs all of it.
    Busy,
}

/// When it is over.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finish {
    /// Seconds from now; none: not within a year.
    pub seconds: Option<f64>,
    /// What held it up most.
    pub bottleneck: Bottleneck,
}

/// What holds work up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bottleneck {
    /// Calls in a window.
    Minute,
    /// Calls under way at once.
    InFlight,
    /// The day's calls.
    Day,
    /// Credits of 24 hours.
    Credits,
}

impl Pace {
    /// Calls a second while bulk work waits: a place comes back a window after its answer.
    pub fn rate(&self) -> f64 {
        self.by_window().min(self.by_flights())
    }

    fn by_window(&self) -> f64 {
        f64::from(self.per_window) / (self.window_seconds + self.answer_seconds)
    }

    fn by_flights(&self) -> f64 {
        f64::from(self.in_flight) / self.answer_seconds.max(0.001)
    }
}

/// Walks until the work is done.
pub fn finish(work: Work, pace: &Pace, others: Others) -> Finish {
    let by_pace = if pace.by_flights() < pace.by_window() { Bottleneck::InFlight } else { Bottleneck::Minute };
    if work.calls <= 0.0 {
        return Finish { seconds: Some(0.0), bottleneck: by_pace };
    }
    let Some(meter) = &pace.meter else {
        return Finish { seconds: Some(pace.wait_seconds + work.calls / pace.rate()), bottleneck: by_pace };
    };
    let by_meter = if meter.unit == Unit::Calls { Bottleneck::Day } else { Bottleneck::Credits };
    let each = (work.units / work.calls).max(f64::EPSILON);
    let mut walk = Walk { meter, others, spent: VecDeque::new(), today: 0.0 };
    let (mut at, mut left, mut bottleneck) = (pace.wait_seconds, work.calls, by_pace);
    while left > 1e-6 {
        if at >= LONGEST {
            return Finish { seconds: None, bottleneck: by_meter };
        }
        let end = walk.step_after(at);
        let (rate, length) = (pace.rate(), end - at);
        // what is free at the beginning of the step goes at full speed, what is set free in its course goes as it comes
        let (first, last) = (walk.free(at + MOMENT) / each, walk.free(end - MOMENT) / each);
        let able = (rate * length).min(last.max(first)).max(0.0);
        if able >= left {
            let at_once = left / rate;
            let as_it_comes = if left <= first || last <= first { 0.0 } else { length * (left - first.max(0.0)) / (last - first.max(0.0)) };
            return Finish {
                seconds: Some(at + at_once.max(as_it_comes)),
                bottleneck: if as_it_comes > at_once { by_meter } else { bottleneck },
            };
        }
        if able < rate * length * 0.999 {
            bottleneck = by_meter;
        }
        left -= able;
        walk.spend(at, end, able * each);
        at = end;
    }
    Finish { seconds: Some(at), bottleneck }
}

struct Walk<'a> {
    meter: &'a Meter,
    others: Others,
    /// Credits that this work has spent, and when.
    spent: VecDeque<(f64, f64)>,
    /// Calls that this work has made in the day at hand.
    today: f64,
}

impl Walk<'_> {
    /// A step ends with the day at the latest.
    fn step_after(&self, at: f64) -> f64 {
        let end = at + STEP;
        match self.meter.unit {
            Unit::Credits => end,
            Unit::Calls => {
                let midnight = self.midnight_after(at);
                if midnight < end { midnight } else { end }
            }
        }
    }

    /// Always later, by a moment at least: or a rounding could keep the walk where it is.
    fn midnight_after(&self, at: f64) -> f64 {
        let first = self.meter.resets_in;
        let days = if at < first { 0.0 } else { ((at - first) / DAY).floor() };
        (0..3).map(|more| first + (days + f64::from(more)) * DAY).find(|midnight| *midnight > at + MOMENT).unwrap_or(at + DAY)
    }

    /// What the lane may still use at that time.
    fn free(&self, at: f64) -> f64 {
        let (cap, idle) = (f64::from(self.meter.cap), self.others == Others::Idle);
        let (left, kept) = (signed(self.meter.left), signed(self.meter.kept));
        match self.meter.unit {
            Unit::Credits => {
                let back =
                    |spent: &mut dyn Iterator<Item = (f64, f64)>| spent.filter(|(when, _)| *when <= at).map(|(_, credits)| credits).sum();
                let returned: f64 = back(&mut self.meter.returns.iter().copied());
                let own: f64 = self.spent.iter().filter(|(when, _)| when + COMES_BACK > at).map(|(_, credits)| credits).sum();
                left - kept + returned - own
            }
            Unit::Calls if at <= self.meter.resets_in => {
                let ahead = if idle { (self.meter.resets_in - at) / self.meter.resets_in.max(1.0) } else { 1.0 };
                left - kept * ahead - self.today
            }
            Unit::Calls => {
                let gone = ((at - self.meter.resets_in) / DAY).fract();
                let ahead = if idle { 1.0 - gone } else { 1.0 };
                cap - cap * self.meter.kept_share * ahead - self.today
            }
        }
    }

    fn spend(&mut self, at: f64, end: f64, units: f64) {
        match self.meter.unit {
            Unit::Credits => {
                self.spent.push_back((at, units));
                while self.spent.front().is_some_and(|(when, _)| when + COMES_BACK <= at) {
                    self.spent.pop_front();
                }
            }
            Unit::Calls if end + MOMENT >= self.midnight_after(at) => self.today = 0.0,
            Unit::Calls => self.today += units,
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "a day's calls are far below 2^52")]
fn signed(value: i64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: f64 = 3_600.0;

    fn pace(meter: Option<Meter>) -> Pace {
        Pace { per_window: 100, window_seconds: 60.0, in_flight: 10, answer_seconds: 1.5, wait_seconds: 0.0, meter }
    }

    fn day(left: i64, share: f64, resets_in: f64) -> Meter {
        let kept = (10_000.0 * share * resets_in / DAY).ceil();
        #[allow(clippy::cast_possible_truncation)]
        Meter { unit: Unit::Calls, cap: 10_000, left, kept: kept as i64, kept_share: share, resets_in, returns: Vec::new() }
    }

    fn credits(left: i64, share: f64, returns: Vec<(f64, f64)>) -> Meter {
        #[allow(clippy::cast_possible_truncation)]
        let kept = (50_000.0 * share) as i64;
        Meter { unit: Unit::Credits, cap: 50_000, left, kept, kept_share: share, resets_in: 0.0, returns }
    }

    #[test]
    fn the_end_follows_from_what_is_scarcest() {
        use Bottleneck::{Credits, Day, InFlight, Minute};
        let few_flights = Pace { in_flight: 1, answer_seconds: 3.0, ..pace(None) };
        let blocked = Pace { wait_seconds: 1_800.0, ..pace(None) };
        let calls = |calls: f64| Work { calls, units: calls };
        // (what, work, pace, seconds if others need nothing, if they need all that is kept, what holds it up then)
        let table = [
            ("nothing", calls(0.0), pace(None), Some(0.0), Some(0.0), Minute),
            ("a minute's", calls(100.0), pace(None), Some(61.5), Some(61.5), Minute),
            ("an hour's", calls(6_000.0), pace(None), Some(3_690.0), Some(3_690.0), Minute),
            ("one at a time", calls(100.0), few_flights, Some(300.0), Some(300.0), InFlight),
            ("after a block", calls(100.0), blocked, Some(1_861.5), Some(1_861.5), Minute),
            ("within the lane's share", calls(8_000.0), pace(Some(day(10_000, 0.2, DAY))), Some(4_920.0), Some(4_920.0), Minute),
            // 8,000 at once, the rest as it is set free: half of the 2,000 kept at half of the day; or tomorrow
            ("beyond it", calls(9_000.0), pace(Some(day(10_000, 0.2, DAY))), Some(12.0 * HOUR), Some(DAY + 615.0), Day),
            // 5,000 today, 5,000 of each day after
            (
                "a backfill over days",
                calls(14_000.0),
                pace(Some(day(10_000, 0.5, DAY))),
                Some(DAY + 4_000.0 * 0.615),
                Some(2.0 * DAY + 2_460.0),
                Day,
            ),
            // an hour before midnight little is kept: 100 of 2,000 x 1/24
            (
                "late in the day",
                calls(150.0),
                pace(Some(day(200, 0.2, HOUR))),
                Some(HOUR * (1.0 - 50.0 / 84.0)),
                Some(HOUR + 34.0 * 0.615),
                Day,
            ),
            ("a spent day", calls(100.0), pace(Some(day(0, 0.2, 6.0 * HOUR))), Some(6.0 * HOUR + 61.5), Some(6.0 * HOUR + 61.5), Day),
            // ten credits a call
            (
                "credits enough",
                Work { calls: 2_000.0, units: 20_000.0 },
                pace(Some(credits(50_000, 0.5, vec![]))),
                Some(1_230.0),
                Some(1_230.0),
                Minute,
            ),
            // 10,000 are free, 10,000 come back in two hours
            (
                "credits that come back",
                Work { calls: 2_000.0, units: 20_000.0 },
                pace(Some(credits(35_000, 0.5, vec![(2.0 * HOUR, 10_000.0)]))),
                Some(2.0 * HOUR),
                Some(2.0 * HOUR),
                Credits,
            ),
            // 25,000 at once; the next when these are 24.5 hours old
            (
                "credits over days",
                Work { calls: 5_000.0, units: 50_000.0 },
                pace(Some(credits(50_000, 0.5, vec![]))),
                Some(COMES_BACK),
                Some(COMES_BACK),
                Credits,
            ),
        ];
        for (what, work, pace, idle, busy, bottleneck) in table {
            for (others, expected) in [(Others::Idle, idle), (Others::Busy, busy)] {
                let found = finish(work, &pace, others);
                let near = match (found.seconds, expected) {
                    // a step is a quarter of an hour, so what waits for something is known to a quarter of an hour
                    (Some(found), Some(expected)) => (found - expected).abs() <= if bottleneck == Minute { 1.0 } else { 2.0 * STEP },
                    (found, expected) => found == expected,
                };
                assert!(near, "{what}, {others:?}: {found:?} instead of {expected:?}");
                assert_eq!(found.bottleneck, bottleneck, "{what}, {others:?}");
            }
        }
    }

    #[test]
    fn what_never_ends_has_no_date() {
        let never = finish(Work { calls: 1e9, units: 1e9 }, &pace(Some(day(10_000, 0.5, DAY))), Others::Idle);
        assert_eq!(never.seconds, None);
        let spent = Meter { left: 0, kept: 0, cap: 1, ..credits(0, 0.5, vec![]) };
        assert_eq!(finish(Work { calls: 10.0, units: 10.0 }, &pace(Some(spent)), Others::Busy).seconds, None);
    }

    #[test]
    fn more_work_never_ends_earlier_and_no_day_exceeds_its_calls() {
        // seconds that no binary fraction is equal to
        let resets = [10.0 * HOUR, 70_593.732_171, 0.1, 86_399.9];
        for (share, resets_in) in [0.0, 0.2, 0.5].into_iter().flat_map(|share| resets.map(|resets_in| (share, resets_in))) {
            for others in [Others::Idle, Others::Busy] {
                let mut before = 0.0;
                for thousand in 1..60 {
                    let calls = f64::from(thousand) * 1_000.0;
                    let end = finish(Work { calls, units: calls }, &pace(Some(day(10_000, share, resets_in))), others)
                        .seconds
                        .unwrap_or(f64::MAX);
                    assert!(end >= before, "{calls} calls end at {end}, fewer at {before} ({share}, {others:?})");
                    let days = if end <= resets_in { 0.0 } else { ((end - resets_in) / DAY).floor() + 1.0 };
                    assert!(calls <= 10_000.0 * (days + 1.0), "{calls} calls within {days} midnights ({share}, {others:?})");
                    before = end;
                }
            }
        }
    }
}
