//! What every Sluice program needs: configuration, database access, secrets, telemetry, and the [`grant::Grant`] type that ties
//! the ledger to the Zoho client. Imports no other crate of the workspace.

pub mod config;
pub mod db;
pub mod grant;
pub mod postgres;
pub mod secrets;
pub mod telemetry;
