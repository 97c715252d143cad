//! The figures that a test asks for after a run: the fullest window, the most in flight, the tokens minted.
//!
//! Worked out from the log when asked, from the monotonic times of arrival; nothing here is sampled.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::{
    clock::scaled,
    limits::{Flights, HEAVY},
    oauth::most_in_window,
    state::State,
};

/// What `/admin/stats` answers; without a window's length, Zoho's minute as it passes here.
pub(crate) fn collect(state: &State, flights: &Flights, window_ms: Option<u64>) -> Value {
    let window = window_ms.map_or_else(|| state.minute(), Duration::from_millis);
    let mut arrivals: BTreeMap<&str, Vec<Instant>> = BTreeMap::new();
    for entry in state.log.entries() {
        arrivals.entry(&entry.scope).or_default().push(entry.arrived);
    }
    let scopes: Map<String, Value> = arrivals
        .into_iter()
        .map(|(scope, times)| {
            let flight = flights.get(scope);
            let row = json!({
                "calls": times.len(),
                "most_in_window": most_in_window(times, window),
                "in_flight": flight.now,
                "most_in_flight": flight.most,
            });
            (scope.to_owned(), row)
        })
        .collect();
    let mint_window = scaled(state.scenario.oauth.mint_window_seconds, state.scenario.time_scale);
    let mut stats = state.log.to_json();
    stats["window_ms"] = u64::try_from(window.as_millis()).unwrap_or(u64::MAX).into();
    stats["scopes"] = Value::Object(scopes);
    let (credits, most_credits) = state.limits.credits();
    stats["crm"] = json!({ "credits": credits, "most_credits": most_credits, "most_heavy_in_flight": flights.get(HEAVY).most });
    stats["tokens"] = state.accounts.statistics(mint_window);
    stats["deliveries"] = state.outgoing.counts();
    stats["faults"] = json!(state.faults.applied());
    stats
}
