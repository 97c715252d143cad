//! `sluice.mint`: ten places per refresh token and ten minutes, one for each access token that is asked for. It must never let Zoho see an
//! eleventh, whoever was stopped, slept or died meanwhile.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

/// Zoho mints ten access tokens per ten minutes and refresh token (zoho.com/accounts/protocol/oauth/token-limits.html).
const WINDOW: Duration = Duration::from_secs(600);
/// The request must leave within this of asking for its place.
pub(super) const SEND_WITHIN: Duration = Duration::from_secs(2);

/// A place that was taken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) number: i16,
    /// Which taking of the place this is: only it may be given back.
    taken_at: DateTime<Utc>,
}

/// Takes a place for one mint, counted from the last moment at which its request can arrive. `None`: ten were asked for in ten minutes.
pub(super) async fn take(db: impl PgExecutor<'_>, fingerprint: &str, timeout: Duration) -> Result<Option<Place>, sqlx::Error> {
    let row = sqlx::query!(
        r#"update sluice.mint set minted_at = clock_timestamp(), free_at = clock_timestamp() + make_interval(secs => $2)
         where fingerprint = $1 and place = (select place from sluice.mint where fingerprint = $1 and free_at <= clock_timestamp() order by free_at limit 1 for update skip locked)
         returning place, minted_at as "taken_at!""#,
        fingerprint,
        (SEND_WITHIN + timeout + WINDOW).as_secs_f64()
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Place { number: row.place, taken_at: row.taken_at }))
}

/// Gives back a place whose request never left, unless it came free by itself and somebody else has it by now.
pub(super) async fn give_back(db: impl PgExecutor<'_>, fingerprint: &str, place: Place) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.mint set free_at = clock_timestamp() where fingerprint = $1 and place = $2 and minted_at = $3",
        fingerprint,
        place.number,
        place.taken_at
    )
    .execute(db)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests;
