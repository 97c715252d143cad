//! Where a server's files lie, and who may start one there.
//!
//! One lock file per place says who owns it. The lock is held by the owner *and* its guard, so it is free only when the guard
//! has cleaned up too; whatever still runs on a place whose lock is free is a leftover.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::Error;
use super::find::Installation;
use super::guard::{Afterwards, Guard, Task};
use super::user::ServerUser;

const TEMPORARY_PREFIX: &str = "sluice-pg-";
/// How long to wait for another process that is starting, or stopping, the server of the same folder.
const OTHERS_LIMIT: Duration = Duration::from_secs(90);
const OTHERS_PAUSE: Duration = Duration::from_millis(50);

/// A place whose lock we hold.
#[derive(Debug)]
pub(super) struct Place {
    /// Absolute and without links: it is compared with the server's working directory. Holds `data`, `log`, `password`, `ready`.
    pub(super) folder: PathBuf,
    pub(super) lock: File,
    pub(super) user: ServerUser,
    pub(super) afterwards: Afterwards,
    /// Where to publish the address.
    pub(super) url_file: Option<PathBuf>,
    /// Removes a temporary folder until a guard has taken that over.
    pub(super) unguarded: Option<tempfile::TempDir>,
}

/// The answer to "may we start a server for this folder?"
#[derive(Debug)]
pub(super) enum Claim {
    Ours(Place),
    /// Another process has one running at this address.
    Joined(String),
}

/// A new folder under the system's temporary folder. Leftovers that lie there are ended and removed first.
pub(super) fn temporary(user: ServerUser, sweeper: &Installation) -> Result<Place, Error> {
    let bases = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/var/tmp")];
    let base = bases.into_iter().find(|base| user.reaches(base)).unwrap_or_else(std::env::temp_dir);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    sweep(&base, &user, sweeper);
    let made = tempfile::Builder::new()
        .prefix(TEMPORARY_PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&base)
        .map_err(at(&base))?;
    let folder = made.path().canonicalize().map_err(at(made.path()))?;
    // Locked before it gets its name, so that nobody's sweep takes it for a leftover.
    let young = folder.join("lock.new");
    let lock = open_lock(&young).map_err(at(&young))?;
    lock.try_lock().map_err(|error| Error::Folder { path: young.clone(), source: error.into() })?;
    std::fs::rename(&young, folder.join("lock")).map_err(at(&young))?;
    user.give(&folder).map_err(at(&folder))?;
    Ok(Place { folder, lock, user, afterwards: Afterwards::Remove, url_file: None, unguarded: Some(made) })
}

/// The place for the project in `project`: `.sluice/postgres`, or what that links to. Waits while another process is starting.
pub(super) fn claim(project: &Path, user: ServerUser) -> Result<Claim, Error> {
    let home = project.join(".sluice");
    let failed = |source| Error::Folder { path: home.clone(), source };
    std::fs::create_dir_all(&home).map_err(failed)?;
    let home = home.canonicalize().map_err(failed)?;
    let ignore = home.join(".gitignore");
    if !ignore.exists() {
        std::fs::write(&ignore, "*\n").map_err(failed)?; // the address holds a password
    }
    let lock = open_lock(&home.join("lock")).map_err(failed)?;
    let limit = Instant::now() + OTHERS_LIMIT;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) => {}
        }
        if let Some(url) = running_url(project)? {
            return Ok(Claim::Joined(url));
        }
        if Instant::now() > limit {
            return Err(Error::Busy { folder: home, waited: OTHERS_LIMIT });
        }
        std::thread::sleep(OTHERS_PAUSE);
    }
    let url_file = home.join("url");
    match std::fs::remove_file(&url_file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let folder = data_folder(&home, &user)?;
    let user = user.owning(&folder);
    if !user.reaches(&folder) {
        return Err(Error::NotYours { folder });
    }
    Ok(Claim::Ours(Place { folder, lock, user, afterwards: Afterwards::Keep, url_file: Some(url_file), unguarded: None }))
}

/// The address of the server that runs for this project, if one does. See [`super::running_url`].
pub(super) fn running_url(project: &Path) -> Result<Option<String>, Error> {
    let home = project.join(".sluice");
    let lock = match File::open(home.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Folder { path: home, source }),
    };
    // A free lock means that neither an owner nor a guard lives: what the files say is of the past.
    match lock.try_lock_shared() {
        Ok(()) => return Ok(None),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(source)) => return Err(Error::Folder { path: home, source }),
    }
    // The guard removes `ready` before it stops the server.
    if !home.join("postgres/ready").exists() {
        return Ok(None);
    }
    match std::fs::read_to_string(home.join("url")) {
        Ok(url) => Ok(Some(url.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Folder { path: home.join("url"), source }),
    }
}

/// Publishes the address: whole or not at all, readable by its owner alone.
pub(super) fn publish(url_file: &Path, url: &str) -> Result<(), Error> {
    let failed = |source| Error::Folder { path: url_file.to_owned(), source };
    let parent = url_file.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(failed)?;
    writeln!(file, "{url}").map_err(failed)?;
    file.persist(url_file).map_err(|error| failed(error.error))?;
    Ok(())
}

/// `.sluice/postgres`; where the server's user cannot get there, a folder under /var/lib/sluice with a link to it.
fn data_folder(home: &Path, user: &ServerUser) -> Result<PathBuf, Error> {
    let link = home.join("postgres");
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Folder { path, source }
    };
    if let Ok(existing) = link.canonicalize() {
        return Ok(existing);
    }
    if link.is_symlink() {
        std::fs::remove_file(&link).map_err(at(&link))?; // what it led to was removed
    }
    private_folder(&link, user).map_err(at(&link))?;
    if user.reaches(&link) {
        return link.canonicalize().map_err(at(&link));
    }
    std::fs::remove_dir(&link).map_err(at(&link))?;
    let hash: String = Sha256::digest(home.as_os_str().as_encoded_bytes()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let elsewhere = Path::new("/var/lib/sluice").join(hash);
    std::fs::create_dir_all("/var/lib/sluice").map_err(at(&elsewhere))?;
    match private_folder(&elsewhere, user) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(at(&elsewhere)(error));
        }
        _ => {}
    }
    symlink(&elsewhere, &link).map_err(at(&link))?;
    elsewhere.canonicalize().map_err(at(&elsewhere))
}

/// Creates the folder and hands it over. It fails if anything has that name already.
fn private_folder(path: &Path, user: &ServerUser) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)?;
    user.give(path)
}

fn open_lock(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Ends servers whose owner and guard were both killed, and removes their folders. Best effort: it concerns others' remains.
fn sweep(base: &Path, user: &ServerUser, sweeper: &Installation) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let left = entry.path();
        let is_ours = entry.file_name().as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
            && left.symlink_metadata().is_ok_and(|found| found.is_dir() && found.uid() == user.uid())
            && left.join("lock").symlink_metadata().is_ok_and(|found| found.is_file());
        if !is_ours {
            continue;
        }
        let (Ok(folder), Ok(lock)) = (left.canonicalize(), open_lock(&left.join("lock"))) else {
            continue;
        };
        if lock.try_lock().is_err() {
            continue; // its owner lives
        }
        let task = Task { bin: &sweeper.bin, folder: &folder, user, afterwards: Afterwards::Remove, durable: false, settings: &[] };
        if let Err(error) = Guard::spawn(&task, &lock).and_then(Guard::stop) {
            tracing::warn!(folder = %folder.display(), %error, "a leftover PostgreSQL could not be removed");
        }
    }
}
