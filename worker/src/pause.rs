//! Pauses that Sluice makes itself, when Zoho's refusal concerns more than a record: the organisation is wrong, a right is missing.
//!
//! Work is claimed no more, jobs wait, no failure is counted. What mends the cause resumes: a changed configuration that is published, another
//! refresh token; and `sluice resume` whatever the cause. Each pause is bound to what Zoho refused, so that an answer which comes after
//! the mending pauses nothing.

use sqlx::PgExecutor;

/// Who it was, in `paused_by`.
const BY: &str = "sluice";

/// Pauses the connection, if it still has this organisation.
pub(crate) async fn connection(db: impl PgExecutor<'_>, name: &str, organization: Option<&str>, reason: &str) -> Result<bool, sqlx::Error> {
    let paused = sqlx::query!(
        "update sluice.connection set paused_at = clock_timestamp(), paused_by = $4, pause_reason = $3, pause_cause = 'organization'
         where name = $1 and organization_id is not distinct from $2 and paused_at is null",
        name,
        organization,
        reason,
        BY
    )
    .execute(db)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Pauses the connections that use this refresh token, which Zoho does not accept: until another one comes, or Zoho accepts it after all.
/// `{connection}` in the reason is the connection's name.
pub(crate) async fn without_token(db: impl PgExecutor<'_>, fingerprint: &str, reason: &str) -> Result<bool, sqlx::Error> {
    let paused = sqlx::query!(
        "update sluice.connection set paused_at = clock_timestamp(), paused_by = $3, pause_reason = replace($2, '{connection}', name), pause_cause = 'token'
         where credential = $1 and paused_at is null",
        fingerprint,
        reason,
        BY
    )
    .execute(db)
    .await?;
    Ok(paused.rows_affected() > 0)
}

/// Pauses the sync, if its connection still has the refresh token of this fingerprint and its definition this hash.
pub(crate) async fn sync(
    db: impl PgExecutor<'_>,
    name: &str,
    (fingerprint, hash): (&str, &str),
    cause: &'static str,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let paused = sqlx::query!(
        "update sluice.sync y set paused_at = clock_timestamp(), paused_by = $6, pause_reason = $5, pause_cause = $4
         where y.name = $1 and y.hash = $3 and y.paused_at is null and exists (select from sluice.connection c where c.name = y.connection and c.credential = $2)",
        name,
        fingerprint,
        hash,
        cause,
        reason,
        BY
    )
    .execute(db)
    .await?;
    Ok(paused.rows_affected() == 1)
}
