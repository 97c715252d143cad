//! Inventory's rules: lists, items, stock, images, contacts.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{ORGANIZATION, World, taken};

/// A path of Inventory with its organisation.
pub(crate) fn path(rest: &str) -> String {
    let mark = if rest.contains('?') { '&' } else { '?' };
    format!("/inventory/v1/{rest}{mark}organization_id={ORGANIZATION}")
}

/// A new item's id.
pub(crate) async fn item(world: &World, body: Value) -> String {
    let (status, answer) = world.post(&path("items"), body).await;
    assert_eq!(status, 201, "{answer}");
    answer["item"]["item_id"].as_str().unwrap().to_owned()
}

async fn read(world: &World, id: &str) -> Value {
    world.get(&path(&format!("items/{id}"))).await.1["item"].clone()
}

fn names(answer: &Value) -> Vec<&str> {
    answer["items"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn list_rows_are_partial_and_blanks_are_empty_text() {
    let world = World::new("utc_offset_minutes = 330").await;
    let custom = json!([{ "api_name": "cf_colour", "value": "red" }]);
    let id = item(&world, json!({ "name": "Lamp", "rate": 19.99, "custom_fields": custom })).await;
    let (_, list) = world.get(&path("items")).await;
    let (row, full) = (&list["items"][0], read(&world, &id).await);
    for hidden in ["locations", "custom_field_hash", "custom_fields", "documents", "price_brackets"] {
        assert!(row.get(hidden).is_none() && full.get(hidden).is_some(), "{hidden}");
    }
    assert_eq!((&row["item_id"], &row["sku"], &row["vendor_id"], &row["reorder_level"]), (&json!(id), &json!(""), &json!(""), &json!("")));
    assert_eq!((&row["rate"].to_string()[..], &full["custom_field_hash"]["cf_colour"]), ("19.99", &json!("red")));
    assert!(row["last_modified_time"].as_str().unwrap().ends_with("+0530"));
    let context = &list["page_context"];
    assert_eq!((&context["report_name"], &context["sort_column"], &context["sort_order"]), (&json!("Items"), &json!("name"), &json!("A")));
    assert_eq!((&context["applied_filter"], &context["has_more_page"]), (&json!("Status.All"), &json!(false)));
}

#[tokio::test]
async fn lists_are_sorted_filtered_and_paged() {
    let world = World::new("").await;
    for (name, sku, rate) in [("b", "3", 1), ("A", "1", 30), ("c", "2", 4)] {
        item(&world, json!({ "name": name, "sku": sku, "rate": rate })).await;
    }
    assert_eq!(names(&world.get(&path("items")).await.1), ["A", "b", "c"]);
    assert_eq!(names(&world.get(&path("items?sort_column=sku")).await.1), ["A", "c", "b"]);
    assert_eq!(names(&world.get(&path("items?sort_column=rate&sort_order=D")).await.1), ["A", "c", "b"]);
    let (_, first) = world.get(&path("items?per_page=2")).await;
    assert_eq!((names(&first), &first["page_context"]["has_more_page"]), (vec!["A", "b"], &json!(true)));
    assert_eq!(names(&world.get(&path("items?per_page=2&page=2")).await.1), ["c"]);
    let (_, found) = world.get(&path("items?sku=3")).await;
    let id = found["items"][0]["item_id"].as_str().unwrap();
    assert_eq!(world.post(&path(&format!("items/{id}/inactive")), json!({})).await.0, 200);
    assert_eq!(names(&world.get(&path("items?filter_by=Status.Active")).await.1), ["A", "c"]);
    assert_eq!(names(&world.get(&path("items?filter_by=Status.Inactive")).await.1), ["b"]);
    let (status, refused) = world.get(&path("items?filter_by=Status.Blue")).await;
    assert_eq!((status, &refused["code"]), (400, &json!(2)));
    assert_eq!(world.get(&path("items?sort_column=colour")).await.1["code"], 2);
}

#[tokio::test]
async fn modified_since_is_strict_or_inclusive_and_its_plus_must_be_escaped() {
    let world = World::new("utc_offset_minutes = 60").await;
    world.post("/admin/clock", json!({ "frozen": true })).await;
    let old = item(&world, json!({ "name": "old" })).await;
    world.post("/admin/clock", json!({ "advance_seconds": 5 })).await;
    item(&world, json!({ "name": "new" })).await;
    let since = read(&world, &old).await["last_modified_time"].as_str().unwrap().to_owned();
    let asked = path(&format!("items?last_modified_time={}", since.replace('+', "%2B")));
    assert_eq!(names(&world.get(&asked).await.1), ["new"]);
    world.post("/admin/settings", json!({ "modified_since_inclusive": true })).await;
    assert_eq!(names(&world.get(&asked).await.1), ["new", "old"]);
    let (status, refused) = world.get(&path(&format!("items?last_modified_time={since}"))).await;
    assert_eq!((status, &refused["code"]), (400, &json!(2)), "a bare plus is a space");
    world.post("/admin/settings", json!({ "inventory": { "ignore_modified_filter": true }, "modified_since_inclusive": false })).await;
    assert_eq!(names(&world.get(&asked).await.1), ["new", "old"]);
}

#[tokio::test]
async fn details_are_full_records_of_at_most_a_hundred_ids() {
    let world = World::new("").await;
    let (a, b) = (item(&world, json!({ "name": "a" })).await, item(&world, json!({ "name": "b" })).await);
    let (status, details) = world.get(&path(&format!("itemdetails?item_ids={b},{a},460000000000000001"))).await;
    assert_eq!((status, names(&details)), (200, vec!["b", "a"]));
    assert_eq!(details["items"][1], read(&world, &a).await);
    let many = vec![a.as_str(); 101].join(",");
    assert_eq!(world.get(&path(&format!("itemdetails?item_ids={many}"))).await.0, 400);
}

#[tokio::test]
async fn names_are_taken_once_and_skus_are_not() {
    let world = World::new("").await;
    item(&world, json!({ "name": "Lamp", "sku": "1" })).await;
    item(&world, json!({ "name": "Lamp 2", "sku": "1" })).await;
    let (status, taken) = world.post(&path("items"), json!({ "name": "LAMP" })).await;
    assert_eq!((status, &taken["code"]), (400, &json!(1001)));
    assert_eq!(world.post(&path("items"), json!({ "sku": "1" })).await.1["code"], 6, "a name is mandatory");
}

#[tokio::test]
async fn an_update_is_partial_and_bumps_the_time_only_if_it_changes_something() {
    let world = World::new("").await;
    let id = item(&world, json!({ "name": "Lamp", "sku": "1", "rate": 5 })).await;
    let before = read(&world, &id).await;
    world.post("/admin/clock", json!({ "advance_seconds": 2 })).await;
    world.put(&path(&format!("items/{id}")), json!({ "rate": 5 })).await;
    assert_eq!(read(&world, &id).await, before);
    let (status, _) = world.put(&path(&format!("items/{id}")), json!({ "rate": 6, "sku": "", "initial_stock": 9 })).await;
    assert_eq!(world.stats().await["ignored_fields"], json!({ "items.initial_stock": 1 }));
    let after = read(&world, &id).await;
    assert_eq!((status, &after["name"], &after["sku"], &after["rate"]), (200, &json!("Lamp"), &json!(""), &json!(6)));
    assert_ne!(after["last_modified_time"], before["last_modified_time"]);
    assert_eq!(after["created_time"], before["created_time"]);
}

#[tokio::test]
async fn an_adjustment_moves_stock_by_its_difference_each_time_it_is_posted() {
    let world = World::new("").await;
    let id = item(&world, json!({ "name": "Lamp", "initial_stock": 10 })).await;
    let before = read(&world, &id).await;
    assert_eq!((&before["stock_on_hand"], &before["locations"][0]["location_stock_on_hand"]), (&json!(10), &json!(10)));
    world.post("/admin/clock", json!({ "advance_seconds": 2 })).await;
    let adjustment = json!({
        "date": "2026-06-09", "reason": "Count", "adjustment_type": "quantity", "reference_number": "ours:1",
        "line_items": [{ "item_id": id, "quantity_adjusted": -3 }],
    });
    let (status, made) = world.post(&path("inventoryadjustments"), adjustment.clone()).await;
    assert_eq!(status, 201, "{made}");
    world.post(&path("inventoryadjustments"), adjustment.clone()).await;
    let after = read(&world, &id).await;
    assert_eq!((&after["stock_on_hand"], &after["available_stock"]), (&json!(4), &json!(4)));
    assert_eq!(after["last_modified_time"], before["last_modified_time"], "stock is no edit, unless the scenario says so");
    let (_, list) = world.get(&path("inventoryadjustments")).await;
    assert_eq!(list["inventory_adjustments"][0]["reference_number"], "ours:1");
    assert!(list["inventory_adjustments"][0].get("line_items").is_none());
    let (status, used) = world.delete(&path(&format!("items/{id}"))).await;
    assert_eq!((status, &used["code"]), (400, &json!(2049)));
    let made = made["inventory_adjustment"]["inventory_adjustment_id"].as_str().unwrap();
    assert_eq!(world.delete(&path(&format!("inventoryadjustments/{made}"))).await.0, 200);
    assert_eq!(read(&world, &id).await["stock_on_hand"], 7);
    world.post("/admin/settings", json!({ "inventory": { "stock_bumps": true } })).await;
    world.post(&path("inventoryadjustments"), adjustment).await;
    assert_ne!(read(&world, &id).await["last_modified_time"], before["last_modified_time"]);
}

#[tokio::test]
async fn an_image_is_uploaded_read_back_and_deleted() {
    let world = World::new("").await;
    let id = item(&world, json!({ "name": "Lamp" })).await;
    let image = path(&format!("items/{id}/image"));
    let bytes = [0x89, b'P', b'N', b'G', b'\r', b'\n', 0, 255];
    let mut body =
        b"--xyz\r\nContent-Disposition: form-data; name=\"image\"; filename=\"lamp.png\"\r\nContent-Type: image/png\r\n\r\n".to_vec();
    body.extend(bytes);
    body.extend(b"\r\n--xyz--\r\n");
    let request = world.request(Method::POST, &image).header("Content-Type", "multipart/form-data; boundary=xyz").body(body);
    assert_eq!(taken(request.send().await.unwrap()).await.0, 200);
    assert_eq!(read(&world, &id).await["image_name"], "lamp.png");
    let answer = world.request(Method::GET, &image).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/png");
    assert_eq!(&answer.bytes().await.unwrap()[..], bytes);
    assert_eq!(world.delete(&image).await.0, 200);
    assert_eq!((world.get(&image).await.0, &read(&world, &id).await["image_name"]), (404, &json!("")));
}

#[tokio::test]
async fn a_person_sets_replaces_and_removes_an_image_each_time_with_a_new_document_and_time() {
    let world = World::new("").await;
    world.post("/admin/clock", json!({ "frozen": true })).await;
    let id = item(&world, json!({ "name": "Lamp" })).await;
    let put = async |record: Value| {
        world.post("/admin/clock", json!({ "advance_seconds": 2 })).await;
        world.put("/admin/records", json!({ "product": "inventory", "module": "items", "id": id, "record": record })).await;
        read(&world, &id).await
    };
    let first = put(json!({ "image": "AAEC", "image_name": "lamp.jpg" })).await;
    assert_eq!((&first["image_name"], &first["image_type"]), (&json!("lamp.jpg"), &json!("jpeg")));
    let answer = world.request(Method::GET, &path(&format!("items/{id}/image"))).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "image/jpeg");
    assert_eq!(&answer.bytes().await.unwrap()[..], [0, 1, 2]);
    let other = put(json!({ "rate": 7 })).await;
    assert_eq!(other["image_document_id"], first["image_document_id"]);
    let second = put(json!({ "image": "AwQ=" })).await;
    assert_ne!(second["image_document_id"], first["image_document_id"]);
    assert_ne!(second["last_modified_time"], other["last_modified_time"]);
    assert_eq!(names(&world.get(&path("items")).await.1), ["Lamp"]);
    let none = put(json!({ "image": "" })).await;
    assert_eq!((&none["image_document_id"], &none["image_name"]), (&json!(""), &json!("")));
    let (status, refused) = world.get(&path(&format!("items/{id}/image"))).await;
    assert_eq!((status, refused["code"].is_number()), (404, true), "{refused}");
}

#[tokio::test]
async fn contacts_are_sorted_by_their_last_change_and_show_their_primary_person() {
    let world = World::new("").await;
    let contact = |name: &str| json!({ "contact_name": name, "contact_persons": [{ "email": "a@b.example", "is_primary_contact": true }] });
    world.post(&path("contacts"), contact("Acme")).await;
    world.post("/admin/clock", json!({ "advance_seconds": 2 })).await;
    world.post(&path("contacts"), contact("Zoo")).await;
    let (_, list) = world.get(&path("contacts?sort_column=last_modified_time&sort_order=D")).await;
    assert_eq!((&list["contacts"][0]["contact_name"], &list["contacts"][0]["email"]), (&json!("Zoo"), &json!("a@b.example")));
    assert!(list["contacts"][0].get("contact_persons").is_none());
    assert_eq!(world.post(&path("contacts"), contact("acme")).await.1["code"], 3062);
    let (status, all) = world.get(&path("contacts?last_modified_time=2999-01-01T00:00:00-0000")).await;
    assert_eq!((status, all["contacts"].as_array().map(Vec::len)), (200, Some(2)), "not documented, so ignored");
    assert_eq!(world.stats().await["unknown_parameters"][0]["parameter"], "last_modified_time");
}

#[tokio::test]
async fn categories_locations_and_price_lists_are_there() {
    let world = World::new("").await;
    let (_, made) = world.post(&path("categories"), json!({ "name": "Light" })).await;
    let category = made["category"]["category_id"].as_str().unwrap();
    let id = item(&world, json!({ "name": "Lamp", "category_id": category })).await;
    assert_eq!(read(&world, &id).await["category_name"], "Light");
    assert_eq!(world.delete(&path(&format!("categories/{category}"))).await.1["code"], 2049);
    let (_, locations) = world.get(&path("locations")).await;
    assert_eq!(locations["locations"][0]["is_primary"], true);
    let prices = json!([{ "item_id": id, "pricebook_rate": 4 }]);
    let book = json!({ "name": "Trade", "pricebook_type": "per_item", "sales_or_purchase_type": "sales", "pricebook_items": prices });
    assert_eq!(world.post(&path("pricebooks"), book).await.0, 201);
    let (_, books) = world.get(&path("pricebooks")).await;
    assert_eq!(books["pricebooks"][0]["pricebook_items"], prices);
    assert_eq!(world.get(&path("pricebooks/1")).await.0, 404, "a single price list cannot be read");
}

#[tokio::test]
async fn the_organisation_is_named_in_the_query_and_metered_with_billing() {
    let world = World::new("[finance]\norganizations = [\"60000000001\"]").await;
    assert_eq!(world.get("/inventory/v1/items").await.1["code"], 6041);
    assert_eq!(world.get(&path("items")).await.0, 200);
    assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    let stats = world.stats().await;
    assert_eq!((&stats["scopes"]["finance:60000000001"]["calls"], &stats["unknown_parameters"]), (&json!(2), &json!([])));
    assert_eq!(world.get("/inventory/v1/organizations").await.1["organizations"][0]["organization_id"], ORGANIZATION);
}

#[tokio::test]
async fn ten_thousand_items_are_seeded_with_their_own_times_and_a_list_may_be_empty_by_mistake_once() {
    let world = World::new("").await;
    let seed = json!({
        "product": "inventory", "module": "items", "organization": ORGANIZATION, "count": 10_000, "age_seconds": 86_400, "step_seconds": 1,
        "record": { "name": "Item {n}", "sku": "S-{n}", "rate": 5, "stock_on_hand": 3 },
    });
    let (status, seeded) = world.post("/admin/seed", seed).await;
    assert_eq!((status, seeded["ids"].as_array().map(Vec::len)), (200, Some(10_000)));
    let newest = path("items?sort_column=last_modified_time&sort_order=D&per_page=1");
    assert_eq!(names(&world.get(&newest).await.1), ["Item 10000"]);
    let (_, state) = world.get("/admin/state").await;
    assert_eq!(state["counts"]["inventory"]["items"], 10_000);
    let edit = json!({ "product": "inventory", "module": "items", "ids": [seeded["ids"][6]], "record": { "rate": 6, "cf_colour": "red" } });
    let edited = world.put("/admin/records", edit).await.1["records"][0].clone();
    assert_eq!((&edited["name"], &edited["custom_field_hash"]["cf_colour"]), (&json!("Item 7"), &json!("red")));
    assert_eq!(names(&world.get(&newest).await.1), ["Item 7"]);
    world.fault(json!({ "kind": "empty_list", "path": "/inventory/v1/items", "times": 1 })).await;
    let (status, empty) = world.get(&path("items")).await;
    assert_eq!((status, &empty["items"], &empty["page_context"]["has_more_page"]), (200, &json!([]), &json!(false)));
    assert_eq!(world.get(&path("items")).await.1["items"].as_array().map(Vec::len), Some(200));
}

#[tokio::test]
async fn a_scenario_says_what_is_there_from_the_start_and_nobody_is_told_of_it() {
    let scenario = r#"
        [finance]
        organizations = ["60000000001"]
        [[records]]
        product = "inventory"
        module = "categories"
        record = { category_id = "77", name = "Cables" }
        [[records]]
        product = "inventory"
        module = "items"
        count = 3
        first = 5
        age_seconds = 3600
        record = { name = "Item {n}", rate = 1.5, category_id = "77" }
    "#;
    let world = World::new(scenario).await;
    let names = async |module: &str| {
        let rows = world.records("inventory", module).await;
        rows.iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("items").await, ["Item 5", "Item 6", "Item 7"]);
    assert_eq!(world.get("/admin/deliveries").await.1["deliveries"], json!([]));
    // forgotten with everything else, they are there again
    world.post("/admin/reset", json!({})).await;
    assert_eq!((names("items").await.len(), names("categories").await), (3, vec!["Cables".to_owned()]));
    let wrong =
        sluice_simulator::Scenario::from_toml("[[records]]\nproduct = \"inventory\"\nmodule = \"items\"\nage_seconds = -1\nrecord = {}");
    assert!(wrong.is_err_and(|error| error.to_string().contains("age_seconds")));
}
