//! What a scenario says of webhooks and notifications.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What happens to webhooks and notifications on their way. All times are real ones.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Chance that one is never sent.
    pub lose: f64,
    /// Chance that one is sent twice.
    pub double: f64,
    /// Chance that one is late, by `delay_ms`.
    pub delay: f64,
    /// Shortest and longest delay, in milliseconds.
    pub delay_ms: [u64; 2],
    /// Chance that one is held back until the next to the same address has overtaken it.
    pub reorder: f64,
    /// The longest that it is held back, in milliseconds.
    pub hold_ms: u64,
    /// Chance that with one comes a forged one, with other values and without the right secret.
    pub forge: f64,
    /// Lowest and highest latency of any of them, in milliseconds.
    pub latency_ms: [u64; 2],
    /// How often one is sent again that was not answered with a 2xx.
    pub retries: usize,
    /// Wait before the first retry, in milliseconds; doubled with each.
    pub backoff_ms: u64,
    /// How long an answer is waited for, in milliseconds.
    pub timeout_ms: u64,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            lose: 0.0,
            double: 0.0,
            delay: 0.0,
            delay_ms: [1_000, 5_000],
            reorder: 0.0,
            hold_ms: 2_000,
            forge: 0.0,
            latency_ms: [0, 0],
            retries: 0,
            backoff_ms: 1_000,
            timeout_ms: 5_000,
        }
    }
}

impl Delivery {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), String> {
        let chances = [self.lose, self.double, self.delay, self.reorder, self.forge];
        match chances.iter().all(|chance| (0.0..=1.0).contains(chance)) {
            true => Ok(()),
            false => Err("the chances of delivery must lie between 0 and 1".to_owned()),
        }
    }
}

/// A webhook of a workflow rule: whom to tell of what, and how it is known to be from Zoho.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// `inventory`, `billing` or `crm`; in the CRM of a workflow rule, whose payload is anyone's choice.
    pub product: String,
    /// The finance organisation; absent: any.
    #[serde(default)]
    pub organization: Option<String>,
    /// Modules as the admin API calls them; empty: all.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Of `create`, `edit` and `delete`; empty: all.
    #[serde(default)]
    pub events: Vec<String>,
    /// Where it is sent to.
    pub url: String,
    /// HTTP method; POST if absent.
    #[serde(default = "post")]
    pub method: String,
    /// Signs it, in the header `X-Zoho-Webhook-Signature`.
    #[serde(default)]
    pub secret: Option<String>,
    /// How the signature is written.
    #[serde(default)]
    pub encoding: Encoding,
    /// Custom headers, by name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Parameters added to the address.
    #[serde(default)]
    pub query: BTreeMap<String, String>,
    /// The form of the default payload.
    #[serde(default)]
    pub body: Body,
    /// A body of one's own: `${JSONString}` stands for the default payload, `${name}` for a field.
    #[serde(default)]
    pub raw: Option<String>,
}

/// How a signature is written; which one Zoho uses is not documented.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// Lower-case hexadecimal digits, as seen.
    #[default]
    Hex,
    /// Upper-case hexadecimal digits.
    UpperHex,
    /// Base64 with padding.
    Base64,
}

/// The form of a webhook's default payload.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Body {
    /// The JSON itself.
    #[default]
    Json,
    /// A form with the JSON in its field `JSONString`.
    Form,
}

impl Webhook {
    /// Checks what the types cannot say.
    pub(crate) fn validate(&self) -> Result<(), String> {
        if !["inventory", "billing", "crm"].contains(&self.product.as_str()) {
            return Err("a webhook's product is inventory, billing or crm".to_owned());
        }
        if url::Url::parse(&self.url).is_err() {
            return Err("a webhook's url is none".to_owned());
        }
        match self.events.iter().find(|event| !["create", "edit", "delete"].contains(&event.as_str())) {
            Some(event) => Err(format!("a webhook's events are create, edit and delete, not {event}")),
            None => Ok(()),
        }
    }
}

fn post() -> String {
    "POST".to_owned()
}
