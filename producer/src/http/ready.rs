//! `GET /health`: the process answers. `GET /ready`: the database answers, and how the work goes on.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sluice_core::db::listen;

use super::{State, store};

pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// 503 only when the database does not answer: a replica that is taken away for Zoho's faults would help nobody.
pub(super) async fn ready(Shared(state): Shared<State>) -> Response {
    let config = differing(&state);
    let listener = match state.0.listener.state() {
        listen::State::Listening => "listening",
        listen::State::Reconnecting => "reconnecting",
        listen::State::PollingOnly => "polling",
    };
    match store::standing(&state.0.db).await {
        Ok(standing) => {
            let working = standing.syncs.iter().filter(|sync| sync.paused_at.is_none() && sync.retired_at.is_none());
            Json(json!({
                "ready": true,
                "listener": listener,
                "oldest_due_at": working.filter_map(|sync| sync.oldest_due_at).min(),
                "last_success_at": standing.syncs.iter().filter_map(|sync| sync.last_success_at).max(),
                "changes_waiting": standing.attention.changes_waiting,
                "config": config,
            }))
            .into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ready": false, "listener": listener, "config": config }))).into_response()
        }
    }
}

/// The syncs on which this replica's file and the published configuration differ, for people.
pub(super) fn differing(state: &State) -> Vec<String> {
    state.0.agreed.read().map(|agreed| agreed.differing.iter().map(ToString::to_string).collect()).unwrap_or_default()
}
