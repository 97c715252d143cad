//! Any request below a product's base path: the `call` job, and whatever the typed modules do not cover.
//!
//! It must never reach another host, product or organisation than the connection's.

use serde_json::Value;
use sluice_core::grant::Grant;

pub use crate::address::{MAX_PATH_BYTES, PathError, check_path};
use crate::classify::Effect;
use crate::client::{Outgoing, not_sent};
use crate::{AccessToken, Client, Method, NotSent, Product, Result};

/// Longest body of a `call`, in bytes of JSON.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A request as the job describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Which product's base path it goes below.
    pub product: Product,
    /// The method; all but GET count as writes.
    pub method: Method,
    /// Checked by [`check_path`] before it is sent.
    pub path: String,
    /// Encoded for you. The organisation is added; naming another one is refused.
    pub query: Vec<(String, String)>,
    /// JSON, at most [`MAX_BODY_BYTES`].
    pub body: Option<Value>,
}

/// Sends it. The value is the answer's JSON, whole, null for a 204. A CRM answer of status 207 is a success here: its
/// elements speak for themselves.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence. After anything but a GET, `OutcomeUnknown` must not be repeated.
pub async fn send(grant: Grant, client: &Client, token: &AccessToken, request: &Request) -> Result<Value> {
    if let Err(reason) = check(request) {
        return Err(not_sent(grant.place(), NotSent::Invalid { reason }));
    }
    let effect = if request.method == Method::Get { Effect::Read } else { Effect::Change };
    let outgoing = Outgoing {
        query: request.query.clone(),
        body: request.body.as_ref(),
        ..Outgoing::new(request.product, request.method, effect, request.path.clone())
    };
    client.send(grant, outgoing, token).await?.checked()
}

fn check(request: &Request) -> std::result::Result<(), String> {
    check_path(&request.path).map_err(|e| e.to_string())?;
    let length = request.body.as_ref().map_or(0, |body| body.to_string().len());
    if length > MAX_BODY_BYTES {
        return Err(format!("a body of {length} bytes is too large; {MAX_BODY_BYTES} at most"));
    }
    Ok(())
}
