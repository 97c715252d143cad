//! `sluice alerts list | test`: what people were told of, and whether an address of `[alerts]` can be reached.

use chrono::Utc;
use clap::Subcommand;
use serde_json::{Value, json};
use sluice_producer::alerts::{Sender, Told};

use crate::exit::{Answer, Usage};
use crate::output::{self, text, time};
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Alerts and their deliveries, the newest first.
    List {
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: i64,
    },
    /// Send a test to the address of `[alerts.NAME]`, now.
    Test {
        /// NAME.
        name: String,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    match command {
        Command::List { limit } => list(session, limit).await,
        Command::Test { name } => test(session, &name).await,
    }
}

async fn list(session: &Session, limit: i64) -> anyhow::Result<Answer> {
    let (_, db) = session.open_database().await?;
    let rows: Vec<Value> = sqlx::query_scalar!(
        r#"select to_jsonb(a) || jsonb_build_object('deliveries', coalesce(
             (select jsonb_agg(to_jsonb(d) - 'alert_id' order by d.name) from sluice.alert_delivery d where d.alert_id = a.id), '[]')) as "row!"
           from sluice.alert a order by a.id desc limit $1"#,
        limit
    )
    .fetch_all(&db)
    .await?;
    if session.options.json {
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("ID", "id"),
        text("OCCASION", "occasion"),
        text("ABOUT", "subject"),
        text("MESSAGE", "message"),
        time("RAISED", "raised_at"),
        time("TOLD", "told_at"),
    ];
    output::line(&output::table(&columns, &rows, "no alerts"))?;
    Ok(Answer::Yes)
}

async fn test(session: &Session, name: &str) -> anyhow::Result<Answer> {
    let config = session.config()?;
    let Some(alert) = config.alerts.get(name) else {
        let known: Vec<&str> = config.alerts.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "the file has no [alerts]".to_owned() } else { format!("there are: {}", known.join(", ")) };
        return Err(Usage(format!("unknown alert \"{name}\"; {known}")).into());
    };
    let told = Told {
        id: 0,
        occasion: "test".to_owned(),
        subject: name.to_owned(),
        message: "a test, sent by \"sluice alerts test\"; nothing is wrong".to_owned(),
        raised_at: Utc::now(),
    };
    let sent = Sender::default().send(alert, &told).await;
    if session.options.json {
        output::json(&json!({ "sent": sent.is_ok(), "error": sent.as_ref().err().map(ToString::to_string) }))?;
    } else {
        output::line(&sent.as_ref().map_or_else(|error| format!("not sent: {error}"), |()| "sent".to_owned()))?;
    }
    Ok(if sent.is_ok() { Answer::Yes } else { Answer::No })
}
