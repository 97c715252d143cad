//! Which refresh token a connection uses when replicas have different files.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use sluice_core::config::section::Security;
use sluice_core::secrets::random_key;
use sluice_tests::TestDb;

use super::*;

fn process(db: &Db, keys: &Arc<KeyRing>, token: &str) -> Tokens {
    let settings = sluice_zoho::Settings {
        data_center: "com".parse().unwrap(),
        accounts_url: None,
        api_url: None,
        client_id: "client".to_owned(),
        client_secret: SecretString::from("secret"),
        organization_id: None,
        request_timeout: Duration::from_secs(1),
    };
    let client = Client::new(settings).unwrap();
    let file = [("main".to_owned(), client, Some(SecretString::from(token.to_owned())))];
    Tokens::new(db.clone(), "worker".into(), keys.clone(), file, Arc::default())
}

#[tokio::test]
async fn a_replica_with_the_older_file_does_not_bring_the_older_token_back() {
    let test = TestDb::new().await;
    let db = test.db();
    sqlx::query("insert into sluice.connection (name, data_center, hash) values ('main', 'com', '')").execute(db).await.unwrap();
    let keys = Arc::new(KeyRing::load(&Security { key: Some(random_key()), ..Security::default() }, Path::new("/")).unwrap());
    let (older, newer) = (process(db, &keys, "older"), process(db, &keys, "newer"));
    let mut used = Vec::new();
    for replica in [&older, &newer, &older, &newer] {
        replica.seed("main", &replica.connections["main"]).await.unwrap();
        used.push(store::seeded(db, "main").await.unwrap().unwrap().1.unwrap());
    }
    let (older, newer) = (secrets::hash_token("older"), secrets::hash_token("newer"));
    assert_eq!(used, [older, newer.clone(), newer.clone(), newer]);
}
