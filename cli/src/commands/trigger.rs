//! `sluice trigger`: syncs one record, or everything of a sync that is due: rows that were never sent, and what changed in Zoho.

use serde_json::json;
use sluice_core::db::Db;
use sluice_producer::trigger::Triggered;
use sluice_producer::{Definitions, publish};
use sluice_sync::read::Reader;

use crate::commands::attach::known;
use crate::exit::Answer;
use crate::output;
use crate::session::Session;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The sync.
    sync: String,
    /// This record only: its key as text; several columns as a JSON array.
    #[arg(long, value_name = "K")]
    key: Option<String>,
    /// This Zoho record only: it is read, and what changed there comes into the database.
    #[arg(long, value_name = "Z", conflicts_with_all = ["key", "force"])]
    zoho_id: Option<String>,
    /// Also what is known to be equal on both sides, and every field of it; where the sync pulls, the whole module is looked at.
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (config, db) = session.open().await?;
    known(&config, std::slice::from_ref(&args.sync))?;
    let definitions = Definitions::proven(&db, &config).await?;
    let errors = definitions.errors(Some(&args.sync));
    if !errors.is_empty() {
        return Err(publish::Error::Invalid(errors).into());
    }
    let reader = Reader::new(db.clone(), config.database.expression_role.clone());
    let Triggered { jobs, refused, reasons } = match &args.zoho_id {
        Some(zoho_id) => {
            sluice_producer::trigger::pull(&db, &args.sync, zoho_id).await?;
            Triggered { jobs: 1, ..Triggered::default() }
        }
        None => sluice_producer::trigger(&db, &reader, &definitions, Some(&args.sync), args.key.as_deref(), args.force).await?,
    };
    let held = if args.zoho_id.is_none() { held(&db, &args.sync).await? } else { 0 };
    if session.options.json {
        let mut told = json!({ "enqueued": jobs });
        if held > 0 {
            told["held"] = json!(held);
        }
        if refused > 0 {
            told["refused"] = json!(refused);
            told["reasons"] = json!(reasons);
        }
        output::json(&told)?;
    } else {
        output::line(&format!("{jobs} job(s) of {} enqueued", args.sync))?;
        if held > 0 {
            output::line(&format!("{held} record(s) are held by the brake and were left out: sluice held list"))?;
        }
        if refused > 0 {
            output::line(&format!("{refused} row(s) were left out, whose key can be no record's: {}", reasons.join("; ")))?;
        }
    }
    Ok(Answer::Yes)
}

/// The records of the sync whose push waits for a decision.
async fn held(db: &Db, sync: &str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(distinct key) as "held!" from sluice.held_record
           where sync = $1 and resolution is null and operation in ('create', 'update', 'delete', 'truncate')"#,
        sync
    )
    .fetch_one(db)
    .await
}
