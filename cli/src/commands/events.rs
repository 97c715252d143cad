//! `sluice events list | show | replay | report`: what Zoho's webhooks said, what was made of it, and acting on it again.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_producer::webhook;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const ALL: &str = "select *, received_at as created_at from sluice.event";
/// Groups that a plan names before it says "and more".
const PLANNED: usize = 12;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Events, newest first.
    List {
        #[command(flatten)]
        choice: Choice,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One event with all that came.
    Show {
        /// Its number.
        id: i64,
    },
    /// Act on events again: the records that they name are read.
    Replay {
        /// Their numbers; without any, those that the filters let through.
        #[arg(conflicts_with_all = ["sync", "since", "condition", "source", "verdict", "outcome"])]
        ids: Vec<i64>,
        #[command(flatten)]
        choice: Choice,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// By source: what came, and what `mode = "enforce"` refuses or would refuse.
    Report,
}

/// Which events.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Choice {
    #[command(flatten)]
    filter: Filter,
    /// Of this webhook of the configuration.
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Whether they proved where they come from.
    #[arg(long, value_name = "VERDICT", value_parser = ["verified", "unsigned", "bad_signature"])]
    verdict: Option<String>,
    /// What became of them; stored: not decided yet.
    #[arg(long, value_name = "OUTCOME", value_parser = OUTCOMES)]
    outcome: Option<String>,
}

const OUTCOMES: [&str; 9] = ["stored", "applied", "duplicate", "echo", "ignored", "quarantined", "unknown_record", "refused", "failed"];

impl Choice {
    fn is_empty(&self) -> bool {
        self.filter.is_empty() && self.source.is_none() && self.verdict.is_none() && self.outcome.is_none()
    }
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { choice, limit } => list(session, &chosen(&db, &config, &choice, Some(limit)).await?),
        Command::Show { id } => {
            let Some(event) = webhook::show(&db, id).await? else {
                return Err(Usage(format!("there is no event {id}")).into());
            };
            if session.options.json {
                output::json(&event)?
            } else {
                output::line(&output::record(&event))?
            }
            Ok(Answer::Yes)
        }
        Command::Replay { ids, choice, yes } => replay(session, &config, &db, ids, &choice, yes).await,
        Command::Report => report(session, &webhook::report(&db).await?),
    }
}

fn list(session: &Session, rows: &[Value]) -> anyhow::Result<Answer> {
    if session.options.json {
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("ID", "id"),
        text("SOURCE", "source"),
        text("VERDICT", "verdict"),
        text("OUTCOME", "outcome"),
        text("SYNC", "sync"),
        text("RECORDS", "records"),
        text("OPERATION", "operation"),
        text("REASON", "reason"),
        time("RECEIVED", "received_at"),
    ];
    output::line(&output::table(&columns, rows, "no events"))?;
    Ok(Answer::Yes)
}

fn report(session: &Session, rows: &[Value]) -> anyhow::Result<Answer> {
    if session.options.json {
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("SOURCE", "source"),
        text("VERDICT", "verdict"),
        text("EVENTS", "events"),
        text("WOULD REFUSE", "would_refuse"),
        text("REFUSED", "refused"),
        time("LAST", "last_at"),
    ];
    output::line(&output::table(&columns, rows, "no events"))?;
    Ok(Answer::Yes)
}

async fn replay(session: &Session, config: &Config, db: &Db, ids: Vec<i64>, choice: &Choice, yes: bool) -> anyhow::Result<Answer> {
    if ids.is_empty() && choice.is_empty() {
        return Err(
            Usage("name the events, or filter them with --source, --verdict, --outcome, --sync, --since or --where".to_owned()).into()
        );
    }
    let bulk = ids.is_empty();
    let ids = if bulk {
        let rows = chosen(db, config, choice, None).await?;
        if !filter::confirm(&plan(&rows), yes)? {
            return Ok(Answer::No);
        }
        // the oldest first, as they came
        rows.iter().rev().filter_map(|row| row["id"].as_i64()).collect()
    } else {
        ids
    };
    let (mut done, mut refused, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
    for id in ids {
        match webhook::replay(db, config, id, if bulk { "normal" } else { "interactive" }).await {
            Ok(job) => done.push(json!({ "id": id, "job": job })),
            Err(webhook::ReplayError::Unknown(id)) => unknown.push(id),
            Err(webhook::ReplayError::Refused(message)) => refused.push(json!({ "id": id, "message": message })),
            Err(webhook::ReplayError::Database(error)) => return Err(error.into()),
        }
    }
    if session.options.json {
        output::json(&json!({ "replayed": done, "refused": refused }))?
    } else {
        output::line(&format!("{} replayed", done.len()))?;
        for one in &refused {
            eprintln!("not replayed: {}", output::plain(&one["message"]));
        }
    }
    filter::all_known("event", &unknown)?;
    Ok(if refused.is_empty() { Answer::Yes } else { Answer::No })
}

fn plan(rows: &[Value]) -> String {
    let mut groups: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in rows {
        *groups.entry((output::plain(&row["source"]), output::plain(&row["outcome"]))).or_default() += 1;
    }
    let records: u64 = rows.iter().filter_map(|row| row["records"].as_u64()).sum();
    let mut text =
        format!("{} event(s) would be replayed: {records} record(s), some perhaps the same, would be read in the lane normal:", rows.len());
    for ((source, outcome), count) in groups.iter().take(PLANNED) {
        text.push_str(&format!("\n  {count:>6}  {source} {outcome}"));
    }
    if groups.len() > PLANNED {
        text.push_str("\n  and more");
    }
    text
}

/// The newest first, without headers and body.
async fn chosen(db: &Db, config: &Config, choice: &Choice, limit: Option<usize>) -> anyhow::Result<Vec<Value>> {
    let ids = if choice.filter.is_empty() { None } else { Some(filter::ids(db, config, ALL, &choice.filter).await?) };
    let limit = limit.map(i64::try_from).transpose()?;
    let rows = sqlx::query_scalar!(
        r#"select to_jsonb(e) - 'body' - 'headers' || jsonb_build_object('outcome', coalesce(outcome, 'stored'), 'records', cardinality(zoho_ids)) as "row!"
           from sluice.event e
           where ($1::bigint[] is null or id = any ($1)) and ($2::text is null or source = $2) and ($3::text is null or verdict = $3)
             and ($4::text is null or coalesce(outcome, 'stored') = $4)
           order by id desc limit $5"#,
        ids.as_deref(),
        choice.source,
        choice.verdict,
        choice.outcome,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows)
}
