//! `sluice.credential`: one encrypted row per refresh token.

use std::time::Duration;

use sqlx::PgExecutor;

/// What is stored of a connection's tokens.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) fingerprint: String,
    pub(crate) refresh_token: Vec<u8>,
    pub(crate) access_token: Option<Vec<u8>>,
    /// How long the access token still lives; negative if it does not.
    pub(crate) lives_ms: Option<i64>,
    pub(crate) api_domain: Option<String>,
    pub(crate) failure: Option<String>,
    /// The connection's finance organisation.
    pub(crate) organization_id: Option<String>,
}

pub(crate) async fn load(db: impl PgExecutor<'_>, connection: &str) -> Result<Option<Stored>, sqlx::Error> {
    sqlx::query_as!(
        Stored,
        r#"select r.fingerprint, r.refresh_token, r.access_token, (extract(epoch from r.expires_at - clock_timestamp()) * 1000)::bigint as lives_ms, r.api_domain, r.failure, c.organization_id
           from sluice.connection c join sluice.credential r on r.fingerprint = c.credential where c.name = $1"#,
        connection
    )
    .fetch_optional(db)
    .await
}

/// The connection's organisation, as it is published or was found.
pub(crate) async fn organization(db: impl PgExecutor<'_>, connection: &str) -> Result<Option<String>, sqlx::Error> {
    Ok(sqlx::query_scalar!("select organization_id from sluice.connection where name = $1", connection).fetch_optional(db).await?.flatten())
}

/// Takes it upon this worker to ask for the organisation, for so long. `false`: somebody else does.
pub(crate) async fn take_question(db: impl PgExecutor<'_>, connection: &str, lease: Duration) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!(
        "update sluice.connection set asked_until = clock_timestamp() + make_interval(secs => $2)
         where name = $1 and organization_id is null and coalesce(asked_until, '-infinity') <= clock_timestamp()",
        connection,
        lease.as_secs_f64()
    )
    .execute(db)
    .await?;
    Ok(taken.rows_affected() > 0)
}

/// The question was not answered: another batch may ask.
pub(crate) async fn drop_question(db: impl PgExecutor<'_>, connection: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update sluice.connection set asked_until = null where name = $1", connection).execute(db).await?;
    Ok(())
}

/// Stores an organisation that was found. `false`: one is known already.
pub(crate) async fn learn_organization(db: impl PgExecutor<'_>, connection: &str, id: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.learn_organization($1, $2) as "learnt!""#, connection, id).fetch_one(db).await
}

/// Stores a refresh token with its ten places and makes it the connection's. Keeps what is there under the same fingerprint. The connection goes on
/// if it was paused for want of a token, and its syncs that were for want of a right: this one may have it.
pub(crate) async fn seed(
    tx: &mut sluice_core::db::Tx,
    connection: &str,
    fingerprint: &str,
    refresh_token: &[u8],
    from_file: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.credential (fingerprint, refresh_token) values ($1, $2)
         on conflict (fingerprint) do update set refresh_token = excluded.refresh_token, failure = null, retry_at = '-infinity'",
        fingerprint,
        refresh_token
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "insert into sluice.mint (fingerprint, place) select $1, n from generate_series(1, 10) n on conflict do nothing",
        fingerprint
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update sluice.connection set credential = $2, seeded_with = case when $3 then $2 else seeded_with end,
           paused_at = case when pause_cause is distinct from 'token' then paused_at end, paused_by = case when pause_cause is distinct from 'token' then paused_by end,
           pause_reason = case when pause_cause is distinct from 'token' then pause_reason end, pause_cause = nullif(pause_cause, 'token')
         where name = $1",
        connection,
        fingerprint,
        from_file
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update sluice.sync set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null
         where connection = $1 and pause_cause = 'authorization'",
        connection
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// What the connection was first seeded with, and what it uses now. `None`: the connection is not published.
pub(crate) async fn seeded(db: impl PgExecutor<'_>, connection: &str) -> Result<Option<(Option<String>, Option<String>)>, sqlx::Error> {
    let row = sqlx::query!("select seeded_with, credential from sluice.connection where name = $1", connection).fetch_optional(db).await?;
    Ok(row.map(|r| (r.seeded_with, r.credential)))
}

/// Takes the lease on refreshing, for 30 s, or not: somebody else has it or has just minted another token than the one that was `seen`, or a
/// failure said to wait.
pub(crate) async fn take_refresh(
    db: impl PgExecutor<'_>,
    fingerprint: &str,
    worker: &str,
    seen: Option<&[u8]>,
) -> Result<bool, sqlx::Error> {
    let taken = sqlx::query!(
        "update sluice.credential set refresh_until = clock_timestamp() + interval '30 s', refreshed_by = $2
         where fingerprint = $1 and refresh_until < clock_timestamp() and retry_at < clock_timestamp()
           and access_token is not distinct from $3",
        fingerprint,
        worker,
        seen
    )
    .execute(db)
    .await?;
    Ok(taken.rows_affected() == 1)
}

/// Lets a refresh that failed be tried again at once: what was wrong may be mended. A pause that Zoho asked for is longer than a minute, and kept.
pub(crate) async fn try_again(db: impl PgExecutor<'_>, connection: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.credential set retry_at = '-infinity', failure = null
         where fingerprint = (select credential from sluice.connection where name = $1) and failure is not null and retry_at < clock_timestamp() + interval '1 min'",
        connection
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Stores a minted token and ends the lease. Connections that were paused because Zoho gave none go on.
pub(crate) async fn refreshed(
    tx: &mut sluice_core::db::Tx,
    fingerprint: &str,
    worker: &str,
    access_token: &[u8],
    expires_in: Duration,
    api_domain: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.credential set access_token = $3, expires_at = clock_timestamp() + make_interval(secs => $4), api_domain = coalesce($5, api_domain),
           failure = null, retry_at = '-infinity', refresh_until = '-infinity', updated_at = clock_timestamp()
         where fingerprint = $1 and refreshed_by = $2",
        fingerprint,
        worker,
        access_token,
        expires_in.as_secs_f64(),
        api_domain
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update sluice.connection set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null where credential = $1 and pause_cause = 'token'",
        fingerprint
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// Notes why a refresh failed and when to try again, and ends the lease.
pub(crate) async fn refresh_failed(
    db: impl PgExecutor<'_>,
    fingerprint: &str,
    worker: &str,
    failure: &str,
    retry_in: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.credential set failure = $3, retry_at = clock_timestamp() + make_interval(secs => $4), refresh_until = '-infinity', updated_at = clock_timestamp()
         where fingerprint = $1 and refreshed_by = $2",
        fingerprint,
        worker,
        failure,
        retry_in.as_secs_f64()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Zoho refused the access token: it is dropped, if it is still the one that was used. With `rest` no other is minted for so long.
pub(crate) async fn drop_access_token(db: impl PgExecutor<'_>, fingerprint: &str, used: &[u8], rest: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.credential set access_token = null, expires_at = null,
           failure = case when $3::float8 > 0 then 'Zoho refuses tokens that it has just minted' end,
           retry_at = case when $3::float8 > 0 then clock_timestamp() + make_interval(secs => $3::float8) else retry_at end
         where fingerprint = $1 and access_token = $2",
        fingerprint,
        used,
        rest.as_secs_f64()
    )
    .execute(db)
    .await?;
    Ok(())
}
