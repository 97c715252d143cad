//! Notification channels: their lives and their refusals.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, taken};

const WATCH: &str = "/crm/v8/actions/watch";

fn channel(expiry: &str) -> Value {
    json!({ "watch": [{
        "channel_id": "1000000068001", "events": ["Deals.all", "Contacts.edit"], "notify_url": "https://receiver.example/p?k=1",
        "token": "a token", "channel_expiry": expiry,
    }]})
}

/// A moment so many hours from now, as a client writes it.
async fn in_hours(world: &World, hours: i64) -> String {
    let now = world.get("/admin/clock").await.1["now"].as_str().unwrap().parse::<chrono::DateTime<chrono::Utc>>().unwrap();
    (now + chrono::TimeDelta::hours(hours)).format("%Y-%m-%dT%H:%M:%S%:z").to_string()
}

async fn send(world: &World, method: Method, body: Value) -> (u16, Value) {
    taken(world.request(method, WATCH).json(&body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_channel_lives_as_long_as_asked_but_no_longer_than_a_week() {
    let world = World::new("").await;
    let week = in_hours(&world, 167).await;
    let (status, made) = send(&world, Method::POST, channel(&week)).await;
    let events = &made["watch"][0]["details"]["events"];
    assert_eq!((status, events.as_array().map(Vec::len)), (201, Some(2)), "one for each module");
    assert_eq!(events[0]["channel_expiry"], week.as_str());
    let (_, listed) = world.get(&format!("{WATCH}?module=Deals")).await;
    assert_eq!((&listed["watch"][0]["channel_id"], &listed["watch"][0]["resource_name"]), (&json!("1000000068001"), &json!("Deals")));
    let (_, renewed) = send(&world, Method::PUT, channel(&in_hours(&world, 200).await)).await;
    let expiry = renewed["watch"][0]["details"]["events"][0]["channel_expiry"].as_str().unwrap().to_owned();
    assert!(expiry <= in_hours(&world, 1).await, "further than a week is an hour: {expiry}");
}

#[tokio::test]
async fn an_expired_channel_is_gone_and_must_be_made_again() {
    let world = World::new("").await;
    send(&world, Method::POST, channel("")).await;
    let renew = json!({ "watch": [{ "channel_id": "1000000068001", "channel_expiry": in_hours(&world, 2).await }] });
    assert_eq!(send(&world, Method::PATCH, renew).await.0, 200);
    assert_eq!(world.get(WATCH).await.1["watch"].as_array().map(Vec::len), Some(2), "the rest of it is kept");
    world.post("/admin/clock", json!({ "advance_seconds": 3 * 3600 })).await;
    assert_eq!(world.get(WATCH).await.0, 204);
    for method in [Method::PUT, Method::PATCH] {
        let (status, refused) = send(&world, method, channel("")).await;
        assert_eq!((status, &refused["watch"][0]["code"]), (400, &json!("NOT_SUBSCRIBED")));
    }
    assert_eq!(world.delete(&format!("{WATCH}?channel_ids=1000000068001")).await.1["watch"][0]["code"], "NOT_SUBSCRIBED");
    assert_eq!(send(&world, Method::POST, channel("")).await.0, 201);
}

#[tokio::test]
async fn events_are_dropped_one_by_one_and_channels_whole() {
    let world = World::new("").await;
    send(&world, Method::POST, channel("")).await;
    let drop = json!({ "watch": [{ "channel_id": "1000000068001", "events": ["Contacts.edit"], "_delete_events": true }] });
    assert_eq!(send(&world, Method::PATCH, drop).await.0, 200);
    assert_eq!(world.get(WATCH).await.1["watch"].as_array().map(Vec::len), Some(1));
    assert_eq!(world.delete(&format!("{WATCH}?channel_ids=1000000068001")).await.0, 200);
    assert_eq!(world.get(WATCH).await.0, 204);
    send(&world, Method::POST, channel("")).await;
    assert_eq!(world.delete("/admin/channels").await.1["lost"], 1);
    assert_eq!(world.get(WATCH).await.0, 204, "lost by Zoho");
}

#[tokio::test]
async fn what_a_channel_lacks_or_has_wrong_is_named() {
    let world = World::new("").await;
    let (status, refused) = send(&world, Method::POST, json!({ "watch": [{ "channel_id": "1", "events": ["Deals.all"] }] })).await;
    assert_eq!((status, &refused["watch"][0]["details"]["api_name"]), (400, &json!("notify_url")));
    for (field, value) in [("events", json!(["Nothing.all"])), ("token", json!("x".repeat(51))), ("channel_id", json!("abc"))] {
        let mut body = channel("");
        body["watch"][0][field] = value;
        let (_, refused) = send(&world, Method::POST, body).await;
        assert_eq!((&refused["watch"][0]["code"], &refused["watch"][0]["details"]["api_name"]), (&json!("INVALID_DATA"), &json!(field)));
    }
}
