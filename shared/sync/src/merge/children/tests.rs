#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::fixture::{compile, facts, linked, table};
use crate::link::Pairs;
use crate::read::Row;

const FILE: &str = r#"
[invoices]
connection = "main"
table = "invoices"
key = "id"
module = "books/invoices"
direction = "pull"
[invoices.fields]
invoice_number = "number"
[invoices.fields.line_items]
rows = "lines"
parent = "invoice_id"
match_on = "line_item_id"
on_delete = "delete"
item = { line_item_id = "zoho_id", rate = "price", item_id = { ref = "items", column = "item_id" } }

[items]
connection = "main"
table = "items"
key = "id"
module = "books/items"
direction = "pull"
fields = { name = "name" }
"#;

fn tables() -> Vec<crate::catalog::Table> {
    let lines = [("id", "int8"), ("invoice_id", "int8"), ("zoho_id", "text"), ("price", "numeric"), ("item_id", "int8"), ("extra", "json")];
    let mut lines = table("lines", &lines);
    lines.unique.push(vec!["invoice_id".to_owned(), "zoho_id".to_owned()]);
    vec![table("invoices", &[("id", "int8"), ("number", "text")]), table("items", &[("id", "int8"), ("name", "text")]), lines]
}

/// Merges an invoice whose lines were `before`, and are `now`.
fn merged(before: Option<Value>, now: Option<Value>, single: bool) -> Merge {
    let (definition, warnings) = compile(FILE, "invoices", &tables()).unwrap();
    assert_eq!(warnings, []);
    let pairs = before.map(|zoho| ("line_items".to_owned(), Pair { local: zoho.clone(), zoho, confirmed: true }));
    let mut record = json!({"invoice_id": "9"});
    if let Some(now) = now {
        record["line_items"] = now;
    }
    let row = Row { key: "1".to_owned(), when: true, fields: BTreeMap::new(), problems: vec![] };
    let link = linked("1", Some("9"), pairs.into_iter().collect::<Pairs>());
    let keys = Keys::from([(("items".to_owned(), "70".to_owned()), "7".to_owned())]);
    crate::merge::merge(&definition, Facts { single, keys: &keys, ..facts(&row, &link, &record) })
}

fn line(id: &str, rate: &str) -> Value {
    json!({"line_item_id": id, "rate": rate})
}

fn children(merge: &Merge) -> Option<&Children> {
    merge.rows.get("line_items")
}

#[test]
fn objects_become_rows_and_only_those_that_were_there_before_can_go() {
    let merge = merged(Some(json!([line("1", "5"), line("2", "6")])), Some(json!([line("3", "7"), line("1", "5")])), true);
    let row = |id: &str, price: &str| BTreeMap::from([("zoho_id".to_owned(), json!(id)), ("price".to_owned(), json!(price))]);
    let expected = Children { rows: vec![row("1", "5"), row("3", "7")], removed: vec![json!("2")] };
    assert_eq!(children(&merge), Some(&expected));
    assert_eq!(merge.pulled["line_items"], json!([line("1", "5"), line("3", "7")]));
    let first = merged(None, Some(json!([line("3", "7")])), true);
    assert_eq!(children(&first).unwrap().removed, Vec::<Value>::new(), "nothing was agreed on that could be missed");
}

#[test]
fn the_same_objects_in_another_order_or_with_computed_fields_are_no_change() {
    let before = json!([line("1", "5"), line("2", "6.00")]);
    let now = json!([{"line_item_id": "2", "rate": "6.00", "item_total": 6}, line("1", "5")]);
    assert_eq!(children(&merged(Some(before), Some(now), true)), None);
}

#[test]
fn an_absent_list_is_unknown_and_an_empty_one_counts_only_where_the_record_itself_was_read() {
    let before = || Some(json!([line("1", "5")]));
    for (now, single) in [(None, true), (None, false), (Some(json!([])), false), (Some(json!("")), true), (Some(Value::Null), true)] {
        let merge = merged(before(), now.clone(), single);
        assert!(children(&merge).is_none() && !merge.agreed_more, "{now:?} {single}");
    }
    assert_eq!(children(&merged(before(), Some(json!([])), true)).unwrap().removed, [json!("1")]);
    assert!(merged(None, None, true).agreed_more, "it is known that there is none, and nobody reads it again for that");
}

#[test]
fn an_object_that_cannot_be_known_again_keeps_the_whole_list_out() {
    for now in [json!([line("1", "5"), {"rate": "6"}]), json!([line("1", "5"), line("1", "6")])] {
        let merge = merged(None, Some(now), true);
        assert_eq!((children(&merge), merge.ignored[0].reason), (None, NOT_KNOWN_AGAIN));
    }
}

#[test]
fn a_reference_becomes_the_rows_key_and_one_without_a_row_is_asked_for() {
    let object = |id: &str, item: &str| json!({"line_item_id": id, "rate": "1", "item_id": item});
    let merge = merged(None, Some(json!([object("1", "70"), object("2", "71"), object("3", "")])), true);
    let items: Vec<&Value> = children(&merge).unwrap().rows.iter().map(|row| &row["item_id"]).collect();
    assert_eq!(items, [&json!("7"), &Value::Null, &Value::Null]);
    assert_eq!(merge.missing, [("items".to_owned(), "71".to_owned())]);
}

#[test]
fn what_a_child_table_lacks_is_said_with_the_way_out() {
    let refused = |file: &str, tables: &[crate::catalog::Table]| {
        let findings = compile(file, "invoices", tables).unwrap_err();
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (from, to, expected) in [
        ("rows = \"lines\"", "rows = \"line\"", "there is no table `line`"),
        ("\"price\"", "\"cost\"", "`lines` has no column `cost`; it has id, invoice_id"),
        ("\"price\"", "\"extra\"", "`extra` is json, which cannot be compared"),
        ("\"price\"", "\"zoho_id\"", "`zoho_id` would be written twice"),
        ("on_delete = \"delete\"", "on_delete = \"mark\"\nmark = { gone = true }", "no column `gone`"),
    ] {
        let said = refused(&FILE.replacen(from, to, 1), &tables());
        assert!(
            said.len() == 1 && said[0].starts_with("syncs.invoices.fields.line_items: ") && said[0].contains(expected),
            "{to}: {said:#?}"
        );
    }
    let mut tables = tables();
    tables[2].unique.pop();
    let said = refused(FILE, &tables);
    assert!(said[0].ends_with("run: create unique index on lines (invoice_id, zoho_id);"), "{said:#?}");
}
