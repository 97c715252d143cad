//! `sluice held list | show | approve | reject`: changes that a brake holds until somebody decides, whichever side they come from.

use clap::Subcommand;
use serde_json::{Value, json};
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const OPEN: &str = "select * from sluice.held_change where resolution is null";
const ALL: &str = "select * from sluice.held_change";
/// Samples that a plan shows.
const PLANNED: usize = 5;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Held changes that wait for a decision, oldest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// Also those that were approved, rejected or undone.
        #[arg(long)]
        all: bool,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One held change: why it is held, a sample with old and new values, and its records.
    Show {
        /// Its number.
        id: i64,
        /// At most so many of its records.
        #[arg(long, default_value_t = 100)]
        limit: i64,
    },
    /// Send, or apply, what is held: all of it, the records named, or the first so many. The rest stays held.
    Approve {
        /// Its number.
        id: i64,
        /// Only these records: keys as text; of several columns as JSON arrays.
        keys: Vec<String>,
        /// At most so many records.
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        limit: Option<i32>,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
    /// Send, or apply, nothing of it. Rows and Zoho's records stay as they are, and differ, until a row changes again or is pushed.
    Reject {
        /// Its number.
        id: i64,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { filter, all, limit } => {
            let ids = filter::ids(&db, &config, if all { ALL } else { OPEN }, &filter).await?;
            list(session, &changes(&db, &ids[..ids.len().min(limit)]).await?, ids.len())
        }
        Command::Show { id, limit } => show(session, &db, id, limit).await,
        Command::Approve { id, keys, limit, yes } => approve(session, &db, id, &keys, limit, yes).await,
        Command::Reject { id, yes } => reject(session, &db, id, yes).await,
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
        text("WHAT", "operation"),
        text("RECORDS", "records"),
        text("WHY", "reason"),
        text("RESOLUTION", "resolution"),
        time("SINCE", "created_at"),
    ];
    output::line(&output::table(&columns, rows, "nothing is held"))?;
    if rows.len() < total {
        eprintln!("the oldest {} of {total}; --limit shows more", rows.len());
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db, id: i64, limit: i64) -> anyhow::Result<Answer> {
    let mut held = one(db, id).await?;
    let records = sqlx::query_scalar!(
        r#"select jsonb_build_object('key', key, 'operation', operation, 'held_at', held_at) as "row!" from sluice.held_record where held_id = $1 and resolution is null order by id limit $2"#,
        id,
        limit
    )
    .fetch_all(db)
    .await?;
    if session.options.json {
        if let Some(entries) = held.as_object_mut() {
            entries.insert("held_records".to_owned(), Value::Array(records));
        }
        output::json(&held)?;
        return Ok(Answer::Yes);
    }
    let total = held["records"].as_i64().unwrap_or_default();
    output::line(&output::record(&held))?;
    if !records.is_empty() {
        output::line(&output::table(&[text("KEY", "key"), text("WOULD BE", "operation"), time("HELD", "held_at")], &records, ""))?;
        if i64::try_from(records.len()).unwrap_or(i64::MAX) < total {
            eprintln!("the first {} of {total} records; --limit shows more", records.len());
        }
    }
    Ok(Answer::Yes)
}

async fn approve(session: &Session, db: &Db, id: i64, keys: &[String], limit: Option<i32>, yes: bool) -> anyhow::Result<Answer> {
    let mut held = open(db, id).await?;
    if names_no_record(&held) {
        let (sync, reason) = (output::plain(&held["sync"]), output::plain(&held["reason"]));
        return Err(Usage(format!(
            "held change {id} names no record, so there is nothing to push: {reason}. Mend what it names, then `sluice trigger {sync}` sends rows that were never sent, `sluice reconcile {sync}` finds what else was missed, and `sluice held reject {id}` ends it"
        ))
        .into());
    }
    if !keys.is_empty() {
        held["sample"] = named(db, &held, keys).await?;
    }
    let chosen = match (keys.len(), limit) {
        (0, None) => "all".to_owned(),
        (0, Some(limit)) => format!("the first {limit}"),
        (named, None) => format!("{named} named"),
        (named, Some(limit)) => format!("the first {limit} of {named} named"),
    };
    let what = if from_zoho(&held) { "read in Zoho and applied here" } else { "pushed" };
    let plan = format!(
        "{chosen} of the {} records would be {what} as they are then, deletes by `on_delete`:{}",
        held["records"],
        sample(&held, limit)
    );
    if !filter::confirm(&plan, yes)? {
        return Ok(Answer::No);
    }
    let keys = if keys.is_empty() { None } else { Some(keys) };
    let jobs = sqlx::query_scalar!(r#"select sluice.approve($1, $2, $3) as "jobs!""#, id, keys, limit).fetch_one(db).await?;
    let left = one(db, id).await?;
    let left = if left["resolution"].is_null() { left["records"].as_i64().unwrap_or_default() } else { 0 };
    if session.options.json {
        output::json(&json!({ "id": id, "jobs": jobs, "left": left }))?;
    } else {
        output::line(&format!("{jobs} job(s) of {} enqueued; {left} record(s) stay held", output::plain(&held["sync"])))?;
    }
    Ok(Answer::Yes)
}

async fn reject(session: &Session, db: &Db, id: i64, yes: bool) -> anyhow::Result<Answer> {
    let held = open(db, id).await?;
    let plan = if from_zoho(&held) {
        format!(
            "nothing of this would be applied; the rows stay as they are until Zoho says something else of them:{}",
            sample(&held, None)
        )
    } else {
        format!("nothing of this would be sent; Zoho keeps its values until a row changes again:{}", sample(&held, None))
    };
    if !filter::confirm(&plan, yes)? {
        return Ok(Answer::No);
    }
    sqlx::query!("select sluice.reject($1)", id).execute(db).await?;
    if session.options.json {
        output::json(&json!({ "id": id, "resolution": "rejected" }))?;
    } else {
        output::line(&format!("held change {id} is rejected"))?;
    }
    Ok(Answer::Yes)
}

/// Whether it is what Zoho would change here.
fn from_zoho(held: &Value) -> bool {
    matches!(held["operation"].as_str(), Some("pull" | "pull_delete" | "missing"))
}

/// Whether it is a change whose record nobody could tell.
fn names_no_record(held: &Value) -> bool {
    matches!(held["operation"].as_str(), Some("key" | "watch"))
}

/// What stands in a plan: why it is held, and a few of its records, not more than are meant.
fn sample(held: &Value, limit: Option<i32>) -> String {
    let mut text = format!("\n  {} {}", output::plain(&held["sync"]), output::plain(&held["reason"]));
    let shown = held["sample"].as_array().map_or(&[][..], Vec::as_slice);
    let most = limit.and_then(|limit| usize::try_from(limit).ok()).map_or(PLANNED, |limit| limit.min(PLANNED));
    for one in shown.iter().take(most) {
        if names_no_record(held) {
            text.push_str(&format!("\n    {one}"));
            continue;
        }
        let fields = one["changed"].as_object().into_iter().flatten();
        let changed: Vec<String> = fields.map(|(field, pair)| format!("{field}: {} → {}", pair["old"], pair["new"])).collect();
        text.push_str(&format!("\n    {} {}  {}", output::plain(&one["operation"]), output::plain(&one["key"]), changed.join(", ")));
    }
    text
}

/// One that nobody has decided yet.
async fn open(db: &Db, id: i64) -> anyhow::Result<Value> {
    let held = one(db, id).await?;
    match held["resolution"].as_str() {
        None => Ok(held),
        Some(resolution) => {
            let by = output::plain(&held["resolved_by"]);
            Err(Usage(format!(
                "held change {id} was decided already: {resolution}{}",
                if by.is_empty() { by } else { format!(" by {by}") }
            ))
            .into())
        }
    }
}

/// The records of these keys, in the form of the sample, with the values of those that are part of it.
async fn named(db: &Db, held: &Value, keys: &[String]) -> anyhow::Result<Value> {
    let id = held["id"].as_i64();
    let sync = held["sync"].as_str();
    let records = sqlx::query!(
        r#"select k.given as "given!", r.key as "key?", r.operation as "operation?"
           from unnest($3::text[]) with ordinality as k (given, number)
           left join sluice.held_record r on r.held_id = $1 and r.resolution is null
             and r.key = case when k.given like 'zoho:%' then k.given else sluice.canonical_key($2, to_jsonb(k.given)) end
           order by k.number"#,
        id,
        sync,
        keys
    )
    .fetch_all(db)
    .await?;
    let sampled = held["sample"].as_array().map_or(&[][..], Vec::as_slice);
    let mut shown = Vec::new();
    for record in records {
        match record.key {
            Some(key) => {
                let known = sampled.iter().find(|one| one["key"] == key.as_str()).cloned();
                shown.push(known.unwrap_or_else(|| json!({ "key": key, "operation": record.operation })));
            }
            // the records of a truncate are found when it is approved
            None if held["operation"] == "truncate" => shown.push(json!({ "key": record.given, "operation": "truncate" })),
            None => {
                let held_of = format!("held change {} does not hold {} {}", id.unwrap_or_default(), sync.unwrap_or_default(), record.given);
                return Err(Usage(held_of).into());
            }
        }
    }
    Ok(Value::Array(shown))
}

async fn one(db: &Db, id: i64) -> anyhow::Result<Value> {
    changes(db, &[id]).await?.pop().ok_or_else(|| Usage(format!("there is no held change {id}")).into())
}

async fn changes(db: &Db, ids: &[i64]) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(h) as "row!" from sluice.held_change h where id = any ($1) order by id"#, ids)
        .fetch_all(db)
        .await
}
