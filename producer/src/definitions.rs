//! The configured syncs, compiled against the database's tables. Reads the catalog, never a row.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_core::config::{Config, Sync};
use sluice_core::db::Db;
use sluice_sync::catalog::Catalog;
use sluice_sync::definition::{Definition, Finding};

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
