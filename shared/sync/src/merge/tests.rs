#![allow(clippy::unwrap_used)]

use serde_json::json;

use super::*;
use crate::fixture::{compile, facts, linked, table};

const FILE: &str = r#"
[deals]
connection = "main"
table = "deals"
key = "id"
module = "crm/Deals"
direction = "both"
match_on = ["Deal_Name"]
[deals.fields]
Deal_Name = "name"
Stage = { column = "phase", values = { won = "Closed Won", draft = ["Proposal", "Negotiation"] } }
Amount = "amount"
KYC = { column = "kyc", owner = "local" }
Score = { column = "score", owner = "zoho" }
Risk = { column = "risk", owner = "local", repair = true }
Signed = "signed"
Account_Name = { ref = "accounts", column = "account" }
Tag = { value = "ours" }

[accounts]
connection = "main"
table = "accounts"
key = "id"
module = "crm/Accounts"
direction = "both"
match_on = ["Account_Name"]
[accounts.fields]
Account_Name = "name"
"#;

fn definition(settings: &str) -> Definition {
    let columns =
        [("id", "int8"), ("name", "text"), ("phase", "text"), ("amount", "numeric"), ("kyc", "text"), ("score", "int4"), ("risk", "text")];
    let columns: Vec<_> = columns.into_iter().chain([("signed", "timestamp"), ("account", "int8")]).collect();
    let file = FILE.replace("[deals]\n", &format!("[deals]\n{settings}\n"));
    compile(&file, "deals", &[table("deals", &columns), table("accounts", &[("id", "int8"), ("name", "text")])]).unwrap().0
}

/// A row, its link and Zoho's record, all saying the same.
struct Case {
    row: Row,
    link: Link,
    record: Value,
    read_at: DateTime<Utc>,
    changed_at: BTreeMap<String, DateTime<Utc>>,
    decided: BTreeMap<String, Side>,
    driven: BTreeSet<String>,
}

impl Case {
    fn agreed() -> Self {
        let values = [
            ("Deal_Name", json!("Fibre")),
            ("Stage", json!("Proposal")),
            ("Amount", json!(10)),
            ("KYC", json!("Pending")),
            ("Score", json!(3)),
            ("Risk", json!("low")),
        ];
        let pair = |value: &Value| Pair { local: value.clone(), zoho: value.clone(), confirmed: true };
        let pairs = values.iter().map(|(name, value)| ((*name).to_owned(), pair(value))).collect();
        let mut record = json!({"id": "9", "Modified_Time": "2026-03-01T10:00:00+00:00"});
        let mut fields = BTreeMap::new();
        for (name, value) in &values {
            record[*name] = value.clone();
            fields.insert((*name).to_owned(), FieldValue::Plain(value.clone()));
        }
        let mut link = linked("1", Some("9"), pairs);
        link.zoho_modified_at = crate::module::parse_time("2026-02-01T10:00:00+00:00");
        let row = Row { key: "1".to_owned(), when: true, fields, problems: vec![] };
        let read_at = crate::module::parse_time("2026-03-01T10:05:00+00:00").unwrap();
        Self { row, link, record, read_at, changed_at: BTreeMap::new(), decided: BTreeMap::new(), driven: BTreeSet::new() }
    }

    fn local(mut self, field: &str, value: Value) -> Self {
        self.row.fields.insert(field.to_owned(), FieldValue::Plain(value));
        self
    }

    fn zoho(mut self, field: &str, value: Value) -> Self {
        self.record[field] = value;
        self
    }

    fn unconfirmed(mut self, field: &str) -> Self {
        self.link.fields.get_mut(field).unwrap().confirmed = false;
        self
    }

    fn at_the_time_of_our_write(mut self) -> Self {
        self.link.zoho_modified_at = crate::module::parse_time(self.record["Modified_Time"].as_str().unwrap());
        self
    }

    fn merged(&self, settings: &str) -> Merge {
        let keys = Keys::from([(("accounts".to_owned(), "70".to_owned()), "7".to_owned())]);
        let definition = definition(settings);
        let facts = Facts {
            keys: &keys,
            read_at: self.read_at,
            changed_at: &self.changed_at,
            driven: &self.driven,
            decided: &self.decided,
            ..facts(&self.row, &self.link, &self.record)
        };
        merge(&definition, facts)
    }
}

fn columns(merge: &Merge) -> Vec<(&str, &Value)> {
    merge.columns.iter().map(|(name, value)| (name.as_str(), value)).collect()
}

#[test]
fn sides_that_agree_need_nothing() {
    let merge = Case::agreed().merged("");
    assert_eq!(merge, Merge { pairs: Case::agreed().link.fields, ..Merge::default() });
}

#[test]
fn a_change_on_one_side_goes_to_the_other() {
    let merge = Case::agreed().zoho("Amount", json!(12)).local("Deal_Name", json!("Radio")).merged("");
    assert_eq!(columns(&merge), [("amount", &json!(12))]);
    assert_eq!(merge.keep_back, BTreeSet::from(["Amount".to_owned()]), "the name is sent, the amount is not");
    assert_eq!(merge.expected["Amount"], json!(10));
}

#[test]
fn a_field_that_the_answer_does_not_carry_is_unknown_and_an_empty_one_is_null() {
    let mut case = Case::agreed();
    case.record.as_object_mut().unwrap().remove("Amount");
    assert!(case.merged("").columns.is_empty());
    assert_eq!(columns(&Case::agreed().zoho("Amount", json!("")).merged("")), [("amount", &Value::Null)]);
}

#[test]
fn both_sides_follow_the_policy_and_the_newer_is_told_by_the_capture() {
    let both = || Case::agreed().zoho("Amount", json!(12)).local("Amount", json!(11));
    let pulls = |settings: &str, changed_at: Option<&str>| {
        let mut case = both();
        let changed_at = changed_at.and_then(crate::module::parse_time);
        case.changed_at = changed_at.into_iter().map(|at| ("Amount".to_owned(), at)).collect();
        let merge = case.merged(settings);
        assert!(merge.conflicts.is_empty(), "{settings}");
        !merge.columns.is_empty()
    };
    assert!(!pulls("conflict = \"local\"", None));
    assert!(pulls("conflict = \"zoho\"", None));
    assert!(pulls("", Some("2026-03-01T09:59:59+00:00")));
    assert!(!pulls("", Some("2026-03-01T10:00:00+00:00")));
    assert!(pulls("", None), "not known: Zoho's is the later one");
    let manual = both().merged("conflict = \"manual\"");
    assert_eq!((manual.conflicts.len(), manual.keep_back.contains("Amount"), manual.columns.len()), (1, true, 0));
    assert_eq!(manual.conflicts[0].base.as_ref().unwrap().local, json!(10));
    let same = Case::agreed().zoho("Amount", json!("11.00")).local("Amount", json!(11)).merged("conflict = \"manual\"");
    assert!(same.conflicts.is_empty() && same.columns.is_empty() && same.agreed_more, "both changed to the same");
}

#[test]
fn a_person_decides_once() {
    let mut case = Case::agreed().zoho("Amount", json!(12)).local("Amount", json!(11));
    case.decided.insert("Amount".to_owned(), Side::Local);
    let merge = case.merged("conflict = \"manual\"");
    assert!(merge.repair.contains("Amount") && merge.conflicts.is_empty());
    case.decided.insert("Amount".to_owned(), Side::Zoho);
    assert_eq!(columns(&case.merged("conflict = \"manual\"")), [("amount", &json!(12))]);
}

#[test]
fn the_owners_changes_alone_count() {
    let merge = Case::agreed().zoho("KYC", json!("Approved")).local("Score", json!(4)).merged("");
    assert!(merge.columns.is_empty());
    assert_eq!(
        merge.ignored.iter().map(|one| (one.field.as_str(), one.of)).collect::<Vec<_>>(),
        [("KYC", Side::Zoho), ("Score", Side::Local)]
    );
    let again = {
        let mut case = Case::agreed().zoho("KYC", json!("Approved")).local("Score", json!(4));
        case.link.fields = merge.pairs;
        case.merged("")
    };
    assert!(again.ignored.is_empty(), "told once");
    assert_eq!(columns(&Case::agreed().zoho("Score", json!(5)).merged("")), [("score", &json!(5))]);
}

#[test]
fn many_to_one_values_are_one_and_unknown_ones_are_left_alone() {
    let merge = Case::agreed().zoho("Stage", json!("Negotiation")).merged("");
    assert!(merge.columns.is_empty() && merge.keep_back.is_empty());
    assert_eq!(merge.pairs["Stage"], Pair { local: json!("Proposal"), zoho: json!("Negotiation"), confirmed: true });
    assert_eq!(columns(&Case::agreed().zoho("Stage", json!("Closed Won")).merged("")), [("phase", &json!("won"))]);
    let unknown = Case::agreed().zoho("Stage", json!("Qualification")).merged("");
    assert!(unknown.columns.is_empty() && unknown.ignored.len() == 1);
}

#[test]
fn what_zoho_made_of_our_own_write_is_no_edit_and_what_it_says_later_is() {
    let rounded = || Case::agreed().zoho("Amount", json!(10.01)).unconfirmed("Amount");
    let ours = rounded().at_the_time_of_our_write().merged("");
    assert!(ours.columns.is_empty());
    assert_eq!(ours.pairs["Amount"], Pair { local: json!(10), zoho: json!(10.01), confirmed: true });
    assert_eq!(columns(&rounded().merged("")), [("amount", &json!(10.01))], "another state than the one that we left");
    let others = Case::agreed().zoho("Deal_Name", json!("Theirs")).at_the_time_of_our_write().merged("");
    assert_eq!(columns(&others), [("name", &json!("Theirs"))], "a field that we did not send");
}

#[test]
fn a_lost_write_does_not_come_back_as_an_edit() {
    // sent 11, the answer was lost, and the row says 10 again
    let mut case = Case::agreed().zoho("Amount", json!(11));
    case.link.sending = Some(json!([{"Amount": 11}]));
    let merge = case.merged("");
    assert!(merge.columns.is_empty() && merge.repair.contains("Amount"));
    case.record["Amount"] = json!(12);
    assert_eq!(columns(&case.merged("")), [("amount", &json!(12))], "that was somebody else");
}

#[test]
fn of_several_lost_writes_any_may_be_what_zoho_has() {
    let mut case = Case::agreed().local("Amount", json!(13)).zoho("Amount", json!(11));
    case.link.sending = Some(json!([{"Amount": 11}, {"Stage": "Won"}, {"Amount": 12}]));
    for theirs in [11, 12] {
        case.record["Amount"] = json!(theirs);
        let merge = case.merged("conflict = \"zoho\"");
        assert!(merge.columns.is_empty() && merge.conflicts.is_empty(), "{theirs} is ours");
    }
    case.record["Amount"] = json!(14);
    assert_eq!(columns(&case.merged("conflict = \"zoho\"")), [("amount", &json!(14))], "that was somebody else");
}

#[test]
fn times_are_compared_by_the_moment_and_kept_in_utc() {
    let case = Case::agreed().local("Signed", json!("2026-01-01T08:00:00+00:00")).zoho("Signed", json!("2026-01-01T10:00:00+02:00"));
    let merge = case.merged("");
    assert!(merge.columns.is_empty() && merge.conflicts.is_empty(), "first contact: equal");
    let case = Case::agreed().local("Signed", Value::Null).zoho("Signed", json!("2026-01-01T10:00:00+02:00"));
    assert_eq!(columns(&case.merged("")), [("signed", &json!("2026-01-01 08:00:00"))]);
}

#[test]
fn first_contact_fills_what_is_empty_and_never_guesses_between_two_values() {
    let mut case = Case::agreed().local("Deal_Name", Value::Null).zoho("Stage", Value::Null).zoho("Amount", json!(12));
    case.link.fields.clear();
    let merge = case.merged("");
    assert_eq!(columns(&merge), [("name", &json!("Fibre"))]);
    assert_eq!(merge.conflicts.iter().map(|clash| clash.field.as_str()).collect::<Vec<_>>(), ["Amount"]);
    assert!(!merge.keep_back.contains("Stage"), "the row's stage is sent");
}

#[test]
fn a_reference_becomes_the_key_of_its_row_or_is_waited_for() {
    let account = |id: &str| Case::agreed().local("Account_Name", Value::Null).zoho("Account_Name", json!({"id": id, "name": "Acme"}));
    assert_eq!(columns(&account("70").merged("")), [("account", &json!("7"))]);
    let unknown = account("71").merged("");
    assert_eq!((unknown.missing, unknown.columns.len()), (vec![("accounts".to_owned(), "71".to_owned())], 0));
}

#[test]
fn a_reference_whose_record_is_called_otherwise_now_has_not_changed_in_zoho() {
    let agreed = Pair { local: json!("6"), zoho: json!({"id": "70", "name": "Acme"}), confirmed: true };
    for shown in [json!({"id": "70", "name": "Acme Ltd"}), json!({"id": "70"})] {
        let mut case = Case::agreed().local("Account_Name", Value::Null).zoho("Account_Name", shown);
        case.link.fields.insert("Account_Name".to_owned(), agreed.clone());
        let merge = case.merged("");
        assert_eq!((columns(&merge), merge.conflicts.len(), merge.keep_back.len()), (Vec::new(), 0, 0), "the row's edit goes to Zoho");
    }
    let mut case = Case::agreed().local("Account_Name", Value::Null).zoho("Account_Name", json!({"id": "71", "name": "Acme"}));
    case.link.fields.insert("Account_Name".to_owned(), agreed);
    assert_eq!(case.merged("conflict = \"manual\"").conflicts.len(), 1, "another record under the same name");
}

#[test]
fn a_constant_is_ours_whatever_zoho_says() {
    let mut case = Case::agreed().local("Tag", json!("ours")).zoho("Tag", json!("theirs"));
    case.link.fields.insert("Tag".to_owned(), Pair { local: json!("ours"), zoho: json!("ours"), confirmed: true });
    let merge = case.merged("");
    assert!(merge.columns.is_empty() && merge.ignored.len() == 1);
}

/// A record in which Zoho takes back what we write, so many times; each write is noted as a push notes it.
fn taken_back(times: usize, minutes_apart: i64) -> Case {
    let mut case = Case::agreed().zoho("Risk", json!("high"));
    case.link.pushed_at = Some(case.read_at);
    case.link.zoho_modified_at = crate::module::parse_time("2026-03-01T09:59:57+00:00");
    for _ in 0..times {
        case.link.fields = case.merged("").pairs;
        turns::written(&mut case.link.fields, &["Risk".to_owned()]);
        case.read_at += chrono::TimeDelta::minutes(minutes_apart);
    }
    case
}

#[test]
fn a_field_that_goes_to_and_fro_is_parked_and_others_go_on() {
    assert!(taken_back(3, 20).merged("").repair.contains("Risk"));
    let parked = taken_back(4, 20).zoho("Amount", json!(12)).merged("");
    assert!(parked.repair.is_empty() && parked.keep_back.contains("Risk") && parked.conflicts[0].flapping);
    assert_eq!(columns(&parked), [("amount", &json!(12))]);
    let later = taken_back(5, 20).local("Risk", json!("none"));
    assert!(later.merged("").keep_back.contains("Risk"));
    assert!(crate::plan::changed_fields(&definition(""), &later.row, &later.link).is_empty(), "its own edits ask for no run");
}

#[test]
fn what_goes_slowly_or_is_one_sided_is_no_flapping() {
    assert!(taken_back(20, 31).merged("").repair.contains("Risk"), "half an hour lies between");
    let mut slow = taken_back(4, 1);
    slow.link.zoho_modified_at = crate::module::parse_time("2026-03-01T09:54:00+00:00");
    assert!(slow.merged("").repair.contains("Risk"), "that was no workflow");
    let mut case = Case::agreed();
    case.link.pushed_at = Some(case.read_at);
    case.link.zoho_modified_at = crate::module::parse_time("2026-03-01T09:59:57+00:00");
    for n in 0..20 {
        // a person edits again and again, and we write nothing
        case = case.zoho("Amount", json!(n));
        let merge = case.merged("");
        assert!(merge.conflicts.is_empty());
        case.link.fields = merge.pairs;
        case.link.fields.insert("Amount".to_owned(), Pair { local: json!(n), zoho: json!(n), confirmed: true });
        case = case.local("Amount", json!(n));
    }
}

/// Rounds in which our write of the amount makes Zoho change the name after so many seconds, and the name's arrival makes a trigger (or, in the rounds
/// that are `by_hand`, a person) change the amount; until it is parked. The record is looked at twice each time.
fn rounds(times: i64, seconds: i64, minutes_apart: i64, by_hand: fn(i64) -> bool) -> Merge {
    let mut case = Case::agreed();
    let start = case.read_at;
    let mut merge = Merge::default();
    for n in 0..times {
        // our write, as a push notes it
        let at = start + chrono::TimeDelta::minutes(n * minutes_apart);
        let pair = |value: Value| Pair { local: value.clone(), zoho: value, confirmed: true };
        case.link.fields.insert("Amount".to_owned(), pair(json!(10 + n)));
        (case.link.pushed_at, case.link.zoho_modified_at) = (Some(at), Some(at));
        // Zoho's answer
        let answered = at + chrono::TimeDelta::seconds(seconds);
        case.read_at = answered;
        case.driven.clear();
        let time = answered.format("%Y-%m-%dT%H:%M:%S+00:00").to_string();
        case = case
            .local("Amount", json!(10 + n))
            .zoho("Amount", json!(10 + n))
            .zoho("Deal_Name", json!(n))
            .zoho("Modified_Time", json!(time));
        let pulled = case.merged("");
        assert_eq!(columns(&pulled), [("name", &json!(n))]);
        case.link.fields = pulled.pairs;
        case.link.fields.insert("Deal_Name".to_owned(), pair(json!(n)));
        case.link.zoho_modified_at = Some(answered);
        // ours
        case = case.local("Deal_Name", json!(n)).local("Amount", json!(11 + n));
        case.read_at = answered + chrono::TimeDelta::seconds(1);
        case.driven.extend((!by_hand(n)).then(|| "Amount".to_owned()));
        for _ in 0..2 {
            merge = case.merged("");
            case.link.fields = merge.pairs.clone();
            if !merge.conflicts.is_empty() {
                return merge;
            }
        }
    }
    merge
}

#[test]
fn two_fields_that_drive_each_other_are_recognised_though_each_goes_one_way() {
    assert!(rounds(9, 2, 1, |_| false).conflicts.is_empty());
    let parked = rounds(10, 2, 1, |_| false);
    assert_eq!(parked.conflicts.iter().map(|clash| (clash.field.as_str(), clash.reason)).collect::<Vec<_>>(), [("Amount", DRIVES)]);
    assert!(parked.keep_back.contains("Amount") && parked.conflicts[0].flapping);
    for (what, honest) in [
        ("a person's edits here", rounds(40, 2, 1, |_| true)),
        ("a trigger's, but a person's in between", rounds(40, 2, 1, |n| n % 9 == 8)),
        ("a person's edits in Zoho", rounds(40, 31, 1, |_| false)),
        ("what happens twice an hour", rounds(40, 2, 31, |_| false)),
    ] {
        assert!(honest.conflicts.is_empty() && honest.keep_back.is_empty(), "{what}");
    }
}

#[test]
fn a_parked_field_is_free_when_a_person_decides_or_both_say_the_same() {
    let mut case = taken_back(5, 1);
    case.decided.insert("Risk".to_owned(), Side::Local);
    let merge = case.merged("");
    assert!(merge.repair.contains("Risk") && turns::of(&merge.pairs, "Risk").is_none());
    let same = taken_back(5, 1).local("Risk", json!("high")).merged("");
    assert!(same.conflicts.is_empty() && turns::of(&same.pairs, "Risk").is_none());
}
