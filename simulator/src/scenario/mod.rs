#![doc = include_str!("../../SCENARIO.md")]

use std::{collections::BTreeMap, path::Path};

use serde::{Deserialize, Serialize};

mod bulk_read;
mod delivery;
mod seed;

pub use bulk_read::{BulkRead, Dialect};
pub use delivery::{Body, Delivery, Encoding, Webhook};
pub use seed::Seed;

use crate::faults::FaultSpec;

/// Why a scenario could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file could not be read.
    #[error("cannot read the scenario {path}")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Not TOML, an unknown key, or a value of the wrong type.
    #[error("the scenario is not valid")]
    Parse(#[from] toml::de::Error),
    /// A value outside its range.
    #[error("the scenario is not valid: {0}")]
    Value(String),
}

/// What the simulated Zoho is like. The module's documentation describes the TOML form.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Scenario {
    /// Source of every chance and every made-up token.
    pub seed: u64,
    /// How many times as fast as Zoho's the clock of windows, blocks and token lives runs; above 0.
    pub time_scale: f64,
    /// Whether the log of requests keeps their bodies.
    pub log_bodies: bool,
    /// Lowest and highest latency of an answer, in milliseconds of real time.
    pub latency_ms: [u64; 2],
    /// The organisation's zone, minutes east of UTC.
    pub utc_offset_minutes: i32,
    /// How many times as fast as real time Zoho's calendar clock runs; above 0. What it shows is the real time at
    /// the start.
    pub speed: f64,
    /// The name of the organisation's zone, which is only shown.
    pub time_zone: String,
    /// Whether "modified since" includes the very second; not documented.
    pub modified_since_inclusive: bool,
    /// The accounts server.
    pub oauth: Oauth,
    /// The finance products.
    pub finance: Finance,
    /// Inventory.
    pub inventory: Inventory,
    /// The CRM.
    pub crm: Crm,
    /// What happens to webhooks and notifications on their way.
    pub delivery: Delivery,
    /// Webhooks that are configured from the start.
    pub webhooks: Vec<Webhook>,
    /// Records that are there from the start.
    pub records: Vec<Seed>,
    /// Faults that are set from the start, tried in this order.
    pub faults: Vec<FaultSpec>,
}

/// The accounts server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Oauth {
    /// Made up if absent.
    pub client_id: Option<String>,
    /// Made up if absent.
    pub client_secret: Option<String>,
    /// Made up if absent.
    pub refresh_token: Option<String>,
    /// Life of an access token in Zoho's seconds.
    pub token_seconds: f64,
    /// Access tokens per window and refresh token.
    pub mints: usize,
    /// That window, in Zoho's seconds.
    pub mint_window_seconds: f64,
    /// Access tokens of one refresh token that live at once; a further one ends the oldest.
    pub live_tokens: usize,
    /// HTTP status of the refusal "Access Denied".
    pub throttle_status: u16,
}

/// The finance products.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Finance {
    /// Known organisation ids; empty: any.
    pub organizations: Vec<String>,
    /// Of several, the one that `GET /organizations` calls the user's default; absent: none.
    pub default_organization: Option<String>,
    /// Calls in any sliding minute of Zoho's.
    pub per_minute: usize,
    /// Whether an excess blocks the organisation, or is only recorded.
    pub block: bool,
    /// Length of a block in Zoho's seconds.
    pub block_seconds: f64,
    /// Calls in flight per organisation.
    pub in_flight: usize,
    /// Whether an excess in flight is refused, or only recorded.
    pub refuse_in_flight: bool,
    /// Calls per day of the organisation's zone.
    pub per_day: u64,
    /// The plan's name.
    pub plan: String,
    /// Whether a customer's `display_name` must be unique.
    pub unique_display_name: bool,
    /// Known custom fields by module, as API names; a module that is absent takes any.
    pub custom_fields: BTreeMap<String, Vec<String>>,
}

/// What is not documented of Inventory, and can be had both ways.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Inventory {
    /// Whether moving stock is an edit of the item: bumps its `last_modified_time` and tells its webhooks.
    pub stock_bumps: bool,
    /// Whether a PUT that changes nothing bumps `last_modified_time`.
    pub noop_bumps: bool,
    /// Whether list rows show custom fields, as `cf_…` columns.
    pub list_custom_fields: bool,
    /// Whether lists ignore `last_modified_time`, silently.
    pub ignore_modified_filter: bool,
}

/// The CRM.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Crm {
    /// Calls in flight.
    pub in_flight: usize,
    /// Of them, complex calls.
    pub heavy_in_flight: usize,
    /// Credits in any 24 hours of Zoho's.
    pub credits: u64,
    /// The edition's name.
    pub edition: String,
    /// Licensed users.
    pub users: u32,
    /// Whether an excess in flight is refused, or only recorded.
    pub refuse_in_flight: bool,
    /// How long the search index lags behind a write, in seconds of Zoho's clock.
    pub search_lag_seconds: f64,
    /// Most rows of one COQL call; the documentation says 200 and 2000.
    pub coql_rows: usize,
    /// Jobs that make files of a module's records.
    pub bulk_read: BulkRead,
    /// Custom modules.
    pub modules: Vec<String>,
    /// Fields added to, or replaced in, a module.
    pub fields: Vec<CrmField>,
}

/// A field of a CRM module.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CrmField {
    /// API name of the module.
    pub module: String,
    /// API name of the field.
    pub api_name: String,
    /// Zoho's word for the type; `text` if absent.
    #[serde(default = "text")]
    pub data_type: String,
    /// Whether two records may not share a value.
    #[serde(default)]
    pub unique: bool,
    /// Whether values that differ only in case are different; for unique fields.
    #[serde(default)]
    pub case_sensitive: bool,
    /// Whether a record cannot be created without it.
    #[serde(default)]
    pub mandatory: bool,
    /// Longest text, in characters.
    #[serde(default = "default_length")]
    pub length: usize,
    /// Allowed values of a picklist; empty: any text.
    #[serde(default)]
    pub pick_list: Vec<String>,
    /// The module a lookup points into.
    #[serde(default)]
    pub lookup: Option<String>,
}

fn text() -> String {
    "text".to_owned()
}

fn default_length() -> usize {
    255
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            seed: 1,
            time_scale: 1.0,
            log_bodies: false,
            latency_ms: [20, 60],
            utc_offset_minutes: 0,
            speed: 1.0,
            time_zone: "UTC".to_owned(),
            modified_since_inclusive: false,
            oauth: Oauth::default(),
            finance: Finance::default(),
            inventory: Inventory::default(),
            crm: Crm::default(),
            delivery: Delivery::default(),
            webhooks: Vec::new(),
            records: Vec::new(),
            faults: Vec::new(),
        }
    }
}

impl Default for Oauth {
    fn default() -> Self {
        Self {
            client_id: None,
            client_secret: None,
            refresh_token: None,
            token_seconds: 3600.0,
            mints: 10,
            mint_window_seconds: 600.0,
            live_tokens: 15,
            throttle_status: 200,
        }
    }
}

impl Default for Finance {
    fn default() -> Self {
        Self {
            organizations: Vec::new(),
            default_organization: None,
            per_minute: 100,
            block: true,
            block_seconds: 1800.0,
            in_flight: 10,
            refuse_in_flight: true,
            per_day: 10_000,
            plan: "Premium".to_owned(),
            unique_display_name: false,
            custom_fields: BTreeMap::new(),
        }
    }
}

impl Default for Crm {
    fn default() -> Self {
        Self {
            in_flight: 10,
            heavy_in_flight: 10,
            credits: 50_000,
            edition: "standard".to_owned(),
            users: 0,
            refuse_in_flight: true,
            search_lag_seconds: 2.0,
            coql_rows: 200,
            bulk_read: BulkRead::default(),
            modules: Vec::new(),
            fields: Vec::new(),
        }
    }
}

impl Scenario {
    /// Reads a scenario from TOML text.
    ///
    /// # Errors
    /// Unknown keys, wrong types, and values outside their range.
    pub fn from_toml(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.validate()?;
        Ok(scenario)
    }

    /// Reads a scenario from a TOML file.
    ///
    /// # Errors
    /// As [`Scenario::from_toml`], and a file that cannot be read.
    pub fn from_file(path: &Path) -> Result<Self, ScenarioError> {
        let text = std::fs::read_to_string(path).map_err(|source| ScenarioError::Read { path: path.display().to_string(), source })?;
        Self::from_toml(&text)
    }

    /// How far the CRM's search index is behind, by Zoho's clock.
    pub(crate) fn search_lag(&self) -> chrono::TimeDelta {
        let lag = std::time::Duration::try_from_secs_f64(self.crm.search_lag_seconds).unwrap_or_default();
        chrono::TimeDelta::from_std(lag).unwrap_or_default()
    }

    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), ScenarioError> {
        let refuse = |message: &str| Err(ScenarioError::Value(message.to_owned()));
        if !self.time_scale.is_finite() || self.time_scale <= 0.0 {
            return refuse("time_scale must be a number above 0");
        }
        if !self.crm.search_lag_seconds.is_finite() || self.crm.search_lag_seconds < 0.0 {
            return refuse("crm.search_lag_seconds must be a number of at least 0");
        }
        if !self.speed.is_finite() || self.speed <= 0.0 {
            return refuse("speed must be a number above 0");
        }
        if self.latency_ms[0] > self.latency_ms[1] {
            return refuse("latency_ms must be [lowest, highest]");
        }
        self.delivery.validate().map_err(ScenarioError::Value)?;
        for webhook in &self.webhooks {
            webhook.validate().map_err(ScenarioError::Value)?;
        }
        for seed in &self.records {
            seed.validate().map_err(ScenarioError::Value)?;
        }
        for fault in &self.faults {
            fault.validate().map_err(ScenarioError::Value)?;
        }
        Ok(())
    }
}
