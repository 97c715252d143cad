//! Reading for a pull: its own columns over Zoho's records, and single rows within the transaction that writes them.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::field::Field;
use sluice_core::db::dynamic::Expression;
use sluice_core::db::{Tx, dynamic, message};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::statement::{self, Part};
use super::{Fault, Found, Problem, Reader, Row, fill, is_time_out, reading};
use crate::definition::Definition;

impl Reader {
    /// What `[syncs.NAME.columns]` makes of each record, by column; a record on which an expression fails is told apart.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn pulled(
        &self,
        definition: &Definition,
        records: &[&Value],
    ) -> Result<Vec<Result<BTreeMap<String, Value>, Problem>>, sqlx::Error> {
        if definition.sync.columns.is_empty() || records.is_empty() {
            return Ok(records.iter().map(|_| Ok(BTreeMap::new())).collect());
        }
        match self.evaluate(definition, records).await {
            Ok(all) => Ok(all.into_iter().map(Ok).collect()),
            Err(error) if matches!(Fault::of(&error), Fault::Passing | Fault::Elsewhere) => Err(error),
            Err(error) if records.len() == 1 => Ok(vec![Err(Problem::payload("columns", message(&error)))]),
            Err(_) => {
                let mut each = Vec::with_capacity(records.len());
                for record in records {
                    each.extend(Box::pin(self.pulled(definition, &[record])).await?);
                }
                Ok(each)
            }
        }
    }

    /// The canonical keys of the rows whose columns have these values, as text without blanks around it; at most `limit`.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn keys_where(&self, definition: &Definition, wanted: &[(&str, String)], limit: u32) -> Result<Vec<String>, sqlx::Error> {
        let columns: Vec<&str> = wanted.iter().map(|(column, _)| *column).collect();
        let mut tx = self.begin().await?;
        let mut query = dynamic::query_scalar::<String>(statement::keys_where(definition, &columns));
        for (_, value) in wanted {
            query = query.bind(value.trim().to_owned());
        }
        let keys = query.bind(i64::from(limit)).fetch_all(&mut tx).await?;
        tx.rollback().await?;
        Ok(keys)
    }

    /// What one column says in the rows of these keys, without blanks around it; rows in which it is null or empty are absent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn column(&self, definition: &Definition, column: &str, keys: &[String]) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let rows: Vec<PgRow> = dynamic::query(statement::column(definition, column)).bind(keys.to_vec()).fetch_all(&mut tx).await?;
        tx.rollback().await?;
        let said = |row: &PgRow| Some((row.get::<String, _>(0), row.get::<Option<String>, _>(1).filter(|text| !text.is_empty())?));
        Ok(rows.iter().filter_map(said).collect())
    }

    /// The type that each of the mapping's expressions yields, by field, as PostgreSQL calls it. One that cannot be said is absent.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn yields(&self, definition: &Definition) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let mut types = BTreeMap::new();
        for (path, field) in definition.fields() {
            let Field::Sql(field) = field else { continue };
            let mut tx = self.begin().await?;
            let asked = statement::yields(definition, &Expression::from_configuration(&field.sql));
            let answer = dynamic::query_scalar::<String>(asked).fetch_one(&mut tx).await;
            tx.rollback().await?;
            match answer {
                Ok(name) => drop(types.insert(path.clone(), name)),
                Err(sqlx::Error::Database(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(types)
    }

    async fn evaluate(&self, definition: &Definition, records: &[&Value]) -> Result<Vec<BTreeMap<String, Value>>, sqlx::Error> {
        let mut tx = self.begin().await?;
        let records: Vec<Value> = records.iter().map(|record| (*record).clone()).collect();
        let rows: Vec<PgRow> = dynamic::query(statement::pulled_all(definition)).bind(records).fetch_all(&mut tx).await?;
        tx.rollback().await?;
        let value = |row: &PgRow, index: usize| {
            let text: Option<String> = row.get(index);
            text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Value::Null)
        };
        let columns =
            |row: &PgRow| definition.sync.columns.keys().enumerate().map(|(index, name)| (name.clone(), value(row, index))).collect();
        Ok(rows.iter().map(columns).collect())
    }

    /// Some fields of one row, as they are within this transaction. A field whose expression fails is a problem of the row's; the transaction
    /// lives on.
    ///
    /// # Errors
    /// When the database does not answer.
    pub async fn row_within(&self, tx: &mut Tx, definition: &Definition, key: &str, fields: &[&str]) -> Result<Found, sqlx::Error> {
        sqlx::query("savepoint sluice_read").execute(&mut *tx).await?;
        reading(tx).await?;
        if let Some(role) = &self.role {
            sqlx::query("select set_config('role', $1, true)").bind(role).execute(&mut *tx).await?;
        }
        let read = dynamic::query(statement::rows(definition, Part::Fields(fields))).bind(vec![key.to_owned()]).fetch_all(&mut *tx).await;
        let found = match read {
            Ok(rows) => match rows.as_slice() {
                [] => Found::Gone,
                [only] => {
                    let mut row = Row { key: key.to_owned(), when: true, fields: BTreeMap::new(), problems: Vec::new() };
                    fill(definition, Part::Fields(fields), only, &mut row);
                    Found::Row(row)
                }
                _ => super::failed(key.to_owned(), super::NOT_UNIQUE.to_owned()),
            },
            Err(error) if matches!(Fault::of(&error), Fault::Row) && !is_time_out(&error) => super::failed(key.to_owned(), message(&error)),
            Err(error) => return Err(error),
        };
        // also gives the session's own role and settings back
        sqlx::query("rollback to savepoint sluice_read").execute(tx).await?;
        Ok(found)
    }
}
