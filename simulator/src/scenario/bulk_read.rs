//! Bulk reads of the CRM (CRM fact 3.1).

use serde::{Deserialize, Serialize};

/// What jobs and their files are like.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct BulkRead {
    /// Zoho's seconds until a file is there.
    pub seconds: f64,
    /// Rows of a file; what does not fit is asked for with a token.
    pub per_file: usize,
    /// Zoho's hours until a file is gone.
    pub hours: f64,
    /// Whether jobs fail.
    pub fail: bool,
    /// How cells are written.
    pub dialect: Dialect,
    /// Whether the second half of a file shows records as they were when it was ready.
    pub torn: bool,
    /// Rows that a file lacks, though they are counted.
    pub lose_rows: usize,
}

/// How cells are written: Zoho documents times and nothing else.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// As in JSON, lookups by their ids, several values with `;` between them.
    #[default]
    Plain,
    /// Dates as `MM/dd/yyyy`, true and false as 1 and 0.
    Spreadsheet,
}

impl Default for BulkRead {
    fn default() -> Self {
        Self { seconds: 2.0, per_file: 200_000, hours: 24.0, fail: false, dialect: Dialect::Plain, torn: false, lose_rows: 0 }
    }
}
