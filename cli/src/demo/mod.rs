//! The demo's world: a private PostgreSQL, a simulated Zoho ten times as fast as the real one, and a recipe's tables and rows.

pub(crate) mod configuration;
pub(crate) mod progress;
pub(crate) mod summary;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sluice_core::config::Config;
use sluice_core::config::trigger::Verify;
use sluice_core::db::{self, Db, dynamic};
use sluice_producer::Definitions;
use sluice_producer::capture::{self, LOCK_PATIENCE};
use sluice_simulator::{Scenario, Simulator};
use sluice_sync::read::Reader;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::publish;
use crate::recipe::Recipe;
use crate::session;

/// How many times as fast as real ones the simulated Zoho's windows pass, and the budget's with them.
pub(crate) const SPEED: u32 = 10;
const USUAL_PORT: u16 = 8080;

/// Everything that the demo runs on but the PostgreSQL server.
pub(crate) struct World {
    pub(crate) config: Arc<Config>,
    pub(crate) db: Db,
    /// The simulated Zoho's address.
    pub(crate) zoho: String,
    /// Sync → rows that were enqueued to be pushed.
    pub(crate) enqueued: BTreeMap<String, u64>,
    /// Syncs that are polled for the first time.
    pub(crate) polled: Vec<String>,
    /// Holds the `sluice.toml` with which other commands reach this world; it goes with it.
    folder: TempDir,
}

impl World {
    /// Makes it in an empty database; its pages are to be served at `listen`. The simulator answers until `stop`.
    pub(crate) async fn make(recipe: &Recipe, url: &str, listen: SocketAddr, stop: CancellationToken) -> anyhow::Result<Self> {
        let scenario = Scenario { time_scale: f64::from(SPEED), ..Scenario::from_toml(recipe.zoho)? };
        let simulator = Simulator::bind(sluice_simulator::Config { listen: any_port(), scenario }).await?;
        // the file holds a password and a key
        let folder = tempfile::Builder::new().prefix("sluice-demo-").permissions(Permissions::from_mode(0o700)).tempdir()?;
        let file = folder.path().join("sluice.toml");
        std::fs::write(&file, configuration::text(recipe, url, listen, &simulator)?)?;
        let config = Config::load(Some(&file))?;
        let zoho = simulator.url();
        tokio::spawn(simulator.serve(stop));
        tell_of_changes(&config, &zoho).await?;
        let db = session::connect(&config, &SecretString::from(url), "sluice demo").await?;
        db::migrate::run(&db).await?;
        for (what, sql) in [("tables", recipe.tables), ("rows", recipe.rows)] {
            load(&db, sql).await.with_context(|| format!("{}/{what}.sql", recipe.name))?;
        }
        publish::publish(&db, &config, false).await?;
        let definitions = Definitions::compile(&db, &config).await?;
        capture::attach(&db, &definitions, &[], LOCK_PATIENCE).await?;
        let reader = Reader::new(db.clone(), config.database.expression_role.clone());
        let mut enqueued = BTreeMap::new();
        for (name, sync) in config.syncs.iter().filter(|(_, sync)| sync.direction.pushes() && sync.creates) {
            let jobs = sluice_producer::trigger(&db, &reader, &definitions, Some(name), None, false).await?.jobs;
            // of a sync that pulls as well, one of them is the poll
            enqueued.insert(name.clone(), jobs - u64::from(sync.direction.pulls()));
        }
        let polled: Vec<String> = config.syncs.values().filter(|sync| sync.direction.pulls()).map(|sync| sync.name.clone()).collect();
        let unasked: Vec<String> = polled.iter().filter(|name| !enqueued.contains_key(*name)).cloned().collect();
        sqlx::query!(
            "insert into sluice.job (kind, args) select 'poll', jsonb_build_object('sync', name) from unnest($1::text[]) name",
            &unasked
        )
        .execute(&db)
        .await?;
        Ok(Self { config: Arc::new(config), db, zoho, enqueued, polled, folder })
    }

    /// Where other commands find its configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Sets Zoho up as a person would: each webhook that it can sign is told of edits in the modules of its syncs.
async fn tell_of_changes(config: &Config, zoho: &str) -> anyhow::Result<()> {
    let signed = config.webhooks.iter().filter(|(_, webhook)| webhook.verify == Verify::ZohoSignature);
    let mut webhooks = Vec::new();
    for (name, webhook) in signed {
        for sync in webhook.sync.iter().chain(webhook.syncs.values()).filter_map(|sync| config.syncs.get(sync)) {
            webhooks.push(json!({
                "product": sync.module.product.as_str(), "modules": [sync.module.name], "secret": webhook.secret.expose_secret(),
                "url": format!("http://{}/webhook/{name}", config.http.listen),
            }));
        }
    }
    sluice_zoho::install_tls();
    let answer = reqwest::Client::new().post(format!("{zoho}/admin/webhooks")).json(&webhooks).send().await?;
    answer.error_for_status().context("the simulated Zoho does not take the webhooks")?;
    Ok(())
}

async fn load(db: &Db, sql: &str) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    dynamic::script(sql.to_owned()).execute(&mut tx).await?;
    tx.commit().await
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

/// The usual port for the dashboard, or another where that is taken. It is held from the beginning, so that a second demo finds it taken.
pub(crate) async fn web_socket() -> anyhow::Result<TcpListener> {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    match TcpListener::bind(usual).await {
        Ok(socket) => Ok(socket),
        Err(_) => TcpListener::bind(any_port()).await.context("no port of 127.0.0.1 is free for the dashboard"),
    }
}

#[cfg(test)]
mod tests {
    use sluice_tests::TestDb;

    use super::*;
    use crate::recipe;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_demo_counts_its_rows_and_leaves_a_file_that_leads_to_it_while_it_runs() {
        let db = TestDb::new().await;
        let (first, second) = (web_socket().await.expect("a port"), web_socket().await.expect("another"));
        let listen = second.local_addr().expect("an address");
        assert_ne!(first.local_addr().expect("an address"), listen, "a second demo has pages of its own");
        let stop = CancellationToken::new();
        let crm = recipe::find(Some("crm")).expect("the recipe");
        let world = World::make(crm, db.url(), listen, stop.clone()).await.expect("a world");
        let rows = sqlx::query_scalar::<_, i64>("select count(*) from contracts").fetch_one(db.db()).await.expect("a count");
        assert_eq!(world.enqueued["contracts"], u64::try_from(rows).expect("a count"), "the poll is no record");
        let polls = sqlx::query_scalar::<_, i64>("select count(*) from sluice.job where kind = 'poll'").fetch_one(db.db()).await;
        assert_eq!(polls.expect("a count"), i64::try_from(world.polled.len()).expect("a count"), "each is asked for once");
        let folder = world.folder().to_owned();
        let config = Config::load(Some(&folder.join("sluice.toml"))).expect("the file");
        assert_eq!((config.http.listen, config.syncs.len()), (listen, world.config.syncs.len()));
        drop(world);
        assert!(!folder.exists());
        stop.cancel();
    }
}
