//! What Zoho meters per organisation: calls in a sliding minute, calls in flight, calls per day.
//!
//! Sees every request the moment its headers are complete, records every excess, and refuses it if the scenario
//! says so. Must never forget an excess because it did not refuse it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;

use crate::{
    clock::{Zone, scaled},
    exchange::{Answer, Request},
    scenario::Scenario,
};

/// The counters of one scope: a finance organisation, the CRM organisation, or the accounts server.
#[derive(Debug, Default)]
struct Window {
    recent: VecDeque<Instant>,
    blocked_until: Option<Instant>,
    day: Option<NaiveDate>,
    calls_today: u64,
}

/// CRM's credits of the last 24 hours, and the most there ever were.
#[derive(Debug, Default)]
struct Credits {
    spent: VecDeque<(Instant, u64)>,
    sum: u64,
    most: u64,
}

/// All scopes' counters.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    windows: BTreeMap<String, Window>,
    credits: Credits,
}

/// An excess that was seen; recorded whether or not it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Excess {
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

/// What the limits say about one arrival.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) excesses: Vec<Excess>,
    pub(crate) refusal: Option<Answer>,
}

impl Limits {
    /// Counts a finance call that arrived now.
    ///
    /// Finance facts 3.1 and 3.2: 100 a minute per organisation, else code 44 and a block; per day, else 45;
    /// in process, else 1070. The true trigger of the block is looser than documented; here it is exact.
    pub(crate) fn finance(
        &mut self,
        scope: &str,
        (arrived, now): (Instant, DateTime<Utc>),
        in_flight: usize,
        scenario: &Scenario,
    ) -> Verdict {
        let rules = &scenario.finance;
        let window = self.windows.entry(scope.to_owned()).or_default();
        let length = scaled(60.0, scenario.time_scale);
        let mut verdict = Verdict::default();
        window.count_day(Zone::from_minutes(scenario.utc_offset_minutes).date(now));
        window.forget_before(arrived, length);
        if let Some(until) = window.blocked_until.filter(|until| arrived < *until) {
            verdict.excesses.push(Excess { kind: "during_block", detail: scope.to_owned() });
            verdict.refusal = Some(blocked(until - arrived));
            return verdict;
        }
        window.blocked_until = None;
        window.recent.push_back(arrived);
        if window.recent.len() > rules.per_minute {
            let detail = format!("{} calls within {} ms in {scope}", window.recent.len(), length.as_millis());
            verdict.excesses.push(Excess { kind: "rate", detail });
            if rules.block {
                let block = scaled(rules.block_seconds, scenario.time_scale);
                window.blocked_until = Some(arrived + block);
                verdict.refusal = Some(blocked(block));
                return verdict;
            }
        }
        if window.calls_today > rules.per_day {
            verdict.excesses.push(Excess { kind: "day", detail: format!("{} calls in {scope}", window.calls_today) });
            verdict.refusal = Some(day_spent(rules.per_day));
        } else if in_flight > rules.in_flight {
            verdict.excesses.push(Excess { kind: "in_flight", detail: format!("{in_flight} in {scope}") });
            verdict.refusal = rules.refuse_in_flight.then(too_many_in_process);
        }
        verdict
    }

    /// The daily headers of a finance answer (fact 3.3).
    pub(crate) fn finance_headers(&self, scope: &str, now: DateTime<Utc>, scenario: &Scenario) -> Vec<(&'static str, String)> {
        let used = self.windows.get(scope).map_or(0, |window| window.calls_today);
        let reset = Zone::from_minutes(scenario.utc_offset_minutes).seconds_to_midnight(now);
        vec![
            ("X-Rate-Limit-Limit", scenario.finance.per_day.to_string()),
            ("X-Rate-Limit-Remaining", scenario.finance.per_day.saturating_sub(used).to_string()),
            ("X-Rate-Limit-Reset", reset.to_string()),
        ]
    }

    /// Judges a CRM call by what is in flight (CRM facts 6: no Retry-After, one code for every throttle).
    pub(crate) fn crm(scope: &str, in_flight: usize, scenario: &Scenario) -> Verdict {
        let rules = &scenario.crm;
        let mut verdict = Verdict::default();
        if in_flight > rules.in_flight {
            verdict.excesses.push(Excess { kind: "in_flight", detail: format!("{in_flight} in {scope}") });
            verdict.refusal = rules.refuse_in_flight.then(too_many_requests);
        }
        verdict
    }
}

/// What a CRM call costs (CRM facts 6): credits, and whether it is one of the complex calls that share a pool.
fn weight(request: &Request) -> (u64, bool) {
    let records =
        request.json_object().and_then(|body| body.get("data").and_then(|data| data.as_array().map(Vec::len))).unwrap_or(0) as u64;
    let ids = request.query("ids").map_or(1, |ids| ids.split(',').count()) as u64;
    match request.method.as_str() {
        "POST" if request.path.ends_with("/coql") => (coql_credits(request), true),
        "POST" if request.path == "/crm/bulk/v8/read" => (50, false),
        "POST" | "PUT" => (records.div_ceil(10).max(1), records > 10),
        "DELETE" => (ids.div_ceil(100), false),
        "GET" if request.path.ends_with("/deleted") => (2, false),
        _ => (1, request.query("sort_by").is_some() || request.query("cvid").is_some()),
    }
}

/// What a COQL call costs by its limit: 1, 2 or 3 for up to 200, 1000 and 2000 rows (CRM fact 2.11).
fn coql_credits(request: &Request) -> u64 {
    let query = request.json_object().and_then(|body| Some(body.get("select_query")?.as_str()?.to_lowercase())).unwrap_or_default();
    let rows = query.rsplit_once(" limit ").and_then(|(_, limit)| limit.rsplit(',').next()?.trim().parse().ok()).unwrap_or(200_u64);
    match rows {
        0..=200 => 1,
        201..=1_000 => 2,
        _ => 3,
    }
}

impl Limits {
    /// Judges a CRM call by what it carries, which is known only when its body has been read. Whether a refused call costs its credits is not
    /// documented; here it does.
    pub(crate) fn crm_weight(&mut self, request: &Request, flights: &Flights, scenario: &Scenario) -> (Verdict, Option<InFlight>) {
        let rules = &scenario.crm;
        let (credits, heavy) = weight(request);
        let mut verdict = Verdict::default();
        let spent = self.credits.spend(request.arrived, credits, scaled(24.0 * 3600.0, scenario.time_scale));
        if spent > rules.credits {
            verdict.excesses.push(Excess { kind: "credits", detail: format!("{spent} of {}", rules.credits) });
            verdict.refusal = Some(too_many_requests());
        }
        let mut pool = None;
        if heavy {
            let (guard, count) = flights.enter(HEAVY);
            pool = Some(guard);
            if count > rules.heavy_in_flight {
                verdict.excesses.push(Excess { kind: "heavy_in_flight", detail: count.to_string() });
                verdict.refusal = rules.refuse_in_flight.then(too_many_requests).or(verdict.refusal);
            }
        }
        (verdict, pool)
    }

    /// The header of a CRM answer: sent once half of the credits are spent.
    pub(crate) fn crm_headers(&self, scenario: &Scenario) -> Option<(&'static str, String)> {
        let (spent, all) = (self.credits.sum, scenario.crm.credits);
        (spent * 2 >= all).then(|| ("X-API-CREDITS-REMAINING", all.saturating_sub(spent).to_string()))
    }

    /// Credits spent in the last 24 hours, and the most in any.
    pub(crate) fn credits(&self) -> (u64, u64) {
        (self.credits.sum, self.credits.most)
    }
}

impl Credits {
    fn spend(&mut self, now: Instant, credits: u64, length: Duration) -> u64 {
        while let Some((_, old)) = self.spent.pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= length) {
            self.sum -= old;
        }
        self.spent.push_back((now, credits));
        self.sum += credits;
        self.most = self.most.max(self.sum);
        self.sum
    }
}

impl Window {
    /// A window is half open: two calls exactly its length apart are not in one window.
    fn forget_before(&mut self, now: Instant, length: Duration) {
        while self.recent.front().is_some_and(|at| now.saturating_duration_since(*at) >= length) {
            self.recent.pop_front();
        }
    }

    fn count_day(&mut self, today: NaiveDate) {
        if self.day != Some(today) {
            self.day = Some(today);
            self.calls_today = 0;
        }
        self.calls_today += 1;
    }
}

/// Code 44, with what is left of the block in Retry-After.
pub(crate) fn blocked(left: Duration) -> Answer {
    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
    finance_refusal(&json!(44)).with_header("Retry-After", seconds.max(1).to_string())
}

fn day_spent(per_day: u64) -> Answer {
    let message = format!("The API call for this organization has exceeded the maximum call rate limit of {per_day}.");
    Answer::json(429, json!({ "code": 45, "message": message }))
}

fn too_many_in_process() -> Answer {
    finance_refusal(&json!(1070))
}

/// A finance product's 429 with one of its codes.
pub(crate) fn finance_refusal(code: &serde_json::Value) -> Answer {
    let message = match code.as_u64() {
        Some(45) => "The API call for this organization has exceeded the maximum call rate limit.",
        Some(1070) => "You have reached the maximum number of in process requests allowed. Kindly try again after some time.",
        _ => {
            "For security reasons your organization has been blocked as it have exceeded the maximum number of \
             requests per minute that can originate from an organization."
        }
    };
    Answer::json(429, json!({ "code": code, "message": message }))
}

/// The CRM's 429.
pub(crate) fn too_many_requests() -> Answer {
    let body = json!({
        "code": "TOO_MANY_REQUESTS", "details": {}, "status": "error",
        "message": "You have crossed the number of permitted requests. Please try again after some time."
    });
    Answer::json(429, body)
}

/// The scope of CRM's pool of complex calls.
pub(crate) const HEAVY: &str = "crm:heavy";

/// Calls in flight by scope, now and at most. Apart from the other state, because a call ends wherever its answer
/// is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flights(Arc<Mutex<BTreeMap<String, Flight>>>);

/// The count of one scope.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flight {
    pub(crate) now: usize,
    pub(crate) most: usize,
}

impl Flights {
    /// Counts a call until the returned guard is dropped.
    pub(crate) fn enter(&self, scope: &str) -> (InFlight, usize) {
        let mut scopes = self.lock();
        let flight = scopes.entry(scope.to_owned()).or_default();
        flight.now += 1;
        flight.most = flight.most.max(flight.now);
        (InFlight { flights: self.clone(), scope: scope.to_owned() }, flight.now)
    }

    pub(crate) fn get(&self, scope: &str) -> Flight {
        self.lock().get(scope).copied().unwrap_or_default()
    }

    /// Starts the maxima again at what is in flight now.
    pub(crate) fn reset(&self) {
        for flight in self.lock().values_mut() {
            flight.most = flight.now;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Flight>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call in flight.
#[derive(Debug)]
pub(crate) struct InFlight {
    flights: Flights,
    scope: String,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(flight) = self.flights.lock().get_mut(&self.scope) {
            flight.now = flight.now.saturating_sub(1);
        }
    }
}
