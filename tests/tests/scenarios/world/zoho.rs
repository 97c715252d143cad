//! The simulated Zoho, as a test sees and breaks it.

use serde_json::{Value, json};
use sluice_simulator::{Scenario, Simulator};
use tokio_util::sync::CancellationToken;

use super::{ORGANIZATION, any_port, text};

/// The test's view of the simulated Zoho: what it has, what it saw, how it is broken.
#[derive(Debug, Clone)]
pub(crate) struct Zoho {
    pub(crate) url: String,
    http: reqwest::Client,
}

impl Zoho {
    pub(super) async fn start(mut scenario: Scenario, speed: f64, stop: CancellationToken) -> (Self, sluice_simulator::Credentials) {
        scenario.time_scale = speed;
        if scenario.latency_ms == Scenario::default().latency_ms {
            scenario.latency_ms = [1, 5];
        }
        // Tokens live and are metered in real time: the worker renews them by Zoho's real figures.
        scenario.oauth.token_seconds *= speed;
        scenario.oauth.mint_window_seconds *= speed;
        scenario.finance.per_day = 1_000_000;
        let simulator = Simulator::bind(sluice_simulator::Config { listen: any_port(), scenario }).await.expect("the simulator");
        let (url, credentials) = (simulator.url(), simulator.credentials());
        tokio::spawn(simulator.serve(stop));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().build().expect("a client");
        (Self { url, http }, credentials)
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.expect("the simulator");
        let status = response.status();
        let body: Value = response.json().await.expect("JSON");
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(self.http.get(format!("{}{path}", self.url))).await
    }

    /// Carries out an admin call with a body.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        self.ask(self.http.post(format!("{}/admin/{path}", self.url)).json(&body)).await
    }

    /// All records of a module, oldest first.
    pub(crate) async fn records(&self, product: &str, module: &str) -> Vec<Value> {
        let state = self.get(&format!("/admin/state?product={product}&module={module}")).await;
        state["records"].as_array().cloned().unwrap_or_default()
    }

    /// One field of all records of a module, sorted.
    pub(crate) async fn values(&self, product: &str, module: &str, field: &str) -> Vec<String> {
        let records = self.records(product, module).await;
        let mut values: Vec<String> = records.iter().map(|record| text(&record[field])).collect();
        values.sort();
        values
    }

    /// As many records, `{n}` in their values being the number of each, last changed days ago, and each some seconds after the one before. Their ids.
    pub(crate) async fn seed(&self, (product, module): (&str, &str), count: i64, record: Value, step_seconds: i64) -> Vec<String> {
        let seed = json!({"product": product, "module": module, "organization": ORGANIZATION, "count": count, "record": record,
            "age_seconds": 864_000, "step_seconds": step_seconds});
        let ids = self.post("seed", seed).await["ids"].clone();
        ids.as_array().expect("ids").iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// As a person in Zoho would: a new record, or with `id` a changed one.
    pub(crate) async fn put(&self, product: &str, module: &str, id: Option<&str>, record: Value) -> Value {
        let mut body = json!({"product": product, "module": module, "organization": ORGANIZATION, "record": record});
        if let Some(id) = id {
            body["id"] = json!(id);
        }
        self.ask(self.http.put(format!("{}/admin/records", self.url)).json(&body)).await["record"].clone()
    }

    /// As a person in Zoho would: into the recycle bin.
    pub(crate) async fn delete(&self, product: &str, module: &str, id: &str) {
        let query = format!("product={product}&module={module}&id={id}&organization={ORGANIZATION}");
        self.ask(self.http.delete(format!("{}/admin/records?{query}", self.url))).await;
    }

    /// The same some seconds later, by Zoho's calendar: its times have seconds, so edits within one cannot be told apart.
    pub(crate) async fn put_later(&self, product: &str, module: &str, id: &str, record: Value) -> Value {
        self.pass(3).await;
        self.put(product, module, Some(id), record).await
    }

    /// Some seconds pass, by Zoho's calendar.
    pub(crate) async fn pass(&self, seconds: u32) {
        self.post("clock", json!({"advance_seconds": seconds})).await;
    }

    /// Webhooks and notifications that were sent, or lost on the way.
    pub(crate) async fn deliveries(&self) -> Value {
        self.get("/admin/deliveries").await
    }

    /// A call to Inventory by somebody else's program, with a token of its own: it is counted like any other.
    pub(crate) async fn post_to_inventory(&self, path: &str, body: Value) -> Value {
        let mut who = self.get("/admin/oauth").await;
        who["grant_type"] = json!("refresh_token");
        let token = self.ask(self.http.post(format!("{}/oauth/v2/token", self.url)).query(&who)).await;
        let request = self.http.post(format!("{}/inventory/v1/{path}", self.url)).query(&[("organization_id", ORGANIZATION)]);
        let authorization = format!("Zoho-oauthtoken {}", token["access_token"].as_str().expect("a token"));
        self.ask(request.header("Authorization", authorization).json(&body)).await
    }

    pub(crate) async fn stats(&self) -> Value {
        self.get("/admin/stats").await
    }

    /// Every request that was seen, oldest first, without those for tokens.
    pub(crate) async fn calls(&self) -> Vec<Value> {
        let mut calls = Vec::new();
        let mut since = 0;
        loop {
            let page = self.get(&format!("/admin/log?since={since}")).await;
            let Some(requests) = page["requests"].as_array().filter(|requests| !requests.is_empty()) else { return calls };
            calls.extend(requests.iter().filter(|request| request["product"] != "oauth").cloned());
            since = page["next"].as_u64().unwrap_or_default();
        }
    }

    /// How many calls were seen since the last [`Zoho::forget_calls`].
    pub(crate) async fn count_calls(&self) -> usize {
        self.calls().await.len()
    }

    /// How many of them wrote.
    pub(crate) async fn count_writes(&self) -> usize {
        self.calls().await.iter().filter(|call| call["method"] == "PUT" || call["method"] == "POST").count()
    }

    /// Forgets what was seen.
    pub(crate) async fn forget_calls(&self) {
        self.post("reset?what=log", json!({})).await;
    }

    /// Sets a fault, or several.
    pub(crate) async fn fault(&self, fault: Value) {
        self.post("faults", fault).await;
    }

    /// The next such call is carried out and its answer lost.
    pub(crate) async fn lose(&self, product: &str, method: &str, path: &str) {
        self.fault(json!({"kind": "error_after", "product": product, "method": method, "path": path, "times": 1})).await;
    }

    pub(crate) async fn clear_faults(&self) {
        self.ask(self.http.delete(format!("{}/admin/faults", self.url))).await;
    }

    /// How often faults were applied, by kind.
    pub(crate) async fn faults(&self) -> Value {
        self.stats().await["faults"].clone()
    }

    pub(crate) async fn outage(&self, product: &str, on: bool) {
        self.post("outage", json!({"product": product, "on": on})).await;
    }
}
