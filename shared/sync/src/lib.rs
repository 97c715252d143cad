//! A sync: what a row means in Zoho's words, what both sides last agreed on, and what is to be done about the difference.
//!
//! [`definition`] compiles the configured mapping against the database; [`read`] reads rows through it; [`link`] keeps what was
//! agreed; [`merge`] decides, purely, which side's value stands, and [`plan`] what one record needs in Zoho; [`module`] is the table of what Zoho's modules are like,
//! [`similar`] says which names may mean the same, [`bulk`] what the file of a bulk read does. This crate
//! sends nothing, claims nothing and knows neither the queue nor the Zoho client: programs join them.

pub mod bulk;
pub mod catalog;
pub mod cursor;
pub mod definition;
pub mod key;
pub mod link;
pub mod merge;
pub mod module;
pub mod plan;
pub mod provision;
pub mod read;
pub mod sighting;
pub mod similar;
pub mod sweep;
pub mod value;

#[cfg(test)]
mod fixture;
