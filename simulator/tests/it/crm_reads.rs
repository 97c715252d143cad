//! How the CRM is read: lists, deleted records, COQL, search, and its fields.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::{World, taken};

/// New records of a module; their ids.
async fn make(world: &World, module: &str, records: Value) -> Vec<String> {
    let (status, answer) = world.post(&format!("/crm/v8/{module}"), json!({ "data": records })).await;
    assert_eq!(status, 201, "{answer}");
    let rows = answer["data"].as_array().unwrap().iter();
    rows.map(|row| row["details"]["id"].as_str().unwrap().to_owned()).collect()
}

async fn coql(world: &World, query: &str) -> (u16, Value) {
    world.post("/crm/v8/coql", json!({ "select_query": query })).await
}

fn column<'a>(answer: &'a Value, name: &str) -> Vec<&'a Value> {
    answer["data"].as_array().map_or_else(Vec::new, |rows| rows.iter().map(|row| &row[name]).collect())
}

async fn since(world: &World, path: &str, at: &str) -> (u16, Value) {
    taken(world.request(Method::GET, path).header("If-Modified-Since", at).send().await.unwrap()).await
}

#[tokio::test]
async fn list_rows_have_no_subforms_and_single_reads_do() {
    let world = World::new("").await;
    let ids = make(&world, "Quotes", json!([{ "Subject": "A", "Quoted_Items": [{ "Quantity": 1 }] }])).await;
    let (_, list) = world.get("/crm/v8/Quotes?fields=Subject,Quoted_Items").await;
    assert_eq!(list["data"], json!([{ "id": ids[0], "Subject": "A" }]));
    let (_, one) = world.get(&format!("/crm/v8/Quotes/{}", ids[0])).await;
    assert_eq!(one["data"][0]["Quoted_Items"][0]["Quantity"], 1);
    world.fault(json!({ "kind": "empty_list", "product": "crm", "times": 1 })).await;
    assert_eq!(world.get(&format!("/crm/v8/Quotes?fields=Subject&ids={}", ids[0])).await.0, 204, "by mistake");
}

#[tokio::test]
async fn rows_of_a_subform_are_added_to_those_that_are_there() {
    let world = World::new("").await;
    let id = make(&world, "Quotes", json!([{ "Subject": "A", "Quoted_Items": [{ "Quantity": 1 }] }])).await.remove(0);
    let rows = async || world.get(&format!("/crm/v8/Quotes/{id}")).await.1["data"][0]["Quoted_Items"].clone();
    let put = async |items: Value| world.put("/crm/v8/Quotes", json!({ "data": [{ "id": id, "Quoted_Items": items }] })).await.0;
    assert_eq!(put(json!([{ "Quantity": 2 }])).await, 200);
    let two = rows().await;
    assert_eq!((&two[0]["Quantity"], &two[1]["Quantity"]), (&json!(1), &json!(2)));
    assert_eq!(put(json!([{ "id": two[0]["id"], "_delete": null }, { "id": two[1]["id"], "Quantity": 3 }])).await, 200);
    assert_eq!(rows().await, json!([{ "id": two[1]["id"], "Quantity": 3 }]));
}

#[tokio::test]
async fn lists_are_sorted_by_time_and_by_nothing_else() {
    let world = World::new("").await;
    let ids = make(&world, "Leads", json!([{ "Last_Name": "A" }, { "Last_Name": "B" }])).await;
    world.post("/admin/clock", json!({ "advance_seconds": 2 })).await;
    world.put("/crm/v8/Leads", json!({ "data": [{ "id": ids[0], "Phone": "1" }] })).await;
    let names = async |sort: &str| {
        let (_, list) = world.get(&format!("/crm/v8/Leads?fields=Last_Name&{sort}")).await;
        column(&list, "Last_Name").into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names("").await, ["B", "A"], "newest id first");
    assert_eq!(names("sort_by=Modified_Time").await, ["A", "B"]);
    assert_eq!(names("sort_by=Modified_Time&sort_order=asc").await, ["B", "A"]);
    let (status, refused) = world.get("/crm/v8/Leads?fields=Last_Name&sort_by=Last_Name").await;
    assert_eq!((status, &refused["details"]["supported_values"][0]), (400, &json!("id")));
    let (_, both) = world.get("/crm/v8/Leads?fields=Last_Name&page=1&page_token=x").await;
    assert_eq!(both["code"], "AMBIGUITY_DURING_PROCESSING");
    let (_, beyond) = world.get("/crm/v8/Leads?fields=Last_Name&page=11").await;
    assert_eq!(beyond["code"], "DISCRETE_PAGINATION_LIMIT_EXCEEDED");
}

#[tokio::test]
async fn a_list_since_a_second_is_strict_unless_the_scenario_says_otherwise() {
    let world = World::new("utc_offset_minutes = 120").await;
    world.post("/admin/clock", json!({ "frozen": true })).await;
    let ids = make(&world, "Leads", json!([{ "Last_Name": "A" }])).await;
    let at = world.get(&format!("/crm/v8/Leads/{}", ids[0])).await.1["data"][0]["Modified_Time"].as_str().unwrap().to_owned();
    assert!(at.ends_with("+02:00"), "{at}");
    let path = "/crm/v8/Leads?fields=Last_Name";
    assert_eq!(since(&world, path, &at).await.0, 304);
    world.post("/admin/settings", json!({ "modified_since_inclusive": true })).await;
    assert_eq!(column(&since(&world, path, &at).await.1, "Last_Name"), ["A"]);
}

#[tokio::test]
async fn deleted_records_are_listed_with_who_deleted_them() {
    let world = World::new("").await;
    let ids = make(&world, "Leads", json!([{ "Last_Name": "A" }, { "Last_Name": "B" }])).await;
    assert_eq!(world.get("/crm/v8/Leads/deleted").await.0, 204);
    world.delete(&format!("/crm/v8/Leads/{}", ids[0])).await;
    world.post("/admin/clock", json!({ "advance_seconds": 10 })).await;
    world.delete(&format!("/admin/records?product=crm&module=Leads&permanent=true&id={}", ids[1])).await;
    let (_, all) = world.get("/crm/v8/Leads/deleted?type=all").await;
    assert_eq!(column(&all, "id"), [&ids[0], &ids[1]]);
    let (first, second) = (&all["data"][0], &all["data"][1]);
    assert_eq!((&first["type"], &first["display_name"], &second["type"]), (&json!("recycle"), &json!("A"), &json!("permanent")));
    assert!(second["display_name"].is_null() && second["deleted_by"].is_null() && first["deleted_by"].is_object());
    let at = first["deleted_time"].as_str().unwrap();
    assert_eq!(column(&since(&world, "/crm/v8/Leads/deleted", at).await.1, "id"), [&ids[1]]);
    assert_eq!(column(&world.get("/crm/v8/Leads/deleted?type=recycle").await.1, "id"), [&ids[0]]);
}

#[tokio::test]
async fn coql_reads_what_changed_page_by_page_with_ids_as_tie_break() {
    let world = World::new("").await;
    let seed = json!({ "product": "crm", "module": "Deals", "count": 5, "record": { "Deal_Name": "D{n}", "Stage": "New", "Amount": 10 } });
    let ids = world.post("/admin/seed", seed).await.1["ids"].clone();
    let query = "select Deal_Name, Modified_Time from Deals where Modified_Time >= '2020-01-01T00:00:00+00:00' \
                 order by Modified_Time asc, id asc limit 0, 3";
    let (status, first) = coql(&world, query).await;
    assert_eq!((status, column(&first, "Deal_Name")), (200, vec![&json!("D1"), &json!("D2"), &json!("D3")]));
    assert_eq!((&first["info"]["count"], &first["info"]["more_records"]), (&json!(3), &json!(true)));
    let (at, id) = (first["data"][2]["Modified_Time"].as_str().unwrap(), ids[2].as_str().unwrap());
    let rest = format!(
        "select Deal_Name from Deals where (Modified_Time > '{at}' or (Modified_Time = '{at}' and id > '{id}')) order by Modified_Time, id"
    );
    let (_, second) = coql(&world, &rest).await;
    assert_eq!(column(&second, "Deal_Name"), ["D4", "D5"]);
    assert_eq!(column(&second, "id"), [&ids[3], &ids[4]], "the id is always there");
    assert_eq!(coql(&world, "select id from Deals where Modified_Time > '2999-01-01T00:00:00+00:00'").await.0, 204);
}

#[tokio::test]
async fn coql_knows_its_operators_and_shows_lookups_by_their_ids() {
    let world = World::new("").await;
    let account = make(&world, "Accounts", json!([{ "Account_Name": "Acme" }])).await.remove(0);
    let deals = json!([
        { "Deal_Name": "Big one", "Stage": "Closed Won", "Amount": 900.5, "Account_Name": { "id": account } },
        { "Deal_Name": "small", "Stage": "New", "Amount": 9 }, { "Deal_Name": "Empty", "Stage": "New" },
    ]);
    make(&world, "Deals", deals).await;
    let found = async |condition: &str| {
        let (status, answer) = coql(&world, &format!("select Deal_Name from Deals where {condition} order by id")).await;
        assert!(status == 200 || status == 204, "{condition}: {answer}");
        column(&answer, "Deal_Name").into_iter().map(|name| name.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("Amount > 10").await, ["Big one"]);
    assert_eq!(found("Amount <= 9").await, ["small"], "blanks are not smaller");
    assert_eq!(found("Amount is null").await, ["Empty"]);
    assert_eq!(found("Stage in ('Closed Won', 'Lost')").await, ["Big one"]);
    assert_eq!(found("Stage != 'New'").await, ["Big one"]);
    assert_eq!(found("Deal_Name like '%ALL'").await, ["small"]);
    assert_eq!(found(&format!("Account_Name = '{account}'")).await, ["Big one"]);
    assert_eq!(found("Account_Name.Account_Name = 'acme'").await, ["Big one"]);
    assert_eq!(found("((Amount is null and Stage = 'New') or Amount = 9)").await, ["small", "Empty"]);
    let (_, joined) = coql(&world, "select Account_Name, Account_Name.Account_Name from Deals where Amount = 900.5").await;
    assert_eq!(
        (&joined["data"][0]["Account_Name"], &joined["data"][0]["Account_Name.Account_Name"]),
        (&json!({ "id": account }), &json!("Acme"))
    );
    let refused = async |query: &str| coql(&world, query).await.1["code"].as_str().unwrap().to_owned();
    assert_eq!(refused("select id from Deals").await, "SYNTAX_ERROR");
    assert_eq!(refused("select Colour from Deals where id is not null").await, "INVALID_QUERY");
    assert_eq!(refused("select id from Nothing where id is not null").await, "INVALID_QUERY");
    assert_eq!(refused("select id from Deals where id is not null limit 201").await, "LIMIT_EXCEEDED");
    assert_eq!(refused("select id from Deals where Amount = 1 or Amount = 2 or Amount = 3").await, "SYNTAX_ERROR");
}

#[tokio::test]
async fn search_lags_behind_and_coql_does_not() {
    let world = World::new("").await;
    world.post("/admin/clock", json!({ "frozen": true })).await;
    let ids = make(&world, "Contacts", json!([{ "Last_Name": "Jones", "Email": "a@b.example" }])).await;
    let path = "/crm/v8/Contacts/search?criteria=(Last_Name:equals:Jones)&fields=Last_Name";
    assert_eq!(world.get(path).await.0, 204, "too fresh");
    assert_eq!(coql(&world, "select id from Contacts where Last_Name = 'Jones'").await.0, 200);
    world.post("/admin/clock", json!({ "advance_seconds": 3 })).await;
    assert_eq!(world.get(path).await.1["data"], json!([{ "id": ids[0], "Last_Name": "Jones" }]));
    world.put("/crm/v8/Contacts", json!({ "data": [{ "id": ids[0], "Last_Name": "Smith" }] })).await;
    assert_eq!(world.get(path).await.0, 200, "the index still has the old name");
    world.post("/admin/clock", json!({ "advance_seconds": 3 })).await;
    assert_eq!(world.get(path).await.0, 204);
    assert_eq!(world.get("/crm/v8/Contacts/search?email=A@b.example").await.1["data"][0]["Last_Name"], "Smith");
}

#[tokio::test]
async fn search_criteria_are_joined_escaped_and_contain_rather_than_equal() {
    let world = World::new("[crm]\nsearch_lag_seconds = 0").await;
    let accounts = json!([{ "Account_Name": "ABC Corporation", "Employees": 5 }, { "Account_Name": "ABC Corp (old)", "Employees": 50 }]);
    make(&world, "Accounts", accounts).await;
    let names = async |criteria: &str| {
        let mut url = url::Url::parse(&format!("{}/crm/v8/Accounts/search", world.url)).unwrap();
        url.query_pairs_mut().append_pair("criteria", criteria);
        let (_, answer) = world.get(&format!("{}?{}", url.path(), url.query().unwrap())).await;
        column(&answer, "Account_Name").into_iter().cloned().collect::<Vec<_>>()
    };
    assert_eq!(names("(Account_Name:equals:ABC Corp)").await.len(), 2, "equals contains");
    assert_eq!(names("((Account_Name:starts_with:abc)and(Employees:greater_than:10))").await, ["ABC Corp (old)"]);
    assert_eq!(names("(Account_Name:equals:\\(old\\))").await, ["ABC Corp (old)"]);
    assert_eq!(names("((Employees:in:5,7)or(Employees:between:40,60))").await.len(), 2);
    let (status, nothing) = world.get("/crm/v8/Accounts/search").await;
    assert_eq!((status, &nothing["code"]), (400, &json!("EXPECTED_PARAM_MISSING")));
    assert_eq!(world.get("/crm/v8/Accounts/search?criteria=(Colour:equals:red)").await.1["code"], "INVALID_QUERY");
    assert_eq!(world.get("/crm/v8/Accounts/search?criteria=(Employees:like:1)").await.1["details"]["operator"], "like");
}

#[tokio::test]
async fn fields_are_made_five_a_call_and_named_by_zoho() {
    let world = World::new("").await;
    let path = "/crm/v8/settings/fields?module=Deals";
    let field = |label: &str| json!({ "field_label": label, "data_type": "text", "length": 100 });
    let (status, _) = world.post(path, json!({ "fields": (0..6).map(|n| field(&format!("F{n}"))).collect::<Vec<_>>() })).await;
    assert_eq!(status, 400);
    let picks = json!([{ "display_value": "Low", "actual_value": "Low" }, { "display_value": "High", "actual_value": "High" }]);
    let tier = json!({ "field_label": "Risk / Tier", "data_type": "picklist", "pick_list_values": picks });
    let key =
        json!({ "field_label": "Sluice Key", "data_type": "text", "unique": { "case_sensitive": false }, "external": { "type": "org" } });
    let (status, made) = world.post(path, json!({ "fields": [tier, key, field("Stage")] })).await;
    assert_eq!((status, &made["fields"][2]["code"]), (207, &json!("DUPLICATE_DATA")));
    let (_, fields) = world.get(path).await;
    let named = |name: &str| fields["fields"].as_array().unwrap().iter().find(|field| field["api_name"] == name).cloned().unwrap();
    let (tier, key) = (named("Risk_Tier"), named("Sluice_Key"));
    assert_eq!(tier["id"], made["fields"][0]["details"]["id"]);
    assert_eq!((&key["external"]["type"], &key["unique"]["case_sensitive"]), (&json!("org"), &json!(false)));
    let low = json!([{ "Deal_Name": "D", "Stage": "New", "Risk_Tier": "Medium" }]);
    assert_eq!(world.post("/crm/v8/Deals", json!({ "data": low })).await.1["data"][0]["code"], "INVALID_DATA");
    let change = json!({ "fields": [{ "id": tier["id"], "pick_list_values": [{ "display_value": "Medium", "actual_value": "Medium" }] }] });
    let patch = world.request(Method::PATCH, path).json(&change).send().await.unwrap();
    assert_eq!(taken(patch).await.0, 200);
    assert_eq!(world.post("/crm/v8/Deals", json!({ "data": low })).await.0, 201);
    assert_eq!(world.get("/crm/v8/settings/modules").await.1["modules"].as_array().map(Vec::len), Some(6));
}

#[tokio::test]
async fn a_persons_edit_is_told_apart_from_the_api_users() {
    let world = World::new("").await;
    let id = make(&world, "Leads", json!([{ "Last_Name": "A" }])).await.remove(0);
    let by = async || world.get(&format!("/crm/v8/Leads/{id}")).await.1["data"][0]["Modified_By"]["name"].clone();
    assert_eq!(by().await, "Simulated User");
    world.put("/admin/records", json!({ "product": "crm", "module": "Leads", "id": id, "record": { "Phone": "2" } })).await;
    assert_eq!(by().await, "Simulated Person");
}
