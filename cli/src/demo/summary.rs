//! What the demo did, at its end: records, dead letters with reason and hint, calls made and calls avoided.

use std::collections::BTreeMap;
use std::io;

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use sluice_core::db::Db;

use super::World;
use crate::output::{self, text};

/// The figures of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    recipe: &'static str,
    /// Whether nothing was left to do.
    settled: bool,
    seconds: u64,
    syncs: Vec<Sync>,
    polls: Vec<Poll>,
    dead_letters: Vec<Letter>,
    calls: Calls,
}

#[derive(Debug, Serialize)]
struct Sync {
    sync: String,
    total: u64,
    synced: i64,
    failed: i64,
}

/// What came of the first look at a module, and of later ones.
#[derive(Debug, Serialize)]
struct Poll {
    sync: String,
    seen: i64,
    created: i64,
    updated: i64,
    unchanged: i64,
    failed: i64,
}

#[derive(Debug, Serialize)]
struct Letter {
    id: i64,
    sync: Option<String>,
    key: Option<String>,
    error_class: String,
    field: Option<String>,
    message: String,
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Calls {
    made: u64,
    /// Why no call was needed → how many.
    avoided: BTreeMap<String, i64>,
    /// As the simulated Zoho saw it.
    most_in_window: u64,
    window_seconds: f64,
    cap: u32,
    most_in_flight: u64,
    tokens_minted: u64,
    /// Requests against Zoho's rules.
    violations: u64,
}

impl Summary {
    /// Collects it while database and simulator still run.
    pub(crate) async fn collect(world: &World, recipe: &'static str, settled: bool, seconds: u64) -> anyhow::Result<Self> {
        Ok(Self {
            recipe,
            settled,
            seconds,
            syncs: syncs(&world.db, &world.enqueued).await?,
            polls: polls(&world.db).await?,
            dead_letters: letters(&world.db).await?,
            calls: calls(world).await?,
        })
    }

    /// Prints it for people.
    pub(crate) fn print(&self) -> io::Result<()> {
        if !self.syncs.is_empty() {
            let columns = [text("SYNC", "sync"), text("RECORDS", "total"), text("SYNCED", "synced"), text("DEAD LETTERS", "failed")];
            output::line("")?;
            output::line(&output::table(&columns, &rows(&self.syncs), "nothing was pushed"))?;
        }
        if !self.polls.is_empty() {
            let columns = [
                text("POLLED", "sync"),
                text("SEEN", "seen"),
                text("CREATED", "created"),
                text("UPDATED", "updated"),
                text("UNCHANGED", "unchanged"),
                text("FAILED", "failed"),
            ];
            output::line("")?;
            output::line(&output::table(&columns, &rows(&self.polls), "nothing was polled"))?;
        }
        self.print_letters()?;
        self.print_calls()
    }

    fn print_letters(&self) -> io::Result<()> {
        let mut classes: BTreeMap<&str, Vec<&Letter>> = BTreeMap::new();
        for letter in &self.dead_letters {
            classes.entry(&letter.error_class).or_default().push(letter);
        }
        for (class, letters) in classes {
            output::line(&format!("\nDead letters, {class}: {}", letters.len()))?;
            for letter in letters {
                // Our own messages begin with the field, Zoho's do not.
                let field = letter.field.iter().filter(|field| !letter.message.starts_with(*field)).map(|field| format!("{field}: "));
                let field: String = field.collect();
                let record = [letter.sync.as_deref(), letter.key.as_deref()].into_iter().flatten().collect::<Vec<_>>().join(" ");
                output::line(&format!("  {record}: {field}{}", letter.message))?;
                if let Some(hint) = &letter.hint {
                    output::line(&format!("      → {hint}"))?;
                }
            }
        }
        Ok(())
    }

    fn print_calls(&self) -> io::Result<()> {
        let calls = &self.calls;
        let avoided: Vec<String> = calls.avoided.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        output::line(&format!(
            "\nCalls made: {} in {} s; tokens minted: {}\nCalls avoided: {}\nMost calls in any {} s, as Zoho saw them: {} of {}; most at once: {}; against its rules: {}",
            calls.made,
            self.seconds,
            calls.tokens_minted,
            if avoided.is_empty() { "none".to_owned() } else { avoided.join(", ") },
            calls.window_seconds,
            calls.most_in_window,
            calls.cap,
            calls.most_in_flight,
            calls.violations
        ))
    }
}

fn rows<T: Serialize>(of: &[T]) -> Vec<Value> {
    of.iter().filter_map(|row| serde_json::to_value(row).ok()).collect()
}

async fn polls(db: &Db) -> Result<Vec<Poll>, sqlx::Error> {
    sqlx::query_as!(
        Poll,
        r#"select sync, sum(total)::bigint as "seen!", sum(created)::bigint as "created!", sum(updated)::bigint as "updated!",
             sum(unchanged)::bigint as "unchanged!", sum(failed)::bigint as "failed!"
           from sluice.run where kind = 'poll' group by sync order by sync"#
    )
    .fetch_all(db)
    .await
}

async fn syncs(db: &Db, enqueued: &BTreeMap<String, u64>) -> Result<Vec<Sync>, sqlx::Error> {
    let counted =
        sqlx::query!(r#"select sync as "sync!", synced as "synced!", failed as "failed!" from sluice.sync_status"#).fetch_all(db).await?;
    let figures = |name: &String| counted.iter().find(|row| row.sync == *name).map_or((0, 0), |row| (row.synced, row.failed));
    let rows = enqueued.iter().map(|(name, total)| {
        let (synced, failed) = figures(name);
        Sync { sync: name.clone(), total: *total, synced, failed }
    });
    Ok(rows.collect())
}

async fn letters(db: &Db) -> Result<Vec<Letter>, sqlx::Error> {
    sqlx::query_as!(
        Letter,
        "select id, sync, key, error_class, field, message, hint from sluice.dead_letter where resolution is null order by error_class, sync, key, id"
    )
    .fetch_all(db)
    .await
}

async fn calls(world: &World) -> anyhow::Result<Calls> {
    let avoided =
        sqlx::query!(r#"select reason, sum(calls)::bigint as "calls!" from sluice.avoided group by reason"#).fetch_all(&world.db).await?;
    sluice_zoho::install_tls();
    let stats = reqwest::get(format!("{}/admin/stats", world.zoho)).await.context("the simulator does not answer")?.error_for_status()?;
    let stats: Value = stats.json().await?;
    let products = || stats["scopes"].as_object().into_iter().flatten().filter(|(scope, _)| *scope != "oauth").map(|(_, figures)| figures);
    let most = |key: &str| products().filter_map(|figures| figures[key].as_u64()).max().unwrap_or(0);
    let caps = world.config.connections.values().flat_map(|connection| connection.budget.values());
    Ok(Calls {
        made: products().filter_map(|figures| figures["calls"].as_u64()).sum(),
        avoided: avoided.into_iter().map(|row| (row.reason, row.calls)).collect(),
        most_in_window: most("most_in_window"),
        window_seconds: stats["window_ms"].as_f64().unwrap_or(0.0) / 1_000.0,
        cap: caps.map(|budget| budget.per_minute).max().unwrap_or(0),
        most_in_flight: most("most_in_flight"),
        tokens_minted: stats["tokens"]["minted"].as_u64().unwrap_or(0),
        violations: stats["violations"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum(),
    })
}
