//! Creates and upgrades the schema `sluice` from the files in `migrations/`, which are part of the binary.
//!
//! Not sqlx's own runner, because that takes a session-level advisory lock, which a transaction pooler loses. Here the lock is a
//! row: each migration is one transaction that locks row 0 of `sluice.migration` first, so of several runners one works and the
//! others find its work done. Forward only. It must never wait long for a lock that a caller's statements queue behind: every
//! wait is 200 ms at most, then it lets go and tries again later.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::migrate::{Migration, Migrator};
use sqlx::{Connection, Executor, PgConnection, Postgres, Row};

use super::Db;

/// The migrations of this binary.
pub static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations");

/// How long a migration keeps trying to get its locks.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(300);

/// Why the schema is not what this binary needs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The schema was upgraded by a later binary.
    #[error("the schema is at version {found}, but this binary knows versions up to {known} only: use a newer sluice")]
    Newer {
        /// The highest version that was applied.
        found: i64,
        /// The highest version that this binary has.
        known: i64,
    },
    /// A migration that was applied is not what this binary has under its number.
    #[error(
        "the schema `sluice` was made by another build: migration {version} ({description}) is not what this one has under its number. Use the build that made it; \
         or, where jobs, links and history may go, `drop schema sluice cascade` and migrate anew: your own tables stay, and records are matched with Zoho's again (`match_on`, `reference`)"
    )]
    Changed {
        /// Its number.
        version: i64,
        /// What this binary calls it.
        description: String,
    },
    /// Two migrations of this binary have one number.
    #[error("two migrations have the number {version}: {first} and {second}; one of them needs another")]
    Duplicate {
        /// The number.
        version: i64,
        /// What the one is called.
        first: String,
        /// What the other is called.
        second: String,
    },
    /// The schema is older than this binary.
    #[error("the schema lacks {missing} migration(s) of this binary: run `sluice migrate`")]
    Behind {
        /// How many are missing.
        missing: usize,
    },
    /// A lock could not be had in time.
    #[error("migration {version} could not get its locks within {LIMIT:?}: other transactions hold the tables")]
    Blocked {
        /// Its number.
        version: i64,
    },
    /// A migration failed and was rolled back.
    #[error("migration {version} ({description}) failed and was rolled back: {source}")]
    Failed {
        /// Its number.
        version: i64,
        /// What it is called.
        description: String,
        /// What the database said.
        source: sqlx::Error,
    },
    /// The database could not be asked.
    #[error("the schema's version could not be read: {0}")]
    Database(#[from] sqlx::Error),
}

/// Applies what is missing and returns the versions that *this* call applied.
///
/// Runs on a direct connection if the settings name one. Safe to run from many processes at once.
///
/// # Errors
/// See [`Error`]; all but `Behind`.
pub async fn run(db: &Db) -> Result<Vec<i64>, Error> {
    run_set(db, &MIGRATIONS).await
}

/// Like [`run`], with other migrations.
///
/// # Errors
/// As [`run`].
pub async fn run_set(db: &Db, set: &Migrator) -> Result<Vec<i64>, Error> {
    no_duplicates(set)?;
    let options = db.settings().direct()?.statement_cache_capacity(0);
    let mut connection = PgConnection::connect_with(&options).await?;
    let mut applied = Vec::new();
    if set.iter().next().is_none() {
        return Ok(applied);
    }
    let limit = Instant::now() + LIMIT;
    while !bookkeeping_exists(&mut connection).await? {
        match create_bookkeeping(&mut connection).await {
            Ok(()) => break,
            // A twin creates the same at this moment, or holds it locked.
            Err(error) if (is_lock_timeout(&error) || is_twin(&error)) && Instant::now() < limit => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    while let Some(version) = next(&mut connection, set, limit).await? {
        applied.push(version);
    }
    connection.close().await?;
    Ok(applied)
}

/// Whether the schema is exactly what this binary needs; changes nothing.
///
/// # Errors
/// [`Error::Behind`], [`Error::Newer`], [`Error::Changed`], [`Error::Database`].
pub async fn check(db: &Db) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    let all = MIGRATIONS.iter().count();
    let exists: bool = sqlx::query_scalar("select to_regclass('sluice.migration') is not null").fetch_one(&mut tx).await?;
    let done = if exists { read_applied(&mut tx).await? } else { Vec::new() };
    match missing(&MIGRATIONS, &done)? {
        None => Ok(()),
        Some(_) => Err(Error::Behind { missing: all - done.len() }),
    }
}

/// Applies the next missing migration, if there is one, waiting for other runners and for locks until `limit`.
async fn next(connection: &mut PgConnection, set: &Migrator, limit: Instant) -> Result<Option<i64>, Error> {
    loop {
        let mut tx = connection.begin().await?;
        // Through any pooler: the setting ends with the transaction.
        tx.execute("set local lock_timeout = '200ms'").await?;
        let outcome = match tx.execute("select from sluice.migration where version = 0 for update").await {
            Ok(_) => {
                let done = read_applied(&mut *tx).await?;
                let Some(migration) = missing(set, &done)? else {
                    return Ok(None);
                };
                (migration.version, apply(&mut tx, migration).await)
            }
            Err(error) => (0, Err(error)),
        };
        match outcome {
            (version, Ok(())) => {
                tx.commit().await?;
                return Ok(Some(version));
            }
            (version, Err(error)) if is_lock_timeout(&error) => {
                tx.rollback().await?;
                if Instant::now() > limit {
                    return Err(Error::Blocked { version });
                }
                tracing::info!(version, "waiting for a lock");
                tokio::time::sleep(PAUSE).await;
            }
            (version, Err(source)) => {
                let description = set.iter().find(|one| one.version == version).map_or("lock", |one| &one.description).to_owned();
                return Err(Error::Failed { version, description, source });
            }
        }
    }
}

async fn apply(tx: &mut PgConnection, migration: &Migration) -> Result<(), sqlx::Error> {
    tx.execute(sqlx::raw_sql(migration.sql.clone())).await?;
    sqlx::query("insert into sluice.migration (version, description, checksum) values ($1, $2, $3)")
        .persistent(false)
        .bind(migration.version)
        .bind(&*migration.description)
        .bind(&*migration.checksum)
        .execute(tx)
        .await?;
    Ok(())
}

async fn read_applied(executor: impl Executor<'_, Database = Postgres>) -> Result<Vec<(i64, Vec<u8>)>, sqlx::Error> {
    let rows = sqlx::query("select version, checksum from sluice.migration where version > 0 order by version")
        .persistent(false)
        .fetch_all(executor)
        .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// The first migration that was not applied, after a comparison of all that were.
fn missing<'a>(set: &'a Migrator, done: &[(i64, Vec<u8>)]) -> Result<Option<&'a Migration>, Error> {
    let known = set.iter().map(|one| one.version).max().unwrap_or(0);
    for (version, checksum) in done {
        match set.iter().find(|one| one.version == *version) {
            None => {
                return Err(Error::Newer { found: done.last().map_or(*version, |last| last.0), known });
            }
            Some(one) if *one.checksum != **checksum => {
                return Err(Error::Changed { version: *version, description: one.description.clone().into_owned() });
            }
            Some(_) => {}
        }
    }
    Ok(set.iter().find(|one| !done.iter().any(|(version, _)| *version == one.version)))
}

/// Which of two were applied could not be told by the number.
fn no_duplicates(set: &Migrator) -> Result<(), Error> {
    let mut names = BTreeMap::new();
    for one in set.iter() {
        if let Some(first) = names.insert(one.version, &one.description) {
            return Err(Error::Duplicate { version: one.version, first: first.to_string(), second: one.description.to_string() });
        }
    }
    Ok(())
}

async fn bookkeeping_exists(connection: &mut PgConnection) -> Result<bool, sqlx::Error> {
    let mut tx = connection.begin().await?;
    sqlx::query_scalar("select to_regclass('sluice.migration') is not null").persistent(false).fetch_one(&mut *tx).await
}

async fn create_bookkeeping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    tx.execute(
        "set local lock_timeout = '200ms';
         set local client_min_messages = warning;
         create schema if not exists sluice;
         create table sluice.migration (
             version     bigint      constraint migration_pkey primary key,
             description text        not null,
             checksum    bytea       not null,
             applied_at  timestamptz not null default clock_timestamp()
         );
         comment on table sluice.migration is
             'Which migrations were applied. Row 0 is none: whoever migrates holds it locked.';
         insert into sluice.migration values (0, 'lock', '')",
    )
    .await?;
    tx.commit().await
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    has_code(error, &["55P03", "40P01"])
}

fn is_twin(error: &sqlx::Error) -> bool {
    has_code(error, &["23505", "42P06", "42P07", "XX000"])
}

fn has_code(error: &sqlx::Error, codes: &[&str]) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| codes.contains(&&*code))
}
