//! Everything the simulator knows, behind one lock; and what happens at the two moments that matter: a request's
//! arrival, and its commit.
//!
//! Must never wait: latency and faults in time are the server's business.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    admin,
    billing::{self, Billing},
    clock::{Clock, Zone, scaled},
    crm::{self, Crm},
    exchange::{Answer, Content, Product, Request},
    faults::{Drawn, Faults, Outage},
    finance,
    ids::Ids,
    inventory::Inventory,
    limits::{Excess, Flights, InFlight, Limits, Verdict},
    log::{Arrival, Log},
    oauth::Accounts,
    operations::{self, Captures, Operation},
    outgoing::{Change, Hand, Outgoing},
    scenario::Scenario,
};

/// Most organisations of a finance product that may exist.
const MOST_ORGANIZATIONS: usize = 100;

/// How long a workflow takes, by Zoho's calendar: the record's time is later than that of the write which it follows.
const WORKFLOW_TAKES: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    state: Mutex<State>,
    pub(crate) flights: Flights,
    pub(crate) shutdown: CancellationToken,
}

/// Everything the simulator knows.
#[derive(Debug)]
pub(crate) struct State {
    /// As it is now: the admin API may have changed it since the start.
    pub(crate) scenario: Scenario,
    at_start: Scenario,
    pub(crate) ids: Ids,
    pub(crate) accounts: Accounts,
    pub(crate) clock: Clock,
    pub(crate) billing: BTreeMap<String, Billing>,
    pub(crate) inventory: BTreeMap<String, Inventory>,
    pub(crate) outgoing: Outgoing,
    /// What changed since it was last told to anyone.
    pub(crate) changes: Vec<Change>,
    pub(crate) crm: Crm,
    pub(crate) limits: Limits,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
}

/// The products' records, by organisation where there are several.
#[derive(Debug)]
pub(crate) struct Products<'a> {
    pub(crate) billing: &'a mut BTreeMap<String, Billing>,
    pub(crate) inventory: &'a mut BTreeMap<String, Inventory>,
    pub(crate) crm: &'a mut Crm,
}

/// What was decided about a request at its arrival.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) number: u64,
    pub(crate) operation: Option<(&'static Operation, Captures)>,
    /// An answer that needs no commit: a limit, a wrong token, an unknown address.
    pub(crate) early: Option<Answer>,
    pub(crate) fault: Option<Drawn>,
    pub(crate) outage: Option<Outage>,
    pub(crate) latency: Duration,
}

impl Shared {
    /// # Errors
    /// Records of the scenario that cannot be made.
    pub(crate) fn new(scenario: Scenario, api_domain: String, shutdown: CancellationToken) -> Result<Self, String> {
        let mut ids = Ids::new(scenario.seed);
        let mut state = State {
            accounts: Accounts::new(&scenario, api_domain, &mut ids),
            clock: Clock::new(scenario.speed),
            billing: BTreeMap::new(),
            inventory: BTreeMap::new(),
            outgoing: Outgoing::new(&scenario),
            changes: Vec::new(),
            crm: Crm::new(&scenario, &mut ids),
            limits: Limits::default(),
            faults: Faults::new(&scenario.faults),
            log: Log::default(),
            at_start: scenario.clone(),
            scenario,
            ids,
        };
        admin::plant(&mut state)?;
        Ok(Self { state: Mutex::new(state), flights: Flights::default(), shutdown })
    }

    /// The state. A panic of another holder does not take the simulator down with it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The organisation or server that a request is counted against.
pub(crate) fn scope(request: &Request) -> String {
    match request.product() {
        // One meter for the organisation's finance products: the stricter of two readings (finance fact 3.4).
        Product::Billing | Product::Inventory => format!("finance:{}", request.organization().unwrap_or("none")),
        other => other.name().to_owned(),
    }
}

impl State {
    pub(crate) fn zone(&self) -> Zone {
        Zone::from_minutes(self.scenario.utc_offset_minutes)
    }

    /// Counts and judges a request whose headers have just been read.
    pub(crate) fn arrive(&mut self, request: &Request, raw_query: &str, scope: &str, in_flight: usize) -> Plan {
        let product = request.product();
        let operation = operations::find(request);
        let number = self.log.arrive(Arrival {
            at: request.arrived,
            method: &request.method,
            path: &request.path,
            query: &without_secrets(product, raw_query),
            product: product.name(),
            scope: scope.to_owned(),
            operation: operation.as_ref().map(|(operation, _)| operation.path),
        });
        let verdict = match product {
            Product::Billing | Product::Inventory => {
                self.limits.finance(scope, (request.arrived, self.clock.now()), in_flight, &self.scenario)
            }
            Product::Crm => Limits::crm(scope, in_flight, &self.scenario),
            Product::Oauth | Product::Admin | Product::Unknown => Verdict::default(),
        };
        for excess in &verdict.excesses {
            self.log.breach(number, excess);
        }
        self.note_unknown(operation.as_ref().map(|(operation, _)| *operation), request, number);
        let outage = self.faults.outage(product);
        let early = verdict.refusal.or_else(|| self.refuse(request, operation.as_ref().map(|(operation, _)| *operation), number));
        let fault = match (&early, outage) {
            (None, None) => self.faults.draw(request, &mut self.ids),
            _ => None,
        };
        if let Some(fault) = &fault {
            self.log.fault(number, fault.kind.name());
        } else if outage.is_some() {
            self.log.fault(number, "outage");
        }
        let [low, high] = self.scenario.latency_ms;
        let latency = Duration::from_micros(self.ids.between(low * 1_000, high * 1_000));
        Plan { number, operation, early, fault, outage, latency }
    }

    /// Judges a request by what it carries, when its body has been read. The guard counts it in its pool.
    pub(crate) fn weigh(&mut self, request: &Request, plan: &mut Plan, flights: &Flights) -> Option<InFlight> {
        if self.scenario.log_bodies && !matches!(request.product(), Product::Oauth | Product::Admin) {
            self.log.body(plan.number, &request.body);
        }
        if request.product() != Product::Crm {
            return None;
        }
        let (verdict, pool) = self.limits.crm_weight(request, flights, &self.scenario);
        for excess in &verdict.excesses {
            self.log.breach(plan.number, excess);
        }
        if plan.early.is_none() {
            plan.early = verdict.refusal;
        }
        pool
    }

    fn note_unknown(&mut self, operation: Option<&Operation>, request: &Request, number: u64) {
        let Some(operation) = operation else {
            self.log.unknown_operation(&request.method, &request.path);
            let detail = format!("{} {}", request.method, request.path);
            self.log.breach(number, &Excess { kind: "unknown_operation", detail });
            return;
        };
        for parameter in operations::unknown_parameters(operation, request) {
            self.log.unknown_parameter(operation.method, operation.path, parameter);
            let detail = format!("{} {} ?{parameter}", operation.method, operation.path);
            self.log.breach(number, &Excess { kind: "unknown_parameter", detail });
        }
    }

    /// What is refused before anything is looked at: unknown addresses, tokens, organisations.
    fn refuse(&mut self, request: &Request, operation: Option<&Operation>, number: u64) -> Option<Answer> {
        let product = request.product();
        let Some(operation) = operation else {
            return Some(if product == Product::Crm { crm::unknown_url() } else { finance::unknown_url() });
        };
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Zoho-oauthtoken "));
        let accepted = token.is_some_and(|token| self.accounts.accepts(token.trim(), request.arrived));
        match product {
            Product::Crm if token.is_none() => Some(crm::authentication_failure()),
            Product::Crm if !accepted => Some(crm::invalid_token()),
            Product::Billing | Product::Inventory if !accepted => Some(finance::unauthorized()),
            // Asked by whoever does not know his organisation yet (finance facts 1.2).
            Product::Billing | Product::Inventory if operation.action == operations::Action::Organizations => None,
            Product::Billing | Product::Inventory => {
                let id = request.organization().unwrap_or_default();
                let known = &self.scenario.finance.organizations;
                let fits = known.is_empty() || known.iter().any(|known| known == id);
                let room = self.has_organization(product, id) || self.billing.len().max(self.inventory.len()) < MOST_ORGANIZATIONS;
                if !id.is_empty() && fits && room {
                    return None;
                }
                self.log.breach(number, &Excess { kind: "organization", detail: format!("organisation {id:?}") });
                Some(finance::wrong_organization(id))
            }
            _ => None,
        }
    }

    /// The commit: carries a request out, in one step.
    pub(crate) fn commit(&mut self, plan: &Plan, request: &Request) -> Answer {
        let answer = match (&plan.early, &plan.operation) {
            (Some(answer), _) => return answer.clone(),
            (None, None) => return finance::unknown_url(),
            (None, Some((operation, captures))) => self.perform(operation, captures, request),
        };
        self.run_workflows(request);
        self.tell();
        let committed = request.method != "GET" && answer.status < 400 && error_code(&answer).is_none();
        self.log.carried_out(plan.number, committed, &answer.ids);
        answer
    }

    /// Carries out the scripted workflows on what a request has written. They run after its answer is made, and take their time.
    fn run_workflows(&mut self, request: &Request) {
        let written: Vec<_> = self
            .changes
            .iter()
            .filter(|change| change.workflow && change.operation != crate::outgoing::Operation::Delete)
            .cloned()
            .collect();
        for change in written {
            let Some((field, value)) = self.faults.rewrite(request, &change.module, &mut self.ids) else { continue };
            self.clock.advance(WORKFLOW_TAKES);
            admin::rewrite(self, &change, &field, value);
        }
    }

    /// Tells webhooks and channels what has changed.
    pub(crate) fn tell(&mut self) {
        let changes = std::mem::take(&mut self.changes);
        if !changes.is_empty() {
            self.outgoing.tell(&changes, &self.scenario, &self.crm, self.clock.now());
        }
    }

    fn perform(&mut self, operation: &Operation, captures: &Captures, request: &Request) -> Answer {
        match request.product() {
            Product::Oauth if operation.action == operations::Action::OauthToken => {
                self.accounts.token(request, &self.scenario, &mut self.ids)
            }
            Product::Oauth => self.accounts.revoke_by_client(request),
            Product::Billing | Product::Inventory => self.perform_finance(operation, captures, request),
            Product::Crm => {
                let mut context = crm::Context {
                    request,
                    captures,
                    scenario: &self.scenario,
                    ids: &mut self.ids,
                    log: &mut self.log,
                    faults: &mut self.faults,
                    changes: &mut self.changes,
                    now: self.clock.now(),
                    workflow: true,
                };
                self.crm.handle(operation.action, &mut context)
            }
            Product::Admin | Product::Unknown => finance::unknown_url(),
        }
    }

    fn perform_finance(&mut self, operation: &Operation, captures: &Captures, request: &Request) -> Answer {
        let id = request.organization().unwrap_or_default().to_owned();
        let now = self.clock.now();
        // The organisation's handlers need the rest of the state beside it.
        let mut inventory = match request.product() {
            Product::Inventory => Some(self.take_inventory(&id)),
            _ => None,
        };
        // Billing's handlers do not say what they changed: it is what the call is about.
        let about = billing::module_of(operation.action);
        let of_record = |billing: &BTreeMap<String, Billing>, key: Option<&String>| Some(billing.get(&id)?.record(about?, key?)?.clone());
        let before = of_record(&self.billing, captures.first());
        let mut context = finance::Context {
            request,
            captures,
            scenario: &self.scenario,
            ids: &mut self.ids,
            log: &mut self.log,
            changes: &mut self.changes,
            now,
        };
        let answer = match (&mut inventory, operation.action) {
            (_, operations::Action::Organizations) => finance::organizations(&context),
            (Some(inventory), action) => inventory.handle(action, &mut context),
            (None, action) => self.billing.entry(id.clone()).or_default().handle(action, &mut context),
        };
        if let Some(module) = about.filter(|_| answer.status < 400) {
            let after = of_record(&self.billing, answer.ids.first());
            self.changes.extend(billing::change(&id, module, answer.ids.first().map_or("", String::as_str), before, after));
        }
        if let Some(inventory) = inventory.filter(|_| !id.is_empty()) {
            self.inventory.insert(id, inventory);
        }
        answer
    }

    /// An organisation's Inventory, made if there was none; to be put back.
    pub(crate) fn take_inventory(&mut self, id: &str) -> Inventory {
        self.inventory.remove(id).unwrap_or_else(|| Inventory::new(id, self.clock.now(), &mut self.ids))
    }

    fn has_organization(&self, product: Product, id: &str) -> bool {
        match product {
            Product::Inventory => self.inventory.contains_key(id),
            _ => self.billing.contains_key(id),
        }
    }

    /// What an edit by a person needs, and the products to make it in.
    pub(crate) fn hand(&mut self, organization: &str, now: DateTime<Utc>) -> (Hand<'_>, Products<'_>) {
        let zone = self.zone();
        let search_lag = self.scenario.search_lag();
        let hand = Hand { zone, organization: organization.to_owned(), now, search_lag, ids: &mut self.ids, changes: &mut self.changes };
        (hand, Products { billing: &mut self.billing, inventory: &mut self.inventory, crm: &mut self.crm })
    }

    /// Notes the end of a request. `None`: the connection was closed without an answer.
    pub(crate) fn answered(&mut self, plan: &Plan, request: &Request, answer: Option<&mut Answer>) {
        let product = request.product();
        self.log.answered(plan.number, answer.as_ref().map(|answer| answer.status));
        let Some(answer) = answer else { return };
        if let Some(code) = error_code(answer) {
            self.log.refusal(format!("{}:{code}", product.name()));
        }
        if product.is_finance() && !matches!(answer.content, Content::Html(_)) {
            answer.headers.extend(self.limits.finance_headers(&scope(request), self.clock.now(), &self.scenario));
        }
        if product == Product::Crm {
            answer.headers.extend(self.limits.crm_headers(&self.scenario));
        }
        // Zoho has one clock: that of the records' times.
        if product != Product::Oauth {
            answer.headers.push(("Date", self.clock.now().format("%a, %d %b %Y %H:%M:%S GMT").to_string()));
        }
    }

    /// The length of Zoho's minute here.
    pub(crate) fn minute(&self) -> Duration {
        scaled(60.0, self.scenario.time_scale)
    }

    /// Forgets what was seen; with `records` also all records, faults and changed settings. Credentials and access
    /// tokens stay, and ids are not used again.
    pub(crate) fn reset(&mut self, records: bool, flights: &Flights) {
        self.log.clear();
        self.limits = Limits::default();
        self.accounts.forget_mints();
        self.faults.forget_applied();
        flights.reset();
        self.changes.clear();
        self.outgoing.reset(records, &self.at_start);
        if records {
            self.scenario = self.at_start.clone();
            self.faults = Faults::new(&self.scenario.faults);
            self.billing.clear();
            self.inventory.clear();
            self.clock.set_speed(self.scenario.speed);
            self.crm = Crm::new(&self.scenario, &mut self.ids);
            // they could be made when it started
            let _ = admin::plant(self);
        }
    }
}

/// Zoho's code of a refusal: a finance code that is not 0, a CRM code, or an OAuth error.
fn error_code(answer: &Answer) -> Option<String> {
    let Content::Json(body) = &answer.content else {
        return None;
    };
    match (body.get("error"), body.get("code")) {
        (Some(Value::String(error)), _) => Some(error.clone()),
        (_, Some(Value::Number(code))) if code.as_i64() != Some(0) => Some(code.to_string()),
        (_, Some(Value::String(code))) if code != "SUCCESS" => Some(code.clone()),
        _ => None,
    }
}

/// A query string for the log: that of the accounts server may hold secrets.
fn without_secrets(product: Product, query: &str) -> String {
    if product == Product::Oauth && !query.is_empty() { "(hidden)".to_owned() } else { query.to_owned() }
}
