//! The client against a peer that breaks in scripted ways: exact bytes, dropped connections, silence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bounds;
mod bulk;
mod logs;
mod peer;
mod products;
mod tokens;
mod transport;
