//! The demo's world: a private PostgreSQL, a simulated Zoho ten times as fast as the real one, and a recipe's tables and rows.

pub(crate) mod progress;
pub(crate) mod summary;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use rand::RngExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sluice_core::config::trigger::Verify;
use sluice_core::config::{Config, Environment};
use sluice_core::db::{self, Db, dynamic};
use sluice_core::secrets::random_key;
use sluice_producer::Definitions;
use sluice_producer::capture::{self, LOCK_PATIENCE};
use sluice_simulator::{Scenario, Simulator};
use sluice_sync::read::Reader;
use tokio_util::sync::CancellationToken;

use crate::publish;
use crate::recipe::Recipe;
use crate::session;

/// How many times as fast as real ones the simulated Zoho's windows pass, and the budget's with them.
pub(crate) const SPEED: u32 = 10;
const ORGANIZATION: &str = "60000000001";
const USUAL_PORT: u16 = 8080;
/// Letters and digits of what webhooks and notifications prove themselves by.
const SECRET_LENGTH: usize = 32;

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
}

impl World {
    /// Makes it in an empty database. The simulator answers until `stop`.
    pub(crate) async fn make(recipe: &Recipe, url: &str, stop: CancellationToken) -> anyhow::Result<Self> {
        let scenario = Scenario { time_scale: f64::from(SPEED), ..Scenario::from_toml(recipe.zoho)? };
        let simulator = Simulator::bind(sluice_simulator::Config { listen: any_port(), scenario }).await?;
        let config = configuration(recipe, url, &simulator)?;
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
        for (name, _) in config.syncs.iter().filter(|(_, sync)| sync.direction.pushes() && sync.creates) {
            let jobs = sluice_producer::trigger(&db, &reader, &definitions, Some(name), None, false).await?;
            enqueued.insert(name.clone(), jobs);
        }
        let polled: Vec<String> = config.syncs.values().filter(|sync| sync.direction.pulls()).map(|sync| sync.name.clone()).collect();
        sqlx::query!(
            "insert into sluice.job (kind, args) select 'poll', jsonb_build_object('sync', name) from unnest($1::text[]) name",
            &polled
        )
        .execute(&db)
        .await?;
        Ok(Self { config: Arc::new(config), db, zoho, enqueued, polled })
    }
}

/// The recipe's configuration, pointed at the simulator and sped up with it.
fn configuration(recipe: &Recipe, url: &str, simulator: &Simulator) -> anyhow::Result<Config> {
    let zoho = simulator.credentials();
    let secret: String = rand::rng().sample_iter(rand::distr::Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
    let listen = web_address();
    let public_url = format!("http://{listen}");
    let environment: Environment = [
        ("DATABASE_URL", url),
        ("PUBLIC_URL", &public_url),
        ("ZOHO_CLIENT_ID", &zoho.client_id),
        ("ZOHO_CLIENT_SECRET", &zoho.client_secret),
        ("ZOHO_REFRESH_TOKEN", &zoho.refresh_token),
        ("ZOHO_ORG_ID", ORGANIZATION),
        // the one simulated Zoho stands for all organisations of a recipe
        ("ZOHO_WHOLESALE_REFRESH_TOKEN", &zoho.refresh_token),
        ("ZOHO_WEBHOOK_SECRET", &secret),
    ]
    .into_iter()
    .collect();
    let mut config = Config::parse(recipe.config, &environment)?;
    for connection in config.connections.values_mut() {
        connection.accounts_url = Some(simulator.url());
        connection.api_url = Some(simulator.url());
        for scope in ["finance", "crm", "fsm"] {
            connection.budget.entry(scope.to_owned()).or_default();
        }
        for budget in connection.budget.values_mut() {
            budget.window_seconds = (budget.window_seconds / SPEED).max(1);
        }
    }
    config.security.key = Some(random_key());
    config.http.listen = listen;
    // CRM is asked to notify us there
    config.http.public_url = Some(format!("http://{}", config.http.listen));
    Ok(config)
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

/// The usual port for the dashboard, or another where that is taken.
fn web_address() -> SocketAddr {
    let usual = SocketAddr::from((Ipv4Addr::LOCALHOST, USUAL_PORT));
    let free = |address: SocketAddr| TcpListener::bind(address).and_then(|listener| listener.local_addr());
    free(usual).or_else(|_| free(any_port())).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::RECIPES;

    #[tokio::test]
    async fn every_recipe_is_a_valid_configuration_and_runs_at_the_demos_speed() {
        let simulator =
            Simulator::bind(sluice_simulator::Config { listen: any_port(), scenario: Scenario::default() }).await.expect("a port");
        for recipe in RECIPES {
            let config = configuration(recipe, "postgres://localhost/demo", &simulator).expect(recipe.name);
            assert!(config.notes.is_empty(), "{}: {:?}", recipe.name, config.notes);
            for sync in config.syncs.values() {
                let (_, budget) = config.connections[&sync.connection].budget_of(sync.module.product);
                assert_eq!((budget.per_minute, budget.window_seconds), (100, 6), "{}", sync.name);
            }
        }
    }
}
