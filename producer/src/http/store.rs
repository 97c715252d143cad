//! What the web server reads: counters and views, each with a bounded cost.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sluice_core::db::Db;

/// A row of `sluice.sync_status`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SyncStatus {
    pub(super) sync: String,
    pub(super) total: Option<i64>,
    pub(super) synced: i64,
    pub(super) pending: i64,
    pub(super) running: i64,
    pub(super) retrying: i64,
    pub(super) failed: i64,
    pub(super) oldest_due_at: Option<DateTime<Utc>>,
    pub(super) last_success_at: Option<DateTime<Utc>>,
    pub(super) counted_at: Option<DateTime<Utc>>,
    pub(super) paused_at: Option<DateTime<Utc>>,
    pub(super) retired_at: Option<DateTime<Utc>>,
}

/// A row of `sluice.budget_status`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct BudgetStatus {
    pub(super) connection: String,
    pub(super) product: Option<String>,
    pub(super) limit_kind: String,
    /// `None`: nobody has said yet what Zoho allows.
    pub(super) cap: Option<i32>,
    pub(super) used: i32,
    pub(super) in_flight: Option<i32>,
    pub(super) resets_at: Option<DateTime<Utc>>,
    pub(super) blocked_until: Option<DateTime<Utc>>,
    pub(super) circuit_opened_at: Option<DateTime<Utc>>,
    /// Used by others of the same organisation, as far as Zoho's figures prove it.
    pub(super) others: Option<i32>,
    /// When it is spent at the pace of the last half hour, if that is before it resets.
    pub(super) spent_at: Option<DateTime<Utc>>,
    /// What waits for it.
    pub(super) note: Option<String>,
    /// What Zoho allows everybody, as far as it is known.
    pub(super) allowed: Option<i32>,
    /// Who says what the cap is, as in the view. `None`: as configured or documented.
    pub(super) cap_by: Option<String>,
    /// What Zoho says the plan is.
    pub(super) plan: Option<String>,
}

/// Calls that were not made.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Avoided {
    pub(super) sync: String,
    pub(super) reason: String,
    pub(super) calls: i64,
}

/// What stands still or waits for a person.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Attention {
    pub(super) changes_waiting: i64,
    pub(super) held: i64,
    pub(super) now: DateTime<Utc>,
    pub(super) paused: Vec<String>,
}

/// A held change that waits for a decision.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) id: i64,
    pub(super) sync: String,
    pub(super) reason: String,
    /// A few of its records: key, operation, and per field the old and the new value.
    pub(super) sample: Value,
}

/// Everything that the pages show.
#[derive(Debug, Clone)]
pub(super) struct Standing {
    pub(super) syncs: Vec<SyncStatus>,
    pub(super) budgets: Vec<BudgetStatus>,
    pub(super) avoided: Vec<Avoided>,
    pub(super) attention: Attention,
    /// The oldest.
    pub(super) held: Vec<Held>,
}

pub(super) async fn standing(db: &Db) -> Result<Standing, sqlx::Error> {
    Ok(Standing {
        syncs: syncs(db).await?,
        budgets: budgets(db).await?,
        avoided: avoided(db).await?,
        attention: attention(db).await?,
        held: held(db).await?,
    })
}

/// How many events of a source had a verdict.
#[derive(Debug, Clone)]
pub(super) struct Verdicts {
    pub(super) source: String,
    pub(super) verdict: String,
    pub(super) events: i64,
}

/// What is known of webhook events.
#[derive(Debug, Clone, Default)]
pub(super) struct Events {
    /// Those of the last ten minutes that are stored; of what `enforce` refuses that is the last twenty.
    pub(super) lately: Vec<Verdicts>,
    /// All that were ever refused.
    pub(super) refused: Vec<Verdicts>,
    /// Those that wait for a decision, and how long the oldest has waited; 0 where none does.
    pub(super) undecided: i64,
    pub(super) oldest_seconds: i64,
}

/// Looks at ten minutes, however long events are kept.
pub(super) async fn events(db: &Db) -> Result<Events, sqlx::Error> {
    let lately = sqlx::query_as!(
        Verdicts,
        r#"select source, verdict, count(*) as "events!" from sluice.event where received_at > clock_timestamp() - interval '10 min'
           group by source, verdict order by source, verdict"#
    );
    let lately = lately.fetch_all(db).await?;
    let refused = sqlx::query_as!(Verdicts, "select source, verdict, refused as events from sluice.event_refusal order by source, verdict");
    let refused = refused.fetch_all(db).await?;
    let waiting = sqlx::query!(
        r#"select count(*) as "undecided!", coalesce(extract(epoch from clock_timestamp() - min(received_at)), 0)::int8 as "oldest_seconds!"
           from sluice.event where decide_at is not null"#
    );
    let waiting = waiting.fetch_one(db).await?;
    Ok(Events { lately, refused, undecided: waiting.undecided, oldest_seconds: waiting.oldest_seconds })
}

async fn syncs(db: &Db) -> Result<Vec<SyncStatus>, sqlx::Error> {
    sqlx::query_as!(
        SyncStatus,
        r#"select sync as "sync!", total, synced as "synced!", pending as "pending!", running as "running!", retrying as "retrying!", failed as "failed!",
                  oldest_due_at, last_success_at, counted_at, paused_at, retired_at
           from sluice.sync_status order by sync"#
    )
    .fetch_all(db)
    .await
}

/// The products of a connection that no sync uses are left out.
async fn budgets(db: &Db) -> Result<Vec<BudgetStatus>, sqlx::Error> {
    sqlx::query_as!(
        BudgetStatus,
        r#"select connection as "connection!", product, limit_kind as "limit_kind!", cap, used as "used!", in_flight,
                  resets_at, blocked_until, circuit_opened_at, others, spent_at, note, allowed, cap_by, plan
           from sluice.budget_status b
           where b.product is null or exists (select from sluice.sync y where y.connection = b.connection and y.product = b.product and y.retired_at is null)
           order by connection, product, limit_kind"#
    )
    .fetch_all(db)
    .await
}

async fn avoided(db: &Db) -> Result<Vec<Avoided>, sqlx::Error> {
    sqlx::query_as!(Avoided, "select sync, reason, calls from sluice.avoided order by sync, reason").fetch_all(db).await
}

async fn held(db: &Db) -> Result<Vec<Held>, sqlx::Error> {
    sqlx::query_as!(Held, "select id, sync, reason, sample from sluice.held_change where resolution is null order by id limit 5")
        .fetch_all(db)
        .await
}

/// The count of changes stops at ten thousand: more need no better figure.
async fn attention(db: &Db) -> Result<Attention, sqlx::Error> {
    sqlx::query_as!(
        Attention,
        r#"select (select count(*) from (select from sluice.change limit 10000) c) as "changes_waiting!",
                  (select count(*) from sluice.held_change where resolution is null) as "held!",
                  clock_timestamp() as "now!",
                  array(select c.name || coalesce(': ' || c.pause_reason, '') from sluice.connection c where c.paused_at is not null
                        union all select y.name || ': ' || y.pause_reason from sluice.sync y where y.paused_at is not null and y.pause_reason is not null and y.retired_at is null
                        order by 1) as "paused!""#
    )
    .fetch_one(db)
    .await
}
