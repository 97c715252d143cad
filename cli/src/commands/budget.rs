//! `sluice budget`: every limit, as the ledger has it.

use serde_json::Value;
use sluice_core::db::Db;

use crate::exit::Answer;
use crate::output::{self, text, time};
use crate::session::Session;

pub(crate) async fn run(session: &Session) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    let rows = limits(&db).await?;
    if session.options.json {
        output::json(&Value::Array(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("CONNECTION", "connection"),
        text("PRODUCT", "product"),
        text("LIMIT", "limit_kind"),
        text("CAP", "cap"),
        text("WINDOW", "call_window"),
        text("USED", "used"),
        text("IN FLIGHT", "in_flight"),
        time("NEXT FREE", "resets_at"),
    ];
    output::line(&output::table(&columns, &rows, "no connection is published yet; run `sluice attach`"))?;
    for row in rows.iter().filter(|row| !row["blocked_reason"].is_null()) {
        output::line(&format!("{}: blocked: {}", output::plain(&row["connection"]), output::plain(&row["blocked_reason"])))?;
    }
    Ok(Answer::Yes)
}

async fn limits(db: &Db) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(b) as "row!" from sluice.budget_status b order by connection, product nulls last, limit_kind"#)
        .fetch_all(db)
        .await
}
