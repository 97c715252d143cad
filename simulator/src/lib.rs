//! A small Zoho that can be broken on purpose: OAuth, Billing v1, Inventory v1 and CRM v8 over HTTP, for tests and demonstrations.
//!
//! It shares no code with Sluice's own client, so that a misreading of Zoho's documentation cannot hide on both
//! sides. It holds its records in memory, needs no set-up, and must never be taken for a Zoho in production: its
//! admin API is open.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use sluice_simulator::{Config, Scenario, Simulator};
//! use tokio_util::sync::CancellationToken;
//!
//! let config = Config { listen: "127.0.0.1:0".parse()?, scenario: Scenario::default() };
//! let simulator = Simulator::bind(config).await?;
//! let (url, credentials) = (simulator.url(), simulator.credentials());
//! let shutdown = CancellationToken::new();
//! tokio::spawn(simulator.serve(shutdown.clone()));
//! # drop((url, credentials));
//! # Ok(())
//! # }
//! ```
//!
//! It tells others of changes by itself, too: finance webhooks and CRM notifications, which can be lost, doubled,
//! delayed, overtaken and forged.
//!
//! Tokens are minted at `{url}/oauth/v2/token`, calls go to `{url}/billing/v1`, `{url}/inventory/v1` and `{url}/crm/v8`. The scenario file
//! is described in [`scenario`], the admin API in [`admin`].

pub mod admin;
mod billing;
mod clock;
mod crm;
mod exchange;
mod faults;
mod finance;
mod ids;
mod inventory;
mod limits;
mod log;
mod money;
mod oauth;
mod operations;
mod outgoing;
pub mod scenario;
mod server;
mod state;
mod stats;

use std::{net::SocketAddr, sync::Arc};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use faults::{FaultKind, FaultSpec};
pub use oauth::Credentials;
pub use operations::{OPERATIONS, Operation};
pub use scenario::{BulkRead, CrmField, Dialect, Scenario, ScenarioError, Seed, Webhook};

use state::Shared;

/// Where to listen, and what the simulated Zoho is like.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// What it is like, and how it is broken.
    pub scenario: Scenario,
}

/// Why the simulator could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address could not be bound.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// The scenario is not valid.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// A simulator that has its address, but does not answer yet.
#[derive(Debug)]
pub struct Simulator {
    /// The address it listens on.
    pub addr: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Simulator {
    /// Takes the address. Connections wait until [`Simulator::serve`] runs.
    ///
    /// # Errors
    /// An address that cannot be bound, or a scenario that is not valid.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        config.scenario.validate()?;
        let failed = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let shared = Shared::new(config.scenario, format!("http://{addr}"), stop.clone()).map_err(ScenarioError::Value)?;
        Ok(Self { addr, listener, shared: Arc::new(shared), stop })
    }

    /// `http://address:port`: for `accounts_url` and `api_url` of a connection.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What a client needs to get tokens here.
    #[must_use]
    pub fn credentials(&self) -> Credentials {
        self.shared.state().accounts.credentials().clone()
    }

    /// Answers until the shutdown; open connections are then closed, and late commits forgotten.
    pub async fn serve(self, shutdown: CancellationToken) {
        let serving = server::serve(self.listener, self.shared);
        tokio::pin!(serving);
        tokio::select! {
            () = &mut serving => return,
            () = shutdown.cancelled() => self.stop.cancel(),
        }
        serving.await;
    }
}

/// Binds and serves until the shutdown.
///
/// # Errors
/// As [`Simulator::bind`].
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let simulator = Simulator::bind(config).await?;
    tracing::info!(url = %simulator.url(), "the simulated Zoho listens");
    simulator.serve(shutdown).await;
    Ok(())
}
