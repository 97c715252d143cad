//! `sluice.connection`: which Zoho organisations there are. No secret is published.

use serde_json::json;
use sluice_core::config::{Config, Connection};
use sluice_core::db::Tx;

use super::{Change, How, Options, Published, Retirable, hash};

pub(super) async fn missing(tx: &mut Tx, names: &[String]) -> Result<Vec<Retirable>, sqlx::Error> {
    let rows = sqlx::query_scalar!("select name from sluice.connection where retired_at is null and name <> all ($1) order by name", names)
        .fetch_all(tx)
        .await?;
    Ok(rows.into_iter().map(|name| Retirable { what: "connection", name, waiting: 0, linked: 0 }).collect())
}

pub(super) async fn publish(tx: &mut Tx, config: &Config, options: &Options, published: &mut Published) -> Result<(), sqlx::Error> {
    for (name, connection) in &config.connections {
        let hash = hash_of(connection);
        let known = sqlx::query!("select hash, retired_at from sluice.connection where name = $1", name).fetch_optional(&mut *tx).await?;
        let how = match &known {
            None => How::Added,
            Some(known) if known.retired_at.is_some() => How::Returned,
            Some(known) if known.hash != hash => How::Changed { linked: 0 },
            Some(_) => continue,
        };
        // An organisation that was found by itself is not forgotten because the file does not name it, unless Zoho refused it.
        sqlx::query!(
            "insert into sluice.connection as c (name, data_center, organization_id, hash, published_by) values ($1, $2, $3, $4, $5)
             on conflict on constraint connection_pkey do update set
               organization_id = coalesce(excluded.organization_id, case when c.data_center = excluded.data_center and c.pause_cause is distinct from 'organization' then c.organization_id end),
               data_center = excluded.data_center, hash = excluded.hash, published_at = clock_timestamp(), published_by = excluded.published_by, retired_at = null",
            name,
            connection.data_center.as_str(),
            connection.organization_id,
            hash,
            options.by
        )
        .execute(&mut *tx)
        .await?;
        resume(tx, name).await?;
        published.changes.push(Change { what: "connection", name: name.clone(), how });
    }
    Ok(())
}

/// What Sluice itself had paused goes on with the new settings; Zoho says whether they are better. What a person paused stays so.
async fn resume(tx: &mut Tx, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.connection set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null where name = $1 and pause_cause is not null",
        name
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "update sluice.sync set paused_at = null, paused_by = null, pause_reason = null, pause_cause = null where connection = $1 and pause_cause is not null",
        name
    )
    .execute(tx)
    .await?;
    Ok(())
}

fn hash_of(connection: &Connection) -> String {
    hash(&json!({
        "data_center": connection.data_center, "organization_id": connection.organization_id, "accounts_url": connection.accounts_url,
        "api_url": connection.api_url, "budget": connection.budget,
    }))
}
