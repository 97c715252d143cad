//! Webhooks and notifications: who is told of what, how it is signed, and what happens to it on its way.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    inventory::{item, path},
    receiver::Receiver,
    world::{ORGANIZATION, World},
};

const SECRET: &str = "asecretoftwelve";

/// A world, and a receiver of its items' webhooks.
async fn world_and_receiver(scenario: &str, webhook: Value) -> (World, Receiver) {
    let (world, receiver) = (World::new(scenario).await, Receiver::new().await);
    let mut configured = json!({ "product": "inventory", "modules": ["items"], "url": format!("{}/hook", receiver.url) });
    for (key, value) in webhook.as_object().unwrap() {
        configured[key] = value.clone();
    }
    let (status, answer) = world.post("/admin/webhooks", configured).await;
    assert_eq!((status, &answer["ids"]), (200, &json!([1])), "{answer}");
    (world, receiver)
}

/// The deliveries, once nothing is left to be sent.
async fn deliveries(world: &World) -> Value {
    let settled = async {
        loop {
            let answer = world.get("/admin/deliveries").await.1;
            if answer["counts"]["pending"] == 0 {
                return answer;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), settled).await.expect("in time")
}

fn signature(text: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_webhook_tells_of_every_change_whoever_made_it_and_is_signed_over_its_raw_body() {
    let (world, receiver) = world_and_receiver("", json!({ "secret": SECRET, "query": { "zone": "b", "a": "1" } })).await;
    let id = item(&world, json!({ "name": "Lamp", "rate": 5 })).await;
    let created = receiver.wait_for(1).await.remove(0);
    assert_eq!(created.json()["item"], world.get(&path(&format!("items/{id}"))).await.1["item"], "our own write comes back as the record");
    assert_eq!(created.uri, "/hook?a=1&zone=b");
    assert_eq!(created.header("X-Zoho-Webhook-Signature"), Some(&*signature(&format!("a1zoneb{}", created.body))));
    let edit = json!({ "product": "inventory", "module": "items", "id": id, "record": { "rate": 7 } });
    world.put("/admin/records", edit).await;
    assert_eq!(receiver.wait_for(2).await[1].json()["item"]["rate"], 7, "a person's edit");
    world.delete(&path(&format!("items/{id}"))).await;
    assert_eq!(receiver.wait_for(3).await[2].json()["item"]["item_id"], id.as_str(), "a delete shows what was");
    let told = deliveries(&world).await;
    let operations: Vec<_> = told["deliveries"].as_array().unwrap().iter().map(|one| one["operation"].as_str().unwrap()).collect();
    assert_eq!(operations, ["create", "edit", "delete"]);
    assert_eq!((&told["deliveries"][0]["state"], &told["deliveries"][0]["tries"][0]["status"]), (&json!("delivered"), &json!(200)));
    let refused = world.post(&path("items"), json!({ "rate": 5 })).await;
    assert_eq!((refused.0, &deliveries(&world).await["counts"]["delivered"]), (400, &json!(3)), "nothing changed, nothing told");
}

#[tokio::test]
async fn a_webhook_may_be_a_form_or_carry_a_key_and_wants_only_its_own_events() {
    let webhook = json!({ "secret": SECRET, "body": "form", "headers": { "X-Key": "k" }, "events": ["edit"] });
    let (world, receiver) = world_and_receiver("", webhook).await;
    let id = item(&world, json!({ "name": "Lamp & Co" })).await;
    world.post(&path("contacts"), json!({ "contact_name": "A" })).await;
    world.put(&path(&format!("items/{id}")), json!({ "rate": 5 })).await;
    let received = receiver.wait_for(1).await.remove(0);
    let form: Vec<(String, String)> = url::form_urlencoded::parse(received.body.as_bytes()).into_owned().collect();
    assert_eq!(form[0].0, "JSONString");
    assert_eq!(serde_json::from_str::<Value>(&form[0].1).unwrap()["item"]["name"], "Lamp & Co");
    assert_eq!(received.header("X-Key"), Some("k"));
    assert_eq!(received.header("X-Zoho-Webhook-Signature"), Some(&*signature(&format!("JSONString{}", form[0].1))));
    assert_eq!(deliveries(&world).await["deliveries"].as_array().map(Vec::len), Some(1), "neither the create nor the contact");
}

#[tokio::test]
async fn billing_tells_too_and_stock_only_if_it_counts_as_an_edit() {
    let (world, receiver) = world_and_receiver("", json!({ "product": "billing", "modules": [] })).await;
    let id = world.customer("Acme").await;
    assert_eq!(receiver.wait_for(1).await[0].json()["customer"]["customer_id"], id.as_str());
    world.delete("/admin/webhooks/1").await;
    world.post("/admin/webhooks", json!({ "product": "inventory", "modules": ["items"], "url": receiver.url })).await;
    let lamp = item(&world, json!({ "name": "Lamp" })).await;
    receiver.wait_for(2).await;
    let adjust = json!({
        "date": "2026-06-09", "reason": "Count", "adjustment_type": "quantity",
        "line_items": [{ "item_id": lamp, "quantity_adjusted": 2 }],
    });
    world.post(&path("inventoryadjustments"), adjust.clone()).await;
    assert_eq!(deliveries(&world).await["counts"]["delivered"], 2);
    world.post("/admin/settings", json!({ "inventory": { "stock_bumps": true } })).await;
    world.post(&path("inventoryadjustments"), adjust).await;
    assert_eq!(receiver.wait_for(3).await[2].json()["item"]["stock_on_hand"], 4);
}

/// A channel for all of the deals' events.
async fn watch(world: &World, receiver: &Receiver) {
    let channel = json!({ "watch": [{
        "channel_id": 1_000_000_068_001_u64, "events": ["Deals.all"], "notify_url": format!("{}/notify?k=secret", receiver.url),
        "token": "our token", "return_affected_field_values": true,
    }]});
    assert_eq!(world.post("/crm/v8/actions/watch", channel).await.0, 201);
}

#[tokio::test]
async fn a_notification_has_the_documented_body_and_one_call_makes_one_of_each_kind() {
    let (world, receiver) = (World::new("").await, Receiver::new().await);
    watch(&world, &receiver).await;
    let deals = json!({ "data": [{ "Deal_Name": "A", "Stage": "New" }, { "Deal_Name": "B", "Stage": "New" }] });
    let (_, made) = world.post("/crm/v8/Deals", deals).await;
    let ids = [&made["data"][0]["details"]["id"], &made["data"][1]["details"]["id"]];
    let mut body = receiver.wait_for(1).await[0].json();
    assert!(body["server_time"].take().as_i64() > Some(1_700_000_000_000), "milliseconds");
    assert_eq!(
        body,
        json!({
            "server_time": null, "query_params": { "k": "secret" }, "module": "Deals",
            "resource_uri": "https://www.zohoapis.com/crm/v2/Deals", "ids": ids, "affected_fields": [], "operation": "insert",
            "channel_id": "1000000068001", "token": "our token", "affected_values": [],
        })
    );
    world.put("/crm/v8/Deals", json!({ "data": [{ "id": ids[0], "Stage": "Closed Won", "Deal_Name": "A" }] })).await;
    let body = receiver.wait_for(2).await[1].json();
    assert_eq!((&body["operation"], &body["affected_fields"]), (&json!("update"), &json!([{ ids[0].as_str().unwrap(): ["Stage"] }])));
    assert_eq!(body["affected_values"], json!([{ "record_id": ids[0], "values": { "Stage": "Closed Won" } }]));
    world.delete(&format!("/crm/v8/Deals/{}", ids[1].as_str().unwrap())).await;
    assert_eq!(receiver.wait_for(3).await[2].json()["operation"], "delete");
    world.post("/crm/v8/Contacts", json!({ "data": [{ "Last_Name": "A" }] })).await;
    world.post("/admin/clock", json!({ "advance_seconds": 3601 })).await;
    world.put("/crm/v8/Deals", json!({ "data": [{ "id": ids[0], "Stage": "New" }] })).await;
    assert_eq!(deliveries(&world).await["deliveries"].as_array().map(Vec::len), Some(3), "another module, then an expired channel");
}

#[tokio::test]
async fn an_empty_trigger_silences_workflows_but_not_notifications() {
    let (world, receiver) = world_and_receiver("", json!({ "product": "crm", "modules": ["Deals"] })).await;
    watch(&world, &receiver).await;
    let deal = |name: &str| json!([{ "Deal_Name": name, "Stage": "New" }]);
    world.post("/crm/v8/Deals", json!({ "data": deal("quiet"), "trigger": [] })).await;
    receiver.wait_for(1).await;
    assert_eq!(deliveries(&world).await["deliveries"][0]["kind"], "notification");
    world.post("/crm/v8/Deals", json!({ "data": deal("loud"), "trigger": ["workflow"] })).await;
    let seen = receiver.wait_for(3).await;
    let workflow = seen.iter().find(|one| one.uri == "/hook").unwrap().json();
    assert_eq!((&workflow["module"], &workflow["record"]["Deal_Name"]), (&json!("Deals"), &json!("loud")));
}

#[tokio::test]
async fn deliveries_are_lost_doubled_and_delayed_as_the_scenario_says() {
    let (world, receiver) = world_and_receiver("[delivery]\nlose = 1.0", json!({})).await;
    item(&world, json!({ "name": "lost" })).await;
    let told = deliveries(&world).await;
    assert_eq!((&told["deliveries"][0]["state"], &told["counts"]["lost"], receiver.count()), (&json!("lost"), &json!(1), 0));
    world.post("/admin/settings", json!({ "delivery": { "lose": 0, "double": 1 } })).await;
    item(&world, json!({ "name": "doubled" })).await;
    let seen = receiver.wait_for(2).await;
    assert_eq!(seen[0].body, seen[1].body);
    world.post("/admin/settings", json!({ "delivery": { "double": 0, "delay": 1, "delay_ms": [50, 60] } })).await;
    item(&world, json!({ "name": "late" })).await;
    receiver.wait_for(3).await;
    let told = deliveries(&world).await;
    let late = &told["deliveries"][3];
    let time = |value: &Value| value.as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    assert_eq!(late["delayed"], true);
    assert!(time(&late["tries"][0]["sent_at"]) - time(&late["made_at"]) >= chrono::TimeDelta::milliseconds(45), "{late}");
}

#[tokio::test]
async fn a_reordered_delivery_is_overtaken_by_the_next() {
    let (world, receiver) = world_and_receiver("[delivery]\nreorder = 1.0\nhold_ms = 60000", json!({})).await;
    item(&world, json!({ "name": "first" })).await;
    world.post("/admin/settings", json!({ "delivery": { "reorder": 0 } })).await;
    let elsewhere = Receiver::new().await;
    world.post("/admin/webhooks", json!({ "product": "inventory", "modules": ["contacts"], "url": elsewhere.url })).await;
    world.post(&path("contacts"), json!({ "contact_name": "not on the same way" })).await;
    elsewhere.wait_for(1).await;
    item(&world, json!({ "name": "second" })).await;
    let names: Vec<_> = receiver.wait_for(2).await.iter().map(|one| one.json()["item"]["name"].clone()).collect();
    assert_eq!(names, ["second", "first"]);
}

#[tokio::test]
async fn a_refused_delivery_is_tried_again_only_if_the_scenario_says_so() {
    let (world, receiver) = world_and_receiver("", json!({})).await;
    receiver.answers.lock().unwrap().push(503);
    item(&world, json!({ "name": "once" })).await;
    receiver.wait_for(1).await;
    assert_eq!(deliveries(&world).await["deliveries"][0]["state"], "failed");
    world.post("/admin/settings", json!({ "delivery": { "retries": 2, "backoff_ms": 20 } })).await;
    receiver.answers.lock().unwrap().extend([500, 503]);
    item(&world, json!({ "name": "thrice" })).await;
    receiver.wait_for(4).await;
    let told = deliveries(&world).await;
    let tries: Vec<_> = told["deliveries"][1]["tries"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!((tries, &told["deliveries"][1]["state"]), (vec![json!(503), json!(500), json!(200)], &json!("delivered")));
    assert_eq!((&told["counts"]["retried"], &told["counts"]["answered 200"]), (&json!(2), &json!(1)));
    world.post("/admin/settings", json!({ "delivery": { "retries": 0 } })).await;
    world.delete("/admin/webhooks").await;
    world.post("/admin/webhooks", json!({ "product": "inventory", "url": "http://127.0.0.1:1/" })).await;
    item(&world, json!({ "name": "nobody there" })).await;
    let told = deliveries(&world).await;
    assert!(told["deliveries"][2]["tries"][0]["error"].is_string(), "{told}");
}

#[tokio::test]
async fn forgeries_have_other_values_and_no_right_signature() {
    let (world, receiver) = world_and_receiver("", json!({ "secret": SECRET })).await;
    let forge = |signature: &str| json!({ "webhook": 1, "module": "items", "id": "1", "record": { "item_id": "1", "rate": 0 }, "signature": signature });
    for (number, kind) in ["wrong", "none", "right"].into_iter().enumerate() {
        assert_eq!(world.post("/admin/forge", forge(kind)).await.0, 200);
        let seen = receiver.wait_for(number + 1).await.remove(number);
        let right = signature(&seen.body);
        assert_eq!(seen.json(), json!({ "item": { "item_id": "1", "rate": 0 } }));
        match (kind, seen.header("X-Zoho-Webhook-Signature")) {
            ("wrong", Some(given)) => assert!(given != right && given.len() == right.len()),
            ("right", Some(given)) => assert_eq!(given, right),
            ("none", None) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(world.post("/admin/forge", json!({ "webhook": 9 })).await.0, 400);
    world.post("/admin/settings", json!({ "delivery": { "forge": 1 } })).await;
    item(&world, json!({ "name": "Lamp" })).await;
    let seen = receiver.wait_for(5).await;
    let forged: Vec<_> = seen[3..].iter().filter(|one| one.header("X-Zoho-Webhook-Signature") != Some(&*signature(&one.body))).collect();
    assert_eq!((forged.len(), &forged[0].json()["item"]["name"]), (1, &json!("forged")));
    let (receiver, world) = (Receiver::new().await, World::new("").await);
    watch(&world, &receiver).await;
    let channel = json!({ "channel": "1000000068001", "module": "Deals", "ids": ["7"], "token": "wrong" });
    assert_eq!(world.post("/admin/forge", channel).await.0, 200);
    let body = receiver.wait_for(1).await[0].json();
    assert_eq!(body["ids"], json!(["7"]));
    assert_ne!(body["token"], "our token");
}

#[tokio::test]
async fn the_seed_decides_what_is_lost_and_seeding_tells_nobody() {
    let run = async || {
        let (world, _receiver) = world_and_receiver("seed = 5\n[delivery]\nlose = 0.5\ndouble = 0.5", json!({})).await;
        let seed = json!({
            "product": "inventory", "module": "items", "organization": ORGANIZATION, "count": 20,
            "record": { "name": "Item {n}" }, "notify": true,
        });
        let (status, _) = world.post("/admin/seed", seed.clone()).await;
        assert_eq!(status, 200);
        let told = deliveries(&world).await;
        let mut quiet = seed;
        quiet["notify"] = false.into();
        world.post("/admin/seed", quiet).await;
        assert_eq!(deliveries(&world).await["next"], told["next"], "nobody was told of those");
        told["counts"].clone()
    };
    let first = run().await;
    assert!(first["lost"].as_u64() > Some(0) && first["doubled"].as_u64() > Some(0), "{first}");
    assert_eq!(first, run().await);
}

#[tokio::test]
async fn what_is_lost_to_the_client_is_told_all_the_same() {
    let (world, receiver) = world_and_receiver("", json!({})).await;
    world.fault(json!({ "kind": "drop_after", "product": "inventory", "times": 1 })).await;
    let body = json!({ "name": "Lamp" });
    assert!(world.request(Method::POST, &path("items")).json(&body).send().await.is_err());
    assert_eq!(receiver.wait_for(1).await[0].json()["item"]["name"], "Lamp");
}

#[tokio::test]
async fn a_raw_body_has_the_fields_it_names() {
    let raw = r#"{"event":"item","id":"${item_id}","full":${JSONString}}"#;
    let (world, receiver) = world_and_receiver("", json!({ "raw": raw, "secret": SECRET })).await;
    let id = item(&world, json!({ "name": "Lamp" })).await;
    let received = receiver.wait_for(1).await.remove(0);
    let body = received.json();
    assert_eq!((&body["event"], &body["id"], &body["full"]["item"]["name"]), (&json!("item"), &json!(id), &json!("Lamp")));
    assert_eq!(received.header("X-Zoho-Webhook-Signature"), Some(&*signature(&received.body)));
}
