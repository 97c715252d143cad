//! The recipes as a user finds them who copies one.

use sluice_tests::TestDb;

use crate::sluice::Folder;

/// What a user's `.env` gives.
const VARIABLES: [(&str, &str); 5] = [
    ("${ZOHO_CLIENT_ID}", "id"),
    ("${ZOHO_CLIENT_SECRET}", "secret"),
    ("${ZOHO_REFRESH_TOKEN}", "token"),
    ("${ZOHO_ORG_ID}", "60000000001"),
    ("${ZOHO_WEBHOOK_SECRET}", "aSecretThatZohoSignsWith"),
];

#[tokio::test]
async fn check_finds_nothing_wrong_with_a_recipe_and_its_tables() {
    for (name, config, tables) in [
        ("billing", include_str!("../../../recipes/billing/sluice.toml"), include_str!("../../../recipes/billing/tables.sql")),
        ("inventory", include_str!("../../../recipes/inventory/sluice.toml"), include_str!("../../../recipes/inventory/tables.sql")),
    ] {
        let db = TestDb::new().await;
        sqlx::raw_sql(tables).execute(db.db()).await.unwrap();
        let config = VARIABLES.iter().fold(config.to_owned(), |config, (variable, value)| config.replace(variable, value));
        let folder = Folder::with(&config).on(db.url());
        assert_eq!(folder.run(&["attach"]).code, 0);
        let checked = folder.run(&["check", "--offline", "--json"]).json();
        let of_a_sync = |at: &serde_json::Value| at.as_str().is_some_and(|at| at.starts_with("syncs."));
        let findings = checked["findings"].as_array().unwrap().iter();
        let bad: Vec<_> = findings.filter(|finding| finding["level"] != "ok" && of_a_sync(&finding["at"])).collect();
        assert!(checked["errors"] == 0 && bad.is_empty(), "{name}: {bad:#?}");
    }
}
