//! The tables of brakes: held changes, their records, and what went through lately.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;
use sluice_core::db::Tx;

use super::judge::Judged;
use super::{Class, SAMPLE};
use crate::definitions::Definitions;

/// What is gathered longer than this is decided as it stands.
const GATHER_SECONDS: f64 = 300.0;

/// A held change that nobody has decided.
#[derive(Debug, Clone)]
pub(super) struct Open {
    pub(super) id: i64,
    pub(super) sync: String,
    /// `None`: a truncate, which nothing joins.
    pub(super) class: Option<Class>,
    pub(super) gathering: bool,
    /// It is gathered for too long.
    pub(super) overdue: bool,
}

/// The syncs whose brake is ours until this transaction ends, and those whose brake is another producer's.
pub(super) async fn lock(tx: &mut Tx, definitions: &Definitions) -> Result<(BTreeSet<String>, BTreeSet<String>), sqlx::Error> {
    let own: Vec<String> = definitions.by_name.keys().cloned().collect();
    let braked: Vec<String> =
        definitions.by_name.values().filter(|one| one.sync.brake.is_some()).map(|one| one.name().to_owned()).collect();
    let rows = sqlx::query!(
        r#"select w.name as "name!", pg_try_advisory_xact_lock(hashtextextended('sluice.brake ' || w.name, 0)) as "ours!"
           from (select unnest($1::text[]) as name
                 union select h.sync from sluice.held_change h where h.resolution is null and h.operation in ('change', 'delete', 'truncate') and h.sync = any ($2)) w"#,
        &braked,
        &own
    )
    .fetch_all(tx)
    .await?;
    let (ours, theirs): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.ours);
    Ok((ours.into_iter().map(|row| row.name).collect(), theirs.into_iter().map(|row| row.name).collect()))
}

pub(super) async fn open(tx: &mut Tx, syncs: &BTreeSet<String>) -> Result<Vec<Open>, sqlx::Error> {
    let syncs: Vec<String> = syncs.iter().cloned().collect();
    let rows = sqlx::query!(
        r#"select id, sync, operation, gathering, created_at < clock_timestamp() - make_interval(secs => $2) as "overdue!" from sluice.held_change
           where sync = any ($1) and resolution is null and operation in ('change', 'delete', 'truncate') order by id"#,
        &syncs,
        GATHER_SECONDS
    )
    .fetch_all(tx)
    .await?;
    let open = rows.into_iter().map(|row| Open {
        id: row.id,
        sync: row.sync,
        class: class_of(&row.operation),
        gathering: row.gathering,
        overdue: row.overdue,
    });
    Ok(open.collect())
}

/// Of these records, those that are held, and under which limit.
pub(super) async fn held(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<BTreeMap<String, Option<Class>>, sqlx::Error> {
    let rows = sqlx::query!(
        "select key, operation from sluice.held_record
         where sync = $1 and key = any ($2) and resolution is null and operation in ('create', 'update', 'delete', 'truncate') order by id",
        sync,
        keys
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| (row.key, class_of(&row.operation))).collect())
}

fn class_of(operation: &str) -> Option<Class> {
    match operation {
        "change" | "create" | "update" => Some(Class::Change),
        "delete" => Some(Class::Delete),
        _ => None,
    }
}

/// These records are held no longer. One that somebody approves at this moment is his; a held change without records is resolved.
pub(super) async fn leave(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let left = sqlx::query_scalar!(
        r#"with gone as (
             update sluice.held_record set resolution = 'undone', resolved_at = clock_timestamp() where id = any (array(
               select id from sluice.held_record where sync = $1 and key = any ($2) and resolution is null
                 and operation in ('create', 'update', 'delete', 'truncate') order by id for update skip locked)) returning held_id)
           select distinct held_id as "held_id!" from gone order by 1"#,
        sync,
        keys
    )
    .fetch_all(&mut *tx)
    .await?;
    for id in left {
        if lock_held(tx, id).await? {
            sqlx::query!("select from sluice.recount_held($1, 'undone', 'sluice')", id).execute(&mut *tx).await?;
        }
    }
    Ok(())
}

/// Whether the held change is open and nobody is deciding it just now; then nobody can before this transaction ends.
pub(super) async fn lock_held(tx: &mut Tx, id: i64) -> Result<bool, sqlx::Error> {
    let row = sqlx::query!("select id from sluice.held_change where id = $1 and resolution is null for no key update skip locked", id)
        .fetch_optional(tx)
        .await?;
    Ok(row.is_some())
}

/// A new held change. Nothing may be decided about it before [`trip`].
pub(super) async fn begin(tx: &mut Tx, sync: &str, class: Class) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "insert into sluice.held_change (sync, reason, operation, records, gathering)
         values ($1, 'more changes are coming: what they amount to is decided when all are seen', $2, 0, true) returning id",
        sync,
        class.as_str()
    )
    .fetch_one(tx)
    .await
}

/// Adds records to a held change.
pub(super) async fn add(tx: &mut Tx, sync: &str, id: i64, records: &[Judged]) -> Result<(), sqlx::Error> {
    let (keys, operations): (Vec<String>, Vec<String>) = records.iter().map(|one| (one.key.clone(), one.operation.to_owned())).unzip();
    sqlx::query!(
        "insert into sluice.held_record (held_id, sync, key, operation) select $1, $2, n.key, n.operation from unnest($3::text[], $4::text[]) as n (key, operation) order by n.key",
        id,
        sync,
        &keys,
        &operations
    )
    .execute(&mut *tx)
    .await?;
    let sample = Value::Array(records.iter().take(SAMPLE).map(Judged::sample).collect());
    grow(tx, id, count(records.len()), &sample).await
}

async fn grow(tx: &mut Tx, id: i64, records: i64, sample: &Value) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.held_change set records = coalesce(records, 0) + $2, sample = jsonb_path_query_array(sample || $3, '$[0 to 9]') where id = $1",
        id,
        records,
        sample
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// From now on the held change waits for a person, who is told of it once.
pub(super) async fn trip(tx: &mut Tx, sync: &str, id: i64, reason: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.held_change set gathering = false, reason = $2 where id = $1", id, reason).execute(&mut *tx).await?;
    sqlx::query!(
        "insert into sluice.alert (occasion, subject, message) values ('brake', $1, format('%s: %s. Nothing of it is sent before somebody decides: sluice held show %s', $1::text, $2::text, $3::bigint))",
        sync,
        reason,
        id
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What was gathered joins a held change that waits already. Both are the caller's.
pub(super) async fn merge(tx: &mut Tx, from: i64, into: i64) -> Result<(), sqlx::Error> {
    let gone = sqlx::query!(r#"delete from sluice.held_change where id = $1 returning coalesce(records, 0) as "records!", sample"#, from)
        .fetch_one(&mut *tx)
        .await?;
    sqlx::query!("update sluice.held_record set held_id = $2 where held_id = $1", from, into).execute(&mut *tx).await?;
    grow(tx, into, gone.records, &gone.sample).await
}

/// What was gathered is no mass change: its records, which are held no longer.
pub(super) async fn release(tx: &mut Tx, id: Option<i64>) -> Result<Vec<String>, sqlx::Error> {
    let Some(id) = id else { return Ok(Vec::new()) };
    sqlx::query!("delete from sluice.held_change where id = $1", id).execute(&mut *tx).await?;
    sqlx::query_scalar!("delete from sluice.held_record where held_id = $1 and resolution is null returning key", id).fetch_all(tx).await
}

pub(super) async fn keys_of(tx: &mut Tx, id: i64) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!("select key from sluice.held_record where held_id = $1 and resolution is null order by id", id).fetch_all(tx).await
}

/// How many other records went through within the brake's time.
pub(super) async fn passed(tx: &mut Tx, sync: &str, class: Class, per: Duration, others_than: &[String]) -> Result<u64, sqlx::Error> {
    let passed = sqlx::query_scalar!(
        r#"select count(*) as "n!" from sluice.brake_record b
           where b.sync = $1 and b.operation = $2 and b.passed_at > clock_timestamp() - make_interval(secs => $3)
             and not exists (select from unnest($4::text[]) as k (key) where k.key = b.key)"#,
        sync,
        class.as_str(),
        per.as_secs_f64(),
        others_than
    )
    .fetch_one(tx)
    .await?;
    Ok(passed.unsigned_abs())
}

/// Notes that these records went through, and forgets those that no longer count.
pub(super) async fn pass(tx: &mut Tx, sync: &str, class: Class, per: Duration, keys: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from sluice.brake_record where sync = $1 and operation = $2 and passed_at <= clock_timestamp() - make_interval(secs => $3)",
        sync,
        class.as_str(),
        per.as_secs_f64()
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into sluice.brake_record (sync, operation, key) select $1, $2, k.key from unnest($3::text[]) as k (key) order by k.key
         on conflict on constraint brake_record_pkey do update set passed_at = excluded.passed_at",
        sync,
        class.as_str(),
        keys
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The records of a sync, of which a share is one: its rows when they were last counted, or those that are linked, whichever are more.
pub(super) async fn total(tx: &mut Tx, sync: &str) -> Result<u64, sqlx::Error> {
    let total = sqlx::query_scalar!(
        r#"select greatest(y.total, (select c.linked from sluice.sync_counter c where c.sync = y.name), 0) as "total!" from sluice.sync y where y.name = $1"#,
        sync
    )
    .fetch_optional(tx)
    .await?;
    Ok(total.unwrap_or_default().max(0).unsigned_abs())
}

fn count(records: usize) -> i64 {
    i64::try_from(records).unwrap_or(i64::MAX)
}
