//! When two JSON values mean the same.
//!
//! Local halves are compared strictly but by number (`1.10` is `1.1`), Zoho's answers leniently (`""` is null, `"12.50"` is 12.5,
//! an object carries more keys than we sent). Nothing here goes through a float: a cent lost in a comparison is an edit lost.

use serde_json::{Map, Value};

/// What Zoho means by "nothing": absent, `null` and, in the finance products, `""` (finance sheet §2.4).
pub fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Zoho's `""` as the null it means; everything else as it is.
pub fn null_if_empty(value: &Value) -> Value {
    if is_empty(value) { Value::Null } else { value.clone() }
}

/// Equal as local values: same type and content, numbers by value, objects whatever the order of their keys.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(&a.to_string(), &b.to_string()),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b))),
        _ => a == b,
    }
}

/// Equal as far as Zoho can say: what we would send against what it answered. Nothing equals nothing however it is spelt, a number
/// equals its text, text is compared trimmed (Zoho trims), and an object may carry more than we sent.
pub fn alike(sent: &Value, answered: &Value) -> bool {
    match (sent, answered) {
        _ if is_empty(sent) && is_empty(answered) => true,
        (a @ (Value::Number(_) | Value::String(_)), b @ (Value::Number(_) | Value::String(_))) => {
            let (sent, answered) = (scalar_text(sent), scalar_text(answered));
            let codes = a.is_string() && b.is_string() && (is_code(&sent) || is_code(&answered));
            sent.trim() == answered.trim() || (!codes && same_number(sent.trim(), answered.trim()))
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| alike(a, b)),
        (Value::Object(a), Value::Object(b)) => a.iter().all(|(key, a)| alike(a, b.get(key).unwrap_or(&Value::Null))),
        _ => sent == answered,
    }
}

/// A text of digits that is no number: a postcode `01234`, a part `1E5`.
fn is_code(text: &str) -> bool {
    let digits = text.trim().trim_start_matches('-');
    digits.contains(['e', 'E']) || (digits.starts_with('0') && digits.len() > 1 && !digits.starts_with("0."))
}

/// Two lookups of the same record: its id says which. The name beside it is the other record's own, and a bulk read's file has none.
pub fn same_lookup(a: &Value, b: &Value) -> bool {
    let id = |lookup: &Value| lookup.as_object()?.get("id").filter(|id| !is_empty(id)).map(scalar_text);
    id(a).is_some_and(|a| id(b) == Some(a))
}

/// A scalar as plain text: what the keys of a `values` map are compared with. Composite values give their JSON text.
pub fn scalar_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Looks a dotted path up; `None` when any part of it is absent, which means unknown, never empty.
pub fn at<'a>(record: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(record, |value, segment| value.as_object()?.get(segment))
}

/// Puts a value at a dotted path, making the objects on the way. A scalar in the way is replaced.
pub fn put(object: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            object.insert(path.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = object.entry(head).or_insert_with(|| Value::Object(Map::new()));
            if !inner.is_object() {
                *inner = Value::Object(Map::new());
            }
            if let Value::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

/// Whether a value is a decimal number, or the text of one.
pub fn is_decimal(value: &Value) -> bool {
    matches!(value, Value::Number(_) | Value::String(_)) && Decimal::parse(scalar_text(value).trim()).is_some()
}

/// Whether two decimal numerals denote the same number; false if either is not one.
fn same_number(a: &str, b: &str) -> bool {
    match (Decimal::parse(a), Decimal::parse(b)) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// A decimal numeral in its one canonical form: digits without zeros at either end, times a power of ten. Exact at any length.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Decimal {
    fn parse(text: &str) -> Option<Self> {
        let (negative, text) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
            None => (text, 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, exponent: 0 });
        }
        let trailing = all.len() - all.trim_end_matches('0').len();
        let exponent = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(i64::try_from(trailing).ok()?)?;
        Some(Self { negative, digits, exponent })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn parse(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn a_lookup_is_the_record_that_it_names_whatever_that_is_called_now() {
        let acme = json!({"id": "7", "name": "Acme"});
        for (other, equal) in [
            (json!({"id": "7", "name": "Acme Ltd"}), true),
            (json!({"id": "7"}), true),
            (json!({"id": 7}), true),
            (json!({"id": "8", "name": "Acme"}), false),
            (json!({"name": "Acme"}), false),
            (json!({"id": null}), false),
            (json!("7"), false),
            (Value::Null, false),
        ] {
            assert_eq!([same_lookup(&acme, &other), same_lookup(&other, &acme)], [equal; 2], "{other}");
        }
    }

    #[test]
    fn numbers_are_equal_by_value_and_never_through_a_float() {
        for (a, b, equal) in [
            ("1.10", "1.1", true),
            ("100", "1e2", true),
            ("1.5E+1", "15", true),
            ("0", "-0.00", true),
            ("0.1", "0.10000000000000000001", false),
            ("9007199254740993", "9007199254740992", false),
            ("-1", "1", false),
            ("10", "1", false),
            ("123456789012345678901234567890.12", "123456789012345678901234567890.120", true),
        ] {
            assert_eq!(same(&parse(a), &parse(b)), equal, "{a} and {b}");
        }
    }

    #[test]
    fn a_local_number_is_not_its_text_and_null_is_not_empty() {
        assert!(!same(&json!(1), &json!("1")));
        assert!(!same(&json!(null), &json!("")));
        assert!(!same(&json!([1, 2]), &json!([2, 1])));
        assert!(!same(&json!({"a": 1}), &json!({"a": 1, "b": null})));
        assert!(same(&parse(r#"{"a": [1.0, {"b": 2}], "c": 3}"#), &parse(r#"{"c": 3.00, "a": [1, {"b": 2.0}]}"#)));
    }

    #[test]
    fn zoho_may_spell_an_equal_value_differently() {
        for (sent, answered, equal) in [
            (json!(null), json!(""), true),
            (json!("12.50"), json!(12.5), true),
            (json!("Acme "), json!("Acme"), true),
            (json!({"street": "Main 1"}), json!({"street": "Main 1", "zip": ""}), true),
            (json!({"street": "Main 1"}), json!({"zip": "1"}), false),
            (json!([{"a": 1}]), json!([{"a": "1", "line_item_id": "9"}]), true),
            (json!(true), json!("true"), false),
            (json!("a"), json!("b"), false),
            (json!(0), json!(""), false),
            (json!("12.50"), json!("12.5"), true),
            (json!("01234"), json!("1234"), false),
            (json!("007"), json!(7), true),
            (json!("1E5"), json!("100000"), false),
            (json!("0.50"), json!(0.5), true),
        ] {
            assert_eq!(alike(&sent, &answered), equal, "{sent} and {answered}");
        }
    }

    #[test]
    fn dots_nest_and_an_absent_part_is_unknown() {
        let mut body = Map::new();
        put(&mut body, "billing_address.street", json!("Main 1"));
        put(&mut body, "billing_address.city", json!("Rome"));
        put(&mut body, "name", json!("Acme"));
        let body = Value::Object(body);
        assert_eq!(body, json!({"billing_address": {"street": "Main 1", "city": "Rome"}, "name": "Acme"}));
        assert_eq!(at(&body, "billing_address.city"), Some(&json!("Rome")));
        assert_eq!(at(&body, "billing_address.zip"), None);
        assert_eq!(at(&body, "name.first"), None);
    }

    proptest! {
        #[test]
        fn scaling_a_number_by_zeros_never_makes_it_another(whole in any::<i64>(), zeros in 1_usize..30) {
            let plain = parse(&whole.to_string());
            let scaled = parse(&format!("{whole}.{}", "0".repeat(zeros)));
            prop_assert!(same(&plain, &scaled));
            let shifted = parse(&format!("{whole}{}e-{zeros}", "0".repeat(zeros)));
            prop_assert!(same(&plain, &shifted));
        }

        #[test]
        fn different_integers_are_never_the_same(a in any::<i64>(), b in any::<i64>()) {
            prop_assert_eq!(same(&parse(&a.to_string()), &parse(&b.to_string())), a == b);
        }
    }
}
