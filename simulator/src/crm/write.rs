//! Create, update, upsert and delete: at most 100 records a call, one result each, in their order.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{Context, Crm, Record, Refusal, Values, check::combined};
use crate::{clock::parse_time, exchange::Answer};

/// Most records of one call.
const MOST_RECORDS: usize = 100;

/// What became of one record.
enum Written {
    Inserted(String),
    /// With the field by which an upsert found it.
    Updated(String, Option<String>),
}

impl Crm {
    pub(super) fn create(&mut self, context: &mut Context<'_>) -> Answer {
        let body = match self.accept(context) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        self.each(&body.records, 201, false, context, |crm, at, record, context| crm.insert(record, at, context).map(Written::Inserted))
    }

    pub(super) fn update(&mut self, context: &mut Context<'_>) -> Answer {
        let body = match self.accept(context) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let path_id = context.captures.get(1).cloned();
        let since = body.unmodified_since;
        self.each(&body.records, 200, false, context, move |crm, at, record, context| {
            let id = path_id.clone().or_else(|| id_of(record)).ok_or_else(|| {
                let details = json!({ "api_name": "id", "json_path": format!("$.data[{at}].id") });
                Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details)
            })?;
            crm.change(&id, record, at, since, context).map(|()| Written::Updated(id, None))
        })
    }

    pub(super) fn upsert(&mut self, context: &mut Context<'_>) -> Answer {
        let body = match self.accept(context) {
            Ok(body) => body,
            Err(answer) => return answer,
        };
        let order = match self.known_module(context.module()) {
            Ok(module) => module.check_fields(body.duplicate_check_fields.as_ref()),
            Err(answer) => return answer,
        };
        let order = match order {
            Ok(order) => order,
            Err(refusal) => return refusal.answer(400),
        };
        let since = body.unmodified_since;
        self.each(&body.records, 200, true, context, move |crm, at, record, context| {
            // An id in an upsert's record means that very record (unverified; Zoho's samples show it).
            if let Some(id) = id_of(record) {
                return crm.change(&id, record, at, since, context).map(|()| Written::Updated(id, None));
            }
            let found = crm.modules.get(context.module()).and_then(|module| module.matched(record, &order));
            match found {
                None => crm.insert(record, at, context).map(Written::Inserted),
                Some(found) => {
                    crm.change(&found.id, record, at, since, context)?;
                    Ok(Written::Updated(found.id, Some(found.field)))
                }
            }
        })
    }

    /// Runs one write for each record and puts the results together.
    fn each(
        &mut self,
        records: &[Value],
        all_well: u16,
        with_action: bool,
        context: &mut Context<'_>,
        mut write: impl FnMut(&mut Self, usize, &Values, &mut Context<'_>) -> Result<Written, Refusal>,
    ) -> Answer {
        let mut results = Vec::with_capacity(records.len());
        let mut ids = Vec::new();
        let (mut failed, mut modified) = (0, 0);
        for (at, record) in records.iter().enumerate() {
            let outcome = match record.as_object() {
                Some(record) => match scripted(record, context) {
                    Some(refusal) => Err(refusal),
                    None => write(self, at, record, context),
                },
                None => {
                    let details = json!({ "expected_data_type": "jsonobject", "json_path": format!("$.data[{at}]") });
                    Err(Refusal::new("INVALID_DATA", "invalid data", details))
                }
            };
            match outcome {
                Ok(written) => results.push(self.success(&written, with_action, &mut ids, context)),
                Err(refusal) => {
                    failed += 1;
                    modified += usize::from(refusal.code == "ALREADY_MODIFIED");
                    results.push(refusal.to_json());
                }
            }
        }
        let status = match failed {
            0 => all_well,
            _ if modified == records.len() => 412,
            _ if failed == records.len() => 400,
            _ => 207,
        };
        Answer::json(status, json!({ "data": results })).with_ids(ids)
    }

    fn success(&self, written: &Written, with_action: bool, ids: &mut Vec<String>, context: &Context<'_>) -> Value {
        let (id, message, action, field) = match written {
            Written::Inserted(id) => (id, "record added", "insert", None),
            Written::Updated(id, field) => (id, "record updated", "update", field.as_ref()),
        };
        ids.push(id.clone());
        let record = self.modules.get(context.module()).and_then(|module| module.records.get(id));
        let mut result = json!({
            "code": "SUCCESS",
            "details": record.map(|record| self.details(id, record, context)),
            "message": message,
            "status": "success",
        });
        if with_action {
            result["action"] = action.into();
            result["duplicate_field"] = json!(field);
        }
        result
    }

    fn details(&self, id: &str, record: &Record, context: &Context<'_>) -> Value {
        let user = json!({ "id": self.user_id, "name": "Simulated User" });
        json!({
            "id": id,
            "Created_Time": context.zone().crm_time(record.created),
            "Modified_Time": context.zone().crm_time(record.modified),
            "Created_By": user,
            "Modified_By": user,
            "$approval_state": "approved",
        })
    }

    fn insert(&mut self, record: &Values, at: usize, context: &mut Context<'_>) -> Result<String, Refusal> {
        let mut values = self.checked(record, None, at, context)?;
        let id = context.ids.record();
        if let Some(module) = self.modules.get(context.module()) {
            module.merge_rows(None, &mut values, context.ids);
        }
        self.store(context.module(), &id, values, &context.stamp(), context.changes);
        Ok(id)
    }

    fn change(
        &mut self,
        id: &str,
        record: &Values,
        at: usize,
        since: Option<DateTime<Utc>>,
        context: &mut Context<'_>,
    ) -> Result<(), Refusal> {
        let found = self.modules.get(context.module()).and_then(|module| module.records.get(id));
        let found = found.ok_or_else(|| no_record(id))?;
        if since.is_some_and(|since| found.modified > since) {
            let details = self.details(id, found, context);
            return Err(Refusal::new("ALREADY_MODIFIED", "record has been modified since", details));
        }
        let mut values = self.checked(record, Some(id), at, context)?;
        if let Some(module) = self.modules.get(context.module()) {
            module.merge_rows(Some(id), &mut values, context.ids);
        }
        self.store(context.module(), id, values, &context.stamp(), context.changes);
        Ok(())
    }

    /// The values to store, if nothing is wrong with them.
    fn checked(&self, record: &Values, own: Option<&str>, at: usize, context: &mut Context<'_>) -> Result<Values, Refusal> {
        let name = context.module().to_owned();
        let module = self.modules.get(&name).ok_or_else(|| no_record(""))?;
        let (values, mut errors, ignored) = self.check(module, record, at);
        for field in ignored {
            context.log.ignored_field(&name, &field);
        }
        // A field that was refused for its value is not also missing.
        let refused = |refusal: &Refusal| errors.iter().any(|e| e.details["api_name"] == refusal.details["api_name"]);
        let missing = module.missing(&values, own.is_none(), at).into_iter();
        let missing: Vec<Refusal> = missing.filter(|refusal| !refused(refusal)).collect();
        errors.extend(missing);
        errors.extend(module.duplicates(&values, own, at, &self.user_id));
        if errors.is_empty() { Ok(values) } else { Err(combined(errors)) }
    }

    pub(super) fn delete(&mut self, context: &mut Context<'_>) -> Answer {
        let ids: Vec<String> = match (context.captures.get(1), context.request.query("ids")) {
            (Some(id), _) => vec![id.clone()],
            (None, Some(ids)) if !ids.is_empty() => ids.split(',').map(str::to_owned).collect(),
            _ => {
                let details = json!({ "param_name": "ids" });
                return Refusal::new("REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", details).answer(400);
            }
        };
        if ids.len() > MOST_RECORDS {
            return limit_exceeded("ids");
        }
        if let Err(answer) = self.known_module(context.module()) {
            return answer;
        }
        let mut failed = 0;
        let mut results = Vec::new();
        for id in &ids {
            if self.erase(context.module(), id, false, &context.stamp(), context.changes) {
                results.push(json!({
                    "code": "SUCCESS", "details": { "id": id }, "message": "record deleted", "status": "success",
                }));
            } else {
                failed += 1;
                results.push(Refusal::new("INVALID_DATA", "record not deleted", json!({ "id": id })).to_json());
            }
        }
        let status = match failed {
            0 => 200,
            _ if failed == ids.len() => 400,
            _ => 207,
        };
        Answer::json(status, json!({ "data": results })).with_ids(ids)
    }

    /// The body of a write, in its envelope.
    fn accept(&mut self, context: &Context<'_>) -> Result<Body, Answer> {
        self.known_module(context.module())?;
        let Some(mut body) = context.request.json_object() else {
            let details = json!({ "expected_data_type": "jsonobject" });
            return Err(Refusal::new("INVALID_DATA", "body", details).answer(400));
        };
        let records = match body.remove("data") {
            Some(Value::Array(records)) if !records.is_empty() => records,
            None => {
                let details = json!({ "api_name": "data", "json_path": "$.data" });
                return Err(Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details).answer(400));
            }
            Some(_) => {
                let details = json!({ "expected_data_type": "jsonarray", "api_name": "data" });
                return Err(Refusal::new("INVALID_DATA", "data", details).answer(400));
            }
        };
        if records.len() > MOST_RECORDS {
            return Err(limit_exceeded("data"));
        }
        let unmodified_since = match context.request.header("If-Unmodified-Since") {
            None => None,
            Some(text) => Some(parse_time(text).ok_or_else(|| {
                let details = json!({ "header": "If-Unmodified-Since" });
                Refusal::new("INVALID_DATA", "the header given seems to be invalid", details).answer(400)
            })?),
        };
        Ok(Body { records, unmodified_since, duplicate_check_fields: body.remove("duplicate_check_fields") })
    }
}

/// The body of a write.
struct Body {
    records: Vec<Value>,
    unmodified_since: Option<DateTime<Utc>>,
    duplicate_check_fields: Option<Value>,
}

fn id_of(record: &Values) -> Option<String> {
    match record.get("id")? {
        Value::String(id) if !id.is_empty() => Some(id.clone()),
        Value::Number(id) => Some(id.to_string()),
        _ => None,
    }
}

fn no_record(id: &str) -> Refusal {
    Refusal::new("INVALID_DATA", "the id given seems to be invalid", json!({ "id": id, "api_name": "id" }))
}

fn limit_exceeded(what: &str) -> Answer {
    let details = json!({ "maximum_length": MOST_RECORDS, "api_name": what });
    Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details).answer(400)
}

/// A refusal that a test scripted for this record.
fn scripted(record: &Values, context: &mut Context<'_>) -> Option<Refusal> {
    let module = context.captures.first().map_or("", String::as_str);
    let fault = context.faults.record_error(module, record, context.ids)?;
    let code = fault.code.as_ref().and_then(Value::as_str).unwrap_or("INVALID_DATA");
    let message = fault.message.as_deref().unwrap_or("invalid data");
    Some(Refusal::new(code, message, json!({ "api_name": fault.field })))
}
