//! Minting over the wire: what is sent, and what each ending means.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sluice_zoho::{NotSent, Sent, oauth};

use crate::peer::{Act, Peer, grant, json as answer, late_grant, raw, token_text};

fn refresh_token() -> SecretString {
    SecretString::from(format!("refresh-{}", token_text()))
}

#[tokio::test]
async fn a_refresh_sends_its_secrets_in_the_body_and_gives_a_token_that_does_not_show() {
    let body = format!(
        r#"{{"access_token":"{}","api_domain":"https://www.zohoapis.eu","token_type":"Bearer","expires_in":3600,"scope":"a b"}}"#,
        token_text()
    );
    let mut peer = Peer::playing(vec![answer(200, "", &body)]).await;
    let minted = oauth::refresh(grant(), &peer.client(), &refresh_token()).await.unwrap();
    assert_eq!(minted.value.access.secret().expose_secret(), token_text());
    assert_eq!(minted.value.expires_in, Duration::from_secs(3600));
    assert_eq!((minted.value.access.api_domain(), minted.value.scope.as_deref()), (Some("https://www.zohoapis.eu"), Some("a b")));
    assert!(minted.value.refresh_token.is_none());
    assert!(!format!("{minted:?}").contains("0a1b2c3d"), "{minted:?}");
    let seen = peer.only();
    let (head, form) = seen.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /oauth/v2/token HTTP/1.1"), "{head}");
    assert!(!head.contains("client-secret-value") && form.contains("client_secret=client-secret-value"), "{seen}");
    assert!(form.contains("grant_type=refresh_token"), "{form}");
}

#[tokio::test]
async fn a_code_exchange_gives_the_refresh_token_too() {
    let body = format!(r#"{{"access_token":"a","refresh_token":"{}","expires_in":3600}}"#, token_text());
    let mut peer = Peer::playing(vec![answer(200, "", &body)]).await;
    let code = SecretString::from("the-code");
    let minted = oauth::exchange_code(grant(), &peer.client(), &code, Some("https://example.com/cb")).await.unwrap();
    assert_eq!(minted.value.refresh_token.unwrap().expose_secret(), token_text());
    let seen = peer.only();
    assert!(seen.contains("grant_type=authorization_code") && seen.contains("code=the-code"), "{seen}");
    assert!(seen.contains("redirect_uri=https%3A%2F%2Fexample.com%2Fcb"), "{seen}");
}

#[tokio::test]
async fn errors_in_a_200_are_errors_and_show_nothing_secret() {
    let denied = r#"{"error":"Access Denied","error_description":"You have made too many requests continuously."}"#;
    let peer = Peer::playing(vec![
        answer(200, "", r#"{"error":"invalid_code"}"#),
        answer(400, "", denied),
        raw(400, "Content-Type: text/html\r\n", "<html></html>"),
        Act::Hang,
    ])
    .await;
    let mut shown = String::new();
    let mut next = async || {
        let failed = oauth::refresh(grant(), &peer.client(), &refresh_token()).await.unwrap_err();
        shown.push_str(&format!("{failed} {failed:?}"));
        failed.error
    };
    assert_eq!(next().await, oauth::Error::InvalidCode);
    assert_eq!(next().await, oauth::Error::Throttled { retry_after: oauth::THROTTLE_PAUSE });
    assert!(matches!(next().await, oauth::Error::Unavailable { .. }));
    assert!(matches!(next().await, oauth::Error::Unavailable { .. }), "a lost mint is an outage; it counts, and harms nobody");
    assert!(!shown.contains("0a1b2c3d") && !shown.contains("client-secret-value"), "{shown}");
}

#[tokio::test]
async fn a_mint_with_a_late_grant_is_not_sent() {
    let mut peer = Peer::playing(vec![]).await;
    let failed = oauth::refresh(late_grant(), &peer.client(), &refresh_token()).await.unwrap_err();
    assert!(matches!(failed.error, oauth::Error::NotSent(NotSent::Late { .. })), "{failed:?}");
    assert_eq!(failed.evidence.sent, Sent::Nothing);
    assert!(peer.seen().is_empty());
}
