//! What the simulator saw, request by request.

use anyhow::Context as _;
use serde_json::Value;

/// Requests, in the order of their arrival.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(pub(crate) Vec<Request>);

/// One of them.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) number: u64,
    /// Microseconds since 1970, by this machine's clock.
    pub(crate) arrived_us: i64,
    pub(crate) method: String,
    pub(crate) path: String,
}

impl Log {
    pub(crate) fn read(requests: &[Value]) -> anyhow::Result<Self> {
        let one = |request: &Value| {
            Some(Request {
                number: request["number"].as_u64()?,
                arrived_us: request["arrived_us"].as_i64()?,
                method: request["method"].as_str()?.to_owned(),
                path: request["path"].as_str()?.to_owned(),
            })
        };
        let requests = requests.iter().map(|request| one(request).with_context(|| format!("cannot be read: {request}")));
        Ok(Self(requests.collect::<anyhow::Result<_>>()?))
    }

    /// The number of the last request.
    pub(crate) fn last(&self) -> u64 {
        self.0.last().map_or(0, |request| request.number)
    }

    /// Those that arrived between two moments.
    pub(crate) fn between(&self, from_us: i64, to_us: i64) -> Vec<&Request> {
        self.0.iter().filter(|request| (from_us..to_us).contains(&request.arrived_us)).collect()
    }

    /// Those with this method to a path that begins so.
    pub(crate) fn of(&self, method: &str, path: &str) -> Vec<&Request> {
        self.0.iter().filter(|request| request.method == method && request.path.starts_with(path)).collect()
    }
}

/// Now, as the log counts.
pub(crate) fn now_us() -> i64 {
    chrono::Utc::now().timestamp_micros()
}
