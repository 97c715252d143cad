//! Wake-ups by LISTEN, on a connection of its own.
//!
//! A wake-up is a hint and nothing else: it may come late, twice or never. Whoever waits for one must also poll, and look once
//! more after every wake-up. So a lost listener costs latency only, and nothing here is an error to the caller.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use sqlx::postgres::{PgListener, PgPoolOptions};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Settings;

/// A connection that has been silent this long is asked whether it still lives.
const SILENCE: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How wake-ups arrive at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The connection listens.
    Listening,
    /// There is no connection; it is tried again.
    Reconnecting,
    /// There is none and there will be none (a transaction pooler and no direct address): poll.
    PollingOnly,
}

/// A task that turns notifications into wake-ups until it is dropped or shut down.
#[derive(Debug)]
pub struct Listener {
    state: watch::Receiver<State>,
    task: JoinHandle<()>,
}

impl Listener {
    /// Listens on `channels` and calls [`Notify::notify_one`] on `wake` for each notification, and after each (re)connection
    /// because some may have been missed. Ends when `shutdown` is cancelled.
    pub fn spawn(settings: &Settings, channels: &'static [&'static str], wake: Arc<Notify>, shutdown: CancellationToken) -> Self {
        let behind_pooler = settings.only_polls();
        let (report, state) = watch::channel(if behind_pooler { State::PollingOnly } else { State::Reconnecting });
        let settings = settings.clone();
        let task = tokio::spawn(async move {
            if behind_pooler {
                shutdown.cancelled().await;
            } else {
                shutdown.run_until_cancelled(listen_for_ever(&settings, channels, &wake, &report)).await;
            }
        });
        Self { state, task }
    }

    /// How wake-ups arrive at present.
    pub fn state(&self) -> State {
        *self.state.borrow()
    }

    /// For waiting until the state changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Pauses of 0.2 s to 30 s between attempts, with jitter; for ever, since the table is polled meanwhile.
async fn listen_for_ever(settings: &Settings, channels: &[&str], wake: &Notify, report: &watch::Sender<State>) {
    let pauses = ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(30))
        .with_jitter()
        .without_max_times();
    let mut pause = pauses.build();
    loop {
        match connect(settings, channels).await {
            Ok(mut listener) => {
                pause = pauses.build();
                report.send_replace(State::Listening);
                wake.notify_one();
                let error = forward(&mut listener, wake).await;
                tracing::warn!(%error, "the connection for wake-ups was lost; polling meanwhile");
                report.send_replace(State::Reconnecting);
            }
            Err(error) => tracing::warn!(%error, "no connection for wake-ups; polling meanwhile"),
        }
        tokio::time::sleep(pause.next().unwrap_or(Duration::from_secs(30))).await;
    }
}

async fn connect(settings: &Settings, channels: &[&str]) -> Result<PgListener, sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(CONNECT_LIMIT).connect_with(settings.direct()?).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    listener.eager_reconnect(false); // without a pause between attempts; ours has one
    listener.listen_all(channels.iter().copied()).await?;
    Ok(listener)
}

/// Returns why the connection ended.
async fn forward(listener: &mut PgListener, wake: &Notify) -> sqlx::Error {
    loop {
        match tokio::time::timeout(SILENCE, listener.try_recv()).await {
            Ok(Ok(Some(_))) => wake.notify_one(),
            Ok(Ok(None)) => return sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into()),
            Ok(Err(error)) => return error,
            // A half-open connection says nothing for ever; a question finds out.
            Err(_) => match tokio::time::timeout(CONNECT_LIMIT, sqlx::query("select 1").execute(&mut *listener)).await {
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return error,
                Err(_) => return sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
            },
        }
    }
}
