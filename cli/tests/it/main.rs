//! The binary as scripts and people meet it: exit codes, messages and the shapes of `--json`.

#![allow(clippy::unwrap_used)]

mod asking;
mod auth;
mod bench;
mod database;
mod planning;
mod recipes;
mod records;
mod sluice;
mod up;
mod usage;
