//! A receiver of webhooks and notifications, as an application would have one.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{net::TcpListener, sync::watch};

/// A request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) uri: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub(crate) struct Receiver {
    pub(crate) url: String,
    seen: watch::Receiver<Vec<Received>>,
    /// The statuses of the next answers; then 200.
    pub(crate) answers: Arc<Mutex<Vec<u16>>>,
}

impl Receiver {
    pub(crate) async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (tell, seen) = watch::channel(Vec::new());
        let answers: Arc<Mutex<Vec<u16>>> = Arc::default();
        let next = Arc::clone(&answers);
        tokio::spawn(async move {
            let tell = Arc::new(tell);
            while let Ok((stream, _)) = listener.accept().await {
                let (tell, next) = (Arc::clone(&tell), Arc::clone(&next));
                let service = service_fn(move |request| receive(request, Arc::clone(&tell), Arc::clone(&next)));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Self { url, seen, answers }
    }

    /// The requests, once there are so many.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Received> {
        let mut seen = self.seen.clone();
        let arrived = seen.wait_for(|seen| seen.len() >= count);
        tokio::time::timeout(Duration::from_secs(10), arrived).await.expect("in time").unwrap().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.seen.borrow().len()
    }
}

async fn receive(
    request: hyper::Request<Incoming>,
    tell: Arc<watch::Sender<Vec<Received>>>,
    next: Arc<Mutex<Vec<u16>>>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    let status = next.lock().unwrap().pop().unwrap_or(200);
    tell.send_modify(|seen| seen.push(Received { uri: head.uri.to_string(), headers: head.headers, body }));
    Ok(hyper::Response::builder().status(status).body(Full::default()).unwrap())
}
