//! The configured syncs, compiled against the database's tables. Reads the catalog, never a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_core::config::{Config, Sync};
use sluice_core::db::Db;
use sluice_sync::catalog::Catalog;
use sluice_sync::definition::{Definition, Finding, Level};
use sluice_sync::read::{Problem, Reader};

/// All syncs of a configuration, as far as they compile.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    /// By sync name.
    pub by_name: BTreeMap<String, Arc<Definition>>,
    /// What is wrong, or worth a look. A sync with an error is not in `by_name`.
    pub findings: Vec<Finding>,
    /// The tables that the configuration names.
    pub catalog: Catalog,
}

impl Definitions {
    /// Compiles every sync.
    ///
    /// # Errors
    /// When the database does not answer; what is wrong with a sync is a finding.
    pub async fn compile(db: &Db, config: &Config) -> Result<Self, sqlx::Error> {
        let mut tx = db.begin().await?;
        let catalog = Catalog::load(&mut tx, &Definition::tables(config.syncs.values())).await?;
        tx.rollback().await?;
        let mut compiled = Self::default();
        for sync in config.syncs.values() {
            compiled.add(sync, &config.syncs, &catalog);
        }
        compiled.catalog = catalog;
        Ok(compiled)
    }

    /// Compiles every sync and lets the database prepare every expression: what publishes or checks must not let through what cannot work.
    ///
    /// # Errors
    /// When the database does not answer; what is wrong with a sync is a finding.
    pub async fn proven(db: &Db, config: &Config) -> Result<Self, sqlx::Error> {
        let mut compiled = Self::compile(db, config).await?;
        compiled.prove(&Reader::new(db.clone(), config.database.expression_role.clone())).await?;
        Ok(compiled)
    }

    /// The same for the syncs that are published, whatever the file says: what keeps their records waiting.
    ///
    /// # Errors
    /// As [`Definitions::proven`].
    pub async fn published(db: &Db, expression_role: Option<String>) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query!("select name, definition from sluice.sync where retired_at is null order by name").fetch_all(db).await?;
        let mut syncs = BTreeMap::new();
        let mut compiled = Self::default();
        for row in rows {
            match serde_json::from_value::<Sync>(row.definition) {
                Ok(sync) => drop(syncs.insert(row.name.clone(), Sync { name: row.name, ..sync })),
                Err(error) => compiled.findings.push(Finding {
                    level: Level::Error,
                    at: format!("syncs.{}", row.name),
                    message: format!("was published by another version, which this one does not understand ({error}): publish it again with `sluice attach`"),
                }),
            }
        }
        let mut tx = db.begin().await?;
        compiled.catalog = Catalog::load(&mut tx, &Definition::tables(syncs.values())).await?;
        tx.rollback().await?;
        let catalog = compiled.catalog.clone();
        for sync in syncs.values() {
            compiled.add(sync, &syncs, &catalog);
        }
        compiled.prove(&Reader::new(db.clone(), expression_role)).await?;
        Ok(compiled)
    }

    /// The errors of one sync, or of all.
    pub fn errors(&self, sync: Option<&str>) -> Vec<Finding> {
        let of = |finding: &&Finding| {
            finding.level == Level::Error
                && sync.is_none_or(|sync| {
                    let rest = finding.at.strip_prefix("syncs.").and_then(|at| at.strip_prefix(sync));
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                })
        };
        self.findings.iter().filter(of).cloned().collect()
    }

    /// Drops what the database refuses to prepare.
    async fn prove(&mut self, reader: &Reader) -> Result<(), sqlx::Error> {
        for (name, definition) in std::mem::take(&mut self.by_name) {
            let problems = reader.probe(&definition).await?;
            if problems.is_empty() {
                self.by_name.insert(name, definition);
                continue;
            }
            let finding =
                |problem: Problem| Finding { level: Level::Error, at: format!("syncs.{name}.{}", problem.field), message: problem.message };
            self.findings.extend(problems.into_iter().map(finding));
        }
        Ok(())
    }

    /// Name → definition hash: what replicas compare.
    pub fn hashes(&self) -> BTreeMap<String, String> {
        self.by_name.iter().map(|(name, definition)| (name.clone(), definition.hash().to_owned())).collect()
    }

    fn add(&mut self, sync: &Sync, syncs: &BTreeMap<String, Sync>, catalog: &Catalog) {
        match Definition::compile(sync, syncs, catalog) {
            Ok((definition, warnings)) => {
                self.findings.extend(warnings);
                self.by_name.insert(sync.name.clone(), Arc::new(definition));
            }
            Err(findings) => self.findings.extend(findings),
        }
    }
}
