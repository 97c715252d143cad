//! The tables of captured changes.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_core::db::Tx;

use sluice_sync::definition::Columns;

use crate::definitions::Definitions;
use crate::publish::relation;

/// A captured change.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) id: i64,
    /// schema.name of the table.
    pub(super) relation: String,
    pub(super) operation: Operation,
    /// The kept columns before; `None` for inserts.
    pub(super) before: Option<Value>,
    /// The kept columns after; `None` for deletes.
    pub(super) after: Option<Value>,
    /// Of an update: the columns that differ; `None`: nobody knows any more.
    pub(super) changed: Option<Vec<String>>,
    /// One; of [`Operation::Untouched`], how many it stands for.
    pub(super) changes: u64,
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

/// A change that waits for a person.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) sync: String,
    pub(super) reason: String,
    pub(super) operation: &'static str,
    pub(super) sample: Value,
}

/// Takes changes, but for those of tables that concern a sync in `busy`.
pub(super) async fn take(tx: &mut Tx, definitions: &Definitions, busy: &BTreeSet<String>, limit: i32) -> Result<Vec<Change>, sqlx::Error> {
    let (names, hashes) = own(definitions, busy);
    let rows = sqlx::query!(
        r#"select id as "id!", relation as "relation!", operation as "operation!", before, after, changed, changes as "changes!"
           from sluice.take_changes($1, $2, $3, $4)"#,
        &names,
        &hashes,
        mapped(definitions),
        limit
    )
    .fetch_all(tx)
    .await?;
    let changes = rows.into_iter().map(|row| Change {
        id: row.id,
        relation: row.relation,
        operation: match row.operation.as_str() {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "delete" => Operation::Delete,
            "untouched" => Operation::Untouched,
            _ => Operation::Truncate,
        },
        before: row.before,
        after: row.after,
        changed: row.changed,
        changes: row.changes.unsigned_abs(),
    });
    Ok(changes.collect())
}

/// Relation → the columns that any sync reads of it, where not every column matters.
fn mapped(definitions: &Definitions) -> Value {
    let mut mapped: BTreeMap<String, Option<BTreeSet<&String>>> = BTreeMap::new();
    for definition in definitions.by_name.values() {
        let columns = mapped.entry(relation(&definition.table)).or_insert_with(|| Some(BTreeSet::new()));
        match (columns.as_mut(), definition.relevant_columns()) {
            (Some(columns), Columns::Named(names)) => columns.extend(names),
            (_, Columns::All) => *columns = None,
            (None, _) => {}
        }
        for watch in &definition.watches {
            mapped.insert(relation(&watch.table), None);
        }
    }
    let some = mapped.into_iter().filter_map(|(relation, columns)| Some((relation, Value::from_iter(columns?.into_iter().cloned()))));
    Value::Object(some.collect())
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

/// Puts changes back: as new rows, with the time at which they were captured.
pub(super) async fn put_back(tx: &mut Tx, ids: &[i64]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with taken as (delete from sluice.change_history where id = any ($1) and consumed_at > clock_timestamp() - interval '1 min' returning *)
         insert into sluice.change (relation, operation, before, after, changed, kept, key, touched, relid, origin, captured_at)
         select relation, operation, before, after, changed, kept, key, touched, relid, origin, captured_at from taken order by id",
        ids
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// One row per held change; a truncate that is still open is not held twice, and somebody is told of it.
pub(super) async fn hold(tx: &mut Tx, held: &[Held]) -> Result<(), sqlx::Error> {
    for one in held {
        sqlx::query!(
            "with held as (
               insert into sluice.held_change (sync, reason, operation, records, sample)
               select $1, $2, $3, case when $3 = 'truncate' then (select count(*) from sluice.link l where l.sync = $1 and l.zoho_id is not null) end, $4
               where $3 <> 'truncate' or not exists (select from sluice.held_change h where h.sync = $1 and h.operation = 'truncate' and h.resolution is null)
               returning *)
             insert into sluice.alert (occasion, subject, message)
             select 'brake', sync, format('%s: %s, with %s records in Zoho. Nothing of it is sent before somebody decides: sluice held show %s', sync, reason, records, id)
             from held where operation = 'truncate'",
            one.sync,
            one.reason,
            one.operation,
            one.sample
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
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
