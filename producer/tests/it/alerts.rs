//! Who is told of what, and how often.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use sluice_core::config::trigger::Alert;
use sluice_producer::alerts::{Delivered, Sender, round};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::setting::{CUSTOMERS, Setting, config};

/// An address that keeps what it is sent, and answers as it is told to.
#[derive(Clone, Default)]
struct Address {
    heard: Arc<Mutex<Vec<serde_json::Value>>>,
    answer: Arc<Mutex<Option<u16>>>,
}

impl Address {
    async fn listen(&self) -> String {
        let hear = |State(address): State<Self>, body: String| async move {
            address.heard.lock().unwrap().push(serde_json::from_str(&body).unwrap());
            StatusCode::from_u16(address.answer.lock().unwrap().unwrap_or(200)).unwrap()
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/secret-path", listener.local_addr().unwrap());
        let app = Router::new().route("/secret-path", post(hear)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        url
    }

    fn messages(&self) -> Vec<String> {
        self.heard.lock().unwrap().iter().map(|body| body["message"].as_str().unwrap().to_owned()).collect()
    }
}

fn alerts(sections: &str) -> BTreeMap<String, Alert> {
    config(&format!("{sections}{CUSTOMERS}")).alerts
}

fn delivered(sent: u32, failed: u32) -> Delivered {
    Delivered { sent, failed }
}

#[tokio::test]
async fn each_alert_is_told_once_to_each_name_that_wants_it_however_many_producers_there_are() {
    let setting = Setting::of(CUSTOMERS).await;
    let (ops, all) = (Address::default(), Address::default());
    let alerts = alerts(&format!(
        "[alerts.ops]\nurl = \"{}\"\non = [\"brake\"]\n[alerts.all]\nurl = \"{}\"\n[alerts.nobody]\non = [\"brake\"]\n",
        ops.listen().await,
        all.listen().await
    ));
    setting.run("insert into sluice.alert (occasion, subject, message) select o, 's', o || n from unnest(array['brake', 'budget_low']) o, generate_series(1, 5) n").await;
    setting.run("insert into sluice.alert (occasion, subject, message, raised_at) values ('brake', 's', 'of the day before yesterday', now() - interval '2 days')").await;
    let sender = Sender::default();
    let rounds = tokio::join!(
        round(setting.db(), &alerts, &sender),
        round(setting.db(), &alerts, &sender),
        round(setting.db(), &alerts, &sender),
        round(setting.db(), &alerts, &sender)
    );
    let rounds = [rounds.0.unwrap(), rounds.1.unwrap(), rounds.2.unwrap(), rounds.3.unwrap()];
    assert_eq!(rounds.iter().map(|round| round.sent).sum::<u32>(), 15);
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(0, 0));
    assert_eq!((ops.messages().len(), all.messages().len()), (5, 10));
    assert!(ops.messages().iter().all(|message| message.starts_with("brake")));
    assert_eq!(setting.count("select count(*) from sluice.alert where told_at is not null").await, 10);
}

#[tokio::test]
async fn an_address_that_refuses_is_tried_again_with_pauses_and_given_up_after_a_day() {
    let setting = Setting::of(CUSTOMERS).await;
    let address = Address::default();
    *address.answer.lock().unwrap() = Some(503);
    let url = address.listen().await;
    let alerts = alerts(&format!("[alerts.ops]\nurl = \"{url}\"\n[alerts.gone]\nurl = \"http://127.0.0.1:1/secret-path\"\n"));
    setting.run("insert into sluice.alert (occasion, subject, message) values ('brake', 's', 'a')").await;
    let sender = Sender::default();
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(0, 2));
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(0, 0), "not before the pause has passed");
    let errors: Vec<String> =
        sqlx::query_scalar("select error from sluice.alert_delivery order by name desc").fetch_all(setting.db()).await.unwrap();
    assert_eq!(errors[0], "the address answered 503");
    assert!(errors.iter().all(|error| !error.contains("secret-path")), "{errors:?}");
    setting.run("update sluice.alert_delivery set due_at = now() where name = 'ops'").await;
    *address.answer.lock().unwrap() = None;
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(1, 0));
    setting.run("update sluice.alert_delivery set due_at = now(); update sluice.alert set raised_at = now() - interval '25 hours'").await;
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(0, 1));
    setting.run("update sluice.alert_delivery set due_at = now()").await;
    assert_eq!(round(setting.db(), &alerts, &sender).await.unwrap(), delivered(0, 0));
    assert_eq!(setting.count("select count(*) from sluice.alert_delivery where name = 'gone' and given_up_at is not null").await, 1);
}

/// A mail server that takes one message and keeps it.
async fn mail_server() -> (u16, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let session = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 mail.example\r\n").await.unwrap();
        let mut heard = String::new();
        while let Some(line) = lines.next_line().await.unwrap() {
            heard.push_str(&format!("{line}\n"));
            let answer = match line.get(..4).unwrap_or_default() {
                "DATA" => "354 go on",
                "QUIT" => "221 bye",
                "EHLO" | "MAIL" | "RCPT" => "250 yes",
                _ if line == "." => "250 taken",
                _ => continue,
            };
            write.write_all(format!("{answer}\r\n").as_bytes()).await.unwrap();
            if line == "." {
                break;
            }
        }
        heard
    });
    (port, session)
}

#[tokio::test]
async fn a_mail_server_is_told_in_its_own_way() {
    let setting = Setting::of(CUSTOMERS).await;
    let (port, session) = mail_server().await;
    let alerts = alerts(&format!(
        "[alerts.ops]\nsmtp = {{ host = \"127.0.0.1\", port = {port}, from = \"Sluice <sluice@example.com>\", to = [\"a@example.com\", \"b@example.com\"] }}\n"
    ));
    setting.run("insert into sluice.alert (occasion, subject, message) values ('brake', 'customers', 'a message')").await;
    assert_eq!(round(setting.db(), &alerts, &Sender::default()).await.unwrap(), delivered(1, 0));
    let heard = session.await.unwrap();
    for expected in
        ["MAIL FROM:<sluice@example.com>", "RCPT TO:<b@example.com>", "Subject: Sluice: brake, customers", "Sluice, brake: a message"]
    {
        assert!(heard.contains(expected), "{heard}");
    }
}

#[tokio::test]
async fn a_sync_tells_of_its_dead_letters_once_a_minute_by_their_number() {
    let setting = Setting::of(CUSTOMERS).await;
    let letters = "insert into sluice.dead_letter (kind, args, sync, key, lane, error_class, message)
                   select 'push', '{}', 'customers', n::text, 'normal', 'validation', 'no email' from generate_series(1, 3) n;";
    let raise = || async {
        round(setting.db(), &BTreeMap::new(), &Sender::default()).await.unwrap();
        sqlx::query_scalar::<_, String>("select message from sluice.alert where occasion = 'dead_letter' order by id")
            .fetch_all(setting.db())
            .await
            .unwrap()
    };
    setting.run(letters).await;
    assert_eq!(
        raise().await,
        ["customers: 3 jobs gave up; the newest: push 3, validation: no email. See: sluice dlq list --sync customers"]
    );
    setting.run(letters).await;
    assert_eq!(raise().await.len(), 1);
    setting.run(&format!("{letters} update sluice.alert set raised_at = now() - interval '2 min'")).await;
    let messages = raise().await;
    assert!(messages.len() == 2 && messages[1].starts_with("customers: 6 jobs gave up"), "{messages:?}");
    assert_eq!(raise().await.len(), 2);
}

#[tokio::test]
async fn a_pause_and_a_standstill_are_told_of_once() {
    let setting = Setting::of(CUSTOMERS).await;
    setting
        .run(
            "insert into sluice.slot (sync, key, shape_id, kind, lane, due_at)
             select 'customers', '2', id, 'push', 2, now() - interval '20 min' from sluice.shape where sync = 'customers' and kind = 'push'",
        )
        .await;
    let raise = || async {
        for _ in 0..2 {
            round(setting.db(), &BTreeMap::new(), &Sender::default()).await.unwrap();
        }
        sqlx::query_as::<_, (String, String)>("select occasion, subject from sluice.alert order by id")
            .fetch_all(setting.db())
            .await
            .unwrap()
    };
    let pair = |occasion: &str, subject: &str| (occasion.to_owned(), subject.to_owned());
    assert_eq!(raise().await, [pair("stalled", "customers")]);
    setting.run("select sluice.pause(connection => 'main', reason => 'the price list is wrong')").await;
    assert_eq!(raise().await, [pair("stalled", "customers"), pair("connection_paused", "connection main")]);
    setting.run("select sluice.resume(connection => 'main'); select sluice.pause(connection => 'main')").await;
    assert_eq!(raise().await.len(), 3, "another pause is another occasion");
}
