//! The queue over Postgres: what may be claimed, by whom and for how long, what became of it, and the budget every call is drawn from.
//!
//! The logic that must be atomic is SQL functions (`migrations/`); this crate calls them and decides what is pure. It knows neither
//! Zoho nor what a job means, and must never send anything.

pub mod agreement;
pub mod calls;
pub mod claim;
pub mod lease;
pub mod outcome;
pub mod retry;
pub mod settle;
pub mod store;
pub mod wake;

pub use claim::{Batch, Claim, Claimed};
pub use outcome::{Class, Letter, Outcome};
pub use settle::{Cost, Report, Settlement};
