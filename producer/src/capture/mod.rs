//! Capture triggers: installed by `attach`, removed by `detach`.
//!
//! They run no SQL of the user's. Each table is altered in a transaction of its own that never waits longer than
//! 200 ms for a lock, since whatever queues behind such a wait would stall the application.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use serde::Serialize;
use sluice_core::db::Db;
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_sync::catalog::{Kind, Table};

use crate::definitions::Definitions;
use crate::publish::relation;

mod store;

use store::Installed;

/// How long one table's lock is asked for, with pauses, before `attach` gives up and says who holds it.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(250);

/// What `attach` or `detach` did, table by table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Tables, partitions and tables that inherit whose triggers were made or made anew.
    pub installed: Vec<String>,
    /// Tables whose triggers were removed.
    pub removed: Vec<String>,
    /// Tables whose changes cannot be captured.
    pub uncaptured: Vec<Uncaptured>,
}

/// A table whose changes are not captured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Uncaptured {
    /// schema.name.
    pub table: String,
    /// Why, and what to do.
    pub why: String,
}

impl fmt::Display for Uncaptured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table, self.why)
    }
}

/// Why triggers could not be installed or removed. Tables done before stay done; the call can be repeated.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody holds a lock on the table.
    #[error("{table} is locked{}; end those transactions, or try again when they have ended", .holders.iter().map(|holder| format!("\n  {holder}")).collect::<String>())]
    Locked {
        /// schema.name.
        table: String,
        /// Who: process, user, program, how long, last statement.
        holders: Vec<String>,
    },
    /// The database refused or did not answer.
    #[error("the triggers of {table} could not be changed: {source}")]
    Database {
        /// schema.name.
        table: String,
        /// What it said.
        source: sqlx::Error,
    },
    /// The database could not be asked.
    #[error(transparent)]
    Asking(#[from] sqlx::Error),
}

/// Installs what lacks or differs, and removes what no sync needs any more. With `only`, nothing but the tables of these syncs is touched.
///
/// # Errors
/// See [`Error`].
pub async fn attach(db: &Db, definitions: &Definitions, only: &[String], patience: Duration) -> Result<Attached, Error> {
    let (wanted, uncaptured) = wanted(db, definitions, only).await?;
    let installed = store::installed(db).await?;
    let mut attached = Attached { uncaptured, ..Attached::default() };
    for (table, capture) in &wanted {
        if installed.get(table).is_none_or(|installed| !installed.is_whole(capture)) {
            change(db, table, patience, install(table, capture)).await?;
            attached.installed.push(table.to_string());
        }
    }
    if only.is_empty() {
        for (table, installed) in installed.iter().filter(|(table, _)| !wanted.contains_key(table)) {
            change(db, table, patience, remove(table, installed)).await?;
            attached.removed.push(table.to_string());
        }
        store::drop_unused(db).await?;
    }
    Ok(attached)
}

/// Removes all capture triggers, or those of the tables that only these syncs need.
///
/// # Errors
/// See [`Error`].
pub async fn detach(db: &Db, definitions: &Definitions, only: &[String], patience: Duration) -> Result<Attached, Error> {
    let needed = if only.is_empty() {
        BTreeMap::new()
    } else {
        let others: Vec<String> = definitions.by_name.keys().filter(|name| !only.contains(name)).cloned().collect();
        if others.is_empty() { BTreeMap::new() } else { wanted(db, definitions, &others).await?.0 }
    };
    let mut detached = Attached::default();
    for (table, installed) in store::installed(db).await?.iter().filter(|(table, _)| !needed.contains_key(table)) {
        change(db, table, patience, remove(table, installed)).await?;
        detached.removed.push(table.to_string());
    }
    store::drop_unused(db).await?;
    Ok(detached)
}

/// What `check` tells: tables without whole triggers, new partitions and tables that inherit among them, and tables that can have none.
///
/// # Errors
/// The database's.
pub async fn uncaptured(db: &Db, definitions: &Definitions) -> Result<Vec<Uncaptured>, sqlx::Error> {
    let (wanted, mut findings) = wanted(db, definitions, &[]).await?;
    findings.extend(without_triggers(db, wanted).await?);
    Ok(findings)
}

/// What a running producer tells, and `status`: tables that could be captured and are not, since they were made anew, or after the triggers were installed.
///
/// # Errors
/// The database's.
pub async fn lost(db: &Db, definitions: &Definitions) -> Result<Vec<Uncaptured>, sqlx::Error> {
    let (wanted, _) = wanted(db, definitions, &[]).await?;
    without_triggers(db, wanted).await
}

async fn without_triggers(db: &Db, wanted: BTreeMap<Target, Capture>) -> Result<Vec<Uncaptured>, sqlx::Error> {
    let mut findings = Vec::new();
    let installed = store::installed(db).await?;
    for (table, capture) in wanted {
        let why = match installed.get(&table) {
            Some(installed) if installed.is_whole(&capture) => continue,
            Some(_) => "its capture triggers are disabled, or made for an older configuration or other columns: run \"sluice attach\"",
            None if table.name_of_parent(&capture.arguments) => "it has no capture triggers: run \"sluice attach\"",
            None => {
                "this partition, or table that inherits, has no capture triggers, so changes made to it by its own name are not seen: run \"sluice attach\""
            }
        };
        findings.push(Uncaptured { table: table.to_string(), why: why.to_owned() });
    }
    Ok(findings)
}

/// A table that carries triggers: a synced or watched one, a partition of it, or one that inherits from it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    schema: String,
    name: String,
}

impl Target {
    fn ident(&self) -> Ident {
        Ident::qualified(&self.schema, &self.name)
    }

    fn name_of_parent(&self, arguments: &[String]) -> bool {
        arguments.first().is_some_and(|relation| *relation == self.to_string())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.schema, self.name)
    }
}

/// What is captured of a table, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Capture {
    /// What to call the table, then the columns to keep.
    arguments: Vec<String>,
    /// The functions that are made for the table's columns; a partition, or a table that inherits, has none.
    own: Option<Functions>,
}

/// A table's own functions.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Functions {
    /// Captures statements.
    statements: Function,
    /// Captures updates row by row, for a table that a statement changes alone: at half the price.
    updates: Option<Function>,
}

impl Capture {
    /// The table's own function for an event of [`TRIGGERS`], and whether it is called once a row; `None`: the general one.
    fn function(&self, event: &str) -> Option<(&Function, bool)> {
        let own = self.own.as_ref()?;
        match (event, &own.updates) {
            ("truncate", _) => None,
            ("update", Some(updates)) => Some((updates, true)),
            _ => Some((&own.statements, false)),
        }
    }
}

/// A generated function.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Function {
    name: String,
    source: String,
}

/// Every table that needs triggers.
async fn wanted(db: &Db, definitions: &Definitions, only: &[String]) -> Result<(BTreeMap<Target, Capture>, Vec<Uncaptured>), sqlx::Error> {
    let mut kept: BTreeMap<String, (&Table, BTreeSet<String>)> = BTreeMap::new();
    let mut asked: BTreeSet<String> = BTreeSet::new();
    let mut seen_through: BTreeSet<String> = BTreeSet::new();
    for definition in definitions.by_name.values() {
        let own = (&definition.table, definition.key.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
        let watches = definition.watches.iter().map(|watch| (&watch.table, watch.columns.names(&watch.table.column_names())));
        for (table, columns) in std::iter::once(own).chain(watches) {
            let name = relation(table);
            if only.is_empty() || only.iter().any(|sync| sync == definition.name()) {
                asked.insert(name.clone());
            }
            kept.entry(name).or_insert_with(|| (table, BTreeSet::new())).1.extend(columns);
        }
        if !definition.watches.is_empty() {
            seen_through.insert(relation(&definition.table));
        }
    }
    let names: BTreeSet<String> = kept.keys().cloned().collect();
    let mut targets = BTreeMap::new();
    let mut uncaptured = Vec::new();
    for (name, (table, columns)) in kept.into_iter().filter(|(name, _)| asked.contains(name)) {
        let own = Target { schema: table.schema.clone(), name: table.name.clone() };
        let arguments: Vec<String> = std::iter::once(name.clone()).chain(columns).collect();
        match table.kind {
            Kind::Table | Kind::Partitioned => {
                let functions = store::functions(db, &own, &arguments).await?;
                for (part, foreign) in store::parts(db, table).await? {
                    if foreign {
                        let why = "a foreign table that is a partition, or inherits, can have no capture trigger; changes made to it by its own name are not seen".to_owned();
                        uncaptured.push(Uncaptured { table: part.to_string(), why });
                    } else if part != own && names.contains(&part.to_string()) {
                        let why = format!(
                            "it is part of {name} and synced or watched by its own name as well: changes made by that name are not seen as changes of {name}"
                        );
                        uncaptured.push(Uncaptured { table: part.to_string(), why });
                    } else {
                        let functions = functions.clone().filter(|_| part == own);
                        targets.insert(part, Capture { arguments: arguments.clone(), own: functions });
                    }
                }
            }
            Kind::View | Kind::Foreign if seen_through.contains(&name) => {}
            Kind::View => uncaptured.push(Uncaptured {
                table: name,
                why: "a view has no triggers: add a `watch` on its tables, or it is read by schedule only".to_owned(),
            }),
            Kind::Foreign => uncaptured.push(Uncaptured {
                table: name,
                why: "a foreign table has no triggers that Sluice could use: it is read by schedule only".to_owned(),
            }),
        }
    }
    Ok((targets, uncaptured))
}

/// The four events, and the transition tables that are read in each.
const TRIGGERS: [(&str, &str, &str); 4] = [
    ("sluice_capture_insert", "insert", " referencing new table as new_rows"),
    ("sluice_capture_update", "update", " referencing old table as old_rows new table as new_rows"),
    ("sluice_capture_delete", "delete", " referencing old table as old_rows"),
    ("sluice_capture_truncate", "truncate", ""),
];

fn install(table: &Target, capture: &Capture) -> Vec<Sql> {
    let listed = |sql: Sql, arguments: &[String]| {
        let more = |sql: Sql, (index, argument): (usize, &String)| sql.text(if index > 0 { ", " } else { "" }).literal(argument);
        arguments.iter().enumerate().fold(sql, more)
    };
    let relation = capture.arguments.first().map_or("", String::as_str);
    // What follows changes the table anyway; taken first, the lock keeps two callers apart and the columns as they are.
    let lock = Sql::new("lock table ").ident(&table.ident()).text(" in share row exclusive mode");
    let make = capture.own.as_ref().map(|_| {
        let sql =
            Sql::new("select sluice.make_capture(").literal(table.ident().as_str()).text("::regclass, ").literal(relation).text(", array[");
        listed(sql, &capture.arguments[1..]).text("]::text[])")
    });
    let trigger = |(name, event, transition): (&'static str, &'static str, &'static str)| {
        let sql = Sql::new("create or replace trigger ").text(name).text(" after ").text(event).text(" on ").ident(&table.ident());
        let sql = match capture.function(event) {
            Some((function, true)) => sql.text(" for each row execute function ").ident(&Ident::qualified("sluice", &function.name)),
            Some((function, false)) => {
                sql.text(transition).text(" for each statement execute function ").ident(&Ident::qualified("sluice", &function.name))
            }
            None => sql.text(transition).text(" for each statement execute function sluice.capture"),
        };
        listed(sql.text("("), &capture.arguments).text(")")
    };
    // A disabled trigger stays disabled when it is replaced.
    let enable = |(name, _, _): (&'static str, _, _)| Sql::new("alter table ").ident(&table.ident()).text(" enable trigger ").text(name);
    std::iter::once(lock).chain(make).chain(TRIGGERS.into_iter().map(trigger)).chain(TRIGGERS.into_iter().map(enable)).collect()
}

fn remove(table: &Target, installed: &Installed) -> Vec<Sql> {
    installed.names().map(|name| Sql::new("drop trigger if exists ").ident(&Ident::name(name)).text(" on ").ident(&table.ident())).collect()
}

async fn change(db: &Db, table: &Target, patience: Duration, statements: Vec<Sql>) -> Result<(), Error> {
    let limit = Instant::now() + patience;
    loop {
        match try_change(db, &statements).await {
            Ok(()) => return Ok(()),
            Err(error) if is_locked(&error) => {
                let holders = store::holders(db, table).await?;
                if Instant::now() > limit {
                    return Err(Error::Locked { table: table.to_string(), holders });
                }
                tracing::info!(%table, ?holders, "waiting for a lock");
                tokio::time::sleep(PAUSE).await;
            }
            // It was dropped meanwhile, with its triggers.
            Err(error) if code(&error).as_deref() == Some("42P01") => return Ok(()),
            Err(source) => return Err(Error::Database { table: table.to_string(), source }),
        }
    }
}

async fn try_change(db: &Db, statements: &[Sql]) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query("set local lock_timeout = '200ms'").execute(&mut tx).await?;
    for statement in statements {
        dynamic::query(statement.clone()).execute(&mut tx).await?;
    }
    tx.commit().await
}

fn is_locked(error: &sqlx::Error) -> bool {
    matches!(code(error).as_deref(), Some("55P03" | "40P01"))
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(|error| error.code()).map(std::borrow::Cow::into_owned)
}
