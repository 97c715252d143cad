//! Carries a pull out on the application's own row and the rows of its child tables, one record a transaction: what was left first, under the record's fence, then the row with
//! `skip locked`, then the link's local half as the row says it afterwards, whatever its types and triggers made of the values.
//!
//! A field is written only if the row still says what the merge was decided on; else the record runs again. A row that the table refuses is a
//! dead letter, not a reason to stop.

mod refused;
mod rows;

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::{Db, Tx};
use sluice_queue::store as queue;
use sluice_sync::definition::Definition;
use sluice_sync::link::{self, Pair, Pairs};
use sluice_sync::read::{Found, Row};
use sluice_sync::sighting;
use sluice_sync::value;

use self::refused::Refused;
use crate::engine::Engine;
use crate::local_write::{self, LOCKED, LOCKED_CAP, REFUSED, Taken, fence, later, own_settings, take_row};
use crate::settle::note_run;
use crate::work::{Act, Pull, Sums, Writeback};

/// What became of one pull.
enum Applied {
    /// The row says it now.
    Done { key: String, created: bool },
    /// There is no row any more to say it, or it says it already.
    NoRow,
    /// The row, the link, or what Zoho has by our own hand, changed since the merge: the record runs again.
    Outdated,
    /// Somebody holds the row.
    Locked,
}

/// Carries out the pulls that were left for one record, the oldest first. `false`: another worker is at it.
pub(crate) async fn carry_out(engine: &Engine, definition: &Definition, key: &str) -> Result<bool, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        "select id from sluice.local_write where sync = $1 and key = $2 and pull is not null and due_at <= clock_timestamp() order by id",
        definition.name(),
        key
    )
    .fetch_all(&engine.db)
    .await?;
    for id in &ids {
        if !one(engine, definition, key, *id).await? {
            return Ok(false);
        }
    }
    Ok(!ids.is_empty())
}

async fn one(engine: &Engine, definition: &Definition, key: &str, id: i64) -> Result<bool, sqlx::Error> {
    let db = &engine.db;
    let mut tx = db.begin().await?;
    if !fence(&mut tx, definition.name(), key).await? {
        return Ok(false);
    }
    // One that a table refused at first may have waited for long: what it was decided on may be from before a write of ours.
    let taken = sqlx::query!(
        r#"delete from sluice.local_write w where id = $1
           returning pull, tries, created_at, exists (select from sluice.link l where l.sync = w.sync and l.key = w.key and l.pushed_at > w.created_at) as "outdated!""#,
        id
    )
    .fetch_optional(&mut tx)
    .await?;
    let Some(taken) = taken else { return Ok(true) };
    let run_id = taken.pull.as_ref().and_then(|pull| pull["run_id"].as_i64());
    let Some(pull) = taken.pull.and_then(|pull| serde_json::from_value::<Pull>(pull).ok()) else {
        if let Some(run_id) = run_id {
            let message = format!("{key}: left by another version of sluice, which this one cannot read");
            note_run(&mut tx, run_id, &Sums { failed: 1, messages: vec![message], ..Sums::default() }).await?;
        }
        tracing::error!(
            sync = definition.name(),
            key,
            "a pull that this version cannot read was dropped; a reconcile finds its record again"
        );
        tx.commit().await?;
        return Ok(true);
    };
    let applied = if taken.outdated { Ok(Applied::Outdated) } else { carry(engine, &mut tx, definition, key, &pull).await };
    match applied {
        Ok(Applied::Locked) => {
            tx.rollback().await?;
            let pause = LOCKED.saturating_mul(2_u32.saturating_pow(taken.tries.unsigned_abs().min(10))).min(LOCKED_CAP);
            later(db, &[id], pause, None).await?;
        }
        Ok(applied) => {
            if let (true, Applied::Done { .. } | Applied::NoRow) = (pull.closes, &applied) {
                close_letters(&mut tx, definition.name(), key, taken.created_at).await?;
            }
            finish(engine, tx, definition, &pull, applied).await?;
        }
        Err(error) => {
            tx.rollback().await?;
            match refused::why(&error) {
                None => return Err(error),
                Some(Refused::Table(reason)) => later(db, &[id], REFUSED, Some(&reason)).await?,
                Some(Refused::Row(reason)) => {
                    let field = refused::field(db, definition, &pull, &error).await?;
                    bury(db, definition, key, id, &pull, &reason, field).await?
                }
            }
        }
    }
    Ok(true)
}

async fn carry(engine: &Engine, tx: &mut Tx, definition: &Definition, key: &str, pull: &Pull) -> Result<Applied, sqlx::Error> {
    own_settings(tx).await?;
    if pull.act == Act::Insert {
        return insert(engine, tx, definition, pull).await;
    }
    match take_row(tx, definition, key).await? {
        Taken::Held => {}
        Taken::Gone => return gone(tx, definition, key, pull).await,
        Taken::Locked => return Ok(Applied::Locked),
    }
    if pull.act == Act::Delete {
        if !rows::write(tx, definition, key, pull).await? {
            return Ok(Applied::Locked);
        }
        delete(tx, definition, key).await?;
        link::store::remove(tx, definition.name(), &[key.to_owned()]).await?;
        return Ok(Applied::Done { key: key.to_owned(), created: false });
    }
    let expected: Vec<&str> = pull.expected.keys().map(String::as_str).collect();
    if !expected.is_empty() {
        let Some(row) = row(engine, tx, definition, key, &expected).await? else { return Ok(Applied::Outdated) };
        let says = |field: &str| row.fields.get(field).map(sluice_sync::read::FieldValue::local);
        if !pull.expected.iter().all(|(field, was)| says(field).is_some_and(|is| value::same(&is, was))) {
            let known = link::store::load(tx, definition.name(), &[key.to_owned()]).await?.remove(key);
            let taken_over = |field: &String, zoho: &Value| {
                known.as_ref().and_then(|link| link.fields.get(field)).is_some_and(|pair| value::same(&pair.zoho, zoho))
            };
            let known = pull.pulled.iter().all(|(field, zoho)| taken_over(field, zoho));
            return Ok(if known { Applied::NoRow } else { Applied::Outdated });
        }
    }
    update(tx, definition, key, &with_writeback(definition, pull, false)).await?;
    if !rows::write(tx, definition, key, pull).await? {
        return Ok(Applied::Locked);
    }
    agree(engine, tx, definition, key, pull).await
}

/// There is no row of that key. Its key may have changed: then the record runs under the new one, once the link has followed.
async fn gone(tx: &mut Tx, definition: &Definition, key: &str, pull: &Pull) -> Result<Applied, sqlx::Error> {
    let (table, columns) = (&definition.table, definition.key.iter().map(|column| column.name.clone()).collect::<Vec<_>>());
    // in this order: the change is gone only when the link has moved
    let moving = link::store::keys_are_moving(tx, &format!("{}.{}", table.schema, table.name), &columns).await?;
    let owner = link::store::keys_of(tx, definition.name(), std::slice::from_ref(&pull.zoho_id)).await?.remove(&pull.zoho_id);
    Ok(match owner {
        Some(owner) if owner != key => Applied::Outdated,
        Some(_) if moving => Applied::Locked,
        _ => Applied::NoRow,
    })
}

async fn insert(engine: &Engine, tx: &mut Tx, definition: &Definition, pull: &Pull) -> Result<Applied, sqlx::Error> {
    let there = link::store::keys_of(tx, definition.name(), std::slice::from_ref(&pull.zoho_id)).await?;
    if !there.is_empty() {
        return Ok(Applied::Outdated);
    }
    let columns = with_writeback(definition, pull, true);
    let names: Vec<Ident> = columns.keys().map(|name| Ident::name(name)).collect();
    let table = Ident::table(&definition.sync.table);
    let mut sql = Sql::new("insert into ").ident(&table).text(" as this (").idents(&names).text(") select ").idents(&names);
    sql = sql.text(" from jsonb_populate_record(null::").ident(&table).text(", $1) returning ");
    sql = match definition.key.as_slice() {
        [only] => sql.text("to_jsonb(this.").ident(&Ident::name(&only.name)).text(")"),
        several => {
            let columns: Vec<Ident> = several.iter().map(|column| Ident::name(&column.name)).collect();
            sql.text("jsonb_build_array(").idents(&columns).text(")")
        }
    };
    let key: Value = dynamic::query_scalar(sql).bind(Value::Object(columns)).fetch_one(&mut *tx).await?;
    let key = sqlx::query_scalar!(r#"select sluice.canonical_key($1, $2) as "key!""#, definition.name(), key).fetch_one(&mut *tx).await?;
    if !rows::write(tx, definition, &key, pull).await? {
        return Ok(Applied::Locked);
    }
    match agree(engine, tx, definition, &key, pull).await? {
        Applied::Done { key, .. } => Ok(Applied::Done { key, created: true }),
        other => Ok(other),
    }
}

/// The link takes over what the row says now.
async fn agree(engine: &Engine, tx: &mut Tx, definition: &Definition, key: &str, pull: &Pull) -> Result<Applied, sqlx::Error> {
    let fields: Vec<&str> = pull.pulled.keys().map(String::as_str).filter(|field| definition.fields().contains_key(*field)).collect();
    let row = match row(engine, tx, definition, key, &fields).await? {
        Some(row) => row,
        None => return Ok(Applied::NoRow), // a trigger of the table's took it elsewhere
    };
    let pairs: Pairs = pull
        .pulled
        .iter()
        .map(|(field, zoho)| {
            let local = row.fields.get(field).map_or_else(|| zoho.clone(), sluice_sync::read::FieldValue::local);
            (field.clone(), Pair { local, zoho: zoho.clone(), confirmed: true })
        })
        .collect();
    match link::store::pulled(tx, definition.name(), key, &pull.zoho_id, &pairs, pull.modified_at).await {
        Ok(()) => Ok(Applied::Done { key: key.to_owned(), created: false }),
        Err(link::store::Error::Taken { .. }) => Ok(Applied::Outdated),
        Err(link::store::Error::Database(error)) => Err(error),
    }
}

async fn finish(engine: &Engine, mut tx: Tx, definition: &Definition, pull: &Pull, applied: Applied) -> Result<(), sqlx::Error> {
    let sync = definition.name();
    let mut sums = Sums::default();
    match applied {
        Applied::Done { key, created } => {
            if let Some(run_id) = pull.run_id {
                sums.created = i64::from(created);
                sums.updated = i64::from(!created);
                note_run(&mut tx, run_id, &sums).await?;
            }
            tx.commit().await?;
            if created {
                queue::wake_waiting(&engine.db, sync, &[key], true).await?;
            }
        }
        Applied::NoRow => {
            if let Some(run_id) = pull.run_id {
                sums.unchanged = 1;
                note_run(&mut tx, run_id, &sums).await?;
            }
            tx.commit().await?;
        }
        Applied::Outdated => {
            // nothing of what this transaction may have written stands
            tx.rollback().await?;
            let mut tx = engine.db.begin().await?;
            let dropped =
                sqlx::query!("delete from sluice.local_write where sync = $1 and pull = $2", sync, json!(pull)).execute(&mut tx).await?;
            if dropped.rows_affected() > 0 {
                let args = json!({"sync": sync, "zoho_id": pull.zoho_id});
                sqlx::query!("insert into sluice.job (kind, args, lane) values ('pull', $1, $2)", args, definition.sync.lane.as_str())
                    .execute(&mut tx)
                    .await?;
                if let Some(run_id) = pull.run_id {
                    sighting::owed(&mut tx, sync, &pull.zoho_id, run_id).await?;
                }
            }
            tx.commit().await?;
        }
        Applied::Locked => {}
    }
    Ok(())
}

/// The row says it: what was open of its record before is over. A letter that somebody is resolving is his.
async fn close_letters(tx: &mut Tx, sync: &str, key: &str, since: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.dead_letter set resolution = 'superseded', resolved_by = 'sluice', resolved_at = clock_timestamp() where id in (
           select d.id from sluice.dead_letter d where d.sync = $1 and d.key = $2 and d.resolution is null and d.created_at < $3 for update skip locked)",
        sync,
        key,
        since
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A row that the table refuses for what is in it. One letter says so, however often Zoho shows the record meanwhile.
async fn bury(
    db: &Db,
    definition: &Definition,
    key: &str,
    id: i64,
    pull: &Pull,
    reason: &str,
    field: Option<String>,
) -> Result<(), sqlx::Error> {
    let sync = definition.name();
    tracing::warn!(sync, key, zoho_id = pull.zoho_id, reason, "the table refused what Zoho says; see the dead letters");
    let mut tx = db.begin().await?;
    let dropped = sqlx::query!("delete from sluice.local_write where id = $1", id).execute(&mut tx).await?;
    if dropped.rows_affected() > 0 {
        let message = format!("the table {} refused what Zoho says: {reason}", definition.sync.table);
        sqlx::query!(
            "insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message, hint, response, field)
             select 'pull', $1, $2, $3, $4, 'validation', $5, $6, $7, $8
             where not exists (select from sluice.dead_letter d where d.sync = $2 and d.key = $3 and d.kind = 'pull' and d.resolution is null
               and d.error_class = 'validation' and d.message = $5)",
            json!({"sync": sync, "zoho_id": pull.zoho_id}),
            sync,
            key,
            definition.sync.lane.as_str(),
            message,
            "mend the record in Zoho, the mapping or the table, then requeue",
            sluice_zoho::mask::excerpt(&json!(pull.columns)),
            field
        )
        .execute(&mut tx)
        .await?;
        if pull.act != Act::Insert {
            let told = Writeback { key: key.to_owned(), status: "failed", zoho_id: None, error: Some(message) };
            local_write::leave(&mut tx, definition, &[told]).await?;
        }
        if let Some(run_id) = pull.run_id {
            let sums = Sums { failed: 1, messages: vec![format!("{}: {reason}", pull.zoho_id)], ..Sums::default() };
            note_run(&mut tx, run_id, &sums).await?;
        }
    }
    tx.commit().await
}

async fn row(engine: &Engine, tx: &mut Tx, definition: &Definition, key: &str, fields: &[&str]) -> Result<Option<Row>, sqlx::Error> {
    match engine.reader.row_within(tx, definition, key, fields).await? {
        Found::Row(row) => Ok(Some(row)),
        Found::Gone => Ok(None),
    }
}

/// The columns of the pull, and those that tell the application about it.
fn with_writeback(definition: &Definition, pull: &Pull, new: bool) -> Map<String, Value> {
    let mut columns: Map<String, Value> = pull.columns.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    columns.extend(pull.files.iter().map(|(name, bytes)| (name.clone(), json!(bytes))));
    let own = &definition.sync.writeback;
    let mut put = |column: &Option<String>, value: Value| {
        if let Some(column) = column {
            columns.insert(column.clone(), value);
        }
    };
    if new {
        put(&own.id, json!(pull.zoho_id));
    }
    put(&own.status, json!("synced"));
    put(&own.error, Value::Null); // what an earlier run said of the row
    put(&own.synced_at, json!(chrono::Utc::now().to_rfc3339()));
    columns
}

async fn update(tx: &mut Tx, definition: &Definition, key: &str, columns: &Map<String, Value>) -> Result<(), sqlx::Error> {
    if columns.is_empty() {
        return Ok(()); // rows of child tables alone
    }
    let table = Ident::table(&definition.sync.table);
    let names: Vec<Ident> = columns.keys().map(|name| Ident::name(name)).collect();
    let mut sql = Sql::new("update ").ident(&table).text(" this set ");
    for (index, name) in names.iter().enumerate() {
        sql = sql.text(if index > 0 { ", " } else { "" }).ident(name).text(" = given.").ident(name);
    }
    sql = sql.text(" from jsonb_populate_record(null::").ident(&table).text(", $1) given where ");
    dynamic::query(of_key(sql, definition)).bind(Value::Object(columns.clone())).bind(key_parts(definition, key)).execute(tx).await?;
    Ok(())
}

async fn delete(tx: &mut Tx, definition: &Definition, key: &str) -> Result<(), sqlx::Error> {
    let sql = Sql::new("delete from ").ident(&Ident::table(&definition.sync.table)).text(" this using (select $1::jsonb) as given where ");
    dynamic::query(of_key(sql, definition)).bind(Value::Null).bind(key_parts(definition, key)).execute(tx).await?;
    Ok(())
}

/// `this.<key> = <part of $2>` for each key column.
fn of_key(mut sql: Sql, definition: &Definition) -> Sql {
    for (index, column) in definition.key.iter().enumerate() {
        sql = sql.text(if index > 0 { " and " } else { "" }).text("this.").ident(&Ident::name(&column.name));
        sql = column
            .equals(sql)
            .text("(")
            .numbered(2)
            .text("::text[])[")
            .literal(&(index + 1).to_string())
            .text("::int]::")
            .ident(&column.type_ident);
    }
    sql
}

/// The texts of the key columns.
pub(crate) fn key_parts(definition: &Definition, key: &str) -> Vec<String> {
    match definition.key.as_slice() {
        [_] => vec![key.to_owned()],
        _ => serde_json::from_str(key).unwrap_or_default(),
    }
}
