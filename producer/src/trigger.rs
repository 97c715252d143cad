//! Jobs because somebody asks: one record, or all that a sync has.

use sluice_core::db::{Db, Tx, cut};
use sluice_sync::definition::Definition;
use sluice_sync::key;
use sluice_sync::link;
use sluice_sync::read::{self, Found, Reader};

use crate::definitions::Definitions;

/// Keys that one transaction enqueues.
const PAGE: u32 = 1000;

/// Rows that a message names.
const NAMED: usize = 5;

/// What was enqueued.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Triggered {
    /// Jobs.
    pub jobs: u64,
    /// Rows that were left out since their key can be no record's.
    pub refused: u64,
    /// The first few of these, and why.
    pub reasons: Vec<String>,
}

impl Triggered {
    fn jobs(jobs: u64) -> Self {
        Self { jobs, ..Self::default() }
    }

    /// Takes out of a page the keys that the insert of a job would refuse, and with it the whole page.
    fn leave_out_refused(&mut self, keys: &mut Vec<String>) {
        keys.retain(|one| {
            let Some(reason) = key::refused(one) else { return true };
            self.refused += 1;
            if self.reasons.len() < NAMED {
                self.reasons.push(reason);
            }
            false
        });
    }
}

/// Why nothing, or not everything, was enqueued.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such sync in the configuration, or it does not fit the database.
    #[error("unknown sync \"{0}\"")]
    UnknownSync(String),
    /// The table has no row with this key, and Zoho has nothing of it either.
    #[error("{table} has no row {key}, and no record of it was ever synced: nothing was enqueued")]
    NoRow {
        /// The sync's table.
        table: String,
        /// The key, as the table prints it.
        key: String,
    },
    /// The brake holds it: nothing of it is sent before somebody decides.
    #[error("the brake holds {sync} {key}, and nothing was enqueued: see `sluice held show {held}`, then approve or reject it")]
    Held {
        /// The sync.
        sync: String,
        /// The key, as the table prints it.
        key: String,
        /// The held change.
        held: i64,
    },
    /// The insert was refused: the key does not fit, or the sync is retired, not published, or only pulls.
    #[error("{0}")]
    Refused(String),
    /// The database did not answer.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) if refusal.code().as_deref() == Some("22023") => Self::Refused(cut(refusal.message())),
            // a mapping that no longer fits its table: syntax, columns, rights
            sqlx::Error::Database(refusal) if refusal.code().is_some_and(|code| code.starts_with("42")) => Self::Refused(format!(
                "the sync's mapping does not fit the database ({}); `sluice check` says where",
                cut(refusal.message())
            )),
            other => Self::Database(other),
        }
    }
}

/// Enqueues a push: of one record, in the lane `interactive`; without a key of everything that is due, in the sync's own lane, and of
/// every sync if none is named. Due is a row that was never synced, and one whose last run became a dead letter; with `force` every row.
/// `force` also forgets what was agreed on, so that every field is sent. A sync that pulls is polled too, with `force` the whole module. What a brake
/// holds is left out, and so are rows whose key can be no record's, which are counted and named.
///
/// # Errors
/// See [`Error`]. Pages enqueued before an error stay enqueued.
pub async fn trigger(
    db: &Db,
    reader: &Reader,
    definitions: &Definitions,
    sync: Option<&str>,
    key: Option<&str>,
    force: bool,
) -> Result<Triggered, Error> {
    if let (Some(sync), Some(key)) = (sync, key) {
        let definition = definitions.by_name.get(sync).ok_or_else(|| Error::UnknownSync(sync.to_owned()))?;
        return one(db, reader, definition, key, force).await.map(Triggered::jobs);
    }
    let mut triggered = Triggered::default();
    let chosen: Vec<_> = definitions.by_name.values().filter(|definition| sync.is_none_or(|sync| sync == definition.name())).collect();
    if let (Some(sync), true) = (sync, chosen.is_empty()) {
        return Err(Error::UnknownSync(sync.to_owned()));
    }
    for definition in chosen {
        if definition.sync.direction.pushes() {
            all(db, reader, definition, force, &mut triggered).await?;
        }
        if definition.sync.direction.pulls() {
            triggered.jobs += poll(db, definition.name(), force).await?;
        }
    }
    Ok(triggered)
}

async fn poll(db: &Db, sync: &str, full: bool) -> Result<u64, Error> {
    sqlx::query!(
        "insert into sluice.job (kind, args) values ('poll', jsonb_build_object('sync', $1::text, 'full', $2::boolean))",
        sync,
        full
    )
    .execute(db)
    .await?;
    Ok(1)
}

/// Enqueues a pull of one Zoho record, in the lane `interactive`: it is read, and what changed there is applied. Returns the job.
///
/// # Errors
/// [`Error::Refused`]: the sync is unknown, retired, or only pushes.
pub async fn pull(db: &Db, sync: &str, zoho_id: &str) -> Result<i64, Error> {
    let job = sqlx::query_scalar!(
        "insert into sluice.job (kind, args, lane) values ('pull', jsonb_build_object('sync', $1::text, 'zoho_id', $2::text), 'interactive') returning id",
        sync,
        zoho_id
    )
    .fetch_one(db)
    .await?;
    Ok(job)
}

async fn one(db: &Db, reader: &Reader, definition: &Definition, key: &str, force: bool) -> Result<u64, Error> {
    let sync = definition.name();
    let key = exists(db, reader, definition, key).await?;
    let mut tx = db.begin().await?;
    let held = sqlx::query_scalar!(
        "select held_id from sluice.held_record where sync = $1 and key = $2 and resolution is null and operation in ('create', 'update', 'delete', 'truncate') limit 1",
        sync,
        key
    )
    .fetch_optional(&mut tx)
    .await?;
    if let Some(held) = held {
        return Err(Error::Held { sync: sync.to_owned(), key, held });
    }
    if force {
        link::store::forget_agreed(&mut tx, sync, std::slice::from_ref(&key)).await?;
    }
    sqlx::query!(
        "insert into sluice.job (kind, args, lane) values ('push', jsonb_build_object('sync', $1::text, 'key', $2::text), 'interactive')",
        sync,
        key
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await?;
    Ok(1)
}

/// That there is something to do under the key: a row, or what was synced of one that is gone. The key, as the table prints it.
async fn exists(db: &Db, reader: &Reader, definition: &Definition, key: &str) -> Result<String, Error> {
    let sync = definition.name();
    let canonical =
        sqlx::query_scalar!(r#"select sluice.canonical_key($1, to_jsonb($2::text)) as "key!""#, sync, key).fetch_one(db).await?;
    let keys = [canonical];
    let gone = match reader.rows(definition, &keys).await {
        Ok(rows) => rows.values().all(|found| *found == Found::Gone),
        Err(read::Error::Broken { .. }) => {
            return Err(Error::Refused(format!("the mapping of {sync} does not fit the database; `sluice check` says where")));
        }
        Err(read::Error::Unavailable(error)) => return Err(error.into()),
    };
    let [key] = keys;
    let known = sqlx::query_scalar!(r#"select exists (select from sluice.link where sync = $1 and key = $2) as "known!""#, sync, key)
        .fetch_one(db)
        .await?;
    if gone && !known { Err(Error::NoRow { table: definition.sync.table.clone(), key }) } else { Ok(key) }
}

async fn all(db: &Db, reader: &Reader, definition: &Definition, force: bool, triggered: &mut Triggered) -> Result<(), Error> {
    let mut after: Option<String> = None;
    loop {
        let mut keys = match reader.keys_after(definition, definition.sync.when.as_deref(), after.as_deref(), PAGE).await {
            Ok(keys) => keys,
            Err(error) => return Err(blamed(reader, definition, after.as_deref(), error).await),
        };
        let Some(last) = keys.last() else { return Ok(()) };
        after = Some(last.clone());
        triggered.leave_out_refused(&mut keys);
        triggered.jobs += page(db, definition, &keys, force).await?;
    }
}

/// The error of a page of keys: if `when` fails on a row, with both named.
pub(crate) async fn blamed(reader: &Reader, definition: &Definition, after: Option<&str>, error: sqlx::Error) -> Error {
    let table = &definition.sync.table;
    match reader.failing_when(definition, after).await {
        Ok(Some((key, reason))) => {
            Error::Refused(format!("`when` of {} fails on {table} {}: {reason}", definition.name(), key::shown(&key)))
        }
        Ok(None) | Err(_) => error.into(),
    }
}

async fn page(db: &Db, definition: &Definition, keys: &[String], force: bool) -> Result<u64, Error> {
    let sync = definition.name();
    let mut tx = db.begin().await?;
    let standings = standing(&mut tx, sync, keys).await?;
    if force {
        let free: Vec<String> = standings.iter().filter(|one| !one.braked).map(|one| one.key.clone()).collect();
        link::store::forget_agreed(&mut tx, sync, &free).await?;
    }
    let due = standings.into_iter().filter(|one| one.is_due(definition, force)).map(|one| one.key);
    let inserted = sqlx::query!(
        "insert into sluice.job (kind, args) select 'push', jsonb_build_object('sync', $1::text, 'key', k.key) from unnest($2::text[]) as k (key)",
        sync,
        &due.collect::<Vec<_>>()
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await?;
    Ok(inserted.rows_affected())
}

/// How it stands with a row, apart from what it says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// The canonical key.
    pub(crate) key: String,
    /// It has a Zoho record.
    pub(crate) linked: bool,
    /// Both sides were known equal once.
    pub(crate) synced: bool,
    /// It has a slot: it is under way already.
    pub(crate) under_way: bool,
    /// Its last run became a dead letter that nobody has resolved.
    pub(crate) letter: bool,
    /// The brake holds what is to be sent of it.
    pub(crate) braked: bool,
}

impl Standing {
    /// Whether a push is asked for. A record with a slot is under way already; a row without Zoho record has nothing to do where the sync makes none; what
    /// a brake holds waits.
    pub(crate) fn is_due(&self, definition: &Definition, force: bool) -> bool {
        !self.braked && (definition.sync.creates || self.linked) && (force || (!self.under_way && (!self.synced || self.letter)))
    }
}

/// How it stands with these rows, in their order.
pub(crate) async fn standing(tx: &mut Tx, sync: &str, keys: &[String]) -> Result<Vec<Standing>, sqlx::Error> {
    sqlx::query_as!(
        Standing,
        r#"select k.key as "key!", coalesce(l.zoho_id is not null, false) as "linked!", coalesce(l.synced_at is not null, false) as "synced!",
             exists (select from sluice.slot s where s.sync = $1 and s.key = k.key) as "under_way!",
             exists (select from sluice.dead_letter d where d.sync = $1 and d.key = k.key and d.resolution is null) as "letter!",
             exists (select from sluice.held_record h where h.sync = $1 and h.key = k.key and h.resolution is null
                     and h.operation in ('create', 'update', 'delete', 'truncate')) as "braked!"
           from unnest($2::text[]) with ordinality as k (key, number) left join sluice.link l on l.sync = $1 and l.key = k.key order by k.number"#,
        sync,
        keys
    )
    .fetch_all(tx)
    .await
}
