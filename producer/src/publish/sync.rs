//! `sluice.sync` and the shapes of its calls.

use std::collections::BTreeMap;
use std::fmt;

use sluice_core::db::{Db, Tx};
use sluice_sync::catalog::Table;
use sluice_sync::definition::Definition;
use sqlx::types::Json;

use super::{Change, How, Options, Published, Retirable};
use crate::definitions::Definitions;

pub(super) async fn missing(tx: &mut Tx, names: &[String]) -> Result<Vec<Retirable>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select y.name, coalesce(c.linked, 0) as "linked!",
                  coalesce(c.pending + c.running + c.retrying + c.waiting, 0) + (select count(*) from sluice.job j where j.sync = y.name) as "waiting!"
           from sluice.sync y left join sluice.sync_counter c on c.sync = y.name
           where y.retired_at is null and y.name <> all ($1) order by y.name"#,
        names
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| Retirable { what: "sync", name: row.name, waiting: row.waiting, linked: row.linked }).collect())
}

pub(super) async fn publish(
    tx: &mut Tx,
    definitions: &Definitions,
    options: &Options,
    published: &mut Published,
) -> Result<(), sqlx::Error> {
    for definition in definitions.by_name.values() {
        if let Some(how) = publish_one(tx, definition, options).await? {
            published.changes.push(Change { what: "sync", name: definition.name().to_owned(), how });
        }
        publish_shape(tx, definition).await?;
    }
    Ok(())
}

/// How `sluice.change`, `sluice.sync` and the capture triggers call a table.
pub(crate) fn relation(table: &Table) -> String {
    format!("{}.{}", table.schema, table.name)
}

async fn publish_one(tx: &mut Tx, definition: &Definition, options: &Options) -> Result<Option<How>, sqlx::Error> {
    let sync = &definition.sync;
    let key_types = key_types(tx, definition).await?;
    let known = sqlx::query!(
        r#"select y.hash, y.definition, y.key_types, y.batch_max, y.retired_at, greatest(coalesce(c.linked, 0), 0) as "linked!"
           from sluice.sync y left join sluice.sync_counter c on c.sync = y.name where y.name = $1"#,
        sync.name
    )
    .fetch_optional(&mut *tx)
    .await?;
    let how = match known {
        None => How::Added,
        Some(known) if known.retired_at.is_some() => How::Returned,
        Some(known) if known.hash != definition.hash() => {
            let same = sluice_core::config::sync::sends_the_same(&known.definition, sync);
            How::Changed { linked: if same { 0 } else { known.linked } }
        }
        Some(known) if known.key_types != key_types || known.batch_max != batch_max(definition) => How::Changed { linked: 0 },
        Some(_) => return Ok(None),
    };
    let watched: Vec<String> = definition.watches.iter().map(|watch| relation(&watch.table)).collect();
    sqlx::query!(
        "insert into sluice.sync as y (name, connection, product, module, relation, watched, key_columns, key_types, direction, lane, min_interval, batch_max, definition, hash, published_by, fresh_within)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, make_interval(secs => $11), $12, $13, $14, $15, make_interval(secs => $16))
         on conflict on constraint sync_pkey do update set
           connection = excluded.connection, product = excluded.product, module = excluded.module, relation = excluded.relation, watched = excluded.watched,
           key_columns = excluded.key_columns, key_types = excluded.key_types, direction = excluded.direction, lane = excluded.lane,
           min_interval = excluded.min_interval, fresh_within = excluded.fresh_within, batch_max = excluded.batch_max, definition = excluded.definition, hash = excluded.hash,
           published_by = excluded.published_by, published_at = clock_timestamp(), retired_at = null,
           -- what Sluice itself had paused goes on with the new definition; what a person paused stays so
           paused_at = case when y.pause_cause is null then y.paused_at end, paused_by = case when y.pause_cause is null then y.paused_by end,
           pause_reason = case when y.pause_cause is null then y.pause_reason end, pause_cause = null",
        sync.name,
        sync.connection,
        sync.module.product.as_str(),
        sync.module.name,
        relation(&definition.table),
        &watched,
        sync.key.columns(),
        &key_types,
        direction(definition),
        sync.lane.as_str(),
        sync.min_interval.as_secs_f64(),
        batch_max(definition),
        Json(sync) as _,
        definition.hash(),
        options.by,
        sync.fresh_within.map(|within| within.as_secs_f64())
    )
    .execute(tx)
    .await?;
    Ok(Some(how))
}

/// How a sync's calls look: one shape for its records, one for its sweeps, and one for its polls where it pulls. A shape keeps its id when the sync moves to another
/// connection or module, or in another direction: what waits goes with it.
async fn publish_shape(tx: &mut Tx, definition: &Definition) -> Result<(), sqlx::Error> {
    let pulls = definition.sync.direction.pulls();
    let records = if pulls { "pull" } else { "push" };
    shape(tx, definition, &["push", "pull"], records, batch_max(definition)).await?;
    shape(tx, definition, &["reconcile"], "reconcile", 1).await?;
    if pulls {
        shape(tx, definition, &["poll"], "poll", 1).await?;
    }
    Ok(())
}

async fn shape(tx: &mut Tx, definition: &Definition, any_of: &[&str], kind: &str, batch_max: i16) -> Result<(), sqlx::Error> {
    let sync = &definition.sync;
    let product = sync.module.product.as_str();
    let kinds: Vec<String> = any_of.iter().map(|kind| (*kind).to_owned()).collect();
    let there = sqlx::query_scalar!(
        r#"with moved as (
             update sluice.shape set connection = $2, product = $3, kind = $4, batch_max = $5
             where sync = $1 and kind = any ($6) and (connection, product, kind, batch_max) is distinct from ($2, $3, $4, $5))
           select exists (select from sluice.shape where sync = $1 and kind = any ($6)) as "there!""#,
        sync.name,
        sync.connection,
        product,
        kind,
        batch_max,
        &kinds
    )
    .fetch_one(&mut *tx)
    .await?;
    if !there {
        sqlx::query!(
            "insert into sluice.shape (connection, product, kind, sync, batch_max) values ($2, $3, $4, $1, $5)",
            sync.name,
            sync.connection,
            product,
            kind,
            batch_max
        )
        .execute(tx)
        .await?;
    }
    Ok(())
}

/// The key columns' types below domains, with their schema where it is not `pg_catalog`: the check of an insert runs without the user's search path.
async fn key_types(tx: &mut Tx, definition: &Definition) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query!("select set_config('search_path', 'pg_catalog, pg_temp', true)").fetch_one(&mut *tx).await?;
    sqlx::query_scalar!(
        r#"with recursive base as (
             select k.number, a.atttypmod as modifier, a.atttypid as type
             from unnest($3::text[]) with ordinality as k (name, number)
             join pg_catalog.pg_class c on c.relname = $2 and c.relnamespace = (select oid from pg_catalog.pg_namespace where nspname = $1)
             join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = k.name
             union all
             select b.number, t.typtypmod, t.typbasetype from base b join pg_catalog.pg_type t on t.oid = b.type and t.typtype = 'd'
           )
           select format_type(t.oid, case when t.oid = 'numeric'::regtype then b.modifier else -1 end) as "type!"
           from base b join pg_catalog.pg_type t on t.oid = b.type and t.typtype <> 'd' order by b.number"#,
        definition.table.schema,
        definition.table.name,
        definition.sync.key.columns()
    )
    .fetch_all(tx)
    .await
}

/// A key column whose type is not the one that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retyped {
    /// The sync.
    pub sync: String,
    /// schema.table.
    pub relation: String,
    /// The types of the key's columns, as they were published.
    pub published: Vec<String>,
    /// And as they are.
    pub now: Vec<String>,
}

impl fmt::Display for Retyped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relation, published, now, .. } = self;
        let (published, now) = (published.join(", "), now.join(", "));
        write!(
            f,
            "the key of {relation} is {now}, but was published as {published}: keys that are no {published} are refused or become dead letters. \"sluice attach\" publishes it; then requeue them"
        )
    }
}

/// The syncs whose key has other types than those that were published.
///
/// # Errors
/// The database's.
pub async fn retyped(db: &Db, definitions: &Definitions) -> Result<Vec<Retyped>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let published: BTreeMap<String, Vec<String>> = sqlx::query!("select name, key_types from sluice.sync where retired_at is null")
        .fetch_all(&mut tx)
        .await?
        .into_iter()
        .map(|row| (row.name, row.key_types))
        .collect();
    let mut found = Vec::new();
    for definition in definitions.by_name.values() {
        let Some(published) = published.get(definition.name()) else { continue };
        let now = key_types(&mut tx, definition).await?;
        if now != *published {
            let relation = relation(&definition.table);
            found.push(Retyped { sync: definition.name().to_owned(), relation, published: published.clone(), now });
        }
    }
    tx.rollback().await?;
    Ok(found)
}

/// Records that one claim may carry: what one call writes, or reads where the sync pulls.
fn batch_max(definition: &Definition) -> i16 {
    i16::try_from(definition.batch_max()).unwrap_or(1).clamp(1, 100)
}

fn direction(definition: &Definition) -> &'static str {
    match (definition.sync.direction.pushes(), definition.sync.direction.pulls()) {
        (true, true) => "both",
        (false, true) => "pull",
        (true, false) | (false, false) => "push",
    }
}
