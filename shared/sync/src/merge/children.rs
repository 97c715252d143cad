//! A list of Zoho's as rows of a child table. The list is one field: it is compared as a whole with what it was when it was last taken over, and
//! when it is another, the rows are made to say it.
//!
//! Only an object that the list showed before, and shows no more, removes a row. So neither rows that somebody made by hand, nor those of a
//! record that is seen for the first time, are ever touched for being absent.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::local::{self, Incoming};
use super::{Facts, Ignored, Keys, Merge, Side};
use crate::definition::{Definition, Rows};
use crate::link::agreed::{field_in, known_part};
use crate::link::{Link, Pair};
use crate::value;

/// What a list makes of the rows of its child table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Children {
    /// Column → value of each row; the parent's columns are not among them.
    pub rows: Vec<BTreeMap<String, Value>>,
    /// Values of the matched column whose objects the list shows no more.
    pub removed: Vec<Value>,
}

/// Why a list cannot be taken over.
const NOT_KNOWN_AGAIN: &str = "an object of the list lacks the field of `match_on`, or shares it with another";

/// Zoho's list, of each object what is mapped, in the order of what they are known by: their order in the list means nothing. `None`: the record does
/// not carry it. `false`: not every object can be known again.
pub(super) fn listed(definition: &Definition, path: &str, record: &Value) -> Option<(Value, bool)> {
    let list = definition.rows().get(path)?;
    let Value::Array(mut objects) = known_part(definition, path, field_in(&definition.module, record, path)?) else { return None };
    objects.sort_by_cached_key(|object| id(list, object));
    let ids: BTreeSet<String> = objects.iter().filter_map(|object| id(list, object)).collect();
    let known_again = ids.len() == objects.len();
    Some((Value::Array(objects), known_again))
}

/// The rows of a list, and what its objects refer to that has no row yet: (sync, Zoho id). `before`: the list as it was last taken over.
pub(super) fn of(list: &Rows, before: Option<&Value>, listed: &Value, keys: &Keys) -> (Children, Vec<(String, String)>) {
    let objects = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let now: BTreeSet<String> = objects(listed).iter().filter_map(|object| id(list, object)).collect();
    let mut missing = Vec::new();
    let rows = objects(listed).iter().map(|object| row(list, object, keys, &mut missing)).collect();
    let gone = before.map(objects).unwrap_or_default().into_iter().filter(|object| id(list, object).is_some_and(|id| !now.contains(&id)));
    let removed = gone.filter(|_| list.removes()).filter_map(|object| value::at(&object, &list.field.match_on).cloned()).collect();
    (Children { rows, removed }, missing)
}

/// Whether a record shows another list than the one that was last taken over. An empty one proves nothing here.
pub fn changed(definition: &Definition, path: &str, record: &Value, link: &Link) -> bool {
    let before = link.fields.get(path).map(|pair| &pair.zoho);
    listed(definition, path, record).is_some_and(|(listed, _)| {
        !listed.as_array().is_none_or(Vec::is_empty) && before.is_none_or(|before| !value::same(before, &listed))
    })
}

/// The rows that go with a record that is gone.
pub fn all_removed(definition: &Definition, link: &Link) -> BTreeMap<String, Children> {
    let of = |(path, list): (&String, &Rows)| {
        let (children, _) = of(list, Some(&link.fields.get(path)?.zoho), &Value::Null, &Keys::new());
        (!children.removed.is_empty()).then(|| (path.clone(), children))
    };
    definition.rows().iter().filter_map(of).collect()
}

fn row(list: &Rows, object: &Value, keys: &Keys, missing: &mut Vec<(String, String)>) -> BTreeMap<String, Value> {
    let mut row = BTreeMap::new();
    for (name, field) in &list.field.item {
        // an object without the field does not say that it is empty
        let Some(zoho) = value::at(object, name).map(value::null_if_empty) else { continue };
        match (local::incoming(&list.table, Some(field), &zoho, keys), field.own_column()) {
            (Incoming::Column { column, value, .. }, _) => drop(row.insert(column, value)),
            (Incoming::Missing { sync, zoho_id }, Some(column)) => {
                missing.push((sync, zoho_id));
                row.insert(column.to_owned(), Value::Null);
            }
            _ => {}
        }
    }
    row
}

fn id(list: &Rows, object: &Value) -> Option<String> {
    value::at(object, &list.field.match_on).filter(|id| !value::is_empty(id)).map(value::scalar_text)
}

impl Merge {
    pub(super) fn children(&mut self, definition: &Definition, facts: Facts<'_>, path: &str, list: &Rows) {
        let before = facts.link.fields.get(path);
        let (listed, known_again) = match listed(definition, path, facts.record) {
            Some(listed) => listed,
            // the record has no such list: known, so that nobody reads it again for that
            None if facts.single && before.is_none() => (Value::Null, true),
            None => return,
        };
        let empty = listed.as_array().is_none_or(Vec::is_empty);
        let known = before.is_some_and(|pair| value::same(&pair.zoho, &listed));
        // an empty list proves something only where the record itself was read
        if known || empty && !facts.single && before.is_some() {
            return;
        }
        let (children, missing) = of(list, before.map(|pair| &pair.zoho), &listed, facts.keys);
        if !known_again {
            self.ignored.push(Ignored { field: path.to_owned(), of: Side::Zoho, to: listed.clone(), reason: NOT_KNOWN_AGAIN });
        }
        if !known_again || children == Children::default() {
            self.pairs.insert(path.to_owned(), Pair { local: listed.clone(), zoho: listed, confirmed: true });
            self.agreed_more = true;
            return;
        }
        self.missing.extend(missing);
        self.rows.insert(path.to_owned(), children);
        self.pulled.insert(path.to_owned(), listed);
    }
}

#[cfg(test)]
mod tests;
