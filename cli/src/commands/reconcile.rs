//! `sluice reconcile`: compares both sides of a sync as a whole, and has what differs put right.

use std::time::Duration;

use serde_json::Value;
use sluice_core::db::Db;

use crate::exit::{Answer, Usage};
use crate::filter::known;
use crate::output;
use crate::session::Session;

/// How often `--wait` looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sync.
    sync: String,
    /// Wait until it is over, and what it asked for is read; ends with 1 if it failed or something is held.
    #[arg(long)]
    wait: bool,
    /// The lane; without it, `reconcile`.
    #[arg(long, value_name = "LANE")]
    lane: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open_database().await?;
    known(&db, &config, &args.sync).await?;
    let asked = sqlx::query_scalar!(r#"select sluice.reconcile($1, $2) as "id!""#, args.sync, args.lane).fetch_one(&db).await;
    let id = match asked {
        Ok(id) => id,
        Err(sqlx::Error::Database(refusal)) if refusal.code().as_deref() == Some("22023") => {
            return Err(Usage(refusal.message().to_owned()).into());
        }
        Err(error) => return Err(error.into()),
    };
    let mut state = look(&db, id).await?;
    while args.wait && !state.over {
        tokio::time::sleep(LOOK_EVERY).await;
        state = look(&db, id).await?;
    }
    if session.options.json {
        output::json(&state.run)?
    } else {
        output::line(&output::record(&state.run))?
    }
    let bad = matches!(state.run["state"].as_str(), Some("failed" | "held"));
    Ok(if args.wait && bad { Answer::No } else { Answer::Yes })
}

struct State {
    run: Value,
    /// It has ended, and what it asked for was read and applied.
    over: bool,
}

async fn look(db: &Db, id: i64) -> Result<State, sqlx::Error> {
    let row = sqlx::query!(
        r#"select to_jsonb(r) as "run!", r.state <> 'running'
             and not exists (select from sluice.sighting s left join sluice.link l on l.sync = s.sync and l.zoho_id = s.zoho_id
               where s.sync = r.sync and s.run_id = r.id
                 and (exists (select from sluice.slot t where t.sync = s.sync and t.key in ('zoho:' || s.zoho_id, l.key))
                   or exists (select from sluice.job j where j.sync = s.sync and j.sync <> '' and j.key in ('zoho:' || s.zoho_id, l.key))))
             and not exists (select from sluice.local_write w where w.sync = r.sync and w.error is null and (w.pull ->> 'run_id')::bigint = r.id) as "over!"
           from sluice.run r where r.id = $1"#,
        id
    )
    .fetch_one(db)
    .await?;
    Ok(State { run: row.run, over: row.over })
}
