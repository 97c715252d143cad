//! The private server: it serves, it ends with its owner, and it leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sluice_core::postgres::{self, DataDir, Options, Server};
use sluice_tests::wait_until;
use sqlx::{Connection, PgConnection};

const LIMIT: Duration = Duration::from_secs(30);
/// Tells this test binary to be an owner that waits to be killed; `temporary`, or the project's folder.
const OWNER: &str = "SLUICE_TEST_OWNER";

fn options(data: DataDir) -> Options {
    Options { data, durable: false, settings: Vec::new() }
}

async fn ask(url: &str, sql: &'static str) -> Result<String, sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query_scalar(sql).fetch_one(&mut connection).await
}

/// The server's own folder, and its process.
async fn traces(url: &str) -> (PathBuf, i32) {
    let data = PathBuf::from(ask(url, "select current_setting('data_directory')").await.unwrap());
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap().lines().next().unwrap().parse().unwrap();
    (data.parent().unwrap().to_owned(), pid)
}

fn lives(pid: i32) -> bool {
    // A zombie that nobody collects is dead too.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.trim_start().starts_with('Z'))
}

/// Not a test of its own: the process that others start in order to kill it.
#[tokio::test]
async fn an_owner_that_waits_to_be_killed() {
    let Ok(data) = std::env::var(OWNER) else {
        return;
    };
    let data = if data == "temporary" { DataDir::Temporary } else { DataDir::Folder(data.into()) };
    let server = postgres::start(options(data)).await.unwrap();
    println!("\nurl {}", server.url());
    std::future::pending::<()>().await;
}

fn spawn_owner(data: &str) -> (Child, String) {
    spawn_owner_as(&std::env::current_exe().unwrap(), data, None)
}

fn spawn_owner_as(binary: &Path, data: &str, uid: Option<u32>) -> (Child, String) {
    let mut command = Command::new(binary);
    command.args(["--exact", "postgres::an_owner_that_waits_to_be_killed", "--nocapture"]);
    command.env(OWNER, data).current_dir("/").stdout(Stdio::piped());
    if let Some(uid) = uid {
        command.uid(uid).gid(uid);
    }
    let mut owner = command.spawn().unwrap();
    let lines = BufReader::new(owner.stdout.take().unwrap()).lines();
    let url = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("url ").map(str::to_owned));
    (owner, url.expect("the owner's server"))
}

/// Returns when the process is gone: only then has the system let go of its files and of the lock on them.
async fn kill(pid: i32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    wait_until(LIMIT, || async { !lives(pid) }).await;
}

#[tokio::test]
async fn a_temporary_server_serves_and_leaves_nothing_when_it_stops() {
    let server = postgres::start(options(DataDir::Temporary)).await.unwrap();
    assert_eq!(ask(server.url(), "select current_database()::text").await.unwrap(), "sluice");
    assert_eq!(ask(server.url(), "show data_checksums").await.unwrap(), "on");
    assert_eq!(ask(server.url(), "show listen_addresses").await.unwrap(), "127.0.0.1");
    let (folder, pid) = traces(server.url()).await;
    server.stop().await.unwrap();
    assert!(!folder.exists() && !lives(pid));
}

#[tokio::test]
async fn a_table_made_without_a_schema_lands_in_public_and_not_among_sluice_s_own() {
    let server = postgres::start(options(DataDir::Temporary)).await.unwrap();
    let mut connection = PgConnection::connect(server.url()).await.unwrap();
    sqlx::raw_sql("create schema sluice; create table customers ()").execute(&mut connection).await.unwrap();
    let schema = "select relnamespace::regnamespace::text from pg_class where relname = 'customers'";
    assert_eq!(ask(server.url(), schema).await.unwrap(), "public");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn without_the_password_nobody_gets_in() {
    let server = postgres::start(options(DataDir::Temporary)).await.unwrap();
    let mut url = url::Url::parse(server.url()).unwrap();
    url.set_password(Some("guess")).unwrap();
    let refused = ask(url.as_str(), "select 'in'").await.unwrap_err();
    assert_eq!(refused.as_database_error().unwrap().code().unwrap(), "28P01");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn durability_is_on_unless_given_up() {
    let durable = Options { durable: true, ..options(DataDir::Temporary) };
    let server = postgres::start(durable).await.unwrap();
    for setting in ["show fsync", "show synchronous_commit", "show full_page_writes"] {
        assert_eq!(ask(server.url(), setting).await.unwrap(), "on", "{setting}");
    }
    server.stop().await.unwrap();
}

#[tokio::test]
async fn two_servers_run_side_by_side() {
    let (one, two) = tokio::join!(postgres::start(options(DataDir::Temporary)), postgres::start(options(DataDir::Temporary)));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(traces(one.url()).await, traces(two.url()).await);
    one.stop().await.unwrap();
    assert_eq!(ask(two.url(), "select 'still here'").await.unwrap(), "still here");
    two.stop().await.unwrap();
}

#[tokio::test]
async fn a_killed_owner_leaves_neither_server_nor_folder() {
    let (mut owner, url) = spawn_owner("temporary");
    let (folder, pid) = traces(&url).await;
    assert!(lives(pid));
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until(LIMIT, || async { !lives(pid) && !folder.exists() }).await;
}

#[tokio::test]
async fn a_leftover_is_ended_and_its_data_kept() {
    let project = tempfile::tempdir().unwrap();
    let (mut owner, url) = spawn_owner(project.path().to_str().unwrap());
    let (folder, left) = traces(&url).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("create table kept as select 'forty-two' as a").execute(&mut connection).await.unwrap();
    kill(guard_of(&folder)).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(lives(left), "with its guard killed, too, the server must be a leftover for this test to mean anything");
    assert_eq!(postgres::running_url(project.path()).unwrap(), None, "a leftover is nobody's server");

    let server = postgres::start(options(DataDir::Folder(project.path().into()))).await.unwrap();
    assert!(!lives(left));
    assert_eq!(ask(server.url(), "select a from kept").await.unwrap(), "forty-two");
    server.stop().await.unwrap();
    remove_elsewhere(project.path());
}

#[tokio::test]
async fn a_temporary_leftover_is_removed_by_the_next_start() {
    let (mut owner, url) = spawn_owner("temporary");
    let (folder, left) = traces(&url).await;
    kill(guard_of(&folder)).await;
    owner.kill().unwrap();
    owner.wait().unwrap();
    let server = postgres::start(options(DataDir::Temporary)).await.unwrap();
    wait_until(LIMIT, || async { !lives(left) && !folder.exists() }).await;
    server.stop().await.unwrap();
}

#[tokio::test]
async fn of_many_that_start_at_the_same_moment_one_owns_and_the_others_join() {
    let project = tempfile::tempdir().unwrap();
    let starts = (0..5).map(|_| postgres::start(options(DataDir::Folder(project.path().into()))));
    let servers: Vec<Server> = futures::future::try_join_all(starts).await.unwrap();
    assert_eq!(servers.iter().filter(|server| !server.is_joined()).count(), 1);
    assert!(servers.iter().all(|server| server.url() == servers[0].url()));
    assert_eq!(postgres::address(project.path()).unwrap(), servers[0].url());
    let url = servers[0].url().to_owned();
    for server in servers {
        server.stop().await.unwrap();
    }
    assert!(ask(&url, "select 'gone'").await.is_err());
    let told = postgres::address(project.path()).unwrap_err().to_string();
    assert!(told.contains("sluice up"), "{told}");
    remove_elsewhere(project.path());
}

#[tokio::test]
async fn the_address_is_readable_by_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let project = tempfile::tempdir().unwrap();
    let server = postgres::start(options(DataDir::Folder(project.path().into()))).await.unwrap();
    let file = project.path().join(".sluice/url");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), server.url());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    server.stop().await.unwrap();
    remove_elsewhere(project.path());
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let bad = Options { settings: vec![("shared_buffers".into(), "nonsense".into())], ..options(DataDir::Temporary) };
    let told = postgres::start(bad).await.unwrap_err().to_string();
    assert!(told.contains("shared_buffers"), "{told}");
}

#[tokio::test]
async fn root_lends_the_server_to_another_user_who_may_be_unable_to_reach_the_folder() {
    if !is_root() {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let project = tempfile::tempdir().unwrap();
    std::fs::set_permissions(project.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let server = postgres::start(options(DataDir::Folder(project.path().into()))).await.unwrap();
    let (folder, pid) = traces(server.url()).await;
    assert!(folder.starts_with("/var/lib/sluice"));
    assert_eq!(std::fs::read_link(project.path().join(".sluice/postgres")).unwrap(), folder);
    assert_ne!(uid_of(pid), 0);
    server.stop().await.unwrap();
    remove_elsewhere(project.path());

    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let server = postgres::start(options(DataDir::Folder(open.path().into()))).await.unwrap();
    assert!(open.path().join(".sluice/postgres/data").is_dir() && !open.path().join(".sluice/postgres").is_symlink());
    server.stop().await.unwrap();
}

#[tokio::test]
async fn an_ordinary_user_needs_no_rights() {
    if !is_root() {
        return; // then every other test here shows it
    }
    // The test binary lies where only root may go; a copy does not.
    let shared = tempfile::tempdir_in("/tmp").unwrap();
    use std::os::unix::fs::{PermissionsExt, chown};
    std::fs::set_permissions(shared.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let binary = shared.path().join("it");
    std::fs::copy(std::env::current_exe().unwrap(), &binary).unwrap();
    let project = shared.path().join("project");
    std::fs::create_dir(&project).unwrap();
    chown(&project, Some(65534), Some(65534)).unwrap();
    let (mut owner, url) = spawn_owner_as(&binary, project.to_str().unwrap(), Some(65534));
    let (_, pid) = traces(&url).await;
    assert_eq!(uid_of(pid), 65534);
    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until(LIMIT, || async { !lives(pid) }).await;
    wait_until(LIMIT, || async { postgres::running_url(&project).unwrap().is_none() }).await;
}

fn is_root() -> bool {
    uid_of(i32::try_from(std::process::id()).unwrap()) == 0
}

fn uid_of(pid: i32) -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}")).unwrap().uid()
}

/// The shell whose command line names the server's folder.
fn guard_of(folder: &Path) -> i32 {
    let names = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        words.contains(&b"guard".as_slice()) && words.contains(&folder.as_os_str().as_encoded_bytes())
    };
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| names(*pid)).expect("the guard's process")
}

/// What a project of root's leaves under /var/lib/sluice is data, which the product keeps and a test does not.
fn remove_elsewhere(project: &Path) {
    if let Ok(folder) = project.join(".sluice/postgres").canonicalize() {
        std::fs::remove_dir_all(folder).unwrap();
    }
}
