//! `POST /webhook/{source}`: limits first, then the proof, then the event is stored with its jobs in one statement, and only then answered.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock, DefaultClock};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluice_core::config::trigger::{Mode, Verify};
use sluice_core::db::Db;

use super::named::{self, Named, RECORDS_MAX};
use super::store::{self, Event};
use super::verify::{self, Verdict};
use super::{Hook, Hooks, address, masked};

/// The same event again within this time leads to nothing, where it has a number or a time of its own.
const SAME_EVENT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Likewise, where only its content tells it.
const SAME_CONTENT: Duration = Duration::from_secs(600);
/// Bytes kept of the body of a refused event.
const REFUSED_BODY: usize = 4096;
/// The event's name, where a header carries it.
const EVENT_HEADER: &str = "x-zoho-event";

/// Receives one event.
pub(crate) async fn receive(hooks: &Hooks, db: &Db, request: Request) -> Response {
    let Some(hook) = hooks.at(request.uri().path()) else {
        return problem(StatusCode::NOT_FOUND, "there is no such webhook");
    };
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |info| info.0.ip());
    let sender = address::sender(peer, request.headers(), &hooks.trusted_proxies);
    if let Some(refusal) = hook.limits(sender, request.headers()) {
        return refusal;
    }
    let (head, body) = request.into_parts();
    let Some(body) = read(body, hook.max_body()).await else {
        return problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than max_body");
    };
    let query: Vec<(String, String)> = url::form_urlencoded::parse(head.uri.query().unwrap_or_default().as_bytes()).into_owned().collect();
    let arrived = Arrived { sender, method: head.method.as_str(), headers: &head.headers, query: &query, body: &body };
    let stored = hook.take(db, &arrived).await;
    match stored {
        Ok(Taken::Stored { id, waits }) => {
            if waits {
                hooks.waiting.notify_one();
            }
            Json(json!({ "id": id })).into_response()
        }
        Ok(Taken::Refused) => problem(StatusCode::UNAUTHORIZED, "the event does not prove where it comes from"),
        Err(error) => {
            tracing::error!(source = hook.source, %error, "an event could not be stored");
            problem(StatusCode::SERVICE_UNAVAILABLE, "the database did not answer")
        }
    }
}

/// A request whose body has been read.
struct Arrived<'a> {
    sender: IpAddr,
    method: &'a str,
    headers: &'a HeaderMap,
    query: &'a [(String, String)],
    body: &'a [u8],
}

enum Taken {
    Stored { id: i64, waits: bool },
    Refused,
}

impl Hook {
    fn max_body(&self) -> usize {
        usize::try_from(self.settings.max_body).unwrap_or(usize::MAX)
    }

    /// What can be said without the body. The list of addresses comes before the count: others must not use it up.
    fn limits(&self, sender: IpAddr, headers: &HeaderMap) -> Option<Response> {
        let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if length.is_some_and(|length| length > self.settings.max_body) {
            return Some(problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than max_body"));
        }
        if !self.settings.allow.is_empty() && !self.settings.allow.iter().any(|network| network.contains(sender)) {
            return Some(problem(StatusCode::FORBIDDEN, "this address may not send events here"));
        }
        let busy = self.flood.check().err()?;
        let seconds = busy.wait_time_from(DefaultClock::default().now()).as_secs() + 1;
        let mut refusal = problem(StatusCode::TOO_MANY_REQUESTS, "more events a minute than per_minute allows");
        refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        Some(refusal)
    }

    /// Judges and stores.
    async fn take(&self, db: &Db, arrived: &Arrived<'_>) -> Result<Taken, sqlx::Error> {
        let (json, form) = contents(arrived.body, arrived.headers);
        let proof = verify::Request {
            headers: arrived.headers,
            query: arrived.query,
            form: form.as_deref(),
            body: arrived.body,
            json: json.as_ref(),
        };
        let verdict = verify::verdict(&self.settings, &proof);
        let token = (self.settings.verify == Verify::CrmToken).then(|| verify::token(json.as_ref())).flatten();
        let kept = masked::body(arrived.body, &self.settings, token);
        if verdict != Verdict::Verified && self.settings.mode == Mode::Enforce {
            let event = self.event(arrived, verdict, Named::default());
            store::refuse(db, &event, &kept[..kept.len().min(REFUSED_BODY)]).await?;
            return Ok(Taken::Refused);
        }
        // From here on nothing is read that may not be kept.
        let (json, form) = contents(&kept, arrived.headers);
        let form = form.map(|fields| masked::parameters(&fields, &self.settings));
        let document = named::document(json.as_ref(), form.as_deref());
        let event_header = arrived.headers.get(EVENT_HEADER).and_then(|value| value.to_str().ok());
        let event_header = event_header.map(|value| masked::without(value, self.settings.secret.expose_secret()));
        let query = masked::parameters(arrived.query, &self.settings);
        let named = named::named(document.as_ref(), &query, event_header.as_deref(), &self.targets);
        let (key, window) = same_as(arrived, &named);
        // an event that nobody vouches for must not take the place of the genuine one
        let dedupe_key = key.map(|key| if verdict == Verdict::Verified { key } else { format!("unproven:{key}") });
        let (outcome, reason) = self.foregone(verdict, &named).unzip();
        let event = Event { outcome, reason, dedupe_key, ..self.event(arrived, verdict, named) };
        let stored = store::store(db, &event, &kept, window).await?;
        tracing::debug!(source = self.source, id = stored.id, outcome = stored.outcome, "an event arrived");
        Ok(Taken::Stored { id: stored.id, waits: stored.waits })
    }

    fn event<'a>(&'a self, arrived: &Arrived<'a>, verdict: Verdict, named: Named) -> Event<'a> {
        Event {
            source: &self.source,
            connection: &self.settings.connection,
            remote: arrived.sender.to_string(),
            method: arrived.method,
            headers: masked::headers(arrived.headers, &self.settings),
            query: masked::query(arrived.query, &self.settings),
            verdict,
            mode: match self.settings.mode {
                Mode::Observe => "observe",
                Mode::Quarantine => "quarantine",
                Mode::Enforce => "enforce",
            },
            outcome: None,
            reason: None,
            dedupe_key: None,
            named,
        }
    }

    /// The outcome of an event that leads to nothing whatever the database knows.
    fn foregone(&self, verdict: Verdict, named: &Named) -> Option<(&'static str, String)> {
        if verdict != Verdict::Verified && self.settings.mode == Mode::Quarantine {
            let said = if verdict == Verdict::Unsigned { "it brings no proof of where it comes from" } else { "its proof is wrong" };
            return Some(("quarantined", said.to_owned()));
        }
        if let Some(unclear) = &named.unclear {
            return Some(("ignored", unclear.clone()));
        }
        let many = named.zoho_ids.len();
        (many > RECORDS_MAX).then(|| ("quarantined", format!("it names {many} records; more than {RECORDS_MAX} wait for a person")))
    }
}

/// What tells the event from others, and for how long. A content without any time could be that of two edits: it tells nothing, and the two
/// reads share a run if they come together.
fn same_as(arrived: &Arrived<'_>, named: &Named) -> (Option<String>, Duration) {
    if let Some(event) = &named.event_id {
        return (Some(format!("event:{event}")), SAME_EVENT);
    }
    if let (Some(channel), Some(at)) = (&named.channel_id, named.occurred_at) {
        let mut ids = named.zoho_ids.clone();
        ids.sort_unstable();
        let parts = [channel.as_str(), named.module.as_deref().unwrap_or_default(), named.operation.as_deref().unwrap_or_default()];
        let text = format!("{}\n{}\n{}", parts.join("\n"), at.timestamp_millis(), ids.join("\n"));
        return (Some(format!("note:{}", digest(&[text.as_bytes()]))), SAME_EVENT);
    }
    if named.modified_at.is_none() {
        return (None, SAME_CONTENT);
    }
    let address: Vec<String> = arrived.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let operation = named.operation.as_deref().unwrap_or_default();
    (
        Some(format!("body:{}", digest(&[arrived.method.as_bytes(), address.join("&").as_bytes(), operation.as_bytes(), arrived.body]))),
        SAME_CONTENT,
    )
}

fn digest(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The body as JSON, whatever its sender calls it, or else as a form's fields if it is called one.
fn contents(body: &[u8], headers: &HeaderMap) -> (Option<Value>, Option<Vec<(String, String)>>) {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let form = (json.is_none() && is_form(headers)).then(|| url::form_urlencoded::parse(body).into_owned().collect());
    (json, form)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// `None`: longer than `limit`, or the sender broke off.
async fn read(body: Body, limit: usize) -> Option<Vec<u8>> {
    to_bytes(body, limit).await.ok().map(Into::into)
}

fn problem(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
