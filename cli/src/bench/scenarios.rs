//! The scenarios of `sluice bench budget`: each prints a line of figures as the simulated Zoho saw them.

use std::time::Duration;

use chrono::Utc;
use serde_json::{Value, json};

use super::figures::percentile;
use super::world::{Setup, World, until};

/// What all scenarios take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// Seconds of a window.
    pub(crate) window: u32,
    /// Calls in it.
    pub(crate) cap: u32,
    /// Milliseconds of an answer.
    pub(crate) latency: [u64; 2],
    /// Windows that are looked at.
    pub(crate) windows: u32,
}

impl Measure {
    fn setup(&self) -> Setup {
        Setup { window: self.window, cap: self.cap, in_flight: 10, latency: self.latency, config: String::new(), tables: String::new() }
    }

    /// Enough work for so many windows.
    fn work(&self, windows: u32) -> u32 {
        self.cap * (windows + 2)
    }

    fn share(&self, calls: usize) -> f64 {
        (calls as f64 / f64::from(self.cap) * 1000.0).round() / 10.0
    }
}

/// Calls that Zoho refused for a limit.
fn refused(calls: &[Value]) -> usize {
    calls.iter().filter(|call| call["status"] == 429).count()
}

/// Work always waiting, no faults: every window after the first should be full, and none fuller than the cap.
pub(crate) async fn saturation(measure: Measure, replicas: u16) -> anyhow::Result<Value> {
    let world = World::make(measure.setup()).await?;
    world.enqueue("normal", measure.work(measure.windows + 1)).await?;
    let fleet = world.replicas(replicas, 4)?;
    let window = world.window_us();
    let start = world.first_arrival("billing").await? + window;
    until(start + window * i64::from(measure.windows)).await;
    let (calls, arrivals) = (world.calls("billing").await?, world.arrivals("billing").await?);
    drop(fleet);
    let windows = arrivals.windows(start, measure.windows, window);
    let stats = world.stats().await?;
    world.end().await;
    Ok(json!({
        "scenario": "saturation", "replicas": replicas, "cap": measure.cap, "window_s": measure.window, "calls": arrivals.len(), "refused": refused(&calls),
        "most_in_window": windows.most, "most_in_window_by_simulator": stats["scopes"]["finance:60000000001"]["most_in_window"],
        "most_in_flight": stats["scopes"]["finance:60000000001"]["most_in_flight"],
        "windows": windows.consecutive, "least_window_percent": measure.share(windows.consecutive.iter().copied().min().unwrap_or(0)),
        "least_sliding_percent": measure.share(windows.fewest),
    }))
}

/// Half of the replicas killed while they call: the others go on, what was lost comes back by itself, and the cap holds throughout.
pub(crate) async fn kill(measure: Measure, replicas: u16) -> anyhow::Result<Value> {
    let world = World::make(measure.setup()).await?;
    world.enqueue("normal", measure.work(measure.windows + 4)).await?;
    let mut fleet = world.replicas(replicas, 4)?;
    let window = world.window_us();
    until(world.first_arrival("billing").await? + window + window / 3).await;
    let killed_at = Utc::now().timestamp_micros();
    for replica in fleet.iter_mut().take(usize::from(replicas / 2)) {
        replica.kill().await?;
    }
    // the lease is half a window; back within one window after its end
    let back = killed_at + window / 2 + window;
    until(back + window * i64::from(measure.windows)).await;
    let (calls, arrivals) = (world.calls("billing").await?, world.arrivals("billing").await?);
    drop(fleet);
    let after = arrivals.windows(back, measure.windows, window);
    let unanswered = calls.iter().filter(|call| call["status"].is_null()).count();
    world.end().await;
    Ok(json!({
        "scenario": "kill", "replicas": replicas, "killed": replicas / 2, "cap": measure.cap, "window_s": measure.window, "refused": refused(&calls), "cut_off": unanswered,
        "most_in_window": after.most, "during_percent": measure.share(arrivals.between(killed_at, killed_at + window)),
        "windows": after.consecutive, "least_window_percent": measure.share(after.consecutive.iter().copied().min().unwrap_or(0)),
    }))
}

/// How urgent jobs arrive beside a saturating backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// One by one, at random moments, a fifth of the cap in each window: 20 a minute.
    Single,
    /// Five at once, as many in all.
    Bursts,
    /// As single ones, while one answer in a hundred is lost.
    Lossy,
}

/// Backfill saturating, realtime jobs in between: how long they wait from due to request.
pub(crate) async fn lanes(measure: Measure, replicas: u16, arrival: Arrival) -> anyhow::Result<Value> {
    let world = World::make(measure.setup()).await?;
    if arrival == Arrival::Lossy {
        world.tell("faults", json!({"kind": "timeout", "product": "billing", "probability": 0.01})).await?;
    }
    world.enqueue("backfill", measure.work(measure.windows + 1)).await?;
    let fleet = world.replicas(replicas, 4)?;
    let window = world.window_us();
    let start = world.first_arrival("billing").await? + window;
    let end = start + window * i64::from(measure.windows);
    until(start).await;
    let burst = if arrival == Arrival::Bursts { 5 } else { 1 };
    // a fifth of the cap, at random moments
    let mean = world.window().as_secs_f64() / (f64::from(measure.cap) / 5.0) * f64::from(burst);
    let mut due = Vec::new();
    while Utc::now().timestamp_micros() < end {
        tokio::time::sleep(Duration::from_secs_f64(-mean * (1.0 - rand::random::<f64>()).ln())).await;
        for _ in 0..burst {
            due.push(world.enqueue_marked("realtime", due.len() + 2).await?);
        }
    }
    tokio::time::sleep(world.window() / 4).await;
    let calls = world.calls("billing").await?;
    drop(fleet);
    let mut waits = Vec::new();
    for (index, due) in due.iter().enumerate() {
        let query = format!("page={}", index + 2);
        let arrived = calls.iter().find(|call| call["query"] == query.as_str()).and_then(|call| call["arrived_us"].as_i64());
        waits.extend(arrived.map(|arrived| (arrived - due).max(0)));
    }
    let in_time = |call: &&Value| call["arrived_us"].as_i64().is_some_and(|at| (start..end).contains(&at));
    let bulk = calls.iter().filter(in_time).filter(|call| call["query"] == "").count();
    let most = world.arrivals("billing").await?.most(window);
    world.end().await;
    let at = |waits: &mut Vec<i64>, percent| percentile(waits, percent).map(|us| (us as f64 / 1000.0).round() / 1000.0);
    Ok(json!({
        "scenario": match arrival { Arrival::Single => "lanes", Arrival::Bursts => "lanes, bursts of five", Arrival::Lossy => "lanes, 1 % of answers lost" },
        "replicas": replicas, "realtime_jobs": due.len(), "arrived": waits.len(), "wait_s": {"p50": at(&mut waits, 50), "p90": at(&mut waits, 90), "p99": at(&mut waits, 99), "max": at(&mut waits, 100)},
        "backfill_percent": measure.share(bulk / usize::try_from(measure.windows.max(1))?), "refused": refused(&calls), "most_in_window": most,
    }))
}

/// CRM: writes of all sizes and reads by many replicas, within its credits, its calls at once and its pool of heavy calls; then refusals with credits
/// left, after which fewer calls are made at once, and more again.
pub(crate) async fn crm(measure: Measure, replicas: u16) -> anyhow::Result<Value> {
    let cap = measure.cap * 4;
    let credits = 600;
    let setup = Setup {
        in_flight: 15,
        config: format!(
            "[connections.main.budget.crm]\nper_minute = {cap}\nin_flight = 15\nheavy_in_flight = 10\nper_day = {credits}\nwindow_seconds = {}\n",
            measure.window
        ),
        ..measure.setup()
    };
    let world = World::make(setup).await?;
    world.tell("settings", json!({"crm": {"credits": credits, "heavy_in_flight": 10}})).await?;
    let job = |records: &str| {
        format!(
            r#"jsonb_build_object('connection', 'main', 'product', 'crm', 'method', 'POST', 'path', '/Contacts', 'body', jsonb_build_object('data', (select jsonb_agg(jsonb_build_object('Last_Name', 'n' || n || ' ' || i)) from generate_series(1, {records}) i)))"#
        )
    };
    world.run(format!("insert into sluice.job (kind, args, lane) select 'call', {}, (array['interactive', 'normal', 'backfill'])[1 + n % 3] from generate_series(1, 150) n", job("1 + (n * 37) % 100"))).await?;
    world.run(r#"insert into sluice.job (kind, args, lane) select 'call', '{"connection": "main", "product": "crm", "method": "GET", "path": "/org"}', 'normal' from generate_series(1, 150)"#).await?;
    let fleet = world.replicas(replicas, 4)?;
    world.first_arrival("crm").await?;
    let settled = async || -> anyhow::Result<()> {
        let mut last = (0, 0);
        while last.1 < 20 {
            let calls = world.calls("crm").await?.len();
            last = if calls == last.0 { (calls, last.1 + 1) } else { (calls, 0) };
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    };
    settled().await?;
    let before = world.stats().await?;
    let refused_before = refused(&world.calls("crm").await?);
    let heavy_waiting = world.number("select count(*) from sluice.slot where sync = ''").await?;
    // credits enough, but Zoho says three times that there are too many at once
    world.run("update sluice.meter set configured = null, used = 0, told = null, told_by = null").await?;
    world.tell("settings", json!({"crm": {"credits": 1_000_000}})).await?;
    world.tell("faults", json!({"kind": "rate_limited", "product": "crm", "times": 3})).await?;
    world.run(r#"insert into sluice.job (kind, args, lane) select 'call', '{"connection": "main", "product": "crm", "method": "GET", "path": "/org"}', 'interactive' from generate_series(1, 30)"#).await?;
    let allowed = "select min(sluice.flights_allowed(b, clock_timestamp()))::bigint from sluice.budget b where scope = 'crm'";
    let mut least = i64::MAX;
    for _ in 0..40 {
        least = least.min(world.number(allowed).await?);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let failures = world.number("select coalesce(sum(failures), 0)::bigint from sluice.slot").await?;
    let shrunk_for = world.number("select ceil(greatest(0, 15 - shrunk_to) * 10)::bigint from sluice.budget where scope = 'crm'").await?;
    drop(fleet);
    world.end().await;
    Ok(json!({
        "scenario": "crm", "replicas": replicas, "credits": credits, "most_credits": before["crm"]["most_credits"], "most_in_flight": before["scopes"]["crm"]["most_in_flight"],
        "most_heavy_in_flight": before["crm"]["most_heavy_in_flight"], "violations": before["violations"], "refused": refused_before, "kept_waiting": heavy_waiting,
        "calls_at_once_after_refusals": least, "all_again_after_s": shrunk_for, "failures_counted": failures,
    }))
}

/// A day of 2,000 calls and 5,000 due jobs: the organisation's clock is moved on through 24 hours, with some interactive jobs in every one.
pub(crate) async fn day(measure: Measure, replicas: u16) -> anyhow::Result<Value> {
    const DAY: u32 = 2_000;
    const PER_HOUR: usize = 10;
    // a cap that lets the hours pass quickly: the day is what is looked at
    let setup = Setup { window: 1, cap: 200, in_flight: 20, latency: [5, 20], config: format!("per_day = {DAY}\n"), ..measure.setup() };
    let world = World::make(setup).await?;
    let minute_of_day = (Utc::now().timestamp() / 60) % 1440;
    let hour = async |hour: i64| {
        // the organisation's midnight is `24 - hour` hours away: offsets are kept within a day of UTC
        let offset = (hour * 60 + 5 - minute_of_day).rem_euclid(1440);
        let offset = if offset > 720 { offset - 1440 } else { offset };
        world.tell("settings", json!({"utc_offset_minutes": offset, "finance": {"per_day": DAY}})).await
    };
    hour(0).await?;
    world.run("update sluice.meter set resets_at = clock_timestamp() + interval '23 h 55 min' where kind = 'calls'").await?;
    world.enqueue("backfill", 5_000).await?;
    let fleet = world.replicas(replicas, 4)?;
    let mut asked = 0;
    let mut hours = Vec::new();
    for at in 0..24 {
        hour(at).await?;
        world
            .run(format!(
                "update sluice.meter set resets_at = clock_timestamp() + interval '{} min' where kind = 'calls'",
                (24 - at) * 60 - 5
            ))
            .await?;
        for _ in 0..PER_HOUR {
            world.enqueue_marked("interactive", 2 + asked).await?;
            asked += 1;
        }
        // until nothing more may be called in this hour
        let (mut last, mut quiet) = (0, 0);
        while quiet < 8 {
            let calls = world.arrivals("billing").await?.len();
            quiet = if calls == last { quiet + 1 } else { 0 };
            last = calls;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        hours.push(last);
    }
    let calls = world.calls("billing").await?;
    let served = calls.iter().filter(|call| call["query"] != "" && call["status"] == 200).count();
    let (today, refused) = (calls.len(), refused(&calls));
    let alerts = world.number("select count(*) from sluice.alert where occasion = 'budget_low'").await?;
    let waiting = world.number("select count(*) from sluice.slot").await?;
    // midnight
    hour(24).await?;
    world.run("update sluice.meter set resets_at = clock_timestamp() where kind = 'calls'").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let next_day = world.arrivals("billing").await?.len() - today;
    let failures =
        world.number("select coalesce(sum(failures), 0)::bigint + (select count(*) from sluice.dead_letter) from sluice.slot").await?;
    drop(fleet);
    world.end().await;
    Ok(json!({
        "scenario": "day", "per_day": DAY, "due": 5_000, "calls": today, "refused": refused, "interactive": asked, "interactive_served": served, "calls_by_hour": hours,
        "waiting_at_midnight": waiting, "calls_soon_after_midnight": next_day, "failures_counted": failures, "alerts": alerts,
    }))
}
