//! A Zoho product and a module of it, written `product/module`.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize, Serializer};

use super::suggest::did_you_mean;

/// The Zoho apps that Sluice speaks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// Zoho CRM.
    Crm,
    /// Zoho Books.
    Books,
    /// Zoho Inventory.
    Inventory,
    /// Zoho Billing.
    Billing,
    /// Zoho FSM.
    Fsm,
}

impl Product {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Crm, Self::Books, Self::Inventory, Self::Billing, Self::Fsm];

    /// The name in configuration, SQL and URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crm => "crm",
            Self::Books => "books",
            Self::Inventory => "inventory",
            Self::Billing => "billing",
            Self::Fsm => "fsm",
        }
    }

    /// Whether it draws, by default, on the minute that the finance apps share.
    pub fn is_finance(self) -> bool {
        matches!(self, Self::Books | Self::Inventory | Self::Billing)
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Product {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|product| product.as_str() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            format!("unknown product `{text}`{}; one of {}", did_you_mean(text, names), names.join(", "))
        })
    }
}

/// A module of a product, written `product/module`: `billing/customers`, `crm/Deals`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Module {
    /// The Zoho app.
    pub product: Product,
    /// The module's name as the product's API spells it (CRM names are case-sensitive).
    pub name: String,
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.product, self.name)
    }
}

impl FromStr for Module {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (product, name) =
            text.split_once('/').ok_or_else(|| format!("`{text}` is not `product/module`; for example \"billing/customers\""))?;
        let product = product.parse()?;
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(format!(
                "`{name}` is not a module's name; for example \"{product}/{}\"",
                if product == Product::Crm { "Deals" } else { "customers" }
            ));
        }
        Ok(Self { product, name: name.to_owned() })
    }
}

impl Serialize for Module {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Module {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Module {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Module".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^(crm|books|inventory|billing|fsm)/[A-Za-z0-9_]+$" })
    }
}
