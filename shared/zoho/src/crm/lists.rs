//! Lists: what changed, and what was deleted. Rows lack subforms and multi-select lookups (CRM sheet §2.1).

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;
use sluice_core::grant::Grant;

use super::{MAX_FIELDS, invalid, module_path};
use crate::classify::Effect;
use crate::client::{Outgoing, Reply};
use crate::cost::Cost;
use crate::{AccessToken, Answer, Client, Method, Product, Result};

/// Rows of a page.
pub const PER_PAGE: u32 = 200;
/// Most rows that can be reached by page number (CRM sheet §2.1).
pub const MAX_ROWS: u32 = 2000;

/// What a sorted list costs: one credit, and a place in the pool of heavy calls (CRM sheet §6).
pub const LIST_COST: Cost = Cost { units: 1, heavy: true };
/// What a list of deleted records costs.
pub const DELETED_COST: Cost = Cost { units: 2, heavy: false };

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The rows, each with its `id`.
    pub rows: Vec<Value>,
    /// Whether another page follows.
    pub more: bool,
    /// What the next page may be asked for with, for a day: by number no row beyond [`MAX_ROWS`] can be reached.
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At<'a> {
    /// By its number, from 1.
    Page(u32),
    /// By the token in the page before; everything else must be as it was asked for then (CRM sheet §2.1).
    Token(&'a str),
}

/// Whether Zoho refused the token of a page, for its age or because it belongs to another request: the walk begins anew (CRM sheet §2.1).
pub fn refuses_token(error: &crate::Error) -> bool {
    matches!(error, crate::Error::Rejected(rejection) if matches!(rejection.code.as_str(), "EXPIRED_VALUE" | "TOKEN_BOUND_DATA_MISMATCH"))
}

/// Reads one page of the records modified since, the oldest change first. `since` absent: all records.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn modified(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    fields: &[&str],
    since: Option<DateTime<Utc>>,
    at: At<'_>,
) -> Result<Listing> {
    let path = match module_path(module) {
        Ok(path) if (1..=MAX_FIELDS).contains(&fields.len()) => path,
        Ok(_) => return Err(invalid(&grant, format!("1 to {MAX_FIELDS} fields, not {}", fields.len()))),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let query = [("fields", fields.join(",")), ("sort_by", "Modified_Time".to_owned()), ("sort_order", "asc".to_owned())];
    pages(grant, client, token, path, &query, since, at).await
}

/// Reads one page of the records deleted since: `id`, `type` (`recycle`, `permanent`), `deleted_time`. Zoho keeps them for 60 to 120 days
/// (CRM sheet §2.9).
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn deleted(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    since: Option<DateTime<Utc>>,
    page: u32,
) -> Result<Listing> {
    let path = match module_path(module) {
        Ok(path) => format!("{path}/deleted"),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    pages(grant, client, token, path, &[("type", "all".to_owned())], since, At::Page(page)).await
}

async fn pages(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    path: String,
    query: &[(&str, String)],
    since: Option<DateTime<Utc>>,
    at: At<'_>,
) -> Result<Listing> {
    let mut outgoing = Outgoing::new(Product::Crm, Method::Get, Effect::Read, path);
    outgoing.query.extend(query.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    outgoing.query.push(match at {
        At::Page(page) => ("page".to_owned(), page.max(1).to_string()),
        At::Token(token) => ("page_token".to_owned(), token.to_owned()),
    });
    outgoing.query.push(("per_page".to_owned(), PER_PAGE.to_string()));
    if let Some(since) = since {
        outgoing.headers.push(("if-modified-since", since.to_rfc3339_opts(SecondsFormat::Secs, false)));
    }
    let Answer { value: mut json, evidence } = client.send(grant, outgoing, token).await?.checked()?;
    // 204 and 304: nothing
    if json.is_null() {
        return Ok(Answer { value: Listing { rows: Vec::new(), more: false, next: None }, evidence });
    }
    let more = json.pointer("/info/more_records").and_then(Value::as_bool).unwrap_or(false);
    let next = json.pointer("/info/next_page_token").and_then(Value::as_str).filter(|token| !token.is_empty()).map(str::to_owned);
    match json.get_mut("data").map(Value::take) {
        Some(Value::Array(rows)) if rows.iter().all(|row| super::records::id(row).is_some()) => {
            Ok(Answer { value: Listing { rows, more, next }, evidence })
        }
        Some(_) => Err(Reply::unreadable(Effect::Read, evidence, "a row without id")),
        None => Err(Reply::unreadable(Effect::Read, evidence, "no data")),
    }
}
