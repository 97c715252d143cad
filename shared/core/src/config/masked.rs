//! How secrets leave the configuration: as `***`. The only serialisation they have, so none can be written by accident.

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

const MASK: &str = "***";

pub(super) fn secret<S: Serializer>(_: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(MASK)
}

pub(super) fn optional<S: Serializer>(secret: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|_| MASK).serialize(serializer)
}

pub(super) fn list<S: Serializer>(secrets: &[SecretString], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(|_| MASK))
}

/// A database address, shown without its password.
pub(super) fn address<S: Serializer>(url: &Option<SecretString>, serializer: S) -> Result<S::Ok, S::Error> {
    url.as_ref().map(|url| crate::telemetry::mask_url(url.expose_secret())).serialize(serializer)
}
