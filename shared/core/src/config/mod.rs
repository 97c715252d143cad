//! The configuration file, `sluice.toml`.

pub mod field;
mod suggest;
pub mod sync;
pub mod units;
