//! Webhooks over real HTTP: what is answered, what is stored, what it leads to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use sluice_producer::alerts::{Sender, round};
use sluice_tests::wait_until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::served::{Served, TOKEN, ask, hook, item, note};

#[tokio::test]
async fn each_scheme_lets_in_its_own_proof_and_no_other() {
    let sections = [
        hook("signed", "zoho-signature", "sync = \"items\""),
        hook("crm", "crm-token", "syncs = { Deals = \"deals\" }"),
        hook("header", "secret-header", "sync = \"items\""),
        hook("query", "secret-query", "sync = \"items\"\nheader = \"key\""),
    ];
    let served = Served::with(&sections.concat()).await;
    let secret = served.secret.clone();
    let body = item("1", "2026-01-02T03:04:05+0000");

    assert_eq!(served.outcome(served.signed("/webhook/signed?b=2&a=1", &body).await).await.1.as_deref(), Some("applied"));
    for headers in [&[][..], &[("X-Zoho-Webhook-Signature", "00")], &[("X-Sluice-Secret", &secret)]] {
        assert_eq!(served.post("/webhook/signed", headers, &body).await.status, 401);
    }
    assert_eq!(served.post("/webhook/header", &[("X-Sluice-Secret", &secret)], &body).await.status, 200);
    for headers in [&[][..], &[("X-Sluice-Secret", "no")]] {
        assert_eq!(served.post("/webhook/header", headers, &body).await.status, 401);
    }
    assert_eq!(served.post(&format!("/webhook/query?key={secret}"), &[], &body).await.status, 200);
    for path in ["/webhook/query", "/webhook/query?key=no"] {
        assert_eq!(served.post(path, &[], &body).await.status, 401);
    }
    assert_eq!(served.post("/webhook/crm", &[], &note(&secret, &["7"], 1_718_117_126_473, &["Stage"])).await.status, 200);
    for token in ["no", ""] {
        assert_eq!(served.post("/webhook/crm", &[], &note(token, &["7"], 1_718_117_126_473, &["Stage"])).await.status, 401);
    }
    assert_eq!(served.post("/webhook/nobody", &[], &body).await.status, 404);
    assert_eq!(ask(served.address, "GET", "/webhook/signed", &[], "").await.status, 405);

    assert_eq!(served.pulls().await, ["1", "1", "1", "7"]);
    // who knows the secret may put it anywhere
    let proof = ("X-Sluice-Secret", secret.as_str());
    let form = ("content-type", "application/x-www-form-urlencoded");
    let named_wrong = format!(r#"{{"id":"1","module":"{secret}","event":"{secret}"}}"#);
    assert_eq!(
        served
            .post("/webhook/header", &[proof, ("X-ZOHO-Event", &secret), ("content-type", "application/json")], &named_wrong)
            .await
            .status,
        200
    );
    assert_eq!(
        served.post(&format!("/webhook/header?{secret}=3&event={secret}"), &[proof, form], &format!("id=1&module={secret}")).await.status,
        200
    );
    let as_form = served.outcome(served.post("/webhook/header", &[proof, form], &item("8", "2026-01-02T03:04:05+0000")).await).await;
    assert_eq!(as_form.1.as_deref(), Some("applied"), "JSON is JSON, whatever its sender calls it");
    let leaks = sqlx::query_scalar::<_, i64>(
        "select count(*) from sluice.event e where convert_from(e.body, 'UTF8') like $1 or to_jsonb(e)::text like $1",
    );
    assert_eq!(leaks.bind(format!("%{secret}%")).fetch_one(served.setting.db()).await.unwrap(), 0, "a secret stands in the table");
}

#[tokio::test]
async fn events_that_prove_nothing_raise_one_alert_and_stand_in_the_metrics_by_source_and_verdict() {
    let served =
        Served::with(&[hook("one", "zoho-signature", "sync = \"items\""), hook("other", "zoho-signature", "sync = \"items\"")].concat())
            .await;
    let alerts = || async {
        for _ in 0..2 {
            round(served.setting.db(), &BTreeMap::new(), &Sender::default()).await.unwrap();
        }
        let told = sqlx::query_as::<_, (String, String)>("select subject, message from sluice.alert where occasion = 'signature_failures'");
        told.fetch_all(served.setting.db()).await.unwrap()
    };
    let body = item("1", "2026-01-02T03:04:05+0000");
    for _ in 0..4 {
        assert_eq!(served.post("/webhook/one", &[], &body).await.status, 401);
        served.signed("/webhook/other", &body).await;
    }
    assert_eq!(alerts().await, [], "four may be strays");
    assert_eq!(served.post("/webhook/one", &[("X-Zoho-Webhook-Signature", "beef")], &body).await.status, 401);
    let told = alerts().await;
    assert_eq!((told.len(), told[0].0.as_str()), (1, "one"), "{told:?}");
    assert!(told[0].1.contains("5 event(s)") && told[0].1.contains("1 bad_signature, 4 unsigned"), "{told:?}");

    served.setting.run("update sluice.event set outcome = null, reason = null, decide_at = now() + interval '1 hour', received_at = now() - interval '90 s' where source = 'other' and id = (select min(id) from sluice.event where source = 'other')").await;
    let metrics = served.get("/metrics", &[("authorization", &format!("Bearer {TOKEN}"))]).await.body;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "sluice_events{source=\"one\",verdict=\"unsigned\"} 4",
        "sluice_events{source=\"other\",verdict=\"verified\"} 4",
        "sluice_events_refused_total{source=\"one\",verdict=\"bad_signature\"} 1",
        "sluice_events_undecided 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}\n{metrics}");
    }
    let age = metrics.lines().find_map(|line| line.strip_prefix("sluice_oldest_undecided_event_seconds "));
    assert!(age.unwrap().parse::<u64>().unwrap() >= 90, "{metrics}");
}

#[tokio::test]
async fn a_mode_decides_what_becomes_of_an_event_without_proof() {
    let sections: String = ["observe", "quarantine", "enforce"]
        .map(|mode| hook(mode, "zoho-signature", &format!("sync = \"items\"\nmode = \"{mode}\"")))
        .concat();
    let served = Served::with(&sections).await;
    let body = |id: &str| item(id, "2026-01-02T03:04:05+0000");
    let unsigned = |outcome: &str| ("unsigned".to_owned(), Some(outcome.to_owned()));

    assert_eq!(served.outcome(served.post("/webhook/observe", &[], &body("1")).await).await, unsigned("applied"));
    assert_eq!(served.outcome(served.post("/webhook/quarantine", &[], &body("2")).await).await, unsigned("quarantined"));
    for n in 0..25 {
        assert_eq!(served.post("/webhook/enforce", &[("X-Zoho-Webhook-Signature", "beef")], &body(&n.to_string())).await.status, 401);
    }
    assert_eq!(served.pulls().await, ["1"]);
    assert_eq!(served.setting.count("select count(*) from sluice.event where outcome = 'refused'").await, 20);
    // an event without proof does not take the genuine one's place
    assert_eq!(served.outcome(served.signed("/webhook/observe", &body("1")).await).await.1.as_deref(), Some("applied"));
    let report: Vec<(String, String, i64, i64)> =
        sqlx::query_as("select source, verdict, events, refused from sluice.event_report order by 1, 2")
            .fetch_all(served.setting.db())
            .await
            .unwrap();
    let row = |source: &str, verdict: &str, events, refused| (source.to_owned(), verdict.to_owned(), events, refused);
    assert_eq!(
        report,
        [
            row("enforce", "bad_signature", 0, 25),
            row("observe", "unsigned", 1, 0),
            row("observe", "verified", 1, 0),
            row("quarantine", "unsigned", 1, 0)
        ]
    );
}

#[tokio::test]
async fn the_same_event_leads_to_one_pull_also_after_a_restart() {
    let sections = [
        hook("signed", "zoho-signature", "syncs = { customer = \"customers\", items = \"items\" }"),
        hook("crm", "crm-token", "sync = \"deals\""),
    ];
    let mut served = Served::with(&sections.concat()).await;
    let secret = served.secret.clone();
    let event = json!({ "event_id": "903", "event_type": "item_updated", "payload": item("5", "2026-01-02T03:04:05+0000") }).to_string();
    let again = event.replace("item_updated", "item_updated ");
    let content = item("6", "2026-01-02T03:04:05+0000");
    let noted = note(&secret, &["7", "8"], 1_718_117_126_473, &["Stage"]);
    let later = note(&secret, &["7", "8"], 1_718_117_126_474, &["Stage"]);
    let timeless = json!({ "item": { "item_id": "9" } }).to_string();

    let mut outcomes = Vec::new();
    for round in 0..2 {
        for body in [&event, &again, &content, &timeless] {
            outcomes.push(served.outcome(served.signed("/webhook/signed", body).await).await.1.unwrap());
        }
        for body in [&noted, &later] {
            outcomes.push(served.outcome(served.post("/webhook/crm", &[], body).await).await.1.unwrap());
        }
        if round == 0 {
            served.restart().await;
        }
    }
    let (a, d) = ("applied", "duplicate");
    assert_eq!(outcomes, [a, d, a, a, a, a, d, d, d, a, d, d]);
    assert_eq!(served.pulls().await, ["5", "6", "9", "7", "8", "7", "8", "9"]);
    // what only its content tells is new again after ten minutes: it may be another edit back to the same
    served.setting.run("update sluice.event_seen set seen_at = seen_at - interval '11 min'").await;
    assert_eq!(served.outcome(served.signed("/webhook/signed", &content).await).await.1.as_deref(), Some(a));
    assert_eq!(served.outcome(served.signed("/webhook/signed", &event).await).await.1.as_deref(), Some(d));
}

#[tokio::test]
async fn limits_come_before_the_proof() {
    let sections = [
        hook("small", "secret-header", "sync = \"items\"\nmax_body = \"200B\""),
        hook("slow", "secret-header", "sync = \"items\"\nper_minute = 2"),
        hook("near", "secret-header", "sync = \"items\"\nallow = [\"203.0.113.0/24\"]\nper_minute = 1"),
    ];
    let served = Served::behind("trusted_proxies = [\"127.0.0.0/8\"]", &sections.concat()).await;
    let proof = ("X-Sluice-Secret", served.secret.as_str());
    let body = item("1", "2026-01-02T03:04:05+0000");

    assert_eq!(served.post("/webhook/small", &[proof], &body).await.status, 200);
    assert_eq!(served.post("/webhook/small", &[proof], &"x".repeat(201)).await.status, 413);
    let chunked = "c9\r\n".to_owned() + &"x".repeat(201) + "\r\n0\r\n\r\n";
    assert_eq!(posted_in_chunks(served.address, "/webhook/small", &chunked).await, 413);

    let statuses = [served.post("/webhook/slow", &[proof], &body).await.status, served.post("/webhook/slow", &[], &body).await.status];
    assert_eq!(statuses, [200, 401]);
    let refused = served.post("/webhook/slow", &[proof], &body).await;
    assert!(refused.status == 429 && refused.head.contains("retry-after: "), "{}", refused.head);

    for (forwarded, status) in
        [("198.51.100.1", 403), ("203.0.113.9, 198.51.100.1", 403), ("198.51.100.1, 203.0.113.9", 200), ("203.0.113.9", 429)]
    {
        assert_eq!(served.post("/webhook/near", &[proof, ("X-Forwarded-For", forwarded)], &body).await.status, status, "{forwarded}");
    }
    let remote: String =
        sqlx::query_scalar("select host(remote) from sluice.event where source = 'near'").fetch_one(served.setting.db()).await.unwrap();
    assert_eq!(remote, "203.0.113.9");
}

/// The status of a request that does not say how long its body is.
async fn posted_in_chunks(address: SocketAddr, path: &str, chunks: &str) -> u16 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("POST {path} HTTP/1.1\r\nhost: h\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n");
    stream.write_all((head + chunks).as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text).await;
    text.split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_second_address_needs_no_token_of_ours_and_others_still_do() {
    let served = Served::with(&hook("items", "secret-header", "sync = \"items\"\npath = \"/api/zoho/products\"")).await;
    let body = item("1", "2026-01-02T03:04:05+0000");
    assert_eq!(served.post("/api/zoho/products", &[("X-Sluice-Secret", &served.secret)], &body).await.status, 200);
    assert_eq!(ask(served.address, "GET", "/api/zoho/products", &[], "").await.status, 405);
    assert_eq!(served.post("/api/zoho/other", &[], "{}").await.status, 401);
    assert_eq!(served.pulls().await, ["1"]);
}

#[tokio::test]
async fn what_leads_to_nothing_is_acknowledged_with_its_reason() {
    let sections = [
        hook("items", "secret-header", "sync = \"items\""),
        hook("pushed", "secret-header", "sync = \"customers\""),
        hook("crm", "crm-token", "syncs = { Deals = \"deals\" }"),
    ];
    let served = Served::with(&sections.concat()).await;
    let proof = ("X-Sluice-Secret", served.secret.as_str());
    served.setting.run("update sluice.sync set retired_at = now() where name = 'deals'").await;
    for (path, body, outcome, said) in [
        ("/webhook/items", "not json at all".to_owned(), "ignored", "neither JSON nor a form"),
        ("/webhook/items", json!({ "contact": { "contact_id": "1" } }).to_string(), "ignored", "module contact has no sync here"),
        ("/webhook/pushed", json!({ "customer": { "customer_id": "1" } }).to_string(), "ignored", "only pushes"),
        ("/webhook/crm", note(&served.secret, &["1"], 1, &[]).replace("Deals", "Leads"), "ignored", "module Leads has no sync here"),
        ("/webhook/crm", note(&served.secret, &["1"], 2, &[]), "failed", "is not published"),
        ("/webhook/items", json!({ "ids": (0..1001).collect::<Vec<_>>() }).to_string(), "quarantined", "names 1001 records"),
    ] {
        let answer = served.post(path, &[proof], &body).await;
        assert_eq!(answer.status, 200, "{body}");
        let id = answer.body["id"].as_i64().unwrap();
        let (stored, reason, kept): (String, String, Vec<u8>) =
            sqlx::query_as("select outcome, reason, body from sluice.event where id = $1")
                .bind(id)
                .fetch_one(served.setting.db())
                .await
                .unwrap();
        assert!(stored == outcome && reason.contains(said), "{body}: {stored}, {reason}");
        assert_eq!(kept.len(), body.len(), "the body is kept as it came");
    }
    assert!(served.pulls().await.is_empty());
}

#[tokio::test]
async fn an_echo_of_our_own_write_costs_no_job_and_a_persons_edit_does() {
    let sections = [hook("items", "secret-header", "sync = \"items\""), hook("crm", "crm-token", "sync = \"deals\"")];
    let served = Served::with(&sections.concat()).await;
    let (secret, db) = (served.secret.clone(), served.setting.db());
    let proof = ("X-Sluice-Secret", secret.as_str());
    served
        .setting
        .run(
            "insert into sluice.link (sync, key, zoho_id, zoho_modified_at, write_sent_at, write_answered_at, write_fields) values
              ('items', '1', 'i1', '2026-01-02 03:04:05Z', null, null, null),
              ('deals', '1', 'd1', null, '2026-01-02 03:04:05Z', '2026-01-02 03:04:06Z', '{Stage,Amount}'),
              ('deals', '2', 'd2', null, '2026-01-02 03:04:05Z', '2026-01-02 03:04:06Z', null)",
        )
        .await;
    let at = |text: &str| text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis();
    for (path, body, outcome) in [
        ("/webhook/items", item("i1", "2026-01-02T03:04:05+0000"), "echo"),
        ("/webhook/items", item("i1", "2026-01-02T04:04:04+0100"), "echo"),
        ("/webhook/items?event=item_deleted", item("i1", "2026-01-02T03:04:05+0000"), "applied"),
        ("/webhook/items", item("i1", "2026-01-02T03:04:06+0000"), "applied"),
        ("/webhook/items", item("i2", "2026-01-02T03:04:05+0000"), "applied"),
        ("/webhook/crm", note(&secret, &["d1"], at("2026-01-02T03:04:07.9Z"), &["Stage", "Modified_Time"]), "echo"),
        ("/webhook/crm", note(&secret, &["d1"], at("2026-01-02T03:04:08.1Z"), &["Stage"]), "applied"),
        ("/webhook/crm", note(&secret, &["d1"], at("2026-01-02T03:04:04.9Z"), &["Stage"]), "applied"),
        ("/webhook/crm", note(&secret, &["d1"], at("2026-01-02T03:04:06Z"), &["Stage", "Owner"]), "applied"),
        ("/webhook/crm", note(&secret, &["d1"], at("2026-01-02T03:04:06.1Z"), &[]), "applied"),
        ("/webhook/crm", note(&secret, &["d2"], at("2026-01-02T03:04:06Z"), &["Stage"]), "applied"),
    ] {
        let answer = served.post(path, &[proof], &body).await;
        assert_eq!(served.outcome(answer).await.1.as_deref(), Some(outcome), "{body}");
    }
    let mixed = served.post("/webhook/crm", &[proof], &note(&secret, &["d1", "d3"], at("2026-01-02T03:04:06.2Z"), &["Stage"])).await;
    let reason: String =
        sqlx::query_scalar("select reason from sluice.event where id = $1").bind(mixed.body["id"].as_i64()).fetch_one(db).await.unwrap();
    assert_eq!(reason, "1 of 2 records are known already");
    assert_eq!(served.pulls().await, ["i1", "i1", "i2", "d1", "d1", "d1", "d1", "d2", "d3"]);
}

#[tokio::test]
async fn an_event_during_a_run_of_its_record_is_decided_when_the_run_has_ended_also_by_another_producer() {
    let mut served = Served::with(&hook("items", "secret-header", "sync = \"items\"")).await;
    let secret = served.secret.clone();
    let proof = ("X-Sluice-Secret", secret.as_str());
    served
        .setting
        .run("insert into sluice.link (sync, key, zoho_id) values ('items', '1', 'i1'), ('items', '2', 'i2');
              insert into sluice.slot (sync, key, shape_id, kind, state, lane, due_at, batch, create_intent)
              select 'items', k, min(id), 'pull', 'running', 1, now(), 1, false from sluice.shape, unnest('{1,2}'::text[]) k where sync = 'items' group by k")
        .await;
    for id in ["i1", "i2"] {
        let answer = served.post("/webhook/items", &[proof], &item(id, "2026-01-02T03:04:05+0000")).await;
        assert_eq!(served.outcome(answer).await.1, None);
    }
    served.restart().await;
    // what the runs left: one wrote the record, the other did not
    served
        .setting
        .run("update sluice.link set zoho_modified_at = '2026-01-02 03:04:05Z' where key = '1'; update sluice.slot set state = 'available', batch = null")
        .await;
    wait_until(Duration::from_secs(60), || async {
        served.setting.count("select count(*) from sluice.event where outcome is null").await == 0
    })
    .await;
    let outcomes: Vec<String> =
        sqlx::query_scalar("select outcome from sluice.event order by id").fetch_all(served.setting.db()).await.unwrap();
    assert_eq!(outcomes, ["echo", "applied"]);
    assert_eq!(served.pulls().await, ["i2"]);

    // the create's Zoho id is not known before it settles
    served.setting.run("update sluice.slot set state = 'running', batch = 2, create_intent = true where key = '2'").await;
    let answer = served.post("/webhook/items", &[proof], &item("i3", "2026-01-02T03:04:05+0000")).await;
    assert_eq!(served.outcome(answer).await.1, None);
}

#[tokio::test]
async fn a_stored_event_is_listed_shown_and_replayed_behind_the_token() {
    let served = Served::with(&hook("items", "secret-header", "syncs = { items = \"items\" }\nmode = \"quarantine\"")).await;
    let body = item("1", "2026-01-02T03:04:05+0000");
    let id = served.post("/webhook/items", &[("Authorization", "Basic abc")], &body).await.body["id"].as_i64().unwrap();
    let token = format!("Bearer {TOKEN}");
    let admin = [("authorization", token.as_str())];
    let get = async |path: &str| {
        assert_eq!(served.get(path, &[]).await.status, 401, "{path}");
        served.get(path, &admin).await.body
    };

    let listed = get("/api/v1/events?outcome=quarantined&verdict=unsigned&source=items&limit=1").await;
    assert_eq!((listed["events"][0]["id"].as_i64(), listed["next"].as_i64()), (Some(id), Some(id)));
    assert_eq!(get(&format!("/api/v1/events?before={id}")).await["events"], json!([]));
    let shown = get(&format!("/api/v1/events/{id}")).await;
    assert_eq!((shown["body"].as_str(), &shown["headers"]["authorization"]), (Some(body.as_str()), &json!("***")));
    assert_eq!(get("/api/v1/events/report").await["sources"][0]["would_refuse"], json!(1));
    assert_eq!(get("/logs?sync=items&limit=5").await, json!({ "attempts": [], "next": null }));

    let path = format!("/api/v1/events/{id}/replay");
    assert_eq!(served.get("/api/v1/events/999999", &admin).await.status, 404);
    let host = [("authorization", token.as_str()), ("content-type", "application/json")];
    let replayed = served.post(&path, &host, "").await;
    assert_eq!(replayed.status, 202, "{}", replayed.body);
    let (kind, outcome): (String, String) = sqlx::query_as("select j.kind, e.outcome from sluice.job j, sluice.event e where j.id = $1")
        .bind(replayed.body["job"].as_i64())
        .fetch_one(served.setting.db())
        .await
        .unwrap();
    assert_eq!((kind.as_str(), outcome.as_str()), ("apply", "applied"));
    assert_eq!(served.post("/api/v1/events/999999/replay", &host, "").await.status, 404);
}
