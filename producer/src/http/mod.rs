//! The producer's web server: is it alive, does it make progress, what stands where; and the few acts that a script needs.
//!
//! It answers from counters and never scans a table of the user's. Nothing is served without a token but `/health`, `/ready` and the
//! webhooks, which bring a proof of their own.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use axum::Router;
use axum::extract::{self, DefaultBodyLimit, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use sluice_core::config::Config;
use sluice_core::db::{Db, listen};
use sluice_queue::agreement::Agreement;
use sluice_sync::read::Reader;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

mod api;
mod auth;
mod conflicts;
mod events;
mod held;
mod logs;
mod metrics;
mod page;
mod ready;
mod store;

use crate::definitions::Definitions;
use crate::webhook::{self, Hooks};

/// Bytes of a request's body.
const BODY_MAX: usize = 64 << 10;

/// What a request may take before it is answered 503.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// What the handlers share.
#[derive(Clone)]
pub struct State(Arc<Shared>);

struct Shared {
    db: Db,
    reader: Reader,
    definitions: watch::Receiver<Arc<Definitions>>,
    agreed: Arc<RwLock<Agreement>>,
    listener: Arc<listen::Listener>,
    tokens: auth::Tokens,
    hosts: auth::Hosts,
    metrics_open: bool,
    config: Config,
    hooks: Hooks,
    /// Told when a webhook's event was stored that is decided later.
    waiting: Arc<Notify>,
}

impl State {
    /// Reads or makes the tokens. A token that is made now is printed, once, as a sign-in link on standard error.
    ///
    /// # Errors
    /// The database's.
    pub async fn new(
        config: &Config,
        db: Db,
        reader: Reader,
        definitions: watch::Receiver<Arc<Definitions>>,
        agreed: Arc<RwLock<Agreement>>,
        listener: Arc<listen::Listener>,
    ) -> Result<Self, sqlx::Error> {
        let (tokens, made) = auth::Tokens::load(&config.http, &db).await?;
        if let Some(made) = made {
            eprintln!("Sign in, once, at http://{}/?token={made}", config.http.listen);
        }
        let hosts = auth::Hosts::new(&config.http);
        let waiting = Arc::new(Notify::new());
        let hooks = Hooks::new(config, Arc::clone(&waiting));
        let (metrics_open, config) = (config.http.metrics_open, config.clone());
        Ok(Self(Arc::new(Shared { db, reader, definitions, agreed, listener, tokens, hosts, metrics_open, config, hooks, waiting })))
    }

    /// Told when an event was stored that [`webhook::keep_decided`] has to look at.
    pub fn waiting(&self) -> Arc<Notify> {
        Arc::clone(&self.0.waiting)
    }
}

/// Serves until `shutdown`; requests under way are answered.
pub async fn serve(socket: TcpListener, state: State, shutdown: CancellationToken) {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
    let served = axum::serve(socket, service).with_graceful_shutdown(shutdown.cancelled_owned()).await;
    if let Err(error) = served {
        tracing::error!(%error, "the web server ended");
    }
}

/// All routes.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/style.css", get(page::style))
        .route("/health", get(ready::health))
        .route("/ready", get(ready::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/sync/status", get(api::status))
        .route("/sync/trigger", post(api::trigger))
        .route("/sync/start", post(api::start))
        .route("/sync/stop", post(api::stop))
        .route("/logs", get(logs::logs))
        .route("/api/v1/events", get(events::list))
        .route("/api/v1/events/report", get(events::report))
        .route("/api/v1/events/{id}", get(events::show))
        .route("/api/v1/events/{id}/replay", post(events::replay))
        .route("/webhook/{source}", post(receive))
        .route("/api/v1/held", get(held::list))
        .route("/api/v1/held/{id}", get(held::show))
        .route("/api/v1/held/{id}/approve", post(held::approve))
        .route("/api/v1/held/{id}/reject", post(held::reject))
        .route("/api/v1/conflicts", get(conflicts::list))
        .route("/api/v1/conflicts/{id}/resolve", post(conflicts::resolve))
        .route("/api/v1/runs", get(conflicts::runs))
        .fallback(elsewhere)
        .layer(middleware::from_fn_with_state(state.clone(), auth::guard))
        .layer(middleware::from_fn(protect))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

async fn receive(extract::State(state): extract::State<State>, request: Request) -> Response {
    webhook::receive(&state.0.hooks, &state.0.db, request).await
}

/// Second addresses of webhooks, which the configuration names, and all that is not served.
async fn elsewhere(state: extract::State<State>, request: Request) -> Response {
    if !state.0.0.hooks.is_address(request.uri().path()) {
        return api::problem(StatusCode::NOT_FOUND, "there is nothing at this address");
    }
    match *request.method() {
        Method::POST => receive(state, request).await,
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "POST")]).into_response(),
    }
}

/// A time limit, and the headers that keep a page from doing what it should not.
async fn protect(request: Request, next: Next) -> Response {
    let answered = tokio::time::timeout(REQUEST_LIMIT, next.run(request)).await;
    let mut response = answered.unwrap_or_else(|_| StatusCode::SERVICE_UNAVAILABLE.into_response());
    let headers = response.headers_mut();
    let csp = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(csp));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// What a handler answers when something outside of the request's power went wrong. The cause is logged, not told.
struct Failed(sqlx::Error);

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        tracing::error!(error = %self.0, "a request failed");
        api::problem(StatusCode::SERVICE_UNAVAILABLE, "the database did not answer")
    }
}
