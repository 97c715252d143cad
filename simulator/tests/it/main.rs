//! The simulator over HTTP, as any client sees it. Each test has a simulator of its own.

#![allow(clippy::unwrap_used)]

mod admin;
mod billing;
mod bulk_read;
mod channels;
mod crm;
mod crm_reads;
mod faults;
mod inventory;
mod limits;
mod oauth;
mod operations;
mod outgoing;
mod receiver;
mod world;
