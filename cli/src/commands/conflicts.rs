//! `sluice conflicts list | show | resolve`: fields that changed on both sides and that no policy decides.

use std::collections::BTreeMap;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const OPEN: &str = "select * from sluice.conflict where resolution is null";
const ALL: &str = "select * from sluice.conflict";
/// Groups that a plan names before it says "and more".
const PLANNED: usize = 12;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Open conflicts, oldest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also those that were resolved, or overtaken by a later change.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One conflict with its three values: what both sides agreed on, here, and in Zoho.
    Show {
        /// Its number.
        id: i64,
    },
    /// Decide conflicts. The record's next run carries it out.
    Resolve {
        /// Their numbers; without any, the open ones that the filters let through.
        #[arg(conflicts_with_all = ["sync", "since", "condition"])]
        ids: Vec<i64>,
        /// Whose value stays: the local row's, or Zoho's.
        #[arg(long)]
        side: Side,
        #[command(flatten)]
        filter: Filter,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Side {
    /// Zoho gets the local value.
    Local,
    /// The row gets Zoho's value.
    Zoho,
}

impl Side {
    fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Zoho => "zoho",
        }
    }
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { filter, all, limit } => {
            let ids = filter::ids(&db, &config, if all { ALL } else { OPEN }, &filter).await?;
            list(session, &conflicts(&db, &ids[..ids.len().min(limit)]).await?, ids.len())
        }
        Command::Show { id } => show(session, &db, id).await,
        Command::Resolve { ids, side, filter, yes } => resolve(session, &config, &db, ids, side, &filter, yes).await,
    }
}

fn list(session: &Session, rows: &[Value], total: usize) -> anyhow::Result<Answer> {
    if session.options.json {
        output::json(&json!(rows))?;
        return Ok(Answer::Yes);
    }
    let columns = [
        text("ID", "id"),
        text("SYNC", "sync"),
        text("KEY", "key"),
        text("FIELD", "field"),
        text("HERE", "local"),
        text("IN ZOHO", "zoho"),
        text("WHY", "reason"),
        text("RESOLUTION", "resolution"),
        time("SINCE", "created_at"),
    ];
    output::line(&output::table(&columns, rows, "no open conflicts"))?;
    if rows.len() < total {
        eprintln!("the oldest {} of {total}; --limit shows more", rows.len());
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db, id: i64) -> anyhow::Result<Answer> {
    let Some(conflict) = conflicts(db, &[id]).await?.pop() else {
        return Err(Usage(format!("there is no conflict {id}")).into());
    };
    if session.options.json {
        output::json(&conflict)?
    } else {
        output::line(&output::record(&conflict))?
    }
    Ok(Answer::Yes)
}

async fn resolve(
    session: &Session,
    config: &Config,
    db: &Db,
    ids: Vec<i64>,
    side: Side,
    filter: &Filter,
    yes: bool,
) -> anyhow::Result<Answer> {
    if ids.is_empty() && filter.is_empty() {
        return Err(Usage("name the conflicts, or filter them with --sync, --since or --where".to_owned()).into());
    }
    let ids = if ids.is_empty() {
        let ids = filter::ids(db, config, OPEN, filter).await?;
        if !filter::confirm(&plan(&conflicts(db, &ids).await?, side), yes)? {
            return Ok(Answer::No);
        }
        ids
    } else {
        ids
    };
    for id in &ids {
        sqlx::query!("select sluice.resolve($1, $2)", id, side.as_str()).execute(db).await?;
    }
    if session.options.json {
        output::json(&json!({ "resolved": ids, "side": side.as_str() }))?;
    } else {
        output::line(&format!("{} resolved: {}", ids.len(), side.as_str()))?;
    }
    Ok(Answer::Yes)
}

fn plan(rows: &[Value], side: Side) -> String {
    let mut groups: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in rows {
        *groups.entry((output::plain(&row["sync"]), output::plain(&row["field"]))).or_default() += 1;
    }
    let what = match side {
        Side::Local => "Zoho would get the local value",
        Side::Zoho => "the local rows would get Zoho's value",
    };
    let mut text = format!("{} conflict(s) would be resolved: {what}:", rows.len());
    for ((sync, field), count) in groups.iter().take(PLANNED) {
        text.push_str(&format!("\n  {count:>6}  {sync} {field}"));
    }
    if groups.len() > PLANNED {
        text.push_str("\n  and more");
    }
    text
}

async fn conflicts(db: &Db, ids: &[i64]) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(c) as "row!" from sluice.conflict c where id = any ($1) order by id"#, ids).fetch_all(db).await
}
