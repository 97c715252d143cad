//! What integration tests of every crate share: a real PostgreSQL with one database per test, and waiting without sleeps.
//!
//! Depends on `sluice-core` alone, so that any other crate of the workspace may use it in its own tests.

mod database;
mod pooler;
mod wait;

pub use database::TestDb;
pub use pooler::Bouncer;
pub use wait::wait_until;
