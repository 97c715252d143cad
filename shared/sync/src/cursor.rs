//! How far a sync has looked at its module (`sluice.poll_cursor`). It advances only over what was stored, and never goes back.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sluice_core::db::Tx;
use sqlx::types::Json;

use crate::bulk::Bulk;

/// A sync's place.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    /// Zoho's own time of the newest change that was taken over; `None`: nothing was looked at yet.
    pub since: Option<DateTime<Utc>>,
    /// A walk that is under way.
    pub walk: Option<Walk>,
    /// Up to when deleted records were asked for.
    pub deleted_since: Option<DateTime<Utc>>,
    /// The database's time now.
    pub now: DateTime<Utc>,
}

/// A walk over a list: where the next page begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Walk {
    /// The run that it belongs to.
    pub run_id: i64,
    /// Changes since this time are listed; `None`: everything.
    pub from: Option<DateTime<Utc>>,
    /// The next page, from 1.
    pub page: u32,
    /// What the next page is asked for with instead of its number, where the page before said so: numbers reach only so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The newest change seen so far.
    pub newest: Option<DateTime<Utc>>,
    /// Deleted records since this time are to be listed as well; `None`: not yet, the walk itself sees what there is.
    #[serde(default)]
    pub deleted_from: Option<DateTime<Utc>>,
    /// The list of deleted records is being read.
    #[serde(default)]
    pub deleted: bool,
    /// Records of the page before that the next one may show again: id and time.
    #[serde(default)]
    pub seen: Vec<(String, DateTime<Utc>)>,
    /// The database's time when it began.
    pub began: DateTime<Utc>,
    /// Pages that it has read.
    #[serde(default)]
    pub pages: u32,
    /// What is left of it is read by a bulk job, or was to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<Box<Bulk>>,
}

impl Walk {
    /// The bulk read that it waits for; `None`: its next page is read.
    pub fn bulk(&self) -> Option<&Bulk> {
        self.bulk.as_deref().filter(|bulk| !bulk.given_up)
    }

    /// A walk that begins now.
    pub fn new(run_id: i64, from: Option<DateTime<Utc>>, deleted_from: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        Self {
            run_id,
            from,
            page: 1,
            token: None,
            newest: None,
            deleted_from,
            deleted: false,
            seen: Vec::new(),
            began: now,
            pages: 0,
            bulk: None,
        }
    }

    /// From the beginning of what is listed, for a walk whose next page cannot be had any more.
    #[must_use]
    pub fn anew(&self) -> Self {
        Self { page: 1, token: None, seen: Vec::new(), ..self.clone() }
    }

    /// The walk with its bulk read at another place.
    #[must_use]
    pub fn with(&self, bulk: Bulk) -> Self {
        Self { bulk: Some(Box::new(bulk)), ..self.clone() }
    }
}

/// Where the sync is.
///
/// # Errors
/// When the database does not answer.
pub async fn load(tx: &mut Tx, sync: &str) -> Result<Cursor, sqlx::Error> {
    let row = sqlx::query!(
        r#"select c.since as "since?", c.walk as "walk?: Json<Walk>", c.deleted_since as "deleted_since?", clock_timestamp() as "now!"
           from (select) one left join sluice.poll_cursor c on c.sync = $1"#,
        sync
    )
    .fetch_one(tx)
    .await?;
    Ok(Cursor { since: row.since, walk: row.walk.map(|walk| walk.0), deleted_since: row.deleted_since, now: row.now })
}

/// Keeps the place of a walk that is under way.
///
/// # Errors
/// When the database does not answer.
pub async fn keep(tx: &mut Tx, sync: &str, walk: &Walk) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.poll_cursor (sync, walk) values ($1, $2) on conflict on constraint poll_cursor_pkey do update set walk = excluded.walk",
        sync,
        Json(walk) as _
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Ends a walk: what it has seen is behind us. Records deleted before it began are, if it asked for them or saw everything.
///
/// # Errors
/// When the database does not answer.
pub async fn end(tx: &mut Tx, sync: &str, walk: &Walk) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.poll_cursor as c (sync, since, deleted_since, polled_at) values ($1, $2, case when $3 then $4::timestamptz end, clock_timestamp())
         on conflict on constraint poll_cursor_pkey do update set walk = null, polled_at = excluded.polled_at,
           since = greatest(c.since, excluded.since), deleted_since = greatest(c.deleted_since, excluded.deleted_since)",
        sync,
        walk.newest,
        walk.deleted || walk.deleted_from.is_none(),
        walk.began
    )
    .execute(tx)
    .await?;
    Ok(())
}
