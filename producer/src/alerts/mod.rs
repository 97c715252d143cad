//! Tells people: `[alerts.NAME]` of the configuration, each alert once to each name that wants it.
//!
//! An alert is a row of `sluice.alert`. Any number of producers deliver: a lease in a row says who does. What cannot be delivered is tried again with
//! growing pauses for a day, then given up; either stands in `sluice.alert_delivery`. An address is a secret and appears in no error.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::config::trigger::Alert;
use sluice_core::db::Db;
use tokio_util::sync::CancellationToken;

mod form;
mod mail;
mod send;

pub use send::{Error, Sender};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// How long a delivery is one producer's: longer than all tries of one round.
const LEASE: Duration = Duration::from_secs(300);

/// Deliveries of one round, one after another.
const ROUND_MAX: i32 = 20;

/// After the first failure; doubled up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// What somebody is told.
#[derive(Debug, Clone)]
pub struct Told {
    /// The row of `sluice.alert`; 0 for a test.
    pub id: i64,
    /// As in `[alerts.NAME] on`.
    pub occasion: String,
    /// What it is about: a sync, a connection, a webhook.
    pub subject: String,
    /// A sentence for people.
    pub message: String,
    /// When it came up.
    pub raised_at: DateTime<Utc>,
}

/// What one round did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Deliveries that arrived.
    pub sent: u32,
    /// Deliveries that did not.
    pub failed: u32,
}

/// Delivers until `shutdown`.
pub async fn run(config: &Config, db: &Db, shutdown: &CancellationToken) {
    let sender = Sender::default();
    while !shutdown.is_cancelled() {
        if let Err(error) = round(db, &config.alerts, &sender).await {
            tracing::warn!(%error, "alerts could not be looked at; trying again");
        }
        shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
}

/// Raises what has come up and delivers what is due.
///
/// # Errors
/// The database's. What an address answers is no error: it stands with the delivery.
pub async fn round(db: &Db, alerts: &BTreeMap<String, Alert>, sender: &Sender) -> Result<Delivered, sqlx::Error> {
    sqlx::query!("select from sluice.raise_alerts()").execute(db).await?;
    let mut delivered = Delivered::default();
    for (name, tries, told) in take(db, alerts).await? {
        let Some(alert) = alerts.get(&name) else { continue };
        let error = sender.send(alert, &told).await.err();
        if let Some(error) = &error {
            tracing::warn!(alert = name, occasion = told.occasion, %error, "an alert could not be delivered");
            delivered.failed += 1;
        } else {
            delivered.sent += 1;
        }
        let pause = PAUSE.saturating_mul(2u32.saturating_pow(tries.saturating_sub(1).clamp(0, 20).unsigned_abs())).min(PAUSE_MAX);
        sqlx::query!(
            "select from sluice.settle_delivery($1, $2, $3, $4, make_interval(secs => $5))",
            told.id,
            name,
            tries,
            error.map(|error| error.to_string()),
            pause.mul_f64(rand::random_range(0.5..1.0)).as_secs_f64()
        )
        .execute(db)
        .await?;
    }
    Ok(delivered)
}

async fn take(db: &Db, alerts: &BTreeMap<String, Alert>) -> Result<Vec<(String, i32, Told)>, sqlx::Error> {
    let reachable = || alerts.iter().filter(|(_, alert)| alert.url.is_some() || alert.smtp.is_some());
    let names: Vec<String> = reachable().map(|(name, _)| name.clone()).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let occasions: BTreeMap<&String, Vec<&str>> =
        reachable().map(|(name, alert)| (name, alert.on.iter().map(|occasion| occasion.as_str()).collect())).collect();
    let occasions: Value = json!(occasions);
    let rows = sqlx::query!(
        r#"select alert_id as "alert_id!", name as "name!", tries as "tries!", occasion as "occasion!", subject as "subject!", message as "message!", raised_at as "raised_at!"
           from sluice.take_deliveries($1, $2, make_interval(secs => $3), $4)"#,
        &names,
        occasions,
        LEASE.as_secs_f64(),
        ROUND_MAX
    )
    .fetch_all(db)
    .await?;
    let told = rows.into_iter().map(|row| {
        let told = Told { id: row.alert_id, occasion: row.occasion, subject: row.subject, message: row.message, raised_at: row.raised_at };
        (row.name, row.tries, told)
    });
    Ok(told.collect())
}
