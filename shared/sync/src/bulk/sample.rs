//! How the cells of a bulk read's file become values. Zoho does not document it, so it is found out in each file anew: a page of the list was read just before,
//! and of some of its records the file must say the same. Pure.
//!
//! A field whose cells say something else is left out of every row of the file: what is absent is unknown, never empty. So is a single cell that no
//! example vouches for. It must never make a value by guess.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value, json};
use sluice_core::config::field::Field;

use crate::definition::Definition;
use crate::module::parse_time;
use crate::value;

/// The field that tells which state of a record a row shows.
pub const TIME: &str = "Modified_Time";
/// Values of a field that are kept as examples, besides one that is empty.
const EXAMPLES: usize = 3;
/// Longest example, in bytes of JSON: a walk's place is written with every thousand rows.
const LONGEST: usize = 500;

/// What the last page of the list said of some records.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    examples: Vec<Example>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Example {
    field: String,
    id: String,
    at: DateTime<Utc>,
    value: Value,
}

/// How a field's cells are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Cells {
    Text,
    Number,
    Boolean,
    /// The id of a record.
    Lookup,
    /// Texts with `;` between them.
    List,
    /// Texts of which no example had several, so that it is not known what stands between them.
    Single,
}

/// What is believed of one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Belief {
    cells: Option<Cells>,
    /// What an empty cell is known to mean: null, or no values of a list.
    empty: Option<Value>,
    /// An example said otherwise: nothing of it is believed.
    refuted: bool,
}

/// What is believed of a file, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Believed(BTreeMap<String, Belief>);

impl Sample {
    /// Examples of these fields out of a page: up to three values that differ, from its beginning, middle and end, and an empty one.
    pub fn of(definition: &Definition, fields: &[String], page: &[Value]) -> Self {
        let module = &definition.module;
        let rows: Vec<(String, DateTime<Utc>, &Value)> =
            page.iter().filter_map(|row| Some((module.id_of(row)?, module.modified_at(row)?, row))).collect();
        let lookups = lookups(definition);
        let mut examples = Vec::new();
        for field in fields.iter().filter(|field| *field != TIME) {
            let shown = |(id, at, row): &(String, DateTime<Utc>, &Value)| {
                let value = value::null_if_empty(row.get(field)?);
                Some(Example { field: field.clone(), id: id.clone(), at: *at, value })
            };
            let (empty, filled): (Vec<Example>, Vec<Example>) = rows.iter().filter_map(shown).partition(|one| is_nothing(&one.value));
            let known = |one: &Example| cells_of(&one.value, lookups.contains(field)).is_some() && one.value.to_string().len() <= LONGEST;
            let mut filled: Vec<Example> = filled.into_iter().filter(known).collect();
            // a list of several shows what stands between them
            filled.sort_by_key(|one| std::cmp::Reverse(one.value.as_array().map_or(0, Vec::len).min(2)));
            examples.extend(spread(filled));
            examples.extend(empty.into_iter().next());
        }
        Self { examples }
    }

    /// The records that a file is looked through for.
    pub fn ids(&self) -> BTreeSet<&str> {
        self.examples.iter().map(|one| one.id.as_str()).collect()
    }

    /// What is believed of a file, after what was believed of those before: `rows` are its cells by id, of the records in the sample. `None`: it shows none of
    /// them as they were read, and nothing was believed before.
    pub fn check(&self, rows: &BTreeMap<String, BTreeMap<String, String>>, before: Option<&Believed>) -> Option<Believed> {
        let mut beliefs = before.map(|believed| believed.0.clone()).unwrap_or_default();
        let mut met = before.is_some();
        let kinds = self.kinds();
        for one in &self.examples {
            let Some(row) = rows.get(&one.id).filter(|row| row.get(TIME).and_then(|time| parse_time(time)) == Some(one.at)) else {
                continue;
            };
            met = true;
            let belief = beliefs.entry(one.field.clone()).or_insert(Belief { cells: None, empty: None, refuted: false });
            let cell = row.get(&one.field).map(String::as_str);
            let kind = kinds.get(one.field.as_str()).copied().flatten();
            match (cell, is_nothing(&one.value)) {
                (Some(""), true) => belief.empty = Some(one.value.clone()),
                (Some(cell), false) if kind.and_then(|kind| decoded(kind, cell)).is_some_and(|value| agrees(&one.value, &value)) => {
                    // one that shows more stands: several values of a list
                    let proven = cells_of(&one.value, true);
                    belief.cells = if belief.cells == Some(Cells::List) { belief.cells } else { proven };
                }
                _ => belief.refuted = true,
            }
        }
        met.then_some(Believed(beliefs))
    }

    /// The one form that all of a field's examples have, if they have one.
    fn kinds(&self) -> BTreeMap<&str, Option<Cells>> {
        let mut kinds: BTreeMap<&str, Option<Cells>> = BTreeMap::new();
        for one in self.examples.iter().filter(|one| !is_nothing(&one.value)) {
            let kind = cells_of(&one.value, true).map(|kind| if kind == Cells::Single { Cells::List } else { kind });
            kinds.entry(&one.field).and_modify(|known| *known = known.filter(|known| Some(*known) == kind)).or_insert(kind);
        }
        kinds
    }
}

impl Believed {
    /// The fields that the file writes otherwise than the list does.
    pub fn refuted(&self) -> Vec<&str> {
        self.0.iter().filter(|(_, belief)| belief.refuted).map(|(field, _)| field.as_str()).collect()
    }

    /// A row as the list would show it, without what is not known: cells by column. `None`: it does not say which record it is, or as of when.
    pub fn row<'a>(&self, fields: &[String], cell: impl Fn(&str) -> Option<&'a str>) -> Option<Value> {
        let (id, time) = (cell("id")?, cell(TIME)?);
        if id.is_empty() || parse_time(time).is_none() {
            return None;
        }
        let mut row = Map::from_iter([("id".to_owned(), id.into()), (TIME.to_owned(), time.into())]);
        let known = fields.iter().filter_map(|field| Some((field, self.0.get(field).filter(|belief| !belief.refuted)?, cell(field)?)));
        for (field, belief, cell) in known {
            let value = if cell.is_empty() { belief.empty.clone() } else { belief.cells.and_then(|cells| decoded(cells, cell)) };
            row.extend(value.map(|value| (field.clone(), value)));
        }
        Some(Value::Object(row))
    }
}

/// Fields of which nothing but the record that they name is mapped. A file shows its id, and nothing else of it.
fn lookups(definition: &Definition) -> BTreeSet<String> {
    let of_head = |head: &str, path: &String| path == head || path.strip_prefix(head).is_some_and(|rest| rest.starts_with('.'));
    let references = definition.fields().iter().filter(|(_, field)| matches!(field, Field::Ref(_))).map(|(path, _)| path);
    let alone = references.filter(|head| definition.fields().keys().filter(|path| of_head(head, path)).count() == 1);
    if definition.sync.columns.is_empty() { alone.cloned().collect() } else { BTreeSet::new() }
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}

fn cells_of(value: &Value, is_lookup: bool) -> Option<Cells> {
    match value {
        Value::String(_) => Some(Cells::Text),
        Value::Number(_) => Some(Cells::Number),
        Value::Bool(_) => Some(Cells::Boolean),
        Value::Object(object) if is_lookup && object.get("id").is_some_and(Value::is_string) => Some(Cells::Lookup),
        Value::Array(values) if values.iter().all(Value::is_string) => Some(if values.len() > 1 { Cells::List } else { Cells::Single }),
        _ => None,
    }
}

/// What a cell that is not empty means; `None`: nothing that can be told.
fn decoded(cells: Cells, cell: &str) -> Option<Value> {
    match cells {
        // what a spreadsheet would take for a formula may have been given a mark
        Cells::Text if cell.starts_with('\'') && cell[1..].starts_with(['=', '+', '-', '@']) => None,
        Cells::Text => Some(cell.into()),
        // as JSON writes numbers, digit by digit
        Cells::Number => serde_json::from_str::<Number>(cell).ok().map(Value::Number),
        Cells::Boolean if cell.eq_ignore_ascii_case("true") => Some(true.into()),
        Cells::Boolean if cell.eq_ignore_ascii_case("false") => Some(false.into()),
        Cells::Boolean => None,
        Cells::Lookup => cell.bytes().all(|byte| byte.is_ascii_digit()).then(|| json!({ "id": cell })),
        Cells::List => Some(cell.split(';').collect()),
        Cells::Single if cell.contains([';', ',', '|', '\n']) => None,
        Cells::Single => Some(json!([cell])),
    }
}

/// Whether a cell says what the list said, as two readings of a record are compared; of a lookup the file has the id.
fn agrees(listed: &Value, cell: &Value) -> bool {
    value::same(listed, cell) || value::same_lookup(listed, cell)
}

/// The first, the middle and the last of the values that differ.
fn spread(mut all: Vec<Example>) -> Vec<Example> {
    let mut seen = BTreeSet::new();
    all.retain(|one| seen.insert(one.value.to_string()));
    let last = all.len().saturating_sub(1);
    let wanted: BTreeSet<usize> = (0..EXAMPLES).map(|n| last * n / (EXAMPLES - 1)).collect();
    all.into_iter().enumerate().filter(|(at, _)| wanted.contains(at)).map(|(_, one)| one).collect()
}

#[cfg(test)]
mod tests;
