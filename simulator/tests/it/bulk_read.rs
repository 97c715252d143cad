//! Bulk reads: jobs, their files, and what becomes of both.

use std::io::Read as _;

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

async fn ask(world: &World, query: Value) -> (u16, Value) {
    world.post("/crm/bulk/v8/read", json!({ "query": query })).await
}

fn deals() -> Value {
    json!({ "module": { "api_name": "Deals" }, "fields": ["Deal_Name", "Amount", "Modified_Time"] })
}

fn job(answer: &Value) -> String {
    answer["data"][0]["details"]["id"].as_str().unwrap().to_owned()
}

async fn state(world: &World, job: &str) -> Value {
    world.get(&format!("/crm/bulk/v8/read/{job}")).await.1["data"][0].clone()
}

/// The file's lines, or the status of the refusal.
async fn file(world: &World, job: &str) -> Result<Vec<String>, u16> {
    let answer = world.request(Method::GET, &format!("/crm/bulk/v8/read/{job}/result")).send().await.unwrap();
    if answer.status() != 200 {
        return Err(answer.status().as_u16());
    }
    let bytes = answer.bytes().await.unwrap();
    let mut zip = zip::ZipArchive::new(std::io::Cursor::new(bytes)).unwrap();
    assert_eq!(zip.len(), 1);
    let mut table = String::new();
    zip.by_index(0).unwrap().read_to_string(&mut table).unwrap();
    Ok(table.lines().map(str::to_owned).collect())
}

async fn pass(world: &World, seconds: u32) {
    world.post("/admin/clock", json!({ "advance_seconds": seconds })).await;
}

async fn seed(world: &World, count: u32) {
    let record = json!({ "Deal_Name": "Deal, {n}", "Amount": 5.5 });
    world.post("/admin/seed", json!({ "product": "crm", "module": "Deals", "organization": "", "count": count, "record": record })).await;
}

#[tokio::test]
async fn a_job_is_added_then_in_progress_then_there_is_a_file_of_what_was_there_for_a_day() {
    let world = World::new("[crm.bulk_read]\nseconds = 100").await;
    seed(&world, 2).await;
    let (status, answer) = ask(&world, deals()).await;
    assert_eq!((status, &answer["data"][0]["code"]), (201, &json!("ADDED_SUCCESSFULLY")));
    assert_eq!(world.stats().await["crm"]["credits"], 50);
    let job = job(&answer);
    seed(&world, 1).await;
    assert_eq!((&state(&world, &job).await["state"], file(&world, &job).await), (&json!("ADDED"), Err(404)));
    pass(&world, 60).await;
    assert_eq!(state(&world, &job).await["state"], "IN PROGRESS");
    pass(&world, 60).await;
    let done = state(&world, &job).await;
    assert_eq!(
        (&done["state"], &done["result"]["count"], &done["result"]["more_records"]),
        (&json!("COMPLETED"), &json!(2), &json!(false))
    );
    let lines = file(&world, &job).await.unwrap();
    assert_eq!((lines.len(), lines[0].as_str()), (3, "Id,Deal_Name,Amount,Modified_Time"));
    assert!(lines[1].contains(",\"Deal, 1\",5.5,20"), "{}", lines[1]);
    pass(&world, 24 * 3600).await;
    assert_eq!(file(&world, &job).await, Err(404));
    assert_eq!(world.stats().await["violations"], json!({}));
}

#[tokio::test]
async fn what_does_not_fit_is_asked_for_by_a_token_and_the_eleventh_download_of_a_minute_is_refused() {
    let world = World::new("[crm.bulk_read]\nseconds = 0\nper_file = 2").await;
    seed(&world, 3).await;
    let first = job(&ask(&world, deals()).await.1);
    let token = state(&world, &first).await["result"]["next_page_token"].clone();
    let second = job(&ask(&world, json!({ "page_token": token })).await.1);
    assert_eq!((file(&world, &first).await.unwrap().len(), file(&world, &second).await.unwrap().len()), (3, 2));
    assert_eq!(ask(&world, json!({ "page_token": "other" })).await.0, 400);
    for _ in 0..8 {
        file(&world, &first).await.unwrap();
    }
    assert_eq!(file(&world, &first).await, Err(429));
}

#[tokio::test]
async fn a_query_that_cannot_be_is_refused_by_its_code() {
    let world = World::new("").await;
    let criteria =
        |field: &str, comparator: &str, value: &str| json!({ "field": { "api_name": field }, "comparator": comparator, "value": value });
    let with = |criteria: Value| {
        let mut query = deals();
        query["criteria"] = criteria;
        query
    };
    for (query, code) in [
        (json!({ "module": { "api_name": "Nothing" } }), "MODULE_NOT_AVAILABLE"),
        (json!({ "module": { "api_name": "Deals" }, "fields": ["Nothing"] }), "FIELD_NOT_AVAILABLE"),
        (with(criteria("Amount", "equal", "5")), "FIELD_IN_CRITERIA_NOT_SUPPORTED"),
        (with(criteria("Modified_Time", "contains", "5")), "FIELD_COMPARATOR_IN_CRITERIA_NOT_SUPPORTED"),
        (
            with(criteria("Modified_Time", "greater_equal", "2026-01-01T00:00:00.000+00:00")),
            "COMPARATOR_AND_VALUE_IN_CRITERIA_NOT_COMPATIBLE",
        ),
    ] {
        let (status, answer) = ask(&world, query).await;
        assert_eq!((status, &answer["code"]), (400, &json!(code)));
    }
}
