#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::fixture::{compile, linked, table};
use crate::link::agreed::{self, after_match, after_withdrawal, after_write};
use crate::link::{Pair, Pairs};
use crate::read::FieldValue;

const CUSTOMERS: &str = r#"
[customers]
connection = "main"
table = "customers"
key = "id"
module = "billing/customers"
reference = "cf_sluice_key"
mark = { status = "inactive", "meta.gone" = true }
[customers.fields]
display_name = "name"
email = "email"
status = "status"
"billing_address.street" = "street"
"billing_address.city" = "city"
cf_tier = "tier"
cf_region = "region"
parent_id = { ref = "customers", column = "parent" }
credit = { column = "credit", owner = "zoho" }
[customers.fields.lines]
each = "select 1"
item = { item_id = { ref = "items", column = "i" }, "tax.rate" = "r" }

[items]
connection = "main"
table = "items"
key = "id"
module = "billing/products"
[items.fields]
name = "name"

[deals]
connection = "main"
table = "customers"
key = "id"
module = "crm/Deals"
reference = "Sluice_Key"
[deals.fields]
Deal_Name = "name"
"Account_Name.id" = { ref = "customers", column = "parent" }
Contact_Name = { ref = "customers", column = "parent" }
Phone = "email"
[deals.fields.Quoted_Items]
each = "select 1"
item = { Product_Name = { ref = "items", column = "i" } }
"#;

fn definition(sync: &str, settings: &str) -> Definition {
    let columns = [
        "name", "email", "status", "street", "city", "tier", "region", "parent", "credit",
    ]
    .map(|name| (name, "text"));
    let columns: Vec<_> = std::iter::once(("id", "int8")).chain(columns).collect();
    let file = CUSTOMERS.replace(&format!("[{sync}]\n"), &format!("[{sync}]\n{settings}\n"));
    compile(
        &file,
        sync,
        &[
            table("customers", &columns),
            table("items", &[("id", "int8"), ("name", "text")]),
        ],
    )
    .unwrap()
    .0
}

fn row(fields: &[(&str, Value)]) -> Row {
    let fields = fields
        .iter()
        .map(|(path, value)| ((*path).to_owned(), FieldValue::Plain(value.clone())))
        .collect();
    Row {
        key: "42".to_owned(),
        when: true,
        fields,
        problems: vec![],
    }
}

fn parent(key: &str) -> FieldValue {
    FieldValue::Ref {
        sync: "customers".to_owned(),
        key: key.to_owned(),
    }
}

fn line(item: &str, rate: &str) -> BTreeMap<String, FieldValue> {
    let item = FieldValue::Ref {
        sync: "items".to_owned(),
        key: item.to_owned(),
    };
    BTreeMap::from([
        ("item_id".to_owned(), item),
        (
            "tax.rate".to_owned(),
            FieldValue::Plain(serde_json::from_str(rate).unwrap()),
        ),
    ])
}

fn known() -> Parents {
    let known = [
        ("customers", "7", "z7"),
        ("items", "1", "z1"),
        ("items", "2", "z2"),
    ];
    known
        .map(|(sync, key, id)| ((sync.to_owned(), key.to_owned()), id.to_owned()))
        .into()
}

fn decide_with(
    definition: &Definition,
    row: Option<&Row>,
    link: Option<&Link>,
    parents: &Parents,
) -> Step {
    decide(
        definition,
        Facts {
            row,
            link,
            parents,
            leave_out: &BTreeSet::new(),
            force: false,
        },
    )
}

fn pairs(fields: &[(&str, Value)]) -> Pairs {
    let pair = |(path, value): &(&str, Value)| {
        (
            (*path).to_owned(),
            Pair {
                local: value.clone(),
                zoho: value.clone(),
                confirmed: true,
            },
        )
    };
    fields.iter().map(pair).collect()
}

fn create_of(step: Step) -> Write {
    match step {
        Step::Create(write) => write,
        other => panic!("not a create: {other:?}"),
    }
}

fn update_of(step: Step) -> (Write, Vec<String>) {
    match step {
        Step::Update { write, changed, .. } => (write, changed),
        other => panic!("not an update: {other:?}"),
    }
}

#[test]
fn a_create_nests_dots_leaves_out_nulls_and_carries_our_reference() {
    let definition = definition("customers", "");
    let mut row = row(&[
        ("display_name", json!("Acme")),
        ("email", json!(null)),
        ("billing_address.street", json!("Main 1")),
        ("billing_address.city", json!("Rome")),
        ("cf_tier", json!("gold")),
        ("credit", json!(5)),
    ]);
    row.fields.insert("parent_id".to_owned(), parent("7"));
    row.fields.insert(
        "lines".to_owned(),
        FieldValue::List(vec![line("1", "1.10"), line("2", "null")]),
    );
    let write = create_of(decide_with(&definition, Some(&row), None, &known()));
    let expected = r#"{"display_name": "Acme", "billing_address": {"street": "Main 1", "city": "Rome"}, "parent_id": "z7",
        "lines": [{"item_id": "z1", "tax": {"rate": 1.10}}, {"item_id": "z2"}],
        "custom_fields": [{"api_name": "cf_tier", "value": "gold"}, {"api_name": "cf_sluice_key", "value": "customers:42"}]}"#;
    assert_eq!(write.body, serde_json::from_str::<Value>(expected).unwrap());
    assert!(
        write.body.to_string().contains("1.10"),
        "the scale of a number is kept"
    );
    assert!(
        !write.sent.contains(&"credit".to_owned()),
        "what Zoho owns is not pushed"
    );
}

#[test]
fn a_create_waits_for_every_parent_that_has_no_zoho_id_and_names_them() {
    let definition = definition("customers", "");
    let mut row = row(&[("display_name", json!("Acme"))]);
    row.fields.insert("parent_id".to_owned(), parent("8"));
    row.fields.insert(
        "lines".to_owned(),
        FieldValue::List(vec![line("1", "1"), line("9", "1")]),
    );
    let Step::WaitFor(missing) = decide_with(&definition, Some(&row), None, &known()) else {
        panic!("it does not wait")
    };
    let named: Vec<_> = missing
        .iter()
        .map(|one| (one.field.as_str(), one.sync.as_str(), one.key.as_str()))
        .collect();
    assert_eq!(
        named,
        [
            ("lines[1].item_id", "items", "9"),
            ("parent_id", "customers", "8")
        ]
    );

    let without = BTreeSet::from(["parent_id".to_owned(), "lines".to_owned()]);
    let step = decide(
        &definition,
        Facts {
            row: Some(&row),
            link: None,
            parents: &known(),
            leave_out: &without,
            force: false,
        },
    );
    let write = create_of(step);
    assert_eq!(write.sent, ["display_name"]);
    let pairs = after_write(&definition, &row, None, &write, None);
    let link = linked("42", Some("z42"), pairs);
    let parents: Parents = known()
        .into_iter()
        .chain([
            (("customers".into(), "8".into()), "z8".into()),
            (("items".into(), "9".into()), "z9".into()),
        ])
        .collect();
    let (write, changed) = update_of(decide_with(&definition, Some(&row), Some(&link), &parents));
    assert_eq!(changed, ["lines", "parent_id"], "what was left out follows");
    assert_eq!(write.body["parent_id"], "z8");
}

#[test]
fn an_update_sends_changed_fields_with_the_neighbours_of_their_object_only() {
    let definition = definition("customers", "");
    let agreed = [
        ("display_name", json!("Acme")),
        ("email", json!("a@example.com")),
        ("billing_address.street", json!("Main 1")),
        ("billing_address.city", json!("Rome")),
        ("cf_tier", json!("gold")),
        ("cf_region", json!("EU")),
        ("credit", json!(1)),
    ];
    let link = linked("42", Some("z42"), pairs(&agreed));
    let with = |path: &str, value: Value| {
        let mut fields = BTreeMap::from(agreed.clone());
        fields.insert(path, value);
        row(&fields.into_iter().collect::<Vec<_>>())
    };
    for (path, value, body, changed) in [
        (
            "email",
            json!("b@example.com"),
            json!({"email": "b@example.com"}),
            vec!["email"],
        ),
        ("email", json!(null), json!({"email": ""}), vec!["email"]),
        (
            "billing_address.city",
            json!("Oslo"),
            json!({"billing_address": {"street": "Main 1", "city": "Oslo"}}),
            vec!["billing_address.city"],
        ),
        (
            "billing_address.city",
            json!(null),
            json!({"billing_address": {"street": "Main 1", "city": ""}}),
            vec!["billing_address.city"],
        ),
        (
            "cf_tier",
            json!("silver"),
            json!({"custom_fields": [{"api_name": "cf_region", "value": "EU"}, {"api_name": "cf_tier", "value": "silver"}, {"api_name": "cf_sluice_key", "value": "customers:42"}]}),
            vec!["cf_tier"],
        ),
    ] {
        let (write, names) = update_of(decide_with(
            &definition,
            Some(&with(path, value)),
            Some(&link),
            &known(),
        ));
        assert_eq!(
            (write.body, names),
            (body, changed.into_iter().map(str::to_owned).collect()),
            "{path}"
        );
    }
    for (path, value) in [
        ("credit", json!(2)),
        ("email", json!("a@example.com")),
        ("status", json!(null)),
    ] {
        let row = with(path, value);
        assert_eq!(
            decide_with(&definition, Some(&row), Some(&link), &known()),
            Step::Nothing(Reason::NoChange),
            "{path}"
        );
        assert!(is_unchanged(&definition, Some(&row), Some(&link)));
    }
}

#[test]
fn an_unchanged_reference_needs_no_parent_and_a_changed_one_does() {
    let definition = definition("customers", "");
    let link = linked(
        "42",
        Some("z42"),
        pairs(&[("display_name", json!("Acme")), ("parent_id", json!("8"))]),
    );
    let mut row = row(&[("display_name", json!("Acme Ltd"))]);
    row.fields.insert("parent_id".to_owned(), parent("8"));
    let (write, _) = update_of(decide_with(
        &definition,
        Some(&row),
        Some(&link),
        &Parents::new(),
    ));
    assert_eq!(write.body, json!({"display_name": "Acme Ltd"}));
    row.fields.insert("parent_id".to_owned(), parent("9"));
    assert!(matches!(
        decide_with(&definition, Some(&row), Some(&link), &Parents::new()),
        Step::WaitFor(_)
    ));
    assert!(!is_unchanged(&definition, Some(&row), Some(&link)));
}

#[test]
fn a_changed_element_sends_the_whole_list_and_keeps_the_lines_that_zoho_knows() {
    let definition = definition("customers", "");
    let mut row = row(&[]);
    row.fields.insert(
        "lines".to_owned(),
        FieldValue::List(vec![line("1", "1.0"), line("2", "3")]),
    );
    let fields = Pairs::from([(
        "lines".to_owned(),
        Pair {
            local: json!([{"item_id": "1", "tax": {"rate": 1}}, {"item_id": "2", "tax": {"rate": 2}}]),
            zoho: json!([{"item_id": "z1", "line_item_id": "l1"}, {"item_id": "z2", "line_item_id": "l2"}]),
            confirmed: true,
        },
    )]);
    let link = linked("42", Some("z42"), fields);
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&link), &known()));
    let lines = write.body["lines"].as_array().unwrap().clone();
    assert_eq!(lines.len(), 2);
    assert_eq!(
        (
            &lines[0]["line_item_id"],
            &lines[1]["line_item_id"],
            &lines[1]["tax"]["rate"]
        ),
        (&json!("l1"), &json!("l2"), &json!(3))
    );
}

#[test]
fn crm_lookups_are_objects_nulls_clear_and_subforms_replace_their_rows() {
    let definition = definition("deals", "");
    let mut row = row(&[("Deal_Name", json!("D")), ("Phone", json!(null))]);
    row.fields.insert("Account_Name.id".to_owned(), parent("7"));
    row.fields.insert("Contact_Name".to_owned(), parent("7"));
    let product = BTreeMap::from([(
        "Product_Name".to_owned(),
        FieldValue::Ref {
            sync: "items".to_owned(),
            key: "1".to_owned(),
        },
    )]);
    row.fields
        .insert("Quoted_Items".to_owned(), FieldValue::List(vec![product]));
    let write = create_of(decide_with(&definition, Some(&row), None, &known()));
    let expected = json!({
        "Deal_Name": "D", "Account_Name": {"id": "z7"}, "Contact_Name": {"id": "z7"}, "Sluice_Key": "deals:42",
        "Quoted_Items": [{"Product_Name": {"id": "z1"}}]
    });
    assert_eq!(write.body, expected);

    let link = linked(
        "42",
        Some("z42"),
        pairs(&[("Phone", json!("1")), ("Deal_Name", json!("D"))]),
    );
    let Step::Update {
        mut write,
        subforms,
        ..
    } = decide_with(&definition, Some(&row), Some(&link), &known())
    else {
        panic!("no update")
    };
    assert_eq!(
        (
            &write.body["Phone"],
            write.body.get("Sluice_Key"),
            subforms.as_slice()
        ),
        (&Value::Null, None, &["Quoted_Items".to_owned()][..])
    );
    replace_rows(
        &mut write.body,
        "Quoted_Items",
        &json!({"Quoted_Items": [{"id": "r1", "Quantity": 1}, {"id": "r2"}]}),
    );
    let expected = json!([{"Product_Name": {"id": "z1"}}, {"id": "r1", "_delete": null}, {"id": "r2", "_delete": null}]);
    assert_eq!(write.body["Quoted_Items"], expected);
}

#[test]
fn rows_that_are_gone_or_excluded_follow_the_policies() {
    let there = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme"))]));
    let intent = linked("42", None, Pairs::new());
    let lost = Link {
        creates: 1,
        ..intent.clone()
    };
    let mut excluded = row(&[("display_name", json!("Acme"))]);
    excluded.when = false;
    excluded
        .problems
        .push(Problem::payload("email", "division by zero"));
    let id = || "z42".to_owned();
    let mark = json!({"status": "inactive", "meta": {"gone": true}});
    let held = |step: &Step| matches!(step, Step::Held { .. });
    for (settings, row, link, expected) in [
        ("", None, None, Step::Nothing(Reason::NeverCreated)),
        ("", None, Some(&intent), Step::Nothing(Reason::NeverCreated)),
        ("", None, Some(&there), Step::Nothing(Reason::DeleteIgnored)),
        (
            "on_delete = \"delete\"",
            None,
            Some(&there),
            Step::Delete { zoho_id: id() },
        ),
        (
            "on_delete = \"mark\"",
            None,
            Some(&there),
            Step::Mark {
                zoho_id: id(),
                body: mark,
            },
        ),
        ("", Some(&excluded), None, Step::Nothing(Reason::WhenFalse)),
        (
            "",
            Some(&excluded),
            Some(&intent),
            Step::Nothing(Reason::WhenFalse),
        ),
        (
            "when_false = \"delete\"\non_delete = \"delete\"",
            Some(&excluded),
            Some(&there),
            Step::Delete { zoho_id: id() },
        ),
    ] {
        assert_eq!(
            decide_with(&definition("customers", settings), row, link, &known()),
            expected,
            "{settings}"
        );
    }
    assert!(held(&decide_with(
        &definition("customers", "on_delete = \"delete\""),
        Some(&excluded),
        Some(&there),
        &known()
    )));
    assert!(held(&decide_with(
        &definition("customers", "on_delete = \"delete\""),
        None,
        Some(&lost),
        &known()
    )));
}

#[test]
fn a_marked_record_is_not_marked_twice_and_a_row_that_comes_back_is_sent_again() {
    let definition = definition("customers", "on_delete = \"mark\"");
    let row = row(&[("display_name", json!("Acme")), ("status", json!("active"))]);
    let there = linked(
        "42",
        Some("z42"),
        pairs(&[("display_name", json!("Acme")), ("status", json!("active"))]),
    );
    let gone = linked(
        "42",
        Some("z42"),
        after_withdrawal(&definition, &there, Withdrawal::Mark),
    );
    assert_eq!(
        decide_with(&definition, None, Some(&gone), &known()),
        Step::Nothing(Reason::AlreadyWithdrawn)
    );
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&gone), &known()));
    assert_eq!(write.body, json!({"status": "active"}));
    let back = linked(
        "42",
        Some("z42"),
        after_write(&definition, &row, Some(&gone), &write, None),
    );
    assert_eq!(
        decide_with(&definition, Some(&row), Some(&back), &known()),
        Step::Nothing(Reason::NoChange)
    );
    assert!(matches!(
        decide_with(&definition, None, Some(&back), &known()),
        Step::Mark { .. }
    ));
}

#[test]
fn a_row_with_problems_or_without_any_value_is_unsendable() {
    let definition = definition("customers", "");
    let mut bad = row(&[("display_name", json!("Acme"))]);
    bad.problems.push(Problem::validation(
        "status",
        "the value `x` is not in `values`",
    ));
    assert_eq!(
        decide_with(&definition, Some(&bad), None, &known()),
        Step::Unsendable {
            problems: bad.problems.clone()
        }
    );
    let empty = row(&[("display_name", json!(null))]);
    assert!(matches!(
        decide_with(&definition, Some(&empty), None, &known()),
        Step::Unsendable { .. }
    ));
}

#[test]
fn zohos_half_comes_from_the_answer_and_what_it_does_not_carry_is_unconfirmed() {
    let definition = definition("customers", "");
    let row = row(&[
        ("display_name", json!("Acme ")),
        ("email", json!(null)),
        ("billing_address.city", json!("Rome")),
        ("cf_tier", json!("gold")),
    ]);
    let write = create_of(decide_with(&definition, Some(&row), None, &known()));
    let answer = json!({"customer_id": "z42", "display_name": "Acme", "email": "", "custom_field_hash": {"cf_tier": "Gold"}});
    let pairs = after_write(&definition, &row, None, &write, Some(&answer));
    let pair = |path: &str| {
        (
            pairs[path].local.clone(),
            pairs[path].zoho.clone(),
            pairs[path].confirmed,
        )
    };
    assert_eq!(pair("display_name"), (json!("Acme "), json!("Acme"), true));
    assert_eq!(pair("email"), (json!(null), json!(null), true));
    assert_eq!(
        pair("billing_address.city"),
        (json!("Rome"), json!("Rome"), false)
    );
    assert_eq!(pair("cf_tier"), (json!("gold"), json!("Gold"), true));
}

#[test]
fn a_write_leaves_the_pairs_of_fields_that_it_did_not_send() {
    let definition = definition("customers", "");
    let link = linked(
        "42",
        Some("z42"),
        pairs(&[
            ("display_name", json!("Acme")),
            ("email", json!("a@example.com")),
        ]),
    );
    let row = row(&[
        ("display_name", json!("Acme Ltd")),
        ("email", json!("a@example.com")),
    ]);
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&link), &known()));
    let answer = json!({"display_name": "Acme Ltd", "email": "edited-in-zoho@example.com"});
    let pairs = after_write(&definition, &row, Some(&link), &write, Some(&answer));
    assert_eq!(
        pairs["email"], link.fields["email"],
        "another's edit must stay visible as a change"
    );
    assert_eq!(pairs["display_name"].local, json!("Acme Ltd"));
}

#[test]
fn first_contact_agrees_on_equal_fields_and_never_clears_what_is_empty_here() {
    let definition = definition("customers", "");
    let mut row = row(&[
        ("display_name", json!("Acme")),
        ("email", json!(null)),
        ("status", json!("active")),
        ("cf_tier", json!("gold")),
    ]);
    row.fields.insert("parent_id".to_owned(), parent("7"));
    let record = json!({"display_name": "ACME", "email": "a@example.com", "status": "active", "parent_id": "z7"});
    let link = linked(
        "42",
        Some("z42"),
        after_match(&definition, &row, &known(), &record),
    );
    let (write, changed) = update_of(decide_with(&definition, Some(&row), Some(&link), &known()));
    assert_eq!(changed, ["cf_tier", "display_name"]);
    assert_eq!(write.body.get("email"), None);
}

#[test]
fn a_found_record_is_ours_only_if_it_shows_the_values_that_were_sent() {
    let module = definition("customers", "").module;
    let body = json!({"display_name": "Acme", "email": "a@example.com", "custom_fields": [{"api_name": "cf_key", "value": "customers:42"}]});
    for (record, ours) in [
        (
            json!({"display_name": "Acme", "email": "a@example.com"}),
            true,
        ),
        (
            json!({"display_name": "Acme", "custom_fields": [{"api_name": "cf_key", "value": "customers:42"}]}),
            true,
        ),
        (
            json!({"display_name": "Acme", "custom_field_hash": {"cf_key": "customers:43"}}),
            false,
        ),
        (
            json!({"display_name": "Acme", "email": "b@example.com"}),
            false,
        ),
        (json!({"customer_id": "1"}), false),
    ] {
        assert_eq!(agreed::carries(&module, &body, &record), ours, "{record}");
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "-?[1-9][0-9]{0,20}\\.[0-9]{1,10}".prop_map(|text| serde_json::from_str(&text).unwrap()),
        "[a-z ]{0,8}".prop_map(Value::from),
    ]
}

fn any_row() -> impl Strategy<Value = Row> {
    let paths = [
        "display_name",
        "email",
        "status",
        "billing_address.street",
        "billing_address.city",
        "cf_tier",
        "cf_region",
    ];
    proptest::collection::vec(any_value(), paths.len())
        .prop_map(move |values| row(&paths.into_iter().zip(values).collect::<Vec<_>>()))
}

proptest! {
    #[test]
    fn what_was_carried_out_and_agreed_on_needs_nothing_more(first in any_row(), second in any_row()) {
        let definition = definition("customers", "");
        let Step::Create(write) = decide_with(&definition, Some(&first), None, &known()) else { return Ok(()) };
        let mut link = linked("42", Some("z42"), after_write(&definition, &first, None, &write, Some(&write.body)));
        prop_assert!(is_unchanged(&definition, Some(&first), Some(&link)));
        if let Step::Update { write, changed, .. } = decide_with(&definition, Some(&second), Some(&link), &known()) {
            prop_assert!(changed.iter().all(|field| write.sent.contains(field)));
            for field in &write.sent {
                prop_assert!(agreed::field_in(&definition.module, &write.body, field).is_some(), "{} is not in the body", field);
            }
            link.fields = after_write(&definition, &second, Some(&link), &write, None);
        }
        prop_assert!(is_unchanged(&definition, Some(&second), Some(&link)));
    }

    #[test]
    fn an_update_never_carries_a_field_outside_the_touched_objects(first in any_row(), name in "[a-z]{9}") {
        let definition = definition("customers", "");
        let Step::Create(write) = decide_with(&definition, Some(&first), None, &known()) else { return Ok(()) };
        let link = linked("42", Some("z42"), after_write(&definition, &first, None, &write, None));
        let mut second = first.clone();
        second.fields.insert("display_name".to_owned(), FieldValue::Plain(json!(name)));
        let (write, _) = update_of(decide_with(&definition, Some(&second), Some(&link), &known()));
        prop_assert_eq!(write.body, json!({"display_name": name}));
    }
}
