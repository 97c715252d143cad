//! Which jobs, dead letters or events a command means: by number, or by `--sync --class --since --where`. Acting on many shows a plan and asks.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sluice_core::config::Config;
use sluice_core::config::units::parse_duration;
use sluice_core::db::Db;
use sluice_core::db::dynamic::{self, Expression, Sql};

use crate::exit::Usage;

/// How long a `--where` may take.
const WHERE_LIMIT: Duration = Duration::from_secs(5);

/// The filters that lists and bulk acts share.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Filter {
    /// Of this sync only.
    #[arg(long, value_name = "SYNC")]
    pub(crate) sync: Option<String>,
    /// Since this time (2026-01-31T12:00:00Z), or for the last so long (2h, 7d).
    #[arg(long, value_name = "TIME", value_parser = since)]
    pub(crate) since: Option<DateTime<Utc>>,
    /// For which this SQL over the row is true; the row's columns are those that `--json` shows.
    #[arg(long = "where", value_name = "SQL")]
    pub(crate) condition: Option<String>,
}

impl Filter {
    /// Whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.sync.is_none() && self.since.is_none() && self.condition.is_none()
    }
}

/// The ids of `from` (a select of ours with the columns `id`, `sync` and `created_at`) that pass the filter, oldest first. A read-only
/// transaction under the expressions' role where there is a `--where`, which is SQL of the person at the keyboard.
///
/// # Errors
/// An unknown sync, what the database says of the `--where`, among others.
pub(crate) async fn ids(db: &Db, config: &Config, from: &'static str, filter: &Filter) -> anyhow::Result<Vec<i64>> {
    if let Some(sync) = &filter.sync {
        known(db, config, sync).await?;
    }
    let sql = Sql::new("select id from (").text(from).text(") as row where (");
    let sql = sql.numbered(1).text("::text is null or sync = ").numbered(1).text(") and (");
    let mut sql = sql.numbered(2).text("::timestamptz is null or created_at >= ").numbered(2).text(")");
    let mut role = None;
    if let Some(condition) = &filter.condition {
        sql = sql.text(" and ").expression(&Expression::from_configuration(condition));
        role = config.database.expression_role.as_deref();
    }
    let mut tx = db.begin_read_only(role, WHERE_LIMIT).await?;
    let found = dynamic::query_scalar(sql.text(" order by id")).bind(&filter.sync).bind(filter.since).fetch_all(&mut tx).await;
    match found {
        Ok(ids) => Ok(ids),
        Err(error) if filter.condition.is_some() && error.as_database_error().is_some() => Err(Usage(format!("--where: {error}")).into()),
        Err(error) => Err(error.into()),
    }
}

/// That all numbers given were of something; what could be done for the others is done.
///
/// # Errors
/// [`Usage`], naming those that are of nothing.
pub(crate) fn all_known(what: &str, unknown: &[i64]) -> Result<(), Usage> {
    let numbers: Vec<String> = unknown.iter().map(i64::to_string).collect();
    match numbers.len() {
        0 => Ok(()),
        _ => Err(Usage(format!("there is no {what} {}, or history no longer holds it", numbers.join(", ")))),
    }
}

/// That there is such a sync, in the file or published, if only once.
///
/// # Errors
/// [`Usage`], naming those published, among others.
pub(crate) async fn known(db: &Db, config: &Config, sync: &str) -> anyhow::Result<()> {
    let published = sqlx::query_scalar!("select name from sluice.sync order by name").fetch_all(db).await?;
    if config.syncs.contains_key(sync) || published.iter().any(|name| name == sync) {
        return Ok(());
    }
    let names = if published.is_empty() {
        "this database has none yet: in the folder of a sluice.toml, `sluice attach` or `sluice up` publishes its syncs".to_owned()
    } else {
        format!("there is {}", published.join(", "))
    };
    Err(Usage(format!("unknown sync \"{sync}\"; {names}")).into())
}

/// Shows a plan and asks whether to go on. `yes` was given on the command line.
///
/// # Errors
/// [`Usage`] where nobody can be asked.
pub(crate) fn confirm(plan: &str, yes: bool) -> anyhow::Result<bool> {
    eprintln!("{plan}");
    if yes {
        return Ok(true);
    }
    if !io::stdin().is_terminal() {
        return Err(Usage("this is a plan only, since nobody can be asked: add --yes to carry it out".to_owned()).into());
    }
    eprint!("Go on? [y/N] ");
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// A time, or how long ago.
///
/// # Errors
/// A sentence that says what is understood.
pub(crate) fn since(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Ok(time.to_utc());
    }
    let back = parse_duration(text).map_err(|_| format!("`{text}` is neither a time (2026-01-31T12:00:00Z) nor a duration (2h, 7d)"))?;
    let back = chrono::Duration::from_std(back).map_err(|error| error.to_string())?;
    Utc::now().checked_sub_signed(back).ok_or_else(|| format!("`{text}` is too long ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_a_time_or_a_duration() {
        assert_eq!(since("2026-01-31T12:00:00+02:00").map(|time| time.to_rfc3339()).as_deref(), Ok("2026-01-31T10:00:00+00:00"));
        let ago = Utc::now() - since("2h").expect("a duration");
        assert!((7_199..7_260).contains(&ago.num_seconds()), "{ago}");
        assert!(since("yesterday").expect_err("neither").contains("neither a time"));
    }
}
