//! Processes: started, killed, stopped, continued.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};

use crate::role::{self, Role};

/// How long a process may take to end after SIGTERM: the workers' grace and a little.
const TERMINATION_LIMIT: Duration = Duration::from_secs(15);

/// Starts processes of one configuration, and keeps what they say.
#[derive(Debug)]
pub(crate) struct Fleet {
    folder: PathBuf,
    config: PathBuf,
    started: u32,
}

/// A running producer or worker. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: String,
    log: PathBuf,
    child: Child,
    /// The process ends when this is closed, and waiting for a child would close it.
    _stdin: Option<ChildStdin>,
}

impl Fleet {
    pub(crate) fn new(folder: &Path, config: &Path) -> Self {
        Self { folder: folder.to_owned(), config: config.to_owned(), started: 0 }
    }

    /// Starts one. Its name has never been used before in this fleet.
    pub(crate) fn start(&mut self, role: Role) -> anyhow::Result<Process> {
        self.started += 1;
        let name = format!("{}{}", role.as_str(), self.started);
        let log = self.folder.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe()?);
        command.env(role::ROLE, role.as_str()).env(role::CONFIG, &self.config).env(role::NAME, &name).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&log)?).kill_on_drop(true);
        let mut child = command.spawn().context("this program could not start itself again")?;
        let _stdin = child.stdin.take();
        Ok(Process { name, log, child, _stdin })
    }
}

impl Process {
    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("killing {}", self.name))
    }

    /// SIGSTOP: it does nothing any more, and does not know.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub(crate) fn cont(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the end, which must be a success.
    pub(crate) async fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let ended = tokio::time::timeout(TERMINATION_LIMIT, self.child.wait()).await;
        let status =
            ended.with_context(|| format!("{} did not end within {TERMINATION_LIMIT:?} of SIGTERM:\n{}", self.name, self.said()))??;
        anyhow::ensure!(status.success(), "{} ended with {status}:\n{}", self.name, self.said());
        Ok(())
    }

    /// What it has written so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = self.child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(id.with_context(|| format!("{} has ended: {}", self.name, self.said()))?, signal)?;
        Ok(())
    }
}
