//! What a command works with: the options, the configuration, the database. Each is got only by the commands that need it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use secrecy::{ExposeSecret, SecretString};
use sluice_core::config::section::{self, Log};
use sluice_core::config::{self, Config, Environment};
use sluice_core::db::{self, Db};
use sluice_core::{postgres, telemetry};

use crate::args::Options;

/// One run of the binary.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) options: Options,
}

/// Where a database is named, if it is.
pub(crate) enum Address {
    /// `[database] url`, or DATABASE_URL.
    Configured(SecretString),
    /// Nowhere: a server of our own, if one runs for this folder.
    Managed(PathBuf),
}

impl Session {
    pub(crate) fn new(options: Options) -> Self {
        Self { options }
    }

    /// The configuration; its absence is an error.
    pub(crate) fn config(&self) -> Result<Config, config::Error> {
        Config::load(self.options.config.as_deref())
    }

    /// The configuration, or an empty one where there is no file and none was named: enough to look into a database.
    pub(crate) fn config_or_none(&self) -> Result<Config, config::Error> {
        match self.config() {
            Err(config::Error::NotFound { .. }) if self.options.config.is_none() => {
                Config::parse("", &Environment::beside(Path::new("."))?)
            }
            other => other,
        }
    }

    /// Sets the log up. `shift` moves the verbosity that was asked for.
    pub(crate) fn log(&self, log: &Log, folder: &Path, shift: i8) -> Result<telemetry::Guard, telemetry::Error> {
        let count = |flags: u8| i8::try_from(flags).unwrap_or(i8::MAX);
        let verbosity = count(self.options.verbose).saturating_sub(count(self.options.quiet)).saturating_add(shift);
        telemetry::init(log, folder, verbosity)
    }

    /// The configuration and the database, whose schema must be this binary's.
    pub(crate) async fn open(&self) -> anyhow::Result<(Config, Db)> {
        let config = self.config()?;
        let db = self.database(&config).await?;
        Ok((config, db))
    }

    /// The database alone, for commands that only look into it or act on what stands there.
    pub(crate) async fn open_database(&self) -> anyhow::Result<(Config, Db)> {
        let config = self.config_or_none()?;
        let db = self.database(&config).await?;
        Ok((config, db))
    }

    async fn database(&self, config: &Config) -> anyhow::Result<Db> {
        let db = connect(config, &running(config)?, "sluice").await?;
        db::migrate::check(&db).await?;
        Ok(db)
    }
}

/// Where the configuration says the database is.
pub(crate) fn address(config: &Config) -> Address {
    match &config.database.url {
        Some(url) => Address::Configured(url.clone()),
        None => Address::Managed(config.folder().to_owned()),
    }
}

/// The address of a database that runs; this never starts one.
pub(crate) fn running(config: &Config) -> anyhow::Result<SecretString> {
    Ok(match address(config) {
        Address::Configured(url) => url,
        Address::Managed(folder) => postgres::address(&folder)?.into(),
    })
}

/// Opens the database at `url` in the way the configuration asks for. The name is shown in `pg_stat_activity`.
pub(crate) async fn connect(config: &Config, url: &SecretString, name: &str) -> anyhow::Result<Db> {
    let database = &config.database;
    let settings = db::Settings {
        url: url.clone(),
        listen_url: database.listen_url.clone(),
        pooler: match database.pooler {
            section::Pooler::None => db::Pooler::None,
            section::Pooler::Transaction => db::Pooler::Transaction,
        },
        max_connections: database.max_connections,
        application_name: name.to_owned(),
    };
    let shown = telemetry::mask_url(url.expose_secret());
    Db::connect(settings).await.with_context(|| format!("cannot reach the database at {shown}"))
}

/// The name that this process is published and shown under.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
