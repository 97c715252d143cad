//! What is printed for people and programs. A row is a JSON object whose keys are the columns of the contract's views: `--json` prints
//! rows as they are, a table shows a choice of their columns.

use std::io::{self, IsTerminal, Write};

use chrono::{DateTime, Utc};
use comfy_table::{Table, presets};
use serde_json::Value;

/// Longest text in a cell; `show` commands print it whole.
const CELL: usize = 72;

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    key: &'static str,
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    Text,
    /// How long ago, or how far ahead.
    Time,
}

/// A column that shows the value under `key`.
pub(crate) const fn text(title: &'static str, key: &'static str) -> Column {
    Column { title, key, form: Form::Text }
}

/// A column that shows the time under `key` as a distance from now.
pub(crate) const fn time(title: &'static str, key: &'static str) -> Column {
    Column { title, key, form: Form::Time }
}

/// Prints a line, or lines, to standard output.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn line(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end_matches('\n'))
}

/// Prints a value as JSON, indented on a terminal.
///
/// # Errors
/// When standard output is closed.
pub(crate) fn json(value: &Value) -> io::Result<()> {
    line(&if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() })
}

/// The rows as a table; `none` where there are no rows.
pub(crate) fn table(columns: &[Column], rows: &[Value], none: &str) -> String {
    if rows.is_empty() {
        return none.to_owned();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(columns.iter().map(|column| column.title));
    let now = Utc::now();
    for row in rows {
        table.add_row(columns.iter().map(|column| cell(&row[column.key], column.form, now)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

/// One row, key by key.
pub(crate) fn record(row: &Value) -> String {
    let Some(entries) = row.as_object() else { return plain(row) };
    let shown = entries.iter().filter(|(_, value)| !value.is_null());
    let width = shown.clone().map(|(key, _)| key.len()).max().unwrap_or(0);
    shown
        .map(|(key, value)| {
            let text = if value.is_object() || value.is_array() { format!("{value:#}") } else { plain(value) };
            format!("{key:width$}  {}\n", text.replace('\n', &format!("\n{:width$}  ", "")))
        })
        .collect()
}

/// A value as people read it: texts without quotes, nothing for null.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn cell(value: &Value, form: Form, now: DateTime<Utc>) -> String {
    let text = plain(value);
    match form {
        Form::Text => shorten(&text),
        Form::Time => text.parse().map_or(text, |time| distance(time, now)),
    }
}

fn shorten(text: &str) -> String {
    let one_line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &one_line[..end]),
        None => one_line,
    }
}

fn distance(time: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - time).num_seconds();
    let size = match seconds.unsigned_abs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    };
    if seconds < 0 { format!("in {size}") } else { format!("{size} ago") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_shows_the_chosen_columns_and_cuts_long_texts() {
        let rows = [json!({"id": 7, "message": "a\n b", "other": 1}), json!({"id": 8, "message": "x".repeat(100), "other": 2})];
        let shown = table(&[text("ID", "id"), text("MESSAGE", "message")], &rows, "none");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[0], "ID  MESSAGE");
        assert_eq!(lines[1], "7   a b");
        assert_eq!(lines[2], format!("8   {}…", "x".repeat(CELL)));
        assert_eq!(table(&[], &[], "none"), "none");
    }

    #[test]
    fn times_are_shown_as_distances_and_other_texts_as_they_are() {
        let now: DateTime<Utc> = "2026-01-01T12:00:00Z".parse().expect("a time");
        for (value, shown) in [
            (json!("2026-01-01T11:59:00+00:00"), "60 s ago"),
            (json!("2026-01-01T11:00:00.5+00:00"), "59 min ago"),
            (json!("2026-01-01T12:10:00+00:00"), "in 10 min"),
            (json!("2025-12-20T12:00:00+00:00"), "12 d ago"),
            (json!("infinity"), "infinity"),
            (json!(null), ""),
        ] {
            assert_eq!(cell(&value, Form::Time, now), shown);
        }
    }

    #[test]
    fn a_record_leaves_out_what_is_absent() {
        assert_eq!(record(&json!({"id": 7, "note": null, "error_class": "validation"})), "error_class  validation\nid           7\n");
    }
}
