//! Whether an event proves where it comes from, by the scheme that its source really has. Pure; every comparison takes the same time
//! wherever the two differ.

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::ExposeSecret;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use sluice_core::config::trigger::{Verify, Webhook};
use subtle::ConstantTimeEq;

/// The finance suite's header (fin §7.3).
const SIGNATURE: &str = "x-zoho-webhook-signature";

/// What an event proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// It comes from somebody who knows the secret.
    Verified,
    /// It brings no proof at all.
    Unsigned,
    /// It brings one that is wrong.
    BadSignature,
}

/// A request, as far as proofs are concerned.
pub(super) struct Request<'a> {
    pub(super) headers: &'a HeaderMap,
    /// Decoded, in the order of the address.
    pub(super) query: &'a [(String, String)],
    /// The fields of a form body, decoded; `None` for any other body.
    pub(super) form: Option<&'a [(String, String)]>,
    pub(super) body: &'a [u8],
    /// The body as JSON, where it is that.
    pub(super) json: Option<&'a Value>,
}

pub(super) fn verdict(webhook: &Webhook, request: &Request<'_>) -> Verdict {
    let secret = webhook.secret.expose_secret();
    let given = match webhook.verify {
        Verify::ZohoSignature => return signature(secret, request),
        Verify::CrmToken => token(request.json),
        Verify::SecretHeader => request.headers.get(&webhook.header).and_then(|value| value.to_str().ok()),
        Verify::SecretQuery => request.query.iter().find(|(name, _)| *name == webhook.header).map(|(_, value)| value.as_str()),
    };
    match given {
        None | Some("") => Verdict::Unsigned,
        Some(given) if equal(given, secret) => Verdict::Verified,
        Some(_) => Verdict::BadSignature,
    }
}

/// The token of a CRM notification, which its body repeats (crm §4.1).
pub(super) fn token(body: Option<&Value>) -> Option<&str> {
    body?.get("token")?.as_str()
}

/// By hash, so that not even the length shows in the time.
fn equal(given: &str, secret: &str) -> bool {
    Sha256::digest(given.as_bytes()).ct_eq(&Sha256::digest(secret.as_bytes())).into()
}

fn signature(secret: &str, request: &Request<'_>) -> Verdict {
    let Some(given) = request.headers.get(SIGNATURE).and_then(|value| value.to_str().ok()).filter(|given| !given.trim().is_empty()) else {
        return Verdict::Unsigned;
    };
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return Verdict::BadSignature };
    for (name, value) in signed_pairs(request) {
        mac.update(name.as_bytes());
        mac.update(value.as_bytes());
    }
    if request.form.is_none() {
        mac.update(request.body);
    }
    // Zoho does not say how the digest is written; both public implementations use hex (fin §7.3).
    let matches = |digest: Vec<u8>| mac.clone().verify_slice(&digest).is_ok();
    let given = given.trim();
    if unhex(given).is_some_and(matches) || STANDARD.decode(given).is_ok_and(matches) { Verdict::Verified } else { Verdict::BadSignature }
}

/// Parameters of the address and fields of a form, by name (fin §7.3); those of one name in the order in which they came.
fn signed_pairs<'a>(request: &Request<'a>) -> Vec<&'a (String, String)> {
    let mut pairs: Vec<_> = request.query.iter().chain(request.form.unwrap_or_default()).collect();
    pairs.sort_by(|one, other| one.0.cmp(&other.0));
    pairs
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::collections::BTreeMap;

    use sluice_core::config::{Config, Environment};

    use super::*;

    fn webhook(verify: &str) -> Webhook {
        let text = format!(
            "[connections.main]\nclient_id = \"i\"\nclient_secret = \"s\"\nrefresh_token = \"t\"\n
             [syncs.items]\nconnection = \"main\"\ntable = \"t\"\nkey = \"id\"\nmodule = \"inventory/items\"\ndirection = \"pull\"\nfields = {{ name = \"name\" }}\n
             [webhooks.w]\nconnection = \"main\"\nverify = \"{verify}\"\nsecret = \"abcdefghijkl\"\nsync = \"items\"\nheader = \"X-Key\""
        );
        let nothing: BTreeMap<String, String> = BTreeMap::new();
        Config::parse(&text, &nothing.into_iter().collect::<Environment>()).unwrap().webhooks["w"].clone()
    }

    fn pairs(query: &str) -> Vec<(String, String)> {
        url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
    }

    /// The digest that a sender would write, made apart from the code under test.
    fn sign(secret: &str, signed: &str) -> Vec<u8> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        mac.finalize().into_bytes().to_vec()
    }

    fn judge(webhook: &Webhook, header: Option<(&'static str, &str)>, query: &str, form: bool, body: &str) -> Verdict {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = header {
            headers.insert(name, value.parse().unwrap());
        }
        let (query, fields) = (pairs(query), pairs(body));
        let json = serde_json::from_str(body).ok();
        let request =
            Request { headers: &headers, query: &query, form: form.then_some(&fields[..]), body: body.as_bytes(), json: json.as_ref() };
        verdict(webhook, &request)
    }

    #[test]
    fn a_signature_covers_sorted_parameters_and_the_raw_body_as_zohos_page_shows() {
        let webhook = webhook("zoho-signature");
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let (query, body) = ("subscription_id=90343&name=basic", r#"{"created_date":"2019-03-06","event_id":"5675"}"#);
        let digest = sign("abcdefghijkl", &format!("namebasicsubscription_id90343{body}"));
        let of_form = sign("abcdefghijkl", "JSONString{\"a\": 1}namebasic");
        for (given, query, form, body, expected) in [
            (Some(hex(&digest)), query, false, body, Verdict::Verified),
            (Some(hex(&digest).to_uppercase()), query, false, body, Verdict::Verified),
            (Some(STANDARD.encode(&digest)), query, false, body, Verdict::Verified),
            (Some(hex(&digest)), "name=basic&subscription_id=90343", false, body, Verdict::Verified),
            (Some(hex(&digest)), query, false, r#"{"created_date":"2019-03-06", "event_id":"5675"}"#, Verdict::BadSignature),
            (Some(hex(&digest)), "subscription_id=90344&name=basic", false, body, Verdict::BadSignature),
            (Some(hex(&sign("another secret", body))), "", false, body, Verdict::BadSignature),
            (Some("nonsense".to_owned()), query, false, body, Verdict::BadSignature),
            (Some(hex(&digest[..16])), query, false, body, Verdict::BadSignature),
            (Some(String::new()), query, false, body, Verdict::Unsigned),
            (None, query, false, body, Verdict::Unsigned),
            (Some(hex(&of_form)), "name=basic", true, "JSONString=%7B%22a%22%3A+1%7D", Verdict::Verified),
            (Some(hex(&of_form)), "name=basic", false, "JSONString=%7B%22a%22%3A+1%7D", Verdict::BadSignature),
        ] {
            let header = given.as_deref().map(|given| ("x-zoho-webhook-signature", given));
            assert_eq!(judge(&webhook, header, query, form, body), expected, "{given:?} {query} {body}");
        }
    }

    #[test]
    fn a_shared_secret_counts_only_where_the_scheme_puts_it() {
        let (good, bad) = ("abcdefghijkl", "abcdefghijkm");
        for (verify, header, query, body, expected) in [
            ("secret-header", Some(("x-key", good)), String::new(), "{}".to_owned(), Verdict::Verified),
            ("secret-header", Some(("x-key", bad)), String::new(), "{}".to_owned(), Verdict::BadSignature),
            ("secret-header", None, format!("X-Key={good}"), format!("{{\"token\":\"{good}\"}}"), Verdict::Unsigned),
            ("secret-query", None, format!("X-Key={good}"), "{}".to_owned(), Verdict::Verified),
            ("secret-query", None, format!("X-Key={good}x"), "{}".to_owned(), Verdict::BadSignature),
            ("secret-query", Some(("x-key", good)), "X-Key=".to_owned(), "{}".to_owned(), Verdict::Unsigned),
            ("crm-token", None, String::new(), format!("{{\"token\":\"{good}\"}}"), Verdict::Verified),
            ("crm-token", None, String::new(), format!("{{\"token\":\"{bad}\"}}"), Verdict::BadSignature),
            ("crm-token", None, String::new(), "{\"token\":null}".to_owned(), Verdict::Unsigned),
            ("crm-token", None, String::new(), "not json".to_owned(), Verdict::Unsigned),
        ] {
            assert_eq!(judge(&webhook(verify), header, &query, false, &body), expected, "{verify} {header:?} {query} {body}");
        }
    }
}
