//! The other side: this program as a worker or a producer, as `sluice worker --config FILE` and `sluice producer --config FILE` run them.
//!
//! It ends when its starter has ended, however that ended: standard input is a pipe that nobody else holds.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use sluice_core::config::Config;
use sluice_core::db::{Db, Settings};
use sluice_core::telemetry;
use sluice_worker::WorkerOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Names the role.
pub(crate) const ROLE: &str = "SLUICE_CHAOS_ROLE";
/// Names the configuration file.
pub(crate) const CONFIG: &str = "SLUICE_CHAOS_CONFIG";
/// Names the process in what it writes.
pub(crate) const NAME: &str = "SLUICE_CHAOS_NAME";

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Producer,
    Worker,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Worker => "worker",
        }
    }
}

/// The role that this process was started for.
pub(crate) fn asked_for() -> Option<Role> {
    match std::env::var(ROLE).ok()?.as_str() {
        "producer" => Some(Role::Producer),
        "worker" => Some(Role::Worker),
        other => panic!("{ROLE}={other}: there is no such role"),
    }
}

/// Plays it to its end.
pub(crate) fn play(role: Role) -> ExitCode {
    std::thread::spawn(|| {
        let mut nothing = [0];
        while std::io::stdin().read(&mut nothing).is_ok_and(|read| read > 0) {}
        std::process::exit(3);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.map_err(anyhow::Error::from).and_then(|runtime| runtime.block_on(run(role)));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

async fn run(role: Role) -> anyhow::Result<()> {
    let file = std::env::var(CONFIG).context(CONFIG)?;
    let config = Arc::new(Config::load(Some(Path::new(&file)))?);
    let _log = telemetry::init(&config.log, config.folder(), 0)?;
    let url = config.database.url.clone().context("the configuration names no database")?;
    let settings = Settings { url, max_connections: config.database.max_connections, ..Settings::new("") };
    let db = Db::connect(settings).await?;
    let shutdown = CancellationToken::new();
    let (mut terminate, token) = (signal(SignalKind::terminate())?, shutdown.clone());
    tokio::spawn(async move {
        terminate.recv().await;
        token.cancel();
    });
    match role {
        Role::Producer => Box::pin(sluice_producer::run(config, db, shutdown)).await,
        Role::Worker => {
            let name = std::env::var(NAME).unwrap_or_else(|_| "worker".to_owned());
            sluice_worker::run(config, db, WorkerOptions { concurrency: None, name }, shutdown).await
        }
    }
}
