//! How a field stands in the file: a column's name, or a table of which the keys say which form is meant.

use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::{ColumnField, Conflict, Field, Fields, FileField, ListField, Meanings, Owner, RefField, RowsField, SqlField};
use crate::config::sync::{Key, OnDelete};

/// The long form as it stands in the file; which keys are present says which [`Field`] is meant.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "FieldTable")]
struct Table {
    /// A column of the row (or, with `ref`, the column that holds the other record's key; with `file`, the one that takes its bytes).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    column: Option<String>,
    /// SQL over the row `this`; push only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    /// A constant; push only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
    /// The name of another sync.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// A query over `this` that yields the rows of a list; push only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    each: Option<String>,
    /// A child table that a list of Zoho's becomes rows of; pull only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<String>,
    /// A file of the record's, whose version the field is; pull only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// The child table's column, or columns, that hold the key of the record's own row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parent: Option<Key>,
    /// The Zoho field of `item` by which an object is known again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    match_on: Option<String>,
    /// What becomes of a row whose object the list shows no more: ignore, mark or delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    on_delete: Option<OnDelete>,
    /// For `on_delete = "mark"`: local column → the value to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    mark: BTreeMap<String, Value>,
    /// The object made of each row, or (with `rows`) the columns that each object fills.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    item: Fields,
    /// The only object where `each` is empty.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    or_else: Fields,
    /// The side whose changes alone count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<Owner>,
    /// What happens when both sides changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    conflict: Option<Conflict>,
    /// Overwrite the other side's edits of an owned field.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    repair: bool,
    /// Local value → Zoho value, or a list of which the first is sent and all are read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    values: BTreeMap<String, Meanings>,
}

const FORMS: &str = "write \"column\", { column = … }, { sql = … }, { value = … }, { ref = …, column = … }, { each = …, item = … }, \
     { rows = …, parent = …, match_on = …, item = … } or { file = …, column = … }";

impl Table {
    fn into_field(self) -> Result<Field, String> {
        let forms = [
            self.each.is_some(),
            self.rows.is_some(),
            self.file.is_some(),
            self.reference.is_some(),
            self.sql.is_some(),
            self.value.is_some(),
        ];
        let chosen = forms.iter().filter(|present| **present).count();
        let column_alone = chosen == 0 && self.column.is_some();
        let with_column = column_alone || self.reference.is_some() || self.file.is_some();
        if chosen > 1 || (chosen == 0 && !column_alone) || (self.column.is_some() && !with_column) {
            return Err(format!("a field comes from exactly one place: {FORMS}"));
        }
        self.refuse_keys_of_other_forms(column_alone)?;
        let (owner, conflict, repair) = (self.owner, self.conflict, self.repair);
        if let Some(each) = self.each {
            if self.item.is_empty() {
                return Err("a list needs `item`: the object to make of each row of `each`".to_owned());
            }
            return Ok(Field::List(ListField { each, item: self.item, or_else: self.or_else }));
        }
        if let Some(table) = self.rows {
            let (Some(parent), Some(match_on)) = (self.parent, self.match_on) else {
                return Err(
                    "`rows` needs `parent`, the table's column that holds this record's key, and `match_on`, the Zoho field by which an \
                     object of the list is known again"
                        .to_owned(),
                );
            };
            let on_delete = self.on_delete.unwrap_or_default();
            return Ok(Field::Rows(RowsField { table, parent, match_on, item: self.item, on_delete, mark: self.mark }));
        }
        if let Some(file) = self.file {
            let column = self.column.ok_or("`file` needs `column`: the local bytea column that takes its bytes")?;
            return Ok(Field::File(FileField { file, column }));
        }
        match (self.reference, self.sql, self.value, self.column) {
            (Some(sync), _, _, Some(column)) => Ok(Field::Ref(RefField { sync, column, owner, conflict, repair })),
            (Some(_), _, _, None) => Err("`ref` needs `column`: the local column that holds the other record's key".to_owned()),
            (None, Some(sql), _, _) => Ok(Field::Sql(SqlField { sql, values: self.values })),
            (None, None, Some(value), _) => Ok(Field::Value(value)),
            (None, None, None, column) => {
                Ok(Field::Column(ColumnField { column: column.unwrap_or_default(), owner, conflict, repair, values: self.values }))
            }
        }
    }

    fn refuse_keys_of_other_forms(&self, column_alone: bool) -> Result<(), String> {
        let pulled = column_alone || self.reference.is_some();
        let misplaced = [
            (!self.item.is_empty() && self.each.is_none() && self.rows.is_none(), "`item` belongs to a list; give `each` or `rows` too"),
            (self.rows.is_none() && self.parent.is_some(), "`parent` belongs to `rows`; give it too"),
            (
                self.rows.is_none() && self.match_on.is_some(),
                "`match_on` of a field belongs to `rows`; a record's own stands beside `fields`",
            ),
            (
                self.rows.is_none() && (self.on_delete.is_some() || !self.mark.is_empty()),
                "`on_delete` and `mark` of a field belong to `rows`",
            ),
            (!self.or_else.is_empty() && self.each.is_none(), "`or_else` belongs to a list; give `each` too"),
            (!self.values.is_empty() && !column_alone && self.sql.is_none(), "`values` belongs to a column or to `sql`"),
            (self.owner.is_some() && !pulled, "`owner` belongs to a column or a ref; everything else goes one way only"),
            (self.conflict.is_some() && !pulled, "`conflict` belongs to a column or a ref; everything else goes one way only"),
            (self.repair && self.owner.is_none(), "`repair` says what to do with edits of the side that is not `owner`; give `owner` too"),
        ];
        misplaced.iter().find(|(wrong, _)| *wrong).map_or(Ok(()), |(_, message)| Err((*message).to_owned()))
    }
}

impl Serialize for Field {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let table = match self.clone() {
            Self::Column(field) if field == (ColumnField { column: field.column.clone(), ..ColumnField::default() }) => {
                return serializer.serialize_str(&field.column);
            }
            Self::Column(ColumnField { column, owner, conflict, repair, values }) => {
                Table { column: Some(column), owner, conflict, repair, values, ..Table::default() }
            }
            Self::Sql(SqlField { sql, values }) => Table { sql: Some(sql), values, ..Table::default() },
            Self::Value(value) => Table { value: Some(value), ..Table::default() },
            Self::Ref(RefField { sync, column, owner, conflict, repair }) => {
                Table { reference: Some(sync), column: Some(column), owner, conflict, repair, ..Table::default() }
            }
            Self::File(FileField { file, column }) => Table { file: Some(file), column: Some(column), ..Table::default() },
            Self::List(ListField { each, item, or_else }) => Table { each: Some(each), item, or_else, ..Table::default() },
            Self::Rows(RowsField { table, parent, match_on, item, on_delete, mark }) => Table {
                rows: Some(table),
                parent: Some(parent),
                match_on: Some(match_on),
                item,
                on_delete: (on_delete != OnDelete::Ignore).then_some(on_delete),
                mark,
                ..Table::default()
            },
        };
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FieldVisitor)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Field;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "where the field comes from; {FORMS}")
    }

    fn visit_str<E: de::Error>(self, column: &str) -> Result<Field, E> {
        Ok(Field::column(column))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Field, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map))?.into_field().map_err(de::Error::custom)
    }
}

impl JsonSchema for Field {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Field".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let table = generator.subschema_for::<Table>();
        json_schema!({
            "description": "A column's name, or a table that says where the field comes from.",
            "anyOf": [{ "type": "string" }, table],
        })
    }
}

impl Serialize for Meanings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => only.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Meanings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Array(several) if several.is_empty() => {
                Err(de::Error::custom("an empty list says nothing; name at least the value to send"))
            }
            Value::Array(several) if several.iter().any(|one| one.is_array() || one.is_object()) => {
                Err(de::Error::custom("expected texts, numbers or booleans in the list"))
            }
            Value::Array(several) => Ok(Self(several)),
            Value::Object(_) => Err(de::Error::custom("expected a text, a number, a boolean, or a list of them")),
            one => Ok(Self(vec![one])),
        }
    }
}

impl JsonSchema for Meanings {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Meanings".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let scalar = serde_json::json!(["string", "number", "boolean"]);
        json_schema!({ "anyOf": [{ "type": scalar }, { "type": "array", "minItems": 1, "items": { "type": scalar } }] })
    }
}
