//! `GET /metrics`: Prometheus text.

use std::fmt::Write;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::IntoResponse;
use chrono::{DateTime, Utc};

use super::store::{BudgetStatus, Events, Standing, Verdicts};
use super::{Failed, State, store};

/// One number of a limit; `None` where it has none.
type Figure = fn(&BudgetStatus, DateTime<Utc>) -> Option<i64>;

pub(super) async fn metrics(Shared(state): Shared<State>) -> Result<impl IntoResponse, Failed> {
    let standing = store::standing(&state.0.db).await?;
    let events = store::events(&state.0.db).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text(&standing, &events)))
}

fn text(standing: &Standing, events: &Events) -> String {
    let mut out = String::new();
    syncs(&mut out, standing);
    budgets(&mut out, standing);
    standstills(&mut out, standing);
    head(&mut out, "sluice_calls_avoided_total", "counter", "Calls that were not made, by reason.");
    for one in &standing.avoided {
        line(&mut out, "sluice_calls_avoided_total", &[("sync", &one.sync), ("reason", &one.reason)], one.calls);
    }
    head(&mut out, "sluice_changes_waiting", "gauge", "Captured changes not yet looked at, at most 10000.");
    line(&mut out, "sluice_changes_waiting", &[], standing.attention.changes_waiting);
    head(&mut out, "sluice_held_changes", "gauge", "Changes held for a person.");
    line(&mut out, "sluice_held_changes", &[], standing.attention.held);
    webhooks(&mut out, events);
    out
}

fn webhooks(out: &mut String, events: &Events) {
    let of_sources: [(&str, &str, &str, &[Verdicts]); 2] = [
        (
            "sluice_events",
            "gauge",
            "Webhook events of the last ten minutes, by what verifying them said; of those that enforce refuses the last 20.",
            &events.lately,
        ),
        ("sluice_events_refused_total", "counter", "Webhook events that were refused.", &events.refused),
    ];
    for (name, kind, help, verdicts) in of_sources {
        head(out, name, kind, help);
        for one in verdicts {
            line(out, name, &[("source", &one.source), ("verdict", &one.verdict)], one.events);
        }
    }
    head(out, "sluice_events_undecided", "gauge", "Webhook events that wait for a run of their record to end.");
    line(out, "sluice_events_undecided", &[], events.undecided);
    head(out, "sluice_oldest_undecided_event_seconds", "gauge", "How long the oldest of them has waited; 0 without any.");
    line(out, "sluice_oldest_undecided_event_seconds", &[], events.oldest_seconds);
}

fn syncs(out: &mut String, standing: &Standing) {
    head(out, "sluice_records", "gauge", "Records of a sync by state.");
    for sync in &standing.syncs {
        let states = [
            ("synced", sync.synced),
            ("pending", sync.pending),
            ("running", sync.running),
            ("retrying", sync.retrying),
            ("failed", sync.failed),
        ];
        for (state, value) in states {
            line(out, "sluice_records", &[("sync", &sync.sync), ("state", state)], value);
        }
    }
    head(out, "sluice_rows", "gauge", "Rows of a sync at the last count.");
    for sync in &standing.syncs {
        if let Some(total) = sync.total {
            line(out, "sluice_rows", &[("sync", &sync.sync)], total);
        }
    }
    head(out, "sluice_oldest_due_seconds", "gauge", "How long the oldest due record has waited.");
    for sync in &standing.syncs {
        let waited = sync.oldest_due_at.map_or(0, |due| (standing.attention.now - due).num_seconds().max(0));
        line(out, "sluice_oldest_due_seconds", &[("sync", &sync.sync)], waited);
    }
    head(out, "sluice_last_success_timestamp_seconds", "gauge", "When a run last ended well.");
    for sync in &standing.syncs {
        if let Some(at) = sync.last_success_at {
            line(out, "sluice_last_success_timestamp_seconds", &[("sync", &sync.sync)], at.timestamp());
        }
    }
}

fn budgets(out: &mut String, standing: &Standing) {
    let figures: [(&str, &str, Figure); 5] = [
        ("sluice_budget_cap", "Calls (credits) that the limit allows; absent while Zoho has not said.", |budget, _| {
            budget.cap.map(i64::from)
        }),
        ("sluice_budget_used", "Calls (credits) of ours that count against the limit now.", |budget, _| Some(budget.used.into())),
        ("sluice_budget_others", "Calls (credits) that others used of the organisation's day, at least.", |budget, _| {
            budget.others.map(i64::from)
        }),
        ("sluice_budget_in_flight", "Calls under way.", |budget, _| budget.in_flight.map(i64::from)),
        (
            "sluice_budget_spent_in_seconds",
            "Until the limit is spent at the present pace; absent if not before it resets.",
            |budget, now| budget.spent_at.map(|at| (at - now).num_seconds().max(0)),
        ),
    ];
    for (name, help, figure) in figures {
        head(out, name, "gauge", help);
        for budget in &standing.budgets {
            if let Some(value) = figure(budget, standing.attention.now) {
                let product = budget.product.as_deref().unwrap_or("");
                line(out, name, &[("connection", &budget.connection), ("product", product), ("limit", &budget.limit_kind)], value);
            }
        }
    }
}

/// One series per product that Zoho or its silence keeps from working.
fn standstills(out: &mut String, standing: &Standing) {
    head(out, "sluice_circuit_open", "gauge", "1: the product does not answer; one probe at a time.");
    head(out, "sluice_blocked_seconds", "gauge", "How long nothing is sent because Zoho said so.");
    for budget in standing.budgets.iter().filter(|budget| budget.limit_kind == "calls_per_window") {
        let labels = [("connection", budget.connection.as_str()), ("product", budget.product.as_deref().unwrap_or(""))];
        line(out, "sluice_circuit_open", &labels, budget.circuit_opened_at.is_some().into());
        let blocked = budget.blocked_until.map_or(0, |until| (until - standing.attention.now).num_seconds().max(0));
        line(out, "sluice_blocked_seconds", &labels, blocked);
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(out: &mut String, name: &str, labels: &[(&str, &str)], value: i64) {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let labels: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    let _ = writeln!(out, "{name}{labels} {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_leave_its_quotes() {
        let mut out = String::new();
        line(&mut out, "m", &[("sync", "a\"b\\\n")], 3);
        assert_eq!(out, "m{sync=\"a\\\"b\\\\\\n\"} 3\n");
    }
}
