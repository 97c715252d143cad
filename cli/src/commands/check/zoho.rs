//! Whether Zoho lets each connection in.

use sluice_core::config::Config;
use sluice_core::db::Db;
use sluice_worker::Asked;

use super::Finding;

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
