//! Reads and writes `sluice.link`. Rows are always written in the order of (sync, key), so that two settles never deadlock.

use std::collections::BTreeMap;

use serde_json::json;
use sluice_core::db::Tx;
use sqlx::types::Json;

use super::{Link, Pairs};
use crate::read::{Parents, Ref};

/// How long after a repeated create Zoho is asked once more whether there are two records now: its lists may lag (finance sheet §4.2).
pub const LOOK_AGAIN_AFTER_SECONDS: i32 = 300;

/// Why links could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the Zoho ids belongs to another record of the same sync: nothing was written, and the transaction is lost.
    #[error("a Zoho record is linked to another row already: {detail}")]
    Taken {
        /// Postgres's detail, which names the sync and the id.
        detail: String,
    },
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What a confirmed success writes into a link. It ends any intent to create.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreed {
    /// The canonical local key.
    pub key: String,
    /// The Zoho record.
    pub zoho_id: String,
    /// What is agreed on now: all pairs, not only the new ones.
    pub fields: Pairs,
    /// Zoho's own time of the state that its answer showed. `None` keeps what was known; an older time never replaces a newer one.
    pub zoho_modified_at: Option<chrono::DateTime<chrono::Utc>>,
    /// Whether a write was sent, from which `min_interval` counts.
    pub written: bool,
    /// Whether the record came of a repeated create and must be looked up once more.
    pub look_again: bool,
}

/// Whether a row of the table changed its key and no producer has moved the link yet. Asked after the rows were read and before the links are:
/// then a link that is about to move is either seen under its new key, or known to be on its way.
///
/// # Errors
/// When the database does not answer.
pub async fn keys_are_moving(tx: &mut Tx, relation: &str, key: &[String]) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (
             select from sluice.change c
             where c.relation = $1 and c.operation = 'update' and c.before is not null
               and exists (select from unnest($2::text[]) k where c.before -> k is distinct from c.after -> k)) as "moving!""#,
        relation,
        key
    )
    .fetch_one(tx)
    .await
}

/// The links of these keys of a sync; keys without one are absent.
///
/// # Errors
/// When the database does not answer.
pub async fn load(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<BTreeMap<String, Link>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select key, zoho_id, fields as "fields: Json<Pairs>", zoho_modified_at, create_sent_at, creates, look_again_at, unsure, pushed_at, hold_until, synced_at, sending, reference, gone_at
           from sluice.link where sync = $1 and key = any($2)"#,
        sync,
        keys
    )
    .fetch_all(tx)
    .await?;
    let links = rows.into_iter().map(|row| Link {
        sync: sync.to_owned(),
        key: row.key,
        zoho_id: row.zoho_id,
        fields: row.fields.0,
        zoho_modified_at: row.zoho_modified_at,
        create_sent_at: row.create_sent_at,
        creates: row.creates,
        look_again_at: row.look_again_at,
        unsure: row.unsure,
        pushed_at: row.pushed_at,
        hold_until: row.hold_until,
        synced_at: row.synced_at,
        sending: row.sending,
        reference: row.reference,
        gone_at: row.gone_at,
    });
    Ok(links.map(|link| (link.key.clone(), link)).collect())
}

/// Writes what was agreed on for records of one sync; times are the database's.
///
/// # Errors
/// [`Error::Taken`] when a Zoho id belongs to another row: ask [`keys_of`] first where that can be.
pub async fn save(tx: &mut Tx, sync: &str, agreed: &[Agreed]) -> Result<(), Error> {
    let rows: Vec<_> = agreed
        .iter()
        .map(|one| {
            json!({
                "key": one.key, "zoho_id": one.zoho_id, "fields": one.fields, "zoho_modified_at": one.zoho_modified_at,
                "written": one.written, "look_again": one.look_again,
            })
        })
        .collect();
    let written = sqlx::query!(
        "insert into sluice.link as l (sync, key, zoho_id, fields, zoho_modified_at, pushed_at, synced_at, look_again_at)
         select $1, n.key, n.zoho_id, n.fields, n.zoho_modified_at, case when n.written then clock_timestamp() end, clock_timestamp(),
                case when n.look_again then clock_timestamp() + make_interval(secs => $3) end
         from jsonb_to_recordset($2) as n(key text, zoho_id text, fields jsonb, zoho_modified_at timestamptz, written bool, look_again bool)
         order by n.key
         on conflict on constraint link_pkey do update
         set zoho_id = excluded.zoho_id, fields = excluded.fields, synced_at = excluded.synced_at,
             zoho_modified_at = greatest(l.zoho_modified_at, excluded.zoho_modified_at),
             pushed_at = coalesce(excluded.pushed_at, l.pushed_at),
             look_again_at = coalesce(excluded.look_again_at, l.look_again_at),
             unsure = l.unsure and excluded.pushed_at is null,
             create_sent_at = null, creates = 0",
        sync,
        Json(rows) as _,
        f64::from(LOOK_AGAIN_AFTER_SECONDS)
    )
    .execute(tx)
    .await;
    written.map(drop).map_err(taken)
}

fn taken(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Database(refusal) if refusal.constraint() == Some("link_zoho_id_key") => {
            let detail = refusal.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().and_then(|error| error.detail()).unwrap_or_default();
            Error::Taken { detail: detail.to_owned() }
        }
        _ => Error::Database(error),
    }
}

/// The Zoho ids of the records that rows refer to. A parent without Zoho id is absent.
///
/// # Errors
/// When the database does not answer.
pub async fn parents(tx: &mut Tx, refs: &[Ref]) -> Result<Parents, sqlx::Error> {
    let (syncs, keys): (Vec<String>, Vec<String>) = refs.iter().map(|one| (one.sync.clone(), one.key.clone())).unzip();
    let rows = sqlx::query!(
        r#"select l.sync, l.key, l.zoho_id as "zoho_id!"
           from (select distinct sync, key from unnest($1::text[], $2::text[]) as r(sync, key)) r
           join sluice.link l using (sync, key)
           where l.zoho_id is not null"#,
        &syncs,
        &keys
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.sync, row.key), row.zoho_id)).collect())
}

/// The Zoho id of one record.
///
/// # Errors
/// When the database does not answer.
pub async fn zoho_id(tx: &mut Tx, sync: &str, key: &str) -> Result<Option<String>, sqlx::Error> {
    let found = sqlx::query_scalar!("select zoho_id from sluice.link where sync = $1 and key = $2", sync, key).fetch_optional(tx).await?;
    Ok(found.flatten())
}

/// Zoho id → local key, for the ids that are linked.
///
/// # Errors
/// When the database does not answer.
pub async fn keys_of(tx: &mut Tx, sync: &str, zoho_ids: &[String]) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows = sqlx::query!(r#"select zoho_id as "zoho_id!", key from sluice.link where sync = $1 and zoho_id = any($2)"#, sync, zoho_ids)
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().map(|row| (row.zoho_id, row.key)).collect())
}

/// The links of these Zoho records, by Zoho id.
///
/// # Errors
/// When the database does not answer.
pub async fn load_by_id(tx: &mut Tx, sync: &str, zoho_ids: &[String]) -> Result<BTreeMap<String, Link>, sqlx::Error> {
    let keys: Vec<String> = keys_of(tx, sync, zoho_ids).await?.into_values().collect();
    let links = load(tx, sync, &keys).await?;
    Ok(links.into_values().filter_map(|link| Some((link.zoho_id.clone()?, link))).collect())
}

/// Rows that Zoho records of several syncs have: (sync, Zoho id) → key.
///
/// # Errors
/// When the database does not answer.
pub async fn keys_of_all(tx: &mut Tx, wanted: &[(String, String)]) -> Result<crate::merge::Keys, sqlx::Error> {
    let (syncs, ids): (Vec<String>, Vec<String>) = wanted.iter().cloned().unzip();
    let rows = sqlx::query!(
        r#"select l.sync, l.zoho_id as "zoho_id!", l.key from unnest($1::text[], $2::text[]) as w (sync, zoho_id) join sluice.link l using (sync, zoho_id)"#,
        &syncs,
        &ids
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|row| ((row.sync, row.zoho_id), row.key)).collect())
}

/// Takes over what a pull has written into the row: the pairs of the fields that it pulled. Links the record to the row if it was not.
///
/// # Errors
/// [`Error::Taken`] when the Zoho id belongs to another row.
pub async fn pulled(
    tx: &mut Tx,
    sync: &str,
    key: &str,
    zoho_id: &str,
    pairs: &Pairs,
    zoho_modified_at: Option<chrono::DateTime<chrono::Utc>>,
) -> Result<(), Error> {
    let written = sqlx::query!(
        "insert into sluice.link as l (sync, key, zoho_id, fields, zoho_modified_at, synced_at) values ($1, $2, $3, $4, $5, clock_timestamp())
         on conflict on constraint link_pkey do update set zoho_id = excluded.zoho_id, fields = l.fields || excluded.fields, synced_at = excluded.synced_at,
           zoho_modified_at = greatest(l.zoho_modified_at, excluded.zoho_modified_at), create_sent_at = null, gone_at = null",
        sync,
        key,
        zoho_id,
        Json(pairs) as _,
        zoho_modified_at
    )
    .execute(tx)
    .await;
    written.map(drop).map_err(taken)
}

/// Notes what is about to be sent, a create or an update: (key, body). Committed before the call, so that whoever comes after a worker that dies with
/// it knows what Zoho may have. Of several lost in a row each may be what Zoho has: the last eight are known.
///
/// # Errors
/// When the database does not answer.
pub async fn sending(tx: &mut Tx, sync: &str, bodies: &[(String, serde_json::Value)]) -> Result<(), sqlx::Error> {
    let (keys, bodies): (Vec<String>, Vec<serde_json::Value>) = bodies.iter().cloned().unzip();
    lock(tx, sync, &keys).await?;
    sqlx::query!(
        "update sluice.link l set sending = case when l.zoho_id is null then jsonb_build_array(n.body)
             else jsonb_path_query_array(coalesce(l.sending, '[]') || jsonb_build_array(n.body), '$[last - 7 to last]') end
         from unnest($2::text[], $3::jsonb[]) as n (key, body)
         where l.sync = $1 and l.key = n.key",
        sync,
        &keys,
        &bodies
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Notes that Zoho has these records no more.
///
/// # Errors
/// When the database does not answer.
pub async fn gone(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    let ordered = lock(tx, sync, keys).await?;
    sqlx::query!(
        "update sluice.link set gone_at = coalesce(gone_at, clock_timestamp()) where sync = $1 and key = any ($2)",
        sync,
        &ordered
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Forgets what was agreed on for linked records, so that every field is compared or sent anew. An adjustment that may be on its way is no
/// agreement: without it the next run would post the difference twice.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_agreed(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    let ordered = lock(tx, sync, keys).await?;
    sqlx::query!(
        "update sluice.link set fields = case when fields ? $3 then jsonb_build_object($3, fields -> $3) else '{}' end
         where sync = $1 and key = any ($2) and zoho_id is not null",
        sync,
        &ordered,
        super::adjusting::ADJUSTING
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Withdraws the intent to create, where it is certain that nothing was sent or that Zoho refused it. A link that says nothing else
/// goes; one that counts creates of unknown outcome keeps that.
///
/// # Errors
/// When the database does not answer.
pub async fn clear_create_intents(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    let ordered = lock(tx, sync, keys).await?;
    sqlx::query!("delete from sluice.link where sync = $1 and key = any($2) and zoho_id is null and creates = 0", sync, &ordered)
        .execute(&mut *tx)
        .await?;
    sqlx::query!(
        "update sluice.link set create_sent_at = null where sync = $1 and key = any($2) and zoho_id is null and create_sent_at is not null",
        sync,
        &ordered
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Of these Zoho records, those that were linked until lately and are no more.
///
/// # Errors
/// When the database does not answer.
pub async fn unlinked(tx: &mut Tx, sync: &str, zoho_ids: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!("select zoho_id from sluice.unlinked where sync = $1 and zoho_id = any ($2)", sync, zoho_ids).fetch_all(tx).await
}

/// Forgets records that were unlinked more than a day ago: no reading is kept for so long.
///
/// # Errors
/// When the database does not answer.
pub async fn forget_unlinked(tx: &mut Tx) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from sluice.unlinked where (sync, zoho_id) in (
           select sync, zoho_id from sluice.unlinked where unlinked_at < clock_timestamp() - interval '1 day' limit 10000 for update skip locked)"
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Removes the links of records that are gone from Zoho.
///
/// # Errors
/// When the database does not answer.
pub async fn remove(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<(), sqlx::Error> {
    let ordered = lock(tx, sync, keys).await?;
    sqlx::query!(
        "with gone as (delete from sluice.link where sync = $1 and key = any($2) returning zoho_id)
         insert into sluice.unlinked as u (sync, zoho_id) select $1, zoho_id from gone where zoho_id is not null order by zoho_id
         on conflict on constraint unlinked_pkey do update set unlinked_at = excluded.unlinked_at",
        sync,
        &ordered
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Moves a link to the row's new key. False if there was none, or if the new key has a link of its own, which then stays.
///
/// # Errors
/// When the database does not answer.
pub async fn move_key(tx: &mut Tx, sync: &str, from: &str, to: &str) -> Result<bool, sqlx::Error> {
    lock(tx, sync, &[from.to_owned(), to.to_owned()]).await?;
    let moved = sqlx::query!(
        "update sluice.link set key = $3
         where sync = $1 and key = $2 and not exists (select from sluice.link where sync = $1 and key = $3)",
        sync,
        from,
        to
    )
    .execute(tx)
    .await?;
    Ok(moved.rows_affected() == 1)
}

/// Notes that a repeated create was looked up again and found to be single.
///
/// # Errors
/// When the database does not answer.
pub async fn looked_again(tx: &mut Tx, sync: &str, key: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.link set look_again_at = null where sync = $1 and key = $2", sync, key).execute(tx).await?;
    Ok(())
}

/// Locks rows in their one order; a delete or update over many keys would lock in the order of its plan.
async fn lock(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!("select key from sluice.link where sync = $1 and key = any($2) order by key for update", sync, keys)
        .fetch_all(tx)
        .await
}
