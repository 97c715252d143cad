//! Reads: one record whole, or a page of named fields.

use chrono::TimeDelta;
use serde_json::{Map, Value, json};

use super::{
    Context, Crm, Module, PageToken, Record, Refusal, Values,
    meta::{Field, name_field},
};
use crate::{
    clock::{Zone, parse_time},
    exchange::Answer,
};

/// Rows of a page, unless fewer are asked for; also the most.
const PER_PAGE: usize = 200;
/// Most fields a list may name.
const MOST_FIELDS: usize = 50;
/// Rows that `page` reaches; beyond only `page_token` does.
const PAGED_ROWS: usize = 2_000;
/// Rows that page tokens reach.
const TOKEN_ROWS: usize = 100_000;
/// Most page tokens that are kept.
const MOST_TOKENS: usize = 10_000;

impl Crm {
    pub(super) fn get(&mut self, context: &Context<'_>) -> Answer {
        if let Err(answer) = self.known_module(context.module()) {
            return answer;
        }
        let Some(module) = self.modules.get(context.module()) else {
            return Answer::empty(204);
        };
        let id = context.id();
        if !id.bytes().all(|byte| byte.is_ascii_digit()) {
            let details = json!({ "resource_path_index": 1 });
            return Refusal::new("INVALID_DATA", "the id given seems to be invalid", details).answer(400);
        }
        let Some(record) = module.records.get(id) else {
            return Answer::empty(204);
        };
        let full = self.full(module, id, record, context.zone());
        let row = match context.request.query("fields") {
            Some(fields) => pick(&full, &fields.split(',').collect::<Vec<_>>()),
            None => full,
        };
        Answer::json(200, json!({ "data": [row] })).with_ids(vec![id.to_owned()])
    }

    pub(super) fn list(&mut self, context: &mut Context<'_>) -> Answer {
        if let Err(answer) = self.known_module(context.module()) {
            return answer;
        }
        let (fields, page) = match (fields(context), self.page(context)) {
            (Ok(fields), Ok(page)) => (fields, page),
            (Err(refusal), _) | (_, Err(refusal)) => return refusal.answer(400),
        };
        let Some(module) = self.modules.get(context.module()) else {
            return Answer::empty(204);
        };
        let rows = match sorted(module, context) {
            Ok(rows) => rows,
            Err(refusal) => return refusal.answer(400),
        };
        let since = context.request.header("If-Modified-Since").and_then(parse_time);
        let rows: Vec<_> = rows.into_iter().filter(|(_, r)| since.is_none_or(|since| context.is_since(r.modified, since))).collect();
        // List rows have no subforms, and no lookups of several records (CRM fact 2.1).
        let fields: Vec<&str> = fields.into_iter().filter(|name| !module.field(name).is_some_and(Field::is_detail)).collect();
        let shown: Vec<Value> = rows
            .iter()
            .skip(page.first)
            .take(page.per_page)
            .map(|(id, record)| pick(&self.full(module, id, record, context.zone()), &fields))
            .collect();
        if shown.is_empty() {
            return Answer::empty(if since.is_some() { 304 } else { 204 });
        }
        let (count, end) = (shown.len(), page.first + shown.len());
        let more = end < rows.len();
        let (token, expiry) = if more { self.promise(end, context) } else { (Value::Null, Value::Null) };
        let info = json!({
            "per_page": page.per_page,
            "count": count,
            "page": page.first / page.per_page + 1,
            "more_records": more,
            "sort_by": context.request.query("sort_by").unwrap_or("id"),
            "sort_order": context.request.query("sort_order").unwrap_or("desc"),
            "next_page_token": token,
            "previous_page_token": null,
            "page_token_expiry": expiry,
        });
        Answer::json(200, json!({ "data": shown, "info": info }))
    }

    /// `GET /{module}/deleted`: oldest first, which is not documented.
    pub(super) fn list_deleted(&mut self, context: &Context<'_>) -> Answer {
        if let Err(answer) = self.known_module(context.module()) {
            return answer;
        }
        let page = match self.page(context) {
            Ok(page) => page,
            Err(refusal) => return refusal.answer(400),
        };
        let permanent = match context.request.query("type") {
            None | Some("all") => None,
            Some("recycle") => Some(false),
            Some("permanent") => Some(true),
            Some(_) => return Refusal::new("INVALID_DATA", "invalid value", json!({ "param_name": "type" })).answer(400),
        };
        let since = context.request.header("If-Modified-Since").and_then(parse_time);
        let deleted = self.modules.get(context.module()).map_or(&[][..], |module| &module.deleted[..]);
        let rows: Vec<_> = deleted
            .iter()
            .filter(|row| permanent.is_none_or(|wanted| row.permanent == wanted))
            .filter(|row| since.is_none_or(|since| context.is_since(row.at, since)))
            .collect();
        let shown: Vec<Value> = rows
            .iter()
            .skip(page.first)
            .take(page.per_page)
            .map(|row| {
                let user = if row.permanent { Value::Null } else { self.user(row.by_person) };
                json!({
                    "id": row.id,
                    "display_name": if row.permanent { Value::Null } else { row.name.clone() },
                    "type": if row.permanent { "permanent" } else { "recycle" },
                    "deleted_time": context.zone().crm_time(row.at),
                    "deleted_by": user,
                    "created_by": if row.permanent { Value::Null } else { self.user(false) },
                })
            })
            .collect();
        if shown.is_empty() {
            return Answer::empty(204);
        }
        let info = json!({
            "per_page": page.per_page, "count": shown.len(), "page": page.first / page.per_page + 1,
            "more_records": page.first + shown.len() < rows.len(),
        });
        Answer::json(200, json!({ "data": shown, "info": info }))
    }

    /// Where the page starts, by `page` or by a token that is bound to the other parameters.
    pub(super) fn page(&self, context: &Context<'_>) -> Result<Page, Refusal> {
        let number = |name: &str, otherwise: usize| match context.request.query(name) {
            None => Ok(otherwise),
            Some(text) => text
                .parse::<usize>()
                .ok()
                .filter(|number| *number > 0)
                .ok_or_else(|| Refusal::new("INVALID_DATA", "invalid value", json!({ "param_name": name }))),
        };
        let per_page = number("per_page", PER_PAGE)?;
        if per_page > PER_PAGE {
            let details = json!({ "limit": PER_PAGE, "param_name": "per_page" });
            return Err(Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details));
        }
        let Some(token) = context.request.query("page_token") else {
            let page = number("page", 1)?;
            if page.saturating_mul(per_page) > PAGED_ROWS {
                let details = json!({ "limit": PAGED_ROWS });
                let message = "page reaches beyond the rows that can be paged without a token";
                return Err(Refusal::new("DISCRETE_PAGINATION_LIMIT_EXCEEDED", message, details));
            }
            return Ok(Page { first: (page - 1) * per_page, per_page });
        };
        if context.request.query("page").is_some() {
            let details = json!({ "ambiguity_due_to": [{ "param_name": "page" }, { "param_name": "page_token" }] });
            return Err(Refusal::new("AMBIGUITY_DURING_PROCESSING", "ambiguous parameters", details));
        }
        let details = json!({ "param_name": "page_token" });
        match self.page_tokens.get(token) {
            Some(promised) if promised.expires < context.now => Err(Refusal::new("EXPIRED_VALUE", "the page token has expired", details)),
            Some(promised) if promised.offset >= TOKEN_ROWS => {
                Err(Refusal::new("PAGINATION_LIMIT_EXCEEDED", "the rows that can be paged are at an end", details))
            }
            Some(promised) if promised.parameters == bound_parameters(context) => Ok(Page { first: promised.offset, per_page }),
            _ => Err(Refusal::new("TOKEN_BOUND_DATA_MISMATCH", "the page token is of another request", details)),
        }
    }

    fn promise(&mut self, offset: usize, context: &mut Context<'_>) -> (Value, Value) {
        if self.page_tokens.len() >= MOST_TOKENS {
            self.page_tokens.pop_first();
        }
        let token = context.ids.hex(64);
        let expires = context.now + TimeDelta::hours(24);
        let promised = PageToken { parameters: bound_parameters(context), offset, expires };
        self.page_tokens.insert(token.clone(), promised);
        (token.into(), context.zone().crm_time(expires).into())
    }

    /// A record with every field, lookups with their names.
    pub(super) fn full(&self, module: &Module, id: &str, record: &Record, zone: Zone) -> Value {
        let user = self.user(false);
        let mut full = Map::new();
        full.insert("id".to_owned(), id.into());
        for field in &module.fields {
            let value = record.values.get(field.name()).cloned().unwrap_or(Value::Null);
            let value = match (&field.spec.lookup, value.get("id").and_then(Value::as_str)) {
                (Some(target), Some(target_id)) => {
                    json!({ "id": target_id, "name": self.name_of(target, target_id) })
                }
                _ => value,
            };
            full.insert(field.name().to_owned(), value);
        }
        for (name, value) in [
            ("Owner", full.get("Owner").filter(|owner| owner.is_object()).unwrap_or(&user).clone()),
            ("Created_By", user.clone()),
            ("Modified_By", self.user(record.by_person)),
            ("Created_Time", zone.crm_time(record.created).into()),
            ("Modified_Time", zone.crm_time(record.modified).into()),
            ("$approval_state", "approved".into()),
        ] {
            full.insert(name.to_owned(), value);
        }
        Value::Object(full)
    }

    /// The user of the API's token, or a person who works in Zoho's own pages.
    pub(super) fn user(&self, person: bool) -> Value {
        match person {
            true => json!({ "id": self.person_id, "name": "Simulated Person", "email": "person@simulated.example" }),
            false => json!({ "id": self.user_id, "name": "Simulated User", "email": "user@simulated.example" }),
        }
    }

    /// The name a lookup shows: the system's own field, but a person's last name.
    fn name_of(&self, module: &str, id: &str) -> Value {
        let field = name_field(module);
        let record = self.modules.get(module).and_then(|module| module.records.get(id));
        record.and_then(|record| record.values.get(field)).cloned().unwrap_or(Value::Null)
    }
}

/// A page of a list.
pub(super) struct Page {
    pub(super) first: usize,
    pub(super) per_page: usize,
}

pub(super) fn fields<'a>(context: &'a Context<'_>) -> Result<Vec<&'a str>, Refusal> {
    let Some(fields) = context.request.query("fields").filter(|fields| !fields.is_empty()) else {
        let details = json!({ "param_name": "fields" });
        return Err(Refusal::new("REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", details));
    };
    let fields: Vec<&str> = fields.split(',').map(str::trim).collect();
    if fields.len() > MOST_FIELDS {
        let details = json!({ "limit": MOST_FIELDS, "param_name": "fields" });
        return Err(Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details));
    }
    Ok(fields)
}

/// The records asked for by `ids`, or all, in the order of `sort_by` and `sort_order`.
fn sorted<'a>(module: &'a Module, context: &Context<'_>) -> Result<Vec<(&'a String, &'a Record)>, Refusal> {
    let mut rows: Vec<(&String, &Record)> = match context.request.query("ids") {
        Some(ids) => ids.split(',').filter_map(|id| module.records.get_key_value(id)).collect(),
        None => module.records.iter().collect(),
    };
    match context.request.query("sort_by") {
        Some("Modified_Time") => rows.sort_by_key(|(_, record)| record.modified),
        Some("Created_Time") => rows.sort_by_key(|(_, record)| record.created),
        None | Some("id") => rows.sort_by_key(|(id, _)| *id),
        Some(_) => {
            let details = json!({ "param_name": "sort_by", "supported_values": ["id", "Created_Time", "Modified_Time"] });
            return Err(Refusal::new("INVALID_DATA", "invalid value", details));
        }
    }
    match context.request.query("sort_order") {
        Some("asc") => {}
        None | Some("desc") => rows.reverse(),
        Some(_) => {
            let details = json!({ "param_name": "sort_order", "supported_values": ["asc", "desc"] });
            return Err(Refusal::new("INVALID_DATA", "invalid value", details));
        }
    }
    Ok(rows)
}

fn bound_parameters(context: &Context<'_>) -> String {
    let of_page = |name: &str| name == "page" || name == "page_token";
    let mut bound: Vec<String> =
        context.request.query.iter().filter(|(name, _)| !of_page(name)).map(|(name, value)| format!("{name}={value}")).collect();
    bound.sort();
    format!("{} {}", context.module(), bound.join("&"))
}

pub(super) fn pick(full: &Value, fields: &[&str]) -> Value {
    let wanted = fields.iter().copied().chain(["id"]);
    let row: Values = wanted.filter_map(|name| Some((name.to_owned(), full.get(name)?.clone()))).collect();
    Value::Object(row)
}
