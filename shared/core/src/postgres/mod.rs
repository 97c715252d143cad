//! PostgreSQL without set-up: a private server that lives exactly as long as its owner.
//!
//! `demo`, `up` and the tests start one with [`start`]; every other command finds the one of its folder with [`address`]. The
//! server listens on 127.0.0.1 only and asks for a generated password, so that other users of the machine stay outside.
//!
//! It must never outlive its owner (a guard process holds the end of a pipe), never touch a server that is not ours, and never
//! download anything.

mod find;
mod folder;
mod guard;
mod user;

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{Connection, PgConnection};

use self::folder::{Claim, Place};
use self::guard::{Guard, Task};
use self::user::ServerUser;

/// How often another free port is tried when somebody was quicker.
const PORT_ATTEMPTS: usize = 5;
/// How often who joined a server looks whether it still runs.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The guard needs at most 20 s for the server; the rest is for removing files.
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// What kind of server to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where its data lies.
    pub data: DataDir,
    /// Whether a committed transaction survives a power cut. Only tests trade this for speed.
    pub durable: bool,
    /// Further settings of postgresql.conf; they come last, so they win. Defaults: `shared_buffers` 128MB, `max_connections` 100.
    pub settings: Vec<(String, String)>,
}

/// Where a server's data lies.
#[derive(Debug, Clone)]
pub enum DataDir {
    /// In a new folder that is removed when the server stops.
    Temporary,
    /// In `.sluice/postgres` of this project folder, with the address in `.sluice/url`. If another process runs it already, the
    /// server is joined.
    Folder(PathBuf),
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine has no server binaries.
    #[error(
        "no PostgreSQL server is installed, and Sluice does not download one. Install it ({package}), or name a database in DATABASE_URL"
    )]
    NotInstalled {
        /// The command, or the package, of this platform.
        package: &'static str,
    },
    /// The data was made by a major version that is not installed.
    #[error(
        "the data was made by PostgreSQL {made_by}, but installed is: {found}. Install version {made_by}, or move .sluice/postgres away"
    )]
    OtherVersion {
        /// The major version that made the data.
        made_by: u32,
        /// The installed major versions.
        found: String,
    },
    /// Root, on a machine with neither of the users that could run the server.
    #[error("PostgreSQL does not run as root, and this machine has neither a user `postgres` nor `nobody`")]
    NoUser,
    /// The data belongs to somebody else.
    #[error("{} belongs to another user; run this command as that user or as root, or remove the folder", folder.display())]
    NotYours {
        /// The server's folder.
        folder: PathBuf,
    },
    /// Another process holds the folder but has no running server.
    #[error("another process has been starting or stopping PostgreSQL in {} for {waited:?}", folder.display())]
    Busy {
        /// The project's `.sluice`.
        folder: PathBuf,
        /// How long we waited for it.
        waited: Duration,
    },
    /// Nothing runs here, and this command does not start a server.
    #[error(
        "no PostgreSQL is running for this folder: start one with `sluice up`, or name a database in DATABASE_URL or in [database] url"
    )]
    NotRunning,
    /// A file or folder could not be used.
    #[error("{}: {source}", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The guard process could not be started or spoken to.
    #[error("the process that guards PostgreSQL failed: {0}")]
    Guard(#[source] io::Error),
    /// PostgreSQL itself refused.
    #[error("PostgreSQL does not start ({step} failed). The end of its log:\n{log}")]
    Refused {
        /// Which of its programs failed.
        step: &'static str,
        /// The last lines of the log.
        log: String,
    },
    /// The server runs but its database could not be prepared.
    #[error("the new PostgreSQL does not answer: {0}")]
    Database(#[source] sqlx::Error),
    /// The guard did not finish in time.
    #[error("PostgreSQL did not stop within {0:?}")]
    NotStopped(Duration),
}

/// A running server. Dropping it stops the server without waiting; [`Server::stop`] waits.
pub struct Server {
    url: String,
    owned: Option<Guard>,
}

/// Starts a server, or joins the one that runs for the same project folder.
///
/// A server that was left behind by a killed owner and a killed guard is ended first. Takes about a second for new data. A joined
/// server ends with its owner, not with us; calling this again then starts it anew.
///
/// # Errors
/// Every variant of [`Error`] but `NotRunning` and `NotStopped`.
pub async fn start(options: Options) -> Result<Server, Error> {
    let launched = tokio::task::spawn_blocking(move || launch(&options)).await;
    let launched = launched.map_err(|error| Error::Guard(io::Error::other(error)))??;
    let (server, url_file) = match launched {
        Launched::Joined(url) => return Ok(Server { url, owned: None }),
        Launched::Started { url, guard, url_file } => (Server { url, owned: Some(guard) }, url_file),
    };
    create_database(&server.url).await.map_err(Error::Database)?;
    if let Some(url_file) = url_file {
        folder::publish(&url_file, &server.url)?;
    }
    Ok(server)
}

/// The address of the server that runs for this project folder, if one does. It holds the password.
///
/// # Errors
/// [`Error::Folder`] when `.sluice` cannot be read, for example because another user started the server.
pub fn running_url(project: &Path) -> Result<Option<String>, Error> {
    folder::running_url(project)
}

/// Like [`running_url`], for commands that cannot do without.
///
/// # Errors
/// [`Error::NotRunning`], whose text says what to start, and those of [`running_url`].
pub fn address(project: &Path) -> Result<String, Error> {
    running_url(project)?.ok_or(Error::NotRunning)
}

/// Waits until the server that was joined at this address does not run for this project folder any more: its owner ended, however that was.
pub async fn until_gone(project: &Path, url: &str) {
    loop {
        // a folder that cannot be read for a moment says nothing
        match running_url(project) {
            Ok(Some(now)) if now == url => {}
            Ok(_) => return,
            Err(error) => tracing::warn!(%error, "whether the PostgreSQL that was joined still runs could not be looked at"),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Server {
    /// `postgres://postgres:…@127.0.0.1:…/sluice`, of a superuser. It holds the password: don't log it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether another process owns this server, so that it stops when that one does.
    pub fn is_joined(&self) -> bool {
        self.owned.is_none()
    }

    /// Stops the server (fast, after 10 s immediate), removes a temporary folder, and waits for both. Leaves a joined server alone.
    ///
    /// # Errors
    /// [`Error::NotStopped`] after 40 s, [`Error::Guard`].
    pub async fn stop(self) -> Result<(), Error> {
        let Some(guard) = self.owned else {
            return Ok(());
        };
        let waiting = tokio::task::spawn_blocking(move || guard.stop());
        match tokio::time::timeout(STOP_LIMIT, waiting).await {
            Ok(Ok(stopped)) => stopped.map_err(Error::Guard),
            Ok(Err(error)) => Err(Error::Guard(io::Error::other(error))),
            Err(_) => Err(Error::NotStopped(STOP_LIMIT)),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("joined", &self.is_joined()).finish_non_exhaustive() // without the password
    }
}

enum Launched {
    Joined(String),
    Started { url: String, guard: Guard, url_file: Option<PathBuf> },
}

fn launch(options: &Options) -> Result<Launched, Error> {
    let user = ServerUser::choose().ok_or(Error::NoUser)?;
    let mut place = match &options.data {
        DataDir::Temporary => folder::temporary(user, &find::installation(None)?)?,
        DataDir::Folder(project) => match folder::claim(project, user)? {
            Claim::Joined(url) => return Ok(Launched::Joined(url)),
            Claim::Ours(place) => place,
        },
    };
    let made_by = std::fs::read_to_string(place.folder.join("data/PG_VERSION")).ok();
    let installation = find::installation(made_by.as_deref().and_then(|version| version.trim().parse().ok()))?;
    let password = if made_by.is_some() { saved_password(&place)? } else { format!("{:032x}", rand::random::<u128>()) };
    let task = Task {
        bin: &installation.bin,
        folder: &place.folder,
        user: &place.user,
        afterwards: place.afterwards,
        durable: options.durable,
        settings: &options.settings,
    };
    let mut guard = Guard::spawn(&task, &place.lock).map_err(Error::Guard)?;
    if let Some(temporary) = place.unguarded.take() {
        let _ = temporary.keep(); // the guard removes it from here on
    }
    match bring_up(&mut guard, &place, &password) {
        Ok(port) => {
            let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/sluice");
            Ok(Launched::Started { url, guard, url_file: place.url_file })
        }
        Err(error) => {
            guard.stop().map_err(Error::Guard)?;
            Err(error)
        }
    }
}

/// Creates the data if there is none and starts the server; returns its port.
fn bring_up(guard: &mut Guard, place: &Place, password: &str) -> Result<u16, Error> {
    let log = || last_lines(&place.folder.join("log"));
    if !guard.init(password).map_err(Error::Guard)? {
        return Err(Error::Refused { step: "initdb", log: log() });
    }
    for attempt in 1.. {
        let port = free_port().map_err(Error::Guard)?;
        if guard.start(port).map_err(Error::Guard)? {
            return Ok(port);
        }
        let log = log();
        if attempt == PORT_ATTEMPTS || !log.contains("could not bind") {
            return Err(Error::Refused { step: "postgres", log });
        }
    }
    unreachable!("the loop returns at its last attempt")
}

fn saved_password(place: &Place) -> Result<String, Error> {
    let path = place.folder.join("password");
    std::fs::read_to_string(&path).map_err(|source| Error::Folder { path, source })
}

/// A port that was free a moment ago. Somebody may take it before the server does; then another is tried.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Creates the database `sluice` where it is missing.
async fn create_database(url: &str) -> Result<(), sqlx::Error> {
    let maintenance = format!("{}/postgres", url.strip_suffix("/sluice").unwrap_or(url));
    let mut connection = PgConnection::connect(&maintenance).await?;
    let exists = sqlx::query("select 1 from pg_database where datname = 'sluice'").fetch_optional(&mut connection).await?;
    if exists.is_none() {
        sqlx::query("create database sluice").execute(&mut connection).await?;
    }
    connection.close().await
}
