//! A PostgreSQL server that is taken away under load: shut down at once, or hung, with all its processes.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use sluice_core::postgres::{self, DataDir, Options, Server};
use sqlx::{Connection as _, PgConnection};

use crate::world::until;

const LIMIT: Duration = Duration::from_secs(30);

/// A durable server of our own. The guard of the first one ends whichever runs on its folder at the end.
pub(crate) struct Victim {
    server: Server,
    data: PathBuf,
    /// Started here, after a shutdown.
    child: Option<Child>,
}

impl Victim {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let settings = vec![("max_connections".to_owned(), "100".to_owned())];
        let server = postgres::start(Options { data: DataDir::Temporary, durable: true, settings }).await?;
        let mut connection = PgConnection::connect(server.url()).await?;
        let data: String = sqlx::query_scalar("show data_directory").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(Self { server, data: PathBuf::from(data), child: None })
    }

    pub(crate) fn url(&self) -> &str {
        self.server.url()
    }

    /// Immediate shutdown, as after a power cut; `again` starts it on the same data and the same port.
    pub(crate) async fn shut_down(&self) -> anyhow::Result<Again> {
        let pid = self.postmaster()?;
        let again = Again::like(pid, &self.data)?;
        kill_process(pid, Signal::QUIT)?;
        until(LIMIT, "the server is gone", async || Ok(!self.data.join("postmaster.pid").exists())).await?;
        Ok(again)
    }

    /// Starts it again after a shutdown.
    pub(crate) async fn start_again(&mut self, again: Again) -> anyhow::Result<()> {
        self.child = Some(again.spawn()?);
        until(LIMIT, "the server answers again", async || Ok(PgConnection::connect(self.server.url()).await.is_ok())).await
    }

    /// Hangs: nothing answers, and no connection is closed.
    pub(crate) fn hang(&self) -> anyhow::Result<Vec<Pid>> {
        let postmaster = self.postmaster()?;
        kill_process(postmaster, Signal::STOP)?; // it starts no more
        let mut hung = vec![postmaster];
        for child in children(postmaster)? {
            // one that has just ended needs no stopping
            if kill_process(child, Signal::STOP).is_ok() {
                hung.push(child);
            }
        }
        Ok(hung)
    }

    /// Ends the server; waits for it.
    pub(crate) async fn end(mut self) -> anyhow::Result<()> {
        self.server.stop().await?;
        if let Some(mut child) = self.child.take() {
            tokio::task::spawn_blocking(move || child.wait()).await??;
        }
        Ok(())
    }

    fn postmaster(&self) -> anyhow::Result<Pid> {
        let file = fs::read_to_string(self.data.join("postmaster.pid"))?;
        let pid = file.lines().next().and_then(|line| Pid::from_raw(line.trim().parse().ok()?));
        pid.context("postmaster.pid names no process")
    }
}

/// Lets the processes go on.
pub(crate) fn go_on(hung: &[Pid]) {
    for pid in hung {
        let _ = kill_process(*pid, Signal::CONT);
    }
}

/// What started a server.
pub(crate) struct Again {
    command: Command,
}

impl Again {
    fn like(pid: Pid, data: &Path) -> anyhow::Result<Self> {
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))?;
        let mut words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty()).map(std::ffi::OsStr::from_bytes);
        let mut command = Command::new(words.next().context("a server without command line")?);
        let log = File::options().append(true).open(data.with_file_name("log"))?;
        command.args(words).current_dir("/").stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).env("LC_ALL", "C");
        let owner = fs::metadata(data)?;
        if rustix::process::getuid().is_root() {
            command.uid(owner.uid()).gid(owner.gid());
        }
        command.process_group(0);
        Ok(Self { command })
    }

    fn spawn(mut self) -> anyhow::Result<Child> {
        self.command.spawn().context("the server could not be started again")
    }
}

fn children(of: Pid) -> anyhow::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else { continue };
        // pid (name) state ppid …: the name may hold anything but is the last that ends with a bracket
        let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if parent == Some(of.as_raw_nonzero().get()) {
            found.push(pid);
        }
    }
    Ok(found)
}
