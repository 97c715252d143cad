//! A key's text, of which every record has exactly one.
//!
//! It is the text that the column's type prints, except for types that print equal values differently: a `numeric` without scale loses the
//! zeros at its end, an interval is justified, a float has no negative zero, `citext` is in small letters. Of a type or collation that has
//! such values besides these, the form that the row has counts, and any other is refused when the row is read. `sluice.canonical_key`
//! (migrations/0007_intake.sql) says the same of the keys that callers insert.
//!
//! A row is looked for by the type without length and scale: a cast to these would find another record's row.

use sluice_core::db::dynamic::{Ident, Sql};

use crate::definition::KeyColumn;

/// Takes the `index`-th part out of a key's text: all of it, or an element of the JSON array that a composite key is.
pub(super) fn part(sql: Sql, parts: usize, index: usize, text: &'static str) -> Sql {
    if parts == 1 {
        sql.text("(").text(text).text(")")
    } else {
        sql.text("((").text(text).text(")::pg_catalog.jsonb ->> ").literal(&index.to_string()).text("::pg_catalog.int4)")
    }
}

/// Whether the row `this` has the key in `text`.
pub(super) fn matches(mut sql: Sql, key: &[KeyColumn], text: &'static str) -> Sql {
    for (index, column) in key.iter().enumerate() {
        sql = sql.text(if index > 0 { " and " } else { "" }).text("this.").ident(&Ident::name(&column.name));
        sql = column.equals(sql);
        sql = part(sql, key.len(), index, text).text("::").ident(&column.type_ident);
    }
    sql
}

/// `>`, between the key columns and their values.
pub(super) fn after(sql: Sql, key: &[KeyColumn]) -> Sql {
    match key {
        [only] => only.operator(sql, ">"),
        _ => sql.text(" > "),
    }
}

/// The canonical key of the row `this`.
pub(super) fn of_row(sql: Sql, key: &[KeyColumn]) -> Sql {
    joined(sql, key, |sql, _, column| {
        let value = Sql::new("this.").ident(&Ident::name(&column.name));
        printed(sql, column, &value)
    })
}

/// The canonical form of the key in `text`.
pub(super) fn of_text(sql: Sql, key: &[KeyColumn], text: &'static str) -> Sql {
    joined(sql, key, |sql, index, column| printed(sql, column, &stored(column, &cast(key, index, column, text))))
}

/// Whether no part of the key in `text` would become another value by being stored in its column.
pub(super) fn fits(mut sql: Sql, key: &[KeyColumn], text: &'static str) -> Sql {
    sql = sql.text("true");
    for (index, column) in key.iter().enumerate().filter(|(_, column)| column.numeric_modifier.is_some()) {
        let value = cast(key, index, column, text);
        sql = sql.text(" and ").append(&stored(column, &value)).text(" operator(pg_catalog.=) ").append(&value);
    }
    sql
}

/// The canonical key of the parent that a column's value refers to. A value that no parent can have keeps its own form, which finds none.
pub(super) fn reference(sql: Sql, parent: &KeyColumn, column: &Sql) -> Sql {
    let value = Sql::new("(").append(column).text("::").ident(&parent.type_ident).text(")");
    if parent.numeric_modifier.is_none() {
        return printed(sql, parent, &value);
    }
    let fitting = stored(parent, &value);
    let sql = sql.text("case when ").append(&fitting).text(" operator(pg_catalog.=) ").append(&value).text(" then ");
    printed(printed(sql, parent, &fitting).text(" else "), parent, &value).text(" end")
}

fn joined(mut sql: Sql, key: &[KeyColumn], piece: impl Fn(Sql, usize, &KeyColumn) -> Sql) -> Sql {
    if let [only] = key {
        return piece(sql, 0, only);
    }
    sql = sql.text("pg_catalog.jsonb_build_array(");
    for (index, column) in key.iter().enumerate() {
        sql = piece(sql.text(if index > 0 { ", " } else { "" }), index, column);
    }
    sql.text(")::pg_catalog.text")
}

fn cast(key: &[KeyColumn], index: usize, column: &KeyColumn, text: &'static str) -> Sql {
    part(Sql::new("("), key.len(), index, text).text("::").ident(&column.type_ident).text(")")
}

/// The value as the column would store it.
fn stored(column: &KeyColumn, value: &Sql) -> Sql {
    match column.numeric_modifier {
        Some(modifier) => {
            Sql::new("pg_catalog.\"numeric\"(").append(value).text(", ").literal(&modifier.to_string()).text("::pg_catalog.int4)")
        }
        None => value.clone(),
    }
}

/// The text of a value of the column's type.
fn printed(sql: Sql, column: &KeyColumn, value: &Sql) -> Sql {
    match (column.base_type.as_str(), column.numeric_modifier) {
        ("numeric", None) => sql.text("pg_catalog.trim_scale(").append(value).text(")::pg_catalog.text"),
        ("interval", _) => sql.text("pg_catalog.justify_interval(").append(value).text(")::pg_catalog.text"),
        ("float4", _) => sql.text("(").append(value).text(" operator(pg_catalog.+) '0'::pg_catalog.float4)::pg_catalog.text"),
        ("float8", _) => sql.text("(").append(value).text(" operator(pg_catalog.+) '0'::pg_catalog.float8)::pg_catalog.text"),
        // by the database's collation, as citext itself compares, whatever the column's
        ("citext", _) => sql.text("pg_catalog.lower((").append(value).text(")::pg_catalog.text collate pg_catalog.\"default\")"),
        _ => sql.text("(").append(value).text(")::pg_catalog.text"),
    }
}
