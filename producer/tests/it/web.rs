//! The web server's doors.

use std::sync::{Arc, RwLock};

use sluice_core::db::listen;
use sluice_producer::http::{State, router};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::setting::{CUSTOMERS, Setting, config};

async fn ask(
    app: &axum::Router,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> (u16, axum::http::HeaderMap, String) {
    let mut request = axum::http::Request::builder().method(method).uri(path).header("content-type", "application/json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = app.clone().oneshot(request.body(axum::body::Body::from(body)).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, headers, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn doors_open_to_the_right_token_and_name_only() {
    let setting = Setting::of(CUSTOMERS).await;
    let (admin, read) = (format!("admin-{}", rand_text()), format!("read-{}", rand_text()));
    let config = config(&format!("[http]\nadmin_token = \"{admin}\"\nread_token = \"{read}\"\n{CUSTOMERS}"));
    let listener = listen::Listener::spawn(setting.db().settings(), &["sluice_change"], Arc::new(Notify::new()), CancellationToken::new());
    let (_keep, definitions) = watch::channel(Arc::new(setting.definitions.clone()));
    let state =
        State::new(&config, setting.db().clone(), setting.reader.clone(), definitions, Arc::new(RwLock::default()), Arc::new(listener));
    let app = router(state.await.unwrap());
    let host = ("host", "localhost:8080");
    let (admin_header, read_header) = (format!("Bearer {admin}"), format!("Bearer {read}"));
    let (as_admin, as_reader) = (("authorization", admin_header.as_str()), ("authorization", read_header.as_str()));

    setting.run("insert into customers (id, name) values (42, 'Somebody')").await;

    for (method, path, headers, body, expected) in [
        ("GET", "/health", &[][..], "", 200),
        ("GET", "/ready", &[], "", 200),
        ("GET", "/", &[host], "", 401),
        ("GET", "/", &[("host", "evil.example"), as_admin], "", 421),
        ("GET", "/", &[host, as_reader], "", 200),
        ("GET", "/metrics", &[host], "", 401),
        ("GET", "/metrics", &[host, as_reader], "", 200),
        ("GET", "/sync/status", &[host, as_reader], "", 200),
        ("POST", "/sync/stop", &[host, as_reader], "{}", 403),
        ("POST", "/sync/stop", &[host, as_admin], "{\"sync\": \"customers\"}", 200),
        ("POST", "/sync/start", &[host, as_admin], "{\"sync\": \"customers\"}", 200),
        ("POST", "/sync/start", &[host, as_admin], "{\"sync\": \"nobody\"}", 404),
        ("POST", "/sync/trigger", &[host, as_admin], "{\"sync\": \"customers\", \"key\": \"x\"}", 422),
        ("POST", "/sync/trigger", &[host, as_admin], "{\"sync\": \"customers\", \"key\": 43}", 404),
        ("POST", "/sync/trigger", &[host, as_admin], "{\"sync\": \"customers\", \"key\": 42}", 202),
    ] {
        let (status, answered, text) = ask(&app, method, path, headers, body).await;
        assert_eq!(status, expected, "{method} {path} {text}");
        assert!(answered["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
    }
    let job: (String, String) = sqlx::query_as("select key, lane from sluice.job").fetch_one(setting.db()).await.unwrap();
    assert_eq!(job, ("42".to_owned(), "interactive".to_owned()));

    let held = |body: &str| serde_json::from_str::<serde_json::Value>(body).unwrap()["held"].as_array().unwrap().len();
    setting.link("1", "a", None).await;
    setting.link("2", "b", None).await;
    setting.run("truncate customers").await;
    setting.drain().await;
    setting.run("delete from sluice.job").await;
    assert_eq!(held(&ask(&app, "GET", "/api/v1/held?sync=customers", &[host, as_reader], "").await.2), 1);
    setting.run("update sluice.held_change set sample = '[{\"key\": \"1\", \"operation\": \"update\", \"changed\": {\"name\": {\"old\": \"<b>\", \"new\": null}}}]'").await;
    let (_, _, page) = ask(&app, "GET", "/", &[host, as_reader], "").await;
    let shown = ["<li>update 1 name: &quot;&lt;b&gt;&quot; → null", "<code>held approve 1</code>"];
    assert!(shown.iter().all(|shown| page.contains(shown)), "{page}");
    for (method, path, headers, body, expected) in [
        ("GET", "/api/v1/held/1", [host, as_reader], "", 200),
        ("GET", "/api/v1/held/99", [host, as_reader], "", 404),
        ("POST", "/api/v1/held/1/approve", [host, as_reader], "{}", 403),
        ("POST", "/api/v1/held/1/approve", [host, as_admin], "{\"keys\": [\"9\"]}", 422),
        ("POST", "/api/v1/held/1/approve", [host, as_admin], "{\"max_records\": 1}", 202),
        ("POST", "/api/v1/held/1/reject", [host, as_admin], "{}", 200),
        ("POST", "/api/v1/held/1/reject", [host, as_admin], "{}", 404),
        ("POST", "/sync/trigger", [host, as_admin], "{\"sync\": \"customers\", \"zoho_id\": \"7\"}", 422),
        ("POST", "/sync/trigger", [host, as_admin], "{\"sync\": \"customers\", \"zoho_id\": \"7\", \"key\": 1}", 422),
        ("GET", "/api/v1/conflicts?sync=customers", [host, as_reader], "", 200),
        ("POST", "/api/v1/conflicts/1/resolve", [host, as_reader], "{\"side\": \"local\"}", 403),
        ("POST", "/api/v1/conflicts/1/resolve", [host, as_admin], "{\"side\": \"local\"}", 422),
        ("GET", "/api/v1/runs", [host, as_reader], "", 200),
    ] {
        let (status, _, text) = ask(&app, method, path, &headers, body).await;
        assert_eq!(status, expected, "{method} {path} {text}");
    }
    assert_eq!(setting.count("select count(*) from sluice.job").await, 1);

    let (status, headers, _) = ask(&app, "GET", &format!("/?token={read}"), &[host], "").await;
    let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(status == 303 && headers["location"] == "/" && cookie.contains("HttpOnly"), "{cookie}");
    let (status, _, page) = ask(&app, "GET", "/", &[host, ("cookie", cookie.split(';').next().unwrap())], "").await;
    assert!(status == 200 && page.contains("customers") && !page.contains("<script"), "{page}");
}

#[tokio::test]
async fn triggering_everything_enqueues_what_was_never_synced() {
    let setting = Setting::of(CUSTOMERS).await;
    setting.run("insert into customers values (1, 'a'), (2, 'b'), (3, 'c')").await;
    setting.link("2", "b", None).await;
    let trigger = |force| sluice_producer::trigger(setting.db(), &setting.reader, &setting.definitions, Some("customers"), None, force);
    assert_eq!(trigger(false).await.unwrap().jobs, 2);
    assert_eq!(trigger(true).await.unwrap().jobs, 3);
    assert_eq!(setting.count("select count(*) from sluice.link where fields = '{}'").await, 1);
}

/// Made at run time, so that no token stands in the source.
fn rand_text() -> String {
    format!("{:x}", std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos())
}
