//! One call to Zoho that no job asks for: do the credentials work, and may they read what the syncs write to? For `sluice check`.
//!
//! It goes the way of every call: a token by the table that all replicas share, a grant of the ledger, a settle. It reads and never
//! writes to Zoho, so a scope for writing that is missing shows only when the first record is pushed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_core::secrets::KeyRing;
use sluice_queue::Cost;
use sluice_queue::store::{self, Alone};
use sluice_zoho::{AccessToken, Answer, Client, Failed, Method, Product, call, finance, organizations};
use tokio::sync::Notify;

use crate::handlers::organization::{choose, needs_one};
use crate::session::report;
use crate::tokens::{Live, Tokens};

/// The longest wait for a token or for a free call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Zoho answered as it should: in words, what was asked.
    Works(String),
    /// Zoho, or its accounts server, refused: why, and what to do.
    Refused(String),
    /// It could not be asked now: why. Says nothing about the credentials.
    Unasked(String),
}

/// Asks with each product of a published connection that a sync of the file uses. One call each, and one more where the organisation is not
/// known yet, which is stored then.
///
/// # Errors
/// When the configuration cannot be used (keys, addresses) or the database does not answer.
pub async fn ask(db: &Db, config: &Config, connection: &str) -> anyhow::Result<Vec<Asked>> {
    let asker = Asker::new(db, config, connection)?;
    let mut asked = Vec::new();
    for (product, module) in targets(config, connection) {
        asked.push(asker.ask(product, module).await?);
    }
    Ok(asked)
}

/// Per product the first module of a sync that can be listed.
fn targets(config: &Config, connection: &str) -> Vec<(Product, String)> {
    let mut targets: Vec<(Product, String)> = Vec::new();
    for sync in config.syncs.values().filter(|sync| sync.connection == connection) {
        let Ok(product) = sync.module.product.as_str().parse::<Product>() else { continue };
        let listed = product != Product::Billing || finance::Module::parse(product, &sync.module.name).is_some_and(finance::Module::listed);
        if listed && !targets.iter().any(|(known, _)| *known == product) {
            targets.push((product, sync.module.name.clone()));
        }
    }
    targets
}

/// Makes single calls for a person.
pub(crate) struct Asker<'a> {
    db: &'a Db,
    connection: &'a str,
    lease: Duration,
    tokens: Tokens,
    worker: Arc<str>,
}

impl<'a> Asker<'a> {
    pub(crate) fn new(db: &'a Db, config: &Config, connection: &'a str) -> anyhow::Result<Self> {
        let keys = Arc::new(KeyRing::load(&config.security, config.folder())?);
        let client = crate::clients(config, config.connections.get_key_value(connection))?;
        let worker = crate::worker_id("check");
        let tokens = Tokens::new(db.clone(), worker.clone(), keys, client, Arc::new(Notify::new()));
        Ok(Self { db, connection, lease: config.worker.lease, tokens, worker })
    }

    /// A request to CRM, with a token and a grant of its own.
    pub(crate) async fn crm(&self, request: &call::Request) -> anyhow::Result<Result<Value, Asked>> {
        let (client, live) = match self.token().await? {
            Ok(had) => had,
            Err(asked) => return Ok(Err(asked)),
        };
        let token: &AccessToken = &live.token;
        self.call(Product::Crm, &client, async |grant, client| call::send(grant, client, token, request).await).await
    }

    async fn token(&self) -> anyhow::Result<Result<(Client, Live), Asked>> {
        Ok(match self.tokens.obtain(self.connection, PATIENCE).await? {
            Some(Ok(had)) => Ok(had),
            Some(Err(why)) => Err(Asked::Refused(format!("no access token: {why}"))),
            None => Err(Asked::Unasked("no access token came; if the connection is not published yet: sluice attach".to_owned())),
        })
    }

    async fn ask(&self, product: Product, module: String) -> anyhow::Result<Asked> {
        let connection = self.connection;
        let (client, live) = match self.token().await? {
            Ok(had) => had,
            Err(asked) => return Ok(asked),
        };
        let mut client = client;
        let mut found = String::new();
        if needs_one(product) && client.settings().organization_id.is_none() {
            let answer = match self
                .call(product, &client, async |grant, client| organizations::list(grant, client, &live.token, product).await)
                .await?
            {
                Ok(answer) => answer,
                Err(asked) => return Ok(asked),
            };
            let one = match choose(&answer) {
                Ok(one) => one,
                Err(why) => return Ok(Asked::Refused(format!("{why}. Set organization_id in [connections.{connection}]"))),
            };
            self.tokens.learn_organization(connection, &one.id).await?;
            client = client.with_organization(Some(one.id.clone()))?;
            found = format!("found organization_id {} ({}); ", one.id, one.name);
        }
        let request = reading(product, &module);
        let token: &AccessToken = &live.token;
        Ok(match self.call(product, &client, async |grant, client| call::send(grant, client, token, &request).await).await? {
            Ok(_) => Asked::Works(format!("{found}Zoho lets us read {product}/{module}")),
            Err(asked) => asked,
        })
    }

    /// One call with a grant of its own, settled whatever became of it.
    async fn call<T, F>(&self, product: Product, client: &Client, send: F) -> anyhow::Result<Result<T, Asked>>
    where
        F: AsyncFnOnce(sluice_core::grant::Grant, &Client) -> sluice_zoho::Result<T>,
    {
        let deadline = Instant::now() + PATIENCE;
        let timeout = client.settings().request_timeout;
        let (token, calls) = loop {
            match store::grant_alone(self.db, &self.worker, self.connection, product.as_str(), self.lease, timeout).await? {
                Alone::Granted { token, calls } => break (token, calls),
                Alone::Unpublished => {
                    return Ok(Err(Asked::Unasked("the connection is not published yet; run `sluice attach` first".to_owned())));
                }
                Alone::Later(wait) if Instant::now() + wait < deadline => tokio::time::sleep(wait.max(Duration::from_millis(20))).await,
                Alone::Later(_) => {
                    return Ok(Err(Asked::Unasked("the budget has no free call within 10 s: see `sluice budget`".to_owned())));
                }
            }
        };
        let answer = match calls.grant(self.db, Cost::ONE).await {
            Ok(grant) => {
                calls.sending();
                send(grant, client).await
            }
            Err(error) => return Ok(Err(Asked::Unasked(error.to_string()))),
        };
        let asked = match answer {
            Ok(Answer { value, evidence }) => {
                report(&calls, &evidence, Cost::ONE, None);
                Ok(value)
            }
            Err(Failed { error, evidence }) => {
                report(&calls, &evidence, Cost::ONE, Some(&error));
                Err(self.said(&error))
            }
        };
        // A lease that was lost frees itself.
        store::settle(self.db, token, &self.worker, &calls.report(), &[]).await?;
        Ok(asked)
    }

    fn said(&self, error: &sluice_zoho::Error) -> Asked {
        use sluice_zoho::Error as E;
        let (connection, words) = (self.connection, error.to_string());
        let words = words.trim_end_matches('.');
        match error {
            E::Unauthorized { kind: sluice_zoho::AuthKind::Organization, .. } => Asked::Refused(format!(
                "{words}. Set organization_id in [connections.{connection}]: in Zoho, Settings, Organization Profile"
            )),
            E::Unauthorized { .. } => Asked::Refused(format!(
                "{words}. Give the connection's user the right in Zoho, or its token the scope: sluice auth {connection}"
            )),
            E::Rejected(_) | E::NotFound { .. } | E::NotSent(_) => Asked::Refused(error.to_string()),
            E::RateLimited { .. } | E::Unavailable { .. } | E::Malformed { .. } | E::OutcomeUnknown { .. } => {
                Asked::Unasked(error.to_string())
            }
        }
    }
}

/// The cheapest request that tells whether a module may be read: one row of its list.
fn reading(product: Product, module: &str) -> call::Request {
    let mut query = vec![("per_page".to_owned(), "1".to_owned())];
    if product == Product::Crm {
        query.push(("fields".to_owned(), "id".to_owned()));
    }
    call::Request { product, method: Method::Get, path: format!("/{module}"), query, body: None }
}
