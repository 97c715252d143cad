//! A producer's web server that receives webhooks, and the requests that Zoho would send.

use std::net::SocketAddr;
use std::sync::{Arc, RwLock};

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use sluice_core::db::{Db, listen};
use sluice_producer::Definitions;
use sluice_producer::http::{self, State};
use sluice_producer::webhook;
use sluice_sync::read::Reader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::setting::{CUSTOMERS, Setting, config};

pub(crate) const TOKEN: &str = "letmein";

/// A pulled sync each of the kinds that send webhooks.
pub(crate) const SYNCS: &str = r#"
    [syncs.items]
    connection = "main"
    table = "public.customers"
    key = "id"
    module = "inventory/items"
    direction = "pull"
    fields = { name = "name" }
    [syncs.deals]
    connection = "main"
    table = "public.customers"
    key = "id"
    module = "crm/Deals"
    direction = "pull"
    fields = { Deal_Name = "name" }
"#;

/// A producer's web server on a port of its own, over a database in which syncs are published.
pub(crate) struct Served {
    pub(crate) setting: Setting,
    pub(crate) address: SocketAddr,
    sections: String,
    pub(crate) secret: String,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    /// What is no JSON stands here as text.
    pub(crate) body: Value,
}

impl Served {
    pub(crate) async fn with(webhooks: &str) -> Self {
        Self::behind("", webhooks).await
    }

    /// With these lines in `[http]` and these sections besides the syncs; SECRET in them stands for a secret made now.
    pub(crate) async fn behind(http: &str, webhooks: &str) -> Self {
        let secret = format!("s{:x}", rand::random::<u64>());
        let sections = format!("[http]\nadmin_token = \"{TOKEN}\"\n{http}\n{SYNCS}{CUSTOMERS}{webhooks}");
        let sections = sections.replace("SECRET", &secret);
        let setting = Setting::of(&sections).await;
        let shutdown = CancellationToken::new();
        let (address, running) = serve(setting.db(), setting.definitions.clone(), &sections, &shutdown).await;
        Self { setting, address, sections, secret, shutdown, running }
    }

    /// Ends the server as a deployment would, and starts another.
    pub(crate) async fn restart(&mut self) {
        self.shutdown.cancel();
        (&mut self.running).await.unwrap();
        self.shutdown = CancellationToken::new();
        (self.address, self.running) = serve(self.setting.db(), self.setting.definitions.clone(), &self.sections, &self.shutdown).await;
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        ask(self.address, "POST", path, headers, body).await
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        ask(self.address, "GET", path, headers, "").await
    }

    /// Posts with the signature that the finance suite makes.
    pub(crate) async fn signed(&self, path: &str, body: &str) -> Answer {
        let query = path.split_once('?').map_or("", |(_, query)| query);
        let mut pairs: Vec<(String, String)> = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        pairs.sort();
        let pairs: String = pairs.into_iter().map(|(name, value)| name + &value).collect();
        self.post(path, &[("X-Zoho-Webhook-Signature", &signature(&self.secret, &(pairs + body)))], body).await
    }

    /// An event's verdict and outcome, of an answer that must be 200.
    pub(crate) async fn outcome(&self, answer: Answer) -> (String, Option<String>) {
        assert_eq!(answer.status, 200, "{} {}", answer.head, answer.body);
        let id = answer.body["id"].as_i64().unwrap();
        sqlx::query_as("select verdict, outcome from sluice.event where id = $1").bind(id).fetch_one(self.setting.db()).await.unwrap()
    }

    /// The Zoho ids of the pulls that were asked for, in the lane of webhooks.
    pub(crate) async fn pulls(&self) -> Vec<String> {
        sqlx::query_scalar("select args ->> 'zoho_id' from sluice.job where kind = 'pull' and lane = 'realtime' order by id")
            .fetch_all(self.setting.db())
            .await
            .unwrap()
    }
}

pub(crate) async fn serve(db: &Db, definitions: Definitions, sections: &str, shutdown: &CancellationToken) -> (SocketAddr, JoinHandle<()>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let (db, reader) = (db.clone(), Reader::new(db.clone(), None));
    let listener = listen::Listener::spawn(db.settings(), &["sluice_change"], Arc::new(Notify::new()), shutdown.clone());
    let (_keep, definitions) = watch::channel(Arc::new(definitions));
    let agreed = Arc::new(RwLock::default());
    let state = State::new(&config(sections), db.clone(), reader, definitions, agreed, Arc::new(listener)).await.unwrap();
    let shutdown = shutdown.clone();
    let running = tokio::spawn(async move {
        let waiting = state.waiting();
        tokio::join!(webhook::keep_decided(&db, &waiting, &shutdown), http::serve(socket, state, shutdown.clone()));
    });
    (address, running)
}

pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let host = if path.starts_with("/webhook/") { "hooks.example" } else { "localhost" };
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    request.push_str("\r\n");
    request.push_str(body);
    let mut stream = TcpStream::connect(address).await.unwrap();
    // a server that refuses early may close before it has read all
    let _ = stream.write_all(request.as_bytes()).await;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text).await;
    let text = String::from_utf8(text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_ascii_lowercase(), body: serde_json::from_str(body).unwrap_or_else(|_| body.into()) }
}

/// What the finance suite would sign `text` with.
pub(crate) fn signature(secret: &str, text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn hook(name: &str, verify: &str, rest: &str) -> String {
    format!("[webhooks.{name}]\nconnection = \"main\"\nverify = \"{verify}\"\nsecret = \"SECRET\"\n{rest}\n")
}

pub(crate) fn item(id: &str, modified: &str) -> String {
    json!({ "item": { "item_id": id, "name": "Pen", "last_modified_time": modified } }).to_string()
}

pub(crate) fn note(secret: &str, ids: &[&str], server_time: i64, fields: &[&str]) -> String {
    let affected: Vec<Value> = ids.iter().map(|id| json!({ *id: fields })).collect();
    json!({ "server_time": server_time, "module": "Deals", "operation": "update", "ids": ids, "affected_fields": affected, "channel_id": "68001", "token": secret })
        .to_string()
}
