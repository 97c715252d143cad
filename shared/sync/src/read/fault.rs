//! Whose fault a failed statement is.

use sluice_core::db::passes;

/// Whose fault a failed statement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// One row's data.
    Row,
    /// The table's or an expression's: no row can be read.
    Definition,
    /// A foreign server's, which an expression asks: it may come back, and other rows do not need it.
    Elsewhere,
    /// Nobody's: it passes.
    Passing,
}

impl Fault {
    /// By SQLSTATE. Syntax and missing objects or rights concern the definition, and what [`passes`] nobody. All else concerns a row: an expression may
    /// raise what it likes, and a code that nobody foresaw must not stop the other rows. So may a time-out.
    pub(super) fn of(error: &sqlx::Error) -> Self {
        if passes(error) {
            return Self::Passing;
        }
        let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
        match code.get(..2) {
            Some("0A" | "3D" | "3F" | "42") => Self::Definition,
            Some("08" | "HV") => Self::Elsewhere,
            _ => Self::Row,
        }
    }
}

pub(super) fn is_time_out(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}
