//! Publishing, as `migrate`, `attach`, `up` and `demo` do it, and what is said about it.

use std::io;

use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_producer::publish::{self, Options, Published};

use crate::output;
use crate::session;

/// Publishes the configuration under this host's name.
///
/// # Errors
/// See [`publish::Error`]; nothing is published then.
pub(crate) async fn publish(db: &Db, config: &Config, retire: bool) -> Result<Published, publish::Error> {
    publish::publish(db, config, &Options { retire, by: session::host_name() }).await
}

/// Says what changed; warnings go to standard error.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn print(published: &Published) -> io::Result<()> {
    for change in &published.changes {
        output::line(&change.to_string())?;
    }
    if published.changes.is_empty() {
        output::line("the configuration is published already")?;
    }
    for warning in &published.warnings {
        eprintln!("warning: {warning}");
    }
    Ok(())
}
