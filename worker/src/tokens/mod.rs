//! Access tokens: minted once for all replicas, early, and never more often than Zoho allows.
//!
//! A background task keeps each connection's token in memory. Work of a connection without a live token is not claimed at all, so no
//! grant is spent on waiting for one. No transaction spans the call to Zoho.

mod mints;
mod store;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret as _, SecretString};
use sluice_core::db::Db;
use sluice_core::grant::{Grant, Moment};
use sluice_core::secrets::{self, KeyRing};
use sluice_zoho::{AccessToken, Client, oauth};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::pause;

/// A token is replaced when it has less than this left.
const EARLY: Duration = Duration::from_secs(300);
/// A token with less than this left is not used any more.
const TOO_OLD: Duration = Duration::from_secs(20);
/// How often the table is looked at while all is well.
const LOOK: Duration = Duration::from_secs(5);
/// How much longer than an answer can take nobody else asks which organisation a connection is.
const QUESTION: Duration = Duration::from_secs(5);
/// And while a connection has no token.
const LOOK_SOON: Duration = Duration::from_millis(100);
/// How long until Zoho is asked again about a refresh token, or a client, that it did not accept.
const NOT_ACCEPTED: Duration = Duration::from_secs(300);
/// A token that is refused this soon after another one was: the next would be refused too, so the connection rests as long.
const REFUSED_AGAIN: Duration = Duration::from_secs(60);

/// The live tokens of this process.
#[derive(Debug)]
pub(crate) struct Tokens {
    db: Db,
    worker: Arc<str>,
    keys: Arc<KeyRing>,
    connections: BTreeMap<String, Connection>,
    live: RwLock<BTreeMap<String, Live>>,
    refused: RwLock<BTreeMap<String, Refused>>,
    /// The finance organisation of each connection, as it is published or was found.
    organizations: RwLock<BTreeMap<String, String>>,
    /// The connections for which this process has looked at its file's token.
    seeded: Mutex<BTreeSet<String>>,
    /// Held by whoever asks Zoho for one.
    finding: tokio::sync::Mutex<()>,
    look: Notify,
    changed: Arc<Notify>,
}

#[derive(Debug)]
struct Connection {
    client: Client,
    from_file: Option<SecretString>,
}

/// One live token.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) token: AccessToken,
    fingerprint: String,
    sealed: Vec<u8>,
    expires_at: Instant,
    /// When the one before it was refused, if it was.
    refused_before: Option<Instant>,
}

impl Live {
    /// Of the refresh token that it was minted with.
    pub(crate) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    /// Whether it took the place of a token that Zoho refused moments ago: yet another one would not help.
    pub(crate) fn replaces_refused(&self) -> bool {
        self.refused_before.is_some_and(|at| at.elapsed() < REFUSED_AGAIN)
    }
}

/// The token of a connection that Zoho refused last.
#[derive(Debug)]
struct Refused {
    sealed: Vec<u8>,
    at: Instant,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Key(#[from] secrets::Error),
}

impl Tokens {
    /// `changed` is told whenever a connection gains or loses its token.
    pub(crate) fn new(
        db: Db,
        worker: Arc<str>,
        keys: Arc<KeyRing>,
        clients: impl IntoIterator<Item = (String, Client, Option<SecretString>)>,
        changed: Arc<Notify>,
    ) -> Self {
        let connections = clients.into_iter().map(|(name, client, from_file)| (name, Connection { client, from_file })).collect();
        Self {
            db,
            worker,
            keys,
            connections,
            live: RwLock::default(),
            refused: RwLock::default(),
            organizations: RwLock::default(),
            seeded: Mutex::default(),
            finding: tokio::sync::Mutex::default(),
            look: Notify::new(),
            changed,
        }
    }

    /// The client and the live token of a connection. The client calls for the organisation that is published, which may be newer than
    /// this process's file.
    pub(crate) fn of(&self, connection: &str) -> Option<(Client, Live)> {
        let live = self.live.read().unwrap_or_else(PoisonError::into_inner).get(connection).cloned()?;
        let fresh = live.expires_at > Instant::now() + TOO_OLD;
        let known = self.organizations.read().unwrap_or_else(PoisonError::into_inner).get(connection).cloned();
        let client = self.connections.get(connection).filter(|_| fresh)?.client.with_organization(known).ok()?;
        Some((client, live))
    }

    /// Waits until nobody else in this process asks Zoho for an organisation.
    pub(crate) async fn finding(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.finding.lock().await
    }

    /// Whether the connection's organisation is known by now.
    pub(crate) async fn look_for_organization(&self, connection: &str) -> Result<bool, sqlx::Error> {
        let known = store::organization(&self.db, connection).await?;
        self.know(connection, known);
        Ok(self.organizations.read().unwrap_or_else(PoisonError::into_inner).contains_key(connection))
    }

    /// Whether this worker is to ask Zoho for the organisation; `false`: another replica does, for the time that an answer can take.
    pub(crate) async fn take_question(&self, connection: &str) -> Result<bool, sqlx::Error> {
        let Some(known) = self.connections.get(connection) else { return Ok(false) };
        store::take_question(&self.db, connection, known.client.settings().request_timeout + QUESTION).await
    }

    /// The question was not answered.
    pub(crate) async fn drop_question(&self, connection: &str) {
        if let Err(error) = store::drop_question(&self.db, connection).await {
            tracing::debug!(%error, connection, "another worker asks for the organisation a little later");
        }
    }

    /// Stores the organisation that Zoho named, for all replicas. One that was published meanwhile stays.
    pub(crate) async fn learn_organization(&self, connection: &str, id: &str) -> Result<(), sqlx::Error> {
        if store::learn_organization(&self.db, connection, id).await? {
            self.know(connection, Some(id.to_owned()));
        }
        Ok(())
    }

    fn know(&self, connection: &str, organization: Option<String>) {
        let mut all = self.organizations.write().unwrap_or_else(PoisonError::into_inner);
        match organization {
            Some(id) => drop(all.insert(connection.to_owned(), id)),
            None => drop(all.remove(connection)),
        }
    }

    /// Looks at the tables soon: what this process knows was refused.
    pub(crate) fn look_again(&self) {
        self.look.notify_one();
    }

    /// Zoho refused this token: it is dropped everywhere, and another one minted; at once, unless it was itself minted because of that.
    pub(crate) async fn refused(&self, connection: &str, live: &Live) {
        let rest = if live.replaces_refused() { REFUSED_AGAIN } else { Duration::ZERO };
        if let Err(error) = store::drop_access_token(&self.db, &live.fingerprint, &live.sealed, rest).await {
            tracing::warn!(%error, connection, "a refused token could not be dropped from the table");
        }
        let refused = Refused { sealed: live.sealed.clone(), at: Instant::now() };
        let mut all = self.refused.write().unwrap_or_else(PoisonError::into_inner);
        // several batches learn it of one token: the first says when
        if all.get(connection).is_none_or(|known| known.sealed != refused.sealed) {
            all.insert(connection.to_owned(), refused);
        }
        drop(all);
        let mut map = self.live.write().unwrap_or_else(PoisonError::into_inner);
        if map.get(connection).is_some_and(|held| held.sealed == live.sealed) {
            map.remove(connection);
        }
        drop(map);
        self.look.notify_one();
        self.changed.notify_waiters();
    }

    /// Sees to the token of one connection until there is one, or says why there is none. `None`: not within `limit`, or the
    /// connection is not published.
    pub(crate) async fn obtain(
        &self,
        connection: &str,
        limit: Duration,
    ) -> anyhow::Result<Option<std::result::Result<(Client, Live), String>>> {
        let Some(known) = self.connections.get(connection) else { return Ok(None) };
        store::try_again(&self.db, connection).await?;
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            self.look_after(connection, known).await?;
            if let Some(had) = self.of(connection) {
                return Ok(Some(Ok(had)));
            }
            match store::load(&self.db, connection).await? {
                // it is stored with the connection
                None if known.from_file.is_some() => return Ok(None),
                None => return Ok(Some(Err(format!("there is no refresh token: run `sluice auth {connection}`, or set refresh_token")))),
                Some(store::Stored { failure: Some(failure), .. }) => return Ok(Some(Err(failure))),
                Some(_) => tokio::time::sleep(LOOK_SOON).await,
            }
        }
        Ok(None)
    }

    /// Keeps the tokens alive until `shutdown`.
    pub(crate) async fn keep(&self, shutdown: CancellationToken) {
        loop {
            let mut pause = LOOK;
            for (name, connection) in &self.connections {
                match self.look_after(name, connection).await {
                    Ok(true) => {}
                    Ok(false) => pause = LOOK_SOON,
                    Err(error) => {
                        tracing::warn!(%error, connection = name, "the connection's token could not be looked after");
                        pause = Duration::from_secs(1);
                    }
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.look.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// `true`: the connection has a token that will do for a while, or none can be had now.
    async fn look_after(&self, name: &str, connection: &Connection) -> Result<bool, Trouble> {
        self.seed(name, connection).await?;
        let Some(stored) = store::load(&self.db, name).await? else { return Ok(true) };
        self.know(name, stored.organization_id.clone());
        let lives = stored.lives_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(Duration::ZERO, Duration::from_millis);
        let usable = stored.access_token.is_some() && lives > TOO_OLD;
        if usable {
            self.take_up(name, &stored, lives)?;
        }
        if usable && lives > EARLY {
            return Ok(true);
        }
        if !store::take_refresh(&self.db, &stored.fingerprint, &self.worker, stored.access_token.as_deref()).await? {
            return Ok(usable || stored.failure.is_some());
        }
        self.mint(name, connection, &stored).await?;
        Ok(false)
    }

    /// A refresh token in the file counts until one is stored, or if it differs from the one the connection was first seeded with.
    async fn seed(&self, name: &str, connection: &Connection) -> Result<(), Trouble> {
        let Some(given) = &connection.from_file else { return Ok(()) };
        let fingerprint = secrets::hash_token(given.expose_secret());
        let Some((seeded, current)) = store::seeded(&self.db, name).await? else { return Ok(()) };
        // Once in a process's life: replicas with the older file must not bring back the older token.
        if !self.seeded.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned()) {
            return Ok(());
        }
        if seeded.as_deref() == Some(fingerprint.as_str()) || (seeded.is_none() && current.is_some()) {
            return Ok(());
        }
        let sealed = self.keys.encrypt(given, &fingerprint)?;
        let mut tx = self.db.begin().await?;
        store::seed(&mut tx, name, &fingerprint, &sealed, true).await?;
        tx.commit().await?;
        Ok(())
    }

    fn take_up(&self, name: &str, stored: &store::Stored, lives: Duration) -> Result<(), Trouble> {
        let sealed = stored.access_token.clone().unwrap_or_default();
        let held = |live: &Live| live.sealed == sealed;
        if self.live.read().unwrap_or_else(PoisonError::into_inner).get(name).is_some_and(held) {
            return Ok(());
        }
        let refused = self.refused.read().unwrap_or_else(PoisonError::into_inner).get(name).map(|r| (r.sealed == sealed, r.at));
        if refused.is_some_and(|(this, _)| this) {
            return Ok(()); // read from the table before it was dropped there
        }
        let secret = self.keys.decrypt(&sealed, &stored.fingerprint)?;
        let live = Live {
            token: AccessToken::new(secret, stored.api_domain.clone()),
            fingerprint: stored.fingerprint.clone(),
            sealed,
            expires_at: Instant::now() + lives,
            refused_before: refused.map(|(_, at)| at),
        };
        self.live.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), live);
        self.changed.notify_waiters();
        Ok(())
    }

    async fn mint(&self, name: &str, connection: &Connection, stored: &store::Stored) -> Result<(), Trouble> {
        let asked_at = Moment::now();
        let timeout = connection.client.settings().request_timeout;
        let Some(place) = mints::take(&self.db, &stored.fingerprint, timeout).await? else {
            let why = "ten tokens were minted in ten minutes; Zoho allows no more";
            store::refresh_failed(&self.db, &stored.fingerprint, &self.worker, why, Duration::from_secs(10)).await?;
            return Ok(());
        };
        let refresh_token = self.keys.decrypt(&stored.refresh_token, &stored.fingerprint)?;
        let grant = Grant::issued(i64::from(place.number), asked_at, mints::SEND_WITHIN);
        match oauth::refresh(grant, &connection.client, &refresh_token).await {
            Ok(answer) => {
                let token = answer.value;
                let sealed = self.keys.encrypt(token.access.secret(), &stored.fingerprint)?;
                let mut tx = self.db.begin().await?;
                store::refreshed(&mut tx, &stored.fingerprint, &self.worker, &sealed, token.expires_in, token.access.api_domain()).await?;
                tx.commit().await?;
                tracing::info!(connection = name, lives_s = token.expires_in.as_secs(), "minted an access token");
            }
            Err(failed) => {
                if matches!(failed.evidence.sent, sluice_zoho::Sent::Nothing) {
                    mints::give_back(&self.db, &stored.fingerprint, place).await?;
                }
                let retry_in = match &failed.error {
                    oauth::Error::Throttled { retry_after } => *retry_after,
                    oauth::Error::Unavailable { .. } | oauth::Error::NotSent(_) => Duration::from_secs(5),
                    oauth::Error::Client { .. } | oauth::Error::InvalidCode => NOT_ACCEPTED,
                    oauth::Error::AccessDenied
                    | oauth::Error::Malformed { .. }
                    | oauth::Error::UntrustedHost { .. }
                    | oauth::Error::Refused { .. } => Duration::from_secs(60),
                };
                tracing::warn!(connection = name, error = %failed.error, retry_s = retry_in.as_secs(), "no access token; the connection's work waits");
                store::refresh_failed(&self.db, &stored.fingerprint, &self.worker, &failed.error.to_string(), retry_in).await?;
                if let Some(reason) = not_accepted(&failed.error)
                    && pause::without_token(&self.db, &stored.fingerprint, &reason).await?
                {
                    let reason = reason.replace("{connection}", name);
                    tracing::error!(connection = name, reason, "paused the connection; its records wait");
                }
            }
        }
        Ok(())
    }
}

/// What a person is to do where Zoho will not accept the refresh token or the client, however often it is asked.
fn not_accepted(error: &oauth::Error) -> Option<String> {
    let todo = match error {
        oauth::Error::InvalidCode => {
            "Give it a new refresh token: `sluice auth {connection}`, or refresh_token in [connections.{connection}] and a restart of the workers"
        }
        oauth::Error::Client { .. } => "Mend [connections.{connection}] and restart the workers; it goes on within five minutes",
        _ => return None,
    };
    Some(format!("{error}. {todo}"))
}

/// Stores the refresh token that `sluice auth` got for a connection; replicas use it from their next look on.
///
/// # Errors
/// When it cannot be encrypted, the database does not answer, or the connection is not published.
pub async fn store_refresh_token(db: &Db, keys: &KeyRing, connection: &str, refresh_token: &SecretString) -> anyhow::Result<()> {
    let fingerprint = secrets::hash_token(refresh_token.expose_secret());
    anyhow::ensure!(
        store::seeded(db, connection).await?.is_some(),
        "connection {connection} is not published yet; run `sluice attach` first"
    );
    let sealed = keys.encrypt(refresh_token, &fingerprint)?;
    let mut tx = db.begin().await?;
    store::seed(&mut tx, connection, &fingerprint, &sealed, false).await?;
    tx.commit().await?;
    Ok(())
}
