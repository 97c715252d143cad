//! Zoho CRM v8: records in batches of up to 100, with a result for each.
//!
//! A 2xx never means that all records are fine, so every write gives a [`RecordResult`] per record, matched by position (which
//! Zoho documents) and checked against the ids wherever we know them. It must never report a record's outcome by guess: an
//! answer that does not fit what was sent is `OutcomeUnknown` for the whole call.

pub mod bulk;
pub mod lists;
pub mod names;
pub mod organization;
mod records;

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use sluice_core::grant::Grant;

use crate::classify::Effect;
use crate::client::{Outgoing, Reply, not_sent};
use crate::{AccessToken, Answer, Client, Error, Failed, Method, NotSent, Product, Result};

/// Most records of one write, delete or read by ids.
pub const MAX_RECORDS: usize = 100;
/// Most fields that a list may ask for.
pub const MAX_FIELDS: usize = 50;
/// Most fields that an upsert checks for duplicates.
pub const MAX_DUPLICATE_CHECK_FIELDS: usize = 10;

/// What became of one record of a batch: written, or an error of its own ([`Error::Rejected`] as a rule).
pub type RecordResult = std::result::Result<Written, Error>;

/// A record that Zoho says it has written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The record's id.
    pub id: String,
    /// What was done.
    pub action: Action,
    /// When Zoho says it was created.
    pub created_time: Option<DateTime<Utc>>,
    /// The `Modified_Time` this write left; the first read that shows the same confirms the write.
    pub modified_time: Option<DateTime<Utc>>,
    /// The field by which an upsert found the record.
    pub duplicate_field: Option<String>,
}

/// What was done with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was created.
    Inserted,
    /// It was changed.
    Updated,
    /// It went to the recycle bin.
    Deleted,
}

/// How a write is to be carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Upsert only: the fields by which an existing record is found, at most [`MAX_DUPLICATE_CHECK_FIELDS`]. Only a module's
    /// system field and fields marked unique count; after these Zoho checks all other unique fields.
    pub duplicate_check_fields: Vec<String>,
    /// Sends `trigger: []`, so that no workflow, approval or blueprint runs.
    pub skip_workflows: bool,
    /// Sends `If-Unmodified-Since`: records changed later are refused (`ALREADY_MODIFIED`, class conflict).
    pub if_unmodified_since: Option<DateTime<Utc>>,
}

/// Creates records. Not repeatable: prefer [`upsert`] wherever a unique field exists.
///
/// # Errors
/// [`Error`] of the whole call with its evidence; `OutcomeUnknown` when records may exist now.
pub async fn insert(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    records: &[Map<String, Value>],
    options: &WriteOptions,
) -> Result<Vec<RecordResult>> {
    write(grant, client, token, Kind::Insert, module, records, options).await
}

/// Updates records by the `id` that each must carry. Fields left out keep their value, `null` clears.
///
/// # Errors
/// [`Error`] of the whole call with its evidence.
pub async fn update(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    records: &[Map<String, Value>],
    options: &WriteOptions,
) -> Result<Vec<RecordResult>> {
    write(grant, client, token, Kind::Update, module, records, options).await
}

/// Creates or updates records, found by unique fields: the one idempotent create that CRM offers.
///
/// # Errors
/// [`Error`] of the whole call with its evidence.
pub async fn upsert(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    records: &[Map<String, Value>],
    options: &WriteOptions,
) -> Result<Vec<RecordResult>> {
    write(grant, client, token, Kind::Upsert, module, records, options).await
}

/// Deletes records (to the recycle bin). Results stand in the order of `ids`; `NotFound` means it was gone already.
///
/// # Errors
/// [`Error`] of the whole call with its evidence.
pub async fn delete(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    ids: &[String],
    skip_workflows: bool,
) -> Result<Vec<RecordResult>> {
    let mut outgoing = match module_path(module).and_then(|path| check_ids(ids).map(|()| path)) {
        Ok(path) => Outgoing::new(Product::Crm, Method::Delete, Effect::Change, path),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    outgoing.query.push(("ids".to_owned(), ids.join(",")));
    if skip_workflows {
        outgoing.query.push(("wf_trigger".to_owned(), "false".to_owned()));
    }
    let reply = client.send(grant, outgoing, token).await?;
    records::deleted(reply, ids)
}

/// Reads one record with all its fields.
///
/// # Errors
/// [`Error`] with its evidence; `NotFound` when there is none (Zoho answers 204, or 400 for an id it cannot place).
pub async fn get(grant: Grant, client: &Client, token: &AccessToken, module: &str, id: &str) -> Result<Value> {
    let path = match module_path(module).and_then(|path| check_ids(&[id.to_owned()]).map(|()| path)) {
        Ok(path) => format!("{path}/{id}"),
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let Answer { value: mut json, evidence } = read(grant, client, token, path, Vec::new()).await?;
    if json.is_null() {
        let gone = Error::NotFound { code: "http 204".to_owned(), message: "no content".to_owned() };
        return Err(Failed::new(gone, evidence));
    }
    match json.pointer_mut("/data/0").map(Value::take) {
        Some(record) if records::id(&record).as_deref() == Some(id) => Ok(Answer { value: record, evidence }),
        Some(_) => Err(Reply::unreadable(Effect::Read, evidence, "another record than asked for")),
        None => Err(Reply::unreadable(Effect::Read, evidence, "no record")),
    }
}

/// Reads up to 100 records by id, with the fields named (at most 50; `id` always comes). An id that is missing in the answer is
/// deleted, or invisible to the token's user.
///
/// # Errors
/// [`Error`] with its evidence; `Malformed` when the answer holds a record that was not asked for, or one twice.
pub async fn get_by_ids(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    ids: &[String],
    fields: &[&str],
) -> Result<HashMap<String, Value>> {
    let counted = (1..=MAX_FIELDS).contains(&fields.len());
    let checked = module_path(module).and_then(|path| {
        check_ids(ids)?;
        if counted { Ok(path) } else { Err(format!("1 to {MAX_FIELDS} fields, not {}", fields.len())) }
    });
    let path = match checked {
        Ok(path) => path,
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let query = vec![("ids".to_owned(), ids.join(",")), ("fields".to_owned(), fields.join(",")), ("per_page".to_owned(), "200".to_owned())];
    let Answer { value: json, evidence } = read(grant, client, token, path, query).await?;
    match by_id(json, ids) {
        Ok(value) => Ok(Answer { value, evidence }),
        Err(what) => Err(Reply::unreadable(Effect::Read, evidence, what)),
    }
}

/// The fields of a module: `api_name`, `data_type`, `json_type`, `length`, `unique`, `external`, `pick_list_values`, …
///
/// # Errors
/// [`Error`] with its evidence.
pub async fn fields(grant: Grant, client: &Client, token: &AccessToken, module: &str) -> Result<Vec<Value>> {
    if let Err(reason) = module_path(module) {
        return Err(invalid(&grant, reason));
    }
    let query = vec![("module".to_owned(), module.to_owned())];
    let Answer { value: mut json, evidence } = read(grant, client, token, "/settings/fields".to_owned(), query).await?;
    match json.get_mut("fields").map(Value::take) {
        Some(Value::Array(value)) => Ok(Answer { value, evidence }),
        _ => Err(Reply::unreadable(Effect::Read, evidence, "no fields")),
    }
}

/// The organisation: `id`, `zgid`, `company_name`, `time_zone`, `type` (production, sandbox, developer), …
///
/// # Errors
/// [`Error`] with its evidence.
pub async fn org(grant: Grant, client: &Client, token: &AccessToken) -> Result<Value> {
    let Answer { value: mut json, evidence } = read(grant, client, token, "/org".to_owned(), Vec::new()).await?;
    match json.pointer_mut("/org/0").map(Value::take) {
        Some(value) if value.is_object() => Ok(Answer { value, evidence }),
        _ => Err(Reply::unreadable(Effect::Read, evidence, "no organisation")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Update,
    Upsert,
}

async fn write(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    kind: Kind,
    module: &str,
    records: &[Map<String, Value>],
    options: &WriteOptions,
) -> Result<Vec<RecordResult>> {
    let (path, body) = match prepared(kind, module, records, options) {
        Ok(prepared) => prepared,
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let (method, effect) = match kind {
        Kind::Insert | Kind::Upsert => (Method::Post, Effect::Create),
        Kind::Update => (Method::Put, Effect::Change),
    };
    let mut outgoing = Outgoing::new(Product::Crm, method, effect, path);
    outgoing.body = Some(&body);
    if let Some(since) = options.if_unmodified_since {
        let since = since.to_rfc3339_opts(SecondsFormat::Secs, false);
        outgoing.headers.push(("if-unmodified-since", since));
    }
    let reply = client.send(grant, outgoing, token).await?;
    let ids: Vec<_> = records.iter().map(|record| record.get("id").and_then(Value::as_str)).collect();
    records::written(reply, kind, &ids)
}

fn prepared(
    kind: Kind,
    module: &str,
    records: &[Map<String, Value>],
    options: &WriteOptions,
) -> std::result::Result<(String, Value), String> {
    let mut path = module_path(module)?;
    if !(1..=MAX_RECORDS).contains(&records.len()) {
        return Err(format!("1 to {MAX_RECORDS} records, not {}", records.len()));
    }
    if kind == Kind::Update && !records.iter().all(|record| record.get("id").is_some_and(Value::is_string)) {
        return Err("every record of an update carries its id as text".to_owned());
    }
    if options.duplicate_check_fields.len() > MAX_DUPLICATE_CHECK_FIELDS {
        return Err(format!("at most {MAX_DUPLICATE_CHECK_FIELDS} fields to check for duplicates"));
    }
    let mut body = json!({ "data": records });
    if kind == Kind::Upsert {
        path.push_str("/upsert");
        if !options.duplicate_check_fields.is_empty() {
            body["duplicate_check_fields"] = json!(options.duplicate_check_fields);
        }
    }
    if options.skip_workflows {
        body["trigger"] = json!([]);
    }
    Ok((path, body))
}

async fn read(grant: Grant, client: &Client, token: &AccessToken, path: String, query: Vec<(String, String)>) -> Result<Value> {
    let outgoing = Outgoing { query, ..Outgoing::new(Product::Crm, Method::Get, Effect::Read, path) };
    client.send(grant, outgoing, token).await?.checked()
}

fn by_id(mut json: Value, ids: &[String]) -> std::result::Result<HashMap<String, Value>, &'static str> {
    if json.is_null() {
        return Ok(HashMap::new());
    }
    let Some(Value::Array(rows)) = json.get_mut("data").map(Value::take) else {
        return Err("no data");
    };
    if json.pointer("/info/more_records").and_then(Value::as_bool) == Some(true) {
        return Err("more records than were asked for");
    }
    let asked: HashSet<&str> = ids.iter().map(String::as_str).collect();
    let mut found = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = records::id(&row).filter(|id| asked.contains(id.as_str())).ok_or("a record that was not asked for")?;
        if found.insert(id, row).is_some() {
            return Err("the same record twice");
        }
    }
    Ok(found)
}

/// API names are letters, digits and underscores; anything else never reaches an address.
fn module_path(module: &str) -> std::result::Result<String, String> {
    let plain = (1..=100).contains(&module.len()) && module.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if plain { Ok(format!("/{module}")) } else { Err(format!("`{module}` is no API name of a module")) }
}

fn check_ids(ids: &[String]) -> std::result::Result<(), String> {
    if !(1..=MAX_RECORDS).contains(&ids.len()) {
        return Err(format!("1 to {MAX_RECORDS} ids, not {}", ids.len()));
    }
    let digits = |id: &&String| !((1..=30).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit()));
    match ids.iter().find(digits) {
        Some(id) => Err(format!("`{id}` is no record id")),
        None => Ok(()),
    }
}

fn invalid(grant: &Grant, reason: String) -> Failed<Error> {
    not_sent(grant.place(), NotSent::Invalid { reason })
}
