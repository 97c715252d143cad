//! Why a table refused what Zoho says, and which field it was about.

use serde_json::{Value, json};
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::{Db, cut};
use sluice_sync::definition::Definition;

use super::rows;
use crate::work::Pull;

/// Whose fault it is.
pub(super) enum Refused {
    /// For what is in the row.
    Row(String),
    /// For what the table or our rights are like: the same for every row.
    Table(String),
}

/// `None`: nobody's, it passes.
pub(super) fn why(error: &sqlx::Error) -> Option<Refused> {
    let database = error.as_database_error()?;
    let words = [("constraint", database.constraint()), ("table", database.table())];
    let at = words.iter().find_map(|(what, name)| name.map(|name| format!(" ({what} {name})"))).unwrap_or_default();
    let reason = format!("{}{at}", cut(database.message()));
    match database.code()?.get(..2)? {
        "21" | "22" | "23" | "2F" | "38" | "39" | "P0" => Some(Refused::Row(reason)),
        "0A" | "3D" | "3F" | "42" | "25" => Some(Refused::Table(reason)),
        _ => None,
    }
}

/// The Zoho field whose value the table does not take: by the column that Postgres names, by the constraint's columns, or by the first value that
/// does not fit its column's type. `None`: a trigger's, or the table's, own reason.
pub(super) async fn field(db: &Db, definition: &Definition, pull: &Pull, error: &sqlx::Error) -> Result<Option<String>, sqlx::Error> {
    let Some(database) = error.as_database_error() else { return Ok(None) };
    if let Some(path) = rows::refused(db, definition, pull, database.table()).await? {
        return Ok(Some(path));
    }
    let named = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|refusal| refusal.column()).map(str::to_owned);
    let column = match (named, database.constraint()) {
        (Some(column), _) => Some(column),
        (None, Some(constraint)) => constrained(db, definition, pull, constraint).await?,
        (None, None) if database.code().is_some_and(|code| code.starts_with("22")) => misfit(db, definition, pull).await?,
        (None, None) => None,
    };
    Ok(column.map(|column| zoho_name(definition, &column)))
}

/// The column of a constraint that the pull writes; of several the first.
async fn constrained(db: &Db, definition: &Definition, pull: &Pull, constraint: &str) -> Result<Option<String>, sqlx::Error> {
    let columns = sqlx::query_scalar!(
        r#"select a.attname as "column!" from pg_constraint c
           join pg_class t on t.oid = c.conrelid join pg_namespace n on n.oid = t.relnamespace
           join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
           where n.nspname = $1 and t.relname = $2 and c.conname = $3
           order by a.attnum"#,
        definition.table.schema,
        definition.table.name,
        constraint
    )
    .fetch_all(db)
    .await?;
    Ok(columns.into_iter().find(|column| pull.writes(column)))
}

/// The first column into which its value cannot be cast.
async fn misfit(db: &Db, definition: &Definition, pull: &Pull) -> Result<Option<String>, sqlx::Error> {
    for (column, value) in &pull.columns {
        let sql = Sql::new("select to_jsonb(jsonb_populate_record(null::").ident(&Ident::table(&definition.sync.table)).text(", $1))");
        match dynamic::query_scalar::<Value>(sql).bind(json!({column: value})).fetch_one(db).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(_)) => return Ok(Some(column.clone())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// The Zoho field behind a column; one of the pull's own columns by its own name.
fn zoho_name(definition: &Definition, column: &str) -> String {
    definition
        .fields()
        .iter()
        .find(|(_, field)| field.own_column() == Some(column))
        .map_or_else(|| column.to_owned(), |(name, _)| name.clone())
}
