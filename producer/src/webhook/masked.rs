//! What of a request is kept: headers and query without secrets, and the body without ours.
//!
//! What reads the table must not be able to send events.

use axum::http::HeaderMap;
use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use sluice_core::config::trigger::{Verify, Webhook};

const HIDDEN: &str = "***";
/// Parts of names (lower case) whose values are hidden.
const SECRET: [&str; 7] = ["authorization", "cookie", "token", "secret", "password", "apikey", "api-key"];
/// Characters kept of one value.
const VALUE_MAX: usize = 1000;
/// Headers, or parameters, kept of one request.
const COUNT_MAX: usize = 100;

/// A text as it can stand in the database: without NUL, and not longer than a value may be.
pub(super) fn text(value: &str) -> String {
    value.chars().filter(|c| *c != '\0').take(VALUE_MAX).collect()
}

fn hides(name: &str, webhook: &Webhook) -> bool {
    let proof = matches!(webhook.verify, Verify::SecretHeader | Verify::SecretQuery);
    let lower = name.to_ascii_lowercase();
    (proof && name.eq_ignore_ascii_case(&webhook.header)) || SECRET.iter().any(|part| lower.contains(part))
}

fn pairs<'a>(all: impl Iterator<Item = (&'a str, String)>, webhook: &Webhook) -> Value {
    let secret = webhook.secret.expose_secret();
    let shown = |name: &str, value: String| {
        if hides(name, webhook) { HIDDEN.to_owned() } else { text(&without(&value, secret)) }
    };
    Value::Object(all.take(COUNT_MAX).map(|(name, value)| (text(&without(name, secret)), shown(name, value).into())).collect::<Map<_, _>>())
}

/// The text with the secret hidden wherever it stands.
pub(super) fn without(text: &str, secret: &str) -> String {
    if secret.is_empty() { text.to_owned() } else { text.replace(secret, HIDDEN) }
}

/// Names and values, of a query or a form, without the secret.
pub(super) fn parameters(all: &[(String, String)], webhook: &Webhook) -> Vec<(String, String)> {
    let secret = webhook.secret.expose_secret();
    all.iter().map(|(name, value)| (without(name, secret), without(value, secret))).collect()
}

pub(super) fn headers(headers: &HeaderMap, webhook: &Webhook) -> Value {
    pairs(headers.iter().map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes()).into_owned())), webhook)
}

pub(super) fn query(query: &[(String, String)], webhook: &Webhook) -> Value {
    pairs(query.iter().map(|(name, value)| (name.as_str(), value.clone())), webhook)
}

/// The body with the secret, and the token that the body carries, overwritten: length and all else stay.
pub(super) fn body(body: &[u8], webhook: &Webhook, token: Option<&str>) -> Vec<u8> {
    let mut kept = body.to_vec();
    for secret in [Some(webhook.secret.expose_secret()), token].into_iter().flatten() {
        overwrite(&mut kept, secret.as_bytes());
    }
    kept
}

fn overwrite(body: &mut [u8], secret: &[u8]) {
    if secret.is_empty() {
        return;
    }
    let mut at = 0;
    while at + secret.len() <= body.len() {
        if body[at..].starts_with(secret) {
            body[at..at + secret.len()].fill(b'*');
            at += secret.len();
        } else {
            at += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_overwritten_wherever_it_stands_and_nothing_else_is() {
        let mut body = br#"{"token":"abc","query_params":{"k":"abc"},"ids":["ab"]}"#.to_vec();
        overwrite(&mut body, b"abc");
        assert_eq!(body, br#"{"token":"***","query_params":{"k":"***"},"ids":["ab"]}"#);
        overwrite(&mut body, b"");
        overwrite(&mut body[..1], b"longer than that");
        assert_eq!(body, br#"{"token":"***","query_params":{"k":"***"},"ids":["ab"]}"#);
    }
}
