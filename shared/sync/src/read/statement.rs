//! The statement that reads rows through a mapping: one for a whole batch of keys, each value as text or exact JSON.
//!
//! The row is called `this`; our own names in scope of the user's expressions begin with `sluice_`, so that a bare column name
//! means the row's column and nothing else. Keys are bound, never written into the text.

use sluice_core::config::field::{Field, Fields};
use sluice_core::db::dynamic::{Expression, Ident, Sql};

use super::key;
use crate::definition::{Definition, KeyColumn};

/// The name in the object that a time becomes which Zoho has no form for.
pub(super) const NO_TIME: &str = "sluice_no_time";

/// Which parts of a mapping a statement reads.
#[derive(Debug, Clone, Copy)]
pub(super) enum Part<'a> {
    /// `when` and all fields.
    Whole,
    /// `when` alone.
    When,
    /// One field alone.
    Field(&'a str),
    /// These fields.
    Fields(&'a [&'a str]),
}

impl<'a> Part<'a> {
    /// Whether the statement's second column is `when`.
    pub(super) fn has_when(self) -> bool {
        matches!(self, Self::Whole | Self::When)
    }

    /// The fields that have a column in the statement, in its order. Constants need none, rows of a child table are not the row's, and a file is compared by its version.
    pub(super) fn fields(self, definition: &'a Definition) -> impl Iterator<Item = (&'a str, &'a Field)> {
        let included = move |path: &str| match self {
            Self::Whole => true,
            Self::When => false,
            Self::Field(only) => only == path,
            Self::Fields(some) => some.contains(&path),
        };
        definition
            .fields()
            .iter()
            .map(|(path, field)| (path.as_str(), field))
            .filter(move |(path, field)| included(path) && !matches!(field, Field::Value(_) | Field::Rows(_) | Field::File(_)))
    }
}

/// Reads `part` for the keys in `$1` (text[]): the key as given, the row's own, then `when` (boolean), then a text column per field.
pub(super) fn rows(definition: &Definition, part: Part<'_>) -> Sql {
    let mut sql = Sql::new("select sluice_wanted.sluice_key, sluice_row.* from pg_catalog.unnest(")
        .placeholder()
        .text("::pg_catalog.text[]) as sluice_wanted(sluice_key) cross join lateral (select ");
    sql = key::of_row(sql, &definition.key);
    if part.has_when() {
        sql = when(sql.text(", "), definition);
    }
    for (_, field) in part.fields(definition) {
        sql = value(sql.text(", "), definition, field, &From::This(definition)).text("::pg_catalog.text");
    }
    sql = sql.text(" from ").ident(&table(definition)).text(" as this where ");
    key::matches(sql, &definition.key, "sluice_wanted.sluice_key").text(") as sluice_row")
}

/// The canonical keys of the rows after `$1` (a key; null: from the start), at most `$2`, in key order; `with_when` also what `when` says of each.
pub(super) fn keys(definition: &Definition, filter: Option<&Expression>, with_when: bool) -> Sql {
    let mut sql = key::of_row(Sql::new("select "), &definition.key);
    if with_when {
        sql = when(sql.text(", "), definition);
    }
    sql = sql.text(" from ").ident(&table(definition)).text(" as this where (");
    sql = sql.numbered(1).text("::pg_catalog.text is null or (");
    sql = key::after(key_list(sql, definition).text(")"), &definition.key).text("(");
    for (index, column) in definition.key.iter().enumerate() {
        sql = sql.text(if index > 0 { ", " } else { "" });
        sql = key::part(sql, definition.key.len(), index, "$1::pg_catalog.text").text("::").ident(&column.type_ident);
    }
    sql = sql.text("))");
    for column in &definition.key {
        sql = sql.text(" and this.").ident(&Ident::name(&column.name)).text(" is not null");
    }
    if let Some(filter) = filter {
        sql = sql.text(" and ").expression(filter);
    }
    key_list(sql.text(" order by "), definition).text(" limit ").numbered(2)
}

/// The canonical keys of the rows whose columns equal `$1`, `$2`, …; the last placeholder limits them.
pub(super) fn keys_where(definition: &Definition, columns: &[&str]) -> Sql {
    let mut sql = key::of_row(Sql::new("select "), &definition.key).text(" from ").ident(&table(definition)).text(" as this where ");
    for (index, column) in columns.iter().enumerate() {
        sql = sql.text(if index > 0 { " and " } else { "" }).text("pg_catalog.btrim(this.").ident(&Ident::name(column));
        sql = sql.text("::pg_catalog.text) = ").numbered(index + 1);
    }
    sql.text(" limit ").numbered(columns.len() + 1)
}

/// One column of the rows of the keys in `$1` (text[]), as text without blanks around it: the key as given, then the text.
pub(super) fn column(definition: &Definition, column: &str) -> Sql {
    let sql = Sql::new("select sluice_wanted.sluice_key, sluice_row.* from pg_catalog.unnest(")
        .placeholder()
        .text("::pg_catalog.text[]) as sluice_wanted(sluice_key) cross join lateral (select pg_catalog.btrim(this.")
        .ident(&Ident::name(column))
        .text("::pg_catalog.text) from ")
        .ident(&table(definition))
        .text(" as this where ");
    key::matches(sql, &definition.key, "sluice_wanted.sluice_key").text(") as sluice_row")
}

/// The name of the type that an expression over a row yields; no row is read.
pub(super) fn yields(definition: &Definition, expression: &Expression) -> Sql {
    Sql::new("select pg_catalog.pg_typeof(sluice_value.sluice_value)::pg_catalog.text from (values (1)) as sluice_one left join ")
        .ident(&table(definition))
        .text(" as this on false cross join lateral (select ")
        .expression(expression)
        .text(" as sluice_value) as sluice_value")
}

/// The canonical form of the key in `$1`, and whether it fits the columns, as it does not if they would store another value.
pub(super) fn canonical_key(columns: &[KeyColumn]) -> Sql {
    let sql = key::of_text(Sql::new("select "), columns, "$1::pg_catalog.text").text(", ");
    key::fits(sql, columns, "$1::pg_catalog.text")
}

/// Evaluates the pull's own columns over the Zoho records in `$1` (jsonb[]): a text column of JSON for each, in the order of their names, and a
/// row for each record, in their order.
pub(super) fn pulled_all(definition: &Definition) -> Sql {
    let mut sql = Sql::new("select ");
    for (index, expression) in definition.sync.columns.values().enumerate() {
        let expression = Expression::from_configuration(expression);
        sql = sql
            .text(if index > 0 { ", " } else { "" })
            .text("(select pg_catalog.to_jsonb(sluice_value.sluice_value)::pg_catalog.text from (select ");
        sql = sql.expression(&expression).text(" as sluice_value) as sluice_value)");
    }
    let from = sql.text(" from pg_catalog.unnest(").placeholder();
    from.text("::pg_catalog.jsonb[]) with ordinality as sluice_records(zoho, sluice_number) order by sluice_number")
}

/// Evaluates a watch's key over the changed row in `$1` (jsonb of its columns) for the columns that it names.
pub(super) fn watched_keys(key: &Expression, table: &Ident) -> Sql {
    Sql::new("select sluice_key.sluice_key::pg_catalog.text from pg_catalog.jsonb_populate_record(null::")
        .ident(table)
        .text(", $1) as this cross join lateral (select ")
        .expression(key)
        .text(" as sluice_key) as sluice_key where sluice_key.sluice_key is not null")
}

/// Evaluates a pulled column's expression over the Zoho record in `$1` (jsonb).
pub(super) fn pulled(expression: &Expression) -> Sql {
    Sql::new("select ").expression(expression).text(" from (select ").placeholder().text("::pg_catalog.jsonb as zoho) as sluice_record")
}

fn table(definition: &Definition) -> Ident {
    Ident::qualified(&definition.table.schema, &definition.table.name)
}

fn key_list(mut sql: Sql, definition: &Definition) -> Sql {
    for (index, column) in definition.key.iter().enumerate() {
        sql = sql.text(if index > 0 { ", this." } else { "this." }).ident(&Ident::name(&column.name));
    }
    sql
}

fn when(sql: Sql, definition: &Definition) -> Sql {
    match &definition.sync.when {
        Some(when) => sql.text("coalesce(").expression(&Expression::from_configuration(when)).text(", false)"),
        None => sql.text("true"),
    }
}

/// Where a field's columns are looked for.
enum From<'a> {
    /// The row itself, whose types are known.
    This(&'a Definition),
    /// A row of a list's `each`.
    Item,
}

impl From<'_> {
    fn column(&self, sql: Sql, name: &str) -> Sql {
        let alias = match self {
            Self::This(_) => "this.",
            Self::Item => "sluice_item.",
        };
        sql.text(alias).ident(&Ident::name(name))
    }
}

/// A field's value as jsonb (or, for refs and mapped values, as jsonb text).
fn value(sql: Sql, definition: &Definition, field: &Field, from: &From<'_>) -> Sql {
    match field {
        Field::Column(field) if !field.values.is_empty() => {
            from.column(sql.text("pg_catalog.to_jsonb("), &field.column).text("::pg_catalog.text)")
        }
        Field::Column(field) => match from {
            From::This(definition) if is_time(definition, &field.column) => {
                let column = from.column(Sql::new("("), &field.column).text(")::pg_catalog.timestamptz");
                sql.append(&time(&column, definition))
            }
            From::This(_) => from.column(sql.text("pg_catalog.to_jsonb("), &field.column).text(")"),
            From::Item => of_any_type(sql, definition, &from.column(Sql::new(""), &field.column)),
        },
        Field::Sql(field) => {
            let made = Sql::new("").expression(&Expression::from_configuration(&field.sql));
            if field.values.is_empty() {
                of_any_type(sql, definition, &made)
            } else {
                sql.text("pg_catalog.to_jsonb((").append(&made).text(")::pg_catalog.text)")
            }
        }
        Field::Value(_) | Field::Rows(_) | Field::File(_) => sql.text("null::pg_catalog.jsonb"),
        Field::Ref(field) => match definition.parents.get(&field.sync) {
            Some(parent) => {
                let column = from.column(Sql::new("("), &field.column).text(")");
                key::reference(sql.text("pg_catalog.to_jsonb("), parent, &column).text(")")
            }
            None => from.column(sql.text("pg_catalog.to_jsonb("), &field.column).text("::pg_catalog.text)"),
        },
        Field::List(list) => {
            let each = Expression::from_configuration(&list.each);
            let sql = sql.text(
                "(select case when pg_catalog.jsonb_array_length(sluice_list.sluice_items) > 0 \
                 then pg_catalog.jsonb_build_object('item', sluice_list.sluice_items) else pg_catalog.jsonb_build_object('else', ",
            );
            let sql =
                if list.or_else.is_empty() { sql.text("null") } else { object(sql, definition, &list.or_else, &From::This(definition)) };
            let sql = sql.text(") end from (select pg_catalog.to_jsonb(array(select ");
            let sql = object(sql, definition, &list.item, &From::Item);
            sql.text(" from ").expression(&each).text(" as sluice_item)) as sluice_items) as sluice_list)")
        }
    }
}

/// An element of a list: its values as an array in the order of their names.
fn object(sql: Sql, definition: &Definition, fields: &Fields, from: &From<'_>) -> Sql {
    let mut sql = sql.text("pg_catalog.to_jsonb(array[");
    for (index, field) in fields.values().enumerate() {
        sql = value(sql.text(if index > 0 { ", " } else { "" }), definition, field, from);
    }
    sql.text("]::pg_catalog.jsonb[])")
}

/// A time as Zoho reads it, as jsonb: UTC, to the second, which is as finely as Zoho keeps time. One that cannot be written so (infinite,
/// before the year 1, after 9999) would be written as another one: it becomes an object that only we make, and that is refused.
fn time(timestamptz: &Sql, definition: &Definition) -> Sql {
    let format = format!("YYYY-MM-DD\"T\"HH24:MI:SS\"{}\"", definition.module.utc_offset());
    let sql = Sql::new("case when ").append(timestamptz).text(" >= '0001-01-01 00:00Z'::pg_catalog.timestamptz and ").append(timestamptz);
    let sql = sql.text(" < '10000-01-01 00:00Z'::pg_catalog.timestamptz then pg_catalog.to_jsonb(pg_catalog.to_char(").append(timestamptz);
    let sql = sql.text(" at time zone 'UTC', ").literal(&format).text(")) when ").append(timestamptz);
    let sql = sql.text(" is not null then pg_catalog.jsonb_build_object(").literal(NO_TIME).text(", ").append(timestamptz);
    sql.text("::pg_catalog.text) end")
}

/// A value whose type only the database knows: times are told apart while it runs.
fn of_any_type(sql: Sql, definition: &Definition, value: &Sql) -> Sql {
    let as_time = time(&Sql::new("sluice_value.sluice_value::pg_catalog.text::pg_catalog.timestamptz"), definition);
    sql.text("(select case when pg_catalog.pg_typeof(sluice_value.sluice_value) in ")
        .text("('pg_catalog.timestamptz'::pg_catalog.regtype, 'pg_catalog.timestamp'::pg_catalog.regtype) then ")
        .append(&as_time)
        .text(" else pg_catalog.to_jsonb(sluice_value.sluice_value) end from (select ")
        .append(value)
        .text(" as sluice_value) as sluice_value)")
}

fn is_time(definition: &Definition, column: &str) -> bool {
    definition.table.column(column).is_some_and(|column| matches!(column.base_type.as_str(), "timestamptz" | "timestamp"))
}
