//! Which columns a piece of the user's SQL may look at.
//!
//! A guess that may only err on the safe side: naming a column too many costs a read, one too few loses an edit. So every word
//! counts, also inside literals and comments, and whatever may mean the whole row means all columns.

use std::collections::BTreeSet;

/// A set of columns of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Columns {
    /// Any column may matter.
    All,
    /// Only these matter.
    Named(BTreeSet<String>),
}

impl Columns {
    /// Whether a change of these columns can matter.
    pub fn touched_by<S: AsRef<str>>(&self, changed: &[S]) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => changed.iter().any(|column| names.contains(column.as_ref())),
        }
    }

    /// The columns by name, given all that the table has.
    pub fn names(&self, all: &[String]) -> Vec<String> {
        match self {
            Self::All => all.to_vec(),
            Self::Named(names) => names.iter().cloned().collect(),
        }
    }

    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Named(mut a), Self::Named(b)) => {
                a.extend(b);
                Self::Named(a)
            }
            _ => Self::All,
        }
    }
}

/// The columns of a table that `expression` names, the row being called `this`.
pub(crate) fn named_columns(expression: &str, columns: &[String]) -> Columns {
    if uses_whole_row(expression, columns) {
        return Columns::All;
    }
    let lower = expression.to_lowercase();
    Columns::Named(columns.iter().filter(|column| occurs_as_word(&lower, &column.to_lowercase())).cloned().collect())
}

/// `this` otherwise than as `this.<column>`: `to_jsonb(this)`, `this.*`, `(this).x`, and `this.f` where `f` is no column, which is
/// how Postgres calls a function of the row. Unicode-escaped identifiers hide names, so they count as well.
fn uses_whole_row(expression: &str, columns: &[String]) -> bool {
    let lower = expression.to_lowercase();
    if lower.contains("u&\"") {
        return true;
    }
    words(&lower, "this").any(|end| {
        let rest = lower[end..].trim_start().trim_start_matches('"').trim_start();
        let Some(member) = rest.strip_prefix('.') else {
            return true;
        };
        let member = member.trim_start();
        !columns.iter().any(|column| starts_with_name(member, &column.to_lowercase()))
    })
}

fn starts_with_name(text: &str, name: &str) -> bool {
    let text = text.strip_prefix('"').unwrap_or(text);
    // A quote inside a quoted identifier is doubled.
    let name = name.replace('"', "\"\"");
    text.strip_prefix(name.as_str()).is_some_and(|rest| !rest.starts_with(is_word))
}

fn occurs_as_word(lower: &str, name: &str) -> bool {
    !name.is_empty() && (words(lower, name).next().is_some() || (name.contains('"') && lower.contains(&name.replace('"', "\"\""))))
}

/// The end of every place where `word` stands in `text` by itself.
fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word).filter_map(move |(start, found)| {
        let end = start + found.len();
        let alone = !text[..start].ends_with(is_word) && !text[end..].starts_with(is_word);
        alone.then_some(end)
    })
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns() -> Vec<String> {
        ["id", "name", "street", "city", "lines", "Odd Name", "say \"hi\"", "straße"].map(str::to_owned).to_vec()
    }

    fn named(expected: &[&str]) -> Columns {
        Columns::Named(expected.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn an_expression_names_the_columns_that_stand_in_it_as_words() {
        for (expression, expected) in [
            ("concat_ws(', ', this.street, this.city)", named(&["street", "city"])),
            ("status <> 'draft'", named(&[])),
            ("NAME is not null", named(&["name"])),
            ("rename || surname", named(&[])),
            ("this.\"Odd Name\" || 'x'", named(&["Odd Name", "name"])),
            ("this.\"say \"\"hi\"\"\"", named(&["say \"hi\""])),
            ("this . city", named(&["city"])),
            ("\"this\".\"city\"", named(&["city"])),
            ("this.straße", named(&["straße"])),
            ("select * from jsonb_to_recordset(this.lines) as l(name text)", named(&["lines", "name"])),
            ("'the city of rome'", named(&["city"])),
            ("this_id + 1", named(&[])),
        ] {
            assert_eq!(named_columns(expression, &columns()), expected, "{expression}");
        }
    }

    #[test]
    fn anything_that_may_read_the_whole_row_means_all_columns() {
        for expression in [
            "to_jsonb(this)",
            "this.*",
            "(this).city",
            "this.full_name",
            "row_to_json(THIS)->>'x'",
            "this",
            "this.nam",
            "this.U&\"ci\\0074y\"",
        ] {
            assert_eq!(named_columns(expression, &columns()), Columns::All, "{expression}");
        }
    }

    proptest! {
        #[test]
        fn a_column_that_an_expression_uses_is_never_missed(prefix in "[ (+,'a-z]{0,12}", suffix in "[ )+,'a-z]{0,12}", index in 0_usize..4) {
            let columns = columns();
            let column = &columns[index];
            let expression = format!("{prefix} this.{column} {suffix}");
            match named_columns(&expression, &columns) {
                Columns::All => {}
                Columns::Named(names) => prop_assert!(names.contains(column)),
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,60}") {
            let _ = named_columns(&text, &columns());
        }
    }
}
