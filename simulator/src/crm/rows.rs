//! Subforms: rows without an id are added to those that are there, rows with one are changed, `_delete` takes one out,
//! an empty list takes out all (CRM fact 2.3).

use serde_json::{Value, json};

use super::{Module, Values};
use crate::ids::Ids;

impl Module {
    /// Puts the rows given for a record in place of what is to be stored; every row has an id then.
    pub(super) fn merge_rows(&self, id: Option<&str>, values: &mut Values, ids: &mut Ids) {
        let subforms = self.fields.iter().filter(|field| field.spec.data_type == "subform");
        for name in subforms.map(|field| field.name()) {
            let Some(Value::Array(given)) = values.get_mut(name) else { continue };
            let stored = id.and_then(|id| self.records.get(id)?.values.get(name)?.as_array());
            let stored = stored.filter(|_| !given.is_empty()).cloned().unwrap_or_default();
            *given = merged(stored, std::mem::take(given), ids);
        }
    }
}

fn merged(mut rows: Vec<Value>, given: Vec<Value>, ids: &mut Ids) -> Vec<Value> {
    for mut row in given {
        let id = row.get("id").and_then(Value::as_str).map(str::to_owned);
        let at = id.and_then(|id| rows.iter().position(|row| row["id"] == *id));
        match (at, row.get("_delete").is_some()) {
            (Some(at), true) => {
                rows.remove(at);
            }
            (Some(at), false) => {
                if let (Value::Object(old), Value::Object(new)) = (&mut rows[at], row) {
                    old.extend(new);
                }
            }
            (None, true) => {}
            (None, false) => {
                if let Value::Object(new) = &mut row {
                    new.insert("id".to_owned(), json!(ids.record()));
                }
                rows.push(row);
            }
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::merged;
    use crate::ids::Ids;

    #[test]
    fn rows_are_added_changed_and_taken_out() {
        let mut ids = Ids::new(1);
        let rows = merged(Vec::new(), vec![json!({ "Quantity": 1 }), json!({ "Quantity": 2 })], &mut ids);
        let (first, second) = (rows[0]["id"].clone(), rows[1]["id"].clone());
        let given = vec![json!({ "id": first, "_delete": null }), json!({ "id": second, "Quantity": 5 }), json!({ "Quantity": 3 })];
        let rows = merged(rows, given, &mut ids);
        assert_eq!(rows.iter().map(|row| row["Quantity"].clone()).collect::<Vec<_>>(), [5, 3]);
        assert_eq!(rows[0]["id"], second);
    }
}
