//! The one door to the network: a request leaves here, with a grant, or not at all.
//!
//! It must never send without spending a [`Grant`], repeat a request, follow a redirect, or accept an answer without a limit
//! on its size and its time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sluice_core::grant::Grant;
use url::Url;

use crate::classify::{self, Body, Effect, Facts};
use crate::{
    Answer, DataCenter, Error, Evidence, Failed, Limits, Method, NotSent, Product, Sent,
    UnknownReason, address,
};

/// Longest answer that is read, in bytes: a full page of 200 records is well below.
pub const MAX_ANSWER_BYTES: usize = 10 * 1024 * 1024;
/// Longest body that is sent, in bytes.
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;
/// A connection that takes longer is given up, early enough that "could not connect" is told from "no answer".
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections are dropped before the other side is likely to: a write into a closed connection has an unknown outcome.
const POOL_IDLE: Duration = Duration::from_secs(20);

/// What a client needs to know about one Zoho organisation.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the account lives; gives the hosts unless they are overridden.
    pub data_center: DataCenter,
    /// Overrides the accounts server, for a simulator or a proxy: tokens at `{accounts_url}/oauth/v2/token`.
    pub accounts_url: Option<Url>,
    /// Overrides the API host; a token's `api_domain` is then ignored.
    pub api_url: Option<Url>,
    /// The OAuth client's id.
    pub client_id: String,
    /// The OAuth client's secret.
    pub client_secret: SecretString,
    /// The finance organisation, digits. Sent as a query parameter (Books, Inventory) or a header (Billing).
    pub organization_id: Option<String>,
    /// From handing a request to the network until its answer is read.
    pub request_timeout: Duration,
}

/// A minted token and the API host that came with it.
#[derive(Debug, Clone)]
pub struct AccessToken {
    secret: SecretString,
    api_domain: Option<String>,
}

impl AccessToken {
    /// A token as the token endpoint gave it. `api_domain` is checked against Zoho's closed list when it is used.
    pub fn new(secret: SecretString, api_domain: Option<String>) -> Self {
        Self { secret, api_domain }
    }

    /// The token itself, for keeping it encrypted.
    pub fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// The API host that the token answer named.
    pub fn api_domain(&self) -> Option<&str> {
        self.api_domain.as_deref()
    }
}

/// Why a client cannot be made of its settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// An organisation id that is not 1 to 20 digits.
    #[error("organization_id must be digits")]
    OrganizationId,
    /// An override that is no http(s) address, or carries a user, a query or a fragment.
    #[error("{0} must be an http or https address without user, query and fragment")]
    Address(&'static str),
    /// The TLS library or the system's certificates.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

/// One organisation's connection to Zoho. Cheap to clone; connections are shared between clones.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    settings: Settings,
    token_url: Url,
}

impl Client {
    /// Checks the settings and sets up the HTTP client; sends nothing.
    ///
    /// # Errors
    /// [`BuildError`], saying which setting is wrong.
    pub fn new(settings: Settings) -> Result<Self, BuildError> {
        let digits =
            |id: &String| (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
        if !settings.organization_id.as_ref().is_none_or(digits) {
            return Err(BuildError::OrganizationId);
        }
        let bad = |name| BuildError::Address(name);
        if settings
            .api_url
            .as_ref()
            .is_some_and(|url| !is_plain_base(url))
        {
            return Err(bad("api_url"));
        }
        if settings
            .accounts_url
            .as_ref()
            .is_some_and(|url| !is_plain_base(url))
        {
            return Err(bad("accounts_url"));
        }
        let accounts = settings
            .accounts_url
            .as_ref()
            .map_or_else(|| settings.data_center.accounts_url(), Url::to_string);
        let token_url = Url::parse(&format!(
            "{}/oauth/v2/token",
            accounts.trim_end_matches('/')
        ))
        .map_err(|_| bad("accounts_url"))?;
        Ok(Self {
            http: http_client(&settings).map_err(BuildError::Http)?,
            settings,
            token_url,
        })
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends one request to a product and reads its answer, whatever it says.
    pub(crate) async fn send(
        &self,
        grant: Grant,
        request: Outgoing<'_>,
        token: &AccessToken,
    ) -> Result<Reply, Failed<Error>> {
        let place = grant.place();
        let prepared = match self.prepare(&request, token) {
            Ok(prepared) => prepared,
            Err(reason) => return Err(not_sent(place, NotSent::Invalid { reason })),
        };
        self.exchange(grant, prepared, request.effect, request.product.as_str())
            .await
    }

    /// Posts a form to the token endpoint.
    pub(crate) async fn post_token_form(
        &self,
        grant: Grant,
        form: &[(&str, &str)],
    ) -> Result<Reply, Failed<Error>> {
        let place = grant.place();
        match self
            .http
            .post(self.token_url.clone())
            .header(ACCEPT, "application/json")
            .form(form)
            .build()
        {
            Ok(request) => {
                self.exchange(grant, request, Effect::Read, "accounts")
                    .await
            }
            Err(_) => Err(not_sent(
                place,
                NotSent::Invalid {
                    reason: "the token request cannot be built".to_owned(),
                },
            )),
        }
    }

    fn prepare(
        &self,
        request: &Outgoing<'_>,
        token: &AccessToken,
    ) -> Result<reqwest::Request, String> {
        let fallback = self.settings.data_center.api_url();
        let base = address::api_base(
            self.settings.api_url.as_ref(),
            token.api_domain(),
            &fallback,
        )?;
        let mut query = request.query.clone();
        let mut headers = HeaderMap::new();
        self.select_organization(request.product, &mut query, &mut headers)?;
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| format!("{name} cannot be sent as a header"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let mut credentials =
            HeaderValue::from_str(&format!("Zoho-oauthtoken {}", token.secret.expose_secret()))
                .map_err(|_| "the access token holds characters that no header may".to_owned())?;
        credentials.set_sensitive(true);
        headers.insert(AUTHORIZATION, credentials);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let url = address::compose(&base, request.product, &request.path, &query)?;
        let mut built = reqwest::Request::new(request.method.into(), url);
        if let Some(body) = request.body {
            let bytes = serde_json::to_vec(body).map_err(|e| e.to_string())?;
            if bytes.len() > MAX_REQUEST_BYTES {
                return Err(format!(
                    "a body of {} bytes is too large; {MAX_REQUEST_BYTES} at most",
                    bytes.len()
                ));
            }
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *built.body_mut() = Some(bytes.into());
        }
        *built.headers_mut() = headers;
        Ok(built)
    }

    /// Books and Inventory take the organisation as a query parameter, Billing as a header; CRM and FSM by the token.
    fn select_organization(
        &self,
        product: Product,
        query: &mut Vec<(String, String)>,
        headers: &mut HeaderMap,
    ) -> Result<(), String> {
        const PARAMETER: &str = "organization_id";
        let Some(id) = &self.settings.organization_id else {
            return Ok(());
        };
        match product {
            Product::Books | Product::Inventory => {
                if query
                    .iter()
                    .any(|(name, value)| name == PARAMETER && value != id)
                {
                    return Err(
                        "the query names another organisation than the connection".to_owned()
                    );
                }
                query.retain(|(name, _)| name != PARAMETER);
                query.push((PARAMETER.to_owned(), id.clone()));
            }
            Product::Billing => {
                let value = HeaderValue::from_str(id)
                    .map_err(|_| "organization_id must be digits".to_owned())?;
                headers.insert(
                    HeaderName::from_static("x-com-zoho-subscriptions-organizationid"),
                    value,
                );
            }
            Product::Crm | Product::Fsm => {}
        }
        Ok(())
    }

    /// The only place that hands a request to the network.
    async fn exchange(
        &self,
        grant: Grant,
        request: reqwest::Request,
        effect: Effect,
        target: &'static str,
    ) -> Result<Reply, Failed<Error>> {
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let place = grant.place();
        let started = Instant::now();
        if let Err(late) = grant.spend(started) {
            tracing::debug!(target_product = target, %method, path, late_by = ?late.late_by, "grant too late; nothing sent");
            return Err(not_sent(place, late.into()));
        }
        let deadline = started + self.settings.request_timeout;
        let answered = before(deadline, self.http.execute(request)).await;
        let mut evidence = Evidence {
            sent: Sent::Maybe,
            latency: started.elapsed(),
            ..Evidence::nothing_sent(place)
        };
        let result = match answered {
            None => Err(timed_out(effect)),
            Some(Err(error)) => {
                if error.is_connect() {
                    evidence.sent = Sent::Nothing;
                }
                Err(transport_error(effect, &error))
            }
            Some(Ok(response)) => {
                evidence.sent = Sent::Answered;
                evidence.status = Some(response.status().as_u16());
                evidence.limits = Limits::read(response.headers());
                let body = read_body(response).await;
                let now = Instant::now();
                evidence.latency = now - started;
                evidence.answered_at = Some(now);
                Ok(body)
            }
        };
        let ms = u64::try_from(evidence.latency.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(target_product = target, %method, path, status = evidence.status, ms, "request to Zoho");
        match result {
            Ok(body) => Ok(Reply {
                body,
                effect,
                status: evidence.status.unwrap_or_default(),
                evidence,
            }),
            Err(error) => Err(Failed::new(error, evidence)),
        }
    }
}

/// A request to a product, before it is prepared.
pub(crate) struct Outgoing<'a> {
    pub(crate) product: Product,
    pub(crate) method: Method,
    pub(crate) effect: Effect,
    /// Below the product's base path; made of checked segments.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<&'a Value>,
}

impl Outgoing<'_> {
    pub(crate) fn new(product: Product, method: Method, effect: Effect, path: String) -> Self {
        Self {
            product,
            method,
            effect,
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
        }
    }
}

/// An answer as it came, not yet judged.
pub(crate) struct Reply {
    pub(crate) effect: Effect,
    pub(crate) status: u16,
    pub(crate) body: Body,
    pub(crate) evidence: Evidence,
}

impl Reply {
    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts {
            effect: self.effect,
            status: self.status,
            limits: &self.evidence.limits,
        }
    }

    /// The JSON of a success (null for a 204), or the error that the answer is.
    pub(crate) fn checked(self) -> Result<Answer<Value>, Failed<Error>> {
        match classify::verdict(&self.facts(), &self.body) {
            Ok(()) => {
                let value = if let Body::Json(json) = self.body {
                    json
                } else {
                    Value::Null
                };
                Ok(Answer {
                    value,
                    evidence: self.evidence,
                })
            }
            Err(error) => Err(Failed::new(error, self.evidence)),
        }
    }

    /// The failure of an answer that has a good status but lacks something documented.
    pub(crate) fn unreadable(effect: Effect, evidence: Evidence, what: &str) -> Failed<Error> {
        let status = evidence.status.unwrap_or_default();
        Failed::new(classify::unreadable(effect, status, what), evidence)
    }
}

pub(crate) fn not_sent(place: i64, reason: NotSent) -> Failed<Error> {
    Failed::new(Error::NotSent(reason), Evidence::nothing_sent(place))
}

fn is_plain_base(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

fn http_client(settings: &Settings) -> Result<reqwest::Client, reqwest::Error> {
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
    if overrides
        .into_iter()
        .all(|url| url.is_some_and(|url| url.scheme() == "http"))
    {
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

/// Runs `future` while the clock says so *before* each step: a process that was stopped while it connected must not go on to
/// send when it is continued, even if its timers have not fired yet.
async fn before<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        if Instant::now() > deadline {
            Poll::Ready(None)
        } else {
            future.as_mut().poll(cx).map(Some)
        }
    })
    .await
}

fn timed_out(effect: Effect) -> Error {
    if effect.writes() {
        Error::OutcomeUnknown {
            reason: UnknownReason::TimedOut,
        }
    } else {
        Error::Unavailable {
            reason: "no answer in time".to_owned(),
        }
    }
}

/// The address is left out on purpose: it may hold values of records.
fn transport_error(effect: Effect, error: &reqwest::Error) -> Error {
    if error.is_connect() {
        let what = if error.is_timeout() {
            "no connection in time"
        } else {
            "no connection"
        };
        return Error::Unavailable {
            reason: what.to_owned(),
        };
    }
    if error.is_timeout() {
        timed_out(effect)
    } else {
        classify::lost(effect)
    }
}

async fn read_body(mut response: reqwest::Response) -> Body {
    let declared = response
        .content_length()
        .and_then(|length| usize::try_from(length).ok());
    if declared.is_some_and(|length| length > MAX_ANSWER_BYTES) {
        return Body::TooLarge;
    }
    let mut bytes = Vec::with_capacity(declared.unwrap_or_default());
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if bytes.len() + chunk.len() > MAX_ANSWER_BYTES => {
                return Body::TooLarge;
            }
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
            Ok(None) => return Body::parse(&bytes),
            Err(_) => return Body::Lost,
        }
    }
}
