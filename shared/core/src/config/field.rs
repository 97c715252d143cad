//! The mapping language: where the value of one Zoho field comes from (`[syncs.NAME.fields]`).
//!
//! These types only say what was written; they read no row, run no SQL and know no Zoho field. A field is written in one of eight
//! forms (see [`Field`]); the forms exclude each other, and a mixture is refused while reading (`written`).

mod written;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sync::{Key, OnDelete};

/// Zoho field name → where it comes from. A dot in a name descends into an object: see [`segments`].
pub type Fields = BTreeMap<String, Field>;

/// Where the value of one Zoho field comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// `"name"` or `{ column = "name", … }`: a column of the row. The only form (with [`Field::Ref`]) that is also pulled.
    Column(ColumnField),
    /// `{ sql = "…", values = { … } }`: an SQL expression over the row, named `this`. Push only; json is sent as it is.
    Sql(SqlField),
    /// `{ value = … }`: a constant. Push only.
    Value(Value),
    /// `{ ref = "accounts", column = "account_id" }`: the Zoho id of a record of another sync.
    Ref(RefField),
    /// `{ each = "select …", item = { … } }`: a list with one object per row of a query. Push only.
    List(ListField),
    /// `{ rows = "invoice_lines", parent = "invoice_id", match_on = "line_item_id", item = { … } }`: a list of Zoho's whose objects become
    /// rows of a table of their own. Pull only.
    Rows(RowsField),
    /// `{ file = "image", column = "picture" }`: the bytes of a file of the record's. Pull only; the field's own value says which version of it Zoho has.
    File(FileField),
}

/// A column of the local row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnField {
    /// The column's name, unquoted.
    pub column: String,
    /// The side whose changes alone count.
    pub owner: Option<Owner>,
    /// What happens when both sides changed; absent: the sync's own [`Conflict`].
    pub conflict: Option<Conflict>,
    /// With an `owner`: whether the other side's edits are overwritten (else only recorded). Default false.
    pub repair: bool,
    /// Local value (as text) → the Zoho values that mean the same. Empty: values cross as they are.
    pub values: BTreeMap<String, Meanings>,
}

/// What an SQL expression over the row yields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SqlField {
    /// The expression; the row is `this`.
    pub sql: String,
    /// What it yields (as text) → what is sent. Empty: it is sent as it is.
    pub values: BTreeMap<String, Meanings>,
}

/// The Zoho id of the record of sync `sync` whose local key stands in `column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefField {
    /// The other sync's name (written `ref`).
    pub sync: String,
    /// The local column that holds the other record's key.
    pub column: String,
    /// The side whose changes alone count.
    pub owner: Option<Owner>,
    /// What happens when both sides changed; absent: the sync's own.
    pub conflict: Option<Conflict>,
    /// As [`ColumnField::repair`].
    pub repair: bool,
}

/// A list: one object per row of a query, in the query's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListField {
    /// The query; the row is `this`.
    pub each: String,
    /// The object made of each row: columns, values and refs over the query's columns (no `sql`, no list: write those in `each`).
    pub item: Fields,
    /// Sent as the only object where `each` yields no row; columns of `this`. Empty: an empty list is sent.
    pub or_else: Fields,
}

/// A list of Zoho's, each object a row of a child table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsField {
    /// The child table (written `rows`).
    pub table: String,
    /// Its column, or columns, that hold the key of the record's own row, in the order of the sync's `key`.
    pub parent: Key,
    /// The Zoho field, mapped in `item`, by which an object is known again.
    pub match_on: String,
    /// Zoho field of an object → its column: columns and refs.
    pub item: Fields,
    /// What becomes of a row whose object Zoho's list shows no more; never `void`.
    pub on_delete: OnDelete,
    /// For `mark`: local column → the value to set.
    pub mark: BTreeMap<String, Value>,
}

/// A file of a Zoho record, of which the field's value is the version: it is fetched when that value changes, and null is no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileField {
    /// Which of the record's files: the last part of its address.
    pub file: String,
    /// The local `bytea` column.
    pub column: String,
}

impl FileField {
    /// Longest file that is taken over, in bytes; of a larger one the column is left as it is.
    pub const MAX_BYTES: usize = 5 * 1024 * 1024;
}

impl RowsField {
    /// The column by which an object is known again; `None` if `match_on` is not mapped to a plain column.
    pub fn matched(&self) -> Option<&str> {
        match self.item.get(&self.match_on) {
            Some(Field::Column(field)) if field.values.is_empty() => Some(&field.column),
            _ => None,
        }
    }
}

/// What Zoho calls one local value: the first is sent, all are read as that local value. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meanings(Vec<Value>);

impl Meanings {
    /// The one that is sent.
    pub fn sent(&self) -> &Value {
        &self.0[0]
    }

    /// All that are read as the local value, the sent one first.
    pub fn read(&self) -> &[Value] {
        &self.0
    }
}

/// A side of a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// The database.
    Local,
    /// The Zoho app.
    Zoho,
}

/// What happens to a field that changed on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// The database wins.
    Local,
    /// Zoho wins.
    Zoho,
    /// The later change wins, by capture time and Zoho's modified time.
    #[default]
    Newest,
    /// A person decides; the field is left alone on both sides until then.
    Manual,
}

/// The names that lead to a field: `billing_address.street` → `billing_address`, `street`.
pub fn segments(name: &str) -> impl Iterator<Item = &str> {
    name.split('.')
}

impl Field {
    /// A plain column, as `"name"` in the file.
    pub fn column(name: impl Into<String>) -> Self {
        Self::Column(ColumnField { column: name.into(), ..ColumnField::default() })
    }

    /// Whether Zoho's value can be written here.
    pub fn is_pulled(&self) -> bool {
        match self {
            Self::Column(_) | Self::Ref(_) | Self::Rows(_) | Self::File(_) => true,
            Self::Sql(_) | Self::Value(_) | Self::List(_) => false,
        }
    }

    /// The column that its value stands in, of the forms that have one.
    pub fn own_column(&self) -> Option<&str> {
        match self {
            Self::Column(field) => Some(&field.column),
            Self::Ref(field) => Some(&field.column),
            Self::File(field) => Some(&field.column),
            Self::Sql(_) | Self::Value(_) | Self::List(_) | Self::Rows(_) => None,
        }
    }

    /// The names of all syncs that this field refers to, list items included.
    pub fn refs(&self) -> Vec<&str> {
        match self {
            Self::Ref(field) => vec![&field.sync],
            Self::List(list) => list.item.values().chain(list.or_else.values()).flat_map(Self::refs).collect(),
            Self::Rows(rows) => rows.item.values().flat_map(Self::refs).collect(),
            Self::Column(_) | Self::Sql(_) | Self::Value(_) | Self::File(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
