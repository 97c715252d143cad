//! Bulk reads (CRM fact 3.1): a job makes a file of a module's records as they are when it is asked for, and the file is a ZIP with one CSV.
//!
//! What is not documented can be had otherwise, see [`crate::BulkRead`]. There are no callbacks, no views, and criteria on the time of modification alone.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{Cursor, Write as _},
    time::{Duration, Instant},
};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use serde_json::{Map, Value, json};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::{Context, Crm, Refusal, read::pick};
use crate::{
    clock::{parse_time, scaled},
    exchange::Answer,
    limits::too_many_requests,
    scenario::{BulkRead, Dialect},
};

/// Downloads in a minute ("Download Bulk Read Result").
const DOWNLOADS: usize = 10;
/// Most jobs that are kept.
const MOST_JOBS: usize = 1_000;
/// How long a token for what did not fit is good.
const TOKEN_HOURS: i64 = 24;

/// All jobs.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<String, Job>,
    tokens: BTreeMap<String, (Query, DateTime<Utc>)>,
    downloads: VecDeque<Instant>,
}

#[derive(Clone, Debug)]
struct Query {
    module: String,
    fields: Vec<String>,
    /// Comparator and time.
    since: Option<(String, DateTime<Utc>)>,
    /// Rows that jobs before had.
    skip: usize,
}

#[derive(Debug)]
struct Job {
    query: Query,
    made: DateTime<Utc>,
    rows: Vec<Value>,
    /// The token for what did not fit.
    next: Option<String>,
    ready: bool,
}

impl Crm {
    pub(super) fn create_bulk_read(&mut self, context: &mut Context<'_>) -> Answer {
        if !context.request.header("content-type").is_some_and(|kind| kind.starts_with("application/json")) {
            return Refusal::new("MEDIA_TYPE_NOT_SUPPORTED", "Media type is not supported.", json!({})).answer(415);
        }
        let body = context.request.json_object().unwrap_or_default();
        let query = match self.bulk_query(&body, context) {
            Ok(query) => query,
            Err(refusal) => return refusal.answer(400),
        };
        let mut rows = self.bulk_rows(&query, context);
        let next = (rows.len() > context.scenario.crm.bulk_read.per_file).then(|| {
            rows.truncate(context.scenario.crm.bulk_read.per_file);
            let token = context.ids.hex(64);
            let rest = Query { skip: query.skip + rows.len(), ..query.clone() };
            self.bulk.tokens.insert(token.clone(), (rest, context.now + TimeDelta::hours(TOKEN_HOURS)));
            token
        });
        let id = context.ids.record();
        let made = crate::clock::to_second(context.now);
        let details = json!({
            "id": id, "operation": "read", "state": "ADDED", "created_by": self.user(false), "created_time": context.zone().crm_time(made),
        });
        if self.bulk.jobs.len() >= MOST_JOBS {
            self.bulk.jobs.pop_first();
        }
        self.bulk.jobs.insert(id, Job { query, made, rows, next, ready: false });
        let added = json!({ "status": "success", "code": "ADDED_SUCCESSFULLY", "message": "Added successfully.", "details": details });
        Answer::json(201, json!({ "data": [added], "info": {} }))
    }

    pub(super) fn bulk_read_state(&mut self, context: &Context<'_>) -> Answer {
        let (id, rules) = (context.module().to_owned(), &context.scenario.crm.bulk_read);
        if !self.get_ready(&id, context) {
            return gone();
        }
        let Some(job) = self.bulk.jobs.get(&id) else { return gone() };
        let passed = context.now - job.made;
        let state = match job.ready {
            true if rules.fail => "FAILURE",
            true => "COMPLETED",
            false if passed < until_ready(rules) / 2 => "ADDED",
            false => "IN PROGRESS",
        };
        let mut shown = json!({
            "id": id, "operation": "read", "state": state, "query": { "module": { "api_name": job.query.module }, "fields": job.query.fields, "page": 1 },
            "created_by": self.user(false), "created_time": context.zone().crm_time(job.made), "file_type": "csv",
        });
        match state {
            "COMPLETED" => {
                shown["result"] = json!({
                    "page": 1, "per_page": rules.per_file, "count": job.rows.len(), "download_url": format!("/crm/bulk/v8/read/{id}/result"),
                    "more_records": job.next.is_some(),
                });
                if let Some(token) = &job.next {
                    shown["result"]["next_page_token"] = token.as_str().into();
                }
            }
            "FAILURE" => {
                let message =
                    json!({ "code": "INTERNAL_SERVER_ERROR", "message": "Internal server error.", "details": {}, "status": "error" });
                shown["result"] = json!({ "error_message": message });
            }
            _ => {}
        }
        Answer::json(200, json!({ "data": [shown] }))
    }

    pub(super) fn bulk_read_result(&mut self, context: &Context<'_>) -> Answer {
        let (id, rules) = (context.module().to_owned(), &context.scenario.crm.bulk_read);
        let minute = scaled(60.0, context.scenario.time_scale);
        let downloads = &mut self.bulk.downloads;
        while downloads.pop_front_if(|at| context.request.arrived.saturating_duration_since(*at) >= minute).is_some() {}
        if downloads.len() >= DOWNLOADS {
            return too_many_requests();
        }
        downloads.push_back(context.request.arrived);
        if !self.get_ready(&id, context) || rules.fail {
            return gone();
        }
        match self.bulk.jobs.get(&id).filter(|job| job.ready) {
            Some(job) => Answer::binary("application/x-download", zipped(job, &id, rules).into()),
            None => gone(),
        }
    }

    /// Lets a job end whose time has come. False: there is no such job.
    fn get_ready(&mut self, id: &str, context: &Context<'_>) -> bool {
        let rules = &context.scenario.crm.bulk_read;
        let Some(job) = self.bulk.jobs.get(id) else { return false };
        if context.now - job.made >= passing(rules.hours * 3_600.0) {
            self.bulk.jobs.remove(id);
            return false;
        }
        if !job.ready && context.now - job.made >= until_ready(rules) {
            let later = rules.torn.then(|| self.bulk_rows(&Query { since: None, skip: 0, ..job.query.clone() }, context));
            let Some(job) = self.bulk.jobs.get_mut(id) else { return false };
            let half = job.rows.len() / 2;
            for row in &mut job.rows[half..] {
                if let Some(now) = later.as_ref().and_then(|later| later.iter().find(|now| now["id"] == row["id"])) {
                    *row = now.clone();
                }
            }
            job.ready = true;
        }
        true
    }

    fn bulk_query(&mut self, body: &Map<String, Value>, context: &Context<'_>) -> Result<Query, Refusal> {
        let Some(query) = body.get("query") else {
            return Err(Refusal::new("MANDATORY_NOT_FOUND", "required field not found", json!({ "api_name": "query" })));
        };
        if let Some(token) = query.get("page_token").and_then(Value::as_str) {
            let promised = self.bulk.tokens.get(token).filter(|(_, expires)| *expires > context.now);
            let invalid = || Refusal::new("INVALID_REQUEST", "the page token is not valid", json!({ "api_name": "page_token" }));
            return promised.map(|(query, _)| query.clone()).ok_or_else(invalid);
        }
        let name = query.pointer("/module/api_name").and_then(Value::as_str).unwrap_or_default();
        let Some(module) = self.modules.get(name) else {
            return Err(Refusal::new("MODULE_NOT_AVAILABLE", "The requested module is not available.", json!({ "module": name })));
        };
        let fields: Vec<String> = query.get("fields").and_then(Value::as_array).map_or_else(
            || module.fields.iter().map(|field| field.name().to_owned()).collect(),
            |fields| fields.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        );
        let system = ["Owner", "Created_By", "Modified_By", "Created_Time", "Modified_Time"];
        if let Some(unknown) = fields.iter().find(|field| module.field(field).is_none() && !system.contains(&field.as_str())) {
            return Err(Refusal::new(
                "FIELD_NOT_AVAILABLE",
                "The requested field is not available.",
                json!({ "api_name": unknown, "module": name }),
            ));
        }
        let since = query.get("criteria").map(criterion).transpose()?;
        Ok(Query { module: name.to_owned(), fields, since, skip: 0 })
    }

    /// The records that a query asks for, by id.
    fn bulk_rows(&self, query: &Query, context: &Context<'_>) -> Vec<Value> {
        let Some(module) = self.modules.get(&query.module) else { return Vec::new() };
        let fields: Vec<&str> = query.fields.iter().map(String::as_str).collect();
        let wanted = |at: DateTime<Utc>| match &query.since {
            Some((comparator, since)) if comparator == "greater_than" => at > *since,
            Some((_, since)) => at >= *since,
            None => true,
        };
        let found = module.records.iter().filter(|(_, record)| wanted(record.modified)).skip(query.skip);
        found.map(|(id, record)| pick(&self.full(module, id, record, context.zone()), &fields)).collect()
    }
}

/// A condition on the time of modification, alone or as the only one of a group.
fn criterion(criteria: &Value) -> Result<(String, DateTime<Utc>), Refusal> {
    let one = criteria.pointer("/group/0").unwrap_or(criteria);
    let field = one.pointer("/field/api_name").and_then(Value::as_str).unwrap_or_default();
    if field != "Modified_Time" {
        return Err(Refusal::new("FIELD_IN_CRITERIA_NOT_SUPPORTED", "field in criteria is not supported", json!({ "api_name": field })));
    }
    let comparator = one.get("comparator").and_then(Value::as_str).unwrap_or_default();
    if !matches!(comparator, "greater_equal" | "greater_than") {
        let details = json!({ "api_name": field, "comparator": comparator });
        return Err(Refusal::new("FIELD_COMPARATOR_IN_CRITERIA_NOT_SUPPORTED", "comparator is not supported", details));
    }
    let value = one.get("value").and_then(Value::as_str).unwrap_or_default();
    // no milliseconds
    let time = Some(value).filter(|value| !value.contains('.')).and_then(parse_time);
    let details = || json!({ "api_name": field, "comparator": comparator, "value": value });
    let refusal = || Refusal::new("COMPARATOR_AND_VALUE_IN_CRITERIA_NOT_COMPATIBLE", "value is not compatible", details());
    Ok((comparator.to_owned(), time.ok_or_else(refusal)?))
}

fn until_ready(rules: &BulkRead) -> TimeDelta {
    passing(rules.seconds)
}

fn passing(seconds: f64) -> TimeDelta {
    TimeDelta::from_std(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).unwrap_or(TimeDelta::MAX)
}

fn gone() -> Answer {
    Refusal::new("RESOURCE_NOT_FOUND", "The requested resource doesn't exist.", json!({ "resource": "job" })).answer(404)
}

/// One CSV in a ZIP. `Id` comes first, whatever was asked for.
fn zipped(job: &Job, id: &str, rules: &BulkRead) -> Vec<u8> {
    let mut table = String::from("Id");
    for field in &job.query.fields {
        table.push(',');
        table.push_str(field);
    }
    table.push_str("\r\n");
    for row in &job.rows[..job.rows.len().saturating_sub(rules.lose_rows)] {
        table.push_str(row["id"].as_str().unwrap_or_default());
        for field in &job.query.fields {
            table.push(',');
            table.push_str(&quoted(&cell(&row[field.as_str()], rules.dialect)));
        }
        table.push_str("\r\n");
    }
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let written = zip.start_file(format!("{}_{id}.csv", job.query.module), SimpleFileOptions::default());
    if written.is_err() || zip.write_all(table.as_bytes()).is_err() {
        return Vec::new();
    }
    zip.finish().map(Cursor::into_inner).unwrap_or_default()
}

fn cell(value: &Value, dialect: Dialect) -> String {
    match (value, dialect) {
        (Value::Null, _) => String::new(),
        (Value::Bool(yes), Dialect::Spreadsheet) => u8::from(*yes).to_string(),
        (Value::String(text), Dialect::Spreadsheet) => {
            NaiveDate::parse_from_str(text, "%Y-%m-%d").map_or_else(|_| text.clone(), |date| date.format("%m/%d/%Y").to_string())
        }
        (Value::String(text), Dialect::Plain) => text.clone(),
        (Value::Array(values), _) => values.iter().map(|value| cell(value, dialect)).collect::<Vec<_>>().join(";"),
        (Value::Object(object), _) => object.get("id").map_or_else(String::new, |id| cell(id, Dialect::Plain)),
        (other, _) => other.to_string(),
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) { format!("\"{}\"", cell.replace('"', "\"\"")) } else { cell.to_owned() }
}
