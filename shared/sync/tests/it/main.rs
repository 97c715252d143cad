//! The database's part of a sync, against a real PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bad_rows;
mod links;
mod mapping;
mod support;
