//! The one door to the network: a request leaves here, with a grant, or not at all.
//!
//! It must never send without spending a [`Grant`], repeat a request, follow a redirect, or accept an answer without a limit
//! on its size and its time.

use std::time::Instant;

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret;
use serde_json::Value;
use sluice_core::grant::{Grant, Moment};
use url::Url;

use crate::classify::{self, Body, Effect, Facts};
use crate::network::{http_client, read_body, timed_out, transport_error, within};
use crate::{AccessToken, Answer, BuildError, Error, Evidence, Failed, Limits, Method, NotSent, Product, Sent, Settings, address};

/// Longest body that is sent, in bytes.
const MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;

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
        let token_url = settings.token_url()?;
        Ok(Self { http: http_client(&settings).map_err(BuildError::Http)?, settings, token_url })
    }

    /// The same connection, for another organisation of the account; `None` names none. Both share their connections to the network.
    ///
    /// # Errors
    /// [`BuildError::OrganizationId`] if it is not digits.
    pub fn with_organization(&self, id: Option<String>) -> Result<Self, BuildError> {
        let settings = Settings { organization_id: id, ..self.settings.clone() };
        Ok(Self { http: self.http.clone(), token_url: settings.token_url()?, settings })
    }

    /// The settings it was made of.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sends one request to a product and reads its answer, whatever it says.
    pub(crate) async fn send(&self, grant: Grant, request: Outgoing<'_>, token: &AccessToken) -> Result<Reply, Failed<Error>> {
        let place = grant.place();
        let prepared = match self.prepare(&request, token) {
            Ok(prepared) => prepared,
            Err(reason) => return Err(not_sent(place, NotSent::Invalid { reason })),
        };
        self.exchange(grant, prepared, request.effect, request.product.as_str(), request.file).await
    }

    /// Posts a form to the token endpoint.
    pub(crate) async fn post_token_form(&self, grant: Grant, form: &[(&str, &str)]) -> Result<Reply, Failed<Error>> {
        let place = grant.place();
        match self.http.post(self.token_url.clone()).header(ACCEPT, "application/json").form(form).build() {
            Ok(request) => self.exchange(grant, request, Effect::Read, "accounts", None).await,
            Err(_) => Err(not_sent(place, NotSent::Invalid { reason: "the token request cannot be built".to_owned() })),
        }
    }

    fn prepare(&self, request: &Outgoing<'_>, token: &AccessToken) -> Result<reqwest::Request, String> {
        let fallback = self.settings.data_center.api_url();
        let base = address::api_base(self.settings.api_url.as_ref(), token.api_domain(), &fallback)?;
        let mut query = request.query.clone();
        let mut headers = HeaderMap::new();
        self.select_organization(request.product, &mut query, &mut headers)?;
        for (name, value) in &request.headers {
            let value = HeaderValue::from_str(value).map_err(|_| format!("{name} cannot be sent as a header"))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let mut credentials = HeaderValue::from_str(&format!("Zoho-oauthtoken {}", token.secret().expose_secret()))
            .map_err(|_| "the access token holds characters that no header may".to_owned())?;
        credentials.set_sensitive(true);
        headers.insert(AUTHORIZATION, credentials);
        // a refusal of a file is JSON all the same
        let accept = if request.file.is_some() { "*/*" } else { "application/json" };
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        let url = address::compose(&base, request.base_path, &request.path, &query)?;
        let mut built = reqwest::Request::new(request.method.into(), url);
        if let Some(body) = request.body {
            let bytes = serde_json::to_vec(body).map_err(|e| e.to_string())?;
            if bytes.len() > MAX_REQUEST_BYTES {
                return Err(format!("a body of {} bytes is too large; {MAX_REQUEST_BYTES} at most", bytes.len()));
            }
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            *built.body_mut() = Some(bytes.into());
        }
        *built.headers_mut() = headers;
        Ok(built)
    }

    /// Books and Inventory take the organisation as a query parameter, Billing as a header; CRM and FSM by the token.
    fn select_organization(&self, product: Product, query: &mut Vec<(String, String)>, headers: &mut HeaderMap) -> Result<(), String> {
        const PARAMETER: &str = "organization_id";
        let Some(id) = &self.settings.organization_id else {
            return Ok(());
        };
        match product {
            Product::Books | Product::Inventory => {
                if query.iter().any(|(name, value)| name == PARAMETER && value != id) {
                    return Err("the query names another organisation than the connection".to_owned());
                }
                query.retain(|(name, _)| name != PARAMETER);
                query.push((PARAMETER.to_owned(), id.clone()));
            }
            Product::Billing => {
                let value = HeaderValue::from_str(id).map_err(|_| "organization_id must be digits".to_owned())?;
                headers.insert(HeaderName::from_static("x-com-zoho-subscriptions-organizationid"), value);
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
        file: Option<usize>,
    ) -> Result<Reply, Failed<Error>> {
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let place = grant.place();
        let (started, began) = (Instant::now(), Moment::now());
        if let Err(late) = grant.spend(began) {
            tracing::debug!(product = target, %method, path, late_by = ?late.late_by, "grant too late; nothing sent");
            return Err(not_sent(place, late.into()));
        }
        let answered = within(began, self.settings.request_timeout, self.http.execute(request)).await;
        let mut evidence = Evidence { sent: Sent::Maybe, latency: started.elapsed(), ..Evidence::nothing_sent(place) };
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
                let body = read_body(response, file).await;
                let now = Instant::now();
                evidence.latency = now - started;
                evidence.answered_at = Some(now);
                Ok(body)
            }
        };
        let ms = u64::try_from(evidence.latency.as_millis()).unwrap_or(u64::MAX);
        tracing::debug!(product = target, %method, path, status = evidence.status, ms, "request to Zoho");
        match result {
            Ok(body) => Ok(Reply { body, effect, status: evidence.status.unwrap_or_default(), evidence }),
            Err(error) => Err(Failed::new(error, evidence)),
        }
    }
}

/// A request to a product, before it is prepared.
pub(crate) struct Outgoing<'a> {
    pub(crate) product: Product,
    pub(crate) method: Method,
    pub(crate) effect: Effect,
    /// The product's, but for CRM's bulk APIs.
    pub(crate) base_path: &'static str,
    /// Below the base path; made of checked segments.
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Option<&'a Value>,
    /// A file is asked for, of at most so many bytes.
    pub(crate) file: Option<usize>,
}

impl Outgoing<'_> {
    pub(crate) fn new(product: Product, method: Method, effect: Effect, path: String) -> Self {
        Self {
            product,
            method,
            effect,
            base_path: product.base_path(),
            path,
            query: Vec::new(),
            headers: Vec::new(),
            body: None,
            file: None,
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
        Facts { effect: self.effect, status: self.status, limits: &self.evidence.limits }
    }

    /// The JSON of a success (null for a 204), or the error that the answer is.
    pub(crate) fn checked(self) -> Result<Answer<Value>, Failed<Error>> {
        match classify::verdict(&self.facts(), &self.body) {
            Ok(()) => {
                let value = if let Body::Json(json) = self.body { json } else { Value::Null };
                Ok(Answer { value, evidence: self.evidence })
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
