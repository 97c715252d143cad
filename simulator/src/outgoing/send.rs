//! Sends what is due, each delivery by itself, and notes the answers.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    task::JoinSet,
    time::{Instant as Moment, sleep_until},
};

use super::body::Message;
use crate::state::Shared;

/// Most deliveries on their way at once.
const MOST_AT_ONCE: usize = 64;
/// How long is waited when nothing is to be sent; what is new wakes it anyway.
const IDLE: Duration = Duration::from_secs(3600);

/// Sends until the shutdown.
pub(crate) async fn run(shared: Arc<Shared>) {
    // Fails if another provider has been installed, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = match reqwest::Client::builder().no_proxy().build() {
        Ok(client) => client,
        Err(error) => {
            tracing::error!(%error, "webhooks and notifications cannot be sent");
            return;
        }
    };
    let wake = shared.state().outgoing.wake();
    let mut sending = JoinSet::new();
    loop {
        let (due, next) = shared.state().outgoing.due(MOST_AT_ONCE.saturating_sub(sending.len()));
        for (number, message) in due {
            sending.spawn(deliver(Arc::clone(&shared), client.clone(), number, message));
        }
        // What is due while all places are taken is sent when one gets free.
        let next = next.filter(|_| sending.len() < MOST_AT_ONCE).unwrap_or_else(|| Instant::now() + IDLE);
        tokio::select! {
            () = shared.shutdown.cancelled() => return,
            Some(_) = sending.join_next() => {}
            () = wake.notified() => {}
            () = sleep_until(Moment::from_std(next)) => {}
        }
    }
}

async fn deliver(shared: Arc<Shared>, client: reqwest::Client, number: u64, message: Arc<Message>) {
    let timeout = Duration::from_millis(shared.state().scenario.delivery.timeout_ms);
    let method = message.method.parse().unwrap_or(reqwest::Method::POST);
    let mut request = client.request(method, &message.url).timeout(timeout).body(message.body.clone());
    for (name, value) in &message.headers {
        request = request.header(name, value);
    }
    let sent = Instant::now();
    // The cause alone: an address may hold a secret.
    let outcome = answer(request).await.map_err(|error| error.without_url().to_string());
    let mut state = shared.state();
    let rules = state.scenario.delivery.clone();
    state.outgoing.answered(number, &outcome, sent.elapsed(), &rules);
}

/// The status of the answer, which is read whole so that the connection can be used again.
async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<u16> {
    let answer = request.send().await?;
    let status = answer.status().as_u16();
    answer.bytes().await?;
    Ok(status)
}
