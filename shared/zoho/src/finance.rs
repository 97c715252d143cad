//! Billing v1, Books v3 and Inventory v1: thin functions over JSON bodies, typed where it matters (which module, which record, did it happen).
//!
//! Bodies and answers are [`Value`]s with exact numbers; what belongs into them is the mapping's business, never this module's.

mod file;
mod module;

pub use file::{File, file};
pub use module::{Changes, Module};

use serde_json::Value;
use sluice_core::grant::Grant;

use crate::address::segment;
use crate::classify::Effect;
use crate::client::{Outgoing, Reply, not_sent};
use crate::{AccessToken, Answer, Client, Method, NotSent, Result};

/// Most rows of a page, and Zoho's default.
pub const MAX_PER_PAGE: u32 = 200;

/// One record and how it is addressed.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The id (for plans the code), as text.
    pub id: String,
    /// The record as Zoho answered it, without the envelope.
    pub value: Value,
}

/// Which page of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// From 1.
    pub page: u32,
    /// At most [`MAX_PER_PAGE`]; more is lowered to it.
    pub per_page: u32,
}

impl Page {
    /// The first page, as large as it can be.
    pub const FIRST: Self = Self { page: 1, per_page: MAX_PER_PAGE };

    /// The page after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self { page: self.page + 1, ..self }
    }
}

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The rows; lists show fewer fields than single records.
    pub rows: Vec<Value>,
    /// Whether another page follows.
    pub more: bool,
    /// `page_context.applied_filter`. Zoho has been seen to ignore a `filter_by`; compare, and check the rows.
    pub applied_filter: Option<String>,
}

/// Creates a record.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence; `OutcomeUnknown` when it may exist now.
pub async fn create(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: Module,
    body: &Value,
    query: &[(&str, &str)],
) -> Result<Record> {
    let request = request(module, Method::Post, Effect::Create, &[], query, Some(body));
    one(grant, client, token, module, request).await
}

/// Updates a record; fields left out keep their value, lists (`invoice_items`) are replaced as a whole.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence. Repeating the same update after `OutcomeUnknown` gives the same record.
pub async fn update(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: Module,
    id: &str,
    body: &Value,
    query: &[(&str, &str)],
) -> Result<Record> {
    let request = request(module, Method::Put, Effect::Change, &[id], query, Some(body));
    one(grant, client, token, module, request).await
}

/// Reads a record.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence; `NotFound` when there is none.
pub async fn get(grant: Grant, client: &Client, token: &AccessToken, module: Module, id: &str) -> Result<Record> {
    let request = request(module, Method::Get, Effect::Read, &[id], &[], None);
    one(grant, client, token, module, request).await
}

/// Reads one page of a list. `filters` are Zoho's query parameters: `customer_id`, `filter_by`, `reference_contains`, …
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn list(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: Module,
    page: Page,
    filters: &[(&str, &str)],
) -> Result<Listing> {
    let mut outgoing = request(module, Method::Get, Effect::Read, &[], filters, None);
    if let Ok(outgoing) = &mut outgoing {
        outgoing.query.push(("page".to_owned(), page.page.max(1).to_string()));
        outgoing.query.push(("per_page".to_owned(), page.per_page.clamp(1, MAX_PER_PAGE).to_string()));
    }
    let Answer { value: mut json, evidence } = whole(grant, client, token, outgoing).await?;
    let Some(Value::Array(rows)) = json.get_mut(module.list_key()).map(Value::take) else {
        return Err(Reply::unreadable(Effect::Read, evidence, "no list"));
    };
    let more = json.pointer("/page_context/has_more_page").and_then(Value::as_bool).unwrap_or(false);
    let applied_filter = json.pointer("/page_context/applied_filter").and_then(Value::as_str).map(str::to_owned);
    Ok(Answer { value: Listing { rows, more, applied_filter }, evidence })
}

/// Most records that [`details`] reads. Zoho documents no limit; clients keep to this one (finance sheet §5.3).
pub const MAX_DETAILS: usize = 100;

/// Reads up to [`MAX_DETAILS`] items with all their fields in one call. An id that is missing in the answer is deleted.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence; a module without such a request is refused unsent.
pub async fn details(grant: Grant, client: &Client, token: &AccessToken, module: Module, ids: &[String]) -> Result<Vec<Record>> {
    let plain = |id: &String| (1..=30).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
    let request = if !module.has_details() {
        Err(format!("{}/{} cannot be read by several ids", module.product().as_str(), module.as_str()))
    } else if !(1..=MAX_DETAILS).contains(&ids.len()) {
        Err(format!("1 to {MAX_DETAILS} ids, not {}", ids.len()))
    } else if let Some(odd) = ids.iter().find(|id| !plain(id)) {
        Err(format!("`{odd}` is no record id"))
    } else {
        let query = vec![(format!("{}s", module.id_key()), ids.join(","))];
        Ok(Outgoing { query, ..Outgoing::new(module.product(), Method::Get, Effect::Read, format!("/{}details", module.response_key())) })
    };
    let Answer { value: mut json, evidence } = whole(grant, client, token, request).await?;
    let Some(Value::Array(rows)) = json.get_mut(module.list_key()).map(Value::take) else {
        return Err(Reply::unreadable(Effect::Read, evidence, "no list"));
    };
    let records: Option<Vec<Record>> = rows.into_iter().map(|value| Some(Record { id: id_of(module, &value)?, value })).collect();
    match records {
        Some(value) if value.iter().all(|record| ids.contains(&record.id)) => Ok(Answer { value, evidence }),
        Some(_) => Err(Reply::unreadable(Effect::Read, evidence, "a record that was not asked for")),
        None => Err(Reply::unreadable(Effect::Read, evidence, "a record without its id")),
    }
}

/// Deletes a record. A `NotFound` after an earlier delete of unknown outcome means it is done.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn delete(grant: Grant, client: &Client, token: &AccessToken, module: Module, id: &str) -> Result<()> {
    let request = request(module, Method::Delete, Effect::Change, &[id], &[], None);
    Ok(whole(grant, client, token, request).await?.map(|_| ()))
}

/// Posts an action of a record: `markasinactive`, `cancel` (with `cancel_at_end`), `void`, `converttoopen`, …; the value is
/// the whole envelope, since some actions answer a record and some only a message.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
#[allow(clippy::too_many_arguments, reason = "the first three are the same in every call")]
pub async fn action(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: Module,
    id: &str,
    action: &str,
    body: Option<&Value>,
    query: &[(&str, &str)],
) -> Result<Value> {
    let request = request(module, Method::Post, Effect::Change, &[id, action], query, body);
    whole(grant, client, token, request).await
}

/// The address of a record within an answer: its id (for plans the code) as text, whether Zoho wrote a string or a number.
pub fn id_of(module: Module, record: &Value) -> Option<String> {
    match record.get(module.id_key())? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn request<'a>(
    module: Module,
    method: Method,
    effect: Effect,
    segments: &[&str],
    query: &[(&str, &str)],
    body: Option<&'a Value>,
) -> std::result::Result<Outgoing<'a>, String> {
    let verbs = module.verbs();
    let allowed = match (effect, segments.is_empty()) {
        (Effect::Read, true) => verbs.list,
        (Effect::Read, false) => verbs.get,
        (Effect::Create | Effect::Change, _) => verbs.write,
    };
    if !allowed {
        return Err(format!("Zoho has no {method} for {}/{} of this form", module.product().as_str(), module.as_str()));
    }
    let mut path = format!("/{}", module.as_str());
    for raw in segments {
        path.push('/');
        path.push_str(&segment(raw)?);
    }
    let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Ok(Outgoing { query, body, ..Outgoing::new(module.product(), method, effect, path) })
}

/// Sends and checks the envelope: `code` must be there and 0.
async fn whole(grant: Grant, client: &Client, token: &AccessToken, request: std::result::Result<Outgoing<'_>, String>) -> Result<Value> {
    let request = match request {
        Ok(request) => request,
        Err(reason) => return Err(not_sent(grant.place(), NotSent::Invalid { reason })),
    };
    let effect = request.effect;
    let answer = client.send(grant, request, token).await?.checked()?;
    if answer.value.get("code").is_none() {
        return Err(Reply::unreadable(effect, answer.evidence, "no code"));
    }
    Ok(answer)
}

async fn one(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: Module,
    request: std::result::Result<Outgoing<'_>, String>,
) -> Result<Record> {
    let effect = request.as_ref().map_or(Effect::Read, |request| request.effect);
    let Answer { mut value, evidence } = whole(grant, client, token, request).await?;
    match record(module, &mut value) {
        Ok(value) => Ok(Answer { value, evidence }),
        Err(what) => Err(Reply::unreadable(effect, evidence, what)),
    }
}

fn record(module: Module, json: &mut Value) -> std::result::Result<Record, &'static str> {
    let value = json.get_mut(module.response_key()).map(Value::take).filter(Value::is_object);
    let value = value.ok_or("no record under its key")?;
    let id = id_of(module, &value).ok_or("a record without its id")?;
    Ok(Record { id, value })
}
