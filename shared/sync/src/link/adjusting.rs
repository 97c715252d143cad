//! Levels, such as an item's stock, that Zoho moves by the difference only. A difference that is sent twice counts twice, so what is about to be
//! sent stands in the link before it is, under a reference that Zoho's list shows. What stands there may have been carried out.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_core::db::Tx;
use sqlx::types::Json;

use super::{Link, Pair};

/// The name under which a link remembers it. No Zoho field is called so.
pub const ADJUSTING: &str = "sluice:adjusting";

/// An adjustment that was, or is about to be, sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Adjusting {
    /// What Zoho's list shows of it, and of no other.
    pub reference: String,
    /// The level that it leads to.
    pub to: Value,
    /// The signed difference.
    pub by: Value,
    /// The business date (UTC).
    pub date: String,
    /// When it was about to be sent, by the database's clock.
    pub at: DateTime<Utc>,
}

/// The adjustment of the record that may have been carried out without our knowing.
pub fn pending(link: &Link) -> Option<Adjusting> {
    serde_json::from_value(link.fields.get(ADJUSTING)?.zoho.clone()).ok()
}

/// Writes down what is about to be sent, if the batch still has its lease. `from` and `to` are decimals.
///
/// # Errors
/// When the database does not answer, or a level is no number.
pub async fn intend(
    tx: &mut Tx,
    token: i64,
    (sync, key): (&str, &str),
    reference: &str,
    from: &str,
    to: &str,
) -> Result<Option<Adjusting>, sqlx::Error> {
    let intended = sqlx::query_scalar!(
        r#"update sluice.link l
           set fields = l.fields || jsonb_build_object($1::text, jsonb_build_object('local', null, 'confirmed', false, 'zoho', jsonb_build_object(
             'reference', $5::text, 'to', $7::text::numeric, 'by', $7::text::numeric - $6::text::numeric,
             'date', to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD'), 'at', clock_timestamp())))
           from sluice.batch b
           where b.token = $2 and b.lease_until > clock_timestamp() and l.sync = $3 and l.key = $4
           returning l.fields -> $1 as "pair!: Json<Pair>""#,
        ADJUSTING,
        token,
        sync,
        key,
        reference,
        from,
        to
    )
    .fetch_optional(tx)
    .await?;
    Ok(intended.and_then(|pair| serde_json::from_value(pair.0.zoho).ok()))
}

/// Strikes it out: it is certain that nothing was sent, or that Zoho refused it.
///
/// # Errors
/// When the database does not answer.
pub async fn forget(tx: &mut Tx, sync: &str, key: &str, reference: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update sluice.link set fields = fields - $1::text where sync = $2 and key = $3 and fields #>> array[$1, 'zoho', 'reference'] = $4",
        ADJUSTING,
        sync,
        key,
        reference
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// How long ago it was, by the database's clock.
///
/// # Errors
/// When the database does not answer.
pub async fn age_seconds(tx: &mut Tx, adjusting: &Adjusting) -> Result<f64, sqlx::Error> {
    sqlx::query_scalar!(r#"select extract(epoch from clock_timestamp() - $1::timestamptz)::float8 as "age!""#, adjusting.at)
        .fetch_one(tx)
        .await
}
