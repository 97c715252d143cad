//! Access tokens out of refresh tokens and grant codes (Zoho's accounts server, `POST /oauth/v2/token`).
//!
//! One request per grant, since every mint asked for counts, also a failed one: ten in ten minutes per refresh token. Nothing
//! is cached here, and nothing is retried. Secrets travel in the form body, never in an address.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use sluice_core::grant::Grant;

use crate::classify::Body;
use crate::client::Reply;
use crate::{AccessToken, Answer, Client, Failed, NotSent, mask, trusted_api_domain};

/// How long to stay away after "Access Denied" (ten mints in ten minutes, then blocked for the rest of the window).
pub const THROTTLE_PAUSE: Duration = Duration::from_secs(600);
/// What Zoho documents for an access token, used where an answer gives no lifetime.
const DOCUMENTED_LIFETIME: Duration = Duration::from_secs(3600);

/// What the token endpoint gave.
#[derive(Debug, Clone)]
pub struct Token {
    /// The token for calls, with the API host that came along (already checked, unless `api_url` is configured).
    pub access: AccessToken,
    /// Only after [`exchange_code`] with offline access; a refresh keeps the old one.
    pub refresh_token: Option<SecretString>,
    /// How long the access token lives from now on.
    pub expires_in: Duration,
    /// The granted scopes as Zoho wrote them, separated by spaces or commas; may be absent.
    pub scope: Option<String>,
}

/// Why no token came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Client id, secret, redirect address or data centre is wrong: a person must change the configuration.
    #[error("Zoho does not accept this client ({code}): check client_id, client_secret and data_center")]
    Client {
        /// Zoho's word: `invalid_client`, `invalid_client_secret`, `invalid_redirect_uri`.
        code: String,
    },
    /// The refresh token was revoked, or the grant code was used or is too old: consent is needed again.
    #[error("the refresh token or grant code is not valid (any more); authorise the connection again")]
    InvalidCode,
    /// Too many mints ("Access Denied"); not an authorisation failure.
    #[error("too many tokens were asked for; Zoho wants a pause of {} s", retry_after.as_secs())]
    Throttled {
        /// How long to stay away.
        retry_after: Duration,
    },
    /// `access_denied`: too many grant codes, or the user refused.
    #[error("access was denied: too many codes, or consent was refused")]
    AccessDenied,
    /// No answer, a 5xx or a page that is not JSON. A token may have been minted and lost; it counts, and does no harm.
    #[error("the accounts server is not available: {reason}")]
    Unavailable {
        /// What was seen, without address or content.
        reason: String,
    },
    /// JSON without a token and without an error.
    #[error("the accounts server's answer could not be understood: {reason}")]
    Malformed {
        /// What was missing.
        reason: String,
    },
    /// The answer names an API host that is not Zoho's; the token was dropped.
    #[error("the token answer names `{host}`, which is not one of Zoho's API hosts; set api_url if it is meant")]
    UntrustedHost {
        /// The host it named.
        host: String,
    },
    /// An error that we do not know (`general_error`, …).
    #[error("the accounts server refused: {code}")]
    Refused {
        /// Zoho's word, masked.
        code: String,
    },
    /// Nothing was sent.
    #[error("nothing was sent: {0}")]
    NotSent(NotSent),
}

/// What a mint gives back.
pub type Result<T> = std::result::Result<Answer<T>, Failed<Error>>;

/// Mints an access token.
///
/// # Errors
/// [`Error`], with the evidence of the request.
pub async fn refresh(grant: Grant, client: &Client, refresh_token: &SecretString) -> Result<Token> {
    let settings = client.settings();
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", settings.client_id.as_str()),
        ("client_secret", settings.client_secret.expose_secret()),
        ("refresh_token", refresh_token.expose_secret()),
    ];
    mint(grant, client, &form).await
}

/// Turns a grant code (valid for three minutes, once) into a refresh token and a first access token. A self client's code
/// needs no `redirect_uri`.
///
/// # Errors
/// [`Error`], with the evidence of the request.
pub async fn exchange_code(grant: Grant, client: &Client, code: &SecretString, redirect_uri: Option<&str>) -> Result<Token> {
    let settings = client.settings();
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("client_id", settings.client_id.as_str()),
        ("client_secret", settings.client_secret.expose_secret()),
        ("code", code.expose_secret()),
    ];
    form.extend(redirect_uri.map(|uri| ("redirect_uri", uri)));
    mint(grant, client, &form).await
}

async fn mint(grant: Grant, client: &Client, form: &[(&str, &str)]) -> Result<Token> {
    let Reply { status, body, evidence, .. } = match client.post_token_form(grant, form).await {
        Ok(reply) => reply,
        Err(Failed { error, evidence }) => {
            let error = match error {
                crate::Error::NotSent(reason) => Error::NotSent(reason),
                other => Error::Unavailable { reason: lost(&other) },
            };
            return Err(Failed { error, evidence });
        }
    };
    let any_host = client.settings().api_url.is_some();
    match understand(status, &body, evidence.limits.retry_after, any_host) {
        Ok(value) => Ok(Answer { value, evidence }),
        Err(error) => Err(Failed::new(error, evidence)),
    }
}

fn lost(error: &crate::Error) -> String {
    match error {
        crate::Error::Unavailable { reason } => reason.clone(),
        other => other.to_string(),
    }
}

/// Pure: what a token answer says. Success is the presence of `access_token`, whatever the status (Zoho's own SDK does the same).
fn understand(status: u16, body: &Body, retry_after: Option<Duration>, any_host: bool) -> std::result::Result<Token, Error> {
    let unavailable = |what: &str| Error::Unavailable { reason: format!("status {status} with {what}") };
    let throttled = || Error::Throttled { retry_after: retry_after.unwrap_or(THROTTLE_PAUSE) };
    let json = match body {
        Body::Json(json) if json.is_object() => json,
        _ if status == 429 => return Err(throttled()),
        Body::Json(_) | Body::Empty | Body::Other | Body::File(_) => return Err(unavailable("no JSON object")),
        Body::TooLarge => return Err(unavailable("a body larger than the limit")),
        Body::Lost => return Err(unavailable("a body cut short")),
    };
    let text = |key: &str| json.get(key).and_then(Value::as_str).filter(|value| !value.is_empty());
    if let Some(code) = text("error") {
        return Err(match code {
            "invalid_client" | "invalid_client_secret" | "invalid_redirect_uri" => Error::Client { code: code.to_owned() },
            "invalid_code" => Error::InvalidCode,
            "Access Denied" => throttled(),
            _ if status == 429 => throttled(),
            "access_denied" => Error::AccessDenied,
            _ if status >= 500 => unavailable("an error"),
            other => Error::Refused { code: mask::text(other) },
        });
    }
    if status == 429 {
        return Err(throttled());
    }
    if status >= 500 {
        return Err(unavailable("JSON"));
    }
    let Some(secret) = text("access_token") else {
        return Err(Error::Malformed { reason: format!("status {status}, neither access_token nor error") });
    };
    let api_domain = text("api_domain").map(str::to_owned);
    if let Some(host) = api_domain.as_deref().filter(|_| !any_host) {
        trusted_api_domain(host).map_err(|e| Error::UntrustedHost { host: mask::text(&e.0) })?;
    }
    Ok(Token {
        access: AccessToken::new(SecretString::from(secret), api_domain),
        refresh_token: text("refresh_token").map(SecretString::from),
        expires_in: lifetime(json),
        scope: text("scope").map(str::to_owned),
    })
}

/// `expires_in` is seconds, unless the legacy key `expires_in_sec` stands beside it: then it is milliseconds.
fn lifetime(json: &Value) -> Duration {
    let number = |key: &str| match json.get(key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(digits) => digits.parse().ok(),
        _ => None,
    };
    match (json.get("expires_in_sec").is_some(), number("expires_in_sec"), number("expires_in")) {
        (true, Some(seconds), _) => Duration::from_secs(seconds),
        (true, None, Some(millis)) => Duration::from_millis(millis),
        (false, _, Some(seconds)) => Duration::from_secs(seconds),
        _ => DOCUMENTED_LIFETIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn error(status: u16, body: &Body) -> Error {
        understand(status, body, None, false).expect_err("an error form")
    }

    #[test]
    fn every_documented_error_form_has_its_own_meaning_whatever_its_status() {
        let client = |code: &str| Error::Client { code: code.to_owned() };
        let pause = || Error::Throttled { retry_after: THROTTLE_PAUSE };
        for (form, expected) in [
            (json!({"error": "invalid_client"}), client("invalid_client")),
            (json!({"error": "invalid_client_secret"}), client("invalid_client_secret")),
            (json!({"error": "invalid_redirect_uri"}), client("invalid_redirect_uri")),
            (json!({"error": "invalid_code"}), Error::InvalidCode),
            (json!({"error": "access_denied"}), Error::AccessDenied),
            (json!({"error": "Access Denied", "error_description": "You have made too many requests continuously."}), pause()),
            (json!({"error": "general_error"}), Error::Refused { code: "general_error".to_owned() }),
        ] {
            for status in [200, 400] {
                assert_eq!(error(status, &Body::Json(form.clone())), expected, "{status} {form}");
            }
        }
    }

    #[test]
    fn pages_and_nothing_are_an_outage_and_json_without_a_token_is_malformed() {
        for (status, body) in [
            (200, Body::Other),
            (400, Body::Other),
            (502, Body::Other),
            (200, Body::Empty),
            (200, Body::Lost),
            (200, Body::TooLarge),
            (500, Body::Json(json!({"error": "internal"}))),
            (302, Body::Empty),
        ] {
            assert!(matches!(error(status, &body), Error::Unavailable { .. }), "{status} {body:?}");
        }
        assert!(matches!(error(200, &Body::Json(json!({"status": "success"}))), Error::Malformed { .. }));
        assert!(matches!(error(200, &Body::Json(json!({"access_token": ""}))), Error::Malformed { .. }));
    }

    #[test]
    fn a_throttle_obeys_retry_after() {
        let denied = Body::Json(json!({"error": "Access Denied"}));
        let wait = Duration::from_secs(42);
        assert_eq!(understand(400, &denied, Some(wait), false).unwrap_err(), Error::Throttled { retry_after: wait });
        assert_eq!(understand(429, &Body::Other, Some(wait), false).unwrap_err(), Error::Throttled { retry_after: wait });
    }

    #[test]
    fn the_lifetime_is_in_milliseconds_only_beside_the_legacy_key() {
        for (answer, seconds) in [
            (json!({"expires_in": 3600}), 3600),
            (json!({"expires_in": "1800"}), 1800),
            (json!({"expires_in": 3_600_000, "expires_in_sec": 3600}), 3600),
            (json!({"expires_in": 3_600_000, "expires_in_sec": ""}), 3600),
            (json!({}), 3600),
        ] {
            assert_eq!(lifetime(&answer), Duration::from_secs(seconds), "{answer}");
        }
    }

    #[test]
    fn a_token_for_a_foreign_host_is_dropped_unless_an_api_address_is_configured() {
        let answer = Body::Json(json!({"access_token": "t", "api_domain": "https://evil.example", "expires_in": 3600}));
        let host = "https://evil.example".to_owned();
        assert_eq!(understand(200, &answer, None, false).unwrap_err(), Error::UntrustedHost { host });
        assert_eq!(understand(200, &answer, None, true).unwrap().access.api_domain(), Some("https://evil.example"));
    }
}
