//! Reads rows through a mapping, as they are at that moment.
//!
//! One statement reads a whole batch, in a read-only transaction with a time limit and under the role for expressions. A row on
//! which an expression fails is found out and told apart; it never fails the others. Nothing here writes, and no value passes
//! through a float.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_core::db::dynamic::{self, Expression, Ident};
use sluice_core::db::{Db, Tx, message};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::definition::{Definition, KeyColumn, Watch};

mod blame;
mod decode;
mod fault;
mod hidden;
mod key;
mod probe;
mod pulled;
mod row;
mod statement;

use fault::{Fault, is_time_out};
pub use hidden::hidden_from;
pub use row::{Class, FieldValue, Parents, Problem, Ref, Row};
use statement::Part;

/// How long one statement with expressions of the configuration may take.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(5);

/// How long the search for the guilty rows of a batch may take. What is not told apart by then is [`Class::Unread`]: another row's error is not
/// its own, and a later run of fewer rows finds out. Parts of the batch that nobody has tried by then are tried once, for as long again.
pub const ISOLATION_LIMIT: Duration = Duration::from_secs(15);

/// What was found under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The row. It may have problems.
    Row(Row),
    /// No row has this key.
    Gone,
}

/// Why a batch could not be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The table or an expression no longer fits: nothing of this sync can be read until that is mended.
    #[error("the mapping cannot be read: {}", .problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect::<Vec<_>>().join("; "))]
    Broken {
        /// By field.
        problems: Vec<Problem>,
    },
    /// The database does not answer, or refuses for a reason that passes.
    #[error("the database could not be read")]
    Unavailable(#[from] sqlx::Error),
}

/// Reads rows through mappings.
#[derive(Debug, Clone)]
pub struct Reader {
    db: Db,
    role: Option<String>,
    statement_limit: Duration,
    isolation_limit: Duration,
}

impl Reader {
    /// Expressions run under `role` (`[database] expression_role`); none: the connection's own.
    pub fn new(db: Db, role: Option<String>) -> Self {
        Self { db, role, statement_limit: STATEMENT_LIMIT, isolation_limit: ISOLATION_LIMIT }
    }

    /// With other limits than [`STATEMENT_LIMIT`] and [`ISOLATION_LIMIT`].
    pub fn with_limits(self, statement_limit: Duration, isolation_limit: Duration) -> Self {
        Self { statement_limit, isolation_limit, ..self }
    }

    /// Reads the rows of these canonical keys. Every key is in the answer.
    ///
    /// # Errors
    /// [`Error::Broken`] when the mapping no longer fits the table, [`Error::Unavailable`] when the database does not answer. A bad
    /// row is no error: it carries its [`Problem`]s.
    pub async fn rows(&self, definition: &Definition, keys: &[String]) -> Result<BTreeMap<String, Found>, Error> {
        let mut found: BTreeMap<String, Found> = keys.iter().map(|key| (key.clone(), Found::Gone)).collect();
        let mut parts: Vec<Vec<String>> = vec![found.keys().cloned().collect()];
        let started = Instant::now();
        while let Some(keys) = parts.pop().filter(|keys| !keys.is_empty()) {
            if started.elapsed() > self.isolation_limit * 2 {
                found.extend(keys.into_iter().map(|key| (key.clone(), unread(key, NOT_IN_TIME))));
                continue;
            }
            match self.part(definition, Part::Whole, &keys).await {
                Ok(rows) => assemble(definition, rows, &mut found),
                Err(error) => match Fault::of(&error) {
                    Fault::Passing => return Err(error.into()),
                    Fault::Definition => return Err(self.explain(definition, error).await?),
                    // one row alone has no other to be taken for
                    Fault::Row | Fault::Elsewhere if keys.len() == 1 && (found.len() == 1 || started.elapsed() < self.isolation_limit) => {
                        for key in keys {
                            let row = self.alone(definition, &key, &error, started).await?;
                            found.insert(key, row);
                        }
                    }
                    Fault::Row | Fault::Elsewhere if started.elapsed() < self.isolation_limit => {
                        let (left, right) = keys.split_at(keys.len() / 2);
                        parts.extend([left.to_vec(), right.to_vec()]);
                    }
                    Fault::Row | Fault::Elsewhere => found.extend(keys.into_iter().map(|key| (key.clone(), unread(key, NOT_IN_TIME)))),
                },
            }
        }
        Ok(found)
    }

    /// Whether no row has this canonical key. No expression is asked.
    ///
    /// # Errors
    /// The database's, also when the key does not fit the column any more.
    pub async fn is_gone(&self, definition: &Definition, key: &str) -> Result<bool, sqlx::Error> {
        let rows = self.part(definition, Part::Fields(&[]), &[key.to_owned()]).await?;
        // one that is equal to it and written otherwise is another key's
        Ok(rows.iter().all(|row| under_another_form(row, key).is_some()))
    }

    /// The canonical keys after `after` in key order, at most `limit`: walk the table by giving the last one back. `filter` is SQL
    /// over the row. Rows for which `when` is false are included, since they may have to be withdrawn.
    ///
    /// # Errors
    /// When the filter is wrong or the database does not answer.
    pub async fn keys_after(
        &self,
        definition: &Definition,
        filter: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, sqlx::Error> {
        let filter = filter.map(Expression::from_configuration);
        let mut tx = self.begin().await?;
        let keys = dynamic::query_scalar::<String>(statement::keys(definition, filter.as_ref(), false))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut tx)
            .await?;
        tx.rollback().await?;
        Ok(keys)
    }

    /// The same with what `when` says of each row, and no other filter.
    ///
    /// # Errors
    /// When `when` fails on a row or the database does not answer.
    pub async fn keys_told_after(
        &self,
        definition: &Definition,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, bool)>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let keys = dynamic::query_as::<(String, bool)>(statement::keys(definition, None, true))
            .bind(after)
            .bind(i64::from(limit))
            .fetch_all(&mut tx)
            .await?;
        tx.rollback().await?;
        Ok(keys)
    }

    /// The canonical form of a key: each part cast to its column's type and back. `Err` in the result says why it is no key.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn canonical_key(&self, key: &[KeyColumn], text: &str) -> Result<Result<String, String>, sqlx::Error> {
        let parts: Option<Vec<serde_json::Value>> = serde_json::from_str(text).ok();
        let fits = parts.is_some_and(|parts| parts.len() == key.len() && !parts.iter().any(serde_json::Value::is_null));
        if key.len() > 1 && !fits {
            let columns: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
            return Ok(Err(format!("the key must be a JSON array of {} values: {}", columns.len(), columns.join(", "))));
        }
        let mut tx = self.begin().await?;
        let answer = dynamic::query_as::<(String, bool)>(statement::canonical_key(key)).bind(text).fetch_one(&mut tx).await;
        tx.rollback().await?;
        match answer {
            Ok((key, true)) => Ok(Ok(key)),
            Ok((_, false)) => {
                let types: Vec<&str> = key.iter().map(|column| column.type_name.as_str()).collect();
                Ok(Err(format!("the key {text} does not fit its column, which is {}", types.join(", "))))
            }
            Err(error) if matches!(Fault::of(&error), Fault::Passing) => Err(error),
            // also a type of the key's that is gone by now
            Err(error) => Ok(Err(message(&error))),
        }
    }

    /// The keys that a watch's expression yields for one state of a changed row, given the columns that it names as the JSON that
    /// capture kept. `Err` in the result is the expression's own error.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn watched_keys(&self, watch: &Watch, row: &serde_json::Value) -> Result<Result<Vec<String>, String>, sqlx::Error> {
        let table = Ident::qualified(&watch.table.schema, &watch.table.name);
        let mut tx = self.begin().await?;
        let answer = dynamic::query_scalar::<String>(statement::watched_keys(&Expression::from_configuration(&watch.key), &table))
            .bind(sqlx::types::Json(row))
            .fetch_all(&mut tx)
            .await;
        tx.rollback().await?;
        match answer {
            Ok(keys) => Ok(Ok(keys)),
            Err(error) if matches!(Fault::of(&error), Fault::Passing) => Err(error),
            Err(error) => Ok(Err(message(&error))),
        }
    }

    /// Lets the database prepare every expression of a definition, over no row at all: what it refuses here is wrong for every row. The
    /// problems' fields are `when`, `fields.…`, `columns.…` and `watch.TABLE`, or `table` alone where a policy hides its rows from us.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn probe(&self, definition: &Definition) -> Result<Vec<Problem>, sqlx::Error> {
        let mut problems = Vec::new();
        if let Some(problem) = self.hidden(definition).await? {
            return Ok(vec![problem]);
        }
        for probe in probe::all(definition) {
            let text = probe.statement.as_str().to_owned();
            let mut tx = self.begin().await?;
            let query = dynamic::query(probe.statement);
            let query = if probe.takes_json { query.bind(None::<serde_json::Value>) } else { query.bind(Vec::<String>::new()) };
            let answer = query.fetch_all(&mut tx).await;
            tx.rollback().await?;
            match answer {
                Ok(_) => {}
                Err(error) if matches!(Fault::of(&error), Fault::Passing | Fault::Elsewhere) || is_time_out(&error) => return Err(error),
                Err(error) => problems.push(Problem::payload(&probe.at, probe::said(&error, &text, &probe.expressions))),
            }
        }
        Ok(problems)
    }

    async fn begin(&self) -> Result<Tx, sqlx::Error> {
        let mut tx = self.db.begin_read_only(self.role.as_deref(), self.statement_limit).await?;
        reading(&mut tx).await?;
        Ok(tx)
    }

    async fn part(&self, definition: &Definition, part: Part<'_>, keys: &[String]) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let rows = dynamic::query(statement::rows(definition, part)).bind(keys).fetch_all(&mut tx).await;
        tx.rollback().await?;
        rows
    }

    /// Reads a row on which something fails, part by part, to name what does.
    async fn alone(&self, definition: &Definition, key: &str, whole: &sqlx::Error, started: Instant) -> Result<Found, sqlx::Error> {
        let keys = [key.to_owned()];
        let mut row = Row { key: key.to_owned(), when: false, fields: BTreeMap::new(), problems: Vec::new() };
        for part in std::iter::once(Part::When).chain(definition.fields().keys().map(|path| Part::Field(path))) {
            if started.elapsed() >= self.isolation_limit {
                row.problems.push(Problem::payload(named(part), message(whole)));
                break;
            }
            match self.part(definition, part, &keys).await {
                Ok(rows) => match rows.as_slice() {
                    [] => return Ok(Found::Gone),
                    [only] => match under_another_form(only, key) {
                        Some(other) => return Ok(other),
                        None => fill(definition, part, only, &mut row),
                    },
                    _ => return Ok(failed(keys[0].clone(), NOT_UNIQUE.to_owned())),
                },
                Err(error) => match Fault::of(&error) {
                    Fault::Passing => return Err(error),
                    Fault::Elsewhere => row.problems.push(Problem::unread(named(part), message(&error))),
                    Fault::Row | Fault::Definition => row.problems.push(Problem::payload(named(part), message(&error))),
                },
            }
        }
        // Nothing fails any more: the row was edited meanwhile, or only all parts together took too long. The parts may then be of
        // different moments, but every edit brings a job of its own.
        // A row whose `when` fails must not pass for one that is excluded.
        row.when |= row.problems.iter().any(|problem| problem.field == "when");
        Ok(Found::Row(row))
    }

    async fn explain(&self, definition: &Definition, error: sqlx::Error) -> Result<Error, sqlx::Error> {
        let mut problems = self.probe(definition).await?;
        if problems.is_empty() {
            problems.push(Problem::payload("table", message(&error)));
        }
        Ok(Error::Broken { problems })
    }
}

/// Texts must not depend on the session: a time is UTC, a date is ISO, whatever the role's defaults are. And a row that a policy hides from us
/// is not gone: with `row_security` off PostgreSQL refuses the statement instead of leaving rows out.
async fn reading(tx: &mut Tx) -> Result<(), sqlx::Error> {
    sqlx::query(
        "select set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true), set_config('IntervalStyle', 'iso_8601', true),
           set_config('bytea_output', 'hex', true), set_config('extra_float_digits', '1', true), set_config('row_security', 'off', true)",
    )
    .execute(tx)
    .await?;
    Ok(())
}

const NOT_UNIQUE: &str = "more than one row has this key";

const NOT_IN_TIME: &str = "not read in time: an expression is slow, or fails on another row of the batch; tried again with fewer rows";

fn named(part: Part<'_>) -> String {
    match part {
        Part::Field(path) => path.to_owned(),
        Part::When | Part::Whole | Part::Fields(_) => "when".to_owned(),
    }
}

fn failed(key: String, message: String) -> Found {
    Found::Row(Row { key, when: true, fields: BTreeMap::new(), problems: vec![Problem::payload("key", message)] })
}

fn unread(key: String, message: &str) -> Found {
    Found::Row(Row { key, when: true, fields: BTreeMap::new(), problems: vec![Problem::unread("key", message)] })
}

fn assemble(definition: &Definition, rows: Vec<PgRow>, found: &mut BTreeMap<String, Found>) {
    for read in rows {
        let key: String = read.get(0);
        let twice = matches!(found.get(&key), Some(Found::Row(_)));
        let row = if twice {
            failed(key.clone(), NOT_UNIQUE.to_owned())
        } else if let Some(other) = under_another_form(&read, &key) {
            other
        } else {
            let mut row = Row { key: key.clone(), when: false, fields: BTreeMap::new(), problems: Vec::new() };
            fill(definition, Part::Whole, &read, &mut row);
            Found::Row(row)
        };
        found.insert(key, row);
    }
}

/// A row whose own key is equal to the one asked for, and written otherwise: it is another record's, or its record would be made twice.
fn under_another_form(read: &PgRow, asked: &str) -> Option<Found> {
    let own: String = read.get(1);
    (own != asked).then(|| {
        let message = format!("the row itself writes this key `{own}`, and is synced under that; `{asked}` is no key of it");
        failed(own, message)
    })
}

/// Takes what a part of the statement read into the row.
fn fill(definition: &Definition, part: Part<'_>, read: &PgRow, row: &mut Row) {
    let mut column = 2;
    if part.has_when() {
        row.when = read.get(column);
        column += 1;
    }
    let mut decoded: Vec<(&str, Result<FieldValue, Problem>)> = Vec::new();
    for (path, field) in part.fields(definition) {
        let text: Option<String> = read.get(column);
        decoded.push((path, decode::field(path, field, text.as_deref())));
        column += 1;
    }
    let constants = definition.fields().iter().filter(|(_, field)| matches!(field, sluice_core::config::field::Field::Value(_)));
    decoded.extend(constants.map(|(path, field)| (path.as_str(), decode::field(path, field, None))));
    for (path, value) in decoded {
        match value {
            Ok(value) => drop(row.fields.insert(path.to_owned(), value)),
            Err(problem) => row.problems.push(problem),
        }
    }
}
