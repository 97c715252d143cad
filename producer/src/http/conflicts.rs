//! `/api/v1/conflicts`: fields that changed on both sides, and the decision about them. `/api/v1/runs`: what polls and bulk runs did.

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, State, api};

/// Rows that one answer holds.
const PAGE_MAX: i64 = 1000;

/// What `GET /api/v1/conflicts` and `/api/v1/runs` may ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Which {
    sync: Option<String>,
    /// Of conflicts: also what was resolved.
    all: bool,
    /// Only those after this number: the next page. Of runs, which come newest first: only those before it.
    after: Option<i64>,
}

/// The body of `POST /api/v1/conflicts/{id}/resolve`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resolve {
    /// `local` or `zoho`.
    side: String,
}

pub(super) async fn list(Shared(state): Shared<State>, Query(which): Query<Which>) -> Result<Json<Value>, Failed> {
    let rows: Vec<Value> = sqlx::query_scalar!(
        r#"select to_jsonb(c) as "row!" from sluice.conflict c
           where ($1::text is null or c.sync = $1) and ($2 or c.resolution is null) and c.id > coalesce($3::bigint, 0) order by c.id limit $4"#,
        which.sync,
        which.all,
        which.after,
        PAGE_MAX
    )
    .fetch_all(&state.0.db)
    .await?;
    Ok(Json(json!({ "conflicts": rows })))
}

pub(super) async fn resolve(Shared(state): Shared<State>, Path(id): Path<i64>, Json(body): Json<Resolve>) -> Response {
    match sqlx::query!("select sluice.resolve($1, $2)", id, body.side).execute(&state.0.db).await {
        Ok(_) => (StatusCode::ACCEPTED, Json(json!({ "resolution": body.side }))).into_response(),
        Err(error) => api::refused(error),
    }
}

pub(super) async fn runs(Shared(state): Shared<State>, Query(which): Query<Which>) -> Result<Json<Value>, Failed> {
    let rows: Vec<Value> = sqlx::query_scalar!(
        r#"select to_jsonb(r) as "row!" from sluice.run r where ($1::text is null or r.sync = $1) and ($2::bigint is null or r.id < $2) order by r.id desc limit $3"#,
        which.sync,
        which.after,
        PAGE_MAX
    )
    .fetch_all(&state.0.db)
    .await?;
    Ok(Json(json!({ "runs": rows })))
}
