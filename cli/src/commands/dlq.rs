//! `sluice dlq list | show | requeue | discard`: what gave up, why, and what to do about it.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const OPEN: &str = "select * from sluice.dead_letter where resolution is null";
const ALL: &str = "select * from sluice.dead_letter";
/// Groups that a plan names before it says "and more".
const PLANNED: usize = 12;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open dead letters, oldest first.
    List {
        #[command(flatten)]
        choice: Choice,
        /// Also those that were requeued, discarded or superseded.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One dead letter with everything that is known.
    Show {
        /// Its number.
        id: i64,
    },
    /// Run the jobs again, now, with the rows as they are now.
    Requeue(Act),
    /// Close dead letters without doing anything about them.
    Discard(Act),
}

/// Which dead letters.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Choice {
    #[command(flatten)]
    filter: Filter,
    /// Of this class: validation, permission, not_found, conflict, duplicate, dependency, payload, exhausted, panic, unknown.
    #[arg(long, value_name = "CLASS", value_parser = CLASSES)]
    class: Option<String>,
}

const CLASSES: [&str; 10] =
    ["validation", "permission", "not_found", "conflict", "duplicate", "dependency", "payload", "exhausted", "panic", "unknown"];

#[derive(Debug, clap::Args)]
pub(crate) struct Act {
    /// Their numbers; without any, the open ones that the filters let through.
    #[arg(conflicts_with_all = ["sync", "since", "condition", "class", "all"])]
    ids: Vec<i64>,
    #[command(flatten)]
    choice: Choice,
    /// Every open one.
    #[arg(long)]
    all: bool,
    /// Don't ask.
    #[arg(long)]
    yes: bool,
}

#[derive(Clone, Copy)]
enum Verb {
    Requeue,
    Discard,
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { choice, all, limit } => {
            let rows = chosen(&db, &config, &choice, if all { ALL } else { OPEN }).await?;
            list(session, &rows, limit)
        }
        Command::Show { id } => show(session, &db, id).await,
        Command::Requeue(act) => carry_out(session, &config, &db, act, Verb::Requeue).await,
        Command::Discard(act) => carry_out(session, &config, &db, act, Verb::Discard).await,
    }
}

fn list(session: &Session, rows: &[Value], limit: usize) -> anyhow::Result<Answer> {
    let shown = &rows[..rows.len().min(limit)];
    if session.options.json {
        output::json(&json!(shown))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("ID", "id"),
        text("SYNC", "sync"),
        text("KEY", "key"),
        text("CLASS", "error_class"),
        text("FIELD", "field"),
        text("MESSAGE", "message"),
        text("RESOLUTION", "resolution"),
        time("SINCE", "created_at"),
    ];
    output::line(&output::table(&columns, shown, "no open dead letters"))?;
    if shown.len() < rows.len() {
        eprintln!("the oldest {} of {}; --limit shows more", shown.len(), rows.len());
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db, id: i64) -> anyhow::Result<Answer> {
    let Some(letter) = letters(db, &[id]).await?.pop() else {
        return Err(Usage(format!("there is no dead letter {id}")).into());
    };
    if session.options.json {
        output::json(&letter)?
    } else {
        output::line(&output::record(&letter))?
    }
    Ok(Answer::Yes)
}

async fn carry_out(session: &Session, config: &Config, db: &Db, act: Act, verb: Verb) -> anyhow::Result<Answer> {
    let choice = act.choice;
    if act.ids.is_empty() && !act.all && choice.filter.is_empty() && choice.class.is_none() {
        return Err(Usage("name the dead letters, or filter them with --sync, --class, --since or --where, or say --all".to_owned()).into());
    }
    let ids = if act.ids.is_empty() {
        let rows = chosen(db, config, &choice, OPEN).await?;
        if !filter::confirm(&plan(&rows, verb), act.yes)? {
            return Ok(Answer::No);
        }
        rows.iter().filter_map(|row| row["id"].as_i64()).collect()
    } else {
        act.ids
    };
    let mut done = Vec::new();
    for id in ids {
        done.push(match verb {
            Verb::Requeue => json!({ "id": id, "job": requeue(db, id).await? }),
            Verb::Discard => {
                discard(db, id).await?;
                json!({ "id": id })
            }
        });
    }
    let word = match verb {
        Verb::Requeue => "requeued",
        Verb::Discard => "discarded",
    };
    if session.options.json {
        output::json(&json!({ word: done }))?
    } else {
        output::line(&format!("{} {word}", done.len()))?
    }
    Ok(Answer::Yes)
}

fn plan(rows: &[Value], verb: Verb) -> String {
    let mut groups: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in rows {
        *groups.entry((output::plain(&row["sync"]), output::plain(&row["error_class"]))).or_default() += 1;
    }
    let what = match verb {
        Verb::Requeue => "requeued, in the interactive lane, with the rows as they are now",
        Verb::Discard => "discarded; their records stay as they are in Zoho",
    };
    let mut text = format!("{} dead letter(s) would be {what}:", rows.len());
    for ((sync, class), count) in groups.iter().take(PLANNED) {
        text.push_str(&format!("\n  {count:>6}  {} {class}", if sync.is_empty() { "(no sync)" } else { sync }));
    }
    if groups.len() > PLANNED {
        text.push_str("\n  and more");
    }
    text
}

async fn chosen(db: &Db, config: &Config, choice: &Choice, from: &'static str) -> anyhow::Result<Vec<Value>> {
    let ids = filter::ids(db, config, from, &choice.filter).await?;
    let mut rows = letters(db, &ids).await?;
    rows.retain(|row| choice.class.as_deref().is_none_or(|class| row["error_class"] == class));
    Ok(rows)
}

async fn letters(db: &Db, ids: &[i64]) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(d) as "row!" from sluice.dead_letter d where id = any ($1) order by id"#, ids)
        .fetch_all(db)
        .await
}

async fn requeue(db: &Db, id: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"select sluice.requeue($1) as "job!""#, id).fetch_one(db).await
}

async fn discard(db: &Db, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.discard($1)", id).execute(db).await.map(|_| ())
}
