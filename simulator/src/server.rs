//! The HTTP server: takes requests, lets time pass, and carries the faults out.
//!
//! hyper is used directly because a fault must be able to close a connection without an answer. A request that has
//! been read whole is carried out even if its client has gone, as at Zoho.

use std::{convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited, combinators::BoxBody};
use hyper::{
    body::Incoming,
    header::{HeaderName, HeaderValue},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};

use crate::{
    admin, crm,
    exchange::{Answer, Content, Product, Request},
    faults::{Drawn, FaultKind, Outage},
    finance,
    limits::{self, InFlight},
    outgoing,
    state::{Plan, Shared, scope},
};

/// Largest body that is read.
const MOST_BODY: usize = 16 * 1024 * 1024;
/// Most connections at once; more wait to be accepted.
const MOST_CONNECTIONS: usize = 2_048;
/// The page of a gateway in trouble.
const GATEWAY_PAGE: &str = "<html><head><title>Zoho</title></head><body><h1>We are unable to process your request</h1></body></html>";

/// Tells hyper to close the connection.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed on purpose")]
struct Closed;

/// How a request ends.
#[derive(Debug)]
enum Ending {
    Answer(Answer),
    Close,
    /// Nothing is ever answered; the connection stays open until the client gives up.
    Silence,
}

type Response = hyper::Response<BoxBody<Bytes, Infallible>>;

/// Serves until the shutdown; open connections are then cut.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    connections.spawn(outgoing::run(Arc::clone(&shared)));
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        if let Some((stream, permit)) = accepted {
            let shared = Arc::clone(&shared);
            connections.spawn(async move {
                let _permit = permit;
                connection(stream, shared).await;
            });
        }
    }
    connections.shutdown().await;
}

async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = Arc::clone(room).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    // Latencies of a few milliseconds must not be hidden behind Nagle's.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| exchange(request, Arc::clone(&shared)));
    // A connection that ends in an error was closed by a fault, or by its client.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// One request, from its headers to its answer.
async fn exchange(incoming: hyper::Request<Incoming>, shared: Arc<Shared>) -> Result<Response, Closed> {
    let arrived = Instant::now();
    let (head, body) = incoming.into_parts();
    let raw_query = head.uri.query().unwrap_or_default().to_owned();
    let mut request = Request {
        arrived,
        method: head.method.as_str().to_owned(),
        path: head.uri.path().to_owned(),
        query: url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect(),
        headers: head.headers,
        body: Bytes::new(),
    };
    if request.product() == Product::Admin {
        let Ok(body) = read(body).await else {
            return Err(Closed);
        };
        request.body = body;
        return Ok(respond(admin::handle(&shared, &request), None::<InFlight>));
    }
    let scope = scope(&request);
    let (in_flight, count) = shared.flights.enter(&scope);
    let mut plan = shared.state().arrive(&request, &raw_query, &scope, count);
    match read(body).await {
        Ok(body) => request.body = body,
        Err(TooLarge(true)) => {
            return Ok(respond(Answer::html(413, GATEWAY_PAGE), Some(in_flight)));
        }
        Err(TooLarge(false)) => {
            shared.state().answered(&plan, &request, None);
            return Err(Closed);
        }
    }
    let in_flight = (in_flight, shared.state().weigh(&request, &mut plan, &shared.flights));
    // A task of its own: the client's going away must not undo what Zoho has begun.
    let outcome = tokio::spawn(carry_out(Arc::clone(&shared), request, plan)).await;
    match outcome {
        Ok(Ending::Answer(answer)) => Ok(respond(answer, Some(in_flight))),
        Ok(Ending::Close) => Err(Closed),
        // hyper drops this, and the count in flight with it, when the client closes the connection.
        Ok(Ending::Silence) => std::future::pending().await,
        Err(error) => {
            tracing::error!(%error, "the simulator failed on a request");
            Err(Closed)
        }
    }
}

/// Why a body could not be read: too large, or the client went away.
struct TooLarge(bool);

async fn read(body: Incoming) -> Result<Bytes, TooLarge> {
    match Limited::new(body, MOST_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(TooLarge(error.is::<LengthLimitError>())),
    }
}

/// Lets the latency pass, commits or does not, and says how the request ends.
async fn carry_out(shared: Arc<Shared>, request: Request, plan: Plan) -> Ending {
    let half = plan.latency / 2;
    sleep(half).await;
    let mut ending = match (plan.outage, plan.fault.clone()) {
        (Some(outage), _) => out_of_service(outage),
        (None, Some(fault)) => faulty(&shared, &request, &plan, fault).await,
        (None, None) => Ending::Answer(shared.state().commit(&plan, &request)),
    };
    match &mut ending {
        Ending::Answer(answer) => {
            sleep(half).await;
            shared.state().answered(&plan, &request, Some(answer));
        }
        Ending::Close | Ending::Silence => shared.state().answered(&plan, &request, None),
    }
    ending
}

fn out_of_service(outage: Outage) -> Ending {
    match outage {
        Outage::Unavailable => Ending::Answer(Answer::html(503, GATEWAY_PAGE)),
        Outage::Drop => Ending::Close,
        Outage::Timeout => Ending::Silence,
    }
}

async fn faulty(shared: &Arc<Shared>, request: &Request, plan: &Plan, fault: Drawn) -> Ending {
    let product = request.product();
    let commit = || shared.state().commit(plan, request);
    match fault.kind {
        FaultKind::ErrorBefore => Ending::Answer(internal_error(product, fault.status)),
        FaultKind::ErrorAfter => {
            commit();
            Ending::Answer(internal_error(product, fault.status))
        }
        FaultKind::Html => Ending::Answer(Answer::html(fault.status, GATEWAY_PAGE)),
        FaultKind::Timeout => Ending::Silence,
        FaultKind::TimeoutAfter => {
            commit();
            Ending::Silence
        }
        FaultKind::DropBefore => Ending::Close,
        FaultKind::DropAfter => {
            commit();
            Ending::Close
        }
        FaultKind::DropLate => {
            commit_late(Arc::clone(shared), request.clone(), plan, &fault);
            Ending::Close
        }
        FaultKind::Unauthorized => Ending::Answer(match product {
            Product::Crm => crm::invalid_token(),
            _ => finance::unauthorized(),
        }),
        FaultKind::Denied => Ending::Answer(match product {
            Product::Crm => crm::scope_mismatch(),
            _ => finance::denied(),
        }),
        FaultKind::RateLimited => Ending::Answer(rate_limited(product, &fault)),
        FaultKind::Slow => {
            sleep(fault.wait).await;
            Ending::Answer(commit())
        }
        FaultKind::SlowAfter => {
            let answer = commit();
            let cleared = shared.state().faults.cleared();
            // whichever comes first
            let _ = tokio::time::timeout(fault.wait, cleared.notified()).await;
            Ending::Answer(answer)
        }
        FaultKind::EmptyList => Ending::Answer(emptied(commit())),
        // Drawn for single records, where they are written.
        FaultKind::RecordError | FaultKind::Rewrite => Ending::Answer(commit()),
    }
}

/// A list without its rows; any other answer as it is.
fn emptied(mut answer: Answer) -> Answer {
    if let Content::Json(body) = &mut answer.content {
        if body.get("data").is_some() && body.get("info").is_some() {
            return Answer::empty(204);
        }
        let Some(body) = body.as_object_mut().filter(|body| body.contains_key("page_context")) else { return answer };
        for rows in body.values_mut().filter_map(serde_json::Value::as_array_mut) {
            rows.clear();
        }
        body["page_context"]["has_more_page"] = false.into();
    }
    answer
}

/// Commits when the connection has long been closed.
fn commit_late(shared: Arc<Shared>, request: Request, plan: &Plan, fault: &Drawn) {
    let wait = fault.wait;
    let plan = plan.clone();
    tokio::spawn(async move {
        tokio::select! {
            () = shared.shutdown.cancelled() => {}
            () = sleep(wait) => {
                shared.state().commit(&plan, &request);
            }
        }
    });
}

fn internal_error(product: Product, status: u16) -> Answer {
    match product {
        Product::Crm => crm::internal_error(status),
        Product::Oauth => Answer::json(status, serde_json::json!({ "error": "general_error" })),
        Product::Billing | Product::Inventory | Product::Admin | Product::Unknown => finance::internal_error(status),
    }
}

fn rate_limited(product: Product, fault: &Drawn) -> Answer {
    let answer = match product {
        Product::Crm => limits::too_many_requests(),
        _ => limits::finance_refusal(fault.code.as_ref().unwrap_or(&44.into())),
    };
    match fault.retry_after {
        Some(seconds) => answer.with_header("Retry-After", seconds.to_string()),
        None => answer,
    }
}

/// Puts an answer on the wire. The call is in flight until its body has been written or dropped.
fn respond<G: Send + Sync + 'static>(answer: Answer, in_flight: Option<G>) -> Response {
    let (kind, body) = match answer.content {
        Content::Json(value) => ("application/json;charset=UTF-8", Bytes::from(value.to_string())),
        Content::Html(page) => ("text/html;charset=UTF-8", Bytes::from_static(page.as_bytes())),
        Content::Binary(kind, bytes) => (kind, bytes),
        Content::Empty => ("", Bytes::new()),
    };
    let body = Full::new(body).map_frame(move |frame| {
        let _until_written = &in_flight;
        frame
    });
    let mut response = hyper::Response::new(body.boxed());
    *response.status_mut() = hyper::StatusCode::from_u16(answer.status).unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !kind.is_empty() {
        headers.insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    headers.insert(hyper::header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(hyper::header::SERVER, HeaderValue::from_static("ZGS"));
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.insert(name, value);
        }
    }
    response
}
