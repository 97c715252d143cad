//! Which step is taken, and what it sends.

use super::*;

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
    row.fields.insert("lines".to_owned(), FieldValue::List(vec![line("1", "1.10"), line("2", "null")]));
    let write = create_of(decide_with(&definition, Some(&row), None, &known()));
    let expected = r#"{"display_name": "Acme", "billing_address": {"street": "Main 1", "city": "Rome"}, "parent_id": "z7",
        "lines": [{"item_id": "z1", "tax": {"rate": 1.10}}, {"item_id": "z2"}],
        "custom_fields": [{"api_name": "cf_tier", "value": "gold"}, {"api_name": "cf_sluice_key", "value": "customers:42"}]}"#;
    assert_eq!(write.body, serde_json::from_str::<Value>(expected).unwrap());
    assert!(write.body.to_string().contains("1.10"), "the scale of a number is kept");
    assert!(!write.sent.contains(&"credit".to_owned()), "what Zoho owns is not pushed");
}

#[test]
fn a_create_waits_for_every_parent_that_has_no_zoho_id_and_names_them() {
    let definition = definition("customers", "");
    let mut row = row(&[("display_name", json!("Acme"))]);
    row.fields.insert("parent_id".to_owned(), parent("8"));
    row.fields.insert("lines".to_owned(), FieldValue::List(vec![line("1", "1"), line("9", "1")]));
    let Step::WaitFor(missing) = decide_with(&definition, Some(&row), None, &known()) else { panic!("it does not wait") };
    let named: Vec<_> = missing.iter().map(|one| (one.field.as_str(), one.sync.as_str(), one.key.as_str())).collect();
    assert_eq!(named, [("lines[1].item_id", "items", "9"), ("parent_id", "customers", "8")]);

    let without = BTreeSet::from(["parent_id".to_owned(), "lines".to_owned()]);
    let step = decide(
        &definition,
        Facts { row: Some(&row), link: None, parents: &known(), leave_out: &without, repair: &BTreeSet::new(), force: false },
    );
    let write = create_of(step);
    assert_eq!(write.sent, ["display_name"]);
    let pairs = after_write(&definition, &row, None, &write, None);
    let link = linked("42", Some("z42"), pairs);
    let parents: Parents =
        known().into_iter().chain([(("customers".into(), "8".into()), "z8".into()), (("items".into(), "9".into()), "z9".into())]).collect();
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
        ("email", json!("b@example.com"), json!({"email": "b@example.com"}), vec!["email"]),
        ("email", json!(null), json!({"email": ""}), vec!["email"]),
        (
            "billing_address.city",
            json!("Oslo"),
            json!({"billing_address": {"street": "Main 1", "city": "Oslo"}}),
            vec!["billing_address.city"],
        ),
        ("billing_address.city", json!(null), json!({"billing_address": {"street": "Main 1", "city": ""}}), vec!["billing_address.city"]),
        (
            "cf_tier",
            json!("silver"),
            json!({"custom_fields": [{"api_name": "cf_region", "value": "EU"}, {"api_name": "cf_tier", "value": "silver"}, {"api_name": "cf_sluice_key", "value": "customers:42"}]}),
            vec!["cf_tier"],
        ),
    ] {
        let (write, names) = update_of(decide_with(&definition, Some(&with(path, value)), Some(&link), &known()));
        assert_eq!((write.body, names), (body, changed.into_iter().map(str::to_owned).collect()), "{path}");
    }
    for (path, value) in [("credit", json!(2)), ("email", json!("a@example.com")), ("status", json!(null))] {
        let row = with(path, value);
        assert_eq!(decide_with(&definition, Some(&row), Some(&link), &known()), Step::Nothing(Reason::NoChange), "{path}");
        assert!(is_unchanged(&definition, Some(&row), Some(&link)));
    }
}

#[test]
fn an_unchanged_reference_needs_no_parent_and_a_changed_one_does() {
    let definition = definition("customers", "");
    let link = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme")), ("parent_id", json!("8"))]));
    let mut row = row(&[("display_name", json!("Acme Ltd"))]);
    row.fields.insert("parent_id".to_owned(), parent("8"));
    let (write, _) = update_of(decide_with(&definition, Some(&row), Some(&link), &Parents::new()));
    assert_eq!(write.body, json!({"display_name": "Acme Ltd"}));
    row.fields.insert("parent_id".to_owned(), parent("9"));
    assert!(matches!(decide_with(&definition, Some(&row), Some(&link), &Parents::new()), Step::WaitFor(_)));
    assert!(!is_unchanged(&definition, Some(&row), Some(&link)));
}

#[test]
fn a_changed_element_sends_the_whole_list_and_keeps_the_lines_that_zoho_knows() {
    let definition = definition("customers", "");
    let mut row = row(&[]);
    row.fields.insert("lines".to_owned(), FieldValue::List(vec![line("1", "1.0"), line("2", "3")]));
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
    assert_eq!((&lines[0]["line_item_id"], &lines[1]["line_item_id"], &lines[1]["tax"]["rate"]), (&json!("l1"), &json!("l2"), &json!(3)));
}

#[test]
fn crm_lookups_are_objects_nulls_clear_and_subforms_replace_their_rows() {
    let definition = definition("deals", "");
    let mut row = row(&[("Deal_Name", json!("D")), ("Phone", json!(null))]);
    row.fields.insert("Account_Name.id".to_owned(), parent("7"));
    row.fields.insert("Contact_Name".to_owned(), parent("7"));
    let product = BTreeMap::from([("Product_Name".to_owned(), FieldValue::Ref { sync: "items".to_owned(), key: "1".to_owned() })]);
    row.fields.insert("Quoted_Items".to_owned(), FieldValue::List(vec![product]));
    let write = create_of(decide_with(&definition, Some(&row), None, &known()));
    let expected = json!({
        "Deal_Name": "D", "Account_Name": {"id": "z7"}, "Contact_Name": {"id": "z7"}, "Sluice_Key": "deals:42",
        "Quoted_Items": [{"Product_Name": {"id": "z1"}}]
    });
    assert_eq!(write.body, expected);

    let link = linked("42", Some("z42"), pairs(&[("Phone", json!("1")), ("Deal_Name", json!("D"))]));
    let Step::Update { mut write, subforms, .. } = decide_with(&definition, Some(&row), Some(&link), &known()) else { panic!("no update") };
    assert_eq!(
        (&write.body["Phone"], write.body.get("Sluice_Key"), subforms.as_slice()),
        (&Value::Null, None, &["Quoted_Items".to_owned()][..])
    );
    replace_rows(&mut write.body, "Quoted_Items", &json!({"Quoted_Items": [{"id": "r1", "Quantity": 1}, {"id": "r2"}]}));
    let expected = json!([{"Product_Name": {"id": "z1"}}, {"id": "r1", "_delete": null}, {"id": "r2", "_delete": null}]);
    assert_eq!(write.body["Quoted_Items"], expected);
}

#[test]
fn rows_that_are_gone_or_excluded_follow_the_policies() {
    let there = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme"))]));
    let intent = linked("42", None, Pairs::new());
    let lost = Link { creates: 1, ..intent.clone() };
    let mut excluded = row(&[("display_name", json!("Acme"))]);
    excluded.when = false;
    excluded.problems.push(Problem::payload("email", "division by zero"));
    let id = || "z42".to_owned();
    let mark = json!({"status": "inactive", "meta": {"gone": true}});
    let held = |step: &Step| matches!(step, Step::Held { .. });
    for (settings, row, link, expected) in [
        ("", None, None, Step::Nothing(Reason::NeverCreated)),
        ("", None, Some(&intent), Step::Nothing(Reason::NeverCreated)),
        ("", None, Some(&there), Step::Nothing(Reason::DeleteIgnored)),
        ("on_delete = \"delete\"", None, Some(&there), Step::Delete { zoho_id: id() }),
        ("on_delete = \"mark\"", None, Some(&there), Step::Mark { zoho_id: id(), body: mark }),
        ("", Some(&excluded), None, Step::Nothing(Reason::WhenFalse)),
        ("", Some(&excluded), Some(&intent), Step::Nothing(Reason::WhenFalse)),
        ("when_false = \"delete\"\non_delete = \"delete\"", Some(&excluded), Some(&there), Step::Delete { zoho_id: id() }),
    ] {
        assert_eq!(decide_with(&definition("customers", settings), row, link, &known()), expected, "{settings}");
    }
    assert!(held(&decide_with(&definition("customers", "on_delete = \"delete\""), Some(&excluded), Some(&there), &known())));
    assert!(held(&decide_with(&definition("customers", "on_delete = \"delete\""), None, Some(&lost), &known())));
    assert!(held(&decide_with(
        &definition("customers", "when_false = \"delete\"\non_delete = \"delete\""),
        Some(&excluded),
        Some(&lost),
        &known()
    )));
}

#[test]
fn a_row_with_problems_or_without_any_value_is_unsendable() {
    let definition = definition("customers", "");
    let mut bad = row(&[("display_name", json!("Acme"))]);
    bad.problems.push(Problem::validation("status", "the value `x` is not in `values`"));
    assert_eq!(decide_with(&definition, Some(&bad), None, &known()), Step::Unsendable { problems: bad.problems.clone() });
    let empty = row(&[("display_name", json!(null))]);
    assert!(matches!(decide_with(&definition, Some(&empty), None, &known()), Step::Unsendable { .. }));
}

#[test]
fn a_row_without_record_is_left_alone_where_the_sync_creates_nothing_and_one_with_a_record_is_sent() {
    let definition = definition("customers", "creates = false");
    let row = row(&[("display_name", json!("Acme"))]);
    assert_eq!(decide_with(&definition, Some(&row), None, &known()), Step::Nothing(Reason::CreatesNothing));
    let link = linked("42", Some("z42"), Pairs::new());
    assert!(matches!(decide_with(&definition, Some(&row), Some(&link), &known()), Step::Update { .. }));
}

#[test]
fn a_row_that_comes_back_as_it_was_after_its_record_was_voided_is_not_called_equal() {
    let definition = definition("customers", "");
    let there = linked("42", Some("z42"), pairs(&[("display_name", json!("Acme"))]));
    let voided = Link { fields: crate::link::agreed::after_withdrawal(&definition, &there, Withdrawal::Void), ..there };
    let row = |name: &str| row(&[("display_name", json!(name))]);
    assert!(matches!(decide_with(&definition, Some(&row("Acme")), Some(&voided), &known()), Step::Held { .. }));
    // Zoho says whether a void record can be edited
    assert!(matches!(decide_with(&definition, Some(&row("Other")), Some(&voided), &known()), Step::Update { .. }));
}
