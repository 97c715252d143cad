//! A published configuration to test against, and the few steps that every scenario takes.

use std::time::Duration;

use sluice_core::db::dynamic::script;
use sluice_core::db::{Db, Settings};
use sluice_queue::outcome::{Class, Letter, Retry};
use sluice_queue::settle::{Create, Health};
use sluice_queue::{Batch, Claim, Outcome, Report, Settlement, store};
use sluice_tests::TestDb;
use sqlx::postgres::Postgres;
use sqlx::{Decode, Row, Type};

pub(crate) const LEASE: Duration = Duration::from_secs(30);
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const WORKER: &str = "w1:a";

const CONFIGURATION: &str = "
insert into sluice.connection (name, data_center, hash) values ('main', 'com', ''), ('twin', 'com', ''), ('lone', 'com', '');
insert into sluice.sync (name, connection, product, module, relation, key_columns, key_types, direction, lane, batch_max, min_interval, definition, hash, retired_at) values
  ('customers', 'main', 'billing', 'customers', 'public.customers', '{id}', '{bigint}', 'push', 'normal', 100, '2 s', '{}', '', null),
  ('orders', 'main', 'billing', 'invoices', 'public.orders', '{id}', '{bigint}', 'push', 'normal', 100, '0', '{}', '', null),
  ('people', 'main', 'billing', 'contacts', 'public.people', '{id}', '{uuid}', 'both', 'realtime', 1, '0', '{}', '', null),
  ('prices', 'main', 'billing', 'plans', 'public.prices', '{day,code}', '{date,text}', 'push', 'normal', 1, '0', '{}', '', null),
  ('items', 'main', 'billing', 'products', 'public.items', '{id}', '{bigint}', 'pull', 'normal', 1, '0', '{}', '', null),
  ('gone', 'main', 'billing', 'addons', 'public.gone', '{id}', '{bigint}', 'push', 'normal', 1, '0', '{}', '', now()),
  ('shop', 'twin', 'billing', 'customers', 'public.shop', '{id}', '{bigint}', 'push', 'normal', 1, '0', '{}', '', null),
  ('alone', 'lone', 'crm', 'Contacts', 'public.alone', '{id}', '{text}', 'push', 'normal', 100, '0', '{}', '', null);
insert into sluice.budget (data_center, organization_id, scope, cap, call_window, in_flight, heavy) values ('com', '1', 'finance', 100, '60 s', 10, 0), ('com', '2', 'crm', 100, '60 s', 10, 10);
insert into sluice.product (connection, product, budget_id) select c, p, b.id from (values ('main', 'billing', '1'), ('main', 'books', '1'), ('twin', 'billing', '1'), ('lone', 'crm', '2')) v (c, p, o)
  join sluice.budget b on b.organization_id = o;
insert into sluice.place (budget_id, kind) select id, 'window' from sluice.budget, generate_series(1, cap) union all select id, 'in_flight' from sluice.budget, generate_series(1, in_flight);
insert into sluice.place (budget_id, kind) select id, 'heavy' from sluice.budget, generate_series(1, heavy);
insert into sluice.meter (budget_id, product, kind, resets_at) select id, 'billing', 'calls', sluice.next_midnight('UTC', clock_timestamp()) from sluice.budget where scope = 'finance';
insert into sluice.meter (budget_id, product, kind) select id, 'crm', 'credits' from sluice.budget where scope = 'crm';
insert into sluice.shape (connection, product, kind, sync, batch_max) select connection, product, 'push', name, batch_max from sluice.sync where direction <> 'pull';
insert into sluice.shape (connection, product, kind, batch_max) select connection, product, 'call', 1 from sluice.product;
";

/// A migrated database with the configuration above.
pub(crate) struct World {
    pub(crate) test: TestDb,
    pub(crate) db: Db,
    pub(crate) shapes: Vec<i64>,
}

impl World {
    pub(crate) async fn new() -> Self {
        let test = TestDb::new().await;
        let mut settings = Settings::new(test.url());
        settings.max_connections = 24;
        let db = Db::connect(settings).await.unwrap();
        script(CONFIGURATION.into()).execute(&db).await.unwrap();
        let shapes = sqlx::query_scalar("select array_agg(id order by id) from sluice.shape").fetch_one(&db).await.unwrap();
        Self { test, db, shapes }
    }

    /// Sets the first budget's limits, with as many places.
    pub(crate) async fn limit(&self, cap: u32, in_flight: u32, window: &str) {
        self.run(format!(
            "delete from sluice.place where budget_id = 1; update sluice.budget set cap = {cap}, in_flight = {in_flight}, call_window = '{window}' where id = 1;
             insert into sluice.place (budget_id, kind) select 1, 'window' from generate_series(1, {cap}) union all select 1, 'in_flight' from generate_series(1, {in_flight})"
        ))
        .await;
    }

    pub(crate) async fn run(&self, sql: impl Into<String>) {
        let sql = sql.into();
        if let Err(error) = script(sql.clone()).execute(&self.db).await {
            panic!("{sql}: {error}");
        }
    }

    /// The first column of the only row.
    pub(crate) async fn get<T>(&self, sql: impl Into<String>) -> T
    where
        T: for<'r> Decode<'r, Postgres> + Type<Postgres>,
    {
        let sql = sql.into();
        match script(sql.clone()).fetch_one(&self.db).await {
            Ok(row) => row.get::<T, _>(0),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// What the statement is refused with: SQLSTATE and message.
    pub(crate) async fn refused(&self, sql: impl Into<String>) -> (String, String) {
        let sql = sql.into();
        let error = script(sql.clone()).execute(&self.db).await.err().unwrap_or_else(|| panic!("was not refused: {sql}"));
        said(&error)
    }

    pub(crate) async fn push(&self, sync: &str, key: impl std::fmt::Display) -> i64 {
        self.get(format!(
            "insert into sluice.job (kind, args) values ('push', '{{\"sync\": \"{sync}\", \"key\": \"{key}\"}}') returning id"
        ))
        .await
    }

    pub(crate) async fn fold(&self) -> i64 {
        store::fold(&self.db).await.unwrap().jobs
    }

    /// Claims, whatever the grid says: pacing has tests of its own.
    pub(crate) async fn claim(&self) -> Option<Batch> {
        self.claim_as(WORKER).await
    }

    pub(crate) async fn claim_as(&self, worker: &str) -> Option<Batch> {
        self.run("update sluice.budget set grid_at = '-infinity'").await;
        match store::claim(&self.db, worker, &self.shapes, LEASE, TIMEOUT).await.unwrap() {
            Claim::Batch(batch, _grant) => Some(*batch),
            Claim::Wait(_) => None,
        }
    }

    /// Folds and claims what must be there.
    pub(crate) async fn batch(&self) -> Batch {
        self.fold().await;
        self.claim().await.expect("something to claim")
    }

    /// Settles every record of a batch alike.
    pub(crate) async fn settle(&self, batch: &Batch, outcome: Outcome) -> bool {
        self.settle_with(batch, &answered(), |s| Settlement {
            pushed: true,
            create: Create::Settled,
            ..Settlement::new(s, outcome.clone())
        })
        .await
    }

    pub(crate) async fn settle_with(&self, batch: &Batch, report: &Report, each: impl Fn(i64) -> Settlement) -> bool {
        let settlements: Vec<_> = batch.slots.iter().map(|s| each(s.id)).collect();
        store::settle(&self.db, batch.token, WORKER, report, &settlements).await.unwrap()
    }

    pub(crate) async fn result(&self, job: i64) -> Option<String> {
        self.get(format!("select sluice.job_result({job})")).await
    }

    /// Lets the lease of every batch end, and lost writes arrive.
    pub(crate) async fn leases_end(&self) {
        self.run("update sluice.batch set lease_until = clock_timestamp() - interval '1 ms'").await;
    }

    /// Makes every record due that waits for a time.
    pub(crate) async fn time_passes(&self) {
        self.run(
            "update sluice.slot set due_at = clock_timestamp(), not_before = '-infinity' where state = 'available' and due_at < 'infinity'",
        )
        .await;
    }

    /// Everything that waits becomes due and is settled, until nothing is left.
    pub(crate) async fn drain(&self) {
        loop {
            self.time_passes().await;
            let folded = self.fold().await;
            match self.claim().await {
                Some(batch) => assert!(self.settle(&batch, done()).await),
                None if folded == 0 => return,
                None => {}
            }
        }
    }
}

pub(crate) fn said(error: &sqlx::Error) -> (String, String) {
    let error = error.as_database_error().expect("the database's own error");
    (error.code().unwrap().into_owned(), error.message().to_owned())
}

pub(crate) fn done() -> Outcome {
    Outcome::Done { reason: None }
}

pub(crate) fn dead(class: Class) -> Outcome {
    Outcome::Dead(Box::new(Letter::new(class, "no")))
}

/// A failure with a backoff of a minute.
pub(crate) fn failed() -> Outcome {
    Outcome::Retry(Retry { after: Duration::from_secs(60), counts: true, message: "locked".into(), ..Retry::default() })
}

pub(crate) fn answered() -> Report {
    Report { sent: true, answered_in: Some(Duration::from_millis(100)), health: Health::Answered, ..Report::default() }
}

pub(crate) fn unanswered() -> Report {
    Report { sent: true, answered_in: None, health: Health::Unanswered, ..Report::default() }
}

impl World {
    /// Makes one sync's records due that wait for a time, passing over those that somebody holds.
    pub(crate) async fn time_passes_for(&self, sync: &str) {
        self.run(format!("update sluice.slot set due_at = clock_timestamp() where sync = '{sync}' and state = 'available'")).await;
    }
}
