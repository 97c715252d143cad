//! Scripted faults: which request is to go wrong, and how.
//!
//! Decides only; the server carries a fault out. The keys of a fault are described in [`crate::scenario`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::Notify;

use crate::{
    exchange::{Product, Request},
    ids::Ids,
};

/// Most faults that may be set at once.
const MOST_FAULTS: usize = 1_000;

/// What goes wrong.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A 5xx, and nothing has happened.
    ErrorBefore,
    /// A 5xx, although it has happened.
    ErrorAfter,
    /// A gateway's HTML page, and nothing has happened.
    Html,
    /// No answer ever, and nothing has happened.
    Timeout,
    /// No answer ever, although it has happened.
    TimeoutAfter,
    /// The connection is closed, and nothing has happened.
    DropBefore,
    /// The connection is closed, although it has happened.
    DropAfter,
    /// The connection is closed, and it happens a while later.
    DropLate,
    /// 401, as for a token that is no longer valid.
    Unauthorized,
    /// 401, as for a token that lacks the scope.
    Denied,
    /// 429.
    RateLimited,
    /// The true answer, late.
    Slow,
    /// An answer that was true when the request came, late; at once when all faults are cleared.
    SlowAfter,
    /// Single records of a CRM write are refused.
    RecordError,
    /// A list is answered as if there were nothing, by mistake.
    EmptyList,
    /// A workflow of Zoho's: a field of what was just written is changed.
    Rewrite,
}

impl FaultKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ErrorBefore => "error_before",
            Self::ErrorAfter => "error_after",
            Self::Html => "html",
            Self::Timeout => "timeout",
            Self::TimeoutAfter => "timeout_after",
            Self::DropBefore => "drop_before",
            Self::DropAfter => "drop_after",
            Self::DropLate => "drop_late",
            Self::Unauthorized => "unauthorized",
            Self::Denied => "denied",
            Self::RateLimited => "rate_limited",
            Self::Slow => "slow",
            Self::SlowAfter => "slow_after",
            Self::RecordError => "record_error",
            Self::EmptyList => "empty_list",
            Self::Rewrite => "rewrite",
        }
    }

    /// Whether it befalls a request as a whole, not single records of it.
    fn is_of_requests(self) -> bool {
        !matches!(self, Self::RecordError | Self::Rewrite)
    }
}

/// A fault as a scenario file or the admin API states it.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// What goes wrong.
    pub kind: FaultKind,
    /// `billing`, `inventory`, `crm` or `oauth`; absent: all but oauth.
    #[serde(default)]
    pub product: Option<String>,
    /// HTTP method; absent: any.
    #[serde(default)]
    pub method: Option<String>,
    /// Exact path, or a prefix when it ends in `*`; absent: any.
    #[serde(default)]
    pub path: Option<String>,
    /// Chance that a matching request is hit, 0 to 1.
    #[serde(default = "certain")]
    pub probability: f64,
    /// How many more hits; absent: without end.
    #[serde(default)]
    pub times: Option<u64>,
    /// HTTP status for `error_before`, `error_after` (500) and `html` (502).
    #[serde(default)]
    pub status: Option<u16>,
    /// For `drop_late`: milliseconds of real time until the commit.
    #[serde(default = "late")]
    pub delay_ms: u64,
    /// For `slow` and `slow_after`: lowest and highest additional latency.
    #[serde(default)]
    pub latency_ms: [u64; 2],
    /// For `rate_limited`: seconds to put into Retry-After.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// For `rate_limited` the finance code, for `record_error` the CRM code.
    #[serde(default)]
    pub code: Option<Value>,
    /// For `record_error`: API name of the module; absent: any. For `rewrite`: the module as the admin API calls it.
    #[serde(default)]
    pub module: Option<String>,
    /// For `record_error`: the field that is looked at. For `rewrite`: the one that is changed.
    #[serde(default)]
    pub field: Option<String>,
    /// For `record_error`: the value that makes the record fail. For `rewrite`: what the field becomes; `{n}` in a text counts.
    #[serde(default)]
    pub value: Option<Value>,
    /// For `record_error`: Zoho's message.
    #[serde(default)]
    pub message: Option<String>,
}

fn certain() -> f64 {
    1.0
}

fn late() -> u64 {
    3_000
}

impl FaultSpec {
    /// A fault of this kind that hits every call of Billing, Inventory and the CRM; narrow it by its fields.
    #[must_use]
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            product: None,
            method: None,
            path: None,
            probability: certain(),
            times: None,
            status: None,
            delay_ms: late(),
            latency_ms: [0, 0],
            retry_after: None,
            code: None,
            module: None,
            field: None,
            value: None,
            message: None,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err("a fault's probability must lie between 0 and 1".to_owned());
        }
        if self.times == Some(0) {
            return Err("a fault's times must be at least 1".to_owned());
        }
        if self.kind == FaultKind::RecordError && (self.field.is_none() || self.value.is_none()) {
            return Err("a record_error needs `field` and `value`".to_owned());
        }
        if self.kind == FaultKind::Rewrite && (self.module.is_none() || self.field.is_none() || self.value.is_none()) {
            return Err("a rewrite needs `module`, `field` and `value`".to_owned());
        }
        if self.status.is_some_and(|status| !(500..600).contains(&status)) {
            return Err("a fault's status must be a 5xx".to_owned());
        }
        match self.product.as_deref() {
            None | Some("billing" | "inventory" | "crm" | "oauth") => Ok(()),
            Some(other) => Err(format!("a fault's product is billing, inventory, crm or oauth, not {other}")),
        }
    }

    fn matches(&self, request: &Request) -> bool {
        let product = request.product();
        let product_fits = match &self.product {
            Some(name) => name == product.name(),
            // A run that breaks "everything" must not burn the few tokens of its ten minutes.
            None => {
                matches!(product, Product::Billing | Product::Inventory | Product::Crm)
                    || (product == Product::Oauth && self.path.is_some())
            }
        };
        let method_fits = self.method.as_ref().is_none_or(|method| method.eq_ignore_ascii_case(&request.method));
        let path_fits = self.path.as_ref().is_none_or(|path| match path.strip_suffix('*') {
            Some(prefix) => request.path.starts_with(prefix),
            None => *path == request.path,
        });
        let kind_fits = self.kind != FaultKind::EmptyList || request.method == "GET" || request.path.ends_with("/coql");
        product_fits && method_fits && path_fits && kind_fits
    }

    fn matches_record(&self, module: &str, record: &Map<String, Value>) -> bool {
        self.kind == FaultKind::RecordError
            && self.module.as_deref().is_none_or(|name| name == module)
            && self.field.as_ref().and_then(|field| record.get(field)) == self.value.as_ref()
    }
}

/// A fault drawn for one request, ready to be carried out.
#[derive(Clone, Debug)]
pub(crate) struct Drawn {
    pub(crate) kind: FaultKind,
    pub(crate) status: u16,
    pub(crate) retry_after: Option<u64>,
    pub(crate) code: Option<Value>,
    /// Until the late commit, or the additional latency.
    pub(crate) wait: Duration,
}

/// How a whole product is out of service.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outage {
    /// 503 with an HTML page.
    Unavailable,
    /// Connections are closed without an answer.
    Drop,
    /// Never answered.
    Timeout,
}

/// All that is set to go wrong at the moment.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    next_id: u64,
    set: VecDeque<(u64, FaultSpec)>,
    outages: BTreeMap<String, Outage>,
    applied: BTreeMap<&'static str, u64>,
    cleared: Arc<Notify>,
}

impl Faults {
    pub(crate) fn new(specs: &[FaultSpec]) -> Self {
        let mut faults = Self::default();
        for spec in specs {
            // A scenario with more faults than allowed keeps the first ones.
            let _ = faults.set(spec.clone());
        }
        faults
    }

    /// Adds a fault after the others and returns its number, by which it can be removed.
    pub(crate) fn set(&mut self, spec: FaultSpec) -> Result<u64, String> {
        spec.validate()?;
        if self.set.len() >= MOST_FAULTS {
            return Err(format!("at most {MOST_FAULTS} faults at once"));
        }
        self.next_id += 1;
        self.set.push_back((self.next_id, spec));
        Ok(self.next_id)
    }

    /// Starts the counts of what was applied again.
    pub(crate) fn forget_applied(&mut self) {
        self.applied.clear();
    }

    pub(crate) fn clear(&mut self) {
        self.set.clear();
        self.outages.clear();
        self.cleared.notify_waiters();
    }

    /// Told when all are cleared: what is late then waits no longer.
    pub(crate) fn cleared(&self) -> Arc<Notify> {
        Arc::clone(&self.cleared)
    }

    /// Removes one fault; false if there is none of that number.
    pub(crate) fn remove(&mut self, id: u64) -> bool {
        let before = self.set.len();
        self.set.retain(|(number, _)| *number != id);
        self.set.len() != before
    }

    pub(crate) fn set_outage(&mut self, product: &str, outage: Option<Outage>) {
        match outage {
            Some(outage) => self.outages.insert(product.to_owned(), outage),
            None => self.outages.remove(product),
        };
    }

    pub(crate) fn outage(&self, product: Product) -> Option<Outage> {
        self.outages.get(product.name()).copied()
    }

    /// The first fault that applies to this request, with its chance drawn and its count taken.
    pub(crate) fn draw(&mut self, request: &Request, ids: &mut Ids) -> Option<Drawn> {
        let position =
            self.set.iter().position(|(_, spec)| spec.kind.is_of_requests() && spec.matches(request) && hits(spec.probability, ids))?;
        let spec = self.use_up(position);
        let wait = match spec.kind {
            FaultKind::DropLate => spec.delay_ms,
            FaultKind::Slow | FaultKind::SlowAfter => ids.between(spec.latency_ms[0], spec.latency_ms[1]),
            _ => 0,
        };
        Some(Drawn {
            kind: spec.kind,
            status: spec.status.unwrap_or(if spec.kind == FaultKind::Html { 502 } else { 500 }),
            retry_after: spec.retry_after,
            code: spec.code,
            wait: Duration::from_millis(wait),
        })
    }

    /// The refusal scripted for a record of a CRM write, if any.
    pub(crate) fn record_error(&mut self, module: &str, record: &Map<String, Value>, ids: &mut Ids) -> Option<FaultSpec> {
        let position = self.set.iter().position(|(_, spec)| spec.matches_record(module, record) && hits(spec.probability, ids))?;
        Some(self.use_up(position))
    }

    /// What a workflow makes of a record of this module that the request wrote, if one is scripted: the field and its value.
    pub(crate) fn rewrite(&mut self, request: &Request, module: &str, ids: &mut Ids) -> Option<(String, Value)> {
        let fits = |spec: &FaultSpec| spec.kind == FaultKind::Rewrite && spec.module.as_deref() == Some(module) && spec.matches(request);
        let position = self.set.iter().position(|(_, spec)| fits(spec) && hits(spec.probability, ids))?;
        let spec = self.use_up(position);
        let times = self.applied.get(FaultKind::Rewrite.name()).copied().unwrap_or_default();
        let value = match spec.value? {
            Value::String(text) => Value::String(text.replace("{n}", &times.to_string())),
            other => other,
        };
        Some((spec.field?, value))
    }

    fn use_up(&mut self, position: usize) -> FaultSpec {
        let (_, spec) = &mut self.set[position];
        let used = spec.clone();
        *self.applied.entry(spec.kind.name()).or_default() += 1;
        if let Some(times) = &mut spec.times {
            *times = times.saturating_sub(1);
        }
        // A fault with no hits left is gone.
        if spec.times == Some(0) {
            self.set.remove(position);
        }
        used
    }

    pub(crate) fn applied(&self) -> &BTreeMap<&'static str, u64> {
        &self.applied
    }

    pub(crate) fn to_json(&self) -> Value {
        let rows = self.set.iter().map(|(id, spec)| {
            let mut row = serde_json::to_value(spec).unwrap_or(Value::Null);
            if let Value::Object(row) = &mut row {
                row.retain(|_, value| !value.is_null());
                row.insert("id".to_owned(), (*id).into());
            }
            row
        });
        serde_json::json!({ "faults": rows.collect::<Vec<_>>(), "outages": self.outages })
    }
}

fn hits(probability: f64, ids: &mut Ids) -> bool {
    // A certain fault draws nothing, so that adding one does not shift the others' chances.
    probability >= 1.0 || ids.chance(probability)
}
