//! The admin API: what the simulator has, what it saw, and how it is broken while it runs. No token is needed; it
//! is for tests on one machine and must never be reachable from elsewhere.
//!
//! Bodies and answers are JSON; a mistake is answered 400 or 404 with `{"error": "…"}`. Admin calls are neither
//! logged nor counted nor subject to faults.
//!
//! | call | does |
//! |---|---|
//! | `GET /admin/health` | `{"ok": true}` |
//! | `GET /admin/state?product=billing&module=customers[&organization=ID]` | `{"records": […]}`: every record as a single read answers it, oldest first; events have their payload |
//! | `GET /admin/state` (or with only `product`) | `{"counts": {"billing": {"customers": 2, …}, "crm": {…}}}` |
//! | `GET /admin/log?since=N&limit=M&product=P&method=M&path=PREFIX` | `{"requests": […], "next": N}`: oldest first, numbers above `since`, at most `limit` (1000); ask again with `since=next` until it is empty |
//! | `GET /admin/stats[?window_ms=W]` | counts and breaches, see below; `window_ms` defaults to the scaled minute |
//! | `POST /admin/reset[?what=log]` | forgets all records, faults, settings and what was seen; `what=log` only what was seen. Credentials and tokens stay |
//! | `GET /admin/faults` | `{"faults": [{"id": 1, "kind": …}], "outages": {…}}` |
//! | `POST /admin/faults` | a fault, or a list of them, with the keys of [`crate::scenario`]; answers `{"ids": […]}` |
//! | `DELETE /admin/faults`, `DELETE /admin/faults/ID` | all (and all outages), or one |
//! | `POST /admin/outage` | `{"product": "billing", "on": true, "mode": "unavailable"}`; modes `unavailable` (503), `drop`, `timeout` |
//! | `POST /admin/clock` | `{"time_scale": 10}` |
//! | `POST /admin/settings` | any part of a scenario but `seed`, `faults`, `crm.modules`, `crm.fields`: `{"latency_ms": [0, 0], "finance": {"per_minute": 50}}` |
//! | `GET /admin/settings` | the scenario as it is now |
//! | `POST /admin/fields` | a CRM field, or a list of them, with the keys of [`crate::CrmField`] |
//! | `PUT /admin/records` | as a person in Zoho: `{"product": "crm", "module": "Contacts", "id": "…", "record": {…}}`, without `id` a new one, unchecked; Billing also `organization`. Answers `{"record": {…}}` |
//! | `DELETE /admin/records?product=P&module=M&id=ID[&organization=ID]` | deletes it, unchecked |
//! | `GET /admin/oauth` | `{"client_id": …, "client_secret": …, "refresh_token": …}` |
//! | `POST /admin/oauth/codes`, `POST /admin/oauth/refresh-tokens` | `{"code": …}`, `{"refresh_token": …}` |
//! | `POST /admin/oauth/revoke` | `{"refresh_token": "…"}`; absent: the first one |
//! | `POST /admin/oauth/expire` | ends every access token; `{"expired": N}` |
//! | `GET /admin/operations` | the table of what is understood |
//!
//! A request in the log: `number, arrived_us` (microseconds since 1970, when its headers were complete),
//! `arrived_at, method, path, query, product, scope, operation` (path template, or null), `status` (null: closed or
//! not yet answered), `latency_us, fault` (kind, `outage`, or null), `committed` (a write that took effect), `ids`.
//!
//! The statistics: `requests`, `commits`, `window_ms`; `scopes`, by `finance:<organisation>`, `crm`, `oauth`,
//! each with `calls, most_in_window` (arrivals in any half-open window, refused ones too), `in_flight,
//! most_in_flight`; `crm` with `credits` of the last 24 hours, `most_credits`, `most_heavy_in_flight`; `tokens` with `minted, minted_at_us, most_in_window` (per refresh token), `window_ms,
//! throttled`; `violations`, counts of `rate, during_block, day, in_flight, heavy_in_flight, credits, organization, unknown_operation,
//! unknown_parameter` whether or not they were refused, and `violation_list` with the first thousand;
//! `refusals` by `product:code`; `faults` by kind; `unknown_operations` and `unknown_parameters`; `ignored_fields`
//! by `module.field`: keys that were sent and that Zoho drops silently.

use serde_json::{Map, Value, json};

use crate::{
    billing,
    exchange::{Answer, Request},
    faults::{FaultSpec, Outage},
    operations::OPERATIONS,
    scenario::{CrmField, Scenario},
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
        ("GET", ["state"]) => records(&state, request),
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
        ("POST", ["settings" | "clock"]) => change_settings(&mut state, request),
        ("POST", ["fields"]) => set_fields(&mut state, request),
        ("PUT", ["records"]) => put_record(&mut state, request),
        ("DELETE", ["records"]) => delete_record(&mut state, request),
        ("GET", ["oauth"]) => Ok(credentials(&state)),
        ("POST", ["oauth", what]) => oauth(&mut state, what, request),
        ("GET", ["operations"]) => Ok(table()),
        _ => Err(Mistake(404, format!("no admin call {} {}", request.method, request.path))),
    };
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

fn records(state: &State, request: &Request) -> Outcome {
    let organization = request.query("organization");
    let organizations = || state.billing.iter().filter(move |(id, _)| organization.is_none_or(|wanted| wanted == id.as_str()));
    let Some(module) = request.query("module") else {
        let count = |module: &&str| {
            let count: usize = organizations().filter_map(|(_, one)| one.all(module)).map(|rows| rows.len()).sum();
            ((*module).to_owned(), count.into())
        };
        let billing: Map<String, Value> = billing::MODULES.iter().map(count).collect();
        let crm: Map<String, Value> =
            state.crm.module_names().into_iter().map(|name| (name.to_owned(), state.crm.count(name).into())).collect();
        return Ok(json!({ "counts": { "billing": billing, "crm": crm } }));
    };
    match request.query("product") {
        Some("billing") if billing::MODULES.contains(&module) => {
            let rows: Vec<_> = organizations().filter_map(|(_, one)| one.all(module)).flatten().collect();
            Ok(json!({ "records": rows }))
        }
        Some("crm") => match state.crm.all(module, state.zone()) {
            Some(rows) => Ok(json!({ "records": rows })),
            None => Err(Mistake(404, format!("no CRM module {module}"))),
        },
        Some("billing") => Err(Mistake(404, format!("no Billing module {module}"))),
        _ => Err(mistake("`product` must be billing or crm")),
    }
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

fn set_outage(state: &mut State, request: &Request) -> Outcome {
    let body = body(request)?;
    let product = match body.get("product").and_then(Value::as_str) {
        Some(product @ ("billing" | "crm" | "oauth")) => product,
        _ => return Err(mistake("`product` must be billing, crm or oauth")),
    };
    let on = body.get("on").and_then(Value::as_bool).ok_or_else(|| mistake("`on` must be true or false"))?;
    let mode = match body.get("mode") {
        None => Outage::Unavailable,
        Some(mode) => serde_json::from_value(mode.clone()).map_err(|error| mistake(error.to_string()))?,
    };
    state.faults.set_outage(product, on.then_some(mode));
    Ok(json!({}))
}

fn change_settings(state: &mut State, request: &Request) -> Outcome {
    let change = Value::Object(body(request)?);
    let fixed = ["/seed", "/faults", "/crm/modules", "/crm/fields"];
    if let Some(path) = fixed.iter().find(|path| change.pointer(path).is_some()) {
        return Err(mistake(format!("{} cannot be changed here", path.trim_start_matches('/').replace('/', "."))));
    }
    let mut settings = serde_json::to_value(&state.scenario).map_err(|error| mistake(error.to_string()))?;
    merge(&mut settings, change);
    let scenario: Scenario = serde_json::from_value(settings).map_err(|error| mistake(error.to_string()))?;
    scenario.validate().map_err(|error| mistake(error.to_string()))?;
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

fn put_record(state: &mut State, request: &Request) -> Outcome {
    let mut body = body(request)?;
    let Some(Value::Object(record)) = body.remove("record") else {
        return Err(mistake("`record` must be an object"));
    };
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let (module, id, zone) = (text("module").unwrap_or_default(), text("id"), state.zone());
    let stored = match text("product") {
        Some("billing") => {
            let organization = text("organization").unwrap_or_else(|| only_organization(state)).to_owned();
            if organization.is_empty() {
                return Err(mistake("`organization` is needed while there is none, or several"));
            }
            let billing = state.billing.entry(organization).or_default();
            billing.put_by_hand(module, id, record, zone, &mut state.ids).map(Value::Object)
        }
        Some("crm") => state.crm.put_by_hand(module, id, record, zone, &mut state.ids),
        _ => return Err(mistake("`product` must be billing or crm")),
    };
    match stored {
        Some(record) => Ok(json!({ "record": record })),
        None => Err(Mistake(404, "no such module or record".to_owned())),
    }
}

/// The organisation, if there is exactly one.
fn only_organization(state: &State) -> &str {
    match (state.billing.len(), state.billing.keys().next()) {
        (1, Some(id)) => id,
        _ => "",
    }
}

fn delete_record(state: &mut State, request: &Request) -> Outcome {
    let get = |name: &str| request.query(name).unwrap_or_default();
    let deleted = match get("product") {
        "billing" => {
            let organization = request.query("organization").unwrap_or_else(|| only_organization(state)).to_owned();
            let billing = state.billing.get_mut(&organization);
            billing.is_some_and(|billing| billing.delete_by_hand(get("module"), get("id")))
        }
        "crm" => state.crm.delete_by_hand(get("module"), get("id")),
        _ => return Err(mistake("`product` must be billing or crm")),
    };
    if deleted { Ok(json!({})) } else { Err(Mistake(404, "no such module or record".to_owned())) }
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
