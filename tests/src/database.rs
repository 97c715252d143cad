//! One database per test, copied from a template that is migrated once.
//!
//! The server is private to the test process, without durability, and ends with it; `SLUICE_TEST_DATABASE_URL` names another one
//! (a superuser's address) to use instead. Templates carry the hash of the migrations, so processes can share a server.

use sha2::{Digest, Sha256};
use sluice_core::db::dynamic::{self, Ident, Sql};
use sluice_core::db::{Db, Settings, migrate};
use sluice_core::postgres::{self, DataDir, Options, Server};
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use url::Url;

const ENVIRONMENT: &str = "SLUICE_TEST_DATABASE_URL";

/// The server of this process, and the template's name.
struct Shared {
    /// Of the database from which others are created and dropped.
    url: Url,
    template: Ident,
    /// None: the environment names the server. Never dropped; its guard notices the end of this process.
    _server: Option<Server>,
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

/// A migrated database of its own for one test; dropped at the test's end, also when the test panics.
#[derive(Debug)]
pub struct TestDb {
    name: String,
    url: Url,
    maintenance: Url,
    db: Db,
}

impl TestDb {
    /// Copies the template.
    ///
    /// # Panics
    /// When there is no PostgreSQL, or a migration fails.
    pub async fn new() -> Self {
        let shared = SHARED.get_or_init(share).await;
        let name = format!("test_{}", uuid::Uuid::new_v4().simple());
        let sql = Sql::new("create database ").ident(&Ident::name(&name)).text(" template ").ident(&shared.template);
        execute(&shared.url, sql).await.expect("a copy of the template");
        let url = with_database(&shared.url, &name);
        let db = Db::connect(Settings::new(url.as_str())).await.expect("the new database");
        Self { name, url, maintenance: shared.url.clone(), db }
    }

    /// The address, of a superuser.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }

    /// A handle with four connections, direct.
    pub fn db(&self) -> &Db {
        &self.db
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let maintenance = self.maintenance.clone();
        let sql = Sql::new("drop database if exists ").ident(&Ident::name(&self.name)).text(" with (force)");
        // A test's runtime cannot be waited for inside itself, so another thread brings its own.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(execute(&maintenance, sql)).map_err(std::io::Error::other)
        });
        if let Ok(Err(error)) = dropping.join() {
            eprintln!("a test's database was not dropped: {error}");
        }
    }
}

async fn share() -> Shared {
    let (url, server) = match std::env::var(ENVIRONMENT) {
        Ok(url) if !url.is_empty() => (url, None),
        _ => {
            let settings = vec![("max_connections".to_owned(), "400".to_owned())];
            let server = postgres::start(Options { data: DataDir::Temporary, durable: false, settings }).await;
            let server = server.expect("a PostgreSQL server for the tests");
            (server.url().to_owned(), Some(server))
        }
    };
    let url = Url::parse(&url).expect("the address of the test server");
    let template = make_template(&url).await.expect("the template database");
    Shared { url, template, _server: server }
}

/// Creates and migrates the template unless it exists. It gets its name when it is whole, so others never copy half of it.
async fn make_template(url: &Url) -> anyhow::Result<Ident> {
    let mut hash = Sha256::new();
    for migration in migrate::MIGRATIONS.iter() {
        hash.update(&migration.checksum);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let name = format!("sluice_template_{hash}");
    let template = Ident::name(&name);
    let mut connection = PgConnection::connect(url.as_str()).await?;
    // One process makes it, the others wait; the lock ends with the connection.
    sqlx::query("select pg_advisory_lock(7308895)").execute(&mut connection).await?;
    let exists = sqlx::query("select from pg_database where datname = $1").bind(&name).fetch_optional(&mut connection).await?;
    if exists.is_none() {
        let young = format!("young_{hash}");
        let ident = Ident::name(&young);
        for sql in [Sql::new("drop database if exists ").ident(&ident).text(" with (force)"), Sql::new("create database ").ident(&ident)] {
            dynamic::query(sql).execute(&mut connection).await?;
        }
        let db = Db::connect(Settings::new(with_database(url, &young).as_str())).await?;
        migrate::run(&db).await?;
        db.close().await;
        for sql in [
            // Nobody may connect, or it could not be copied at that moment.
            Sql::new("alter database ").ident(&ident).text(" with allow_connections false"),
            Sql::new("alter database ").ident(&ident).text(" rename to ").ident(&template),
        ] {
            dynamic::query(sql).execute(&mut connection).await?;
        }
    }
    connection.close().await?;
    Ok(template)
}

async fn execute(url: &Url, sql: Sql) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url.as_str()).await?;
    dynamic::query(sql).execute(&mut connection).await?;
    connection.close().await
}

fn with_database(url: &Url, name: &str) -> Url {
    let mut url = url.clone();
    url.set_path(name);
    url
}
