//! `GET /`: a page of counts. No script; it comes again by itself every ten seconds.

use std::fmt::Write;

use axum::extract::State as Shared;
use axum::http::header;
use axum::response::{Html, IntoResponse};
use chrono::{DateTime, Utc};

use super::store::{Standing, SyncStatus};
use super::{Failed, State, ready, store};

pub(super) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], include_str!("style.css"))
}

pub(super) async fn index(Shared(state): Shared<State>) -> Result<Html<String>, Failed> {
    let standing = store::standing(&state.0.db).await?;
    let mut body = String::new();
    notices(&mut body, &ready::differing(&state), &standing);
    held(&mut body, &standing);
    summary(&mut body, &standing);
    sync_table(&mut body, &standing);
    budget_table(&mut body, &standing);
    let title = if standing.syncs.iter().any(|sync| sync.failed > 0) { "● Sluice" } else { "Sluice" };
    Ok(Html(format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta http-equiv=\"refresh\" content=\"10\"><title>{title}</title>\
         <link rel=\"stylesheet\" href=\"/style.css\"></head><body><header><h1>Sluice</h1><p>{}</p></header><main>{body}</main></body></html>",
        standing.attention.now.format("%Y-%m-%d %H:%M:%S UTC")
    )))
}

fn notices(out: &mut String, differing: &[String], standing: &Standing) {
    let paused = standing.attention.paused.iter().map(|paused| format!("paused: {paused}"));
    let held = Some(standing.attention.held)
        .filter(|held| *held > 0)
        .map(|held| format!("{held} held changes wait for a decision: sluice held list"));
    for notice in differing.iter().cloned().chain(paused).chain(held) {
        let _ = write!(out, "<p class=\"notice\">{}</p>", escape(&notice));
    }
}

/// Records of a held change that the page shows; `sluice held show` has all.
const SAMPLE: usize = 3;

/// What a brake holds: why, a few of its records, and the commands that decide.
fn held(out: &mut String, standing: &Standing) {
    for held in &standing.held {
        let _ = write!(out, "<div class=\"notice\"><strong>{}</strong> {}<ul>", escape(&held.sync), escape(&held.reason));
        for one in held.sample.as_array().into_iter().flatten().take(SAMPLE) {
            let text = |name: &str| one[name].as_str().unwrap_or_default();
            let changed = one["changed"].as_object().into_iter().flatten();
            let changed: Vec<String> = changed.map(|(field, pair)| format!("{field}: {} → {}", pair["old"], pair["new"])).collect();
            let _ = write!(out, "<li>{}", escape(&format!("{} {} {}", text("operation"), text("key"), changed.join(", "))));
        }
        let id = held.id;
        let _ =
            write!(out, "</ul><code>sluice held show {id}</code>, <code>held approve {id}</code> or <code>held reject {id}</code></div>");
    }
}

fn summary(out: &mut String, standing: &Standing) {
    let sum = |count: fn(&SyncStatus) -> i64| standing.syncs.iter().map(count).sum::<i64>();
    let tiles = [
        ("synced", sum(|sync| sync.synced), ""),
        ("waiting", sum(|sync| sync.pending) + standing.attention.changes_waiting, ""),
        ("running", sum(|sync| sync.running), ""),
        ("retrying", sum(|sync| sync.retrying), "warn"),
        ("dead letters", sum(|sync| sync.failed), "bad"),
        ("calls avoided", standing.avoided.iter().map(|one| one.calls).sum(), ""),
    ];
    out.push_str("<ul class=\"tiles\">");
    for (label, value, class) in tiles {
        let class = if value > 0 { class } else { "" };
        let _ = write!(out, "<li class=\"{class}\"><strong>{value}</strong>{label}</li>");
    }
    out.push_str("</ul>");
}

fn sync_table(out: &mut String, standing: &Standing) {
    out.push_str(
        "<h2>Syncs</h2><table><thead><tr><th>Sync<th class=\"n\">Rows<th class=\"n\">Synced<th class=\"n\">Waiting<th class=\"n\">Running\
         <th class=\"n\">Retrying<th class=\"n\">Dead<th>Oldest due<th>Last success</tr></thead><tbody>",
    );
    for sync in &standing.syncs {
        let state = match (sync.retired_at, sync.paused_at) {
            (Some(_), _) => " <em>retired</em>",
            (None, Some(_)) => " <em>paused</em>",
            (None, None) => "",
        };
        let _ = write!(
            out,
            "<tr><th>{}{state}<td class=\"n\">{}",
            escape(&sync.sync),
            sync.total.map_or_else(|| "–".to_owned(), |total| total.to_string())
        );
        for (count, class) in [(sync.synced, ""), (sync.pending, ""), (sync.running, ""), (sync.retrying, "warn"), (sync.failed, "bad")] {
            let _ = write!(out, "<td class=\"n {}\">{count}", if count > 0 { class } else { "" });
        }
        let now = standing.attention.now;
        let _ = write!(out, "<td>{}<td>{}</tr>", age(sync.oldest_due_at, now), age(sync.last_success_at, now));
    }
    if standing.syncs.is_empty() {
        out.push_str("<tr><td colspan=\"9\">Nothing is published yet: run <code>sluice attach</code>.</tr>");
    }
    out.push_str("</tbody></table>");
}

fn budget_table(out: &mut String, standing: &Standing) {
    out.push_str(
        "<h2>Budget</h2><table><thead><tr><th>Connection<th>Product<th>Limit<th>Used<th class=\"n\">of<th>State</tr></thead><tbody>",
    );
    for budget in &standing.budgets {
        let state = match (budget.circuit_opened_at, budget.blocked_until.filter(|until| *until > standing.attention.now)) {
            (Some(_), _) => "<span class=\"bad\">no answers; probing</span>".to_owned(),
            (None, Some(until)) => format!("<span class=\"warn\">blocked until {}</span>", until.format("%H:%M:%S")),
            (None, None) => match (&budget.note, budget.spent_at) {
                (Some(note), _) => format!("<span class=\"warn\">{}</span>", escape(note)),
                (None, Some(at)) => format!("spent at {} at this pace", at.format("%H:%M")),
                (None, None) => String::new(),
            },
        };
        let (connection, product, limit) =
            (escape(&budget.connection), escape(budget.product.as_deref().unwrap_or("")), budget.limit_kind.replace('_', " "));
        let used = budget.used;
        let (meter, cap) = match budget.cap {
            Some(cap) => (format!("<meter max=\"{cap}\" value=\"{used}\"></meter> "), cap.to_string()),
            None => (String::new(), "?".to_owned()),
        };
        let _ = write!(out, "<tr><th>{connection}<td>{product}<td>{limit}<td>{meter}{used}<td class=\"n\">{cap}<td>{state}</tr>");
    }
    out.push_str("</tbody></table>");
}

/// How long ago, in one unit.
fn age(at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> String {
    let Some(at) = at else { return "–".to_owned() };
    match (now - at).num_seconds() {
        seconds @ ..0 => format!("in {} s", -seconds),
        seconds @ 0..120 => format!("{seconds} s ago"),
        seconds @ 120..7200 => format!("{} min ago", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} d ago", seconds / 86_400),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_become_markup() {
        assert_eq!(escape("<b a=\"1\">&'"), "&lt;b a=&quot;1&quot;&gt;&amp;&#39;");
    }
}
