//! `sluice simulate`: the simulated Zoho alone, for people's own tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::json;
use sluice_core::config::section::Log;
use sluice_simulator::{Config, Scenario, Simulator};

use crate::exit::{Answer, Usage};
use crate::output;
use crate::process;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The port on 127.0.0.1; 0 takes any free one.
    #[arg(long, value_name = "P", default_value_t = 9100)]
    port: u16,
    /// What it is like and how it is broken, as TOML.
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
}

/// A simulator without a list knows every organisation.
const ANY_ORGANIZATION: &str = "60000000001";

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let _log = session.log(&Log::default(), ".".as_ref(), 0)?;
    let scenario = match args.scenario.as_deref() {
        Some(path) => Scenario::from_file(path).map_err(|error| Usage(format!("{:#}", anyhow::Error::new(error))))?,
        None => Scenario::default(),
    };
    let shutdown = process::shutdown_on_signal()?;
    let organization = scenario.finance.organizations.first().map_or(ANY_ORGANIZATION, String::as_str).to_owned();
    let simulator = Simulator::bind(Config { listen: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)), scenario }).await?;
    let (url, credentials) = (simulator.url(), simulator.credentials());
    if session.options.json {
        output::json(&json!({
            "url": url,
            "client_id": credentials.client_id,
            "client_secret": credentials.client_secret,
            "refresh_token": credentials.refresh_token,
            "organization_id": organization,
        }))?;
    } else {
        output::line(&format!(
            "A simulated Zoho listens at {url}; what it has and saw: {url}/admin/stats\n\n\
             [connections.main]\naccounts_url = \"{url}\"\napi_url = \"{url}\"\nclient_id = \"{}\"\nclient_secret = \"{}\"\nrefresh_token = \"{}\"\norganization_id = \"{organization}\"",
            credentials.client_id, credentials.client_secret, credentials.refresh_token
        ))?;
    }
    simulator.serve(shutdown).await;
    Ok(Answer::Yes)
}
