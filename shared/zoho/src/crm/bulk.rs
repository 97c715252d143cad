//! Bulk read: Zoho makes a file of a module's records, up to 200,000 rows for 50 credits (CRM sheet §3.1; "Bulk Read" in Zoho's v8 documentation).
//!
//! Three calls: one asks for the job, some ask how far it is, one reads the file. How the file writes values is not documented; see [`table`].

pub mod table;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use sluice_core::grant::Grant;

use super::invalid;
use crate::address::segment;
use crate::classify::{self, Body, Effect};
use crate::client::{Outgoing, Reply};
use crate::cost::Cost;
use crate::finance::File;
use crate::{AccessToken, Answer, Client, Error, Failed, Method, Product, Result, mask};

/// What asking for a job costs; asking how far it is, and reading its file, cost a credit each (CRM sheet §6).
pub const COST: Cost = Cost { units: 50, heavy: false };
/// Largest file that is read, in bytes as it comes: 200,000 rows of twenty fields have some ten million.
pub const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
/// The path order of the bulk APIs is their own.
const BASE_PATH: &str = "/crm/bulk/v8";

/// What a job is to read.
#[derive(Debug, Clone, Copy)]
pub enum Query<'a> {
    /// The records of a module that were modified at this time or later.
    Since {
        /// API name of the module.
        module: &'a str,
        /// API names of fields; `id` is always there.
        fields: &'a [&'a str],
        /// To the second.
        since: DateTime<Utc>,
    },
    /// What did not fit into the job before, by the token that it gave; good for 24 hours.
    Following(&'a str),
}

/// A job that Zoho has taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Its id.
    pub id: String,
    /// When, by Zoho's clock. The file shows records as they were then, or some of them later.
    pub created_time: DateTime<Utc>,
}

/// How far a job is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Zoho is at it.
    Preparing,
    /// There is a file, for a day.
    Completed(Completed),
    /// There will be none.
    Failed {
        /// Zoho's code, masked.
        code: String,
    },
}

/// A file that can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completed {
    /// Its rows, as Zoho counts them.
    pub count: u64,
    /// There are records that did not fit.
    pub more: bool,
    /// What another job is asked for with then.
    pub next: Option<String>,
}

/// Asks for a job. Repeating it makes another one, which costs its credits and nothing else.
///
/// # Errors
/// [`Error`] with its evidence; `OutcomeUnknown` when there may be a job now.
pub async fn create(grant: Grant, client: &Client, token: &AccessToken, query: Query<'_>) -> Result<Created> {
    let query = match query {
        Query::Since { module, fields, since } => {
            if let Err(reason) = super::module_path(module) {
                return Err(invalid(&grant, reason));
            }
            json!({
                "module": {"api_name": module}, "fields": fields,
                "criteria": {"field": {"api_name": "Modified_Time"}, "comparator": "greater_equal",
                    "value": since.to_rfc3339_opts(SecondsFormat::Secs, false)},
            })
        }
        Query::Following(token) => json!({ "page_token": token }),
    };
    let body = json!({ "query": query, "file_type": "csv" });
    let body = if query.get("page_token").is_some() { json!({ "query": query }) } else { body };
    let outgoing = Outgoing { body: Some(&body), ..request(Method::Post, Effect::Create, "/read".to_owned()) };
    let reply = client.send(grant, outgoing, token).await?;
    if let Err(error) = classify::verdict(&reply.facts(), &reply.body) {
        return Err(Failed::new(error, reply.evidence));
    }
    let Body::Json(json) = &reply.body else {
        return Err(Reply::unreadable(Effect::Create, reply.evidence, "no job"));
    };
    let job = json.pointer("/data/0").unwrap_or(&Value::Null);
    if job.get("status").and_then(Value::as_str) == Some("error") {
        return Err(Failed::new(classify::element(&reply.facts(), job), reply.evidence));
    }
    let details = job.get("details").unwrap_or(&Value::Null);
    match (id(details), time(details)) {
        (Some(id), Some(created_time)) => Ok(Answer { value: Created { id, created_time }, evidence: reply.evidence }),
        _ => Err(Reply::unreadable(Effect::Create, reply.evidence, "no id, or no time, of a job")),
    }
}

/// Asks how far a job is.
///
/// # Errors
/// [`Error`] with its evidence; `NotFound` when Zoho has no such job (any more).
pub async fn state(grant: Grant, client: &Client, token: &AccessToken, job: &str) -> Result<State> {
    let path = match segment(job) {
        Ok(job) => format!("/read/{job}"),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let Answer { value: json, evidence } = client.send(grant, request(Method::Get, Effect::Read, path), token).await?.checked()?;
    let job = json.pointer("/data/0").unwrap_or(&Value::Null);
    let result = job.get("result").unwrap_or(&Value::Null);
    let value = match job.get("state").and_then(Value::as_str) {
        Some("COMPLETED") => {
            let Some(count) = result.get("count").and_then(Value::as_u64) else {
                return Err(Reply::unreadable(Effect::Read, evidence, "a file without the number of its rows"));
            };
            let next = result.get("next_page_token").and_then(Value::as_str).filter(|token| !token.is_empty());
            let more = result.get("more_records").and_then(Value::as_bool).unwrap_or(false);
            State::Completed(Completed { count, more, next: next.map(str::to_owned) })
        }
        Some("FAILURE" | "FAILED") => {
            let code = result.pointer("/error_message/code").and_then(Value::as_str).unwrap_or("no reason");
            State::Failed { code: mask::text(code) }
        }
        // ADDED, QUEUED, IN PROGRESS, and whatever else there may be: whoever waits has a limit of his own
        Some(_) => State::Preparing,
        None => return Err(Reply::unreadable(Effect::Read, evidence, "no state of a job")),
    };
    Ok(Answer { value, evidence })
}

/// Reads the file of a job: a ZIP, of at most [`MAX_FILE_BYTES`]. Zoho allows ten such calls a minute.
///
/// # Errors
/// [`Error`] with its evidence; `NotFound` when it is there no more, `Malformed` when the answer is no file.
pub async fn result(grant: Grant, client: &Client, token: &AccessToken, job: &str) -> Result<File> {
    let path = match segment(job) {
        Ok(job) => format!("/read/{job}/result"),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let outgoing = Outgoing { file: Some(MAX_FILE_BYTES), ..request(Method::Get, Effect::Read, path) };
    let reply = client.send(grant, outgoing, token).await?;
    if let Err(error) = classify::verdict(&reply.facts(), &reply.body) {
        return Err(Failed::new(error, reply.evidence));
    }
    match reply.body {
        Body::File(value) => Ok(Answer { value, evidence: reply.evidence }),
        _ => Err(Reply::unreadable(Effect::Read, reply.evidence, "no file")),
    }
}

/// Whether Zoho refused a bulk read for the scope that it needs, `ZohoCRM.bulk.READ`.
pub fn lacks_scope(error: &Error) -> bool {
    matches!(error, Error::Unauthorized { kind: crate::AuthKind::ScopeMismatch, .. })
}

fn request(method: Method, effect: Effect, path: String) -> Outgoing<'static> {
    Outgoing { base_path: BASE_PATH, ..Outgoing::new(Product::Crm, method, effect, path) }
}

fn id(details: &Value) -> Option<String> {
    match details.get("id")? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn time(details: &Value) -> Option<DateTime<Utc>> {
    let text = details.get("created_time")?.as_str()?;
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.with_timezone(&Utc))
}
