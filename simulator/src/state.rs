//! Everything the simulator knows, behind one lock; and what happens at the two moments that matter: a request's
//! arrival, and its commit.
//!
//! Must never wait: latency and faults in time are the server's business.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    billing::{self, Billing},
    clock::{Zone, scaled},
    crm::{self, Crm},
    exchange::{Answer, Content, Product, Request},
    faults::{Drawn, Faults, Outage},
    ids::Ids,
    limits::{Excess, Flights, InFlight, Limits, Verdict},
    log::{Arrival, Log},
    oauth::Accounts,
    operations::{self, Captures, Operation},
    scenario::Scenario,
};

/// The header that names a Billing organisation (finance fact 1.2).
const ORGANIZATION: &str = "x-com-zoho-subscriptions-organizationid";
/// Most organisations of Billing that may exist.
const MOST_ORGANIZATIONS: usize = 100;

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
    pub(crate) billing: BTreeMap<String, Billing>,
    pub(crate) crm: Crm,
    pub(crate) limits: Limits,
    pub(crate) faults: Faults,
    pub(crate) log: Log,
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
    pub(crate) fn new(scenario: Scenario, api_domain: String, shutdown: CancellationToken) -> Self {
        let mut ids = Ids::new(scenario.seed);
        let state = State {
            accounts: Accounts::new(&scenario, api_domain, &mut ids),
            billing: BTreeMap::new(),
            crm: Crm::new(&scenario, &mut ids),
            limits: Limits::default(),
            faults: Faults::new(&scenario.faults),
            log: Log::default(),
            at_start: scenario.clone(),
            scenario,
            ids,
        };
        Self { state: Mutex::new(state), flights: Flights::default(), shutdown }
    }

    /// The state. A panic of another holder does not take the simulator down with it.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The organisation or server that a request is counted against.
pub(crate) fn scope(request: &Request) -> String {
    match request.product() {
        Product::Billing => format!("finance:{}", request.header(ORGANIZATION).unwrap_or("none")),
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
            Product::Billing => self.limits.finance(scope, request.arrived, in_flight, &self.scenario),
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
            return Some(if product == Product::Crm { crm::unknown_url() } else { billing::unknown_url() });
        };
        let token = request.header("authorization").and_then(|value| value.strip_prefix("Zoho-oauthtoken "));
        let accepted = token.is_some_and(|token| self.accounts.accepts(token.trim(), request.arrived));
        match product {
            Product::Crm if token.is_none() => Some(crm::authentication_failure()),
            Product::Crm if !accepted => Some(crm::invalid_token()),
            Product::Billing if !accepted => Some(billing::unauthorized()),
            // Asked by whoever does not know his organisation yet (finance facts 1.2).
            Product::Billing if operation.action == operations::Action::Organizations => None,
            Product::Billing => {
                let id = request.header(ORGANIZATION).unwrap_or_default();
                let known = &self.scenario.finance.organizations;
                let fits = known.is_empty() || known.iter().any(|known| known == id);
                let room = self.billing.contains_key(id) || self.billing.len() < MOST_ORGANIZATIONS;
                if !id.is_empty() && fits && room {
                    return None;
                }
                self.log.breach(number, &Excess { kind: "organization", detail: format!("organisation {id:?}") });
                Some(billing::wrong_organization(id))
            }
            _ => None,
        }
    }

    /// The commit: carries a request out, in one step.
    pub(crate) fn commit(&mut self, plan: &Plan, request: &Request) -> Answer {
        let answer = match (&plan.early, &plan.operation) {
            (Some(answer), _) => return answer.clone(),
            (None, None) => return billing::unknown_url(),
            (None, Some((operation, captures))) => self.perform(operation, captures, request),
        };
        let committed = request.method != "GET" && answer.status < 400 && error_code(&answer).is_none();
        self.log.carried_out(plan.number, committed, &answer.ids);
        answer
    }

    fn perform(&mut self, operation: &Operation, captures: &Captures, request: &Request) -> Answer {
        match request.product() {
            Product::Oauth if operation.action == operations::Action::OauthToken => {
                self.accounts.token(request, &self.scenario, &mut self.ids)
            }
            Product::Oauth => self.accounts.revoke_by_client(request),
            Product::Billing => {
                let organization = request.header(ORGANIZATION).unwrap_or_default().to_owned();
                let mut context = billing::Context { request, captures, scenario: &self.scenario, ids: &mut self.ids, log: &mut self.log };
                if operation.action == operations::Action::Organizations {
                    return Billing::default().handle(operation.action, &mut context);
                }
                self.billing.entry(organization).or_default().handle(operation.action, &mut context)
            }
            Product::Crm => {
                let mut context = crm::Context {
                    request,
                    captures,
                    scenario: &self.scenario,
                    ids: &mut self.ids,
                    log: &mut self.log,
                    faults: &mut self.faults,
                };
                self.crm.handle(operation.action, &mut context)
            }
            Product::Admin | Product::Unknown => billing::unknown_url(),
        }
    }

    /// Notes the end of a request. `None`: the connection was closed without an answer.
    pub(crate) fn answered(&mut self, plan: &Plan, request: &Request, answer: Option<&mut Answer>) {
        let product = request.product();
        self.log.answered(plan.number, answer.as_ref().map(|answer| answer.status));
        let Some(answer) = answer else { return };
        if let Some(code) = error_code(answer) {
            self.log.refusal(format!("{}:{code}", product.name()));
        }
        if product == Product::Billing && matches!(answer.content, Content::Json(_)) {
            answer.headers.extend(self.limits.finance_headers(&scope(request), &self.scenario));
        }
        if product == Product::Crm {
            answer.headers.extend(self.limits.crm_headers(&self.scenario));
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
        if records {
            self.scenario = self.at_start.clone();
            self.faults = Faults::new(&self.scenario.faults);
            self.billing.clear();
            self.crm = Crm::new(&self.scenario, &mut self.ids);
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
