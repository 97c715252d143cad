//! Where the machine keeps its PostgreSQL server binaries.
//!
//! Nothing is downloaded: no publisher offers signed server binaries for every platform, and a database from an unknown place is
//! worse than a sentence that says which package to install.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Error;

/// The oldest major version that Sluice supports.
const OLDEST: u32 = 14;

/// A folder with `initdb`, `pg_ctl` and `postgres` of one major version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    pub(super) bin: PathBuf,
    pub(super) major: u32,
}

/// The best installation: the one that made the data if there is data, else the first that is found, in the order PATH,
/// `pg_config`, Debian's folders (newest first), Homebrew's.
pub(super) fn installation(made_by: Option<u32>) -> Result<Installation, Error> {
    let found: Vec<Installation> = candidates().iter().filter_map(|bin| complete(bin)).filter(|one| one.major >= OLDEST).collect();
    match made_by {
        None => found.into_iter().next().ok_or(Error::NotInstalled { package: package() }),
        Some(major) => {
            let versions = found.iter().map(|one| one.major.to_string()).collect::<Vec<_>>().join(", ");
            found.into_iter().find(|one| one.major == major).ok_or(Error::OtherVersion { made_by: major, found: versions })
        }
    }
}

fn candidates() -> Vec<PathBuf> {
    let mut all: Vec<PathBuf> = std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    all.extend(output_of("pg_config", "--bindir").map(PathBuf::from));
    all.extend(versioned("/usr/lib/postgresql", "", "bin"));
    all.extend(versioned("/usr", "pgsql-", "bin"));
    for prefix in ["/opt/homebrew/opt", "/usr/local/opt", "/home/linuxbrew/.linuxbrew/opt"] {
        all.extend(versioned(prefix, "postgresql@", "bin"));
        all.push(Path::new(prefix).join("postgresql/bin"));
    }
    let mut seen = HashSet::new();
    all.retain(|path| seen.insert(path.clone()));
    all
}

/// `parent/<prefix><number>/<tail>`, the highest number first.
fn versioned(parent: &str, prefix: &str, tail: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.strip_prefix(prefix)?.parse().ok()?, entry.path().join(tail))))
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

fn complete(bin: &Path) -> Option<Installation> {
    // A link such as /usr/local/bin/postgres is followed to the folder where the rest of its programs lies.
    let bin = bin.join("postgres").canonicalize().ok()?.parent()?.to_owned();
    if !["initdb", "pg_ctl"].iter().all(|program| bin.join(program).is_file()) {
        return None;
    }
    let version = output_of(bin.join("postgres"), "--version")?;
    Some(Installation { major: major(&version)?, bin })
}

/// From `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, 15.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once(") ")?.1;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn output_of(program: impl AsRef<std::ffi::OsStr>, argument: &str) -> Option<String> {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// What to install, in the words of this platform.
fn package() -> &'static str {
    if cfg!(target_os = "macos") {
        return "brew install postgresql@17";
    }
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let like = |names: &[&str]| {
        release
            .lines()
            .filter(|line| line.starts_with("ID=") || line.starts_with("ID_LIKE="))
            .any(|line| line.split(['=', ' ', '"']).any(|word| names.contains(&word)))
    };
    if like(&["debian", "ubuntu"]) {
        "apt-get install postgresql"
    } else if like(&["fedora", "rhel", "centos"]) {
        "dnf install postgresql-server"
    } else if like(&["alpine"]) {
        "apk add postgresql"
    } else if like(&["arch"]) {
        "pacman -S postgresql"
    } else if like(&["suse", "opensuse"]) {
        "zypper install postgresql-server"
    } else {
        "the package postgresql or postgresql-server of your system"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_every_form_of_the_banner() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 17.2"), Some(17));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("something else"), None);
    }
}
