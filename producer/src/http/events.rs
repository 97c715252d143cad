//! `/api/v1/events`: stored webhook events, and acting on one again.

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, State, api};
use crate::webhook;

/// Events that one answer lists.
const PAGE_MAX: i64 = 1000;

/// The filters of `GET /api/v1/events`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    source: Option<String>,
    verdict: Option<String>,
    /// `stored` asks for those that are not decided yet.
    outcome: Option<String>,
    sync: Option<String>,
    since: Option<DateTime<Utc>>,
    /// Only events older than this one: the `next` of the page before.
    before: Option<i64>,
    limit: Option<i64>,
}

/// The newest first, without their bodies; `next` is the `before` of the next page.
pub(super) async fn list(Shared(state): Shared<State>, Query(filter): Query<Filter>) -> Result<Json<Value>, Failed> {
    let limit = filter.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let rows = sqlx::query!(
        r#"select id, to_jsonb(e) - 'body' - 'headers' as "row!" from sluice.event e
           where ($1::text is null or source = $1) and ($2::text is null or verdict = $2) and ($3::text is null or coalesce(outcome, 'stored') = $3)
             and ($4::text is null or sync = $4) and ($5::timestamptz is null or received_at >= $5) and ($6::bigint is null or id < $6)
           order by id desc limit $7"#,
        filter.source,
        filter.verdict,
        filter.outcome,
        filter.sync,
        filter.since,
        filter.before,
        limit
    )
    .fetch_all(&state.0.db)
    .await?;
    let full = i64::try_from(rows.len()).is_ok_and(|count| count == limit);
    let next = rows.last().filter(|_| full).map(|row| row.id);
    let events: Vec<Value> = rows.into_iter().map(|row| row.row).collect();
    Ok(Json(json!({ "events": events, "next": next })))
}

/// One event with all that came.
pub(super) async fn show(Shared(state): Shared<State>, Path(id): Path<i64>) -> Result<Response, Failed> {
    Ok(match webhook::show(&state.0.db, id).await? {
        Some(event) => Json(event).into_response(),
        None => api::problem(StatusCode::NOT_FOUND, &format!("there is no event {id}")),
    })
}

/// By source and verdict: how many came, and how many were refused.
pub(super) async fn report(Shared(state): Shared<State>) -> Result<Json<Value>, Failed> {
    Ok(Json(json!({ "sources": webhook::report(&state.0.db).await? })))
}

/// Reads the records that an event names, now.
pub(super) async fn replay(Shared(state): Shared<State>, Path(id): Path<i64>) -> Response {
    match webhook::replay(&state.0.db, &state.0.config, id, "interactive").await {
        Ok(job) => (StatusCode::ACCEPTED, Json(json!({ "job": job }))).into_response(),
        Err(error @ webhook::ReplayError::Unknown(_)) => api::problem(StatusCode::NOT_FOUND, &error.to_string()),
        Err(webhook::ReplayError::Refused(message)) => api::problem(StatusCode::UNPROCESSABLE_ENTITY, &message),
        Err(webhook::ReplayError::Database(error)) => Failed::from(error).into_response(),
    }
}
