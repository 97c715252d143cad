//! `sluice budget`: every limit, as the ledger has it.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use sluice_core::db::Db;

use crate::exit::Answer;
use crate::output::{self, text, time};
use crate::process;
use crate::session::Session;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(2);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Keep looking, every two seconds, until Ctrl-C.
    #[arg(long)]
    watch: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    if !args.watch {
        show(session, &db).await?;
        return Ok(Answer::Yes);
    }
    let shutdown = process::shutdown_on_signal()?;
    while !shutdown.is_cancelled() {
        if std::io::stdout().is_terminal() && !session.options.json {
            output::line(CLEAR_SCREEN)?;
        }
        show(session, &db).await?;
        let _ = tokio::time::timeout(INTERVAL, shutdown.cancelled()).await;
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db) -> anyhow::Result<()> {
    let mut rows = limits(db).await?;
    if session.options.json {
        return Ok(output::json(&Value::Array(rows))?);
    }
    for row in &mut rows {
        if row["cap"].is_null() {
            row["cap"] = "?".into(); // nobody has said yet what Zoho allows
        }
    }
    let columns = [
        text("CONNECTION", "connection"),
        text("PRODUCT", "product"),
        text("LIMIT", "limit_kind"),
        text("CAP", "cap"),
        text("SAID BY", "cap_by"),
        text("WINDOW", "call_window"),
        text("USED", "used"),
        text("BY OTHERS", "others"),
        text("IN FLIGHT", "in_flight"),
        time("NEXT FREE", "resets_at"),
        time("SPENT", "spent_at"),
    ];
    output::line(&output::table(&columns, &rows, "no connection is published yet; run `sluice attach`"))?;
    for notice in notices(&rows) {
        output::line(&notice)?;
    }
    Ok(())
}

/// What stands still and why, and what will: a line each, once.
fn notices(rows: &[Value]) -> Vec<String> {
    let mut notices = Vec::new();
    let mut plans = BTreeSet::new(); // a line for each product, not for each limit
    for row in rows {
        let name = [output::plain(&row["connection"]), output::plain(&row["product"])].join(" ");
        let name = name.trim();
        if let Some(until) = row["blocked_until"]
            .as_str()
            .and_then(|at| at.parse::<chrono::DateTime<chrono::Utc>>().ok())
            .filter(|at| *at > chrono::Utc::now())
        {
            notices.push(format!("{name}: blocked until {}: {}", until.format("%H:%M:%S UTC"), output::plain(&row["blocked_reason"])));
        }
        if let Some(at) = row["spent_at"].as_str().and_then(|at| at.parse::<chrono::DateTime<chrono::Utc>>().ok()) {
            notices.push(format!(
                "{name}: {} spent at {} at this pace",
                output::plain(&row["limit_kind"]).replace('_', " "),
                at.format("%H:%M UTC")
            ));
        }
        if let Some(plan) = row["plan"].as_str() {
            let users = row["plan_users"].as_i64().map(|users| format!(" with {users} licensed users")).unwrap_or_default();
            plans.insert(format!("{name}: Zoho says that the plan is {plan}{users}{}", allowed(rows, row)));
        } else if let Some(failure) = row["plan_failure"].as_str() {
            let connection = output::plain(&row["connection"]);
            plans.insert(format!(
                "{name}: Zoho does not say which plan this is ({failure}); set `plan` in [connections.{connection}.budget]"
            ));
        }
        if let Some(note) = row["note"].as_str() {
            notices.push(format!("{name}: {note}"));
        }
        if row["product"].is_null() && !row["blocked_reason"].is_null() {
            notices.push(format!("{name}: no access token: {}", output::plain(&row["blocked_reason"])));
        }
    }
    notices.dedup();
    notices.extend(plans);
    notices
}

/// What Zoho allows of the product's day, and by which of its words.
fn allowed(rows: &[Value], of: &Value) -> String {
    let per_day = |row: &&Value| {
        row["connection"] == of["connection"]
            && row["product"] == of["product"]
            && row["limit_kind"].as_str().is_some_and(|kind| kind.ends_with("_per_day"))
    };
    let Some(day) = rows.iter().find(per_day).filter(|day| !day["allowed"].is_null()) else { return String::new() };
    let unit = output::plain(&day["limit_kind"]).replace('_', " ");
    let source = match day["cap_by"].as_str() {
        Some("header") => ", as its answers say",
        Some("configuration") => ", of which the configuration takes less",
        _ => "",
    };
    format!(": {} {unit}{source}", output::plain(&day["allowed"]))
}

async fn limits(db: &Db) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select to_jsonb(b) as "row!" from sluice.budget_status b
           order by b.connection, b.product nulls last, b.limit_kind"#
    )
    .fetch_all(db)
    .await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_zoho_says_of_the_plan_stands_once_with_its_day_and_where_the_figure_came_from() {
        let said = |cap_by: &str| {
            let row = |kind: &str, allowed: Value| json!({"connection": "main", "product": "crm", "limit_kind": kind, "allowed": allowed, "cap_by": cap_by, "plan": "enterprise", "plan_users": 12});
            notices(&[row("calls_per_window", Value::Null), row("credits_per_day", json!(62_000)), row("in_flight", json!(20))])
        };
        let plan = "main crm: Zoho says that the plan is enterprise with 12 licensed users: 62000 credits per day";
        assert_eq!(said("organization"), [plan]);
        assert_eq!(said("header"), [format!("{plan}, as its answers say")]);
        assert_eq!(said("configuration"), [format!("{plan}, of which the configuration takes less")]);
    }
}
