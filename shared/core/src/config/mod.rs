//! The configuration file, `sluice.toml`: found, read, given types, and checked as far as that goes without a database or Zoho.
//!
//! Everything that is wrong is reported at once, each with its key, its line and what to do. What needs a look at the tables or at
//! Zoho (do columns exist, is a field unique) belongs to `sluice check`. Loading never changes the process's environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod connection;
pub mod environment;
pub mod field;
pub mod finding;
pub mod limits;
mod masked;
pub mod module;
pub mod network;
mod reader;
pub mod section;
mod source;
mod suggest;
pub mod sync;
pub mod trigger;
pub mod units;
mod validate;

pub use connection::Connection;
pub use environment::Environment;
pub use field::Field;
pub use finding::{Error, Finding};
pub use suggest::did_you_mean;
pub use sync::{Lane, Module, Product, Sync};

/// The name that is looked for, upwards from the current folder.
pub const FILE_NAME: &str = "sluice.toml";

/// The whole file, with defaults filled in. Serialising it masks every secret.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The file it came from; `None` for text parsed in memory.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// What is no mistake but worth a look; `sluice check` shows it.
    #[serde(skip)]
    pub notes: Vec<Finding>,
    /// Where the data is.
    pub database: section::Database,
    /// The producer's web server.
    pub http: section::Http,
    /// Zoho organisations.
    pub connections: BTreeMap<String, Connection>,
    /// What is kept in step.
    pub syncs: BTreeMap<String, Sync>,
    /// Where Zoho reports changes.
    pub webhooks: BTreeMap<String, trigger::Webhook>,
    /// Jobs by the clock.
    pub schedules: BTreeMap<String, trigger::Schedule>,
    /// Who is told when something is wrong.
    pub alerts: BTreeMap<String, trigger::Alert>,
    /// Queries that must return no rows.
    pub rules: BTreeMap<String, trigger::Rule>,
    /// Encryption at rest.
    pub security: section::Security,
    /// The worker's limits.
    pub worker: section::Worker,
    /// Backoff.
    pub retry: section::Retry,
    /// How long history is kept.
    pub retention: section::Retention,
    /// Log lines.
    pub log: section::Log,
}

impl Config {
    /// Reads `explicit`, or else the `sluice.toml` found upwards from the current folder, with the `.env` beside it. DATABASE_URL and
    /// SLUICE_KEY stand in for `[database] url` and `[security] key`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unreadable`], or [`Error::Invalid`] with every mistake.
    pub fn load(explicit: Option<&Path>) -> Result<Self, Error> {
        let file = match explicit {
            Some(file) => file.to_owned(),
            None => {
                let from = std::env::current_dir().map_err(|error| unreadable(Path::new("."), &error))?;
                find(&from).ok_or(Error::NotFound { from })?
            }
        };
        let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, &error))?;
        let mut config = Self::parse_named(&file.display().to_string(), &text, &Environment::beside(folder_of(&file))?)?;
        config.file = Some(file);
        Ok(config)
    }

    /// Reads a configuration from text, with the variables of `environment` alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every mistake.
    pub fn parse(text: &str, environment: &Environment) -> Result<Self, Error> {
        Self::parse_named(FILE_NAME, text, environment)
    }

    /// The folder of the file, where `.sluice/` and relative paths begin; the current folder for text parsed in memory.
    pub fn folder(&self) -> &Path {
        self.file.as_deref().map_or(Path::new("."), folder_of)
    }

    /// The JSON Schema of the file, for editors.
    pub fn schema() -> serde_json::Value {
        let mut schema = schemars::schema_for!(Self);
        schema.insert("title".to_owned(), FILE_NAME.into());
        schema.to_value()
    }

    /// The effective configuration with secrets masked, as JSON.
    pub fn to_masked_json(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_else(|_| unreachable!("a configuration is text, numbers, lists and maps with text keys"))
    }

    /// The effective configuration with secrets masked, as it would stand in the file.
    pub fn to_masked_toml(&self) -> String {
        let value = to_toml(self.to_masked_json()).unwrap_or(toml::Value::Table(toml::Table::new()));
        toml::to_string_pretty(&value).unwrap_or_else(|_| unreachable!("made of TOML's own values"))
    }

    fn parse_named(file: &str, text: &str, environment: &Environment) -> Result<Self, Error> {
        let mut source = source::parse(text, environment);
        let mut config: Option<Self> = reader::read(&mut source);
        if let Some(config) = &mut config {
            config.complete(environment);
            let (findings, notes) = validate::check(config, &source.written, &source.findings);
            source.findings.extend(findings);
            config.notes = notes;
        }
        match config {
            Some(config) if source.findings.is_empty() => Ok(config),
            _ => {
                source.findings.sort_by_key(|finding| finding.line.unwrap_or(usize::MAX));
                Err(Error::Invalid { file: file.to_owned(), findings: source.findings })
            }
        }
    }

    /// Fills in what comes from elsewhere, and reads `""` as absent where the contract shows it so.
    fn complete(&mut self, environment: &Environment) {
        for (name, sync) in &mut self.syncs {
            sync.name.clone_from(name);
        }
        let variable = |name: &str| environment.get(name).filter(|value| !value.is_empty()).map(secrecy::SecretString::from);
        self.database.url = self.database.url.take().or_else(|| variable("DATABASE_URL"));
        self.security.key = self.security.key.take().or_else(|| variable("SLUICE_KEY"));
        self.http.read_token = self.http.read_token.take().filter(|token| !secrecy::ExposeSecret::expose_secret(token).is_empty());
        self.log.file = self.log.file.take().filter(|file| !file.as_os_str().is_empty());
        let optional_texts = self.alerts.values_mut().map(|alert| &mut alert.body).chain(self.rules.values_mut().map(|rule| &mut rule.fix));
        for text in optional_texts.chain([&mut self.http.public_url]) {
            *text = text.take().filter(|text| !text.is_empty());
        }
    }
}

/// The `sluice.toml` in `from` or the nearest folder above it.
pub fn find(from: &Path) -> Option<PathBuf> {
    from.ancestors().map(|folder| folder.join(FILE_NAME)).find(|file| file.is_file())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    Error::Unreadable { path: path.to_owned(), reason: error.to_string() }
}

/// TOML has no null: what is absent is left out, and so are sections that hold nothing.
fn to_toml(value: serde_json::Value) -> Option<toml::Value> {
    use serde_json::Value;
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(fraction)) => fraction.into(),
            (None, None) => number.to_string().into(),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => toml::Value::Array(items.into_iter().filter_map(to_toml).collect()),
        Value::Object(entries) => {
            let entries: toml::Table = entries.into_iter().filter_map(|(key, value)| Some((key, to_toml(value)?))).collect();
            if entries.is_empty() {
                return None;
            }
            toml::Value::Table(entries)
        }
    })
}
