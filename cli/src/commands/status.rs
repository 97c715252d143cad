//! `sluice status`: how each sync stands, and what keeps it from going on.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_producer::{Definitions, capture, publish};
use sluice_queue::agreement::Agreement;

use crate::exit::Answer;
use crate::output::{self, text, time};
use crate::process;
use crate::session::Session;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(2);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep looking, every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    if !args.watch {
        show(session, &config, &db).await?;
        return Ok(Answer::Yes);
    }
    let shutdown = process::shutdown_on_signal()?;
    while !shutdown.is_cancelled() {
        if std::io::stdout().is_terminal() && !session.options.json {
            output::line(CLEAR_SCREEN)?;
        }
        show(session, &config, &db).await?;
        let _ = tokio::time::timeout(INTERVAL, shutdown.cancelled()).await;
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, config: &Config, db: &Db) -> anyhow::Result<()> {
    let syncs = syncs(db).await?;
    let notices = notices(config, db).await?;
    if session.options.json {
        output::json(&json!({ "syncs": syncs, "notices": notices }))?;
        return Ok(());
    }
    let columns = [
        text("SYNC", "sync"),
        text("ROWS", "total"),
        time("COUNTED", "counted_at"),
        text("SYNCED", "synced"),
        text("PENDING", "pending"),
        text("RUNNING", "running"),
        text("RETRYING", "retrying"),
        text("FAILED", "failed"),
        time("OLDEST DUE", "oldest_due_at"),
        time("LAST SUCCESS", "last_success_at"),
    ];
    output::line(&output::table(&columns, &syncs, "nothing is published yet; run `sluice attach` or `sluice up`"))?;
    for notice in &notices {
        output::line(notice)?;
    }
    Ok(())
}

async fn syncs(db: &Db) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(s) as "row!" from sluice.sync_status s where retired_at is null order by sync"#)
        .fetch_all(db)
        .await
}

/// What keeps work from being done, a line each.
async fn notices(config: &Config, db: &Db) -> Result<Vec<String>, sqlx::Error> {
    let mut notices = broken(config, db).await?;
    notices.extend(differing(config, db).await?);
    notices.extend(paused(db).await?);
    notices.extend(held(db).await?);
    notices.extend(conflicts(db).await?);
    notices.extend(unwritten(db).await?);
    Ok(notices)
}

/// Published syncs that cannot work as they are: their records wait until that is mended. A role that may only look has no rights on the
/// tables by which to judge.
async fn broken(config: &Config, db: &Db) -> Result<Vec<String>, sqlx::Error> {
    let only_looks =
        sqlx::query_scalar!(r#"select not has_table_privilege('sluice.slot', 'update') as "only_looks!""#).fetch_one(db).await?;
    if only_looks {
        return Ok(Vec::new());
    }
    let published = Definitions::published(db, config.database.expression_role.clone()).await?;
    let mut broken: Vec<String> = published.errors(None).iter().map(|finding| format!("cannot work: {finding}")).collect();
    broken.extend(publish::retyped(db, &published).await?.iter().map(|one| format!("key changed: {}: {one}", one.sync)));
    broken.extend(capture::lost(db, &published).await?.iter().map(|one| format!("not captured: {one}")));
    Ok(broken)
}

/// Syncs whose published definition is not this file's: replicas with this file leave them alone. Without a file there is nothing to compare.
pub(crate) async fn differing(config: &Config, db: &Db) -> Result<Vec<String>, sqlx::Error> {
    if config.file.is_none() {
        return Ok(Vec::new());
    }
    let own = config.syncs.iter().map(|(name, sync)| (name.clone(), sync.definition_hash())).collect();
    let agreement = Agreement::read(db, &own).await?;
    Ok(agreement.differing.iter().map(ToString::to_string).collect())
}

async fn paused(db: &Db) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select format('paused: connection %s, by %s%s', name, paused_by, ': ' || pause_reason) as "line!" from sluice.connection
           where paused_at is not null and retired_at is null
           union all
           select format('paused: sync %s, by %s%s', name, paused_by, ': ' || pause_reason) from sluice.sync where paused_at is not null and retired_at is null
           union all
           select format('waiting for Zoho: %s of connection %s has not answered since %s', product, connection, to_char(opened_at, 'HH24:MI:SS')) from sluice.product
           where opened_at is not null
           union all
           select format('blocked by Zoho until %s: %s', to_char(blocked_until, 'HH24:MI:SS'), coalesce(blocked_reason, scope)) from sluice.budget
           where blocked_until > clock_timestamp()
           union all
           select format('no access token for connection %s: %s (another refresh token: sluice auth %s)', c.name, r.failure, c.name) from sluice.connection c join sluice.credential r on r.fingerprint = c.credential
           where r.failure is not null"#
    )
    .fetch_all(db)
    .await
}

/// Changes that wait for a person: a truncate, a mass change, a watch whose expression failed.
async fn held(db: &Db) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select format('held: %s change(s) of %s since %s: %s (sluice held)', count(*), sync, to_char(min(created_at), 'YYYY-MM-DD HH24:MI'), reason) as "line!"
           from sluice.held_change where resolution is null group by sync, reason order by sync, min(created_at) limit 20"#
    )
    .fetch_all(db)
    .await
}

/// Fields of which a person has to say which side is right.
async fn conflicts(db: &Db) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select format('undecided: %s field(s) of %s, since %s: %s (sluice conflicts)', count(*), sync, to_char(min(created_at), 'YYYY-MM-DD HH24:MI'), reason) as "line!"
           from sluice.conflict where resolution is null group by sync, reason order by sync, min(created_at) limit 20"#
    )
    .fetch_all(db)
    .await
}

/// Status columns that a table refuses. The sync itself is not hindered.
pub(crate) async fn unwritten(db: &Db) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select format('writeback refused: %s row(s) of %s: %s', count(distinct key), sync, error) as "line!" from sluice.local_write
           where error is not null group by sync, error order by sync, count(*) desc limit 20"#
    )
    .fetch_all(db)
    .await
}
