//! What is not documented is refused, and recorded.

use serde_json::json;

use crate::world::World;

#[tokio::test]
async fn an_unknown_address_is_refused_in_the_products_own_way_and_recorded() {
    let world = World::new("").await;
    let (status, body) = world.get("/billing/v1/payments").await;
    assert_eq!((status, &body["code"]), (404, &json!(5)));
    let (status, body) = world.get("/crm/v8/Contacts/1/Notes/2").await;
    assert_eq!((status, &body["code"]), (404, &json!("INVALID_URL_PATTERN")));
    let stats = world.stats().await;
    assert_eq!(stats["violations"]["unknown_operation"], 2);
    assert_eq!(
        stats["unknown_operations"],
        json!([
            { "method": "GET", "path": "/billing/v1/payments", "count": 1 },
            { "method": "GET", "path": "/crm/v8/Contacts/1/Notes/2", "count": 1 }
        ])
    );
}

#[tokio::test]
async fn an_unknown_query_parameter_is_recorded_with_its_operation() {
    let world = World::new("").await;
    assert_eq!(world.get("/billing/v1/customers?email=a&page=1").await.0, 200, "Zoho ignores it");
    let unknown = world.stats().await["unknown_parameters"].clone();
    assert_eq!(unknown, json!([{ "method": "GET", "operation": "/billing/v1/customers", "parameter": "email", "count": 1 }]));
}

#[tokio::test]
async fn a_run_that_keeps_to_the_table_leaves_no_violation() {
    let world = World::new("").await;
    world.customer("Acme").await;
    world.get("/crm/v8/settings/fields?module=Contacts").await;
    let stats = world.stats().await;
    assert_eq!((&stats["violations"], &stats["unknown_operations"]), (&json!({}), &json!([])));
}
