//! What the finance products (Billing, Inventory) share: the envelope, the refusals, the checks of a body, the lists.
//!
//! Written from the finance facts, sections 2 and 6; where no source names an error code, the one chosen here is
//! marked *unverified*.

pub(crate) mod fields;
pub(crate) mod list;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value, json};

use crate::{
    clock::Zone,
    exchange::{Answer, Request},
    ids::Ids,
    log::Log,
    outgoing::Change,
    scenario::Scenario,
};

/// A record as a single read answers it.
pub(crate) type Record = Map<String, Value>;

/// What a handler may use besides the records.
pub(crate) struct Context<'a> {
    pub(crate) request: &'a Request,
    /// The path's captures: at most one here.
    pub(crate) captures: &'a [String],
    pub(crate) scenario: &'a Scenario,
    pub(crate) ids: &'a mut Ids,
    pub(crate) log: &'a mut Log,
    /// What has changed, in its order.
    pub(crate) changes: &'a mut Vec<Change>,
    /// Zoho's time at the commit.
    pub(crate) now: DateTime<Utc>,
}

impl Context<'_> {
    pub(crate) fn id(&self) -> &str {
        self.captures.first().map_or("", String::as_str)
    }

    pub(crate) fn zone(&self) -> Zone {
        Zone::from_minutes(self.scenario.utc_offset_minutes)
    }

    pub(crate) fn now(&self) -> Value {
        self.zone().finance_time(self.now).into()
    }

    pub(crate) fn today(&self) -> NaiveDate {
        self.zone().date(self.now)
    }

    pub(crate) fn body(&self) -> Result<Record, Refusal> {
        self.request.json_object().ok_or_else(|| Refusal::new(400, 1038, "JSON is not well formed"))
    }

    pub(crate) fn custom_fields(&self, module: &str) -> Option<&[String]> {
        self.scenario.finance.custom_fields.get(module).map(Vec::as_slice)
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.request.query(name) == Some("true")
    }
}

/// A refusal: HTTP status, Zoho's code, and its message.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: i64,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// Code 4: a value that cannot be (finance facts 6; the text is unverified).
    pub(crate) fn invalid(field: &str) -> Self {
        Self::new(400, 4, format!("Invalid value passed for {field}"))
    }

    /// Code 6: a mandatory field is missing (observed for another module; the text is unverified).
    pub(crate) fn missing(field: &str) -> Self {
        Self::new(400, 6, format!("The mandatory field {field} is missing"))
    }

    /// Code 1002 (finance facts 6).
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(404, 1002, format!("{what} does not exist."))
    }

    /// Code 1001 (finance facts 4.3).
    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self::new(400, 1001, message)
    }

    /// Code 1004, *unverified*: the record's state does not allow this.
    pub(crate) fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(400, 1004, message)
    }

    pub(crate) fn into_answer(self) -> Answer {
        Answer::json(self.status, json!({ "code": self.code, "message": self.message }))
    }
}

pub(crate) type Outcome = Result<Answer, Refusal>;

/// Code 5, for an address that is none.
pub(crate) fn invalid_url() -> Refusal {
    Refusal::new(404, 5, "Invalid URL Passed")
}

/// An answer to an address that is none.
pub(crate) fn unknown_url() -> Answer {
    invalid_url().into_answer()
}

/// Code 14, for a missing, wrong or expired access token.
pub(crate) fn unauthorized() -> Answer {
    Refusal::new(401, 14, "Invalid OAuth token").into_answer()
}

/// Code 6041, for an organisation that the user does not belong to, or none.
pub(crate) fn wrong_organization(id: &str) -> Answer {
    let message = format!("This user is not associated with the CompanyID/CompanyName:{id}.");
    Refusal::new(400, 6041, message).into_answer()
}

/// Code 57, for a scope or a right of the user's that is missing (finance facts 6).
pub(crate) fn denied() -> Answer {
    Refusal::new(401, 57, "You are not authorized to perform this operation").into_answer()
}

/// Code 1000 with a 5xx: an internal error.
pub(crate) fn internal_error(status: u16) -> Answer {
    Refusal::new(status, 1000, "Internal Error").into_answer()
}

/// The organisations of the user; the answer has no `page_context` (finance facts 2.2). A simulator that knows any organisation has one.
pub(crate) fn organizations(context: &Context<'_>) -> Answer {
    const ANY: &str = "60000000001";
    let finance = &context.scenario.finance;
    let known: Vec<&str> =
        if finance.organizations.is_empty() { vec![ANY] } else { finance.organizations.iter().map(String::as_str).collect() };
    let is_default = |id: &str| known.len() == 1 || finance.default_organization.as_deref() == Some(id);
    let rows: Vec<Value> = known
        .iter()
        .map(|id| json!({ "organization_id": id, "name": format!("Organisation {id}"), "is_default_org": is_default(id), "currency_code": "EUR", "plan_name": finance.plan, "time_zone": context.scenario.time_zone }))
        .collect();
    Answer::json(200, json!({ "code": 0, "message": "success", "organizations": rows }))
}

/// `{"code":0,"message":…,"<key>":{…}}`.
pub(crate) fn single(status: u16, message: &str, key: &str, record: &Record, id: &str) -> Answer {
    let body = json!({ "code": 0, "message": message, key: record });
    Answer::json(status, body).with_ids(vec![id.to_owned()])
}

/// `{"code":0,"message":…}`.
pub(crate) fn done(message: &str, id: &str) -> Answer {
    Answer::json(200, json!({ "code": 0, "message": message })).with_ids(vec![id.to_owned()])
}

pub(crate) fn text<'a>(record: &'a Record, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_default()
}
