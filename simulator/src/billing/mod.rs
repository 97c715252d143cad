//! Zoho Billing v1: customers, products, plans, subscriptions, invoices, payments, transactions and events.
//!
//! Written from Zoho's OpenAPI files and the finance facts; where no source names an error code, the one chosen here
//! is marked *unverified*. Nothing here waits or fails at random: faults are the server's business.

mod catalogue;
mod customers;
mod events;
mod fields;
mod invoices;
mod lines;
mod list;
mod payments;
mod subscriptions;

use std::collections::BTreeMap;

use chrono::{NaiveDate, Utc};
use serde_json::{Map, Value, json};

use crate::{
    clock::Zone,
    exchange::{Answer, Request},
    ids::Ids,
    log::Log,
    operations::Action,
    scenario::Scenario,
};

/// A record as a single read answers it.
pub(crate) type Record = Map<String, Value>;
/// The records of a module by id (plans: by code), oldest first.
type Records = BTreeMap<String, Record>;

/// What one organisation holds.
#[derive(Debug, Default)]
pub(crate) struct Billing {
    customers: Records,
    products: Records,
    plans: Records,
    subscriptions: Records,
    invoices: Records,
    payments: Records,
    events: Records,
    last_invoice_number: u64,
    last_payment_number: u64,
}

/// What a handler may use besides the records.
pub(crate) struct Context<'a> {
    pub(crate) request: &'a Request,
    /// The path's captures: at most one here.
    pub(crate) captures: &'a [String],
    pub(crate) scenario: &'a Scenario,
    pub(crate) ids: &'a mut Ids,
    pub(crate) log: &'a mut Log,
}

impl Context<'_> {
    fn id(&self) -> &str {
        self.captures.first().map_or("", String::as_str)
    }

    fn zone(&self) -> Zone {
        Zone::from_minutes(self.scenario.utc_offset_minutes)
    }

    fn now(&self) -> Value {
        self.zone().finance_time(Utc::now()).into()
    }

    fn today(&self) -> NaiveDate {
        self.zone().today()
    }

    fn body(&self) -> Result<Record, Refusal> {
        self.request.json_object().ok_or_else(|| Refusal::new(400, 1038, "JSON is not well formed"))
    }

    fn custom_fields(&self, module: &str) -> Option<&[String]> {
        self.scenario.finance.custom_fields.get(module).map(Vec::as_slice)
    }

    fn flag(&self, name: &str) -> bool {
        self.request.query(name) == Some("true")
    }
}

/// A refusal: HTTP status, Zoho's code, and its message.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: u16,
    code: i64,
    message: String,
}

impl Refusal {
    fn new(status: u16, code: i64, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    /// Code 4: a value that cannot be (finance facts 6; the text is unverified).
    fn invalid(field: &str) -> Self {
        Self::new(400, 4, format!("Invalid value passed for {field}"))
    }

    /// Code 6: a mandatory field is missing (observed for another module; the text is unverified).
    fn missing(field: &str) -> Self {
        Self::new(400, 6, format!("The mandatory field {field} is missing"))
    }

    /// Code 1002 (finance facts 6).
    fn not_found(what: &str) -> Self {
        Self::new(404, 1002, format!("{what} does not exist."))
    }

    /// Code 1001 (finance facts 4.3).
    fn exists(message: impl Into<String>) -> Self {
        Self::new(400, 1001, message)
    }

    /// Code 1004, *unverified*: the record's state does not allow this.
    fn not_allowed(message: impl Into<String>) -> Self {
        Self::new(400, 1004, message)
    }

    fn into_answer(self) -> Answer {
        Answer::json(self.status, json!({ "code": self.code, "message": self.message }))
    }
}

type Outcome = Result<Answer, Refusal>;

impl Billing {
    /// Carries out one documented operation.
    pub(crate) fn handle(&mut self, action: Action, context: &mut Context<'_>) -> Answer {
        let outcome = match action {
            Action::Customers(verb) => self.customer(verb, context),
            Action::Products(verb) => self.product(verb, context),
            Action::Plans(verb) => self.plan(verb, context),
            Action::Subscriptions(verb) => self.subscription(verb, context),
            Action::Invoices(verb) => self.invoice(verb, context),
            Action::Payments(verb) => self.payment(verb, context),
            Action::Transactions => self.transactions(context),
            Action::Events => Ok(self.list_events(context)),
            Action::Event => self.get_event(context),
            Action::Organizations => Ok(organizations(context)),
            Action::OauthToken
            | Action::OauthRevoke
            | Action::CrmOrg
            | Action::CrmFields
            | Action::CrmUpsert
            | Action::CrmCreate
            | Action::CrmUpdate
            | Action::CrmUpdateOne
            | Action::CrmList
            | Action::CrmGet
            | Action::CrmDelete
            | Action::CrmDeleteOne => Err(invalid_url()),
        };
        outcome.unwrap_or_else(Refusal::into_answer)
    }

    /// All records of a module, as single reads answer them; for the admin API.
    pub(crate) fn all(&self, module: &str) -> Option<Vec<&Record>> {
        self.module(module).map(|records| records.values().collect())
    }

    fn module(&self, name: &str) -> Option<&Records> {
        Some(match name {
            "customers" => &self.customers,
            "products" => &self.products,
            "plans" => &self.plans,
            "subscriptions" => &self.subscriptions,
            "invoices" => &self.invoices,
            "payments" => &self.payments,
            "events" => &self.events,
            _ => return None,
        })
    }

    /// Changes fields of a record as a person in Zoho would, without any check, or adds a record that is complete
    /// as given. Returns the record; `None` if there is no such module, or no record of the `id` given.
    pub(crate) fn put_by_hand(&mut self, module: &str, id: Option<&str>, given: Record, zone: Zone, ids: &mut Ids) -> Option<Record> {
        let (key, records) = match module {
            "customers" => ("customer_id", &mut self.customers),
            "products" => ("product_id", &mut self.products),
            "plans" => ("plan_code", &mut self.plans),
            "subscriptions" => ("subscription_id", &mut self.subscriptions),
            "invoices" => ("invoice_id", &mut self.invoices),
            "payments" => ("payment_id", &mut self.payments),
            _ => return None,
        };
        let now: Value = zone.finance_time(Utc::now()).into();
        let record = match id {
            Some(id) => records.get_mut(id)?,
            None => {
                let id = match given.get(key) {
                    Some(Value::String(id)) => id.clone(),
                    _ => ids.record(),
                };
                let record = records.entry(id.clone()).or_default();
                record.insert(key.to_owned(), id.into());
                record.insert("created_time".to_owned(), now.clone());
                record
            }
        };
        record.extend(given);
        record.insert("updated_time".to_owned(), now);
        Some(record.clone())
    }

    /// Deletes a record as a person in Zoho would, without any check.
    pub(crate) fn delete_by_hand(&mut self, module: &str, id: &str) -> bool {
        let records = match module {
            "customers" => &mut self.customers,
            "products" => &mut self.products,
            "plans" => &mut self.plans,
            "subscriptions" => &mut self.subscriptions,
            "invoices" => &mut self.invoices,
            "payments" => &mut self.payments,
            _ => return false,
        };
        records.remove(id).is_some()
    }
}

/// Modules that the admin API can name.
pub(crate) const MODULES: &[&str] = &["customers", "products", "plans", "subscriptions", "invoices", "payments", "events"];

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
fn organizations(context: &Context<'_>) -> Answer {
    const ANY: &str = "60000000001";
    let finance = &context.scenario.finance;
    let known: Vec<&str> =
        if finance.organizations.is_empty() { vec![ANY] } else { finance.organizations.iter().map(String::as_str).collect() };
    let is_default = |id: &str| known.len() == 1 || finance.default_organization.as_deref() == Some(id);
    let rows: Vec<Value> = known
        .iter()
        .map(|id| json!({ "organization_id": id, "name": format!("Organisation {id}"), "is_default_org": is_default(id), "currency_code": "EUR" }))
        .collect();
    Answer::json(200, json!({ "code": 0, "message": "success", "organizations": rows }))
}

/// `{"code":0,"message":…,"<key>":{…}}`.
fn single(status: u16, message: &str, key: &str, record: &Record, id: &str) -> Answer {
    let body = json!({ "code": 0, "message": message, key: record });
    Answer::json(status, body).with_ids(vec![id.to_owned()])
}

/// `{"code":0,"message":…}`.
fn done(message: &str, id: &str) -> Answer {
    Answer::json(200, json!({ "code": 0, "message": message })).with_ids(vec![id.to_owned()])
}

fn text<'a>(record: &'a Record, field: &str) -> &'a str {
    record.get(field).and_then(Value::as_str).unwrap_or_default()
}
