//! The CRM's own rules.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, taken};

const UNIQUE: &str = "[[crm.fields]]\nmodule = \"Contacts\"\napi_name = \"Sluice_Key\"\nunique = true\nlength = 50\n\
                      [[crm.fields]]\nmodule = \"Contacts\"\napi_name = \"Badge\"\nunique = true";

async fn upsert(world: &World, data: Value, fields: Value) -> (u16, Value) {
    world.post("/crm/v8/Contacts/upsert", json!({ "data": data, "duplicate_check_fields": fields })).await
}

#[tokio::test]
async fn an_upsert_inserts_then_updates_by_its_field() {
    let world = World::new(UNIQUE).await;
    let record = json!([{ "Last_Name": "A", "Sluice_Key": "c:1" }]);
    let (status, first) = upsert(&world, record, json!(["Sluice_Key"])).await;
    let first = &first["data"][0];
    assert_eq!((status, &first["action"], &first["duplicate_field"]), (200, &json!("insert"), &Value::Null));
    let record = json!([{ "Last_Name": "B", "Sluice_Key": "C:1" }]);
    let (status, second) = upsert(&world, record, json!(["Sluice_Key"])).await;
    let second = &second["data"][0];
    assert_eq!((status, &second["action"], &second["duplicate_field"]), (200, &json!("update"), &json!("Sluice_Key")));
    assert_eq!(first["details"]["id"], second["details"]["id"], "unique values are compared without case");
    let rows = world.records("crm", "Contacts").await;
    assert_eq!((rows.len(), &rows[0]["Last_Name"]), (1, &json!("B")));
}

#[tokio::test]
async fn an_upsert_may_only_check_unique_fields_and_the_systems_own() {
    let world = World::new(UNIQUE).await;
    let record = json!([{ "Last_Name": "A", "Phone": "1", "Email": "a@b.example" }]);
    let (status, body) = upsert(&world, record.clone(), json!(["Phone"])).await;
    assert_eq!((status, &body["code"]), (400, &json!("INVALID_DATA")));
    assert_eq!(upsert(&world, record, json!(["Email"])).await.0, 200);
}

#[tokio::test]
async fn listed_fields_come_first_then_all_other_unique_ones() {
    let world = World::new(UNIQUE).await;
    upsert(&world, json!([{ "Last_Name": "Key", "Sluice_Key": "1" }, { "Last_Name": "Badge", "Badge": "2" }]), json!([])).await;
    let (_, body) = upsert(&world, json!([{ "Last_Name": "X", "Badge": "2" }]), json!(["Sluice_Key"])).await;
    assert_eq!(body["data"][0]["duplicate_field"], "Badge", "not listed, but unique");
    let both = json!([{ "Last_Name": "Y", "Sluice_Key": "1", "Badge": "2" }]);
    let (status, body) = upsert(&world, both, json!(["Sluice_Key"])).await;
    let error = &body["data"][0];
    assert_eq!((status, &error["code"], &error["details"]["api_name"]), (400, &json!("DUPLICATE_DATA"), &json!("Badge")));
}

#[tokio::test]
async fn with_nothing_listed_the_systems_field_is_looked_at_and_with_a_list_it_is_not() {
    let world = World::new(UNIQUE).await;
    let record = |name: &str| json!([{ "Last_Name": name, "Email": "a@b.example" }]);
    world.post("/crm/v8/Contacts", json!({ "data": record("A") })).await;
    let (_, body) = world.post("/crm/v8/Contacts/upsert", json!({ "data": record("B") })).await;
    assert_eq!(body["data"][0]["duplicate_field"], "Email");
    let (_, body) = upsert(&world, record("C"), json!(["Sluice_Key"])).await;
    assert_eq!(body["data"][0]["action"], "insert", "the list leaves the system's field out");
}

#[tokio::test]
async fn results_stand_in_order_and_a_mixed_batch_is_207() {
    let world = World::new(UNIQUE).await;
    let data = json!([{ "Last_Name": "A", "Sluice_Key": "1" }, { "First_Name": "no last name" },
        { "Last_Name": "C", "Sluice_Key": "x".repeat(51) }, { "Last_Name": "D", "Date_of_Birth": "yesterday" }]);
    let (status, body) = world.post("/crm/v8/Contacts", json!({ "data": data })).await;
    assert_eq!(status, 207);
    let codes: Vec<_> = body["data"].as_array().unwrap().iter().map(|row| row["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["SUCCESS", "MANDATORY_NOT_FOUND", "INVALID_DATA", "INVALID_DATA"]);
    assert_eq!(body["data"][1]["details"]["api_name"], "Last_Name");
    assert_eq!(body["data"][1]["details"]["json_path"], "$.data[1].Last_Name");
    assert_eq!(body["data"][2]["details"]["maximum_length"], 50);
    assert_eq!(body["data"][3]["details"]["expected_data_type"], "string");
    assert_eq!(world.records("crm", "Contacts").await.len(), 1);
}

#[tokio::test]
async fn a_create_that_repeats_a_unique_value_names_the_record_that_has_it() {
    let world = World::new(UNIQUE).await;
    let data = json!({ "data": [{ "Last_Name": "A", "Sluice_Key": "1" }] });
    let (status, first) = world.post("/crm/v8/Contacts", data.clone()).await;
    assert_eq!(status, 201);
    let (status, second) = world.post("/crm/v8/Contacts", data).await;
    assert_eq!((status, &second["data"][0]["code"]), (400, &json!("DUPLICATE_DATA")));
    assert_eq!(second["data"][0]["details"]["id"], first["data"][0]["details"]["id"]);
    let worse = json!({ "data": [{ "Sluice_Key": "1", "Email": 5 }] });
    let (_, worse) = world.post("/crm/v8/Contacts", worse).await;
    assert_eq!(worse["data"][0]["code"], "MULTIPLE_OR_MULTI_ERRORS");
    assert_eq!(worse["data"][0]["details"]["errors"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn more_than_a_hundred_records_are_refused_whole() {
    let world = World::new("").await;
    let data: Vec<Value> = (0..101).map(|number| json!({ "Last_Name": number.to_string() })).collect();
    let (status, body) = world.post("/crm/v8/Contacts", json!({ "data": data })).await;
    assert_eq!((status, &body["code"]), (400, &json!("LIMIT_EXCEEDED")));
    let (status, _) = world.post("/crm/v8/Contacts", json!({ "data": data[..100] })).await;
    assert_eq!(status, 201);
}

#[tokio::test]
async fn a_lookup_needs_the_id_of_a_record_that_exists() {
    let world = World::new("").await;
    let contact = |account: Value| json!({ "data": [{ "Last_Name": "A", "Account_Name": account }] });
    let (_, unnamed) = world.post("/crm/v8/Contacts", contact(json!({ "name": "Acme" }))).await;
    assert_eq!(unnamed["data"][0]["details"]["json_path"], "$.data[0].Account_Name.id");
    let (_, unknown) = world.post("/crm/v8/Contacts", contact(json!({ "id": "460000000000000001" }))).await;
    assert_eq!(unknown["data"][0]["code"], "INVALID_DATA");
    let (_, account) = world.post("/crm/v8/Accounts", json!({ "data": [{ "Account_Name": "Acme" }] })).await;
    let id = &account["data"][0]["details"]["id"];
    let (status, made) = world.post("/crm/v8/Contacts", contact(json!({ "id": id }))).await;
    assert_eq!(status, 201, "{made}");
    let read = format!("/crm/v8/Contacts/{}", made["data"][0]["details"]["id"].as_str().unwrap());
    assert_eq!(world.get(&read).await.1["data"][0]["Account_Name"], json!({ "id": id, "name": "Acme" }));
}

#[tokio::test]
async fn an_update_changes_what_it_names_and_loses_against_a_later_change() {
    let world = World::new("").await;
    let (_, made) = world.post("/crm/v8/Contacts", json!({ "data": [{ "Last_Name": "A", "Phone": "1" }] })).await;
    let id = made["data"][0]["details"]["id"].as_str().unwrap().to_owned();
    let (status, _) = world.put("/crm/v8/Contacts", json!({ "data": [{ "id": id, "Phone": null }] })).await;
    assert_eq!(status, 200);
    let row = &world.records("crm", "Contacts").await[0];
    assert_eq!((&row["Last_Name"], &row["Phone"]), (&json!("A"), &Value::Null));
    let put = |since: &'static str| {
        let path = format!("/crm/v8/Contacts/{id}");
        let body = json!({ "data": [{ "Last_Name": "B" }] });
        world.request(Method::PUT, &path).header("If-Unmodified-Since", since).json(&body).send()
    };
    let (status, body) = taken(put("2020-01-01T00:00:00+00:00").await.unwrap()).await;
    assert_eq!((status, &body["data"][0]["code"]), (412, &json!("ALREADY_MODIFIED")));
    assert_eq!(put("2999-01-01T00:00:00+00:00").await.unwrap().status(), 200);
    let (status, body) = world.put("/crm/v8/Contacts", json!({ "data": [{ "Last_Name": "C" }] })).await;
    assert_eq!((status, &body["data"][0]["details"]["api_name"]), (400, &json!("id")));
}

#[tokio::test]
async fn lists_need_fields_and_follow_tokens() {
    let world = World::new("").await;
    let data: Vec<Value> = (0..5).map(|number| json!({ "Last_Name": number.to_string() })).collect();
    let (_, made) = world.post("/crm/v8/Contacts", json!({ "data": data })).await;
    let (status, body) = world.get("/crm/v8/Contacts").await;
    assert_eq!((status, &body["code"]), (400, &json!("REQUIRED_PARAM_MISSING")));
    let path = "/crm/v8/Contacts?fields=Last_Name&per_page=3&sort_order=asc";
    let (_, first) = world.get(path).await;
    assert_eq!(first["data"].as_array().map(Vec::len), Some(3));
    let token = first["info"]["next_page_token"].as_str().unwrap();
    let (_, second) = world.get(&format!("{path}&page_token={token}")).await;
    assert_eq!((&second["data"][0]["Last_Name"], &second["info"]["more_records"]), (&json!("3"), &json!(false)));
    let (_, other) = world.get(&format!("/crm/v8/Contacts?fields=Email&page_token={token}")).await;
    assert_eq!(other["code"], "TOKEN_BOUND_DATA_MISMATCH");
    let id = made["data"][4]["details"]["id"].as_str().unwrap();
    let (_, by_id) = world.get(&format!("/crm/v8/Contacts?ids={id}&fields=Last_Name")).await;
    assert_eq!(by_id["data"], json!([{ "id": id, "Last_Name": "4" }]));
}

#[tokio::test]
async fn what_is_not_there_is_204_and_a_second_delete_says_so() {
    let world = World::new("").await;
    assert_eq!(world.get("/crm/v8/Deals?fields=Stage").await.0, 204);
    assert_eq!(world.get("/crm/v8/Deals/460000000000000001").await.0, 204);
    assert_eq!(world.get("/crm/v8/Deals/abc").await.1["code"], "INVALID_DATA");
    assert_eq!(world.get("/crm/v8/Nothing/1").await.1["code"], "INVALID_MODULE");
    let (_, made) = world.post("/crm/v8/Deals", json!({ "data": [{ "Deal_Name": "D", "Stage": "New" }] })).await;
    let id = made["data"][0]["details"]["id"].as_str().unwrap();
    assert_eq!(world.delete(&format!("/crm/v8/Deals?ids={id}")).await.0, 200);
    let (status, body) = world.delete(&format!("/crm/v8/Deals/{id}")).await;
    assert_eq!((status, &body["data"][0]["message"]), (400, &json!("record not deleted")));
}

#[tokio::test]
async fn metadata_shows_configured_modules_and_fields() {
    let world = World::new("[crm]\nmodules = [\"Shipments\"]").await;
    let field = json!({ "module": "Shipments", "api_name": "Key", "unique": true, "mandatory": true });
    assert_eq!(world.post("/admin/fields", field).await.0, 200);
    let (_, meta) = world.get("/crm/v8/settings/fields?module=Shipments").await;
    let key = meta["fields"].as_array().unwrap().iter().find(|field| field["api_name"] == "Key").unwrap();
    assert_eq!(key["unique"], json!({ "case_sensitive": false }));
    assert_eq!((&key["custom_field"], &key["system_mandatory"]), (&json!(true), &json!(true)));
    let (_, made) = world.post("/crm/v8/Shipments", json!({ "data": [{ "Name": "S" }] })).await;
    assert_eq!(made["data"][0]["details"]["api_name"], "Key");
    assert!(world.get("/crm/v8/org").await.1["org"][0]["zgid"].is_string());
}

#[tokio::test]
async fn a_missing_header_and_a_wrong_token_are_told_apart() {
    let world = World::new("").await;
    let url = format!("{}/crm/v8/org", world.url);
    let (_, none) = taken(world.http.get(&url).send().await.unwrap()).await;
    assert_eq!(none["code"], "AUTHENTICATION_FAILURE");
    let wrong = world.http.get(&url).header("Authorization", "Zoho-oauthtoken wrong");
    assert_eq!(taken(wrong.send().await.unwrap()).await.1["code"], "INVALID_TOKEN");
}
