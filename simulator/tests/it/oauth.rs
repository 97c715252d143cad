//! The accounts server.

use serde_json::{Value, json};

use crate::world::{World, taken};

async fn token(world: &World, parameters: &[(&str, &str)]) -> (u16, Value) {
    let url = format!("{}/oauth/v2/token", world.url);
    taken(world.http.post(url).form(parameters).send().await.unwrap()).await
}

#[tokio::test]
async fn every_wrong_credential_is_named_with_status_200() {
    let world = World::without_token("").await;
    let good = &world.credentials;
    let all = |id: &'static str, secret: &'static str, token: &'static str| {
        let pick = |given: &'static str, true_one: &str| {
            if given.is_empty() { true_one.to_owned() } else { given.to_owned() }
        };
        (pick(id, &good.client_id), pick(secret, &good.client_secret), pick(token, &good.refresh_token))
    };
    for (given, error) in
        [(all("other", "", ""), "invalid_client"), (all("", "other", ""), "invalid_client_secret"), (all("", "", "other"), "invalid_code")]
    {
        let (id, secret, refresh) = given;
        let parameters = [("grant_type", "refresh_token"), ("client_id", &id), ("client_secret", &secret), ("refresh_token", &refresh)];
        assert_eq!(token(&world, &parameters).await, (200, json!({ "error": error })));
    }
}

#[tokio::test]
async fn a_refresh_answers_an_access_token_and_never_a_refresh_token() {
    let world = World::without_token("").await;
    let answer = world.mint(&world.credentials.refresh_token).await;
    assert_eq!(answer["expires_in"], 3600);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["api_domain"], world.url);
    assert_eq!(answer.get("refresh_token"), None);
    let parts: Vec<usize> = answer["access_token"].as_str().unwrap().split('.').map(str::len).collect();
    assert_eq!(parts, [4, 32, 32]);
}

#[tokio::test]
async fn parameters_are_taken_from_the_query_too() {
    let world = World::without_token("").await;
    let good = &world.credentials;
    let url = format!(
        "{}/oauth/v2/token?grant_type=refresh_token&client_id={}&client_secret={}&refresh_token={}",
        world.url, good.client_id, good.client_secret, good.refresh_token
    );
    let (_, body) = taken(world.http.post(url).send().await.unwrap()).await;
    assert!(body["access_token"].is_string(), "{body}");
    let (_, log) = world.get("/admin/log?product=oauth").await;
    assert_eq!(log["requests"][0]["query"], "(hidden)", "secrets do not belong in a log");
}

#[tokio::test]
async fn the_eleventh_token_of_a_window_is_denied_and_counted() {
    let world = World::without_token("[oauth]\nthrottle_status = 400").await;
    let refresh = world.credentials.refresh_token.clone();
    for _ in 0..10 {
        assert!(world.mint(&refresh).await["access_token"].is_string());
    }
    let denied = world.mint(&refresh).await;
    assert_eq!(denied["error"], "Access Denied");
    let other = world.post("/admin/oauth/refresh-tokens", json!({})).await.1;
    let other = world.mint(other["refresh_token"].as_str().unwrap()).await;
    assert!(other["access_token"].is_string(), "the limit is per refresh token: {other}");
    let stats = world.stats().await;
    assert_eq!(stats["tokens"]["minted"], 11);
    assert_eq!(stats["tokens"]["most_in_window"], 10);
    assert_eq!(stats["tokens"]["throttled"], 1);
    assert_eq!(stats["refusals"]["oauth:Access Denied"], 1);
    let (_, log) = world.get("/admin/log?product=oauth").await;
    assert_eq!(log["requests"][10]["status"], 400, "the configured status");
}

#[tokio::test]
async fn the_sixteenth_live_token_ends_the_oldest() {
    let world = World::new("[oauth]\nmints = 100").await;
    let refresh = world.credentials.refresh_token.clone();
    for _ in 0..14 {
        world.mint(&refresh).await;
    }
    assert_eq!(world.get("/crm/v8/org").await.0, 200, "15 live tokens");
    world.mint(&refresh).await;
    let (status, body) = world.get("/crm/v8/org").await;
    assert_eq!((status, body["code"].as_str()), (401, Some("INVALID_TOKEN")));
}

#[tokio::test]
async fn a_grant_code_is_exchanged_once_and_brings_a_refresh_token() {
    let world = World::without_token("").await;
    let (_, made) = world.post("/admin/oauth/codes", json!({})).await;
    let parameters = [
        ("grant_type", "authorization_code"),
        ("client_id", &world.credentials.client_id),
        ("client_secret", &world.credentials.client_secret),
        ("code", made["code"].as_str().unwrap()),
    ];
    let (_, body) = token(&world, &parameters).await;
    let refresh = body["refresh_token"].as_str().unwrap().to_owned();
    assert!(world.mint(&refresh).await["access_token"].is_string());
    assert_eq!(token(&world, &parameters).await.1["error"], "invalid_code");
}

#[tokio::test]
async fn a_revoked_refresh_token_ends_its_access_tokens() {
    let world = World::new("").await;
    assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    assert_eq!(world.post("/admin/oauth/revoke", json!({})).await.0, 200);
    let (status, body) = world.get("/billing/v1/customers").await;
    assert_eq!((status, &body["code"]), (401, &json!(14)));
    assert_eq!(world.mint(&world.credentials.refresh_token).await["error"], "invalid_code");
}

#[tokio::test]
async fn a_token_lives_as_long_as_it_says_on_the_scaled_clock() {
    let world = World::new("time_scale = 36000").await;
    let answer = world.mint(&world.credentials.refresh_token).await;
    assert_eq!(answer["expires_in"], 0, "3600 seconds pass in 0.1");
    let expired = async { while world.get("/crm/v8/org").await.0 == 200 {} };
    tokio::time::timeout(std::time::Duration::from_secs(5), expired).await.unwrap();
}
