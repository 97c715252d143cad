//! As whom the server runs. PostgreSQL refuses to run as root, so root lends it to `postgres`, else to `nobody`.

use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// The user that owns the server's process and files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ServerUser {
    /// The user of this process, who is not root.
    Ourselves,
    /// This process is root and lends the server to somebody else.
    Other { uid: u32, gid: u32 },
}

impl ServerUser {
    /// The user for new data. None: we are root and the machine has neither `postgres` nor `nobody`.
    pub(super) fn choose() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return Some(Self::Ourselves);
        }
        ["postgres", "nobody"].iter().find_map(|name| Some(Self::Other { uid: id("-u", name)?, gid: id("-g", name)? }))
    }

    /// The user for data that exists: the server insists on owning it.
    pub(super) fn owning(self, data: &Path) -> Self {
        match (&self, data.metadata()) {
            (Self::Other { .. }, Ok(found)) if found.uid() != 0 => Self::Other { uid: found.uid(), gid: found.gid() },
            _ => self,
        }
    }

    pub(super) fn uid(&self) -> u32 {
        match self {
            Self::Ourselves => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => *uid,
        }
    }

    /// Makes a command run as this user. The standard library drops root's other groups along with its user id.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Other { uid, gid } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Hands over a folder that *we* have just created; never one that we found, which may be a link of somebody else's.
    pub(super) fn give(&self, folder: &Path) -> io::Result<()> {
        match self {
            Self::Ourselves => Ok(()),
            Self::Other { uid, gid } => chown(folder, Some(*uid), Some(*gid)),
        }
    }

    /// Whether this user can work in the folder: every folder above it must let him pass.
    pub(super) fn reaches(&self, folder: &Path) -> bool {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", r#"test -w "$1" && test -x "$1""#, "reaches"]).arg(folder);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.apply(&mut command);
        command.status().is_ok_and(|status| status.success())
    }
}

fn id(what: &str, name: &str) -> Option<u32> {
    let output = Command::new("id").args([what, name]).stderr(Stdio::null()).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}
