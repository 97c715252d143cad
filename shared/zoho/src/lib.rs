//! OAuth and the five Zoho products over HTTP.
//!
//! One request per [`Grant`](sluice_core::grant::Grant): every public call consumes one, and there is no other way to send.
//! What comes back is an [`Answer`] with its [`Evidence`], or a [`Failed`] whose [`Error`] says first of all whether Zoho may
//! have acted. This crate classifies; it decides nothing about retries, and it must never:
//!
//! - know a database, a job or a mapping;
//! - retry, follow a redirect or send a second request on its own (each would be a call outside the budget);
//! - put a token, a secret or a body into a log line, an error or a `Debug` text.
//!
//! The rooms: [`oauth`] mints tokens; [`finance`] and [`crm`] are the products we know by module; [`call`] is any request under a
//! product's base path; [`organizations`] lists whom a finance call can be made for; [`mask`] hides personal data in what people get to see.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod address;
pub mod call;
mod classify;
mod client;
pub mod cost;
pub mod crm;
mod error;
mod evidence;
pub mod finance;
mod hosts;
pub mod mask;
mod network;
pub mod oauth;
pub mod organizations;
mod product;
mod settings;

pub use client::Client;
pub use error::{AuthKind, Error, Failed, LimitScope, NotSent, Rejection, RejectionKind, UnknownReason};
pub use evidence::{Answer, Evidence, Limits, Sent};
pub use hosts::{DataCenter, UntrustedHost, trusted_api_domain};
pub use network::{MAX_ANSWER_BYTES, install_tls};
pub use product::{LedgerScope, Method, Product};
pub use settings::{AccessToken, BuildError, Settings};

/// What a call to a product gives back.
pub type Result<T> = std::result::Result<Answer<T>, Failed<Error>>;
