//! One simulator and a plain client for it.

use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use sluice_simulator::{Config, Credentials, Scenario, Simulator};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Any organisation: the scenarios here know all.
pub(crate) const ORGANIZATION: &str = "60000000001";

pub(crate) struct World {
    pub(crate) url: String,
    pub(crate) credentials: Credentials,
    pub(crate) http: reqwest::Client,
    token: String,
    _stop: DropGuard,
}

impl World {
    /// A simulator of this scenario (TOML) without latency, and one access token for it.
    pub(crate) async fn new(scenario: &str) -> Self {
        let mut world = Self::without_token(scenario).await;
        let answer = world.mint(&world.credentials.refresh_token.clone()).await;
        world.token = answer["access_token"].as_str().unwrap_or_default().to_owned();
        assert!(!world.token.is_empty(), "{answer}");
        world
    }

    pub(crate) async fn without_token(scenario: &str) -> Self {
        let mut scenario = Scenario::from_toml(scenario).unwrap();
        if scenario.latency_ms == Scenario::default().latency_ms {
            scenario.latency_ms = [0, 0];
        }
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), scenario };
        let simulator = Simulator::bind(config).await.unwrap();
        let (url, credentials) = (simulator.url(), simulator.credentials());
        let stop = CancellationToken::new();
        tokio::spawn(simulator.serve(stop.clone()));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { url, credentials, http, token: String::new(), _stop: stop.drop_guard() }
    }

    pub(crate) async fn mint(&self, refresh_token: &str) -> Value {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", &self.credentials.client_id),
            ("client_secret", &self.credentials.client_secret),
            ("refresh_token", refresh_token),
        ];
        let url = format!("{}/oauth/v2/token", self.url);
        self.http.post(url).form(&form).send().await.unwrap().json().await.unwrap()
    }

    /// A request with token and organisation, not yet sent. `path` begins with the product.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.url))
            .header("Authorization", format!("Zoho-oauthtoken {}", self.token))
            .header("X-com-zoho-subscriptions-organizationid", ORGANIZATION)
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        taken(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        taken(self.request(Method::POST, path).json(&body).send().await.unwrap()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> (u16, Value) {
        taken(self.request(Method::PUT, path).json(&body).send().await.unwrap()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> (u16, Value) {
        taken(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    pub(crate) async fn stats(&self) -> Value {
        self.get("/admin/stats").await.1
    }

    pub(crate) async fn records(&self, product: &str, module: &str) -> Vec<Value> {
        let (status, body) = self.get(&format!("/admin/state?product={product}&module={module}")).await;
        assert_eq!(status, 200, "{body}");
        body["records"].as_array().unwrap().clone()
    }

    pub(crate) async fn fault(&self, fault: Value) {
        let (status, body) = self.post("/admin/faults", fault).await;
        assert_eq!(status, 200, "{body}");
    }

    /// A customer, and its id.
    pub(crate) async fn customer(&self, name: &str) -> String {
        let body = json!({ "display_name": name, "email": "a@customer.example" });
        let (status, body) = self.post("/billing/v1/customers", body).await;
        assert_eq!(status, 201, "{body}");
        body["customer"]["customer_id"].as_str().unwrap().to_owned()
    }
}

/// Status and body; a missing or non-JSON body is null.
pub(crate) async fn taken(response: Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::Null))
}
