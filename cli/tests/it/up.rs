//! `sluice up` with a PostgreSQL of its own, several times in one folder.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sluice_tests::wait_until;
use tempfile::TempDir;

/// Starts it, and returns when it has said this.
fn up(folder: &Path, said: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice"));
    command.arg("up").current_dir(folder).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_clear();
    command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(said)), "it ended before");
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joined_the_server_of_another_ends_with_a_message_when_that_one_is_killed() {
    let folder = TempDir::new().unwrap();
    // the server's user has to get there
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::write(folder.path().join("sluice.toml"), "[http]\nlisten = \"127.0.0.1:0\"\n").unwrap();
    // it works, or it has only just found the server
    for said in ["http://", "PostgreSQL runs for this folder"] {
        let mut first = up(folder.path(), "http://");
        let mut second = up(folder.path(), said);
        first.kill().unwrap();
        first.wait().unwrap();
        let second_ends = std::sync::Mutex::new(&mut second);
        wait_until(Duration::from_secs(60), || async { second_ends.lock().unwrap().try_wait().unwrap().is_some() }).await;
        let ended = second.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(1) && text.contains("start `sluice up` again"), "{said}: {text}");
    }
}
