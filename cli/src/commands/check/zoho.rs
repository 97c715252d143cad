//! Whether Zoho lets each connection in, and has the fields that the syncs need.

use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_producer::Definitions;
use sluice_worker::{Asked, Provision};

use super::{Fields, Finding};

pub(super) async fn ask(config: &Config, db: &Db) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in config.connections.keys() {
        let at = format!("connections.{name}");
        match sluice_worker::ask(db, config, name).await {
            Ok(asked) => findings.extend(asked.into_iter().map(|asked| match asked {
                Asked::Works(what) => Finding::ok(&at, what),
                Asked::Refused(why) => Finding::error(&at, why),
                Asked::Unasked(why) => Finding::warning(&at, format!("Zoho was not asked whether the credentials work: {why}")),
            })),
            Err(error) => findings.push(Finding::warning(&at, format!("Zoho was not asked whether the credentials work: {error:#}"))),
        }
    }
    findings
}

/// The fields of each CRM sync's module; those that are missing are errors, planned or made.
pub(super) async fn provision(
    config: &Config,
    db: &Db,
    definitions: &Definitions,
    fields: Fields,
    let_in: impl Fn(&str) -> bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for definition in definitions.by_name.values().filter(|definition| let_in(&definition.sync.connection)) {
        let at = format!("syncs.{}", definition.name());
        match sluice_worker::provision(db, config, definition, fields == Fields::Made).await {
            Ok(said) => findings.extend(said.into_iter().map(|one| match one {
                Provision::Complete(what) => Finding::ok(&at, what),
                Provision::Made(what) => Finding::ok(&at, what),
                Provision::Lacks(what) if fields == Fields::Planned => Finding::warning(&at, format!("{what}; would be made")),
                Provision::Lacks(what) => Finding::error(&at, format!("{what}. sluice check --provision makes it (--plan only lists)")),
                Provision::Person(what) => Finding::error(&at, what),
                Provision::Unasked(why) => Finding::warning(&at, format!("Zoho was not asked for the module's fields: {why}")),
            })),
            Err(error) => findings.push(Finding::warning(&at, format!("Zoho was not asked for the module's fields: {error:#}"))),
        }
    }
    findings
}
