//! The SQL contract with the clients that services really use: psql, Python's psycopg and Node's pg, direct and through pgbouncer in
//! transaction mode.
#![allow(clippy::unwrap_used, dead_code)]

#[path = "../scenarios/world/mod.rs"]
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use sluice_tests::Bouncer;
use world::{Setup, World};

const TABLES: &str = "create table public.people (id bigint primary key, name text not null, email text not null);
    insert into public.people select n, 'Person ' || n, 'person' || n || '@example.com' from generate_series(1, 9) n;";

const SYNC: &str = r#"
[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "billing/customers"
direction = "push"
match_on = ["email"]
[syncs.people.fields]
display_name = "name"
email = "email"
"#;

/// A service's own login, member of `sluice_enqueue` and nothing else.
async fn service(world: &World, url: &str) -> String {
    let name = format!("service_{}", uuid::Uuid::new_v4().simple());
    world.run(&format!("create role {name} login password 'service' in role sluice_enqueue")).await;
    let mut service = url::Url::parse(url).unwrap();
    service.set_username(&name).unwrap();
    service.set_password(Some("service")).unwrap();
    service.to_string()
}

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"))
}

/// A tool that CI installs (scripts/install-tools) and that others may lack.
fn tool(variable: &str) -> Option<PathBuf> {
    let path = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.exists());
    assert!(path.is_some() || std::env::var_os("CI").is_none(), "CI must set {variable}: see scripts/install-tools");
    if path.is_none() {
        eprintln!("skipped: {variable} is not set; eval \"$(scripts/install-tools)\" sets it");
    }
    path
}

async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

async fn python(url: &str, key: &str) {
    let Some(python) = tool("SLUICE_TEST_PYTHON") else { return };
    let mut command = Command::new(python);
    command.arg(here().join("enqueue.py")).env("SERVICE_URL", url).env("SYNC", "people").env("KEY", key);
    succeeded(&run(command).await);
}

async fn node(url: &str, key: &str) {
    let Some(modules) = tool("SLUICE_TEST_NODE_MODULES") else { return };
    let mut command = Command::new("node");
    command.arg(here().join("enqueue.mjs")).env("NODE_MODULES", modules).env("SERVICE_URL", url).env("SYNC", "people").env("KEY", key);
    succeeded(&run(command).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_python_service_enqueues_in_its_own_transaction() {
    let world = World::new(Setup::new(TABLES, SYNC)).await;
    let url = service(&world, world.url()).await;
    python(&url, "01").await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_service_enqueues_in_its_own_transaction() {
    let world = World::new(Setup::new(TABLES, SYNC)).await;
    let url = service(&world, world.url()).await;
    node(&url, "02").await;
    world.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_enqueues_and_is_told_what_is_wrong() {
    let world = World::new(Setup::new(TABLES, SYNC)).await;
    let url = service(&world, world.url()).await;
    let mut command = Command::new("psql");
    command.arg(&url).args(["-X", "-q", "-v", "sync=people", "-v", "key=003", "-f"]).arg(here().join("enqueue.sql"));
    let output = run(command).await;
    succeeded(&output);
    let errors = String::from_utf8_lossy(&output.stderr);
    for expected in [
        "unknown job kind \"nonsense\"",
        "a \"push\" job needs \"key\" in its args",
        "unknown sync \"nowhere\"",
        "may not insert \"call\" jobs",
    ] {
        assert!(errors.contains(expected), "{expected} is not in\n{errors}");
    }
    world.settled().await;
    let records = world.rows("select key, status from sluice.record_status where status = 'synced'").await;
    assert_eq!(records, [serde_json::json!({"key": "3", "status": "synced"})], "one record, by its canonical key");
}

#[tokio::test(flavor = "multi_thread")]
async fn through_pgbouncer_in_transaction_mode_everything_works() {
    let world = World::without_roles(Setup::new(TABLES, SYNC)).await;
    let Some(bouncer) = Bouncer::start(world.url()).await else { return };
    world.start_roles_through(&bouncer.url).await;
    // a captured change, a writeback-free push, jobs from both drivers, all through the pooler
    world.run("update public.people set name = name || '!'").await;
    let login = service(&world, world.url()).await;
    let through = Bouncer::start(&login).await.unwrap();
    python(&through.url, "4").await;
    node(&through.url, "5").await;
    world.settled().await;
    let synced = world.count("select count(*) from sluice.record_status where status = 'synced'").await;
    assert_eq!(synced, 9);
    let names = world.zoho.records("billing", "customers").await;
    assert!(names.iter().all(|customer| customer["display_name"].as_str().is_some_and(|name| name.ends_with('!'))), "{names:#?}");
}
