//! Acting on a stored event once more, because somebody asks.

use serde_json::Value;
use sluice_core::config::Config;
use sluice_core::db::Db;

use super::named::{document, named};
use super::targets;

/// Why an event is not replayed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none with this number.
    #[error("there is no event {0}")]
    Unknown(i64),
    /// It names no record of a sync, or the job is refused.
    #[error("{0}")]
    Refused(String),
    /// The database did not answer.
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(refusal) if matches!(refusal.code().as_deref(), Some("22023" | "02000")) => {
                Self::Refused(refusal.message().to_owned())
            }
            other => Self::Database(other),
        }
    }
}

/// Inserts an `apply` job: the records that the event names are read. What an event of a module that had no sync names is made out anew, by the
/// configuration as it is now. Returns the job.
///
/// # Errors
/// See [`Error`].
pub async fn replay(db: &Db, config: &Config, event: i64, lane: &str) -> Result<i64, Error> {
    let stored = sqlx::query!("select source, sync, query, body from sluice.event where id = $1", event).fetch_optional(db).await?;
    let Some(stored) = stored else { return Err(Error::Unknown(event)) };
    if stored.sync.is_none()
        && let Some(settings) = config.webhooks.get(&stored.source)
    {
        let json: Option<Value> = serde_json::from_slice(&stored.body).ok();
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&stored.body).into_owned().collect();
        let query = stored.query.as_object().into_iter().flatten();
        let query: Vec<_> = query.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect();
        let document = document(json.as_ref(), json.is_none().then_some(&form[..]));
        let now = named(document.as_ref(), &query, None, &targets(config, settings));
        if let Some(sync) = now.sync {
            sqlx::query!("update sluice.event set sync = $2, zoho_ids = $3 where id = $1 and sync is null", event, sync, &now.zoho_ids)
                .execute(db)
                .await?;
        }
    }
    Ok(sqlx::query_scalar!(r#"select sluice.replay_event($1, $2) as "job!""#, event, lane).fetch_one(db).await?)
}
