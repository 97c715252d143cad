//! A database with a few tables, a configuration over them, published and attached.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_core::config::{Config, Environment};
use sluice_core::db::Db;
use sluice_core::db::dynamic;
use sluice_producer::capture;
use sluice_producer::changes::{Drained, drain_once};
use sluice_producer::definitions::Definitions;
use sluice_producer::publish::{self, Published};
use sluice_sync::read::Reader;
use sluice_tests::TestDb;

pub(crate) const TABLES: &str = "
    create table public.customers (id bigint primary key, name text, email text, note text);
    create table public.addresses (id bigint primary key, customer_id bigint, street text);
    create table public.orders (id bigint, placed date, total numeric, primary key (id, placed)) partition by range (placed);
    create table public.orders_old partition of public.orders for values from ('2020-01-01') to ('2025-01-01');
    create table public.orders_new partition of public.orders for values from ('2025-01-01') to ('2035-01-01');";

pub(crate) const CUSTOMERS: &str = r#"
    [syncs.customers]
    connection = "main"
    table = "public.customers"
    key = "id"
    module = "billing/customers"
    fields = { display_name = "name", email = "email" }
    [[syncs.customers.watch]]
    table = "public.addresses"
    key = "this.customer_id"
"#;

pub(crate) const ORDERS: &str = r#"
    [syncs.orders]
    connection = "main"
    table = "public.orders"
    key = ["id", "placed"]
    module = "billing/invoices"
    fields = { invoice_number = { sql = "this.id::text || this.placed" }, total = "total" }
"#;

pub(crate) struct Setting {
    pub(crate) test: TestDb,
    pub(crate) definitions: Definitions,
    pub(crate) reader: Reader,
}

/// A configuration with one connection and these sections.
pub(crate) fn config(sections: &str) -> Config {
    let text = format!(
        r#"
        [connections.main]
        client_id = "id"
        client_secret = "secret"
        refresh_token = "token"
        organization_id = "10"
        {sections}"#
    );
    let nothing: BTreeMap<String, String> = BTreeMap::new();
    Config::parse(&text, &nothing.into_iter().collect::<Environment>()).unwrap()
}

impl Setting {
    /// Tables, published and attached.
    pub(crate) async fn of(sections: &str) -> Self {
        let test = TestDb::new().await;
        dynamic::script(TABLES.to_owned()).execute(test.db()).await.unwrap();
        let config = config(sections);
        publish::publish(test.db(), &config, &publish::Options::default()).await.unwrap();
        let definitions = Definitions::compile(test.db(), &config).await.unwrap();
        capture::attach(test.db(), &definitions, &[], Duration::from_secs(5)).await.unwrap();
        let reader = Reader::new(test.db().clone(), None);
        Self { test, definitions, reader }
    }

    pub(crate) fn db(&self) -> &Db {
        self.test.db()
    }

    pub(crate) async fn run(&self, sql: &str) {
        dynamic::script(sql.to_owned()).execute(self.db()).await.unwrap();
    }

    pub(crate) async fn drain(&self) -> Drained {
        drain_once(self.db(), &self.reader, &self.definitions).await.unwrap()
    }

    /// The jobs in the intake: sync and key, sorted.
    pub(crate) async fn jobs(&self) -> Vec<(String, String)> {
        sqlx::query_as("select sync, key from sluice.job order by sync, key").fetch_all(self.db()).await.unwrap()
    }

    pub(crate) async fn count(&self, what: &'static str) -> i64 {
        sqlx::query_scalar(what).fetch_one(self.db()).await.unwrap()
    }

    /// What a worker leaves after it pushed the row as it is.
    pub(crate) async fn link(&self, key: &str, name: &str, email: Option<&str>) {
        let fields = serde_json::json!({
            "display_name": {"local": name, "zoho": name, "confirmed": true}, "email": {"local": email, "zoho": email, "confirmed": true},
        });
        sqlx::query("insert into sluice.link (sync, key, zoho_id, fields, synced_at) values ('customers', $1, 'z' || $1, $2, now())")
            .bind(key)
            .bind(fields)
            .execute(self.db())
            .await
            .unwrap();
    }
}

pub(crate) fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(sync, key)| ((*sync).to_owned(), (*key).to_owned())).collect()
}

pub(crate) fn names(published: &Published) -> Vec<String> {
    published.changes.iter().map(|change| format!("{} {}", change.what, change.name)).collect()
}
