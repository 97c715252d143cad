//! The guard: a small shell script, in a session of its own, that stops the server when its owner has ended.
//!
//! A signal at the parent's death (`PDEATHSIG`) would be wrong: it fires when the *thread* that started the child ends. The
//! pipe must never be inherited by another child of the owner, or the server would outlive it; the standard library opens all
//! pipes close-on-exec.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::user::ServerUser;

const SCRIPT: &str = include_str!("guard.sh");

/// What becomes of the server's folder when the server has stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Afterwards {
    Keep,
    Remove,
}

/// What a guard is started with.
pub(super) struct Task<'a> {
    pub(super) bin: &'a Path,
    pub(super) folder: &'a Path,
    pub(super) user: &'a ServerUser,
    pub(super) afterwards: Afterwards,
    pub(super) durable: bool,
    pub(super) settings: &'a [(String, String)],
}

/// A running guard. Dropping it closes the pipe, which stops the server without waiting for that.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Guard {
    /// Starts the guard, which first ends a leftover server on the folder. It holds `lock` until it ends.
    pub(super) fn spawn(task: &Task<'_>, lock: &File) -> io::Result<Self> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", SCRIPT, "guard"]).arg(task.bin).arg(task.folder);
        command.arg(match task.afterwards {
            Afterwards::Keep => "keep",
            Afterwards::Remove => "remove",
        });
        command.arg(server_options(task.durable, task.settings)).arg(if task.durable { "" } else { "--no-sync" });
        // The caller's PGHOST, PGDATA and the like are meant for another server.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::from(lock.try_clone()?));
        task.user.apply(&mut command);
        own_session(&mut command);
        let mut child = command.spawn()?;
        let (Some(commands), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::Error::other("the guard's pipes are missing"));
        };
        Ok(Self { child, commands, answers: BufReader::new(answers) })
    }

    /// Creates the data with this password for the user `postgres`, unless it exists. False: it failed, and the log says why.
    pub(super) fn init(&mut self, password: &str) -> io::Result<bool> {
        writeln!(self.commands, "init\n{password}")?;
        self.answer()
    }

    /// Starts the server on a port of 127.0.0.1. False: it failed, and the log says why.
    pub(super) fn start(&mut self, port: u16) -> io::Result<bool> {
        writeln!(self.commands, "start {port}")?;
        self.answer()
    }

    /// Stops the server and waits until the guard has cleaned up: at most 20 s for the server, and the removal of a folder.
    pub(super) fn stop(self) -> io::Result<()> {
        let Self { mut child, commands, answers } = self;
        drop(commands);
        drop(answers);
        child.wait().map(drop)
    }

    fn answer(&mut self) -> io::Result<bool> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the guard process ended"));
        }
        Ok(line.trim_end() == "ready")
    }
}

/// Takes the child out of the terminal's reach: Ctrl-C must not kill the server before its owner has drained.
#[expect(unsafe_code, reason = "the only way to call setsid between fork and exec")]
fn own_session(command: &mut Command) {
    // SAFETY: the closure makes one system call, allocates nothing and takes no lock, as is required between fork and exec.
    unsafe {
        command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from));
    }
}

/// The server's command line, quoted for the shell through which `pg_ctl` starts it.
fn server_options(durable: bool, settings: &[(String, String)]) -> String {
    const ALWAYS: &[(&str, &str)] = &[
        ("listen_addresses", "127.0.0.1"),
        // No socket: its path may not be longer than 107 bytes, and the folder's may.
        ("unix_socket_directories", ""),
        ("shared_buffers", "128MB"),
        ("max_connections", "100"),
    ];
    const QUICK: &[(&str, &str)] = &[("fsync", "off"), ("synchronous_commit", "off"), ("full_page_writes", "off")];
    let fixed = ALWAYS.iter().chain(if durable { &[] } else { QUICK });
    let all = fixed.copied().chain(settings.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    all.map(|(name, value)| format!("-c {}", shell_quote(&format!("{name}={value}")))).collect::<Vec<_>>().join(" ")
}

fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_with_a_quote_reaches_the_server_as_one_word() {
        let options = server_options(true, &[("log_line_prefix".into(), "it's $(here)".into())]);
        assert!(options.ends_with(r"-c 'log_line_prefix=it'\''s $(here)'"), "{options}");
        assert!(!options.contains("fsync"), "durability is only given up when asked");
    }
}
