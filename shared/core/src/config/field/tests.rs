//! The eight forms, read and printed.

#![allow(clippy::unwrap_used)]
use super::*;
use serde_json::json;

fn read(value: Value) -> Result<Field, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn a_text_is_a_column_and_both_spellings_are_the_same_field() {
    assert_eq!(read(json!("name")).unwrap(), read(json!({ "column": "name" })).unwrap());
}

#[test]
fn every_form_is_printed_as_it_is_read() {
    for form in [
        json!("name"),
        json!({ "column": "email", "owner": "local", "repair": true }),
        json!({ "column": "phase", "conflict": "manual", "values": { "won": "Closed Won", "draft": ["Proposal", "Negotiation"] } }),
        json!({ "sql": "upper(this.name)" }),
        json!({ "sql": "this.state", "values": { "1": "Open", "2": "Closed" } }),
        json!({ "value": "sluice" }),
        json!({ "value": false }),
        json!({ "ref": "accounts", "column": "account_id" }),
        json!({ "file": "image", "column": "picture" }),
        json!({ "each": "select 1", "item": { "id": { "ref": "invoices", "column": "i" }, "n": "n" }, "or_else": { "n": { "value": 1 } } }),
        json!({ "rows": "lines", "parent": "invoice_id", "match_on": "line_item_id", "item": { "line_item_id": "zoho_id", "rate": "price" } }),
        json!({ "rows": "lines", "parent": ["a", "b"], "match_on": "id", "on_delete": "mark", "mark": { "gone": true }, "item": { "id": "z" } }),
    ] {
        let field = read(form.clone()).unwrap();
        assert_eq!(serde_json::to_value(&field).unwrap(), form);
    }
}

#[test]
fn the_first_meaning_is_sent_and_all_are_read() {
    let Field::Column(field) = read(json!({ "column": "phase", "values": { "draft": ["Proposal", "Negotiation"] } })).unwrap() else {
        panic!("a column")
    };
    assert_eq!(field.values["draft"].sent(), &json!("Proposal"));
    assert_eq!(field.values["draft"].read(), [json!("Proposal"), json!("Negotiation")]);
}

#[test]
fn a_mixture_of_forms_is_refused_with_a_reason() {
    for (form, reason) in [
        (json!({}), "exactly one place"),
        (json!({ "sql": "1", "value": 1 }), "exactly one place"),
        (json!({ "column": "a", "sql": "1" }), "exactly one place"),
        (json!({ "ref": "accounts" }), "`ref` needs `column`"),
        (json!({ "file": "image" }), "`file` needs `column`"),
        (json!({ "file": "image", "ref": "a", "column": "b" }), "exactly one place"),
        (json!({ "file": "image", "column": "a", "owner": "zoho" }), "`owner` belongs to a column or a ref"),
        (json!({ "each": "select 1" }), "needs `item`"),
        (json!({ "column": "a", "item": { "b": "c" } }), "`item` belongs to a list"),
        (json!({ "value": 1, "values": { "a": "b" } }), "`values` belongs to a column or to `sql`"),
        (json!({ "value": 1, "owner": "local" }), "`owner` belongs to a column or a ref"),
        (json!({ "column": "a", "repair": true }), "give `owner` too"),
        (json!({ "column": "a", "values": { "b": [] } }), "empty list"),
        (json!({ "colum": "a" }), "unknown field `colum`"),
        (json!(5), "where the field comes from"),
    ] {
        let error = read(form.clone()).unwrap_err();
        assert!(error.contains(reason), "{form}: {error}");
    }
}
