//! `GET /logs`: the latest attempts.

use axum::Json;
use axum::extract::{Query, State as Shared};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, State};

/// Attempts that one answer lists.
const PAGE_MAX: i64 = 1000;

/// The filters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    sync: Option<String>,
    key: Option<String>,
    kind: Option<String>,
    outcome: Option<String>,
    class: Option<String>,
    since: Option<DateTime<Utc>>,
    /// Only attempts older than this: the `next` of the page before.
    before: Option<DateTime<Utc>>,
    limit: Option<i64>,
}

/// The newest first; `next` is the `before` of the next page.
pub(super) async fn logs(Shared(state): Shared<State>, Query(filter): Query<Filter>) -> Result<Json<Value>, Failed> {
    let limit = filter.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let rows = sqlx::query!(
        r#"select at, to_jsonb(a) as "row!" from sluice.attempt a
           where ($1::text is null or sync = $1) and ($2::text is null or key = $2) and ($3::text is null or kind = $3)
             and ($4::text is null or outcome = $4) and ($5::text is null or error_class = $5)
             and ($6::timestamptz is null or at >= $6) and ($7::timestamptz is null or at < $7)
           order by at desc limit $8"#,
        filter.sync,
        filter.key,
        filter.kind,
        filter.outcome,
        filter.class,
        filter.since,
        filter.before,
        limit
    )
    .fetch_all(&state.0.db)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| row.at);
    let attempts: Vec<Value> = rows.into_iter().map(|row| row.row).collect();
    Ok(Json(json!({ "attempts": attempts, "next": next })))
}
