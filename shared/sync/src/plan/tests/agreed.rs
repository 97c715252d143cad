//! What is agreed on afterwards, and that it needs nothing more.

use proptest::prelude::*;

use super::*;

#[test]
fn a_marked_record_is_not_marked_twice_and_a_row_that_comes_back_is_sent_again() {
    let definition = definition("customers", "on_delete = \"mark\"");
    let row = row(&[("display_name", json!("Acme")), ("status", json!("active"))]);
    let there = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme")), ("status", json!("active"))]));
    let gone = linked("42", Some("z42"), after_withdrawal(&definition, &there, Withdrawal::Mark));
    assert_eq!(decide_with(&definition, None, Some(&gone), &known()), Step::Nothing(Reason::AlreadyWithdrawn));
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&gone), &known()));
    assert_eq!(write.body, json!({"status": "active"}));
    let back = linked("42", Some("z42"), after_write(&definition, &row, Some(&gone), &write, None));
    assert_eq!(decide_with(&definition, Some(&row), Some(&back), &known()), Step::Nothing(Reason::NoChange));
    assert!(matches!(decide_with(&definition, None, Some(&back), &known()), Step::Mark { .. }));
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
    let pair = |path: &str| (pairs[path].local.clone(), pairs[path].zoho.clone(), pairs[path].confirmed);
    assert_eq!(pair("display_name"), (json!("Acme "), json!("Acme"), true));
    assert_eq!(pair("email"), (json!(null), json!(null), true));
    assert_eq!(pair("billing_address.city"), (json!("Rome"), json!("Rome"), false));
    assert_eq!(pair("cf_tier"), (json!("gold"), json!("Gold"), true));
}

#[test]
fn a_write_leaves_the_pairs_of_fields_that_it_did_not_send() {
    let definition = definition("customers", "");
    let link = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme")), ("email", json!("a@example.com"))]));
    let row = row(&[("display_name", json!("Acme Ltd")), ("email", json!("a@example.com"))]);
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&link), &known()));
    let answer = json!({"display_name": "Acme Ltd", "email": "edited-in-zoho@example.com"});
    let pairs = after_write(&definition, &row, Some(&link), &write, Some(&answer));
    assert_eq!(pairs["email"], link.fields["email"], "another's edit must stay visible as a change");
    assert_eq!(pairs["display_name"].local, json!("Acme Ltd"));
}

#[test]
fn first_contact_agrees_on_equal_fields_and_never_clears_what_is_empty_here() {
    let definition = definition("customers", "");
    let mut row = row(&[("display_name", json!("Acme")), ("email", json!(null)), ("status", json!("active")), ("cf_tier", json!("gold"))]);
    row.fields.insert("parent_id".to_owned(), parent("7"));
    let record = json!({"display_name": "ACME", "email": "a@example.com", "status": "active", "parent_id": "z7"});
    let link = linked("42", Some("z42"), after_match(&definition, &row, &known(), &record));
    let (write, changed) = update_of(decide_with(&definition, Some(&row), Some(&link), &known()));
    assert_eq!(changed, ["cf_tier", "display_name"]);
    assert_eq!(write.body.get("email"), None);
}

#[test]
fn a_found_record_is_ours_only_if_it_shows_the_values_that_were_sent() {
    let module = definition("customers", "").module;
    let body =
        json!({"display_name": "Acme", "email": "a@example.com", "custom_fields": [{"api_name": "cf_key", "value": "customers:42"}]});
    for (record, ours) in [
        (json!({"display_name": "Acme", "email": "a@example.com"}), true),
        (json!({"display_name": "Acme", "custom_fields": [{"api_name": "cf_key", "value": "customers:42"}]}), true),
        (json!({"display_name": "Acme", "custom_field_hash": {"cf_key": "customers:43"}}), false),
        (json!({"display_name": "Acme", "email": "b@example.com"}), false),
        (json!({"customer_id": "1"}), false),
    ] {
        assert_eq!(carries(&module, &body, &record), ours, "{record}");
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
    let paths = ["display_name", "email", "status", "billing_address.street", "billing_address.city", "cf_tier", "cf_region"];
    proptest::collection::vec(any_value(), paths.len()).prop_map(move |values| row(&paths.into_iter().zip(values).collect::<Vec<_>>()))
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
                prop_assert!(field_in(&definition.module, &write.body, field).is_some(), "{} is not in the body", field);
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
