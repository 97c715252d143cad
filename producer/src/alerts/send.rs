//! One alert to one address.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use secrecy::ExposeSecret;
use sluice_core::config::trigger::Alert;

use super::{Told, form, mail};

/// How long an address may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why an alert did not arrive. Names no address: in it stands a secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither `url` nor `smtp` is set, or it is no address.
    #[error("it has no address")]
    NoAddress,
    /// Nobody answered.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer was no.
    #[error("the address answered {0}")]
    Refused(u16),
    /// The mail server, or its answer, said no.
    #[error("the mail server: {0}")]
    Mail(String),
}

/// What sends.
#[derive(Debug, Clone)]
pub struct Sender {
    /// Absent where this machine has no certificates to know others by.
    http: Option<reqwest::Client>,
}

impl Default for Sender {
    fn default() -> Self {
        // An error says that there is one already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("sluice/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIMEOUT)
            .build();
        Self { http: http.inspect_err(|error| tracing::error!(%error, "no alert can be delivered over HTTP")).ok() }
    }
}

impl Sender {
    /// Sends and waits for the answer.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(&self, alert: &Alert, told: &Told) -> Result<(), Error> {
        if let Some(smtp) = &alert.smtp {
            return mail::send(smtp, alert.body.as_deref(), told, TIMEOUT).await;
        }
        let url = alert.url.as_ref().ok_or(Error::NoAddress)?;
        let url = reqwest::Url::parse(url.expose_secret()).map_err(|_| Error::NoAddress)?;
        let body = form::body(url.host_str().unwrap_or_default(), alert.body.as_deref(), told);
        let http = self.http.as_ref().ok_or_else(|| Error::NoAnswer("this machine has no certificates".to_owned()))?;
        let sent = http.post(url).header(CONTENT_TYPE, body.content_type).body(body.text).send().await;
        let answer = sent.map_err(|error| Error::NoAnswer(causes(&error.without_url())))?;
        if answer.status().is_success() { Ok(()) } else { Err(Error::Refused(answer.status().as_u16())) }
    }
}

pub(super) fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(one) = cause {
        text.push_str(&format!(": {one}"));
        cause = one.source();
    }
    text
}
