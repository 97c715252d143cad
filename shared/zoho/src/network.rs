//! How the network is used: the HTTP library's set-up, deadlines, bounded bodies, and what its errors mean.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use sluice_core::grant::Moment;
use url::Url;

use crate::classify::{self, Body, Effect};
use crate::finance::File;
use crate::{Error, Settings, UnknownReason};

/// Longest answer that is read, in bytes: a full page of 200 records is well below.
pub const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;
/// A connection that takes longer is given up, early enough that "could not connect" is told from "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are dropped before the other side is likely to: a write into a closed connection has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// Makes ring this process's TLS implementation, unless it has one. Called by [`Client::new`](crate::Client::new); programs that use the HTTP
/// library before, or without, a client call it themselves.
pub fn install_tls() {
    // An error says that there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

pub(crate) fn http_client(settings: &Settings) -> Result<reqwest::Client, reqwest::Error> {
    install_tls();
    let overrides = [settings.accounts_url.as_ref(), settings.api_url.as_ref()];
    let mut builder = reqwest::Client::builder()
        .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        // By default a request refused at protocol level is sent again: a call outside the budget.
        .retry(reqwest::retry::never())
        .timeout(settings.request_timeout)
        .connect_timeout(CONNECT_TIMEOUT.min(settings.request_timeout / 2))
        .pool_idle_timeout(POOL_IDLE);
    if overrides.into_iter().flatten().any(is_loopback) {
        builder = builder.no_proxy();
    }
    if overrides.into_iter().all(|url| url.is_some_and(|url| url.scheme() == "http")) {
        // No TLS will be spoken, so a machine without certificates will do.
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Runs `future` while the clocks say so *before* each step: a process that was stopped while it connected, or whose machine slept, must not go
/// on to send when it is continued, even if its timers have not fired yet.
pub(crate) async fn within<T>(began: Moment, limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(move |cx| if began.until(Moment::now()) > limit { Poll::Ready(None) } else { future.as_mut().poll(cx).map(Some) }).await
}

pub(crate) fn timed_out(effect: Effect) -> Error {
    if effect.writes() {
        Error::OutcomeUnknown { reason: UnknownReason::TimedOut }
    } else {
        Error::Unavailable { reason: "no answer in time".to_owned() }
    }
}

/// The address is left out on purpose: it may hold values of records.
pub(crate) fn transport_error(effect: Effect, error: &reqwest::Error) -> Error {
    if error.is_connect() {
        let what = if error.is_timeout() { "no connection in time" } else { "no connection" };
        return Error::Unavailable { reason: what.to_owned() };
    }
    if error.is_timeout() { timed_out(effect) } else { classify::lost(effect) }
}

/// The body of an answer. `file`: one with a good status and a media type of a file's is a file, of at most so many bytes.
pub(crate) async fn read_body(mut response: reqwest::Response, file: Option<usize>) -> Body {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(str::to_owned);
    let most = file.filter(|_| response.status().is_success()).zip(kind.filter(|kind| is_file(kind)));
    let limit = most.as_ref().map_or(MAX_ANSWER_BYTES, |(most, _)| *most);
    let too_large = || most.as_ref().map_or(Body::TooLarge, |_| Body::File(File::TooLarge));
    let declared = response.content_length().and_then(|length| usize::try_from(length).ok());
    if declared.is_some_and(|length| length > limit) {
        return too_large();
    }
    let mut bytes = Vec::with_capacity(declared.unwrap_or_default());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > limit => return too_large(),
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => {
                return match most {
                    Some((_, content_type)) => Body::File(File::Whole { content_type, bytes }),
                    None => Body::parse(&bytes),
                };
            }
            Err(_) => return Body::Lost,
        }
    }
}

/// Whether a media type can be a file's, whatever Zoho calls it: its refusals are JSON, a gateway's are pages.
fn is_file(kind: &str) -> bool {
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_words = kind.ends_with("json") || kind.ends_with("xml");
    kind.starts_with("image/") || kind.starts_with("application/") && !is_words
}
