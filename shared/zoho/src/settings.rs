//! What describes a connection: the organisation's settings, and the token that calls are made with.
//!
//! Nothing here may show a secret in a `Debug` text.

use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use crate::DataCenter;

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

impl Settings {
    /// Checks the settings; the answer is where tokens are minted.
    pub(crate) fn token_url(&self) -> Result<Url, BuildError> {
        let digits = |id: &String| (1..=20).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_digit());
        if !self.organization_id.as_ref().is_none_or(digits) {
            return Err(BuildError::OrganizationId);
        }
        for (name, url) in [("api_url", &self.api_url), ("accounts_url", &self.accounts_url)] {
            if url.as_ref().is_some_and(|url| !is_plain_base(url)) {
                return Err(BuildError::Address(name));
            }
        }
        let accounts = self.accounts_url.as_ref().map_or_else(|| self.data_center.accounts_url(), Url::to_string);
        Url::parse(&format!("{}/oauth/v2/token", accounts.trim_end_matches('/'))).map_err(|_| BuildError::Address("accounts_url"))
    }
}

fn is_plain_base(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}
