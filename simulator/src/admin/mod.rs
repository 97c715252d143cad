#![doc = include_str!("../../ADMIN.md")]

mod records;

pub(crate) use records::{plant, rewrite};

use std::time::Duration;

use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use crate::{
    exchange::{Answer, Request},
    faults::{FaultSpec, Outage},
    operations::OPERATIONS,
    scenario::{CrmField, Scenario, Webhook},
    state::{Shared, State},
    stats,
};

/// Requests that one call of the log answers, unless fewer are asked for; also the most.
const MOST_LOGGED: usize = 1_000;

/// Why an admin call was refused.
struct Mistake(u16, String);

type Outcome = Result<Value, Mistake>;

fn mistake(message: impl Into<String>) -> Mistake {
    Mistake(400, message.into())
}

/// Carries out an admin call.
pub(crate) fn handle(shared: &Shared, request: &Request) -> Answer {
    let path: Vec<&str> = request.path.trim_matches('/').split('/').skip(1).collect();
    let mut state = shared.state();
    let outcome = match (request.method.as_str(), path.as_slice()) {
        ("GET", ["health"]) => Ok(json!({ "ok": true })),
        ("GET", ["state"]) => records::show(&state, request),
        ("GET", ["log"]) => Ok(log(&state, request)),
        ("GET", ["stats"]) => Ok(stats::collect(&state, &shared.flights, number(request, "window_ms"))),
        ("POST", ["reset"]) => {
            state.reset(request.query("what") != Some("log"), &shared.flights);
            Ok(json!({}))
        }
        ("GET", ["faults"]) => Ok(state.faults.to_json()),
        ("POST", ["faults"]) => set_faults(&mut state, request),
        ("DELETE", ["faults"]) => {
            state.faults.clear();
            Ok(json!({}))
        }
        ("DELETE", ["faults", id]) => match id.parse().is_ok_and(|id| state.faults.remove(id)) {
            true => Ok(json!({})),
            false => Err(Mistake(404, format!("no fault {id}"))),
        },
        ("POST", ["outage"]) => set_outage(&mut state, request),
        ("GET", ["settings"]) => serde_json::to_value(&state.scenario).map_err(|error| mistake(error.to_string())),
        ("POST", ["settings"]) => body(request).and_then(|change| change_settings(&mut state, change)),
        ("GET", ["clock"]) => Ok(clock(&state)),
        ("POST", ["clock"]) => set_clock(&mut state, request),
        ("POST", ["fields"]) => set_fields(&mut state, request),
        ("PUT", ["records"]) => records::put(&mut state, request),
        ("DELETE", ["records"]) => records::delete(&mut state, request),
        ("POST", ["seed"]) => records::seed(&mut state, request),
        ("GET", ["webhooks"]) => Ok(json!({ "webhooks": state.outgoing.webhooks() })),
        ("POST", ["webhooks"]) => set_webhooks(&mut state, request),
        ("DELETE", ["webhooks", number @ ..]) => remove_webhooks(&mut state, number),
        ("GET", ["deliveries"]) => Ok(deliveries(&state, request)),
        ("POST", ["forge"]) => forge(&mut state, request),
        ("GET", ["channels"]) => Ok(json!({ "channels": state.crm.channels(state.zone()) })),
        ("DELETE", ["channels"]) => Ok(json!({ "lost": state.crm.lose_channels(request.query("channel_id")) })),
        ("GET", ["oauth"]) => Ok(credentials(&state)),
        ("POST", ["oauth", what]) => oauth(&mut state, what, request),
        ("GET", ["operations"]) => Ok(table()),
        _ => Err(Mistake(404, format!("no admin call {} {}", request.method, request.path))),
    };
    state.tell();
    match outcome {
        Ok(body) => Answer::json(200, body),
        Err(Mistake(status, message)) => Answer::json(status, json!({ "error": message })),
    }
}

fn number(request: &Request, name: &str) -> Option<u64> {
    request.query(name).and_then(|text| text.parse().ok())
}

fn body(request: &Request) -> Result<Map<String, Value>, Mistake> {
    request.json_object().ok_or_else(|| mistake("the body must be a JSON object"))
}

fn log(state: &State, request: &Request) -> Value {
    let since = number(request, "since").unwrap_or(0);
    let limit = request.query("limit").and_then(|text| text.parse().ok()).unwrap_or(MOST_LOGGED).min(MOST_LOGGED);
    let fits = |name: &str, value: &str| request.query(name).is_none_or(|wanted| wanted == value);
    let prefix = request.query("path").unwrap_or_default();
    let found: Vec<_> = state
        .log
        .entries()
        .filter(|entry| entry.number > since && entry.path.starts_with(prefix))
        .filter(|entry| fits("product", entry.product) && fits("method", &entry.method))
        .take(limit)
        .collect();
    let next = found.last().map_or(since, |entry| entry.number);
    json!({ "requests": found.iter().map(|entry| entry.to_json()).collect::<Vec<_>>(), "next": next })
}

/// The body as one or several of a kind.
fn one_or_many<T: serde::de::DeserializeOwned>(request: &Request) -> Result<Vec<T>, Mistake> {
    let value: Value = serde_json::from_slice(&request.body).map_err(|error| mistake(error.to_string()))?;
    let values = match value {
        Value::Array(values) => values,
        one => vec![one],
    };
    let parsed = values.into_iter().map(|value| serde_json::from_value(value).map_err(|e| mistake(e.to_string())));
    parsed.collect()
}

fn set_faults(state: &mut State, request: &Request) -> Outcome {
    let faults: Vec<FaultSpec> = one_or_many(request)?;
    for fault in &faults {
        fault.validate().map_err(mistake)?;
    }
    let ids: Result<Vec<u64>, String> = faults.into_iter().map(|fault| state.faults.set(fault)).collect();
    Ok(json!({ "ids": ids.map_err(mistake)? }))
}

fn set_webhooks(state: &mut State, request: &Request) -> Outcome {
    let webhooks: Vec<Webhook> = one_or_many(request)?;
    for webhook in &webhooks {
        webhook.validate().map_err(mistake)?;
    }
    let ids: Vec<u64> = webhooks.into_iter().map(|webhook| state.outgoing.add(webhook)).collect();
    Ok(json!({ "ids": ids }))
}

fn remove_webhooks(state: &mut State, number: &[&str]) -> Outcome {
    let number = match number {
        [] => None,
        [number] => Some(number.parse().map_err(|_| mistake("a webhook has a number"))?),
        _ => return Err(Mistake(404, "no such admin call".to_owned())),
    };
    match state.outgoing.remove(number) {
        0 if number.is_some() => Err(Mistake(404, "no such webhook".to_owned())),
        count => Ok(json!({ "removed": count })),
    }
}

fn deliveries(state: &State, request: &Request) -> Value {
    let most = number(request, "limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(MOST_LOGGED).min(MOST_LOGGED);
    let (rows, next) = state.outgoing.list(number(request, "since").unwrap_or(0), most);
    json!({ "deliveries": rows, "next": next, "counts": state.outgoing.counts() })
}

fn forge(state: &mut State, request: &Request) -> Outcome {
    let asked = body(request)?;
    let now = state.clock.now();
    let number = state.outgoing.forge(&asked, &state.crm, now).map_err(mistake)?;
    Ok(json!({ "number": number }))
}

fn set_outage(state: &mut State, request: &Request) -> Outcome {
    let body = body(request)?;
    let product = match body.get("product").and_then(Value::as_str) {
        Some(product @ ("billing" | "inventory" | "crm" | "oauth")) => product,
        _ => return Err(mistake("`product` must be billing, inventory, crm or oauth")),
    };
    let on = body.get("on").and_then(Value::as_bool).ok_or_else(|| mistake("`on` must be true or false"))?;
    let mode = match body.get("mode") {
        None => Outage::Unavailable,
        Some(mode) => serde_json::from_value(mode.clone()).map_err(|error| mistake(error.to_string()))?,
    };
    state.faults.set_outage(product, on.then_some(mode));
    Ok(json!({}))
}

fn clock(state: &State) -> Value {
    let now = state.clock.now();
    json!({ "now": now.to_rfc3339_opts(SecondsFormat::Millis, true), "speed": state.scenario.speed, "time_scale": state.scenario.time_scale })
}

/// Freezes, thaws and advances Zoho's calendar; other keys are settings.
fn set_clock(state: &mut State, request: &Request) -> Outcome {
    let mut body = body(request)?;
    if let Some(frozen) = body.remove("frozen") {
        state.clock.freeze(frozen.as_bool().ok_or_else(|| mistake("`frozen` must be true or false"))?);
    }
    if let Some(seconds) = body.remove("advance_seconds") {
        let by = seconds.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        state.clock.advance(by.ok_or_else(|| mistake("`advance_seconds` must be a number of at least 0"))?);
    }
    if !body.is_empty() {
        change_settings(state, body)?;
    }
    Ok(clock(state))
}

fn change_settings(state: &mut State, change: Map<String, Value>) -> Outcome {
    let change = Value::Object(change);
    let fixed = ["/seed", "/faults", "/webhooks", "/records", "/crm/modules", "/crm/fields"];
    if let Some(path) = fixed.iter().find(|path| change.pointer(path).is_some()) {
        return Err(mistake(format!("{} cannot be changed here", path.trim_start_matches('/').replace('/', "."))));
    }
    let mut settings = serde_json::to_value(&state.scenario).map_err(|error| mistake(error.to_string()))?;
    merge(&mut settings, change);
    let scenario: Scenario = serde_json::from_value(settings).map_err(|error| mistake(error.to_string()))?;
    scenario.validate().map_err(|error| mistake(error.to_string()))?;
    if scenario.speed != state.scenario.speed {
        state.clock.set_speed(scenario.speed);
    }
    state.scenario = scenario;
    Ok(json!({}))
}

/// Puts the members of `change` over those of `settings`, objects within objects.
fn merge(settings: &mut Value, change: Value) {
    match (settings, change) {
        (Value::Object(settings), Value::Object(change)) => {
            for (key, value) in change {
                merge(settings.entry(key).or_insert(Value::Null), value);
            }
        }
        (settings, change) => *settings = change,
    }
}

fn set_fields(state: &mut State, request: &Request) -> Outcome {
    let fields: Vec<CrmField> = one_or_many(request)?;
    for field in fields {
        state.crm.set_field(field, &mut state.ids);
    }
    Ok(json!({}))
}

fn credentials(state: &State) -> Value {
    let credentials = state.accounts.credentials();
    json!({
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret,
        "refresh_token": credentials.refresh_token,
    })
}

fn oauth(state: &mut State, what: &str, request: &Request) -> Outcome {
    match what {
        "codes" => Ok(json!({ "code": state.accounts.new_code(state.scenario.time_scale, &mut state.ids) })),
        "refresh-tokens" => Ok(json!({ "refresh_token": state.accounts.new_refresh_token(&mut state.ids) })),
        "expire" => Ok(json!({ "expired": state.accounts.expire_access_tokens() })),
        "revoke" => {
            let given = request.json_object().unwrap_or_default();
            let first = state.accounts.credentials().refresh_token.clone();
            let token = given.get("refresh_token").and_then(Value::as_str).unwrap_or(&first);
            match state.accounts.revoke(token) {
                true => Ok(json!({})),
                false => Err(Mistake(404, "no such refresh token".to_owned())),
            }
        }
        other => Err(Mistake(404, format!("no admin call for {other}"))),
    }
}

fn table() -> Value {
    let row = |operation: &crate::Operation| {
        json!({
            "method": operation.method,
            "path": operation.path,
            "query": operation.query,
            "source": operation.source,
        })
    };
    json!({ "operations": OPERATIONS.iter().map(row).collect::<Vec<_>>() })
}
