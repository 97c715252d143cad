//! Writing into the application's own rows: ids and status columns. Left behind by settle, carried out here, one business row a
//! transaction: what was left first, under an advisory lock of the record (the fence), then the business row, with `skip locked`.
//!
//! A business row may be locked by anybody for any time. Sluice never waits for one while it holds anything that others need, and a table
//! that refuses the write never fails a sync.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::{Db, Tx};
use sluice_sync::definition::Definition;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::apply;
use crate::engine::Engine;
use crate::work::Writeback;

/// The guarantee behind the wake-up by a settle.
const POLL: Duration = Duration::from_secs(1);
/// A locked row is tried again after this, doubled up to [`LOCKED_CAP`].
pub(crate) const LOCKED: Duration = Duration::from_millis(100);
pub(crate) const LOCKED_CAP: Duration = Duration::from_secs(5);
/// A row that the table refused: after a constraint or a trigger was mended it goes through by itself.
pub(crate) const REFUSED: Duration = Duration::from_secs(300);
/// How long the application's own triggers may wait for their locks.
const TRIGGERS_MAY_WAIT: &str = "1s";
const STATEMENT_LIMIT: &str = "10s";

/// Leaves writebacks for later, in settle's transaction. Only inserts, so it waits for nobody.
pub(crate) async fn leave(tx: &mut Tx, definition: &Definition, writebacks: &[Writeback]) -> Result<(), sqlx::Error> {
    let columns = &definition.sync.writeback;
    if columns.is_empty() || writebacks.is_empty() {
        return Ok(());
    }
    let now = sqlx::query_scalar!(r#"select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US+00:00') as "now!""#)
        .fetch_one(&mut *tx)
        .await?;
    let rows: Vec<(&str, Value)> = writebacks.iter().map(|w| (w.key.as_str(), content(definition, w, &now))).collect();
    let (keys, contents): (Vec<String>, Vec<Value>) = rows.into_iter().map(|(key, content)| (key.to_owned(), content)).unzip();
    sqlx::query!(
        "insert into sluice.local_write (sync, key, columns) select $1, t.key, t.columns from unnest($2::text[], $3::jsonb[]) as t (key, columns)",
        definition.name(),
        &keys,
        &contents
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn content(definition: &Definition, writeback: &Writeback, now: &str) -> Value {
    let columns = &definition.sync.writeback;
    let mut content = Map::new();
    let mut put = |column: &Option<String>, value: Value| {
        if let Some(column) = column {
            content.insert(column.clone(), value);
        }
    };
    put(&columns.status, json!(writeback.status));
    put(&columns.error, json!(writeback.error));
    if let Some(id) = &writeback.zoho_id {
        put(&columns.id, json!(id));
    }
    if writeback.status == "synced" {
        put(&columns.synced_at, json!(now));
    }
    Value::Object(content)
}

/// Carries writebacks out until `shutdown`.
pub(crate) async fn run(engine: Arc<Engine>, written: Arc<Notify>, shutdown: CancellationToken) {
    loop {
        let told = written.notified();
        match carry_out_due(&engine).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "writebacks could not be carried out; trying again"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = told => {}
            () = tokio::time::sleep(POLL) => {}
        }
    }
}

/// The records that are due, the longest waiting first. `false`: there was none.
async fn carry_out_due(engine: &Engine) -> Result<bool, sqlx::Error> {
    let syncs: Vec<String> = engine.definitions.borrow().keys().cloned().collect();
    let due = sqlx::query!(
        "select sync, key from sluice.local_write where due_at <= clock_timestamp() and sync = any ($1) group by sync, key order by min(due_at) limit 50",
        &syncs
    )
    .fetch_all(&engine.db)
    .await?;
    let mut carried_out = false;
    for record in &due {
        if let Some(definition) = engine.definition(&record.sync) {
            carried_out |= carry_out(&engine.db, &definition, &record.key).await?;
            carried_out |= apply::carry_out(engine, &definition, &record.key).await?;
        }
    }
    Ok(carried_out)
}

/// Everything that was left for one record. `false`: another worker is at it.
async fn carry_out(db: &Db, definition: &Definition, key: &str) -> Result<bool, sqlx::Error> {
    let sync = definition.name();
    let mut tx = db.begin().await?;
    if !fence(&mut tx, sync, key).await? {
        return Ok(false);
    }
    let left = sqlx::query!(
        "with left_ as (delete from sluice.local_write where sync = $1 and key = $2 and pull is null returning id, columns, tries) select id, columns, tries from left_ order by id",
        sync,
        key
    )
    .fetch_all(&mut tx)
    .await?;
    if left.is_empty() {
        return Ok(false);
    }
    let mut columns = Map::new();
    for one in &left {
        columns.extend(one.columns.as_object().cloned().unwrap_or_default());
    }
    let ids: Vec<i64> = left.iter().map(|one| one.id).collect();
    let tries = left.iter().map(|one| one.tries.unsigned_abs()).max().unwrap_or(0);
    match write(&mut tx, definition, key, &Value::Object(columns)).await {
        Ok(Written::Done) => tx.commit().await?,
        Ok(Written::Locked) => {
            tx.rollback().await?;
            let pause = LOCKED.saturating_mul(2_u32.saturating_pow(tries.min(10))).min(LOCKED_CAP);
            later(db, &ids, pause, None).await?;
        }
        Err(error) => {
            tx.rollback().await?;
            if error.as_database_error().is_none() {
                return Err(error);
            }
            apart(db, definition, key, &ids).await?;
        }
    }
    Ok(true)
}

/// Whether this transaction alone writes the record's row, to its end: an older value never follows a newer one.
pub(crate) async fn fence(tx: &mut Tx, sync: &str, key: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select pg_try_advisory_xact_lock(hashtextextended($1, 7)) as "mine!""#, format!("{sync}\n{key}"))
        .fetch_one(tx)
        .await
}

/// The table refused the columns together: each is written by itself, so that one that is missing, or not ours to write, keeps back no other.
/// What is refused stays, with the reason, under the newest of the numbers: whatever was left since is newer still.
async fn apart(db: &Db, definition: &Definition, key: &str, ids: &[i64]) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    if !fence(&mut tx, definition.name(), key).await? {
        return Ok(());
    }
    let left = sqlx::query_scalar!("select columns from sluice.local_write where id = any ($1) order by id for update skip locked", ids)
        .fetch_all(&mut tx)
        .await?;
    if left.len() < ids.len() {
        return Ok(()); // another worker is at it
    }
    let columns: Map<String, Value> =
        left.iter().filter_map(Value::as_object).flatten().map(|(name, value)| (name.clone(), value.clone())).collect();
    let (mut refused, mut reasons) = (Map::new(), Vec::new());
    for (name, value) in columns {
        sqlx::query("savepoint one_column").execute(&mut tx).await?;
        match write(&mut tx, definition, key, &json!({ name.as_str(): value })).await {
            Ok(Written::Done) => {}
            Ok(Written::Locked) => {
                tx.rollback().await?;
                return later(db, ids, LOCKED, None).await;
            }
            Err(error) => {
                let Some(refusal) = error.as_database_error() else { return Err(error) };
                reasons.push(refusal_of(definition, &name, refusal));
                sqlx::query("rollback to savepoint one_column").execute(&mut tx).await?;
                refused.insert(name, value);
            }
        }
    }
    let (newest, others) = ids.split_last().map_or((0, ids), |(newest, others)| (*newest, others));
    sqlx::query!("delete from sluice.local_write where id = any ($1)", others).execute(&mut tx).await?;
    if refused.is_empty() {
        sqlx::query!("delete from sluice.local_write where id = $1", newest).execute(&mut tx).await?;
    } else {
        let reason = reasons.join("; ");
        tracing::warn!(sync = definition.name(), key, reason, "the table refused a writeback");
        sqlx::query!(
            "update sluice.local_write set columns = $2, error = $3, tries = tries + 1, due_at = clock_timestamp() + make_interval(secs => $4) where id = $1",
            newest,
            Value::Object(refused),
            reason,
            REFUSED.as_secs_f64()
        )
        .execute(&mut tx)
        .await?;
    }
    tx.commit().await
}

fn refusal_of(definition: &Definition, column: &str, refusal: &dyn sqlx::error::DatabaseError) -> String {
    let table = &definition.sync.table;
    if refusal.code().as_deref() != Some("42703") {
        return format!("column {column}: {}", sluice_core::db::cut(refusal.message()));
    }
    let kind = if definition.sync.writeback.synced_at.as_deref() == Some(column) { "timestamptz" } else { "text" };
    let (relation, name) = (Ident::table(table), Ident::name(column));
    format!(
        "{table} has no column {column}: leave it out of `writeback`, or: alter table {} add column {} {kind};",
        relation.as_str(),
        name.as_str()
    )
}

pub(crate) async fn later(db: &Db, ids: &[i64], pause: Duration, error: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.local_write set due_at = clock_timestamp() + make_interval(secs => $2), tries = tries + 1, error = $3 where id = any ($1)",
        ids,
        pause.as_secs_f64(),
        error
    )
    .execute(db)
    .await?;
    Ok(())
}

enum Written {
    Done,
    Locked,
}

/// Whether a row could be had.
pub(crate) enum Taken {
    Held,
    Gone,
    Locked,
}

/// What every statement on the application's tables runs under: labelled as ours, and patient with their triggers only so far.
pub(crate) async fn own_settings(tx: &mut Tx) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select set_config('sluice.origin', 'sluice', true) as origin, set_config('lock_timeout', $1, true) as lock, set_config('statement_timeout', $2, true) as statement",
        TRIGGERS_MAY_WAIT,
        STATEMENT_LIMIT
    )
    .fetch_one(tx)
    .await?;
    Ok(())
}

/// Whether a policy hides rows from us without a word. Not while we look for one: then PostgreSQL refuses the statement, since a row that is
/// hidden is not gone. Else as usual, for the sake of what the table's triggers read.
pub(crate) async fn policies_hide(tx: &mut Tx, hide: bool) -> Result<(), sqlx::Error> {
    sqlx::query("select set_config('row_security', $1, true)").bind(if hide { "on" } else { "off" }).execute(tx).await?;
    Ok(())
}

/// Locks the row of a key without ever waiting for it.
pub(crate) async fn take_row(tx: &mut Tx, definition: &Definition, key: &str) -> Result<Taken, sqlx::Error> {
    let key_values = key_values(definition, key);
    let record: Map<String, Value> = key_values.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
    let record = Value::Object(record);
    let table = Ident::table(&definition.sync.table);
    let of_key = || {
        let head = Sql::new("with given as (select g.* from jsonb_populate_record(null::").ident(&table).text(", $1) g) select 1 from ");
        of_same_key(head.ident(&table).text(" t join given on "), definition)
    };
    policies_hide(tx, false).await?;
    let held = dynamic::query(of_key().text(" for no key update of t skip locked")).bind(&record).fetch_optional(&mut *tx).await?.is_some();
    let there = held || dynamic::query(of_key()).bind(&record).fetch_optional(&mut *tx).await?.is_some();
    policies_hide(tx, true).await?;
    Ok(match (held, there) {
        (true, _) => Taken::Held,
        (false, true) => Taken::Locked,
        (false, false) => Taken::Gone,
    })
}

/// Writes the columns into the row, or finds it locked. A row that is gone needs no writing. Values take the columns' own types by way of
/// `jsonb_populate_record`; columns that already say so are left alone.
async fn write(tx: &mut Tx, definition: &Definition, key: &str, columns: &Value) -> Result<Written, sqlx::Error> {
    own_settings(tx).await?;
    let mut record = columns.as_object().cloned().unwrap_or_default();
    let names: Vec<Ident> = record.keys().map(|name| Ident::name(name)).collect();
    if names.is_empty() {
        return Ok(Written::Done);
    }
    for (name, value) in key_values(definition, key) {
        record.insert(name, Value::String(value));
    }
    let record = Value::Object(record);
    let table = Ident::table(&definition.sync.table);

    match take_row(tx, definition, key).await? {
        Taken::Held => {}
        Taken::Gone => return Ok(Written::Done),
        Taken::Locked => return Ok(Written::Locked),
    }
    let mut update = Sql::new("update ").ident(&table).text(" t set ");
    for (i, name) in names.iter().enumerate() {
        update = if i > 0 { update.text(", ") } else { update };
        update = update.ident(name).text(" = given.").ident(name);
    }
    update = update.text(" from jsonb_populate_record(null::").ident(&table).text(", $1) given where ");
    update = of_same_key(update, definition).text(" and (");
    for (i, name) in names.iter().enumerate() {
        update = if i > 0 { update.text(" or ") } else { update };
        update = update.text("t.").ident(name).text(" is distinct from given.").ident(name);
    }
    dynamic::query(update.text(")")).bind(&record).execute(&mut *tx).await?;
    Ok(Written::Done)
}

/// The key columns and their texts.
fn key_values(definition: &Definition, key: &str) -> Vec<(String, String)> {
    let texts = match definition.key.as_slice() {
        [_] => vec![key.to_owned()],
        _ => serde_json::from_str(key).unwrap_or_default(),
    };
    definition.key.iter().map(|column| column.name.clone()).zip(texts).collect()
}

/// `t.key = given.key and …`
fn of_same_key(mut sql: Sql, definition: &Definition) -> Sql {
    for (i, column) in definition.key.iter().enumerate() {
        let name = Ident::name(&column.name);
        sql = if i > 0 { sql.text(" and ") } else { sql };
        sql = column.equals(sql.text("t.").ident(&name)).text("given.").ident(&name);
    }
    sql
}
