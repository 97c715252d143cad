//! Integration tests of sluice_core, over real PostgreSQL.
#![allow(clippy::unwrap_used)]

mod db;
mod listen;
mod migrate;
mod pooler;
mod postgres;
