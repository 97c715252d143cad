//! The rows, and the people who go on editing them.
//!
//! Edits choose among few values, the first ones included: a row that went back to what it was while its write was lost must end up in
//! Zoho as it is, too.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use sluice_core::db::Db;

/// How many of each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) products: i64,
    pub(crate) plans: i64,
    pub(crate) customers: i64,
    pub(crate) subscriptions: i64,
    pub(crate) invoices: i64,
    pub(crate) payments: i64,
    pub(crate) contacts: i64,
}

impl Counts {
    /// So many records of Billing, and a quarter as many contacts of the CRM.
    pub(crate) fn of(records: i64) -> Self {
        let few = (records / 200).max(1);
        let (customers, subscriptions, invoices) = ((records / 5).max(1), records / 5, records * 3 / 10);
        let payments = records - 2 * few - customers - subscriptions - invoices;
        Self { products: few, plans: few, customers, subscriptions, invoices, payments: payments.max(0), contacts: records / 4 }
    }

    pub(crate) fn total(&self) -> i64 {
        self.products + self.plans + self.customers + self.subscriptions + self.invoices + self.payments + self.contacts
    }
}

/// How many rows a statement is about.
type Of = fn(&Counts) -> i64;

/// `$1` exclusive, `$2` inclusive: which numbers; then how many parents there are to choose from.
macro_rules! numbered {
    ($sql:literal) => {
        concat!(
            "with n (few, customers, invoices) as (values ($3::bigint, $4::bigint, $5::bigint)) ",
            $sql,
            " from n, generate_series($1::bigint + 1, $2::bigint) i"
        )
    };
}

const INSERTS: &[(&str, Of)] = &[
    (numbered!("insert into products (code, name) select 'p' || i, 'Product ' || i"), |c| c.products),
    (
        numbered!("insert into plans (code, product_code, name, price) select 'plan' || i, 'p' || 1 + i % few, 'Plan ' || i, 100 + i"),
        |c| c.plans,
    ),
    (
        numbered!(
            "insert into customers (id, account_number, name, email, phone, street, city)
             select i, 'ACC-' || i, 'Customer ' || i, 'customer' || i || '@example.com', 'first', i || ' Harbour Road', 'first'"
        ),
        |c| c.customers,
    ),
    (
        numbered!(
            "insert into subscriptions (id, customer_id, plan_code, starts_on)
             select i, 1 + (i * 7) % customers, 'plan' || 1 + i % few, date '2026-01-01' + (i % 28)::int"
        ),
        |c| c.subscriptions,
    ),
    (
        numbered!(
            "insert into invoices (id, customer_id, number, issued_on, due_on, notes, lines)
             select i, 1 + i % customers, 'M-' || i, date '2026-02-01', date '2026-02-15', 'first',
                    jsonb_build_array(jsonb_build_object('product', 'p' || 1 + i % few, 'description', 'Line', 'price', 50 + i % 10, 'quantity', 2))"
        ),
        |c| c.invoices,
    ),
    (
        // Each pays a part of an invoice of its own customer; every tenth is credit on the account.
        numbered!(
            "insert into payments (id, customer_id, invoice_id, amount, paid_on, note)
             select i, (select customer_id from invoices v where v.id = 1 + i % n.invoices), case when i % 10 > 0 then 1 + i % n.invoices end,
                    10 + i % 40, date '2026-02-10', 'first'"
        ),
        |c| c.payments,
    ),
    (
        numbered!(
            "insert into contacts (id, last_name, email, phone, note)
             select i, 'Contact ' || i, 'contact' || i || '@example.com', 'first', 'first'"
        ),
        |c| c.contacts,
    ),
];

/// Rows that one transaction inserts.
const AT_ONCE: i64 = 250;

/// Inserts all rows, parents before children.
pub(crate) async fn insert(db: &Db, counts: &Counts) -> Result<(), sqlx::Error> {
    for (sql, count) in INSERTS {
        let mut from = 0;
        while from < count(counts) {
            let to = (from + AT_ONCE).min(count(counts));
            let inserting = sqlx::query(*sql).bind(from).bind(to).bind(counts.products).bind(counts.customers).bind(counts.invoices.max(1));
            inserting.execute(db).await?;
            from = to;
        }
    }
    Ok(())
}

const EDITS: &[(&str, Of)] = &[
    ("update products set description = $2 where code = 'p' || $1", |c| c.products),
    ("update customers set phone = $2 where id = $1", |c| c.customers),
    ("update customers set city = $2 where id = $1", |c| c.customers),
    ("update invoices set notes = $2 where id = $1", |c| c.invoices),
    ("update payments set note = $2 where id = $1", |c| c.payments),
    ("update contacts set phone = $2 where id = $1", |c| c.contacts),
    ("update contacts set note = $2 where id = $1", |c| c.contacts),
];
const VALUES: &[&str] = &["first", "second", "third"];

/// Somebody who edits rows, the same ones in the same way for the same seed.
#[derive(Debug)]
pub(crate) struct Editor {
    counts: Counts,
    chance: StdRng,
}

impl Editor {
    pub(crate) fn new(counts: Counts, seed: u64) -> Self {
        Self { counts, chance: StdRng::seed_from_u64(seed) }
    }

    /// Edits one row. Most edits fall on few rows, so that some meet a write under way.
    pub(crate) async fn edit(&mut self, db: &Db) -> Result<(), sqlx::Error> {
        let (sql, count) = EDITS[self.chance.random_range(0..EDITS.len())];
        let value = VALUES[self.chance.random_range(0..VALUES.len())];
        let all = count(&self.counts);
        let last = if self.chance.random_bool(0.5) { all.min(10) } else { all };
        if last > 0 {
            sqlx::query(sql).bind(self.chance.random_range(1..=last)).bind(value).execute(db).await?;
        }
        Ok(())
    }
}
