//! Where a request can never go: other hosts, products and organisations.

use serde_json::json;
use sluice_zoho::call::{self, Request};
use sluice_zoho::finance::{self, Module};
use sluice_zoho::{Error, Method, NotSent, Product, Sent};

use crate::peer::{Peer, grant, json as json_answer, token, token_text};

#[tokio::test]
async fn a_token_is_not_sent_to_an_api_domain_that_is_not_zohos() {
    let peer = Peer::playing(vec![]).await;
    let mut settings = peer.client().settings().clone();
    settings.api_url = None;
    let client = sluice_zoho::Client::new(settings).unwrap();
    let foreign = sluice_zoho::AccessToken::new(token().secret().clone(), Some(peer.url.to_string()));
    let failed = finance::get(grant(), &client, &foreign, Module::CUSTOMERS, "1").await.unwrap_err();
    assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "{failed:?}");
    assert_eq!(failed.evidence.sent, Sent::Nothing);
}

fn request(method: Method, path: &str) -> Request {
    Request { product: Product::Books, method, path: path.to_owned(), query: vec![], body: None }
}

#[tokio::test]
async fn a_call_stays_within_its_product_and_organisation() {
    let mut peer = Peer::playing(vec![json_answer(200, "", r#"{"code":0,"item":{"rate":12345678901234567.10}}"#)]).await;
    let client = peer.client();
    for path in ["/../crm/v8/org", "//evil.example", "/items?organization_id=1", "/items/%2e%2e/x"] {
        let failed = call::send(grant(), &client, &token(), &request(Method::Get, path)).await.unwrap_err();
        assert!(matches!(failed.error, Error::NotSent(NotSent::Invalid { .. })), "{path}");
    }
    let mut foreign = request(Method::Get, "/items/1");
    foreign.query.push(("organization_id".to_owned(), "1".to_owned()));
    assert!(call::send(grant(), &client, &token(), &foreign).await.is_err());
    let huge = Request { body: Some(json!("x".repeat(call::MAX_BODY_BYTES))), ..request(Method::Post, "/items") };
    assert!(matches!(call::send(grant(), &client, &token(), &huge).await.unwrap_err().error, Error::NotSent(_)));
    let answer = call::send(grant(), &client, &token(), &request(Method::Get, "/items/1")).await.unwrap();
    assert_eq!(answer.value["item"]["rate"].to_string(), "12345678901234567.10", "numbers stay exact");
    let seen = peer.only();
    assert!(seen.starts_with("GET /books/v3/items/1?organization_id=927270289 HTTP/1.1"), "{seen}");
    assert!(seen.contains(&format!("Zoho-oauthtoken {}", token_text())), "{seen}");
}
