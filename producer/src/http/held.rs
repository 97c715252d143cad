//! `/api/v1/held`: changes that a brake holds, and the decision about them.

use axum::Json;
use axum::extract::{Path, Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, State, api};

/// Rows that one answer holds.
const PAGE_MAX: i64 = 1000;

/// What `GET /api/v1/held` may ask for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Which {
    sync: Option<String>,
    /// Also what was decided.
    all: bool,
    /// Only those after this number: the next page.
    after: i64,
}

/// What `POST /api/v1/held/{id}/approve` may say. Nothing: all of it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Approve {
    keys: Option<Vec<String>>,
    max_records: Option<i32>,
}

pub(super) async fn list(Shared(state): Shared<State>, Query(which): Query<Which>) -> Result<Json<Value>, Failed> {
    let rows: Vec<Value> = sqlx::query_scalar!(
        r#"select to_jsonb(h) as "row!" from sluice.held_change h
           where ($1::text is null or h.sync = $1) and ($2 or h.resolution is null) and h.id > $3 order by h.id limit $4"#,
        which.sync,
        which.all,
        which.after,
        PAGE_MAX
    )
    .fetch_all(&state.0.db)
    .await?;
    Ok(Json(json!({ "held": rows })))
}

pub(super) async fn show(Shared(state): Shared<State>, Path(id): Path<i64>) -> Result<Response, Failed> {
    let held: Option<Value> = sqlx::query_scalar!(
        r#"select to_jsonb(h) || jsonb_build_object('held_records', coalesce(
             (select jsonb_agg(jsonb_build_object('key', r.key, 'operation', r.operation, 'held_at', r.held_at) order by r.id)
              from (select * from sluice.held_record x where x.held_id = h.id and x.resolution is null order by x.id limit $2) r), '[]')) as "row!"
           from sluice.held_change h where h.id = $1"#,
        id,
        PAGE_MAX
    )
    .fetch_optional(&state.0.db)
    .await?;
    Ok(match held {
        Some(held) => Json(held).into_response(),
        None => api::problem(StatusCode::NOT_FOUND, &format!("there is no held change {id}")),
    })
}

pub(super) async fn approve(Shared(state): Shared<State>, Path(id): Path<i64>, body: Option<Json<Approve>>) -> Response {
    let Approve { keys, max_records } = body.map(|Json(body)| body).unwrap_or_default();
    let approved = sqlx::query_scalar!(r#"select sluice.approve($1, $2, $3) as "jobs!""#, id, keys.as_deref(), max_records)
        .fetch_one(&state.0.db)
        .await;
    match approved {
        Ok(jobs) => (StatusCode::ACCEPTED, Json(json!({ "jobs": jobs }))).into_response(),
        Err(error) => api::refused(error),
    }
}

pub(super) async fn reject(Shared(state): Shared<State>, Path(id): Path<i64>) -> Response {
    match sqlx::query!("select sluice.reject($1)", id).execute(&state.0.db).await {
        Ok(_) => Json(json!({ "resolution": "rejected" })).into_response(),
        Err(error) => api::refused(error),
    }
}
