//! The rows of a child table that a pull changes with the record's own row, in its transaction and as sets: a few statements a list, however long.
//!
//! A row that somebody holds is never waited for: the whole pull is tried again later. Rows that nobody pulled are neither read nor locked.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use sluice_core::config::field::Field;
use sluice_core::config::sync::OnDelete;
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::{Db, Tx};
use sluice_sync::definition::{Definition, Rows};

use super::key_parts;
use crate::local_write::policies_hide;
use crate::work::Pull;

/// Writes the rows of all lists. `false`: one is held by somebody.
pub(super) async fn write(tx: &mut Tx, definition: &Definition, key: &str, pull: &Pull) -> Result<bool, sqlx::Error> {
    for (path, children) in &pull.rows {
        // one that was mapped when the pull was left, and is no more
        let Some(list) = definition.rows().get(path) else { continue };
        let parent = list.field.parent.columns().iter().cloned().zip(key_parts(definition, key));
        let parent: Map<String, Value> = parent.map(|(column, part)| (column, Value::String(part))).collect();
        let removed = records(&parent, children.removed.iter().map(|id| json!({ list.matched.as_str(): id })));
        let rows = records(&parent, children.rows.iter().map(|row| json!(row)));
        if is_held(tx, list, &removed, &rows).await? {
            return Ok(false);
        }
        remove(tx, list, &removed).await?;
        upsert(tx, list, &children.rows, &parent).await?;
    }
    Ok(true)
}

/// Each object with the parent's key.
fn records(parent: &Map<String, Value>, objects: impl Iterator<Item = Value>) -> Value {
    let with_parent = |object: Value| {
        let own = object.as_object().cloned().unwrap_or_default();
        Value::Object(own.into_iter().chain(parent.clone()).collect())
    };
    Value::Array(objects.map(with_parent).collect())
}

/// Locks the rows that are there, and tells whether one could not be had.
async fn is_held(tx: &mut Tx, list: &Rows, removed: &Value, rows: &Value) -> Result<bool, sqlx::Error> {
    let there = |sql: Sql| {
        let sql =
            sql.text(" from ").ident(&table(list)).text(" t where exists (select from jsonb_populate_recordset(null::").ident(&table(list));
        same_row(sql.text(", $1 || $2) g where "), &list.unique).text(")")
    };
    let sql =
        there(Sql::new("with mine as (select 1")).text(" for update skip locked) select (select count(*) from mine) < (select count(*)");
    policies_hide(tx, false).await?;
    let held = dynamic::query_scalar(there(sql).text(")")).bind(removed).bind(rows).fetch_one(&mut *tx).await?;
    policies_hide(tx, true).await?;
    Ok(held)
}

/// What the list shows no more, by the sync's word.
async fn remove(tx: &mut Tx, list: &Rows, removed: &Value) -> Result<(), sqlx::Error> {
    let gone = |sql: Sql| {
        let columns: Vec<String> = list.field.parent.columns().iter().chain([&list.matched]).cloned().collect();
        same_row(sql.text(" jsonb_populate_recordset(null::").ident(&table(list)).text(", $1) g where "), &columns)
    };
    if removed.as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    match list.field.on_delete {
        OnDelete::Delete => {
            let sql = gone(Sql::new("delete from ").ident(&table(list)).text(" t using"));
            dynamic::query(sql).bind(removed).execute(tx).await?;
        }
        OnDelete::Mark => {
            let columns: Vec<Ident> = list.field.mark.keys().map(|column| Ident::name(column)).collect();
            let sql =
                set(Sql::new("update ").ident(&table(list)).text(" t set "), &columns, "m").text(" from jsonb_populate_record(null::");
            let sql = distinct(gone(sql.ident(&table(list)).text(", $2) m,")).text(" and "), &columns, "m");
            dynamic::query(sql).bind(removed).bind(json!(list.field.mark)).execute(tx).await?;
        }
        OnDelete::Ignore | OnDelete::Void => {}
    }
    Ok(())
}

/// A row for each object; one that says so already is not written.
async fn upsert(tx: &mut Tx, list: &Rows, objects: &[BTreeMap<String, Value>], parent: &Map<String, Value>) -> Result<(), sqlx::Error> {
    // what an object does not show is unknown, not empty: objects that show the same are written together
    let mut alike: BTreeMap<Vec<&str>, Vec<&BTreeMap<String, Value>>> = BTreeMap::new();
    for object in objects {
        let shown = list.field.item.values().filter_map(Field::own_column).filter(|column| object.contains_key(*column)).collect();
        alike.entry(shown).or_default().push(object);
    }
    for (shown, objects) in alike {
        let rows = records(parent, objects.into_iter().map(|object| json!(object)));
        let columns: Vec<Ident> = list.field.parent.columns().iter().map(String::as_str).chain(shown).map(Ident::name).collect();
        let unique: Vec<Ident> = list.unique.iter().map(|column| Ident::name(column)).collect();
        let sql = Sql::new("insert into ").ident(&table(list)).text(" as t (").idents(&columns).text(") select ").idents(&columns);
        let sql = sql.text(" from jsonb_populate_recordset(null::").ident(&table(list)).text(", $1) on conflict (").idents(&unique);
        let sql = set(sql.text(") do update set "), &columns, "excluded").text(" where ");
        dynamic::query(distinct(sql, &columns, "excluded")).bind(rows).execute(&mut *tx).await?;
    }
    Ok(())
}

fn table(list: &Rows) -> Ident {
    Ident::qualified(&list.table.schema, &list.table.name)
}

/// `t.<column> = g.<column>` for each.
fn same_row(mut sql: Sql, columns: &[String]) -> Sql {
    for (index, column) in columns.iter().enumerate() {
        let column = Ident::name(column);
        sql = sql.text(if index > 0 { " and " } else { "" }).text("t.").ident(&column).text(" = g.").ident(&column);
    }
    sql
}

/// `<column> = <from>.<column>` for each.
fn set(mut sql: Sql, columns: &[Ident], from: &'static str) -> Sql {
    for (index, column) in columns.iter().enumerate() {
        sql = sql.text(if index > 0 { ", " } else { "" }).ident(column).text(" = ").text(from).text(".").ident(column);
    }
    sql
}

/// Whether any column differs.
fn distinct(mut sql: Sql, columns: &[Ident], from: &'static str) -> Sql {
    sql = sql.text("(");
    for (index, column) in columns.iter().enumerate() {
        sql = sql
            .text(if index > 0 { " or " } else { "" })
            .text("t.")
            .ident(column)
            .text(" is distinct from ")
            .text(from)
            .text(".")
            .ident(column);
    }
    sql.text(")")
}

/// The list one of whose rows the child table refuses: the one that it names, else the first that cannot be read into its table's types.
pub(super) async fn refused(db: &Db, definition: &Definition, pull: &Pull, named: Option<&str>) -> Result<Option<String>, sqlx::Error> {
    for (path, children) in &pull.rows {
        let Some(list) = definition.rows().get(path) else { continue };
        if named.is_some() {
            if named == Some(&list.table.name) {
                return Ok(Some(path.clone()));
            }
            continue;
        }
        let sql = Sql::new("select count(to_jsonb(g.*)) from jsonb_populate_recordset(null::").ident(&table(list)).text(", $1) g");
        match dynamic::query_scalar::<i64>(sql).bind(json!(children.rows)).fetch_one(db).await {
            Ok(_) => {}
            Err(sqlx::Error::Database(_)) => return Ok(Some(path.clone())),
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}
