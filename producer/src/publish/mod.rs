//! Publishes the configuration: tables that inserts are checked against and that tell replicas whether they agree.
//!
//! One transaction, one publisher at a time. It never pushes anything again by itself, never deletes a link or a waiting job, and
//! retires what the file no longer has only when told to.

use std::fmt;

use serde::Serialize;
use sluice_core::config::Config;
use sluice_core::db::{Db, Tx};
use sluice_sync::definition::{Finding, Level};

use crate::definitions::Definitions;

mod budget;
mod connection;
mod schedule;
mod sync;

pub use budget::adjust as adjust_budgets;
pub(crate) use sync::relation;
pub use sync::{Retyped, retyped};

/// Who publishes, and whether what the file no longer has is retired.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Retire syncs and connections that the file does not have: inserts are refused, waiting jobs held, links kept.
    pub retire: bool,
    /// Shown by `status` and `/ready`: a host's name.
    pub by: String,
}

/// What a publish did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Published {
    /// Empty if everything was published already.
    pub changes: Vec<Change>,
    /// What is no mistake but worth a look.
    pub warnings: Vec<String>,
}

/// One difference between what was published and the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `connection`, `sync`, `budget` or `schedule`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// What became of it.
    pub how: How,
}

/// What became of a published thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It is new.
    Added,
    /// It differs from what was published.
    Changed {
        /// Of a sync: how many linked records were pushed by the former mapping. They are not pushed again by themselves.
        linked: i64,
    },
    /// The file no longer has it.
    Retired,
    /// It had been retired.
    Returned,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, name, how } = self;
        match how {
            How::Added => write!(f, "{what} {name}: added"),
            How::Changed { linked: 0 } => write!(f, "{what} {name}: changed"),
            How::Changed { linked } => write!(
                f,
                "{what} {name}: changed; {linked} linked records keep what they have until their row changes (to push them now: sluice trigger {name} --force)"
            ),
            How::Retired => write!(f, "{what} {name}: retired; its links are kept"),
            How::Returned => write!(f, "{what} {name}: back from retirement"),
        }
    }
}

/// A published sync or connection that the file does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retirable {
    /// `connection` or `sync`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
    /// Of a sync: jobs and records that wait.
    pub waiting: i64,
    /// Of a sync: records with a Zoho record.
    pub linked: i64,
}

impl fmt::Display for Retirable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({} waiting, {} linked)", self.what, self.name, self.waiting, self.linked)
    }
}

/// Why nothing was published.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not fit the database.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Finding>),
    /// A schedule's cron expression cannot be read.
    #[error("schedules.{name}.cron: {message}")]
    Cron {
        /// The schedule.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// The file lacks what is published, and retiring was not asked for.
    #[error("the file no longer has: {}. Put it back, or retire it with --retire", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Retirable(Vec<Retirable>),
    /// The database refused or did not answer.
    #[error("the configuration could not be published: {0}")]
    Database(#[from] sqlx::Error),
}

/// Publishes `config` and says what changed. Safe to run from any number of processes at once; each waits at most 10 s for the other.
///
/// # Errors
/// See [`Error`]; nothing is published then.
pub async fn publish(db: &Db, config: &Config, options: &Options) -> Result<Published, Error> {
    let definitions = Definitions::proven(db, config).await?;
    let (errors, warnings): (Vec<_>, Vec<_>) = definitions.findings.iter().cloned().partition(|finding| finding.level == Level::Error);
    if !errors.is_empty() {
        return Err(Error::Invalid(errors));
    }
    let mut published = Published { changes: Vec::new(), warnings: warnings.iter().map(ToString::to_string).collect() };
    let mut tx = db.begin().await?;
    sqlx::query!("select set_config('lock_timeout', '10s', true)").fetch_one(&mut tx).await?;
    sqlx::query!("select pg_advisory_xact_lock(hashtextextended('sluice.publish', 0))").fetch_one(&mut tx).await?;
    retire(&mut tx, config, options, &mut published).await?;
    connection::publish(&mut tx, config, options, &mut published).await?;
    budget::publish(&mut tx, config, &mut published).await?;
    sync::publish(&mut tx, &definitions, options, &mut published).await?;
    schedule::publish(&mut tx, config, &mut published).await?;
    tx.commit().await?;
    Ok(published)
}

async fn retire(tx: &mut Tx, config: &Config, options: &Options, published: &mut Published) -> Result<(), Error> {
    let (syncs, connections): (Vec<String>, Vec<String>) =
        (config.syncs.keys().cloned().collect(), config.connections.keys().cloned().collect());
    let mut missing = sync::missing(tx, &syncs).await?;
    missing.extend(connection::missing(tx, &connections).await?);
    if missing.is_empty() {
        return Ok(());
    }
    if !options.retire {
        return Err(Error::Retirable(missing));
    }
    sqlx::query!("update sluice.sync set retired_at = clock_timestamp() where retired_at is null and name <> all ($1)", &syncs)
        .execute(&mut *tx)
        .await?;
    sqlx::query!("update sluice.connection set retired_at = clock_timestamp() where retired_at is null and name <> all ($1)", &connections)
        .execute(tx)
        .await?;
    published.changes.extend(missing.into_iter().map(|one| Change { what: one.what, name: one.name, how: How::Retired }));
    Ok(())
}

/// Sha256, in hex, of what two publishers must write alike to agree.
fn hash(value: &serde_json::Value) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(value.to_string().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
