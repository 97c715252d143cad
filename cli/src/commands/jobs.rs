//! `sluice jobs list | show | cancel`: unfinished work.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::{self, Filter};
use crate::output::{self, text, time};
use crate::session::Session;

const ALL: &str = "select * from sluice.job_status";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Unfinished jobs, oldest first.
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many.
        #[arg(long, default_value_t = 100)]
        limit: usize,
    },
    /// One job and its attempts, finished or not.
    Show {
        /// Its number.
        id: i64,
    },
    /// Withdraw jobs that do not run yet. The run behind one goes on if another job asks for it.
    Cancel {
        /// Their numbers; without any, those that the filters let through.
        #[arg(conflicts_with_all = ["sync", "since", "condition"])]
        ids: Vec<i64>,
        #[command(flatten)]
        filter: Filter,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

pub(crate) async fn run(session: &Session, command: Command) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    match command {
        Command::List { filter, limit } => {
            let mut ids = filter::ids(&db, &config, ALL, &filter).await?;
            let total = ids.len();
            ids.truncate(limit);
            list(session, &unfinished(&db, &ids).await?, total)
        }
        Command::Show { id } => show(session, &db, id).await,
        Command::Cancel { ids, filter, yes } => {
            if ids.is_empty() && filter.is_empty() {
                return Err(Usage("name the jobs, or filter them with --sync, --since or --where".to_owned()).into());
            }
            let bulk = ids.is_empty();
            let ids = if bulk { filter::ids(&db, &config, ALL, &filter).await? } else { ids };
            if bulk && !filter::confirm(&format!("{} job(s) would be withdrawn, unless they run.", ids.len()), yes)? {
                return Ok(Answer::No);
            }
            cancel(session, &db, &ids).await
        }
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
        text("KEY", "key"),
        text("LANE", "lane"),
        text("STATE", "state"),
        time("DUE", "run_at"),
        text("ATTEMPT", "attempt"),
        text("FAILURES", "failures"),
        text("LAST ERROR", "last_error"),
    ];
    output::line(&output::table(&columns, rows, "no unfinished jobs"))?;
    if rows.len() < total {
        eprintln!("the oldest {} of {total}; --limit shows more", rows.len());
    }
    Ok(Answer::Yes)
}

async fn show(session: &Session, db: &Db, id: i64) -> anyhow::Result<Answer> {
    let job = match unfinished(db, &[id]).await?.pop() {
        Some(job) => Some(job),
        None => finished(db, id).await?,
    };
    let Some(mut job) = job else {
        return Err(Usage(format!("there is no job {id}, or history no longer holds it")).into());
    };
    let result = sqlx::query_scalar!("select sluice.job_result($1)", id).fetch_one(db).await?;
    let attempts = attempts(db, job["sync"].as_str(), job["key"].as_str()).await?;
    if let Some(entries) = job.as_object_mut() {
        entries.insert("result".to_owned(), json!(result));
        entries.insert("attempts".to_owned(), Value::Array(attempts));
    }
    if session.options.json {
        output::json(&job)?
    } else {
        output::line(&output::record(&job))?
    }
    Ok(Answer::Yes)
}

async fn cancel(session: &Session, db: &Db, ids: &[i64]) -> anyhow::Result<Answer> {
    let (mut withdrawn, mut left, mut unknown) = (Vec::new(), BTreeMap::new(), Vec::new());
    for id in ids {
        let done = sqlx::query_scalar!(r#"select sluice.cancel($1) as "done!""#, id).fetch_one(db).await?;
        if done {
            withdrawn.push(id);
            continue;
        }
        let result = sqlx::query_scalar!("select sluice.job_result($1)", id).fetch_one(db).await?;
        match result {
            None => unknown.push(*id),
            Some(result) => drop(left.insert(id, why_left(&result))),
        }
    }
    if session.options.json {
        let left: Vec<Value> = left.iter().map(|(id, why)| json!({ "id": id, "why": why })).collect();
        output::json(&json!({ "cancelled": withdrawn, "left": left }))?;
    } else {
        output::line(&format!("{} withdrawn", withdrawn.len()))?;
        for (id, why) in &left {
            eprintln!("job {id} {why}");
        }
    }
    filter::all_known("job", &unknown)?;
    Ok(if left.is_empty() { Answer::Yes } else { Answer::No })
}

fn why_left(result: &str) -> &'static str {
    match result {
        "running" => "runs already",
        "waiting" => "is in somebody's hands at this moment; try again",
        "done" => "has ended already: done",
        "dead" => "has ended already, as a dead letter (sluice dlq list)",
        "cancelled" => "was withdrawn already",
        _ => "has ended already",
    }
}

async fn unfinished(db: &Db, ids: &[i64]) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(j) as "row!" from sluice.job_status j where id = any ($1) order by id"#, ids).fetch_all(db).await
}

async fn finished(db: &Db, id: i64) -> Result<Option<Value>, sqlx::Error> {
    sqlx::query_scalar!(r#"select to_jsonb(h) as "row!" from sluice.job_history h where job_id = $1 order by finished_at desc limit 1"#, id)
        .fetch_optional(db)
        .await
}

/// The last attempts at the job's record.
async fn attempts(db: &Db, sync: Option<&str>, key: Option<&str>) -> Result<Vec<Value>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select to_jsonb(a) as "row!" from sluice.attempt a where sync = $1 and key = $2 order by at desc limit 20"#,
        sync,
        key
    )
    .fetch_all(db)
    .await
}
