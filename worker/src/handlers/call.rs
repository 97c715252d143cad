//! `call`: any Zoho request under the shared budget. Only a GET is repeated after an unknown outcome.

use serde::Deserialize;
use serde_json::{Map, Value};
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_zoho::cost::Cost;
use sluice_zoho::{Error, Method, Product, call, mask};

use super::{all, ended};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::work::{CallResult, Handled, Work};

#[derive(Deserialize)]
struct Args {
    product: String,
    method: String,
    path: String,
    #[serde(default)]
    query: Map<String, Value>,
    body: Option<Value>,
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    // The shape carries one job a batch.
    let [slot] = work.batch.slots.as_slice() else {
        return all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    };
    if let Some(letter) = engine.policy.exhausted(slot) {
        return all(work, |_| Outcome::Dead(Box::new(letter.clone())));
    }
    let request = match read(slot) {
        Ok(request) => request,
        Err(problem) => return all(work, |_| Outcome::Dead(Box::new(Letter::new(Class::Payload, problem.clone())))),
    };
    let method = request.method;
    let summary = serde_json::json!({"method": method.as_str(), "path": request.path, "body": request.body.as_ref().map(mask::excerpt)});
    let cost = Cost::of(request.product, method, &request.path, &request.query, request.body.as_ref());
    let answer = session.call_costing(cost, async |grant, client, token| call::send(grant, client, token, &request).await).await;
    let mut handled = Handled::default();
    let outcome = match answer {
        Ok(body) => {
            let result = slot.job_id.map(|job_id| CallResult { job_id, http_status: 200, body });
            handled.call_result = result;
            Outcome::Done { reason: None }
        }
        Err(Ended::Zoho(error, _)) if method != Method::Get && matches!(*error, Error::OutcomeUnknown { .. }) => Outcome::Dead(Box::new(
            Letter::new(Class::Unknown, error.to_string()).hint("look in Zoho whether it was carried out, then requeue or discard"),
        )),
        Err(failure) => ended(engine, work, session, slot, &failure, false).0,
    };
    handled.settlements.push(Settlement { request: Some(summary), calls: work.calls.made(), ..Settlement::new(slot.id, outcome) });
    handled
}

fn read(slot: &Claimed) -> Result<call::Request, String> {
    let args = slot.args.clone().ok_or("the job has no arguments")?;
    let args: Args = serde_json::from_value(args).map_err(|e| e.to_string())?;
    let query = args.query.into_iter().map(|(name, value)| match value {
        Value::String(text) => Ok((name, text)),
        Value::Number(number) => Ok((name, number.to_string())),
        Value::Bool(flag) => Ok((name, flag.to_string())),
        Value::Null | Value::Array(_) | Value::Object(_) => Err(format!("query.{name} must be a string, a number or a boolean")),
    });
    Ok(call::Request {
        product: args.product.parse::<Product>().map_err(|_| format!("unknown product {}", args.product))?,
        method: args.method.parse::<Method>().map_err(|_| format!("unknown method {}", args.method))?,
        path: args.path,
        query: query.collect::<Result<_, _>>()?,
        body: args.body,
    })
}
