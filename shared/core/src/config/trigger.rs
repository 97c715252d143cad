//! What sets work off besides row changes, and what watches over it: webhooks, schedules, alerts, rules.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::network::Network;
use super::sync::Lane;
use super::{masked, units};

/// `[webhooks.NAME]`, served at `POST /webhook/NAME`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// The connection that the events come from.
    pub connection: String,
    /// How an event proves where it comes from.
    pub verify: Verify,
    /// What it proves it with.
    #[serde(serialize_with = "masked::secret")]
    #[schemars(with = "String")]
    pub secret: SecretString,
    /// What happens to an event that proves nothing.
    #[serde(default)]
    pub mode: Mode,
    /// The sync that all events concern; or `syncs`.
    #[serde(default)]
    pub sync: Option<String>,
    /// Zoho module (as the event names it) → sync.
    #[serde(default)]
    pub syncs: BTreeMap<String, String>,
    /// The header (`secret-header`) or query parameter (`secret-query`) that carries the secret. Default X-Sluice-Secret.
    #[serde(default = "secret_header")]
    pub header: String,
    /// A second address, for one that is already set in Zoho.
    #[serde(default)]
    pub path: Option<String>,
    /// Addresses that events may come from. Empty: any.
    #[serde(default)]
    pub allow: Vec<Network>,
    /// Events a minute before 429. Default 600.
    #[serde(default = "six_hundred")]
    pub per_minute: u32,
    /// Bytes of a body before 413. Default 1 MiB.
    #[serde(default = "one_mebibyte", with = "units::size")]
    #[schemars(with = "String")]
    pub max_body: u64,
}

/// How a webhook event proves where it comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verify {
    /// Zoho's signature header over the body.
    ZohoSignature,
    /// The token of a CRM notification channel, in the body.
    CrmToken,
    /// A shared secret in a header.
    SecretHeader,
    /// A shared secret in the query.
    SecretQuery,
}

/// What happens to an event whose proof fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Stored with the verdict, and applied.
    Observe,
    /// Stored with the verdict, not applied.
    Quarantine,
    /// Refused with 401.
    #[default]
    Enforce,
}

/// `[schedules.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// When, in UTC: five fields, or six with seconds first.
    pub cron: String,
    /// What to enqueue.
    pub job: ScheduledJob,
    /// What happens to ticks that came while no producer ran.
    #[serde(default)]
    pub missed: Missed,
}

/// What happens to the ticks of a schedule that came while no producer ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Missed {
    /// One job stands for all of them.
    #[default]
    Once,
    /// They are left out.
    Skip,
}

/// A job as a schedule inserts it: `{ kind = "poll", sync = "items" }`. All keys but `kind` and `lane` are the job's args.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduledJob {
    /// The job kind.
    pub kind: String,
    /// Absent: `normal`.
    pub lane: Option<Lane>,
    /// The job's arguments.
    pub args: Map<String, Value>,
}

impl Serialize for ScheduledJob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = self.args.clone();
        all.insert("kind".to_owned(), self.kind.as_str().into());
        if let Some(lane) = self.lane {
            all.insert("lane".to_owned(), lane.as_str().into());
        }
        all.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ScheduledJob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut args = Map::<String, Value>::deserialize(deserializer)?;
        let kind = match args.remove("kind") {
            Some(Value::String(kind)) => kind,
            _ => {
                return Err(de::Error::custom("a job needs `kind`, a text; for example { kind = \"poll\", sync = \"items\" }"));
            }
        };
        let lane = args.remove("lane").map(|lane| serde_json::from_value(lane).map_err(de::Error::custom)).transpose()?;
        Ok(Self { kind, lane, args })
    }
}

impl JsonSchema for ScheduledJob {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ScheduledJob".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let lane = generator.subschema_for::<Lane>();
        schemars::json_schema!({
            "type": "object",
            "properties": { "kind": { "type": "string" }, "lane": lane },
            "required": ["kind"],
        })
    }
}

/// `[alerts.NAME]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// Where to post; Slack's, Discord's or a generic JSON form by the host. Or `smtp`.
    #[serde(default, serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// By e-mail instead.
    #[serde(default)]
    pub smtp: Option<Smtp>,
    /// What it tells of. Default: everything.
    #[serde(default = "every_occasion")]
    pub on: Vec<Occasion>,
    /// A template for the body, for HTTP mail services and the like. Absent or empty: the form the host understands.
    #[serde(default)]
    pub body: Option<String>,
}

/// A mail server and who writes to whom.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// The server.
    pub host: String,
    /// Default 587 (STARTTLS).
    #[serde(default = "submission_port")]
    pub port: u16,
    /// Absent: no sign-in.
    #[serde(default)]
    pub username: Option<String>,
    /// The password for `username`.
    #[serde(default, serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// The sender's address.
    pub from: String,
    /// The addresses it goes to.
    pub to: Vec<String>,
}

/// What an alert can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A job gave up.
    DeadLetter,
    /// A connection was paused.
    ConnectionPaused,
    /// A budget will not last its day.
    BudgetLow,
    /// Work is due and nothing moves.
    Stalled,
    /// Webhook events fail their verification.
    SignatureFailures,
    /// A mass change is held for a person.
    Brake,
    /// A field went to and fro between the sides and was parked.
    Flapping,
    /// A synced or watched table has no capture triggers (any more).
    Uncaptured,
}

impl Occasion {
    /// The name in configuration and in `sluice.alert`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeadLetter => "dead_letter",
            Self::ConnectionPaused => "connection_paused",
            Self::BudgetLow => "budget_low",
            Self::Stalled => "stalled",
            Self::SignatureFailures => "signature_failures",
            Self::Brake => "brake",
            Self::Flapping => "flapping",
            Self::Uncaptured => "uncaptured",
        }
    }
}

/// `[rules.NAME]`: a query that must return no rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The query; what it returns is wrong.
    pub sql: String,
    /// A statement that repairs it; runs only after a shown dry run. Absent or empty: none.
    #[serde(default)]
    pub fix: Option<String>,
    /// When it is checked, in UTC. Default every hour.
    #[serde(default = "hourly")]
    pub cron: String,
    /// How bad it is.
    #[serde(default)]
    pub severity: Severity,
}

/// How bad a broken rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// Worth a look.
    #[default]
    Warn,
    /// Wrong.
    Error,
}

fn secret_header() -> String {
    "X-Sluice-Secret".to_owned()
}

fn six_hundred() -> u32 {
    600
}

fn one_mebibyte() -> u64 {
    1 << 20
}

fn submission_port() -> u16 {
    587
}

fn every_occasion() -> Vec<Occasion> {
    use Occasion::{Brake, BudgetLow, ConnectionPaused, DeadLetter, Flapping, SignatureFailures, Stalled, Uncaptured};
    vec![DeadLetter, ConnectionPaused, BudgetLow, Stalled, SignatureFailures, Brake, Flapping, Uncaptured]
}

fn hourly() -> String {
    "0 * * * *".to_owned()
}
