//! The demo's `sluice.toml`: a recipe's, pointed at the simulated Zoho and sped up with it. Nothing in it is left to the environment, so that
//! a command that is run beside it reaches the demo and never a database that happens to be named there.

use std::net::SocketAddr;

use anyhow::Context;
use rand::RngExt as _;
use secrecy::ExposeSecret as _;
use sluice_core::secrets::random_key;
use sluice_simulator::Simulator;
use toml::{Table, Value};

use super::SPEED;
use crate::recipe::Recipe;

const ORGANIZATION: &str = "60000000001";
/// Letters and digits of what webhooks and notifications prove themselves by.
const SECRET_LENGTH: usize = 32;
/// Seconds of the real budgets' windows.
const WINDOW: u32 = 60;

/// The file's text.
pub(super) fn text(recipe: &Recipe, url: &str, listen: SocketAddr, simulator: &Simulator) -> anyhow::Result<String> {
    let zoho = simulator.credentials();
    let secret: String = rand::rng().sample_iter(rand::distr::Alphanumeric).take(SECRET_LENGTH).map(char::from).collect();
    let public_url = format!("http://{listen}"); // CRM is asked to notify us there
    let mut recipes = recipe.config.to_owned();
    for (name, value) in [
        ("DATABASE_URL", url),
        ("PUBLIC_URL", &public_url),
        ("ZOHO_CLIENT_ID", &zoho.client_id),
        ("ZOHO_CLIENT_SECRET", &zoho.client_secret),
        ("ZOHO_REFRESH_TOKEN", &zoho.refresh_token),
        ("ZOHO_ORG_ID", ORGANIZATION),
        // the one simulated Zoho stands for all organisations of a recipe
        ("ZOHO_WHOLESALE_REFRESH_TOKEN", &zoho.refresh_token),
        ("ZOHO_WEBHOOK_SECRET", &secret),
    ] {
        recipes = recipes.replace(&format!("${{{name}}}"), value);
    }
    let mut file: Table = recipes.parse()?;
    for connection in section(&mut file, "connections")?.iter_mut().filter_map(|(_, connection)| connection.as_table_mut()) {
        connection.insert("accounts_url".to_owned(), simulator.url().into());
        connection.insert("api_url".to_owned(), simulator.url().into());
        let budgets = section(connection, "budget")?;
        for scope in ["finance", "crm", "fsm"] {
            section(budgets, scope)?;
        }
        for budget in budgets.iter_mut().filter_map(|(_, budget)| budget.as_table_mut()) {
            budget.insert("window_seconds".to_owned(), i64::from(WINDOW / SPEED).into());
        }
    }
    section(&mut file, "security")?.insert("key".to_owned(), random_key().expose_secret().into());
    let http = section(&mut file, "http")?;
    http.insert("listen".to_owned(), listen.to_string().into());
    http.insert("public_url".to_owned(), public_url.into());
    Ok(format!("# The recipe {} as the demo runs it. Gone when the demo ends.\n\n{}", recipe.name, toml::to_string_pretty(&file)?))
}

/// The section of that name, made where it lacks.
fn section<'t>(table: &'t mut Table, name: &str) -> anyhow::Result<&'t mut Table> {
    let section = table.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new()));
    section.as_table_mut().with_context(|| format!("the recipe's `{name}` is no section"))
}

#[cfg(test)]
mod tests {
    use sluice_core::config::{Config, Environment};
    use sluice_simulator::Scenario;

    use super::*;
    use crate::demo::any_port;
    use crate::recipe::RECIPES;

    #[tokio::test]
    async fn every_recipe_is_a_valid_configuration_and_runs_at_the_demos_speed() {
        let simulator =
            Simulator::bind(sluice_simulator::Config { listen: any_port(), scenario: Scenario::default() }).await.expect("a port");
        for recipe in RECIPES {
            let text = text(recipe, "postgres://localhost/demo", any_port(), &simulator).expect(recipe.name);
            // no variable of whoever runs it: it would lead elsewhere
            let config = Config::parse(&text, &Environment::default()).expect(recipe.name);
            assert!(config.notes.is_empty(), "{}: {:?}", recipe.name, config.notes);
            assert_eq!(config.database.url.as_ref().map(|url| url.expose_secret()), Some("postgres://localhost/demo"), "{}", recipe.name);
            for sync in config.syncs.values() {
                let (_, budget) = config.connections[&sync.connection].budget_of(sync.module.product);
                assert_eq!((budget.per_minute, budget.window_seconds), (100, WINDOW / SPEED), "{}", sync.name);
            }
        }
    }
}
