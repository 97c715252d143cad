//! Zoho CRM v8: records of any module, upsert with its duplicate rules, and the metadata a client needs.
//!
//! Written from the CRM facts. Single results stand in the order of the request; a 2xx does not mean that all of
//! them succeeded.

mod bulk;
mod changes;
mod check;
mod compare;
mod coql;
mod matching;
mod meta;
mod read;
mod rows;
mod search;
mod settings;
mod watch;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use crate::{
    clock::Zone,
    exchange::{Answer, Request},
    faults::Faults,
    ids::Ids,
    log::Log,
    operations::{Action, is_reserved_module},
    outgoing::Change,
    scenario::{CrmField, Scenario},
};
use changes::Stamp;
use meta::Field;
pub(crate) use watch::Channel;

/// Field values by API name.
pub(crate) type Values = Map<String, Value>;

/// One record. Times are kept to the second, as Zoho shows them.
#[derive(Clone, Debug)]
struct Record {
    values: Values,
    created: DateTime<Utc>,
    modified: DateTime<Utc>,
    /// Whether a person made the last change, not a client of the API.
    by_person: bool,
    /// The moment of the last change; the search index learns of it later.
    written: DateTime<Utc>,
    /// What the index knows until then; `None` if nothing.
    indexed: Option<Values>,
}

/// A record that was deleted, as the deleted list shows it.
#[derive(Clone, Debug)]
struct Deleted {
    id: String,
    name: Value,
    permanent: bool,
    at: DateTime<Utc>,
    by_person: bool,
}

/// One module with its records, oldest first.
#[derive(Debug)]
struct Module {
    name: String,
    id: String,
    fields: Vec<Field>,
    records: BTreeMap<String, Record>,
    /// Oldest first.
    deleted: Vec<Deleted>,
    /// Ids by value, for the fields that duplicates are looked for in.
    index: HashMap<String, HashMap<String, BTreeSet<String>>>,
}

/// A page that was promised: the parameters it is bound to, and where it starts.
#[derive(Debug)]
struct PageToken {
    parameters: String,
    offset: usize,
    expires: DateTime<Utc>,
}

/// What the CRM organisation holds.
#[derive(Debug)]
pub(crate) struct Crm {
    organization_id: String,
    user_id: String,
    person_id: String,
    modules: BTreeMap<String, Module>,
    page_tokens: BTreeMap<String, PageToken>,
    channels: BTreeMap<String, Channel>,
    bulk: bulk::Jobs,
}

/// What a handler may use besides the records.
pub(crate) struct Context<'a> {
    pub(crate) request: &'a Request,
    /// The path's captures: module, and id where there is one.
    pub(crate) captures: &'a [String],
    pub(crate) scenario: &'a Scenario,
    pub(crate) ids: &'a mut Ids,
    pub(crate) log: &'a mut Log,
    pub(crate) faults: &'a mut Faults,
    /// What has changed, in its order.
    pub(crate) changes: &'a mut Vec<Change>,
    /// Zoho's time at the commit.
    pub(crate) now: DateTime<Utc>,
    /// Whether workflow rules run for this write.
    pub(crate) workflow: bool,
}

impl<'a> Context<'a> {
    fn module(&self) -> &'a str {
        self.captures.first().map_or("", String::as_str)
    }

    fn id(&self) -> &'a str {
        self.captures.get(1).map_or("", String::as_str)
    }

    fn zone(&self) -> Zone {
        Zone::from_minutes(self.scenario.utc_offset_minutes)
    }
}

/// A refusal of a whole call, or of one record of it.
#[derive(Clone, Debug)]
struct Refusal {
    code: String,
    message: String,
    details: Value,
}

impl Refusal {
    fn new(code: &str, message: &str, details: Value) -> Self {
        Self { code: code.to_owned(), message: message.to_owned(), details }
    }

    fn to_json(&self) -> Value {
        json!({ "code": self.code, "details": self.details, "message": self.message, "status": "error" })
    }

    fn answer(&self, status: u16) -> Answer {
        Answer::json(status, self.to_json())
    }
}

impl Crm {
    pub(crate) fn new(scenario: &Scenario, ids: &mut Ids) -> Self {
        let mut crm = Self {
            organization_id: ids.record(),
            user_id: ids.record(),
            person_id: ids.record(),
            modules: BTreeMap::new(),
            page_tokens: BTreeMap::new(),
            channels: BTreeMap::new(),
            bulk: bulk::Jobs::default(),
        };
        let standard = meta::STANDARD_MODULES.iter().copied();
        for name in standard.chain(scenario.crm.modules.iter().map(String::as_str)) {
            crm.add_module(name, ids);
        }
        for field in &scenario.crm.fields {
            crm.set_field(field.clone(), ids);
        }
        crm
    }

    fn add_module(&mut self, name: &str, ids: &mut Ids) -> &mut Module {
        self.modules.entry(name.to_owned()).or_insert_with(|| Module::new(name, ids))
    }

    /// Adds a field, or replaces the one of that name; an unknown module is made.
    pub(crate) fn set_field(&mut self, field: CrmField, ids: &mut Ids) {
        let module = self.add_module(&field.module.clone(), ids);
        module.set_field(field, ids);
    }

    /// Carries out one documented operation.
    pub(crate) fn handle(&mut self, action: Action, context: &mut Context<'_>) -> Answer {
        match action {
            Action::CrmBulkRead => return self.create_bulk_read(context),
            Action::CrmBulkState => return self.bulk_read_state(context),
            Action::CrmBulkResult => return self.bulk_read_result(context),
            _ => {}
        }
        if is_reserved_module(context.module()) {
            return unknown_url();
        }
        context.workflow = changes::runs_workflows(context.request);
        match action {
            Action::CrmOrg => self.org(context),
            Action::CrmModules => self.list_modules(),
            Action::CrmFields => self.list_fields(context),
            Action::CrmFieldsCreate => self.create_fields(context),
            Action::CrmFieldsChange => self.change_fields(context),
            Action::CrmCoql => self.coql(context),
            Action::CrmWatch(verb) => self.watch(verb, context),
            Action::CrmSearch => self.search(context),
            Action::CrmDeleted => self.list_deleted(context),
            Action::CrmUpsert => self.upsert(context),
            Action::CrmCreate => self.create(context),
            Action::CrmUpdate | Action::CrmUpdateOne => self.update(context),
            Action::CrmList => self.list(context),
            Action::CrmGet => self.get(context),
            Action::CrmDelete | Action::CrmDeleteOne => self.delete(context),
            // Of another product.
            _ => unknown_url(),
        }
    }

    fn org(&self, context: &Context<'_>) -> Answer {
        let body = json!({ "org": [{
            "id": self.organization_id, "zgid": self.organization_id, "company_name": "Simulated", "type": "production",
            "time_zone": context.scenario.time_zone, "currency": "US Dollar", "iso_code": "USD", "domain_name": "simulated",
            "license_details": {
                "paid": true, "paid_type": context.scenario.crm.edition, "paid_expiry": null, "trial_type": null, "trial_expiry": null,
                "users_license_purchased": context.scenario.crm.users, "portal_users_license_purchased": 0,
            },
        }]});
        Answer::json(200, body)
    }

    /// The module of the path, or how Zoho refuses an unknown one.
    fn known_module(&mut self, name: &str) -> Result<&mut Module, Answer> {
        self.modules.get_mut(name).ok_or_else(|| {
            let details = json!({ "resource_path_index": 0 });
            Refusal::new("INVALID_MODULE", "the module name given seems to be invalid", details).answer(400)
        })
    }

    /// The names of all modules; this and the next two are for the admin API.
    pub(crate) fn module_names(&self) -> Vec<&str> {
        self.modules.keys().map(String::as_str).collect()
    }

    pub(crate) fn count(&self, module: &str) -> usize {
        self.modules.get(module).map_or(0, |module| module.records.len())
    }

    pub(crate) fn all(&self, module: &str, zone: Zone) -> Option<Vec<Value>> {
        let module = self.modules.get(module)?;
        Some(module.records.iter().map(|(id, record)| self.full(module, id, record, zone)).collect())
    }
}

/// INVALID_URL_PATTERN, for an address that is none.
pub(crate) fn unknown_url() -> Answer {
    let message = "Please check if the URL trying to access is a correct one";
    Refusal::new("INVALID_URL_PATTERN", message, json!({})).answer(404)
}

/// 401 for a token that is not, or no longer, valid.
pub(crate) fn invalid_token() -> Answer {
    Refusal::new("INVALID_TOKEN", "invalid oauth token", json!({})).answer(401)
}

/// 401 for a token without the scope (OAuth facts 1.7).
pub(crate) fn scope_mismatch() -> Answer {
    Refusal::new("OAUTH_SCOPE_MISMATCH", "Unauthorized", json!({})).answer(401)
}

/// 401 for a missing header, or another scheme than `Zoho-oauthtoken`.
pub(crate) fn authentication_failure() -> Answer {
    Refusal::new("AUTHENTICATION_FAILURE", "Authentication failed", json!({})).answer(401)
}

/// INTERNAL_ERROR with a 5xx.
pub(crate) fn internal_error(status: u16) -> Answer {
    Refusal::new("INTERNAL_ERROR", "Internal Server Error", json!({})).answer(status)
}
