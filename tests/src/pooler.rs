//! pgbouncer in transaction mode, in front of a test's database.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::wait_until;

/// `nobody`: pgbouncer refuses to run as root.
const NOBODY: u32 = 65534;

/// A running pgbouncer with two server connections, so that each transaction meets another one. Ends when it is dropped.
#[derive(Debug)]
pub struct Bouncer {
    process: Child,
    _folder: tempfile::TempDir,
    /// The database's address through it.
    pub url: String,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

impl Bouncer {
    /// In front of the database of this address, for its user. `None`: pgbouncer is not installed.
    ///
    /// # Panics
    /// When it cannot be started; and when it is not installed in CI, which must have it.
    pub async fn start(url: &str) -> Option<Self> {
        let Some(program) = program() else {
            assert!(std::env::var_os("CI").is_none(), "CI must have pgbouncer");
            eprintln!("skipped: pgbouncer is not installed");
            return None;
        };
        let direct = url::Url::parse(url).expect("an address");
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let folder = tempfile::tempdir_in("/tmp").expect("a folder");
        let (user, password) = (direct.username(), direct.password().unwrap_or_default());
        std::fs::write(folder.path().join("users"), format!("\"{user}\" \"{password}\"\n")).expect("a file");
        let settings = format!(
            "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
             auth_type = scram-sha-256\nauth_file = {}/users\npool_mode = transaction\ndefault_pool_size = 2\nmax_client_conn = 100\n",
            direct.host_str().expect("a host"),
            direct.port().unwrap_or(5432),
            folder.path().display(),
        );
        std::fs::write(folder.path().join("ini"), settings).expect("a file");
        let mut command = Command::new(program);
        command.arg(folder.path().join("ini")).stdout(Stdio::null()).stderr(Stdio::null()).current_dir("/");
        if std::fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0) {
            for file in ["", "users", "ini"] {
                chown(folder.path().join(file), Some(NOBODY), Some(NOBODY)).expect("a change of owner");
            }
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("a change of mode");
            command.uid(NOBODY).gid(NOBODY);
        }
        let process = command.spawn().expect("pgbouncer");
        wait_until(Duration::from_secs(60), || async { tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() }).await;
        let mut url = direct.clone();
        url.set_port(Some(port)).expect("a port");
        Some(Self { process, _folder: folder, url: url.to_string() })
    }
}
