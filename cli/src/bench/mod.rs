//! Benchmarks that users run on their own machine: `sluice bench budget`.

pub(crate) mod figures;
pub(crate) mod scenarios;
pub(crate) mod world;
