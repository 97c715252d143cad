//! Tables, definitions and reads for the tests of this crate.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::sync::Sync;
use sluice_core::db::dynamic;
use sluice_sync::catalog::Catalog;
use sluice_sync::definition::Definition;
use sluice_sync::read::{FieldValue, Found, Reader, Row};
use sluice_tests::TestDb;

/// A database with the given tables.
pub(crate) async fn database(sql: &str) -> TestDb {
    let test = TestDb::new().await;
    run(&test, sql).await;
    test
}

/// Runs statements.
pub(crate) async fn run(test: &TestDb, sql: &str) {
    let mut tx = test.db().begin().await.unwrap();
    dynamic::script(sql.to_owned()).execute(&mut tx).await.unwrap();
    tx.commit().await.unwrap();
}

/// The syncs of a file, by name.
pub(crate) fn syncs(file: &str) -> BTreeMap<String, Sync> {
    let mut syncs: BTreeMap<String, Sync> = toml::from_str(file).unwrap();
    for (name, sync) in &mut syncs {
        sync.name.clone_from(name);
    }
    syncs
}

/// Compiles one sync of a file against the database.
pub(crate) async fn definition(test: &TestDb, file: &str, name: &str) -> Definition {
    let syncs = syncs(file);
    let mut tx = test.db().begin().await.unwrap();
    let catalog = Catalog::load(&mut tx, &Definition::tables(syncs.values())).await.unwrap();
    tx.rollback().await.unwrap();
    Definition::compile(&syncs[name], &syncs, &catalog).unwrap().0
}

/// A definition of a sync `things` over the table `things` with key `id`, given its fields.
pub(crate) async fn things(test: &TestDb, fields: &str) -> Definition {
    let file = format!(
        "[things]\nconnection = \"main\"\ntable = \"things\"\nkey = \"id\"\nmodule = \"billing/customers\"\n[things.fields]\n{fields}"
    );
    definition(test, &file, "things").await
}

/// Reads these keys.
pub(crate) async fn read(test: &TestDb, definition: &Definition, keys: &[&str]) -> BTreeMap<String, Found> {
    let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
    Reader::new(test.db().clone(), None).rows(definition, &keys).await.unwrap()
}

/// Reads one row, which must exist.
pub(crate) async fn row(test: &TestDb, definition: &Definition, key: &str) -> Row {
    match read(test, definition, &[key]).await.remove(key) {
        Some(Found::Row(row)) => row,
        other => panic!("no row {key}: {other:?}"),
    }
}

/// The row's local values as one object, printed: exact digits are part of what is compared.
pub(crate) fn printed(row: &Row) -> String {
    let fields = row.fields.iter().map(|(path, value): (&String, &FieldValue)| (path.clone(), value.local()));
    Value::Object(fields.collect()).to_string()
}
