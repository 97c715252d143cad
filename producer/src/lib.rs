//! Makes jobs: row changes, clocks and requests become rows in `sluice.job`. It never carries one out and never calls a worker; any number
//! of producers may run on one database, and what must happen once is decided by a row.
//!
//! [`mod@publish`] puts the configuration into tables, [`capture`] installs the triggers, [`changes`] turns what they captured into jobs,
//! [`schedules`], [`sweeps`] and [`webhook`] do the same for clocks and for what Zoho tells, [`upkeep`] keeps the tables in shape, [`alerts`] tells
//! people, [`http`] shows and triggers.

pub mod alerts;
pub mod capture;
pub mod changes;
pub mod definitions;
pub mod http;
pub mod plan;
pub mod publish;
mod run;
pub mod schedules;
pub mod sweeps;
pub mod trigger;
pub mod upkeep;
pub mod webhook;

pub use definitions::Definitions;
pub use publish::{Published, publish};
pub use run::{run, run_on};
pub use trigger::trigger;
