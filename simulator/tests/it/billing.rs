//! Billing's own rules.

use reqwest::Method;
use serde_json::{Value, json};

use crate::world::World;

const INVOICES: &str = "/billing/v1/invoices?ignore_auto_number_generation=true";

fn invoice(customer: &str, number: &str, price: Value) -> Value {
    json!({
        "customer_id": customer, "date": "2026-01-31", "invoice_number": number,
        "invoice_items": [{ "name": "Work", "price": price, "quantity": 2 }]
    })
}

/// A product and the plan `gold` of 50 a month.
async fn plan(world: &World) -> String {
    let (_, product) = world.post("/billing/v1/products", json!({ "name": "Tower" })).await;
    let product = product["product"]["product_id"].as_str().unwrap().to_owned();
    let body = json!({
        "plan_code": "gold", "name": "Gold", "recurring_price": 50, "interval": 1, "interval_unit": "months",
        "product_id": product
    });
    let (status, body) = world.post("/billing/v1/plans", body).await;
    assert_eq!((status, &body["plan"]["status"]), (201, &json!("active")), "{body}");
    product
}

#[tokio::test]
async fn a_customer_is_answered_in_zohos_envelope() {
    let world = World::new("utc_offset_minutes = -240").await;
    let body = json!({
        "display_name": "Acme", "email": "a@acme.example", "phone": 5551234, "nonsense": true,
        "custom_fields": [{ "label": "Sluice key", "value": "customers:1" }]
    });
    let (status, body) = world.post("/billing/v1/customers", body).await;
    assert_eq!((status, &body["code"]), (201, &json!(0)));
    let customer = &body["customer"];
    let id = customer["customer_id"].as_str().expect("ids are strings");
    assert!((15..=19).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    assert_eq!(customer["phone"], "5551234");
    assert_eq!(customer["custom_field_hash"]["cf_sluice_key"], "customers:1");
    assert!(customer["created_time"].as_str().unwrap().ends_with("-0400"), "{customer}");
    assert_eq!(customer.get("nonsense"), None);
    assert_eq!(world.stats().await["ignored_fields"]["customers.nonsense"], 1);
    let (_, list) = world.get("/billing/v1/customers").await;
    assert_eq!(list["customers"][0].get("custom_fields"), None, "list rows are partial");
    assert_eq!(list["page_context"]["per_page"], 200);
}

#[tokio::test]
async fn refusals_name_the_field() {
    let world = World::new("[finance.custom_fields]\ncustomers = [\"cf_known\"]").await;
    let good = json!({ "display_name": "A", "email": "a@b.example" });
    for (field, value, status, code) in [
        ("display_name", json!(""), 400, 6),
        ("email", Value::Null, 400, 6),
        ("email", json!("not an address"), 400, 4),
        ("display_name", json!("x".repeat(201)), 400, 15),
        ("billing_address", json!("Main Street"), 400, 4),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (got, answer) = world.post("/billing/v1/customers", body).await;
        assert_eq!((got, &answer["code"]), (status, &json!(code)), "{field}: {answer}");
        assert!(answer["message"].as_str().unwrap().contains(field), "{answer}");
    }
    let mut body = good;
    body["custom_fields"] = json!([{ "api_name": "cf_other", "value": 1 }]);
    assert_eq!(world.post("/billing/v1/customers", body).await.1["message"], "Invalid value passed for cf_other");
    assert_eq!(world.records("billing", "customers").await.len(), 0);
}

#[tokio::test]
async fn an_update_keeps_what_it_does_not_name() {
    let world = World::new("").await;
    let id = world.customer("Acme").await;
    let (status, body) = world.put(&format!("/billing/v1/customers/{id}"), json!({ "notes": "n" })).await;
    assert_eq!(status, 200);
    assert_eq!((&body["customer"]["display_name"], &body["customer"]["notes"]), (&json!("Acme"), &json!("n")));
    let (status, body) = world.get("/billing/v1/customers/460000000000000001").await;
    assert_eq!((status, &body["code"]), (404, &json!(1002)));
}

#[tokio::test]
async fn a_subscription_needs_its_plan_and_its_customer_and_can_be_cancelled() {
    let world = World::new("").await;
    plan(&world).await;
    let customer = world.customer("Acme").await;
    let path = "/billing/v1/subscriptions";
    let body = |plan: &str, customer: Value| json!({ "plan": { "plan_code": plan }, "customer_id": customer });
    assert_eq!(world.post(path, body("none", json!(customer))).await.1["message"], "Plan does not exist.");
    assert_eq!(world.post(path, body("gold", json!("1"))).await.1["code"], 1002);
    assert_eq!(world.post(path, json!({ "customer_id": customer })).await.1["code"], 6);
    let as_number: u64 = customer.parse().unwrap();
    let (status, live) = world.post(path, body("gold", json!(as_number))).await;
    assert_eq!(status, 201, "ids are taken as numbers too: {live}");
    assert_eq!(live["subscription"]["status"], "live");
    assert_eq!(live["subscription"]["amount"], 50);
    let mut later = body("gold", json!(customer));
    later["starts_at"] = "2999-01-01".into();
    later["reference_id"] = "subscriptions:7".into();
    assert_eq!(world.post(path, later).await.1["subscription"]["status"], "future");
    let (_, found) = world.get(&format!("{path}?reference_contains=subscriptions:7")).await;
    assert_eq!(found["subscriptions"].as_array().map(Vec::len), Some(1));
    let id = live["subscription"]["subscription_id"].as_str().unwrap();
    let (_, ending) = world.post(&format!("{path}/{id}/cancel?cancel_at_end=true"), json!({})).await;
    assert_eq!(ending["subscription"]["status"], "non_renewing");
    let (_, ended) = world.post(&format!("{path}/{id}/cancel?cancel_at_end=false"), json!({})).await;
    assert_eq!(ended["subscription"]["status"], "cancelled");
}

#[tokio::test]
async fn an_own_invoice_number_cannot_be_taken_twice() {
    let world = World::new("").await;
    let customer = world.customer("Acme").await;
    let (status, first) = world.post(INVOICES, invoice(&customer, "A-1", json!(10))).await;
    assert_eq!((status, &first["invoice"]["total"]), (201, &json!(20)), "{first}");
    let (status, again) = world.post(INVOICES, invoice(&customer, "A-1", json!(10))).await;
    assert_eq!((status, &again["code"]), (400, &json!(1001)));
    let (status, _) = world.post("/billing/v1/invoices", invoice(&customer, "A-2", json!(10))).await;
    assert_eq!(status, 400, "an own number needs the flag");
    let mut automatic = invoice(&customer, "", json!(10));
    automatic.as_object_mut().unwrap().remove("invoice_number");
    assert_eq!(world.post(INVOICES, automatic.clone()).await.1["code"], 6, "the flag needs a number");
    let (_, automatic) = world.post("/billing/v1/invoices", automatic).await;
    assert_eq!(automatic["invoice"]["invoice_number"], "INV-000001");
    let (_, list) = world.get(&format!("/billing/v1/invoices?customer_id={customer}")).await;
    assert_eq!(list["invoices"][1]["number"], "A-1");
    assert_eq!(world.records("billing", "invoices").await.len(), 2);
}

#[tokio::test]
async fn payments_settle_invoices_exactly_and_never_over() {
    let world = World::new("").await;
    let customer = world.customer("Acme").await;
    let (_, made) = world.post(INVOICES, invoice(&customer, "A-1", json!(10.05))).await;
    let id = made["invoice"]["invoice_id"].as_str().unwrap().to_owned();
    assert_eq!((&made["invoice"]["status"], &made["invoice"]["balance"]), (&json!("draft"), &json!(20.1)));
    let pay = |amount: Value, applied: Value| {
        json!({
            "customer_id": customer, "payment_mode": "cash", "amount": amount, "reference_number": "payments:1",
            "invoices": [{ "invoice_id": id, "amount_applied": applied }]
        })
    };
    for (amount, applied) in [(json!(30), json!(20.11)), (json!(5), json!(6)), (json!(0), json!(0))] {
        let (status, body) = world.post("/billing/v1/payments", pay(amount, applied)).await;
        assert_eq!((status, &body["code"]), (400, &json!(4)), "{body}");
    }
    let (status, part) = world.post("/billing/v1/payments", pay(json!(10), json!(10))).await;
    assert_eq!((status, &part["payment"]["status"]), (201, &json!("success")));
    let status_of = async || world.get(&format!("/billing/v1/invoices/{id}")).await.1["invoice"]["status"].clone();
    assert_eq!(status_of().await, "partially_paid");
    world.post("/billing/v1/payments", pay(json!(10.1), json!(10.1))).await;
    assert_eq!(status_of().await, "paid");
    let (status, _) = world.post(&format!("/billing/v1/invoices/{id}/void"), json!({})).await;
    assert_eq!(status, 400, "a paid invoice cannot be voided");
    let (_, found) = world.get(&format!("/billing/v1/transactions?customer_id={customer}&filter_by=TransactionType.PAYMENT")).await;
    assert_eq!(found["transactions"].as_array().map(Vec::len), Some(2));
    let payment = part["payment"]["payment_id"].as_str().unwrap();
    assert!(found["transactions"].as_array().unwrap().iter().any(|row| row["transaction_id"] == payment));
    assert_eq!(world.get("/billing/v1/payments").await.0, 404, "payments have no list");
    world.delete(&format!("/billing/v1/payments/{payment}")).await;
    assert_eq!(status_of().await, "partially_paid", "a deleted payment opens the invoice again");
}

#[tokio::test]
async fn an_updated_payment_replaces_its_shares_or_changes_nothing() {
    let world = World::new("").await;
    let customer = world.customer("Acme").await;
    let (_, made) = world.post(INVOICES, invoice(&customer, "A-1", json!(10))).await;
    let invoice_id = made["invoice"]["invoice_id"].as_str().unwrap().to_owned();
    let shares = |applied: i64| json!([{ "invoice_id": invoice_id, "amount_applied": applied }]);
    let body = json!({ "customer_id": customer, "payment_mode": "cash", "amount": 20, "invoices": shares(15) });
    let (_, payment) = world.post("/billing/v1/payments", body).await;
    let path = format!("/billing/v1/payments/{}", payment["payment"]["payment_id"].as_str().unwrap());
    assert_eq!(world.put(&path, json!({ "invoices": shares(21) })).await.0, 400);
    let balance = async || world.records("billing", "invoices").await[0]["balance"].clone();
    assert_eq!(balance().await, 5, "refused: as before");
    assert_eq!(world.put(&path, json!({ "invoices": shares(20) })).await.0, 200);
    assert_eq!(balance().await, 0);
}

#[tokio::test]
async fn a_void_invoice_keeps_its_balance_and_takes_no_payment() {
    let world = World::new("").await;
    let customer = world.customer("Acme").await;
    let (_, made) = world.post(INVOICES, invoice(&customer, "A-1", json!(10))).await;
    let id = made["invoice"]["invoice_id"].as_str().unwrap();
    assert_eq!(world.post(&format!("/billing/v1/invoices/{id}/converttoopen"), json!({})).await.0, 200);
    assert_eq!(world.post(&format!("/billing/v1/invoices/{id}/void"), json!({})).await.0, 200);
    let record = &world.records("billing", "invoices").await[0];
    assert_eq!((&record["status"], &record["balance"]), (&json!("void"), &json!(20)));
    let body = json!({
        "customer_id": customer, "payment_mode": "cash", "amount": 1,
        "invoices": [{ "invoice_id": id, "amount_applied": 1 }]
    });
    assert_eq!(world.post("/billing/v1/payments", body).await.1["code"], 4);
}

#[tokio::test]
async fn an_invoice_line_names_a_product_that_exists() {
    let world = World::new("").await;
    let product = plan(&world).await;
    let customer = world.customer("Acme").await;
    let with = |line: Value| {
        let mut body = invoice(&customer, "A-1", json!(1));
        body["invoice_items"] = json!([line]);
        body
    };
    assert_eq!(world.post(INVOICES, with(json!({ "product_id": "7", "price": 1 }))).await.0, 404);
    assert_eq!(world.post(INVOICES, with(json!({ "price": 1 }))).await.1["code"], 6);
    let (status, made) = world.post(INVOICES, with(json!({ "product_id": product, "price": "1.10" }))).await;
    assert_eq!((status, &made["invoice"]["invoice_items"][0]["name"]), (201, &json!("Tower")), "{made}");
    assert_eq!(made["invoice"]["total"], json!(1.1), "money is a number");
}

#[tokio::test]
async fn events_tell_what_happened_with_a_payload_in_a_string() {
    let world = World::new("").await;
    let customer = world.customer("Acme").await;
    world.post(INVOICES, invoice(&customer, "A-1", json!(10))).await;
    let (_, list) = world.get("/billing/v1/events").await;
    let event = &list["events"][0];
    assert_eq!(event["event_type"], "invoice_created");
    assert_eq!(event.get("payload"), None, "list rows have no payload");
    let (_, one) = world.get(&format!("/billing/v1/events/{}", event["event_id"].as_str().unwrap())).await;
    let payload: Value = serde_json::from_str(one["event"]["payload"].as_str().unwrap()).unwrap();
    assert_eq!(payload["invoice"]["invoice_number"], "A-1");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new("").await;
    for name in ["A", "B", "C"] {
        world.customer(name).await;
    }
    let (_, first) = world.get("/billing/v1/customers?page=1&per_page=2").await;
    let (_, second) = world.get("/billing/v1/customers?page=2&per_page=2").await;
    let rows = |page: &Value| page["customers"].as_array().unwrap().len();
    assert_eq!((rows(&first), &first["page_context"]["has_more_page"]), (2, &json!(true)));
    assert_eq!((rows(&second), &second["page_context"]["has_more_page"]), (1, &json!(false)));
}

#[tokio::test]
async fn the_organisation_must_be_named_and_known() {
    let world = World::new("[finance]\norganizations = [\"60000000001\"]").await;
    assert_eq!(world.get("/billing/v1/customers").await.0, 200);
    let other = world.http.get(format!("{}/billing/v1/customers", world.url));
    let mut sent = world.request(Method::GET, "/billing/v1/customers").build().unwrap();
    sent.headers_mut().insert("X-com-zoho-subscriptions-organizationid", "1".parse().unwrap());
    let body: Value = world.http.execute(sent).await.unwrap().json().await.unwrap();
    assert_eq!(body["code"], 6041);
    let (status, body) = crate::world::taken(other.send().await.unwrap()).await;
    assert_eq!((status, &body["code"]), (401, &json!(14)), "without a token");
}

#[tokio::test]
async fn organisations_are_listed_to_whoever_names_none_and_only_one_can_be_the_default() {
    for (scenario, expected) in [
        ("", json!([["60000000001", true]])),
        ("[finance]\norganizations = [\"71\", \"72\"]", json!([["71", false], ["72", false]])),
        ("[finance]\norganizations = [\"71\", \"72\"]\ndefault_organization = \"72\"", json!([["71", false], ["72", true]])),
    ] {
        let world = World::new(scenario).await;
        let mut request = world.request(Method::GET, "/billing/v1/organizations").build().unwrap();
        request.headers_mut().remove("X-com-zoho-subscriptions-organizationid");
        let (status, body) = crate::world::taken(world.http.execute(request).await.unwrap()).await;
        let listed: Vec<_> =
            body["organizations"].as_array().unwrap().iter().map(|one| json!([one["organization_id"], one["is_default_org"]])).collect();
        assert_eq!((status, json!(listed)), (200, expected));
        assert_eq!(world.stats().await["violations"], json!({}));
    }
}
