//! `sluice explain SYNC KEY`: one timeline of a record.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::exit::Answer;
use crate::filter::since;
use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sync.
    sync: String,
    /// The record's key as text; several columns as a JSON array.
    #[arg(required_unless_present = "zoho_id")]
    key: Option<String>,
    /// The Zoho record instead.
    #[arg(long, value_name = "Z", conflicts_with = "key")]
    zoho_id: Option<String>,
    /// Since this time (2026-01-31T12:00:00Z), or for the last so long (2h, 7d). History is read by its days: longer takes longer.
    #[arg(long, value_name = "TIME", value_parser = since, default_value = "7d")]
    since: DateTime<Utc>,
}

struct Entry {
    at: DateTime<Utc>,
    what: String,
    says: String,
    detail: Option<Value>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    let entries = match (&args.key, &args.zoho_id) {
        (_, Some(zoho_id)) => {
            sqlx::query_as!(
                Entry,
                r#"select at as "at!", what as "what!", says as "says!", detail from sluice.explain_zoho_id($1, $2, $3)"#,
                args.sync,
                zoho_id,
                args.since
            )
            .fetch_all(&db)
            .await?
        }
        (key, None) => {
            sqlx::query_as!(
                Entry,
                r#"select at as "at!", what as "what!", says as "says!", detail from sluice.explain($1, $2, $3)"#,
                args.sync,
                key.as_deref().unwrap_or_default(),
                args.since
            )
            .fetch_all(&db)
            .await?
        }
    };
    if session.options.json {
        let rows: Vec<Value> =
            entries.iter().map(|one| json!({ "at": one.at, "what": one.what, "says": one.says, "detail": one.detail })).collect();
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    for entry in &entries {
        output::line(&format!("{}  {:<11}  {}", entry.at.format("%Y-%m-%d %H:%M:%S%.3f"), entry.what, entry.says))?;
        if let Some((request, response)) =
            entry.detail.as_ref().filter(|_| entry.what == "attempt").map(|one| (&one["request"], &one["response"]))
        {
            for (side, body) in [("sent", request), ("answered", response)] {
                if !body.is_null() {
                    output::line(&format!("{:26}  {side}: {}", "", shorten(&body.to_string())))?;
                }
            }
        }
    }
    Ok(Answer::Yes)
}

/// `--json` has the whole of it.
fn shorten(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
