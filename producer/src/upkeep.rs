//! What keeps the tables in shape: partitions, retention, totals, places. Everything here may be left out for a while, and every producer
//! may do it: nothing waits long for a lock, and doing it twice does no harm.

use std::collections::BTreeSet;
use std::time::Duration;

use sluice_core::db::Db;
use sluice_core::db::dynamic::{self, Expression, Ident, Sql};
use sluice_queue::agreement::Agreement;
use sluice_sync::definition::Definition;

use crate::definitions::Definitions;
use crate::{capture, publish, webhook};

/// Between two rounds.
pub const EVERY: Duration = Duration::from_secs(60);

/// History partitions that exist ahead.
const DAYS_AHEAD: i32 = 7;

/// Answers of `call` jobs are kept this long.
const CALL_RESULT_DAYS: i32 = 7;

/// Rows that one statement prunes.
const PRUNE_MAX: i64 = 10_000;

/// How long counting one table may take.
const COUNT_LIMIT: Duration = Duration::from_secs(60);

/// One round. A part that fails is logged and tried again in the next.
pub async fn round(db: &Db, definitions: &Definitions, role: Option<&str>, retention_days: u32) {
    let days = i32::try_from(retention_days).unwrap_or(i32::MAX / 2);
    report("partitions", keep_partitions(db, days).await);
    report("retention", prune(db, days).await);
    report("events", webhook::prune(db, days, PRUNE_MAX).await);
    report("places", publish::adjust_budgets(db).await);
    report("totals", count_all(db, definitions, role).await);
}

/// The tables that are not captured any more, or not yet, each with what to do; somebody is told of each once a day. Of syncs that are published as this
/// replica has them: others have other triggers.
///
/// # Errors
/// The database's.
pub async fn tell_lost(db: &Db, definitions: &Definitions) -> Result<BTreeSet<String>, sqlx::Error> {
    let agreed = Agreement::read(db, &definitions.hashes()).await?;
    if !agreed.differing.is_empty() {
        return Ok(BTreeSet::new());
    }
    let lost = capture::lost(db, definitions).await?;
    let (tables, said): (Vec<String>, Vec<String>) = lost.iter().map(|one| (one.table.clone(), one.to_string())).unzip();
    sqlx::query!(
        "insert into sluice.alert (occasion, subject, message)
         select 'uncaptured', t.name, format('changes are not captured: %s', t.said) from unnest($1::text[], $2::text[]) as t (name, said)
         where not exists (select from sluice.alert a where a.occasion = 'uncaptured' and a.subject = t.name and a.raised_at > clock_timestamp() - interval '1 day')",
        &tables,
        &said
    )
    .execute(db)
    .await?;
    Ok(said.into_iter().collect())
}

fn report(part: &str, result: Result<(), sqlx::Error>) {
    match result {
        Ok(()) => {}
        // A lock that was not to be had: the next round is soon.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => tracing::debug!(part, "upkeep waits for a lock"),
        Err(error) => tracing::warn!(part, %error, "upkeep failed"),
    }
}

/// Makes the days ahead and drops those past their keeping.
///
/// # Errors
/// The database's; a lock that is not there within 200 ms is one.
pub async fn keep_partitions(db: &Db, days_kept: i32) -> Result<(), sqlx::Error> {
    sqlx::query!("select from sluice.keep_partitions($1, $2)", DAYS_AHEAD, days_kept).fetch_all(db).await?;
    Ok(())
}

/// Deletes what retention no longer covers: answers of calls, resolved dead letters, resolved held changes, alerts.
///
/// # Errors
/// The database's.
pub async fn prune(db: &Db, days_kept: i32) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from sluice.call_result where job_id in (
           select job_id from sluice.call_result where answered_at < clock_timestamp() - make_interval(days => $1) order by answered_at limit $2 for update skip locked)",
        CALL_RESULT_DAYS,
        PRUNE_MAX
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from sluice.dead_letter where id in (
           select id from sluice.dead_letter where resolved_at < clock_timestamp() - make_interval(days => $1) order by id limit $2 for update skip locked)",
        days_kept,
        PRUNE_MAX
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from sluice.held_change where id in (
           select id from sluice.held_change where resolved_at < clock_timestamp() - make_interval(days => $1) order by id limit $2 for update skip locked)",
        days_kept,
        PRUNE_MAX
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from sluice.held_record where id in (
           select r.id from sluice.held_record r where r.held_at < clock_timestamp() - make_interval(days => $1)
             and not exists (select from sluice.held_change h where h.id = r.held_id) order by r.id limit $2 for update skip locked)",
        days_kept,
        PRUNE_MAX
    )
    .execute(db)
    .await?;
    sqlx::query!(
        "delete from sluice.alert where id in (
           select id from sluice.alert where raised_at < clock_timestamp() - make_interval(days => $1) order by id limit $2 for update skip locked)",
        days_kept,
        PRUNE_MAX
    )
    .execute(db)
    .await?;
    // of syncs that have no brake any more: the others forget by themselves
    sqlx::query!(
        "delete from sluice.brake_record b using sluice.sync y
         where y.name = b.sync and (y.retired_at is not null or jsonb_typeof(y.definition -> 'brake') is distinct from 'object')"
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Counts the rows of every sync whose count is older than ten minutes; one producer each.
async fn count_all(db: &Db, definitions: &Definitions, role: Option<&str>) -> Result<(), sqlx::Error> {
    for definition in definitions.by_name.values() {
        let stale = sqlx::query!(
            "update sluice.sync set counted_at = clock_timestamp()
             where name = $1 and hash = $2 and retired_at is null and coalesce(counted_at, '-infinity') < clock_timestamp() - interval '10 min'",
            definition.name(),
            definition.hash()
        )
        .execute(db)
        .await?;
        if stale.rows_affected() == 1 {
            count(db, definition, role).await?;
        }
    }
    Ok(())
}

/// Counts the rows that belong to a sync and publishes the total.
///
/// # Errors
/// The database's, and those of `when`.
pub async fn count(db: &Db, definition: &Definition, role: Option<&str>) -> Result<i64, sqlx::Error> {
    let mut sql =
        Sql::new("select count(*) from ").ident(&Ident::qualified(&definition.table.schema, &definition.table.name)).text(" as this");
    if let Some(when) = &definition.sync.when {
        sql = sql.text(" where ").expression(&Expression::from_configuration(when));
    }
    let mut tx = db.begin_read_only(role, COUNT_LIMIT).await?;
    let total: i64 = dynamic::query_scalar(sql).fetch_one(&mut tx).await?;
    tx.rollback().await?;
    sqlx::query!("update sluice.sync set total = $2, counted_at = clock_timestamp() where name = $1", definition.name(), total)
        .execute(db)
        .await?;
    Ok(total)
}
