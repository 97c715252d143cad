//! How a command ends: 0 done, 1 the answer is "no", 2 usage or configuration. Scripts rely on the difference between 1 and 2:
//! 2 means that trying again changes nothing.

use std::process::ExitCode;

use sluice_core::{config, db, postgres, secrets};
use sluice_producer::{plan, publish, trigger};

/// What a command that ran to its end has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Done; healthy.
    Yes,
    /// Unhealthy, failures, or not done because a person said no.
    No,
}

impl From<Answer> for ExitCode {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Yes => Self::SUCCESS,
            Answer::No => Self::from(NO),
        }
    }
}

const NO: u8 = 1;
const USAGE: u8 = 2;

/// The command line or the configuration asks for something that cannot be.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// Prints an error and gives its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS; // the reader has seen enough: `sluice jobs list | head`
    }
    // sqlx says what the database said twice, and at which line of PostgreSQL's own source
    match error.downcast_ref::<sqlx::Error>().and_then(sqlx::Error::as_database_error) {
        Some(said) => eprintln!("sluice: {}", said.message()),
        None => eprintln!("sluice: {error:#}"),
    }
    if let Some(hint) = hint(error) {
        eprintln!("hint: {hint}");
    }
    ExitCode::from(if is_usage(error) { USAGE } else { NO })
}

/// Whether the command line or the configuration is what has to change.
pub(crate) fn is_usage(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.is::<Usage>()
            || cause.is::<config::Error>()
            || cause.is::<secrets::Error>()
            || cause.downcast_ref::<postgres::Error>().is_some_and(is_missing_server)
            || matches!(cause.downcast_ref(), Some(publish::Error::Invalid(_) | publish::Error::Cron { .. } | publish::Error::Retirable(_)))
            || cause.downcast_ref().is_some_and(is_refused)
            || matches!(cause.downcast_ref(), Some(plan::Error::Where(_)))
            || matches!(cause.downcast_ref(), Some(plan::Error::Trigger(error)) if is_refused(error))
            || matches!(cause.downcast_ref(), Some(db::migrate::Error::Behind { .. } | db::migrate::Error::Newer { .. }))
            || cause.downcast_ref::<sqlx::Error>().is_some_and(is_refused_argument)
    })
}

fn is_refused(error: &trigger::Error) -> bool {
    matches!(error, trigger::Error::UnknownSync(_) | trigger::Error::Refused(_) | trigger::Error::NoRow { .. })
}

fn is_missing_server(error: &postgres::Error) -> bool {
    matches!(error, postgres::Error::NotRunning | postgres::Error::NotInstalled { .. })
}

/// What our own SQL functions raise for an unknown sync, key, dead letter or job; and an address that is none.
fn is_refused_argument(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Configuration(_) => true,
        sqlx::Error::Database(error) => matches!(error.code().as_deref(), Some("22023" | "02000")),
        _ => false,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe))
}

fn hint(error: &anyhow::Error) -> Option<String> {
    let database = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>())?.as_database_error()?;
    let postgres = database.try_downcast_ref::<sqlx::postgres::PgDatabaseError>()?;
    postgres.hint().filter(|hint| !hint.is_empty()).map(str::to_owned)
}
