//! `sluice runs list | show`: polls, backfills, reconciles and triggers, and what became of them.

use clap::Subcommand;
use serde_json::{Value, json};
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const ALL: &str = "select r.*, r.started_at as created_at from sluice.run r";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs, the newest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// One run with its messages.
    Show {
        /// Its number.
        id: i64,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { filter, limit } => {
            let ids = filter::ids(&db, &config, ALL, &filter).await?;
            let newest = &ids[ids.len().saturating_sub(limit)..];
            list(session, &runs(&db, newest).await?, ids.len())
        }
        Command::Show { id } => show(session, &db, id).await,
    }
}

fn list(session: &Session, rows: &[Value], total: usize) -> anyhow::Result<Answer> {
    if session.options.json {
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("ID", "id"),
        text("KIND", "kind"),
        text("SYNC", "sync"),
        text("STATE", "state"),
        text("TOTAL", "total"),
        text("CREATED", "created"),
        text("UPDATED", "updated"),
        text("UNCHANGED", "unchanged"),
        text("FAILED", "failed"),
        text("CALLS", "calls"),
        text("BY", "asked_by"),
        time("STARTED", "started_at"),
        time("FINISHED", "finished_at"),
    ];
    output::line(&output::table(&columns, rows, "no runs"))?;
    if rows.len() < total {
        eprintln!("the newest {} of {total}; --limit shows more", rows.len());
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db, id: i64) -> anyhow::Result<Answer> {
    let Some(run) = runs(db, &[id]).await?.pop() else {
        return Err(Usage(format!("there is no run {id}")).into());
    };
    if session.options.json {
        output::json(&run)?
    } else {
        output::line(&output::record(&run))?
    }
    Ok(Answer::Yes)
}

async fn runs(db: &Db, ids: &[i64]) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(r) as "row!" from sluice.run r where id = any ($1) order by id desc"#, ids).fetch_all(db).await
}
