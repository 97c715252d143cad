//! Wall-clock time in the shapes Zoho prints, and the scale by which every window is shortened.
//!
//! Must never be used to order requests: that is what the monotonic `Instant` of their arrival is for.

use std::time::{Duration, Instant};

use chrono::{DateTime, FixedOffset, NaiveDate, Offset as _, SecondsFormat, TimeDelta, Utc};

/// Microseconds since the Unix epoch, now.
pub(crate) fn now_us() -> i64 {
    Utc::now().timestamp_micros()
}

/// Zoho's calendar clock: what its timestamps, expiries and days are read from. It starts at the real time, may run
/// faster, be set forward, and stand still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    since: Instant,
    at: DateTime<Utc>,
    speed: f64,
    frozen: bool,
}

impl Clock {
    pub(crate) fn new(speed: f64) -> Self {
        Self { since: Instant::now(), at: Utc::now(), speed, frozen: false }
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        if self.frozen {
            return self.at;
        }
        let passed = Duration::try_from_secs_f64(self.since.elapsed().as_secs_f64() * self.speed).unwrap_or(Duration::ZERO);
        self.at + TimeDelta::from_std(passed).unwrap_or_default()
    }

    /// How many seconds of Zoho's pass in a real one from now on.
    pub(crate) fn set_speed(&mut self, speed: f64) {
        self.at = self.now();
        self.since = Instant::now();
        self.speed = speed;
    }

    pub(crate) fn freeze(&mut self, frozen: bool) {
        self.at = self.now();
        self.since = Instant::now();
        self.frozen = frozen;
    }

    /// Sets the clock forward; it cannot be set back, as time at Zoho cannot.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.at += TimeDelta::from_std(by).unwrap_or_default();
    }
}

/// The zone of the simulated organisation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zone(FixedOffset);

impl Zone {
    /// Minutes east of UTC; out of range (a day or more) means UTC.
    pub(crate) fn from_minutes(minutes: i32) -> Self {
        Self(FixedOffset::east_opt(minutes.saturating_mul(60)).unwrap_or(Utc.fix()))
    }

    /// `2026-06-09T13:16:45-0400`: the finance products' form, without a colon in the offset
    /// (Zoho finance fact: recorded exchanges, June 2026).
    pub(crate) fn finance_time(self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.0).format("%Y-%m-%dT%H:%M:%S%z").to_string()
    }

    /// `2026-06-09T13:16:45-04:00`: the CRM's form, seconds with a colon in the offset.
    pub(crate) fn crm_time(self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.0).to_rfc3339_opts(SecondsFormat::Secs, false)
    }

    /// The date in the organisation at this moment.
    pub(crate) fn date(self, at: DateTime<Utc>) -> NaiveDate {
        at.with_timezone(&self.0).date_naive()
    }

    /// Seconds until the organisation's next midnight, when the daily counter starts again.
    pub(crate) fn seconds_to_midnight(self, now: DateTime<Utc>) -> i64 {
        let now = now.with_timezone(&self.0);
        let midnight = (now.date_naive() + chrono::Days::new(1)).and_time(chrono::NaiveTime::MIN);
        (midnight - now.naive_local()).num_seconds().max(1)
    }
}

/// A length of time as it passes here: `seconds` of Zoho's, divided by the scale.
pub(crate) fn scaled(seconds: f64, time_scale: f64) -> Duration {
    Duration::try_from_secs_f64(seconds / time_scale).unwrap_or(Duration::ZERO)
}

/// Cut to the second, which is all that Zoho keeps of a record's times (finance fact 2.5).
pub(crate) fn to_second(at: DateTime<Utc>) -> DateTime<Utc> {
    chrono::SubsecRound::trunc_subsecs(at, 0)
}

/// An ISO 8601 date-time with an offset, with or without its colon.
pub(crate) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%z"))
        .ok()
        .map(|at| at.with_timezone(&Utc))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::TimeDelta;

    use super::Clock;

    #[test]
    fn the_calendar_stands_still_when_frozen_and_is_only_set_forward() {
        let mut clock = Clock::new(1_000.0);
        clock.freeze(true);
        let then = clock.now();
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.now() - then, TimeDelta::seconds(90));
        clock.freeze(false);
        clock.set_speed(1e9);
        let later = clock.now();
        assert!(later - then >= TimeDelta::seconds(90));
        while clock.now() - later < TimeDelta::days(1) {}
    }
}
