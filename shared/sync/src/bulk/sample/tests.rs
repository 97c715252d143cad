#![allow(clippy::unwrap_used)]

use super::*;
use crate::fixture::{compile, table};

const FILE: &str = r#"
[deals]
connection = "main"
table = "deals"
key = "id"
module = "crm/Deals"
direction = "pull"
[deals.fields]
Deal_Name = "name"
Amount = "amount"
Won = "won"
Closing_Date = "closing"
Tags = "tags"
Account_Name = { ref = "accounts", column = "account" }
Owner = "owner"
[accounts]
connection = "main"
table = "accounts"
key = "id"
module = "crm/Accounts"
direction = "pull"
fields = { Account_Name = "name" }
"#;

const FIELDS: [&str; 8] = ["Account_Name", "Amount", "Closing_Date", "Deal_Name", "Modified_Time", "Owner", "Tags", "Won"];

fn definition() -> Definition {
    let columns = [("id", "int8"), ("name", "text"), ("amount", "numeric"), ("won", "bool"), ("closing", "date"), ("tags", "jsonb")];
    let columns: Vec<_> = columns.into_iter().chain([("account", "int8"), ("owner", "jsonb")]).collect();
    compile(FILE, "deals", &[table("deals", &columns), table("accounts", &[("id", "int8"), ("name", "text")])]).unwrap().0
}

fn fields() -> Vec<String> {
    FIELDS.map(str::to_owned).to_vec()
}

fn page() -> Vec<Value> {
    vec![
        serde_json::from_str(
            r#"{"id": "1", "Modified_Time": "2026-01-05T10:00:00+02:00", "Deal_Name": "Cable", "Amount": 10.50, "Won": true, "Closing_Date": "2026-02-01",
               "Tags": ["A", "B"], "Account_Name": {"id": "77", "name": "Acme"}, "Owner": {"id": "9", "name": "Ada"}}"#,
        )
        .unwrap(),
        json!({"id": "2", "Modified_Time": "2026-01-05T10:00:01+02:00", "Deal_Name": "Fibre", "Amount": null, "Won": false, "Closing_Date": null,
            "Tags": [], "Account_Name": null, "Owner": {"id": "9", "name": "Ada"}}),
    ]
}

/// The two records as a file may write them, with some cells written otherwise.
fn file(otherwise: &[(&str, &str, &str)]) -> BTreeMap<String, BTreeMap<String, String>> {
    let cells = |cells: &[(&str, &str)]| cells.iter().map(|(name, cell)| ((*name).to_owned(), (*cell).to_owned())).collect();
    let first: &[(&str, &str)] = &[
        ("Modified_Time", "2026-01-05T08:00:00+00:00"),
        ("Deal_Name", "Cable"),
        ("Amount", "10.5"),
        ("Won", "true"),
        ("Closing_Date", "2026-02-01"),
        ("Tags", "A;B"),
        ("Account_Name", "77"),
        ("Owner", "9"),
    ];
    let second: &[(&str, &str)] = &[
        ("Modified_Time", "2026-01-05T08:00:01+00:00"),
        ("Deal_Name", "Fibre"),
        ("Amount", ""),
        ("Won", "false"),
        ("Closing_Date", ""),
        ("Tags", ""),
        ("Account_Name", ""),
        ("Owner", "9"),
    ];
    let mut rows: BTreeMap<String, BTreeMap<String, String>> = [("1".to_owned(), cells(first)), ("2".to_owned(), cells(second))].into();
    for (id, field, cell) in otherwise {
        rows.get_mut(*id).unwrap().insert((*field).to_owned(), (*cell).to_owned());
    }
    rows
}

fn row(believed: &Believed, cells: &[(&str, &str)]) -> Value {
    let known: BTreeMap<&str, &str> = cells.iter().copied().chain([("id", "5"), ("Modified_Time", "2026-01-06T00:00:00+00:00")]).collect();
    believed.row(&fields(), |name| known.get(name).copied()).unwrap()
}

#[test]
fn cells_become_what_the_list_would_have_shown_as_far_as_examples_vouch_for_it() {
    let believed = Sample::of(&definition(), &fields(), &page()).check(&file(&[]), None).unwrap();
    assert_eq!(believed.refuted(), Vec::<&str>::new());
    let shown = row(
        &believed,
        &[
            ("Deal_Name", "007"),
            ("Amount", "12345678901234567890.10"),
            ("Won", "false"),
            ("Closing_Date", ""),
            ("Tags", "X;Y;Z"),
            ("Account_Name", "78"),
            ("Owner", "9"),
        ],
    );
    let expected: Value = serde_json::from_str(
        r#"{"id": "5", "Modified_Time": "2026-01-06T00:00:00+00:00", "Deal_Name": "007", "Amount": 12345678901234567890.10, "Won": false, "Closing_Date": null,
           "Tags": ["X", "Y", "Z"], "Account_Name": {"id": "78"}}"#,
    )
    .unwrap();
    assert_eq!(shown, expected, "of an owner as an object the file has the id alone: unknown");
    // an empty name was never seen, nor anything but the two words, digits and numbers
    let odd = row(&believed, &[("Deal_Name", ""), ("Amount", "1,000"), ("Won", "1"), ("Account_Name", "Acme")]);
    assert_eq!(odd, json!({"id": "5", "Modified_Time": "2026-01-06T00:00:00+00:00"}));
    assert_eq!(row(&believed, &[("Deal_Name", "'+49 30 1")]).get("Deal_Name"), None);
}

#[test]
fn a_field_that_is_written_otherwise_in_any_example_is_unknown_in_the_whole_file() {
    let sample = Sample::of(&definition(), &fields(), &page());
    for (id, field, cell, said) in [
        ("1", "Closing_Date", "02/01/2026", "2026-02-01"),
        ("1", "Won", "1", "true"),
        ("2", "Won", "true", "true"),
        ("1", "Amount", "10.05", "1"),
        ("2", "Amount", "0", "1"),
        ("1", "Tags", "A,B", "A;B"),
        ("1", "Account_Name", "Acme", "77"),
        ("2", "Deal_Name", " Fibre", "x"),
    ] {
        let believed = sample.check(&file(&[(id, field, cell)]), None).unwrap();
        assert_eq!(believed.refuted(), [field], "{cell}");
        assert_eq!(row(&believed, &[(field, said)]).get(field), None, "{field} {cell}");
    }
    let mut lacking = file(&[]);
    for row in lacking.values_mut() {
        row.remove("Amount");
    }
    assert_eq!(sample.check(&lacking, None).unwrap().refuted(), ["Amount"], "no such column");
}

#[test]
fn a_file_that_shows_none_of_the_records_as_they_were_read_is_not_believed_at_all() {
    let sample = Sample::of(&definition(), &fields(), &page());
    assert_eq!(sample.check(&BTreeMap::new(), None), None);
    let edited = file(&[("1", "Modified_Time", "2026-01-05T08:00:09+00:00"), ("2", "Modified_Time", "05/01/2026 10:00")]);
    assert_eq!(sample.check(&edited, None), None);
    // one is enough, and vouches for what it shows
    let one = file(&[("1", "Modified_Time", "2026-01-05T08:00:09+00:00")]);
    let believed = sample.check(&one, None).unwrap();
    assert_eq!(
        row(&believed, &[("Deal_Name", "x"), ("Amount", "5")]),
        json!({"id": "5", "Modified_Time": "2026-01-06T00:00:00+00:00", "Deal_Name": "x"})
    );
    // what an earlier file has shown holds for the next, unless that one shows otherwise
    let first = sample.check(&file(&[]), None).unwrap();
    assert_eq!(sample.check(&BTreeMap::new(), Some(&first)).unwrap(), first);
    assert_eq!(sample.check(&file(&[("1", "Won", "yes")]), Some(&first)).unwrap().refuted(), ["Won"]);
}

#[test]
fn a_list_of_one_does_not_show_what_stands_between_several() {
    let mut page = page();
    page[0]["Tags"] = json!(["A"]);
    let believed = Sample::of(&definition(), &fields(), &page).check(&file(&[("1", "Tags", "A")]), None).unwrap();
    for (cell, known) in [("X", Some(json!(["X"]))), ("X;Y", None), ("X, Y", None)] {
        assert_eq!(row(&believed, &[("Tags", cell)]).get("Tags").cloned(), known, "{cell}");
    }
}

#[test]
fn a_row_without_id_or_time_is_none() {
    let believed = Sample::of(&definition(), &fields(), &page()).check(&file(&[]), None).unwrap();
    for cells in [[("id", ""), ("Modified_Time", "2026-01-06T00:00:00+00:00")], [("id", "5"), ("Modified_Time", "yesterday")]] {
        let known = BTreeMap::from(cells);
        assert_eq!(believed.row(&fields(), |name| known.get(name).copied()), None);
    }
}
