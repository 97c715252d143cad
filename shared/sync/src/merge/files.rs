//! Files of a Zoho record. Their bytes are never compared: the field's value says which version Zoho has, and the link which one was taken over.
//! They go one way; what is done to the column here is neither seen nor sent.

use serde_json::Value;
use sluice_core::config::field::Field;

use super::{Facts, Merge};
use crate::definition::Definition;
use crate::link::Pair;
use crate::link::agreed::field_in;
use crate::value;

/// A file that Zoho has in a version that was not taken over yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The field whose value is the version.
    pub path: String,
    /// Which of the record's files.
    pub file: String,
    /// The column that takes its bytes.
    pub column: String,
    /// The version that the record shows; never null.
    pub version: Value,
}

/// The files that a record tells of, each with its version; null: there is none. A file that it does not tell of is unknown.
pub(super) fn shown(definition: &Definition, record: &Value) -> Vec<(Wanted, Value)> {
    let files = definition.fields().iter().filter_map(|(path, field)| {
        let Field::File(field) = field else { return None };
        let version = value::null_if_empty(field_in(&definition.module, record, path)?);
        let wanted = Wanted { path: path.clone(), file: field.file.clone(), column: field.column.clone(), version: Value::Null };
        Some((wanted, version))
    });
    files.collect()
}

impl Merge {
    /// What Zoho has in another version than the link knows is wanted; what it has no more leaves the column empty.
    pub(super) fn want_files(&mut self, definition: &Definition, facts: Facts<'_>) {
        for (wanted, version) in shown(definition, facts.record) {
            let known = facts.link.fields.get(&wanted.path).map(|pair| &pair.zoho);
            match (known, version) {
                (Some(known), version) if value::same(known, &version) => {}
                // never had one: what stands in the column is not Zoho's
                (None, Value::Null) => self.settle_file(wanted.path, Value::Null),
                (Some(_), Value::Null) => {
                    self.columns.insert(wanted.column, Value::Null);
                    self.pulled.insert(wanted.path, Value::Null);
                }
                (_, version) => self.files.push(Wanted { version, ..wanted }),
            }
        }
    }

    /// This version is known, and nothing is written for it.
    pub fn settle_file(&mut self, path: String, version: Value) {
        self.pairs.insert(path, Pair { local: version.clone(), zoho: version, confirmed: true });
        self.agreed_more = true;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use serde_json::json;

    use super::*;
    use crate::fixture::{compile, linked, table};
    use crate::link::Pairs;
    use crate::merge::{self, Keys, insert};
    use crate::read::{Parents, Row};

    const ITEMS: &str = r#"
        [items]
        connection = "main"
        table = "items"
        key = "id"
        module = "inventory/items"
        direction = "both"
        [items.fields]
        rate = "price"
        image_document_id = { file = "image", column = "picture" }
    "#;

    fn items() -> Definition {
        let table = table("items", &[("id", "bigint"), ("price", "numeric"), ("picture", "bytea")]);
        compile(ITEMS, "items", &[table]).unwrap().0
    }

    fn pair(version: &Value) -> Pair {
        Pair { local: version.clone(), zoho: version.clone(), confirmed: true }
    }

    /// What is done where the link knows one version and Zoho's record shows another.
    fn merged(known: Option<Value>, record: Value) -> Merge {
        let definition = items();
        let pairs: Pairs = known.iter().map(|version| ("image_document_id".to_owned(), pair(version))).collect();
        let link = linked("1", Some("9"), pairs);
        let row = Row { key: "1".to_owned(), when: true, fields: BTreeMap::new(), problems: Vec::new() };
        let facts = Facts {
            row: &row,
            link: &link,
            record: &record,
            single: true,
            columns: &BTreeMap::new(),
            parents: &Parents::new(),
            keys: &Keys::new(),
            read_at: chrono::Utc::now(),
            changed_at: &BTreeMap::new(),
            driven: &BTreeSet::new(),
            decided: &BTreeMap::new(),
        };
        merge::merge(&definition, facts)
    }

    #[test]
    fn a_file_is_wanted_in_a_version_that_the_link_does_not_know_and_in_no_other() {
        for known in [None, Some(Value::Null), Some(json!("1"))] {
            let merge = merged(known, json!({"image_document_id": "2"}));
            assert_eq!(merge.files.iter().map(|wanted| &wanted.version).collect::<Vec<_>>(), [&json!("2")]);
            assert!(merge.columns.is_empty() && merge.pulled.is_empty() && !merge.agreed_more, "nothing is agreed on before it is here");
        }
        // an answer that does not tell of it says nothing
        for record in [json!({"image_document_id": "2"}), json!({"rate": 5})] {
            assert_eq!(merged(Some(json!("2")), record).files, []);
        }
    }

    #[test]
    fn a_file_that_zoho_has_no_more_empties_the_column_and_one_that_it_never_had_does_not() {
        let merge = merged(Some(json!("1")), json!({"image_document_id": ""}));
        assert_eq!((merge.columns["picture"].clone(), merge.pulled["image_document_id"].clone()), (Value::Null, Value::Null));
        let merge = merged(None, json!({"image_document_id": ""}));
        assert!(merge.columns.is_empty() && merge.agreed_more, "{merge:?}");
    }

    #[test]
    fn a_new_row_wants_its_file_and_agrees_at_once_that_there_is_none() {
        let new = |record| insert(&items(), &record, &BTreeMap::new(), &Keys::new());
        assert_eq!(new(json!({"image_document_id": "2"})).files.len(), 1);
        let none = new(json!({"image_document_id": "", "rate": 5}));
        assert_eq!((none.files.len(), none.pulled.get("image_document_id")), (0, Some(&Value::Null)));
        assert!(!none.columns.contains_key("picture"));
    }

    #[test]
    fn a_file_goes_into_bytea_only() {
        let table = table("items", &[("id", "bigint"), ("price", "numeric"), ("picture", "text")]);
        let findings = compile(ITEMS, "items", &[table]).unwrap_err();
        let said = findings.iter().find(|finding| finding.at == "syncs.items.fields.image_document_id").unwrap();
        assert!(said.message.contains("`picture` is text; a file goes into a column of type bytea"), "{said}");
    }
}
