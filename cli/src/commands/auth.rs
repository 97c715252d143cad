//! `sluice auth`: turns a grant code, valid for minutes and once, into a refresh token that is stored encrypted.

use std::io::{self, IsTerminal};
use std::time::Duration;

use anyhow::Context;
use secrecy::SecretString;
use serde_json::json;
use sluice_core::config::{Config, Connection};
use sluice_core::grant::{Grant, Moment};
use sluice_core::secrets::KeyRing;
use sluice_zoho::{Client, Settings, oauth};

use crate::exit::{Answer, Usage};
use crate::output;
use crate::session::Session;

/// How long the one request may wait before it is sent.
const SEND_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The connection, published already.
    connection: String,
    /// The redirect address of a server-based client; a self client has none.
    #[arg(long, value_name = "URL")]
    redirect_uri: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    let Some(connection) = config.connections.get(&args.connection) else {
        return Err(Usage(format!("there is no connection `{}` in the configuration", args.connection)).into());
    };
    let keys = KeyRing::load(&config.security, config.folder())?;
    let client = client(&config, connection)?;
    let code = read_code()?;
    // The refresh token does not exist yet, and so has no mints in the ledger that this one could exceed.
    let grant = Grant::issued(0, Moment::now(), SEND_WITHIN);
    let answer = oauth::exchange_code(grant, &client, &code, args.redirect_uri.as_deref()).await;
    let token = answer.map_err(|failed| anyhow::Error::new(failed.error))?.value;
    let refresh_token =
        token.refresh_token.context("Zoho gave no refresh token: the code was made without offline access; make another")?;
    sluice_worker::store_refresh_token(&db, &keys, &args.connection, &refresh_token).await?;
    if session.options.json {
        output::json(&json!({ "connection": args.connection, "scope": token.scope }))?;
    } else {
        output::line(&format!(
            "a refresh token for {} is stored{}",
            args.connection,
            token.scope.map(|scope| format!(": {scope}")).unwrap_or_default()
        ))?;
    }
    Ok(Answer::Yes)
}

fn client(config: &Config, connection: &Connection) -> anyhow::Result<Client> {
    let url = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
    let settings = Settings {
        data_center: connection.data_center.as_str().parse()?,
        accounts_url: url(&connection.accounts_url)?,
        api_url: url(&connection.api_url)?,
        client_id: connection.client_id.clone(),
        client_secret: connection.client_secret.clone(),
        organization_id: connection.organization_id.clone(),
        request_timeout: config.worker.request_timeout,
    };
    Ok(Client::new(settings)?)
}

/// From standard input, never from the command line, which other users of the machine can see.
fn read_code() -> anyhow::Result<SecretString> {
    if io::stdin().is_terminal() {
        eprintln!("In Zoho's API console make a grant code with the scopes of your modules, and paste it here:");
    }
    let mut code = String::new();
    io::stdin().read_line(&mut code)?;
    let code = code.trim();
    if code.is_empty() {
        return Err(Usage("no grant code: paste it, or pipe it in".to_owned()).into());
    }
    Ok(code.to_owned().into())
}
