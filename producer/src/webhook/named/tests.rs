#![allow(clippy::unwrap_used)]
use serde_json::json;
use sluice_sync::module::Module;

use super::*;

fn target(label: Option<&str>, sync: &str, module: &str) -> Target {
    Target { label: label.map(str::to_owned), sync: sync.to_owned(), module: Module::of(&module.parse().unwrap()) }
}

fn billing() -> Vec<Target> {
    vec![target(Some("customer"), "customers", "billing/customers"), target(Some("invoice"), "invoices", "billing/invoices")]
}

fn of(document: &Value, query: &[(&str, &str)], targets: &[Target]) -> Named {
    let query: Vec<_> = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    named(Some(document), &query, None, targets)
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    Some(text.parse().unwrap())
}

#[test]
fn a_finance_record_is_found_under_its_key_or_flat() {
    let one = [target(None, "items", "inventory/items")];
    let record = json!({ "item_id": "4600000026049", "name": "Pen", "last_modified_time": "2026-01-02T03:04:05+0200" });
    for document in [json!({ "item": record, "organization_id": "10" }), json!({ "data": record }), record.clone()] {
        let named = of(&document, &[], &one);
        assert_eq!((named.sync.as_deref(), &named.zoho_ids[..]), (Some("items"), &["4600000026049".to_owned()][..]), "{document}");
        assert_eq!(named.modified_at, time("2026-01-02T01:04:05Z"));
        assert_eq!(named.unclear, None);
    }
    let number = of(&json!({ "item": { "item_id": 4_600_000_026_049_i64 } }), &[("event", "item_deleted")], &one);
    assert_eq!((number.zoho_ids, number.operation.as_deref()), (vec!["4600000026049".to_owned()], Some("item_deleted")));
    let unknown = of(&json!({ "taxgroup": { "taxgroup_id": "5" } }), &[], &[target(None, "groups", "books/taxgroups")]);
    assert_eq!(unknown.zoho_ids, ["5"]);
}

#[test]
fn a_billing_event_carries_the_record_as_text_and_has_a_number() {
    let payload = json!({ "customer": { "customer_id": "7", "updated_time": "2026-01-02T03:04:05-0700" } });
    for payload in [Value::String(payload.to_string()), payload] {
        let event =
            json!({ "event_id": "903", "event_type": "customer_created", "event_time": "2026-01-02T03:04:06-0700", "payload": payload });
        let named = of(&event, &[], &billing());
        assert_eq!((named.sync.as_deref(), named.event_id.as_deref()), (Some("customers"), Some("903")));
        assert_eq!((named.zoho_ids, named.operation.as_deref()), (vec!["7".to_owned()], Some("customer_created")));
        assert_eq!((named.modified_at, named.occurred_at), (time("2026-01-02T10:04:05Z"), time("2026-01-02T10:04:06Z")));
    }
}

#[test]
fn a_form_is_its_json_or_its_fields() {
    let form = |fields: &[(&str, &str)]| fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    let whole = form(&[("JSONString", r#"{"customer":{"customer_id":"7"}}"#)]);
    assert_eq!(named(document(None, Some(&whole)).as_ref(), &[], None, &billing()).zoho_ids, ["7"]);
    let chosen = form(&[("customer_id", "7"), ("email", "a@example.com")]);
    assert_eq!(named(document(None, Some(&chosen)).as_ref(), &[], None, &billing()).sync.as_deref(), Some("customers"));
}

#[test]
fn a_flat_record_that_could_be_of_several_syncs_is_told_by_the_address() {
    let flat = json!({ "invoice_id": "1", "customer_id": "7" });
    assert!(of(&flat, &[], &billing()).unclear.unwrap().contains("?module="));
    let named = of(&flat, &[("module", "invoices")], &billing());
    assert_eq!((named.sync.as_deref(), named.zoho_ids), (Some("invoices"), vec!["1".to_owned()]));
    // under its key there is nothing to tell
    assert_eq!(of(&json!({ "invoice": flat }), &[], &billing()).sync.as_deref(), Some("invoices"));
}

#[test]
fn a_notification_names_ids_fields_and_a_time_in_milliseconds() {
    let targets = [target(Some("Deals"), "contracts", "crm/Deals"), target(Some("Contacts"), "people", "crm/Contacts")];
    let mut note = json!({ "server_time": 1_718_117_126_473_i64, "module": "Deals", "ids": ["1", "2"], "operation": "update", "channel_id": 68001,
        "affected_fields": [{ "1": ["Stage", "Amount"] }, "Deal_Name"], "query_params": {} });
    let named = of(&note, &[], &targets);
    assert_eq!((named.sync.as_deref(), &named.zoho_ids[..]), (Some("contracts"), &["1".to_owned(), "2".to_owned()][..]));
    assert_eq!(named.occurred_at, time("2024-06-11T14:45:26.473Z"));
    assert_eq!(named.affected, Some(json!({ "1": ["Stage", "Amount"], "*": ["Deal_Name"] })));
    assert_eq!(named.channel_id.as_deref(), Some("68001"));
    note["module"] = json!("Leads");
    assert_eq!(of(&note, &[], &targets).unclear.as_deref(), Some("module Leads has no sync here"));
    note["module"] = json!("Deals");
    note["ids"] = json!([]);
    assert_eq!(of(&note, &[], &targets).unclear.as_deref(), Some("it names no record"));
}

#[test]
fn a_workflows_own_body_names_the_record_as_its_author_likes() {
    let targets = [target(None, "orders", "fsm/Work_Orders")];
    for (document, query) in [
        (json!({ "id": "9" }), &[][..]),
        (json!({ "record_id": 9, "status": "done" }), &[]),
        (json!({ "data": [{ "id": "9" }] }), &[]),
        (json!({}), &[("id", "9")]),
    ] {
        let named = of(&document, query, &targets);
        assert_eq!(
            (named.sync.as_deref(), &named.zoho_ids[..], named.unclear),
            (Some("orders"), &["9".to_owned()][..], None),
            "{document}"
        );
    }
}

#[test]
fn what_cannot_be_made_out_says_why() {
    for document in
        [json!([1, 2]), json!({ "hello": "world" }), json!({ "customer": { "name": "nobody" } }), json!({ "item": { "item_id": "4" } })]
    {
        let named = of(&document, &[], &billing());
        assert!(named.sync.is_none() || named.zoho_ids.is_empty(), "{document}");
        assert!(named.unclear.is_some(), "{document}");
    }
    assert!(named(None, &[], None, &billing()).unclear.unwrap().contains("neither JSON nor a form"));
    let hostile = json!({ "customer": { "customer_id": "a\u{0}b" } });
    assert!(of(&hostile, &[], &billing()).zoho_ids.iter().all(|id| !id.contains('\0')));
}
