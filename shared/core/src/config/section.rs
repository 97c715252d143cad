//! The small sections of the file: database, HTTP, security, worker, retry, retention, log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::network::Network;
use super::{masked, units};

/// `[database]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Database {
    /// `postgres://…`. Absent: the variable DATABASE_URL; without it, `up` and `demo` start a server of their own.
    #[serde(serialize_with = "masked::address")]
    #[schemars(with = "Option<String>")]
    pub url: Option<SecretString>,
    /// A direct connection for LISTEN and `migrate`. Absent: `url`, and polling if that fails.
    #[serde(serialize_with = "masked::address")]
    #[schemars(with = "Option<String>")]
    pub listen_url: Option<SecretString>,
    /// What stands between Sluice and the server.
    pub pooler: Pooler,
    /// Connections per process, at most. Default 4.
    pub max_connections: u32,
    /// The role under which expressions of this file run. Absent: the worker's own.
    pub expression_role: Option<String>,
}

impl Default for Database {
    fn default() -> Self {
        Self { url: None, listen_url: None, pooler: Pooler::None, max_connections: 4, expression_role: None }
    }
}

/// What stands between Sluice and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing, or a pooler in session mode.
    #[default]
    None,
    /// A pooler that gives the connection away after each transaction: no session state, no LISTEN.
    Transaction,
}

/// `[http]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// Address and port of the producer's server. Default 127.0.0.1:8080.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Opens everything. Absent: one is made, kept as a hash, and printed once as a sign-in link.
    #[serde(serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub admin_token: Option<SecretString>,
    /// Opens what only looks. Absent or empty: there is none.
    #[serde(serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub read_token: Option<SecretString>,
    /// Serve /metrics without a token.
    pub metrics_open: bool,
    /// Host names that requests may be for. Empty: the listen address and localhost.
    pub hosts: Vec<String>,
    /// Where Zoho reaches us, for CRM notification channels.
    pub public_url: Option<String>,
    /// Origins of web pages that may call the API.
    pub cors: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed.
    pub trusted_proxies: Vec<Network>,
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_token: None,
            read_token: None,
            metrics_open: false,
            hosts: Vec::new(),
            public_url: None,
            cors: Vec::new(),
            trusted_proxies: Vec::new(),
        }
    }
}

/// `[security]`
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Security {
    /// 32 bytes, base64. Absent: the variable SLUICE_KEY; without it the file `.sluice/key`, which `up` and `demo` make.
    #[serde(serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub key: Option<SecretString>,
    /// Former keys, still read.
    #[serde(serialize_with = "masked::list")]
    #[schemars(with = "Vec<String>")]
    pub old_keys: Vec<SecretString>,
}

/// `[worker]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Worker {
    /// Batches that one process works on at once. Default 4.
    pub concurrency: u32,
    /// How long a claim lasts without a heartbeat. Default 30 s.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// How long one Zoho call may take. Default 30 s.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub request_timeout: Duration,
    /// How long a shutdown waits for what is under way. Default 25 s.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub grace: Duration,
}

impl Default for Worker {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { concurrency: 4, lease: seconds(30), request_timeout: seconds(30), grace: seconds(25) }
    }
}

/// `[retry]`: exponential backoff with full jitter between `base` and `cap`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Failures after which a job is a dead letter. Default 8.
    pub max_failures: u32,
    /// The first pause, at most. Default 1 s.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub base: Duration,
    /// The longest pause. Default 1 h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub cap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { max_failures: 8, base: Duration::from_secs(1), cap: Duration::from_secs(3600) }
    }
}

/// `[retention]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days for which history is kept. Default 90.
    pub days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self { days: 90 }
    }
}

/// `[log]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A file, relative to the configuration's folder. Absent or empty: standard error.
    pub file: Option<PathBuf>,
    /// When a new file is begun.
    pub rotate: Rotation,
    /// Files that are kept. Default 7.
    pub keep: usize,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, file: None, rotate: Rotation::Daily, keep: 7 }
    }
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// When a new log file is begun (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Rotation {
    /// At midnight.
    #[default]
    Daily,
    /// Every hour.
    Hourly,
    /// Never; something else rotates it.
    Never,
}
