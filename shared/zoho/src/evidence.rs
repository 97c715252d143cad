//! What one request taught us about Zoho's limits and about itself, whatever its outcome: the ledger is corrected with it.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, HeaderName};

/// No header makes anybody wait for longer than this: a day and an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(25 * 3600);

/// A value that Zoho gave, and the evidence that came with it.
#[derive(Debug, Clone)]
pub struct Answer<T> {
    /// What was asked for.
    pub value: T,
    /// What the request showed.
    pub evidence: Evidence,
}

impl<T> Answer<T> {
    /// The same evidence with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Answer<U> {
        Answer { value: f(self.value), evidence: self.evidence }
    }
}

/// How far a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Certainly no byte of the request reached Zoho: the grant may go back to the ledger unused.
    Nothing,
    /// The request may have arrived; no status line came back.
    Maybe,
    /// Zoho, or something in front of it, answered with a status line.
    Answered,
}

/// What a request showed, in success and in failure.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// The ledger's number of the place that was consumed.
    pub place: i64,
    /// Whether bytes may have left.
    pub sent: Sent,
    /// The HTTP status, if one came.
    pub status: Option<u16>,
    /// From handing the request to the network until its answer was read (or it failed). Zero when nothing was sent.
    pub latency: Duration,
    /// When we were through with the answer, on this process's monotonic clock; `None` without a status line.
    pub answered_at: Option<Instant>,
    /// The limits that the answer's headers spoke of.
    pub limits: Limits,
}

/// Limits as Zoho's headers tell them. Absent headers are normal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Calls per day (`X-Rate-Limit-Limit`; Books and Inventory, each answer).
    pub day_limit: Option<i64>,
    /// Calls left today (`X-Rate-Limit-Remaining`).
    pub day_remaining: Option<i64>,
    /// Until the day's counter resets, midnight in the organisation's zone (`X-Rate-Limit-Reset`, seconds).
    pub day_resets_in: Option<Duration>,
    /// Calls per minute (`X-RateLimit-Limit`, no second hyphen; FSM).
    pub minute_limit: Option<i64>,
    /// Calls left in the minute (`X-RateLimit-Remaining`; FSM).
    pub minute_remaining: Option<i64>,
    /// CRM credits left of the rolling day (`X-API-CREDITS-REMAINING`), sent once half of them are spent.
    pub credits_remaining: Option<i64>,
    /// `Retry-After`, in seconds or as a date relative to `date`; at most 25 hours.
    pub retry_after: Option<Duration>,
    /// `Date`: Zoho's clock when it answered, to the second.
    pub date: Option<DateTime<Utc>>,
}

impl Evidence {
    /// Evidence of a request that never left.
    pub(crate) fn nothing_sent(place: i64) -> Self {
        Self { place, sent: Sent::Nothing, status: None, latency: Duration::ZERO, answered_at: None, limits: Limits::default() }
    }
}

impl Limits {
    /// Reads the headers of an answer; what is missing or unreadable is `None`.
    pub(crate) fn read(headers: &HeaderMap) -> Self {
        let date = text(headers, "date").and_then(http_date);
        Self {
            day_limit: number(headers, "x-rate-limit-limit"),
            day_remaining: number(headers, "x-rate-limit-remaining"),
            day_resets_in: number(headers, "x-rate-limit-reset").and_then(seconds),
            minute_limit: number(headers, "x-ratelimit-limit"),
            minute_remaining: number(headers, "x-ratelimit-remaining"),
            credits_remaining: number(headers, "x-api-credits-remaining"),
            retry_after: text(headers, "retry-after").and_then(|value| retry_after(value, date)),
            date,
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &'static str) -> Option<&'a str> {
    headers.get(HeaderName::from_static(name))?.to_str().ok().map(str::trim)
}

fn number(headers: &HeaderMap, name: &'static str) -> Option<i64> {
    text(headers, name)?.parse().ok()
}

fn seconds(count: i64) -> Option<Duration> {
    u64::try_from(count).ok().map(|count| Duration::from_secs(count).min(LONGEST_WAIT))
}

fn http_date(value: &str) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc2822(value).ok().map(|date| date.with_timezone(&Utc))
}

fn retry_after(value: &str, date: Option<DateTime<Utc>>) -> Option<Duration> {
    if let Ok(count) = value.parse::<i64>() {
        return seconds(count);
    }
    let wait = http_date(value)?.signed_duration_since(date?);
    Some(wait.to_std().unwrap_or(Duration::ZERO).min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(pairs: &[(&'static str, &'static str)]) -> Limits {
        let headers =
            pairs.iter().map(|(name, value)| (HeaderName::from_static(name), reqwest::header::HeaderValue::from_static(value))).collect();
        Limits::read(&headers)
    }

    #[test]
    fn the_days_headers_and_fsms_minute_headers_are_not_confused() {
        let finance = limits(&[("x-rate-limit-limit", "1000"), ("x-rate-limit-remaining", "917"), ("x-rate-limit-reset", "3600")]);
        assert_eq!((finance.day_limit, finance.day_remaining), (Some(1000), Some(917)));
        assert_eq!(finance.day_resets_in, Some(Duration::from_secs(3600)));
        assert_eq!(finance.minute_limit, None);
        let fsm = limits(&[("x-ratelimit-limit", "2500"), ("x-ratelimit-remaining", "2499")]);
        assert_eq!((fsm.minute_limit, fsm.minute_remaining), (Some(2500), Some(2499)));
        assert_eq!(fsm.day_limit, None);
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_a_date_and_never_exceeds_its_cap() {
        assert_eq!(limits(&[("retry-after", "1800")]).retry_after, Some(Duration::from_secs(1800)));
        let dated = limits(&[("date", "Tue, 09 Jun 2026 13:00:00 GMT"), ("retry-after", "Tue, 09 Jun 2026 13:01:30 GMT")]);
        assert_eq!(dated.retry_after, Some(Duration::from_secs(90)));
        assert_eq!(limits(&[("retry-after", "999999999")]).retry_after, Some(LONGEST_WAIT));
        for odd in ["", "-5", "soon"] {
            let headers = [(HeaderName::from_static("retry-after"), odd.parse().unwrap())];
            assert_eq!(Limits::read(&headers.into_iter().collect()).retry_after, None, "{odd}");
        }
    }
}
