//! What was sent while nobody received: a poll of the syncs concerned, which goes on from where the last one ended, finds it.
//!
//! Zoho does not say whether, or how often, it tries again (fin §7.5, crm §4.1), so what was not answered 200 counts as lost.

use std::time::Duration;

use sluice_core::config::Config;
use sluice_core::db::Db;
use tokio_util::sync::CancellationToken;

use super::targets;

/// How often a producer says that it receives; a quarter of the silence that counts as absence.
const SAY_EVERY: Duration = Duration::from_secs(5);

/// Says until `shutdown` that this process receives, and asks for polls where events may have been lost. Does nothing without webhooks.
pub async fn run(config: &Config, db: &Db, shutdown: &CancellationToken) {
    let mut syncs: Vec<String> = config.webhooks.values().flat_map(|webhook| targets(config, webhook)).map(|target| target.sync).collect();
    syncs.sort();
    syncs.dedup();
    if syncs.is_empty() {
        return;
    }
    let name = format!("{:016x}", rand::random::<u64>());
    while !shutdown.is_cancelled() {
        match note(db, &name, &syncs, false).await {
            Ok(0) => {}
            Ok(swept) => tracing::info!(swept, "webhook events may have been lost while nobody received: polling what changed"),
            Err(error) => tracing::warn!(%error, "it could not be noted that this producer receives webhooks"),
        }
        shutdown.run_until_cancelled(tokio::time::sleep(SAY_EVERY)).await;
    }
    if let Err(error) = note(db, &name, &syncs, true).await {
        tracing::warn!(%error, "it could not be noted that this producer stops receiving webhooks");
    }
}

/// Answers how many syncs are swept.
async fn note(db: &Db, name: &str, syncs: &[String], stops: bool) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.note_receiver($1, $2, $3) as "swept!""#, name, syncs, stops).fetch_one(db).await
}
