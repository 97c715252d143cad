//! CRM's notification channels: which are wanted. Whether one is missing or has to be renewed is decided by its row, and a worker does it.

use secrecy::ExposeSecret;
use sluice_core::config::Config;
use sluice_core::config::trigger::{Verify, Webhook};
use sluice_core::db::Db;
use sluice_core::secrets::hash_token;

use super::targets;

/// Says what channels the configuration wants: one for each webhook with `verify = "crm-token"`, if `[http] public_url` is set. A failure is
/// logged and left to the next round.
pub async fn want(config: &Config, db: &Db) {
    let Some(public_url) = &config.http.public_url else { return };
    for (source, webhook) in config.webhooks.iter().filter(|(_, webhook)| webhook.verify == Verify::CrmToken) {
        match one(config, db, public_url, source, webhook).await {
            Ok(true) => tracing::info!(source, "a CRM notification channel is due: a worker opens or renews it"),
            Ok(false) => {}
            Err(error) => tracing::warn!(source, %error, "the CRM notification channel could not be looked after"),
        }
    }
}

async fn one(config: &Config, db: &Db, public_url: &str, source: &str, webhook: &Webhook) -> Result<bool, sqlx::Error> {
    let targets = targets(config, webhook);
    let syncs: Vec<String> = targets.iter().map(|target| target.sync.clone()).collect();
    let events: Vec<String> = targets.iter().map(|target| format!("{}.all", target.module.name)).collect();
    let notify_url = format!("{}/webhook/{source}", public_url.trim_end_matches('/'));
    sqlx::query_scalar!(
        r#"select sluice.want_channel($1, $2, $3, $4, $5, $6) as "asked!""#,
        source,
        webhook.connection,
        &syncs,
        &events,
        notify_url,
        hash_token(webhook.secret.expose_secret())
    )
    .fetch_one(db)
    .await
}
