//! Integration tests of `sluice_core`, over real PostgreSQL: one binary, a module per subject.
#![allow(clippy::unwrap_used)]

mod config;
mod db;
mod listen;
mod migrate;
mod pooler;
mod postgres;
