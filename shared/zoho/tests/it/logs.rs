//! What a request leaves in the logs.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use secrecy::SecretString;
use serde_json::json;
use sluice_zoho::finance::{self, Module};
use sluice_zoho::oauth;
use tracing_subscriber::filter::LevelFilter;

use crate::peer::{Peer, grant, json as answer, late_grant, token, token_text};

/// Everything logged while it is the thread's subscriber.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_request_is_logged_by_method_path_status_and_time_and_never_by_content() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    // With a single dispatcher alive, tracing asks the thread that meets a log statement first, and another test's thread, which
    // has none, would switch it off for all. With two it asks both.
    let _second = tracing::Dispatch::new(tracing::subscriber::NoSubscriber::default());
    let minted = format!(r#"{{"access_token":"{}"}}"#, token_text());
    let peer = Peer::playing(vec![answer(200, "", &minted), answer(400, "", r#"{"code":3062,"message":"secret answer"}"#)]).await;
    let client = peer.client();
    let refresh_token = SecretString::from(token_text());
    oauth::refresh(grant(), &client, &refresh_token).await.unwrap();
    let body = json!({"email": "anna@example.com"});
    let query = [("search_text", "private-words")];
    finance::create(grant(), &client, &token(), Module::CUSTOMERS, &body, &query).await.unwrap_err();
    finance::create(late_grant(), &client, &token(), Module::CUSTOMERS, &body, &query).await.unwrap_err();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for shown in ["method=POST", "path=\"/billing/v1/customers\"", "status=400", "ms=", "path=\"/oauth/v2/token\"", "late_by"] {
        assert!(logged.contains(shown), "{shown} not in {logged}");
    }
    for hidden in ["0a1b2c3d", "client-secret-value", "anna@example.com", "private-words", "secret answer"] {
        assert!(!logged.contains(hidden), "{hidden} in {logged}");
    }
}
