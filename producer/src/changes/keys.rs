//! Canonical keys out of captured images.
//!
//! For the usual key types the JSON that capture stored is what the type prints, so no round trip is needed; for the others (times,
//! floats, types of the user's own) the database casts.

use std::collections::HashMap;

use serde_json::Value;
use sluice_sync::definition::Definition;
use sluice_sync::key;
use sluice_sync::read::Reader;

/// Types whose JSON form, taken as text, is the text they print; of a `numeric` without scale, but for the zeros at its end.
const PRINTED_ALIKE: [&str; 8] = ["int2", "int4", "int8", "uuid", "text", "varchar", "bool", "numeric"];

/// Why an image gives no key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unfit {
    /// A key column is null: no record has it.
    Null(String),
    /// It is not there, or no key of the sync's.
    Wrong(String),
}

impl Unfit {
    /// For people.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Null(column) => format!("the key column `{column}` of a captured row is null"),
            Self::Wrong(reason) => reason.clone(),
        }
    }
}

/// Finds keys for one drain; remembers what the database was asked.
#[derive(Debug)]
pub(super) struct Keys<'a> {
    reader: &'a Reader,
    asked: HashMap<(String, String), Result<String, String>>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(reader: &'a Reader) -> Self {
        Self { reader, asked: HashMap::new() }
    }

    /// The key in an image of a row of the sync's own table.
    pub(super) async fn of_image(&mut self, definition: &Definition, image: &Value) -> Result<Result<String, Unfit>, sqlx::Error> {
        let mut parts = Vec::with_capacity(definition.key.len());
        for column in &definition.key {
            let text = match image.get(&column.name) {
                None => {
                    let name = &column.name;
                    let reason = format!("the key column `{name}` is not in the captured row: was it renamed or dropped?");
                    return Ok(Err(Unfit::Wrong(reason)));
                }
                Some(Value::Null) => return Ok(Err(Unfit::Null(column.name.clone()))),
                Some(Value::String(text)) => text.clone(),
                Some(other) => other.to_string(),
            };
            let any_scale = column.base_type == "numeric" && column.numeric_modifier.is_none();
            parts.push(if any_scale { without_trailing_zeros(&text).to_owned() } else { text });
        }
        let text = joined(parts);
        let key = if definition.key.iter().all(|column| prints_alike(definition, &column.name)) {
            allowed(text)
        } else {
            self.ask(definition, text).await?
        };
        Ok(key.map_err(Unfit::Wrong))
    }

    /// The canonical form of what a watch's expression yielded.
    pub(super) async fn of_text(&mut self, definition: &Definition, text: String) -> Result<Result<String, String>, sqlx::Error> {
        if let [column] = definition.key.as_slice()
            && is_canonical(base_type(definition, &column.name), &text)
        {
            return Ok(allowed(text));
        }
        self.ask(definition, text).await
    }

    async fn ask(&mut self, definition: &Definition, text: String) -> Result<Result<String, String>, sqlx::Error> {
        let question = (definition.name().to_owned(), text);
        if let Some(answer) = self.asked.get(&question) {
            return Ok(answer.clone());
        }
        let answer = self.reader.canonical_key(&definition.key, &question.1).await?;
        let answer = answer.map_err(|reason| format!("the key `{}` cannot be read: {reason}", key::shown(&question.1))).and_then(allowed);
        self.asked.insert(question, answer.clone());
        Ok(answer)
    }
}

/// A key that the insert of a job would take. Others must not get that far: their index entries, or the check, would stop everybody's changes.
fn allowed(key: String) -> Result<String, String> {
    match key::refused(&key) {
        None => Ok(key),
        Some(reason) => Err(reason),
    }
}

/// One part as it is, several as a JSON array of texts, printed as PostgreSQL prints jsonb.
fn joined(mut parts: Vec<String>) -> String {
    match parts.as_mut_slice() {
        [only] => std::mem::take(only),
        several => format!("[{}]", several.iter().map(|part| Value::from(part.as_str()).to_string()).collect::<Vec<_>>().join(", ")),
    }
}

/// As `trim_scale` prints it.
fn without_trailing_zeros(numeral: &str) -> &str {
    if numeral.contains('.') { numeral.trim_end_matches('0').trim_end_matches('.') } else { numeral }
}

fn prints_alike(definition: &Definition, column: &str) -> bool {
    PRINTED_ALIKE.contains(&base_type(definition, column))
}

fn base_type<'a>(definition: &'a Definition, column: &str) -> &'a str {
    definition.table.column(column).map_or("", |column| column.base_type.as_str())
}

fn is_canonical(base_type: &str, text: &str) -> bool {
    match base_type {
        "text" | "varchar" => true,
        "int8" => text.parse::<i64>().is_ok_and(|value| value.to_string() == text),
        "int4" => text.parse::<i32>().is_ok_and(|value| value.to_string() == text),
        "int2" => text.parse::<i16>().is_ok_and(|value| value.to_string() == text),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_parts_are_printed_as_jsonb_prints_them() {
        assert_eq!(joined(vec!["42".into()]), "42");
        assert_eq!(joined(vec!["42".into(), "a \"b\"".into()]), r#"["42", "a \"b\""]"#);
    }

    #[test]
    fn a_numeral_without_scale_has_one_form() {
        for (given, canonical) in [("10.00", "10"), ("10.50", "10.5"), ("100", "100"), ("0.0", "0"), ("-0.10", "-0.1")] {
            assert_eq!(without_trailing_zeros(given), canonical);
        }
    }

    #[test]
    fn only_what_the_type_itself_prints_is_taken_as_canonical() {
        for (base_type, text, canonical) in [
            ("int8", "42", true),
            ("int8", "042", false),
            ("int8", "+42", false),
            ("int4", "2147483648", false),
            ("text", " any ", true),
            ("uuid", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", false),
        ] {
            assert_eq!(is_canonical(base_type, text), canonical, "{base_type} {text}");
        }
    }
}
