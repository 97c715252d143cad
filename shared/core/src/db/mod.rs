//! Access to the database, direct or through a transaction pooler, with one executor for both.
//!
//! Everything runs through [`Db`] and [`Tx`]: both are sqlx executors, so checked queries read the same in either mode. Nothing
//! here may rely on the state of a session: no `set` but `set local`, no advisory lock, no `listen` (see [`listen`]), since
//! behind a pooler the next statement may meet another server connection.

pub mod dynamic;
mod executor;
pub mod listen;
pub mod migrate;
mod refusal;
mod types;

pub use refusal::{MESSAGE_MAX, cut, message, passes};

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool, Postgres};

/// How long a statement waits for a connection of the pool.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(10);

/// What stands between us and the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Pooler {
    /// Nothing, or a pooler that gives each client a server connection of its own.
    #[default]
    None,
    /// A pooler that changes the server connection between transactions (pgbouncer, Supavisor).
    Transaction,
}

/// How to reach the database.
#[derive(Debug, Clone)]
pub struct Settings {
    /// For everything but LISTEN and migrations.
    pub url: SecretString,
    /// A direct connection for LISTEN and migrations. None: `url`.
    pub listen_url: Option<SecretString>,
    /// What `url` leads through.
    pub pooler: Pooler,
    /// The most connections this process opens at once, LISTEN and migrations apart.
    pub max_connections: u32,
    /// Shown in `pg_stat_activity`, unless the URL names one.
    pub application_name: String,
}

impl Settings {
    /// Direct, with four connections.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            listen_url: None,
            pooler: Pooler::None,
            max_connections: 4,
            application_name: "sluice".to_owned(),
        }
    }

    /// Whether nothing ever listens: a transaction pooler, and no direct address. Then nobody is to be notified either.
    pub fn only_polls(&self) -> bool {
        self.pooler == Pooler::Transaction && self.listen_url.is_none()
    }

    /// For the pool: through the pooler, if there is one.
    fn pooled(&self) -> Result<PgConnectOptions, sqlx::Error> {
        let options = self.parse(&self.url)?;
        Ok(match self.pooler {
            Pooler::None => options,
            // A prepared statement would outlive the server connection that knows it, and pgbouncer refuses startup parameters
            // that it does not track.
            Pooler::Transaction => options.statement_cache_capacity(0).extra_float_digits(None),
        })
    }

    /// For what needs a session: to the server itself, as far as the settings name it.
    fn direct(&self) -> Result<PgConnectOptions, sqlx::Error> {
        match &self.listen_url {
            Some(url) => self.parse(url),
            None => self.pooled(),
        }
    }

    fn parse(&self, url: &SecretString) -> Result<PgConnectOptions, sqlx::Error> {
        let options: PgConnectOptions = url.expose_secret().parse()?;
        Ok(match options.get_application_name() {
            Some(_) => options,
            None => options.application_name(&self.application_name),
        })
    }
}

/// A handle to the database; clones share one pool.
///
/// `&Db` is an executor: each statement runs on any connection. Behind a transaction pooler it runs unnamed and between BEGIN
/// and COMMIT, and its rows are read whole before the first is handed out. Statements that cannot run in a transaction
/// (`vacuum`, `create database`) therefore fail there.
#[derive(Debug, Clone)]
pub struct Db {
    pool: PgPool,
    settings: Settings,
}

/// A transaction; rolled back when it is dropped. `&mut Tx` is an executor.
///
/// Behind a transaction pooler, a statement that is the first to meet a type created *after* its connection was opened fails
/// with code 26000; so does one that meets a built-in type without a Rust counterpart, such as `regclass`. Cast those to text.
#[derive(Debug)]
#[must_use = "a transaction that is not committed is rolled back"]
pub struct Tx {
    inner: sqlx::Transaction<'static, Postgres>,
    unnamed: bool,
}

impl Db {
    /// Opens the pool and proves that the database answers.
    ///
    /// # Errors
    /// A malformed address, a database that cannot be reached or refuses us, or none within 10 s.
    pub async fn connect(settings: Settings) -> Result<Self, sqlx::Error> {
        let options = settings.pooled()?;
        let pooler = settings.pooler;
        let opened = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(ACQUIRE_LIMIT)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match pooler {
                        Pooler::None => Ok(()),
                        Pooler::Transaction => types::learn(connection).await,
                    }
                })
            })
            .connect_with(options.clone())
            .await;
        match opened {
            Ok(pool) => Ok(Self { pool, settings }),
            Err(sqlx::Error::PoolTimedOut) => Err(reason(&options).await),
            Err(error) => Err(error),
        }
    }

    /// How this handle reaches the database.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Starts a transaction.
    ///
    /// # Errors
    /// No connection within 10 s, or the database is gone.
    pub async fn begin(&self) -> Result<Tx, sqlx::Error> {
        Ok(Tx { inner: self.pool.begin().await?, unnamed: self.unnamed() })
    }

    /// Starts a read-only transaction for expressions of the configuration: each statement may take `limit`, and runs with the
    /// rights of `role` if one is named.
    ///
    /// # Errors
    /// As [`Db::begin`], and a role that does not exist or that we are no member of.
    pub async fn begin_read_only(&self, role: Option<&str>, limit: Duration) -> Result<Tx, sqlx::Error> {
        let mut tx = Tx { inner: self.pool.begin_with("begin read only").await?, unnamed: self.unnamed() };
        // `set local` takes no parameters; set_config(…, true) is the same and does.
        sqlx::query("select set_config('statement_timeout', $1, true)").bind(format!("{}ms", limit.as_millis())).execute(&mut tx).await?;
        if let Some(role) = role {
            sqlx::query("select set_config('role', $1, true)").bind(role).execute(&mut tx).await?;
        }
        Ok(tx)
    }

    /// Closes all connections, waiting for those in use.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    fn unnamed(&self) -> bool {
        self.settings.pooler == Pooler::Transaction
    }
}

/// Why no connection can be opened: a pool only says that it waited in vain.
async fn reason(options: &PgConnectOptions) -> sqlx::Error {
    match tokio::time::timeout(Duration::from_secs(3), PgConnection::connect_with(options)).await {
        Ok(Err(error)) => error,
        Ok(Ok(_)) | Err(_) => sqlx::Error::PoolTimedOut,
    }
}

impl Tx {
    /// Commits.
    ///
    /// # Errors
    /// A deferred constraint, or the connection was lost; then it is unknown whether the transaction was committed.
    pub async fn commit(self) -> Result<(), sqlx::Error> {
        self.inner.commit().await
    }

    /// Rolls back, and waits until that is done.
    ///
    /// # Errors
    /// The connection was lost, which rolls back as well.
    pub async fn rollback(self) -> Result<(), sqlx::Error> {
        self.inner.rollback().await
    }
}
