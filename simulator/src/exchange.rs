//! One request and its answer, in the plain form that every simulated product works with.

use std::time::Instant;

use bytes::Bytes;
use serde_json::{Map, Value};

/// A request as it arrived. The body is empty until it has been read.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// When its headers were complete.
    pub(crate) arrived: Instant,
    pub(crate) method: String,
    pub(crate) path: String,
    /// Decoded query parameters, in their order.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: Bytes,
}

impl Request {
    /// The first value of a query parameter.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// A header's value, if it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as a JSON object. Finance clients may also send the object in a form field `JSONString`.
    pub(crate) fn json_object(&self) -> Option<Map<String, Value>> {
        if let Ok(Value::Object(object)) = serde_json::from_slice(&self.body) {
            return Some(object);
        }
        let (_, text) = url::form_urlencoded::parse(&self.body).find(|(key, _)| key == "JSONString")?;
        serde_json::from_str(&text).ok()
    }

    /// The finance organisation that is meant: a header in Billing, a query parameter in Inventory (finance fact 1.2).
    pub(crate) fn organization(&self) -> Option<&str> {
        match self.product() {
            Product::Billing => self.header("x-com-zoho-subscriptions-organizationid"),
            Product::Inventory => self.query("organization_id"),
            _ => None,
        }
    }

    /// Which of Zoho's products the path belongs to.
    pub(crate) fn product(&self) -> Product {
        let first = self.path.trim_start_matches('/').split('/').next().unwrap_or_default();
        match first {
            "admin" => Product::Admin,
            "oauth" => Product::Oauth,
            "crm" => Product::Crm,
            "billing" => Product::Billing,
            "inventory" => Product::Inventory,
            _ => Product::Unknown,
        }
    }
}

/// The parts of the simulator, by the first segment of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Product {
    Admin,
    Oauth,
    Billing,
    Inventory,
    Crm,
    Unknown,
}

impl Product {
    /// Whether it keeps the finance products' conventions: numeric codes, organisations, daily headers.
    pub(crate) fn is_finance(self) -> bool {
        matches!(self, Self::Billing | Self::Inventory)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Oauth => "oauth",
            Self::Billing => "billing",
            Self::Inventory => "inventory",
            Self::Crm => "crm",
            Self::Unknown => "unknown",
        }
    }
}

/// What a body can be.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Content {
    Json(Value),
    Html(&'static str),
    /// A file with its media type.
    Binary(&'static str, Bytes),
    Empty,
}

/// An answer before it is put on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) content: Content,
    /// Ids of the records that were read or written, for the request log.
    pub(crate) ids: Vec<String>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: Value) -> Self {
        Self { status, headers: Vec::new(), content: Content::Json(body), ids: Vec::new() }
    }

    pub(crate) fn binary(kind: &'static str, bytes: Bytes) -> Self {
        Self { status: 200, headers: Vec::new(), content: Content::Binary(kind, bytes), ids: Vec::new() }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self { status, headers: Vec::new(), content: Content::Empty, ids: Vec::new() }
    }

    pub(crate) fn html(status: u16, page: &'static str) -> Self {
        Self { status, headers: Vec::new(), content: Content::Html(page), ids: Vec::new() }
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(crate) fn with_ids(mut self, ids: Vec<String>) -> Self {
        self.ids = ids;
        self
    }
}
