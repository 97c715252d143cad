//! One sync: a local table or view on one side, a module of a Zoho product on the other (`[syncs.NAME]`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::field::{Conflict, Fields};
pub use super::module::{Module, Product};
use super::units::{self, Limit};

/// A sync as it stands in the file, with defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sync {
    /// The name in `[syncs.NAME]`; set by the loader.
    #[serde(skip)]
    pub name: String,
    /// The connection, a name of `[connections]`.
    pub connection: String,
    /// The local table or view, with its schema where it is not on the search path.
    pub table: String,
    /// The column, or columns, that identify a row.
    pub key: Key,
    /// `product/module`, such as `billing/customers`.
    pub module: Module,
    /// Which way changes go.
    #[serde(default)]
    pub direction: Direction,
    /// SQL over the row: only rows for which it is true belong to the sync.
    #[serde(default)]
    pub when: Option<String>,
    /// What happens in Zoho to a row that stops matching `when`.
    #[serde(default)]
    pub when_false: WhenFalse,
    /// What happens to a field that changed on both sides.
    #[serde(default)]
    pub conflict: Conflict,
    /// What happens in Zoho when the row is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
    /// For `on_delete = "mark"`: Zoho field → the value to set.
    #[serde(default)]
    pub mark: BTreeMap<String, Value>,
    /// Pulls only: whether a Zoho record that no row is linked to becomes a new row. Default true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub inserts: bool,
    /// Pushes only: whether a row that has no Zoho record becomes a new one. Default true.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub creates: bool,
    /// Zoho fields by which an existing Zoho record is adopted instead of creating a second.
    #[serde(default)]
    pub match_on: Vec<String>,
    /// CRM: the Zoho field of a name, by which similar records are looked for before one is made. What is not clear waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_similar: Option<String>,
    /// The lane of this sync's row changes.
    #[serde(default)]
    pub lane: Lane,
    /// Local columns that tell the application how the sync went.
    #[serde(default)]
    pub writeback: Writeback,
    /// The Zoho field that carries our reference `<sync>:<key>`.
    #[serde(default)]
    pub reference: Option<String>,
    /// A record at rest is pushed at once, then not again within this time.
    #[serde(default = "two_seconds", with = "units::duration")]
    #[schemars(with = "String")]
    pub min_interval: Duration,
    /// A waiting job older than this moves up one lane (never above realtime). Absent: it stays.
    #[serde(default, with = "units::optional_duration")]
    #[schemars(with = "Option<String>")]
    pub fresh_within: Option<Duration>,
    /// Send `trigger: []` with CRM writes, so that no Zoho workflow runs.
    #[serde(default)]
    pub skip_workflows: bool,
    /// CRM: whether long lists are read by bulk jobs. Needs the scope `ZohoCRM.bulk.READ`.
    #[serde(default, skip_serializing_if = "BulkRead::is_default")]
    pub bulk_read: BulkRead,
    /// How much may change at once before a person is asked. Absent: anything, but for a truncate, which is always held.
    #[serde(default)]
    pub brake: Option<Brake>,
    /// How often both sides are compared as a whole. Absent: only when somebody asks.
    #[serde(default)]
    pub reconcile: Option<Reconcile>,
    /// Zoho field → where it comes from.
    #[serde(default)]
    pub fields: Fields,
    /// Pull only: local column → SQL over the Zoho record `zoho` (jsonb).
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Other tables whose changes concern this sync's records.
    #[serde(default)]
    pub watch: Vec<Watch>,
}

impl Sync {
    /// How many deletes may come at once: the brake's limit, else its default.
    pub fn max_deletes(&self) -> Limit {
        self.brake.map_or_else(fifty, |brake| brake.max_deletes)
    }

    /// Sha256, in hex, of the definition and its name. Independent of key order, spelling and defaults left out: two files that mean
    /// the same have the same hash, so replicas compare it to know whether they agree.
    pub fn definition_hash(&self) -> String {
        let definition =
            serde_json::to_value(self).unwrap_or_else(|_| unreachable!("a sync is text, numbers, lists and maps with text keys"));
        let named = serde_json::json!({ "name": self.name, "definition": definition });
        let mut canonical = String::new();
        write_canonical(&named, &mut canonical);
        Sha256::digest(canonical.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Settings that say when and how fast a sync works, or when it stops and asks, not what a record is to be like in Zoho.
const PACE: [&str; 8] = ["brake", "bulk_read", "fresh_within", "lane", "min_interval", "reconcile", "watch", "writeback"];

/// Whether a sync that was published as `before` makes of each row what `now` makes of it, so that nothing has to be pushed again.
pub fn sends_the_same(before: &Value, now: &Sync) -> bool {
    let mapping = |definition: Value| {
        let Value::Object(mut settings) = definition else { return String::new() };
        settings.retain(|name, _| !PACE.contains(&name.as_str()));
        let mut canonical = String::new();
        write_canonical(&Value::Object(settings), &mut canonical);
        canonical
    };
    serde_json::to_value(now).is_ok_and(|now| mapping(now) == mapping(before.clone()))
}

/// Compact JSON with sorted keys. Empty parts are left out, so that a new optional key does not change every hash on an upgrade.
fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().filter(|(_, value)| !is_empty(value)).collect();
            entries.sort_by_key(|(key, _)| key.as_str());
            out.push('{');
            for (index, (key, value)) in entries.into_iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                out.push_str(&Value::from(key.as_str()).to_string());
                out.push(':');
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index > 0 { "," } else { "" });
                write_canonical(item, out);
            }
            out.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => out.push_str(&value.to_string()),
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// The columns that identify a row; one, or several in this order. Written as a text or a list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Key(Vec<String>);

impl Key {
    /// The columns, in the order in which composite keys are written.
    pub fn columns(&self) -> &[String] {
        &self.0
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> de::Visitor<'de> for KeyVisitor {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a column's name or a list of them")
            }

            fn visit_str<E: de::Error>(self, column: &str) -> Result<Key, E> {
                Ok(Key(vec![column.to_owned()]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Key, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = list.next_element()? {
                    columns.push(column);
                }
                Ok(Key(columns))
            }
        }
        deserializer.deserialize_any(KeyVisitor)
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": { "type": "string" } }] })
    }
}

/// Which way changes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// From the database to Zoho.
    #[default]
    Push,
    /// From Zoho to the database.
    Pull,
    /// Both ways.
    Both,
}

impl Direction {
    /// Whether local changes go to Zoho.
    pub fn pushes(self) -> bool {
        matches!(self, Self::Push | Self::Both)
    }

    /// Whether Zoho's changes come to the database.
    pub fn pulls(self) -> bool {
        matches!(self, Self::Pull | Self::Both)
    }
}

/// Whether a list of CRM's is read to its end page by page, or by a bulk job, which costs what fifty pages do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BulkRead {
    /// By a bulk job where that is likely to be cheaper.
    #[default]
    Auto,
    /// By a bulk job as soon as a second page follows.
    Always,
    /// Page by page: for tokens without the scope.
    Never,
}

impl BulkRead {
    fn is_default(&self) -> bool {
        *self == Self::Auto
    }
}

/// What happens in Zoho when the local row is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnDelete {
    /// Nothing.
    #[default]
    Ignore,
    /// The fields in `mark` are set.
    Mark,
    /// The record is voided, where the module can.
    Void,
    /// The record is deleted.
    Delete,
}

/// What happens in Zoho to a row that stops matching `when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenFalse {
    /// It stays as it is, and is shown `held`.
    #[default]
    Keep,
    /// It is treated by `on_delete`.
    Delete,
}

/// How urgent work is; the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    /// A person waits: command line and dashboard.
    Interactive,
    /// Webhooks.
    Realtime,
    /// Row changes and polls.
    #[default]
    Normal,
    /// Comparison of both sides.
    Reconcile,
    /// Bulk runs.
    Backfill,
}

impl Lane {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 5] = [Self::Interactive, Self::Realtime, Self::Normal, Self::Reconcile, Self::Backfill];

    /// The name in configuration and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::Realtime => "realtime",
            Self::Normal => "normal",
            Self::Reconcile => "reconcile",
            Self::Backfill => "backfill",
        }
    }
}

/// Local columns that tell the application how the sync went. Each is optional; a refused write never fails the sync.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Writeback {
    /// Column for the Zoho id.
    #[serde(default)]
    pub id: Option<String>,
    /// Column for the status: pending, synced, retrying, failed, and syncing with `syncing = true`.
    #[serde(default)]
    pub status: Option<String>,
    /// Column for the time of the last success.
    #[serde(default)]
    pub synced_at: Option<String>,
    /// Column for the last error's text.
    #[serde(default)]
    pub error: Option<String>,
    /// Also write `syncing` while a call is under way, at the price of one more update per push.
    #[serde(default)]
    pub syncing: bool,
}

impl Writeback {
    /// Whether no column is written.
    pub fn is_empty(&self) -> bool {
        self.columns().next().is_none()
    }

    /// The columns that Sluice writes, and that therefore must not be mapped.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        [&self.id, &self.status, &self.synced_at, &self.error].into_iter().filter_map(|column| column.as_deref())
    }
}

/// How much may change within `per` before the rest is held for a person's approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Brake {
    /// Creates and updates. Absent: no limit.
    #[serde(default)]
    pub max_changes: Option<Limit>,
    /// Deletes (also marks and voids by `on_delete`). Default 50.
    #[serde(default = "fifty")]
    pub max_deletes: Limit,
    /// The window. Default 10 minutes.
    #[serde(default = "ten_minutes", with = "units::duration")]
    #[schemars(with = "String")]
    pub per: Duration,
}

/// A complete comparison of both sides, on a trickle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reconcile {
    /// Every record is compared at least this often. Default 7 days.
    #[serde(default = "a_week", with = "units::duration")]
    #[schemars(with = "String")]
    pub within: Duration,
    /// Pages of Zoho's list that may be asked for in a day (UTC). Default 200.
    #[serde(default = "two_hundred")]
    pub max_calls_per_day: u32,
}

/// Another table whose changes concern this sync's records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Watch {
    /// The table, with its schema where it is not on the search path.
    pub table: String,
    /// SQL over the changed row that yields this sync's key, or several.
    pub key: String,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_yes(given: &bool) -> bool {
    *given
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

fn a_week() -> Duration {
    Duration::from_secs(7 * 86_400)
}

fn two_hundred() -> u32 {
    200
}

fn fifty() -> Limit {
    Limit::Count(50)
}
