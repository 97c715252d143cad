//! `sluice check`: looks for whatever could keep the syncs from working, and says what to do about each thing it finds. Changes nothing in
//! tables of the user's, nor in Zoho unless `--provision` asks for the fields that CRM lacks; what it learns of Zoho (an access token, the organisation) is kept for the workers.

mod database;
mod syncs;
mod zoho;

use serde::Serialize;
use serde_json::json;
use sluice_core::config::Config;
use sluice_core::db::{self, Db};
use sluice_core::secrets::KeyRing;
use sluice_producer::{Definitions, capture, publish};

use crate::commands::status;
use crate::exit::Answer;
use crate::output;
use crate::session::{self, Session};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Ask nothing of Zoho. Without it each connection is asked with one call of its budget, two where its organisation is not known
    /// yet, and one for each CRM sync.
    #[arg(long)]
    offline: bool,
    /// Make the CRM fields and picklist values that the syncs need and Zoho lacks. Without it they are listed.
    #[arg(long, conflicts_with = "offline")]
    provision: bool,
    /// With --provision: only say what would be made.
    #[arg(long, requires = "provision")]
    plan: bool,
}

/// What is to be done about fields that CRM lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fields {
    /// Zoho is not asked.
    Unasked,
    /// They are errors.
    Needed,
    /// They are said to be made.
    Planned,
    /// They are made.
    Made,
}

impl Args {
    fn fields(&self) -> Fields {
        match (self.offline, self.provision, self.plan) {
            (true, ..) => Fields::Unasked,
            (false, true, true) => Fields::Planned,
            (false, true, false) => Fields::Made,
            (false, false, _) => Fields::Needed,
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    level: Level,
    /// What it is about: `database`, `connections.main`, `syncs.customers.fields.email`.
    at: String,
    /// What is so, and what to do about it.
    message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Ok,
    Warning,
    Error,
}

impl Finding {
    fn ok(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Ok, at: at.into(), message: message.into() }
    }

    fn warning(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Warning, at: at.into(), message: message.into() }
    }

    fn error(at: impl Into<String>, message: impl Into<String>) -> Self {
        Self { level: Level::Error, at: at.into(), message: message.into() }
    }
}

pub(crate) async fn run(session: &Session, args: Args) -> anyhow::Result<Answer> {
    let config = session.config()?;
    let url = session::running(&config)?;
    let mut findings = configuration(&config);
    match session::connect(&config, &url, "sluice check").await {
        Ok(db) => in_database(&config, &db, args.fields(), &mut findings).await?,
        Err(error) => findings.push(Finding::error("database", format!("{error:#}"))),
    }
    print(session, &findings)?;
    let healthy = findings.iter().all(|finding| finding.level != Level::Error);
    Ok(if healthy { Answer::Yes } else { Answer::No })
}

fn configuration(config: &Config) -> Vec<Finding> {
    let file = config.file.as_ref().map_or_else(|| "the configuration".to_owned(), |file| file.display().to_string());
    let read = format!("{file}: {} connection(s), {} sync(s)", config.connections.len(), config.syncs.len());
    let notes = config.notes.iter().map(|note| Finding::warning("configuration", note.to_string()));
    let key = KeyRing::load(&config.security, config.folder()).err().map(|error| Finding::warning("security.key", error.to_string()));
    std::iter::once(Finding::ok("configuration", read)).chain(notes).chain(key).collect()
}

async fn in_database(config: &Config, db: &Db, fields: Fields, findings: &mut Vec<Finding>) -> anyhow::Result<()> {
    findings.extend(database::rights(config, db).await?);
    let schema = db::migrate::check(db).await;
    let has_schema = schema.is_ok();
    findings.push(match schema {
        Ok(()) => Finding::ok("schema", "up to date"),
        Err(error) => Finding::error("schema", error.to_string()),
    });
    let definitions = Definitions::proven(db, config).await?;
    findings.extend(syncs::definitions(&definitions, db).await?);
    if has_schema {
        findings.extend(database::roles(db).await?);
        findings.extend(database::history(db).await?);
        let asked = if fields == Fields::Unasked { Vec::new() } else { zoho::ask(config, db).await };
        let refused = |at: &str| asked.iter().any(|finding| finding.level == Level::Error && finding.at == at);
        // a refusal says it all
        findings.extend(syncs::credentials(config, db).await?.into_iter().filter(|finding| !refused(&finding.at)));
        let let_in = |name: &str| !refused(&format!("connections.{name}"));
        let provisioned = match fields {
            Fields::Unasked => Vec::new(),
            fields => zoho::provision(config, db, &definitions, fields, let_in).await,
        };
        findings.extend(asked.iter().cloned());
        findings.extend(provisioned);
        let retyped = publish::retyped(db, &definitions).await?;
        findings.extend(retyped.iter().map(|one| Finding::error(format!("syncs.{}.key", one.sync), one.to_string())));
        let uncaptured = capture::uncaptured(db, &definitions).await?;
        findings.extend(uncaptured.iter().map(|one| Finding::warning(format!("table {}", one.table), &one.why)));
        let notices = status::differing(config, db).await?.into_iter().chain(status::unwritten(db).await?);
        findings.extend(notices.map(|notice| Finding::warning("status", notice)));
    }
    Ok(())
}

fn print(session: &Session, findings: &[Finding]) -> std::io::Result<()> {
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(Level::Error), count(Level::Warning));
    if session.options.json {
        return output::json(&json!({ "errors": errors, "warnings": warnings, "findings": findings }));
    }
    for Finding { level, at, message } in findings {
        let mark = match level {
            Level::Ok => "ok      ",
            Level::Warning => "warning ",
            Level::Error => "ERROR   ",
        };
        output::line(&format!("{mark} {at}: {}", message.replace('\n', "\n           ")))?;
    }
    output::line(&format!("{errors} error(s), {warnings} warning(s)"))
}
