//! Hides personal data and secrets in what people get to see: attempts, dead letters, error texts.
//!
//! A rule of thumb for reading, not a security boundary: what must stay secret is never handed to this module's callers.
//! It must never change the payload that is sent, only copies of it.

use serde_json::Value;

/// Longest text kept of a message.
const MESSAGE_CHARS: usize = 500;
/// Longest JSON kept whole in an excerpt, in bytes.
const EXCERPT_BYTES: usize = 4096;
/// Nesting that is still looked into.
const DEPTH: usize = 32;

const HIDDEN: &str = "***";
/// Parts of key names (lower case, without separators) whose values are hidden as a whole.
const SECRET_KEYS: [&str; 12] = [
    "token",
    "secret",
    "password",
    "authorization",
    "apikey",
    "signature",
    "cardnumber",
    "cvv",
    "accountnumber",
    "iban",
    "idnumber",
    "passport",
];
/// Parts of key names whose values keep their first character and their shape.
const PERSONAL_KEYS: [&str; 4] = ["email", "phone", "mobile", "fax"];

/// A copy of `payload` with secrets hidden and e-mail addresses and telephone numbers shortened, by key and by shape.
pub fn mask(payload: &Value) -> Value {
    masked(payload, DEPTH)
}

/// A copy of `message` without e-mail addresses and token-shaped words, at most 500 characters long.
pub fn text(message: &str) -> String {
    let mut out = String::new();
    let mut word = String::new();
    for c in message.chars().take(MESSAGE_CHARS) {
        if is_word(c) {
            word.push(c);
        } else {
            out.push_str(&masked_word(&word));
            word.clear();
            out.push(c);
        }
    }
    out.push_str(&masked_word(&word));
    out
}

/// What is kept of an answer beside an error: masked, and as a shortened text when it is longer than 4 KiB.
pub fn excerpt(answer: &Value) -> Value {
    let masked = mask(answer);
    let written = masked.to_string();
    if written.len() <= EXCERPT_BYTES {
        return masked;
    }
    let mut end = EXCERPT_BYTES;
    while !written.is_char_boundary(end) {
        end -= 1;
    }
    Value::String(format!("{}…", &written[..end]))
}

fn masked(value: &Value, depth: usize) -> Value {
    match value {
        _ if depth == 0 => Value::String("…".to_owned()),
        Value::String(content) => Value::String(long_text(content)),
        Value::Array(items) => items.iter().map(|item| masked(item, depth - 1)).collect(),
        Value::Object(fields) => fields.iter().map(|(key, field)| (key.clone(), masked_field(key, field, depth))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

fn masked_field(key: &str, value: &Value, depth: usize) -> Value {
    let key: String = key.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
    let names = |parts: &[&str]| parts.iter().any(|part| key.contains(part));
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::String(content) if content.is_empty() => value.clone(),
        _ if names(&SECRET_KEYS) => Value::String(HIDDEN.to_owned()),
        Value::String(content) if names(&PERSONAL_KEYS) => Value::String(shortened(content)),
        Value::Number(_) if names(&PERSONAL_KEYS) => Value::String(HIDDEN.to_owned()),
        // An array of plain e-mail addresses under one key.
        Value::Array(items) if names(&PERSONAL_KEYS) => {
            items.iter().map(|item| item.as_str().map_or_else(|| masked(item, depth - 1), |s| Value::String(shortened(s)))).collect()
        }
        _ => masked(value, depth - 1),
    }
}

/// Unlike [`text`], keeps the whole length: a payload's long notes are cut by [`excerpt`] only.
fn long_text(content: &str) -> String {
    content
        .split_inclusive(|c| !is_word(c))
        .map(|piece| match piece.chars().last() {
            Some(c) if !is_word(c) => masked_word(&piece[..piece.len() - c.len_utf8()]) + c.encode_utf8(&mut [0; 4]),
            _ => masked_word(piece),
        })
        .collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '%' | '+' | '-' | '@')
}

fn masked_word(word: &str) -> String {
    if looks_like_a_token(word) {
        return HIDDEN.to_owned();
    }
    match word.split_once('@') {
        Some((name, domain)) if !name.is_empty() && domain.contains('.') => shortened(word),
        _ => word.to_owned(),
    }
}

/// Zoho's tokens: `1000.`, 32 hexadecimal digits, a dot, 32 more. Shorter remains (cut off at the end of a text) count too.
fn looks_like_a_token(word: &str) -> bool {
    word.match_indices("1000.").any(|(at, prefix)| {
        let rest = &word[at + prefix.len()..];
        rest.chars().take_while(|c| c.is_ascii_hexdigit() || *c == '.').count() >= 16
    })
}

/// `anna@example.com` → `a***@example.com`; `+49 30 123456` → `+***56`.
fn shortened(content: &str) -> String {
    let first: String = content.chars().take(1).collect();
    match content.rsplit_once('@') {
        Some((_, domain)) => format!("{first}{HIDDEN}@{domain}"),
        None if content.chars().count() > 6 => {
            let skip = content.chars().count() - 2;
            let last: String = content.chars().skip(skip).collect();
            format!("{first}{HIDDEN}{last}")
        }
        None => HIDDEN.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn token() -> String {
        format!("1000.{}.{}", "0a1b2c3d".repeat(4), "deadbeef".repeat(4))
    }

    #[test]
    fn personal_fields_are_shortened_and_secret_ones_hidden_by_their_key() {
        let payload = json!({
            "display_name": "Anna", "email": "anna@example.com", "Phone": "+49 30 123456", "mobile": 4930123456_i64,
            "refresh_token": "abc", "clientSecret": "abc", "total": 12.50, "is_mobile_enabled": true,
            "contact_persons": [{"Email": "b@example.com", "first_name": "B"}], "to_emails": ["c@example.com"], "fax": ""
        });
        let shown = mask(&payload);
        assert_eq!(
            shown,
            json!({
                "display_name": "Anna", "email": "a***@example.com", "Phone": "+***56", "mobile": "***",
                "refresh_token": "***", "clientSecret": "***", "total": 12.50, "is_mobile_enabled": true,
                "contact_persons": [{"Email": "b***@example.com", "first_name": "B"}], "to_emails": ["c***@example.com"], "fax": ""
            })
        );
    }

    #[test]
    fn tokens_and_addresses_are_hidden_wherever_they_stand_in_a_text() {
        let said = format!("token={}, asked by \"anna@example.com\" (v1.2)", token());
        let shown = text(&said);
        assert_eq!(shown, "token=***, asked by \"a***@example.com\" (v1.2)");
        assert_eq!(mask(&json!({"notes": said})), json!({"notes": shown}));
        assert_eq!(text(&format!("Zoho-oauthtoken_{}", token())), "***");
        assert_eq!(text("1000.50 and 1000.25 were paid @ noon"), "1000.50 and 1000.25 were paid @ noon");
    }

    #[test]
    fn exact_numbers_pass_unchanged() {
        let payload: Value = serde_json::from_str(r#"{"amount":123456789012345678.10}"#).unwrap();
        assert_eq!(mask(&payload).to_string(), r#"{"amount":123456789012345678.10}"#);
    }

    #[test]
    fn an_excerpt_is_bounded_and_cut_between_characters() {
        let long = json!({"notes": "ä".repeat(10_000)});
        let Value::String(cut) = excerpt(&long) else { panic!("not cut") };
        assert!(cut.len() <= EXCERPT_BYTES + '…'.len_utf8());
        assert_eq!(excerpt(&json!({"a": 1})), json!({"a": 1}));
    }

    #[test]
    fn a_token_cut_off_at_the_end_of_a_message_is_still_hidden() {
        let said = format!("{}{}", "x ".repeat(235), token());
        assert!(!text(&said).contains("0a1b2c3d"), "{}", text(&said));
    }
}
