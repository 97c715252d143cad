//! One Zoho organisation: where it is, who we are there, and how much we may ask of it (`[connections.NAME]`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::masked;
use super::sync::Product;

/// `[connections.NAME]`
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// Zoho's data centre, by the ending of its addresses.
    #[serde(default)]
    pub data_center: DataCenter,
    /// The OAuth client.
    pub client_id: String,
    /// The OAuth client's secret.
    #[serde(serialize_with = "masked::secret")]
    #[schemars(with = "String")]
    pub client_secret: SecretString,
    /// Absent: `sluice auth` stores one. One in the file counts only until then, or if it differs from the one first seeded with.
    #[serde(default, serialize_with = "masked::optional")]
    #[schemars(with = "Option<String>")]
    pub refresh_token: Option<SecretString>,
    /// Absent: found by itself, where the account has one organisation or a default one.
    #[serde(default)]
    pub organization_id: Option<String>,
    /// For a simulator or a proxy: tokens come from `{accounts_url}/oauth/v2/token`.
    #[serde(default)]
    pub accounts_url: Option<String>,
    /// For a simulator or a proxy: calls go to `{api_url}/crm/v8`, `/books/v3`, …; `api_domain` of the token is then ignored.
    #[serde(default)]
    pub api_url: Option<String>,
    /// `finance`, `crm`, `fsm`, or a single finance product → its limits. What is not named has the defaults.
    #[serde(default)]
    pub budget: BTreeMap<String, Budget>,
}

impl Connection {
    /// The names that a budget may have.
    pub const BUDGETS: [&str; 6] = ["finance", "crm", "fsm", "books", "inventory", "billing"];

    /// The budget that calls of `product` draw from, and its name. Books, Inventory and Billing share `finance`, except one that has
    /// a section of its own, or all of them with `shared = false` (then each has the figures of `finance` to itself).
    pub fn budget_of(&self, product: Product) -> (&'static str, Budget) {
        let own = self.budget.get(product.as_str());
        let finance = self.budget.get("finance");
        match (own, product.is_finance()) {
            (Some(own), _) => (product.as_str(), own.clone()),
            (None, false) => (product.as_str(), Budget::default()),
            (None, true) if finance.is_some_and(|finance| !finance.shared) => (product.as_str(), finance.cloned().unwrap_or_default()),
            (None, true) => ("finance", finance.cloned().unwrap_or_default()),
        }
    }
}

/// `[connections.NAME.budget.BUDGET]`: limits of Zoho's, or lower ones of your own. What is absent follows from the plan, see [`super::limits`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Budget {
    /// Your plan or edition: free, trial, standard, professional, premium, elite, enterprise or ultimate. Zoho's answers correct what follows from it.
    pub plan: Option<String>,
    /// For `crm` only: users with a license, who add to the credits.
    pub users: Option<u32>,
    /// Calls in any window of `window_seconds`. Default 100.
    pub per_minute: u32,
    /// A bound on what Sluice uses: calls a day, of each product by itself; for `crm` credits in any 24 hours. Absent: what Zoho allows.
    pub per_day: Option<u32>,
    /// Calls under way at once. Absent: by the plan; 10 without one, for FSM 5.
    pub in_flight: Option<u32>,
    /// For `crm` only: heavy calls under way at once. Absent: 10.
    pub heavy_in_flight: Option<u32>,
    /// The organisation's time zone, at whose midnight the day ends, such as `America/New_York`. Absent: UTC until an answer tells.
    pub time_zone: Option<String>,
    /// The length of the window that `per_minute` counts in. Default 60; tests shorten it.
    pub window_seconds: u32,
    /// For `finance` only: one minute for Books, Inventory and Billing together (default), or one for each.
    pub shared: bool,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            plan: None,
            users: None,
            per_minute: 100,
            per_day: None,
            in_flight: None,
            heavy_in_flight: None,
            time_zone: None,
            window_seconds: 60,
            shared: true,
        }
    }
}

/// Zoho's data centres, named by the ending of their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize, JsonSchema)]
pub enum DataCenter {
    /// United States.
    #[default]
    #[serde(rename = "com")]
    Com,
    /// Europe.
    #[serde(rename = "eu")]
    Eu,
    /// India.
    #[serde(rename = "in")]
    In,
    /// Australia.
    #[serde(rename = "com.au")]
    ComAu,
    /// Japan.
    #[serde(rename = "jp")]
    Jp,
    /// Canada.
    #[serde(rename = "ca")]
    Ca,
    /// Saudi Arabia.
    #[serde(rename = "sa")]
    Sa,
    /// United Kingdom.
    #[serde(rename = "uk")]
    Uk,
    /// China.
    #[serde(rename = "com.cn")]
    ComCn,
}

impl DataCenter {
    /// The name in configuration and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Com => "com",
            Self::Eu => "eu",
            Self::In => "in",
            Self::ComAu => "com.au",
            Self::Jp => "jp",
            Self::Ca => "ca",
            Self::Sa => "sa",
            Self::Uk => "uk",
            Self::ComCn => "com.cn",
        }
    }
}
