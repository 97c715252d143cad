//! From a grant code to a stored refresh token, against the simulated Zoho.

use serde_json::Value;
use sluice_core::secrets::{ExposeSecret, random_key};
use sluice_simulator::{Config, Scenario, Simulator};
use sluice_tests::TestDb;
use tokio_util::sync::CancellationToken;

use crate::sluice::Folder;

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_code_becomes_a_stored_refresh_token_that_is_not_readable_in_the_table() {
    let listen = "127.0.0.1:0".parse().unwrap();
    let simulator = Simulator::bind(Config { listen, scenario: Scenario::default() }).await.unwrap();
    let (url, zoho) = (simulator.url(), simulator.credentials());
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio::spawn(simulator.serve(stop));
    sluice_zoho::install_tls();
    let code: Value = reqwest::Client::new()
        .post(format!("{url}/admin/oauth/codes"))
        .json(&serde_json::json!({}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let db = TestDb::new().await;
    let folder = Folder::with(&format!(
        "[security]\nkey = \"{}\"\n[connections.main]\nclient_id = \"{}\"\nclient_secret = \"{}\"\norganization_id = \"60000000001\"\naccounts_url = \"{url}\"\napi_url = \"{url}\"\n",
        random_key().expose_secret(),
        zoho.client_id,
        zoho.client_secret
    ))
    .on(db.url());
    assert_eq!(folder.run(&["attach"]).code, 0);
    let without = folder.run(&["check"]);
    assert!(without.code == 1 && without.out.contains("sluice auth main"), "{without:?}");

    let ended = folder.run_with_input(&["auth", "main"], code["code"].as_str().unwrap());
    assert_eq!(ended.code, 0, "{ended:?}");
    let stored: Vec<u8> = sqlx::query_scalar(
        "select r.refresh_token from sluice.connection c join sluice.credential r on r.fingerprint = c.credential where c.name = 'main'",
    )
    .fetch_one(db.db())
    .await
    .unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("1000."), "Zoho's tokens begin so: it stands there unencrypted");
    assert_eq!(folder.run(&["check"]).code, 0);

    let again = folder.run_with_input(&["auth", "main"], code["code"].as_str().unwrap());
    assert!(again.code == 1 && again.err.contains("not valid"), "a code counts once: {again:?}");
}
