//! `/sync/…`: status, trigger, start, stop.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failed, State, store};

/// The body of `POST /sync/trigger`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Trigger {
    sync: Option<String>,
    key: Option<Value>,
    /// A pull of this Zoho record.
    zoho_id: Option<String>,
    #[serde(default)]
    force: bool,
}

/// The body of `POST /sync/start` and `/sync/stop`. Neither named: every connection.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    sync: Option<String>,
    connection: Option<String>,
    reason: Option<String>,
}

/// An error as JSON.
pub(super) fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

/// What one of our SQL functions refused, as the answer that it amounts to.
pub(super) fn refused(error: sqlx::Error) -> Response {
    let status = match error.as_database_error().and_then(|refusal| refusal.code()).as_deref() {
        Some("02000") => StatusCode::NOT_FOUND,
        Some("22023") => StatusCode::UNPROCESSABLE_ENTITY,
        Some("55006") => StatusCode::CONFLICT,
        _ => return Failed(error).into_response(),
    };
    problem(status, error.as_database_error().map_or("refused", |refusal| refusal.message()))
}

pub(super) async fn status(Shared(state): Shared<State>) -> Result<Json<Value>, Failed> {
    let store::Standing { syncs, budgets, avoided, attention, held: _ } = store::standing(&state.0.db).await?;
    Ok(Json(json!({
        "syncs": syncs, "budgets": budgets, "avoided": avoided, "held": attention.held, "changes_waiting": attention.changes_waiting, "paused": attention.paused,
    })))
}

pub(super) async fn trigger(Shared(state): Shared<State>, body: Option<Json<Trigger>>) -> Response {
    let Trigger { sync, key, zoho_id, force } = body.map(|Json(body)| body).unwrap_or_default();
    let key = key.map(|key| match key {
        Value::String(text) => text,
        other => other.to_string(),
    });
    if key.is_some() && sync.is_none() {
        return problem(StatusCode::UNPROCESSABLE_ENTITY, "a key needs its sync");
    }
    let definitions = Arc::clone(&state.0.definitions.borrow());
    let triggered = match (&sync, &zoho_id) {
        (_, Some(_)) if key.is_some() || force => {
            return problem(StatusCode::UNPROCESSABLE_ENTITY, "a zoho_id goes with neither key nor force");
        }
        (None, Some(_)) => return problem(StatusCode::UNPROCESSABLE_ENTITY, "a zoho_id needs its sync"),
        (Some(sync), Some(zoho_id)) => crate::trigger::pull(&state.0.db, sync, zoho_id).await.map(|_| (1, Vec::new())),
        (_, None) => crate::trigger::trigger(&state.0.db, &state.0.reader, &definitions, sync.as_deref(), key.as_deref(), force)
            .await
            .map(|triggered| (triggered.jobs, triggered.reasons)),
    };
    match triggered {
        Ok((jobs, refused)) if refused.is_empty() => (StatusCode::ACCEPTED, Json(json!({ "jobs": jobs }))).into_response(),
        Ok((jobs, refused)) => (StatusCode::ACCEPTED, Json(json!({ "jobs": jobs, "refused": refused }))).into_response(),
        Err(crate::trigger::Error::UnknownSync(name)) => problem(StatusCode::NOT_FOUND, &format!("unknown sync \"{name}\"")),
        Err(none @ crate::trigger::Error::NoRow { .. }) => problem(StatusCode::NOT_FOUND, &none.to_string()),
        Err(held @ crate::trigger::Error::Held { .. }) => problem(StatusCode::CONFLICT, &held.to_string()),
        Err(crate::trigger::Error::Refused(message)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &message),
        Err(crate::trigger::Error::Database(error)) => Failed(error).into_response(),
    }
}

pub(super) async fn start(Shared(state): Shared<State>, body: Option<Json<Which>>) -> Response {
    let which = body.map(|Json(body)| body).unwrap_or_default();
    let started = sqlx::query!("select from sluice.resume($1, $2)", which.connection, which.sync).execute(&state.0.db).await;
    answer(started.map(drop), "running")
}

pub(super) async fn stop(Shared(state): Shared<State>, body: Option<Json<Which>>) -> Response {
    let which = body.map(|Json(body)| body).unwrap_or_default();
    let stopped =
        sqlx::query!("select from sluice.pause($1, $2, $3)", which.connection, which.sync, which.reason).execute(&state.0.db).await;
    answer(stopped.map(drop), "paused")
}

fn answer(result: Result<(), sqlx::Error>, state: &str) -> Response {
    match result {
        Ok(()) => Json(json!({ "state": state })).into_response(),
        Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("22023") => {
            problem(StatusCode::NOT_FOUND, refusal.message())
        }
        Err(error) => Failed(error).into_response(),
    }
}
