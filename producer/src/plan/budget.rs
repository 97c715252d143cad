//! What the ledger says: the figures of a product's budget for a lane, and what waits before the work that is planned.

use std::time::Duration;

use serde::Serialize;
use sluice_core::config::limits::{self, Limits};
use sluice_core::config::{Config, Product};
use sluice_core::db::{Db, Tx};

use super::finish::{Meter, Pace, Unit};

/// What the ledger and the queue are asked: a queue of ten millions is counted in less.
const LIMIT: Duration = Duration::from_secs(30);
/// How long answers are taken to take where none came within the last window: the slowest that are usual.
const USUAL_ANSWER: f64 = 1.5;

/// A product's budget, as it stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Standing {
    /// The connection.
    pub connection: String,
    /// The product.
    pub product: String,
    /// Which budget of the ledger it draws from, if it is published.
    #[serde(skip)]
    pub(super) budget_id: Option<i64>,
    /// How fast its calls go.
    pub pace: Pace,
    /// Whether the slowest answer was measured within the last window, not assumed.
    pub answers_measured: bool,
    /// Whether the figures are the ledger's; otherwise they are the file's, and what was used is unknown.
    pub known: bool,
    /// Why nothing goes on: the connection is paused, the circuit is open, Zoho said so.
    pub stopped: Option<String>,
    /// One call asks which plan, or organisation, it is.
    pub(super) questions: u64,
    /// What waits in the queue for the same budget, by lane.
    pub waiting: Vec<Waiting>,
}

/// Work of others that waits for the same budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The lane.
    pub lane: String,
    #[serde(skip)]
    pub(super) rank: i16,
    /// Records, polls and other jobs.
    pub jobs: u64,
    /// About so many calls, in full batches.
    pub calls: u64,
    /// About so much of the day, or so many credits, of this product.
    pub units: u64,
}

/// The rank of a lane: 0 is the most urgent.
pub(super) fn rank(lane: &str) -> i16 {
    ["interactive", "realtime", "normal", "reconcile", "backfill"]
        .iter()
        .position(|name| *name == lane)
        .and_then(|at| at.try_into().ok())
        .unwrap_or(2)
}

/// The least part of a day that is kept for more urgent lanes (docs/budget.md).
fn kept_share(rank: i16) -> f64 {
    match rank {
        0 | 1 => 0.0,
        2 => 0.2,
        _ => 0.5,
    }
}

/// How it stands with a product of a connection, for a lane. `own` are the syncs whose waiting records are part of the plan: the number of each is not
/// counted again.
pub(super) async fn standing(
    db: &Db,
    config: &Config,
    (connection, product): (&str, &str),
    lane: &str,
    own: &[(String, u64)],
) -> Result<Standing, sqlx::Error> {
    let mut tx = db.begin_read_only(None, LIMIT).await?;
    let found = ledger(&mut tx, connection, product, rank(lane)).await?;
    let standing = match found {
        Some(mut found) => {
            found.waiting = waiting(&mut tx, found.budget_id, product, own).await?;
            found
        }
        None => by_file(config, connection, product),
    };
    tx.rollback().await?;
    Ok(standing)
}

async fn ledger(tx: &mut Tx, connection: &str, product: &str, rank: i16) -> Result<Option<Standing>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select u.id, u.cap, extract(epoch from u.call_window)::float8 as "window!", sluice.flights_allowed(u, t.now) as "in_flight!",
             extract(epoch from greatest(u.blocked_until, (m.m).blocked_until, p.probe_at, t.now) - t.now)::float8 as wait,
             case when u.blocked_until > t.now then coalesce(u.blocked_reason, 'Zoho said so') when (m.m).blocked_until > t.now then sluice.meter_says(m.m, t.now) end as blocked,
             (select extract(epoch from max(x.answer))::float8 from sluice.place x where x.budget_id = u.id and x.kind = 'window' and x.granted_at > t.now - u.call_window) as slowest,
             c.paused_at is not null as "paused!", c.pause_reason, p.opened_at is not null as "open!", coalesce(p.plan_due_at <= t.now, false) as "asks_plan!",
             c.organization_id is null and p.product in ('books', 'inventory', 'billing') as "asks_organization!",
             (m.m).kind as meter, sluice.meter_cap(m.m) as meter_cap, sluice.meter_left(m.m) as meter_left, sluice.meter_kept(m.m, $3::smallint, t.now) as meter_kept,
             greatest(0, extract(epoch from (m.m).resets_at - t.now))::float8 as resets_in,
             -- when each bucket that holds something is emptied
             (select jsonb_agg(jsonb_build_array((b + 98) * 900 - extract(epoch from t.now), (m.m).buckets[b % 98 + 1]) order by b)
              from generate_series((m.m).bucket - 97, (m.m).bucket) b where (m.m).buckets[b % 98 + 1] > 0) as returns
           from sluice.product p
           join sluice.connection c on c.name = p.connection and c.retired_at is null
           join sluice.budget u on u.id = p.budget_id
           cross join (select clock_timestamp() as now) t
           cross join lateral (select sluice.read_meter(u, p.product, t.now) as m) m
           where p.connection = $1 and p.product = $2"#,
        connection,
        product,
        rank
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let unit = match row.meter.as_deref() {
        Some("calls") => Some(Unit::Calls),
        Some("credits") => Some(Unit::Credits),
        _ => None,
    };
    let returns: Vec<(f64, f64)> = row.returns.and_then(|returns| serde_json::from_value(returns).ok()).unwrap_or_default();
    let meter = unit.zip(row.meter_cap).zip(row.meter_left).map(|((unit, cap), left)| Meter {
        unit,
        cap: u32::try_from(cap).unwrap_or(0),
        left: left.into(),
        kept: row.meter_kept.unwrap_or(0).into(),
        kept_share: kept_share(rank),
        resets_in: row.resets_in.unwrap_or(0.0),
        returns: if unit == Unit::Credits { returns } else { Vec::new() },
    });
    let stopped = if row.paused {
        Some(format!(
            "the connection is paused{}: nothing is sent until `sluice resume`",
            row.pause_reason.map(|why| format!(" ({why})")).unwrap_or_default()
        ))
    } else if row.open {
        Some(format!("{product} does not answer: one call asks every few seconds, the rest waits"))
    } else {
        row.blocked
    };
    Ok(Some(Standing {
        connection: connection.to_owned(),
        product: product.to_owned(),
        budget_id: Some(row.id),
        pace: Pace {
            per_window: u32::try_from(row.cap).unwrap_or(1),
            window_seconds: row.window,
            in_flight: u32::try_from(row.in_flight).unwrap_or(1).max(1),
            answer_seconds: row.slowest.unwrap_or(USUAL_ANSWER),
            wait_seconds: row.wait.unwrap_or(0.0),
            meter,
        },
        answers_measured: row.slowest.is_some(),
        known: true,
        stopped,
        questions: u64::from(row.asks_plan) + u64::from(row.asks_organization),
        waiting: Vec::new(),
    }))
}

/// The limits that the file says; what was used of them nobody knows.
fn by_file(config: &Config, connection: &str, product: &str) -> Standing {
    let configured = Product::ALL.into_iter().find(|one| one.as_str() == product).unwrap_or(Product::Crm);
    let budget = config.connections.get(connection).map(|connection| connection.budget_of(configured).1).unwrap_or_default();
    let Limits { per_window, window_seconds, in_flight, .. } = limits::Limits::of(configured, &budget);
    Standing {
        connection: connection.to_owned(),
        product: product.to_owned(),
        budget_id: None,
        pace: Pace {
            per_window,
            window_seconds: window_seconds.into(),
            in_flight,
            answer_seconds: USUAL_ANSWER,
            wait_seconds: 0.0,
            meter: None,
        },
        answers_measured: false,
        known: false,
        stopped: None,
        questions: 0,
        waiting: Vec::new(),
    }
}

/// What waits for the budget: slots that are not running, and jobs that have not become slots yet.
async fn waiting(tx: &mut Tx, budget_id: Option<i64>, product: &str, own: &[(String, u64)]) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select s.id, s.sync, s.product, s.kind, s.batch_max, w.lane as "lane!", sluice.lane_name(w.lane) as "name!", sum(w.jobs)::bigint as "jobs!"
           from (
             select shape_id, lane, count(*) as jobs from sluice.slot where state = 'available' group by 1, 2
             union all
             select j.shape_id, sluice.lane_rank(coalesce(j.lane, y.lane, 'normal')), count(*) from sluice.job j left join sluice.sync y on y.name = j.sync group by 1, 2) w
           join sluice.shape s on s.id = w.shape_id
           join sluice.product p on p.connection = s.connection and p.product = s.product
           where p.budget_id = $1
           group by s.id, s.sync, s.product, s.kind, s.batch_max, w.lane order by w.lane, s.id"#,
        budget_id
    )
    .fetch_all(tx)
    .await?;
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut own: Vec<(String, u64)> = own.to_vec();
    for row in rows {
        let mut jobs = u64::try_from(row.jobs).unwrap_or(0);
        if let Some((_, mine)) = own.iter_mut().find(|(sync, _)| *sync == row.sync && matches!(row.kind.as_str(), "push" | "pull")) {
            let both = jobs.min(*mine);
            jobs -= both;
            *mine -= both;
        }
        if jobs == 0 {
            continue;
        }
        let calls = jobs.div_ceil(u64::try_from(row.batch_max).unwrap_or(1).max(1));
        let units = if row.product != product {
            0
        } else if product == "crm" && row.kind == "push" {
            jobs.div_ceil(10)
        } else {
            calls
        };
        match waiting.iter_mut().find(|one| one.rank == row.lane) {
            Some(one) => {
                one.jobs += jobs;
                one.calls += calls;
                one.units += units;
            }
            None => waiting.push(Waiting { lane: row.name, rank: row.lane, jobs, calls, units }),
        }
    }
    Ok(waiting)
}
