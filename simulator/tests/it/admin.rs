//! The admin API, where the other tests do not use it anyway.

use serde_json::{Value, json};

use crate::world::World;

#[tokio::test]
async fn the_log_tells_each_request_with_its_time_and_what_it_did() {
    let world = World::new("latency_ms = [5, 5]").await;
    let id = world.customer("Acme").await;
    world.get("/billing/v1/customers?page=1").await;
    let (_, log) = world.get("/admin/log?product=billing").await;
    let rows = log["requests"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "admin calls are not logged");
    assert_eq!((&rows[0]["ids"], &rows[0]["committed"], &rows[0]["status"]), (&json!([id]), &json!(true), &json!(201)));
    assert_eq!(rows[0]["operation"], "/billing/v1/customers");
    assert!(rows[0]["latency_us"].as_u64() >= Some(5_000));
    assert!(rows[0]["arrived_us"].as_i64() < rows[1]["arrived_us"].as_i64());
    assert_eq!((&rows[1]["query"], &rows[1]["committed"]), (&json!("page=1"), &json!(false)));
    let (_, rest) = world.get(&format!("/admin/log?since={}", log["next"])).await;
    assert_eq!(rest["requests"], json!([]));
}

#[tokio::test]
async fn a_person_can_edit_add_and_delete_records_in_both_products() {
    let world = World::new("").await;
    let id = world.customer("Acme").await;
    let edit = json!({ "product": "billing", "module": "customers", "id": id, "record": { "display_name": "By hand" } });
    assert_eq!(world.put("/admin/records", edit).await.0, 200);
    assert_eq!(world.get(&format!("/billing/v1/customers/{id}")).await.1["customer"]["display_name"], "By hand");
    let add = json!({ "product": "crm", "module": "Contacts", "record": { "Last_Name": "B", "Email": "b@b.example" } });
    let (_, added) = world.put("/admin/records", add).await;
    let contact = added["record"]["id"].as_str().unwrap();
    let upsert = json!({ "data": [{ "Last_Name": "C", "Email": "B@b.example" }] });
    let (_, found) = world.post("/crm/v8/Contacts/upsert", upsert).await;
    assert_eq!(found["data"][0]["details"]["id"], contact, "a record put by hand is found");
    assert_eq!(world.delete(&format!("/admin/records?product=crm&module=Contacts&id={contact}")).await.0, 200);
    assert_eq!(world.get(&format!("/crm/v8/Contacts/{contact}")).await.0, 204);
}

#[tokio::test]
async fn a_reset_forgets_what_it_says_and_keeps_the_tokens() {
    let world = World::new("").await;
    world.customer("Acme").await;
    world.post("/admin/reset?what=log", json!({})).await;
    let stats = world.stats().await;
    assert_eq!((&stats["requests"], &stats["commits"], &stats["tokens"]["minted"]), (&json!(0), &json!(0), &json!(0)));
    assert_eq!(world.records("billing", "customers").await.len(), 1);
    world.post("/admin/settings", json!({ "finance": { "per_minute": 1 } })).await;
    world.post("/admin/reset", json!({})).await;
    assert_eq!(world.records("billing", "customers").await.len(), 0);
    assert_eq!(world.get("/billing/v1/customers").await.0, 200, "the token is still good");
    assert_eq!(world.get("/billing/v1/customers").await.0, 200, "settings are as at the start");
}

#[tokio::test]
async fn settings_change_while_it_runs_but_not_into_nonsense() {
    let world = World::new("").await;
    assert_eq!(world.post("/admin/clock", json!({ "time_scale": 10 })).await.0, 200);
    assert_eq!(world.stats().await["window_ms"], 6_000);
    for wrong in [json!({ "time_scale": 0 }), json!({ "colour": 1 }), json!({ "seed": 2 }), json!([1])] {
        let (status, body) = world.post("/admin/settings", wrong.clone()).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(body["error"].is_string());
    }
    let (_, settings) = world.get("/admin/settings").await;
    assert_eq!(settings["time_scale"].as_f64(), Some(10.0));
}

#[tokio::test]
async fn counts_and_the_table_of_operations_are_shown() {
    let world = World::new("").await;
    world.customer("Acme").await;
    let (_, state) = world.get("/admin/state").await;
    assert_eq!((&state["counts"]["billing"]["customers"], &state["counts"]["crm"]["Deals"]), (&json!(1), &json!(0)));
    let (_, table) = world.get("/admin/operations").await;
    let rows = table["operations"].as_array().unwrap();
    assert!(rows.iter().all(|row| { row["source"].as_str().is_some_and(|source| !source.is_empty()) }));
    assert_eq!(world.get("/admin/nothing").await.0, 404);
    assert_eq!(world.post("/admin/faults", json!({ "kind": "earthquake" })).await.0, 400);
    assert_eq!(world.get("/admin/faults").await.1["faults"], Value::Array(Vec::new()));
}
