//! `sluice plan`: what `sluice trigger`, or a backfill, would do. Changes nothing, and asks Zoho nothing.

mod print;

use std::io::IsTerminal;

use sluice_producer::plan::{self, What};
use sluice_producer::{Definitions, publish};
use sluice_sync::read::Reader;

use crate::commands::attach::known;
use crate::exit::{Answer, Usage};
use crate::output;
use crate::session::Session;

/// What stands before the sync if a backfill is meant.
const BACKFILL: &str = "backfill";

#[derive(Debug, clap::Args)]
#[command(override_usage = "sluice plan [OPTIONS] <SYNC>\n       sluice plan [OPTIONS] backfill <SYNC> [--where <SQL>]")]
pub(crate) struct Args {
    /// The sync; with `backfill` before it, what sending every record would do, not only those that are due.
    #[arg(value_name = "[backfill] SYNC", required = true, num_args = 1..=2)]
    what: Vec<String>,
    /// As of `sluice trigger --force`: every row and every field; where the sync pulls, the whole module is looked at.
    #[arg(long)]
    force: bool,
    /// Backfills only: the rows for which this SQL over the row is true.
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let (sync, what) = asked(args)?;
    let (config, db) = session.open().await?;
    known(&config, std::slice::from_ref(&sync))?;
    let definitions = Definitions::proven(&db, &config).await?;
    let errors = definitions.errors(Some(&sync));
    if !errors.is_empty() {
        return Err(publish::Error::Invalid(errors).into());
    }
    let reader = Reader::new(db.clone(), config.database.expression_role.clone());
    let bar = spinner();
    let mut progress = |rows: u64| {
        if let Some(bar) = &bar {
            bar.set_message(format!("{rows} rows"));
            bar.tick();
        }
    };
    let plan = plan::plan(&db, &reader, &definitions, &config, (&sync, &what), &mut progress).await;
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let plan = plan?;
    if session.options.json {
        output::json(&serde_json::to_value(&plan)?)?;
    } else {
        output::line(&print::shown(&plan, chrono::Utc::now()))?;
    }
    Ok(Answer::Yes)
}

/// What the words mean. A sync may be called `backfill`.
fn asked(Args { what, force, condition }: Args) -> Result<(String, What), Usage> {
    match what.as_slice() {
        [sync] if condition.is_none() => Ok((sync.clone(), What::Trigger { force })),
        [sync] => Err(Usage(format!("--where chooses the rows of a backfill: `sluice plan backfill {sync} --where …`"))),
        [word, sync] if word == BACKFILL => Ok((sync.clone(), What::Backfill { condition, force })),
        [word, ..] => {
            Err(Usage(format!("`{word}` cannot be planned; `sluice plan SYNC` plans a trigger, `sluice plan backfill SYNC` a backfill")))
        }
        [] => Err(Usage("which sync?".to_owned())),
    }
}

/// Only for people who watch.
fn spinner() -> Option<indicatif::ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let bar = indicatif::ProgressBar::new_spinner();
        bar.set_message("0 rows");
        bar
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(what: &[&str], condition: Option<&str>) -> Result<(String, What), String> {
        let what = what.iter().map(|word| (*word).to_owned()).collect();
        asked(Args { what, force: false, condition: condition.map(str::to_owned) }).map_err(|usage| usage.0)
    }

    #[test]
    fn a_backfill_is_named_before_its_sync_and_a_sync_may_have_that_name() {
        let backfill = |condition: Option<&str>| What::Backfill { condition: condition.map(str::to_owned), force: false };
        assert_eq!(words(&["items"], None), Ok(("items".to_owned(), What::Trigger { force: false })));
        assert_eq!(words(&["backfill"], None), Ok(("backfill".to_owned(), What::Trigger { force: false })));
        assert_eq!(words(&["backfill", "items"], Some("id > 3")), Ok(("items".to_owned(), backfill(Some("id > 3")))));
        assert!(words(&["items"], Some("id > 3")).is_err_and(|said| said.contains("plan backfill items")));
        assert!(words(&["reconcile", "items"], None).is_err_and(|said| said.contains("`reconcile` cannot be planned")));
    }
}
