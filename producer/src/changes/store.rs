//! The tables of captured changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::db::Tx;
use sqlx::postgres::types::Oid;

use sluice_sync::definition::Columns;

use super::packs::{Pack, Tables};
use crate::definitions::Definitions;
use crate::publish::relation;

/// A captured change.
#[derive(Debug, Clone)]
pub(super) struct Change {
    /// schema.name of the table.
    pub(super) relation: Arc<str>,
    pub(super) operation: Operation,
    /// The kept columns before; `None` for inserts, and where none of them changed.
    pub(super) before: Option<Value>,
    /// The kept columns after; `None` for deletes.
    pub(super) after: Option<Value>,
    /// Of an update: the columns that differ; `None`: nobody knows any more.
    pub(super) changed: Option<Arc<[String]>>,
    /// Of an update of `before`: its place among these, and what it takes to put it back.
    pub(super) moved: Option<Moved>,
    /// One; of [`Operation::Untouched`], how many it stands for.
    pub(super) changes: u64,
}

/// The rest of the row of an update of kept columns.
#[derive(Debug, Clone)]
pub(super) struct Moved {
    pub(super) number: i64,
    pub(super) relid: Option<Oid>,
    pub(super) touched: Option<i64>,
    pub(super) layout: Option<i32>,
    pub(super) origin: Option<String>,
    pub(super) captured_at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Insert,
    Update,
    Delete,
    Truncate,
    /// Updates that touch no column that any sync reads.
    Untouched,
}

/// Takes changes, but for those of tables that concern a sync in `busy`.
pub(super) async fn take(tx: &mut Tx, definitions: &Definitions, busy: &BTreeSet<String>, limit: i32) -> Result<Vec<Change>, sqlx::Error> {
    let (names, hashes) = own(definitions, busy);
    let packs = sqlx::query_as!(
        Pack,
        r#"select relation as "relation!", operation as "operation!", kept, relid, layout, keys, before, after, changed, touched, moves, origins, captured_at as "captured_at!"
           from sluice.take_changes($1, $2, $3)"#,
        &names,
        &hashes,
        limit
    )
    .fetch_all(&mut *tx)
    .await?;
    let tables = Tables::of(tx, &packs).await?;
    let mapped = mapped(definitions);
    let unpacked = packs.into_iter().flat_map(|pack| {
        let mapped = mapped.get(&pack.relation).and_then(Option::as_ref);
        pack.unpack(&tables, mapped)
    });
    let mut changes: Vec<Change> = unpacked.collect();
    changes.sort_by_key(|change| change.moved.as_ref().map(|moved| moved.number));
    Ok(changes)
}

/// Relation → the columns that any sync reads of it; `None`: any column may matter.
fn mapped(definitions: &Definitions) -> BTreeMap<String, Option<BTreeSet<&str>>> {
    let mut mapped: BTreeMap<String, Option<BTreeSet<&str>>> = BTreeMap::new();
    for definition in definitions.by_name.values() {
        let columns = mapped.entry(relation(&definition.table)).or_insert_with(|| Some(BTreeSet::new()));
        match (columns.as_mut(), definition.relevant_columns()) {
            (Some(columns), Columns::Named(names)) => columns.extend(names.iter().map(String::as_str)),
            (_, Columns::All) => *columns = None,
            (None, _) => {}
        }
        for watch in &definition.watches {
            mapped.insert(relation(&watch.table), None);
        }
    }
    mapped
}

/// Names and hashes of our definitions.
fn own(definitions: &Definitions, busy: &BTreeSet<String>) -> (Vec<String>, Vec<String>) {
    definitions.hashes().into_iter().filter(|(name, _)| !busy.contains(name)).unzip()
}

/// The published, unretired syncs that equal our own, but for those in `busy`.
pub(super) async fn agreed(tx: &mut Tx, definitions: &Definitions, busy: &BTreeSet<String>) -> Result<BTreeSet<String>, sqlx::Error> {
    let (names, hashes) = own(definitions, busy);
    let rows = sqlx::query_scalar!(
        "select y.name from sluice.sync y join unnest($1::text[], $2::text[]) as own (name, hash) on own.name = y.name and own.hash = y.hash where y.retired_at is null",
        &names,
        &hashes
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().collect())
}

/// Puts changes with a number back, with the time at which they were captured.
pub(super) async fn put_back(tx: &mut Tx, changes: &[&Change]) -> Result<(), sqlx::Error> {
    let rows = Rows::of(changes);
    sqlx::query!(
        "insert into sluice.change (relation, operation, before, after, changed, touched, layout, relid, move, origin, captured_at)
         select c.relation, 'update', c.before, c.after, case when c.changed <> 'null' then array(select jsonb_array_elements_text(c.changed)) end, c.touched, c.layout, c.relid, c.move, c.origin, c.captured_at
         from unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::jsonb[], $5::bigint[], $6::integer[], $7::oid[], $8::bigint[], $9::text[], $10::timestamptz[])
           as c (relation, before, after, changed, touched, layout, relid, move, origin, captured_at)",
        &rows.relations,
        &rows.before,
        &rows.after,
        &rows.changed,
        &rows.touched as &[Option<i64>],
        &rows.layouts as &[Option<i32>],
        &rows.relids as &[Option<Oid>],
        &rows.numbers,
        &rows.origins as &[Option<String>],
        &rows.captured_at
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Leaves changes with a number in the history, where `take` has put all others.
pub(super) async fn remember(tx: &mut Tx, changes: &[&Change]) -> Result<(), sqlx::Error> {
    let rows = Rows::of(changes);
    if rows.numbers.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "insert into sluice.change_history (relation, operation, relid, layout, before, after, changed, touched, origins, captured_at)
         select c.relation, 'update', c.relid, c.layout, array_agg(c.before), array_agg(c.after), array_agg(nullif(c.changed, 'null')), array_agg(c.touched), array_agg(c.origin), array_agg(c.captured_at)
         from unnest($1::text[], $2::jsonb[], $3::jsonb[], $4::jsonb[], $5::bigint[], $6::integer[], $7::oid[], $8::text[], $9::timestamptz[])
           as c (relation, before, after, changed, touched, layout, relid, origin, captured_at)
         where sluice.keeps_history()
         group by c.relation, c.relid, c.layout",
        &rows.relations,
        &rows.before,
        &rows.after,
        &rows.changed,
        &rows.touched as &[Option<i64>],
        &rows.layouts as &[Option<i32>],
        &rows.relids as &[Option<Oid>],
        &rows.origins as &[Option<String>],
        &rows.captured_at
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Changes with a number, column by column.
#[derive(Debug, Default)]
struct Rows {
    relations: Vec<String>,
    before: Vec<Value>,
    after: Vec<Value>,
    changed: Vec<Value>,
    touched: Vec<Option<i64>>,
    layouts: Vec<Option<i32>>,
    relids: Vec<Option<Oid>>,
    numbers: Vec<i64>,
    origins: Vec<Option<String>>,
    captured_at: Vec<DateTime<Utc>>,
}

impl Rows {
    fn of(changes: &[&Change]) -> Self {
        let mut rows = Self::default();
        for change in changes {
            if let Some(moved) = &change.moved {
                rows.relations.push(change.relation.to_string());
                rows.before.push(change.before.clone().unwrap_or_default());
                rows.after.push(change.after.clone().unwrap_or_default());
                rows.changed.push(change.changed.as_deref().map_or(Value::Null, Value::from));
                rows.touched.push(moved.touched);
                rows.layouts.push(moved.layout);
                rows.relids.push(moved.relid);
                rows.numbers.push(moved.number);
                rows.origins.push(moved.origin.clone());
                rows.captured_at.push(moved.captured_at);
            }
        }
        rows
    }
}

/// Counts calls that were not made. The last thing in the transaction, and in one order: every producer counts in the same rows.
pub(super) async fn count_avoided(tx: &mut Tx, avoided: &BTreeMap<String, u64>) -> Result<(), sqlx::Error> {
    if avoided.is_empty() {
        return Ok(());
    }
    let syncs: Vec<String> = avoided.keys().cloned().collect();
    let calls: Vec<i64> = avoided.values().map(|calls| i64::try_from(*calls).unwrap_or(i64::MAX)).collect();
    sqlx::query!(
        "insert into sluice.avoided as v (sync, reason, calls)
         select n.sync, 'unchanged', n.calls from unnest($1::text[], $2::bigint[]) as n (sync, calls) order by n.sync
         on conflict on constraint avoided_pkey do update set calls = v.calls + excluded.calls",
        &syncs,
        &calls
    )
    .execute(tx)
    .await?;
    Ok(())
}
