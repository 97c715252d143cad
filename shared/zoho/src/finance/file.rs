//! Files of records: bytes instead of an envelope, within a limit.

use sluice_core::grant::Grant;

use super::{Module, request};
use crate::classify::{self, Body, Effect};
use crate::client::{Outgoing, Reply, not_sent};
use crate::{AccessToken, Answer, Client, Failed, Method, NotSent, Result};

/// A file, as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum File {
    /// All of it.
    Whole {
        /// The media type that Zoho gave it: `image/png`.
        content_type: String,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// It is larger than was allowed; the rest was not read.
    TooLarge,
}

/// Reads a file of a record, of at most `most` bytes: `GET /items/{id}/image?preview=true` (finance sheet §5.3, images).
///
/// # Errors
/// [`Error`](crate::Error) with its evidence; `NotFound` when there is none, `Malformed` when the answer is no file. A file that we do not know the
/// address of is refused unsent.
pub async fn file(grant: Grant, client: &Client, token: &AccessToken, module: Module, id: &str, name: &str, most: usize) -> Result<File> {
    let outgoing = if module == Module::ITEMS && name == "image" {
        request(module, Method::Get, Effect::Read, &[id, name], &[("preview", "true")], None)
    } else {
        Err(format!("{}/{} has no file `{name}` that we know", module.product().as_str(), module.as_str()))
    };
    let outgoing = match outgoing {
        Ok(outgoing) => Outgoing { file: Some(most), ..outgoing },
        Err(reason) => return Err(not_sent(grant.place(), NotSent::Invalid { reason })),
    };
    let reply = client.send(grant, outgoing, token).await?;
    if let Err(error) = classify::verdict(&reply.facts(), &reply.body) {
        return Err(Failed::new(error, reply.evidence));
    }
    match reply.body {
        Body::File(value) => Ok(Answer { value, evidence: reply.evidence }),
        _ => Err(Reply::unreadable(Effect::Read, reply.evidence, "no file")),
    }
}
