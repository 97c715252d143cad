//! What must be true when everything has settled. Expected records are built here from the rows, by hand: the mapping under test has no
//! part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use sluice_core::db::Db;

use crate::world::{World, until};

/// What Zoho allows here: calls in any window, calls in flight, tokens in any of its windows.
const CALLS: u64 = 100;
const IN_FLIGHT: u64 = 10;
const MINTS: u64 = 10;

/// Waits until nothing is left to do.
pub(crate) async fn settled(db: &Db, limit: Duration) -> anyhow::Result<()> {
    nothing_but(&[], db, limit).await
}

/// Waits until workers have nothing left to do, where no producer runs.
pub(crate) async fn worked_off(db: &Db, limit: Duration) -> anyhow::Result<()> {
    nothing_but(&["changes"], db, limit).await
}

async fn nothing_but(allowed: &[&str], db: &Db, limit: Duration) -> anyhow::Result<()> {
    let mut quiet = false;
    let waited = until(limit, "everything has settled", async || {
        let nothing_left = left(db).await?.iter().all(|(what, count)| *count == 0 || allowed.contains(&what.as_str()));
        let settled = nothing_left && quiet;
        quiet = nothing_left;
        Ok(settled)
    });
    match waited.await {
        Ok(()) => Ok(()),
        Err(error) => Err(error.context(format!("left: {:?}; stuck: {}", left(db).await?, stuck(db).await?))),
    }
}

/// What is left, by kind. A job that looks again at a repeated create, in five minutes, is no work that is left.
async fn left(db: &Db) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select 'changes', count(*) from sluice.change
         union all select 'jobs', count(*) from sluice.job where lane <> 'reconcile' or run_at < clock_timestamp()
         union all select 'slots', count(*) from sluice.slot
         union all select 'leases', count(*) from sluice.batch
         union all select 'writebacks', count(*) from sluice.local_write",
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().collect())
}

async fn stuck(db: &Db) -> Result<Value, sqlx::Error> {
    sqlx::query_scalar(
        "select coalesce(jsonb_agg(to_jsonb(s)), '[]') from
         (select sync, key, state, due_at - clock_timestamp() as due_in, tries, failures, deaths, waiting_sync, waiting_key, last_error from sluice.slot order by id limit 20) s",
    )
    .fetch_one(db)
    .await
}

/// Everything that must hold at the end: records, letters, counters, links, limits.
pub(crate) async fn holds(world: &World) -> anyhow::Result<()> {
    let mut wrong = records(world).await?;
    wrong.extend(tables(&world.db).await?);
    wrong.extend(limits(&world.stats().await?));
    anyhow::ensure!(
        wrong.is_empty(),
        "{} things are wrong:\n{}",
        wrong.len(),
        wrong.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
    );
    Ok(())
}

/// Each row once over there, as it is now, and nothing besides.
async fn records(world: &World) -> anyhow::Result<Vec<String>> {
    let mut wrong = Vec::new();
    let mut ids = Ids::default();
    for module in MODULES {
        let rows: Vec<Value> = sqlx::query_scalar(module.rows).fetch_all(&world.db).await?;
        let mut there: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for record in world.records(module.product, module.name).await? {
            there.entry(text(at(&record, module.identity))).or_default().push(record);
        }
        for row in &rows {
            let identity = (module.identity_of)(row);
            let records = there.remove(&identity).unwrap_or_default();
            let [record] = records.as_slice() else {
                wrong.push(format!("{} {identity}: {} records instead of one", module.name, records.len()));
                continue;
            };
            let id = text(&record[module.id]);
            if text(&row["zoho_id"]) != id || row["zoho_status"] != "synced" {
                wrong.push(format!("{} {identity}: the row says {} and {}, not {id}", module.name, row["zoho_id"], row["zoho_status"]));
            }
            for (path, expected) in (module.expected)(row, &ids) {
                let found = at(record, path);
                if text(found) != text(&expected) {
                    wrong.push(format!("{} {identity}: {path} is {found}, not {expected}", module.name));
                }
            }
            ids.0.insert((module.name, text(&row["key"])), id);
        }
        wrong.extend(there.keys().map(|identity| format!("{}: {identity} belongs to no row", module.name)));
    }
    Ok(wrong)
}

/// (module, local key) → Zoho id.
#[derive(Default)]
struct Ids(BTreeMap<(&'static str, String), String>);

impl Ids {
    fn of(&self, module: &'static str, key: &Value) -> Value {
        self.0.get(&(module, text(key))).map_or(Value::Null, |id| json!(id))
    }
}

struct Module {
    product: &'static str,
    name: &'static str,
    id: &'static str,
    /// Where a record says whose it is, and what it says there.
    identity: &'static str,
    identity_of: fn(&Value) -> String,
    rows: &'static str,
    expected: fn(&Value, &Ids) -> Vec<(&'static str, Value)>,
}

/// Parents first.
const MODULES: &[Module] = &[
    Module {
        product: "billing",
        name: "products",
        id: "product_id",
        identity: "name",
        identity_of: |row| text(&row["name"]),
        rows: "select to_jsonb(t) || jsonb_build_object('key', code) from products t",
        expected: |row, _| vec![("description", row["description"].clone())],
    },
    Module {
        product: "billing",
        name: "plans",
        id: "plan_code",
        identity: "plan_code",
        identity_of: |row| text(&row["code"]),
        rows: "select to_jsonb(t) || jsonb_build_object('key', code) from plans t",
        expected: |row, ids| {
            vec![
                ("name", row["name"].clone()),
                ("product_id", ids.of("products", &row["product_code"])),
                ("recurring_price", row["price"].clone()),
                ("interval", json!(1)),
                ("interval_unit", json!("months")),
            ]
        },
    },
    Module {
        product: "billing",
        name: "customers",
        id: "customer_id",
        identity: "custom_field_hash.cf_sluice_key",
        identity_of: |row| format!("customers:{}", text(&row["id"])),
        rows: "select to_jsonb(t) || jsonb_build_object('key', id) from customers t",
        expected: |row, _| {
            vec![
                ("display_name", row["name"].clone()),
                ("email", row["email"].clone()),
                ("phone", row["phone"].clone()),
                ("billing_address.street", row["street"].clone()),
                ("billing_address.city", row["city"].clone()),
                ("custom_field_hash.cf_account_number", row["account_number"].clone()),
            ]
        },
    },
    Module {
        product: "billing",
        name: "subscriptions",
        id: "subscription_id",
        identity: "reference_id",
        identity_of: |row| format!("subscriptions:{}", text(&row["id"])),
        rows: "select to_jsonb(t) || jsonb_build_object('key', id) from subscriptions t",
        expected: |row, ids| {
            vec![
                ("customer_id", ids.of("customers", &row["customer_id"])),
                ("plan_code", row["plan_code"].clone()),
                ("starts_at", row["starts_on"].clone()),
                ("auto_collect", json!(false)),
            ]
        },
    },
    Module {
        product: "billing",
        name: "invoices",
        id: "invoice_id",
        identity: "reference_number",
        identity_of: |row| format!("invoices:{}", text(&row["id"])),
        rows: "select to_jsonb(t) || jsonb_build_object('key', id) from invoices t",
        expected: |row, ids| {
            vec![
                ("customer_id", ids.of("customers", &row["customer_id"])),
                ("invoice_number", row["number"].clone()),
                ("date", row["issued_on"].clone()),
                ("due_date", row["due_on"].clone()),
                ("notes", row["notes"].clone()),
                ("invoice_items.1", Value::Null),
                ("invoice_items.0.product_id", ids.of("products", &row["lines"][0]["product"])),
                ("invoice_items.0.description", row["lines"][0]["description"].clone()),
                ("invoice_items.0.price", row["lines"][0]["price"].clone()),
                ("invoice_items.0.quantity", row["lines"][0]["quantity"].clone()),
            ]
        },
    },
    Module {
        product: "billing",
        name: "payments",
        id: "payment_id",
        identity: "reference_number",
        identity_of: |row| format!("payments:{}", text(&row["id"])),
        rows: "select to_jsonb(t) || jsonb_build_object('key', id) from payments t",
        expected: |row, ids| {
            let (invoice, applied) = match &row["invoice_id"] {
                Value::Null => (Value::Null, Value::Null),
                key => (ids.of("invoices", key), row["amount"].clone()),
            };
            vec![
                ("customer_id", ids.of("customers", &row["customer_id"])),
                ("amount", row["amount"].clone()),
                ("date", row["paid_on"].clone()),
                ("description", row["note"].clone()),
                ("payment_mode", json!("cash")),
                ("invoices.1", Value::Null),
                ("invoices.0.invoice_id", invoice),
                ("invoices.0.amount_applied", applied),
            ]
        },
    },
    Module {
        product: "crm",
        name: "Contacts",
        id: "id",
        identity: "Email",
        identity_of: |row| text(&row["email"]),
        rows: "select to_jsonb(t) || jsonb_build_object('key', id) from contacts t",
        expected: |row, _| {
            vec![("Last_Name", row["last_name"].clone()), ("Phone", row["phone"].clone()), ("Description", row["note"].clone())]
        },
    },
];

/// No letters, no leftovers, counters that agree with what they count.
async fn tables(db: &Db) -> anyhow::Result<Vec<String>> {
    let letters: Vec<Value> = sqlx::query_scalar("select to_jsonb(d) - 'history' from sluice.dead_letter d").fetch_all(db).await?;
    let mut wrong: Vec<String> = letters.iter().map(|letter| format!("dead letter: {letter}")).collect();
    let counters: Vec<Value> = sqlx::query_scalar(
        "select to_jsonb(c) from sluice.sync_counter c
         where sync <> '' and (pending, running, retrying, waiting, failed) <> (0, 0, 0, 0, 0)
            or linked <> (select count(*) from sluice.link l where l.sync = c.sync and l.zoho_id is not null)",
    )
    .fetch_all(db)
    .await?;
    wrong.extend(counters.iter().map(|counter| format!("counter: {counter}")));
    let intents: Vec<Value> = sqlx::query_scalar(
        "select jsonb_build_array(sync, key, zoho_id, creates) from sluice.link where zoho_id is null or create_sent_at is not null or creates > 0",
    )
    .fetch_all(db)
    .await?;
    wrong.extend(intents.iter().map(|link| format!("link not settled: {link}")));
    let jobs: i64 = sqlx::query_scalar("select count(*) from sluice.slot_job").fetch_one(db).await?;
    if jobs != 0 {
        wrong.push(format!("{jobs} jobs belong to no slot"));
    }
    Ok(wrong)
}

/// What Zoho saw: never too much, nothing that it does not know.
fn limits(stats: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let most = |figures: &Value, name: &str| figures[name].as_u64().unwrap_or(u64::MAX);
    for (scope, figures) in stats["scopes"].as_object().into_iter().flatten().filter(|(scope, _)| *scope != "oauth") {
        if most(figures, "most_in_window") > CALLS || most(figures, "most_in_flight") > IN_FLIGHT {
            wrong.push(format!("{scope}: {figures}"));
        }
    }
    if most(&stats["tokens"], "most_in_window") > MINTS || stats["tokens"]["throttled"] != 0 {
        wrong.push(format!("tokens: {}", stats["tokens"]));
    }
    for name in ["violations", "unknown_operations", "unknown_parameters", "ignored_fields"] {
        let empty = stats[name].as_object().is_none_or(serde_json::Map::is_empty) && stats[name].as_array().is_none_or(Vec::is_empty);
        if !empty {
            wrong.push(format!("{name}: {} {}", stats[name], stats["violation_list"]));
        }
    }
    wrong
}

/// `invoices.0.amount`: by name into objects, by position into lists.
fn at<'v>(record: &'v Value, path: &str) -> &'v Value {
    path.split('.').fold(record, |value, step| match step.parse::<usize>() {
        Ok(position) if value.is_array() => &value[position],
        _ => &value[step],
    })
}

/// Numbers by value, however they are written; nothing is nothing.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string()),
        other => other.to_string(),
    }
}

/// Figures of a run.
pub(crate) async fn figures(world: &World, kills: usize, seconds: u64) -> anyhow::Result<String> {
    let stats = world.stats().await?;
    let scopes: Vec<String> = stats["scopes"]
        .as_object()
        .context("no scopes")?
        .iter()
        .map(|(scope, s)| {
            format!("{scope}: {} calls, at most {} in a window and {} in flight", s["calls"], s["most_in_window"], s["most_in_flight"])
        })
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let rescued: i64 = sqlx::query_scalar("select count(distinct batch) from sluice.attempt where reason = 'the worker died'")
        .fetch_one(&world.db)
        .await?;
    Ok(format!(
        "{seconds} s, {kills} kills, {rescued} batches taken back from the dead; {}; tokens minted {}; faults {}",
        scopes.join("; "),
        stats["tokens"]["minted"],
        stats["faults"]
    ))
}
