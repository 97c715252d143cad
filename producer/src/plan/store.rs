//! What the plan asks of our own tables beside links and the ledger. Read-only, as all of it.

use std::time::Duration;

use sluice_core::db::Db;
use sluice_sync::cursor;
use sluice_sync::definition::Definition;

use super::calls::Poll;

/// The longest that one of these may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Whether the sync is published as the file has it, and why nothing of it goes on.
pub(super) async fn published(db: &Db, definition: &Definition) -> Result<(bool, Option<String>), sqlx::Error> {
    let mut tx = db.begin_read_only(None, LIMIT).await?;
    let row = sqlx::query!(
        r#"select hash, retired_at is not null as "retired!", paused_at is not null as "paused!", pause_reason from sluice.sync where name = $1"#,
        definition.name()
    )
    .fetch_optional(&mut tx)
    .await?;
    tx.rollback().await?;
    Ok(match row {
        None => (false, None),
        Some(row) if row.retired => (false, Some("the sync is retired: its jobs are refused".to_owned())),
        Some(row) => {
            let why = row.pause_reason.map(|why| format!(" ({why})")).unwrap_or_default();
            let paused =
                row.paused.then(|| format!("the sync is paused{why}: its jobs wait until `sluice resume --sync {}`", definition.name()));
            (row.hash == definition.hash(), paused)
        }
    })
}

/// How a poll would begin.
pub(super) async fn poll(db: &Db, definition: &Definition, every: bool) -> Result<Poll, sqlx::Error> {
    let mut tx = db.begin_read_only(None, LIMIT).await?;
    let cursor = cursor::load(&mut tx, definition.name()).await?;
    tx.rollback().await?;
    let from = cursor.walk.as_ref().map_or(cursor.since, |walk| walk.from);
    Ok(Poll { whole: from.is_none() || (cursor.walk.is_none() && every), deleted: cursor.deleted_since.is_some() })
}

/// How many Zoho records are linked.
pub(super) async fn linked(db: &Db, sync: &str) -> Result<u64, sqlx::Error> {
    let mut tx = db.begin_read_only(None, LIMIT).await?;
    let linked = sqlx::query_scalar!(
        r#"select count(*) as "linked!" from sluice.link where sync = $1 and zoho_id is not null and gone_at is null"#,
        sync
    )
    .fetch_one(&mut tx)
    .await?;
    tx.rollback().await?;
    Ok(u64::try_from(linked).unwrap_or(0))
}
