//! The five products, where each lives under the API host, and which minute of the ledger it draws from.

use std::fmt;
use std::str::FromStr;

/// A Zoho product reached through one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Product {
    /// Zoho CRM, REST v8.
    Crm,
    /// Zoho Books, v3.
    Books,
    /// Zoho Inventory, v1.
    Inventory,
    /// Zoho Billing (once Subscriptions), v1.
    Billing,
    /// Zoho FSM, v1.
    Fsm,
}

/// The family of products that share one set of limits until a configuration says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LedgerScope {
    /// Zoho CRM's credits and concurrency.
    Crm,
    /// Books, Inventory and Billing: 100 calls a minute per organisation.
    Finance,
    /// Zoho FSM.
    Fsm,
}

/// A product's name that is none of `crm books inventory billing fsm`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown product `{0}`; one of crm, books, inventory, billing, fsm")]
pub struct UnknownProduct(String);

impl Product {
    /// All products, in the order of the documentation.
    pub const ALL: [Self; 5] = [Self::Crm, Self::Books, Self::Inventory, Self::Billing, Self::Fsm];

    /// The name used in configuration, SQL and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crm => "crm",
            Self::Books => "books",
            Self::Inventory => "inventory",
            Self::Billing => "billing",
            Self::Fsm => "fsm",
        }
    }

    /// The path after the API host, without a trailing slash (Zoho's API introductions of each product).
    pub fn base_path(self) -> &'static str {
        match self {
            Self::Crm => "/crm/v8",
            Self::Books => "/books/v3",
            Self::Inventory => "/inventory/v1",
            Self::Billing => "/billing/v1",
            Self::Fsm => "/fsm/v1",
        }
    }

    /// The limits this product's calls count against.
    pub fn ledger_scope(self) -> LedgerScope {
        match self {
            Self::Crm => LedgerScope::Crm,
            Self::Books | Self::Inventory | Self::Billing => LedgerScope::Finance,
            Self::Fsm => LedgerScope::Fsm,
        }
    }
}

impl LedgerScope {
    /// The name used in `[connections.*.budget.*]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Crm => "crm",
            Self::Finance => "finance",
            Self::Fsm => "fsm",
        }
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Product {
    type Err = UnknownProduct;

    fn from_str(name: &str) -> Result<Self, UnknownProduct> {
        Self::ALL.into_iter().find(|product| product.as_str() == name).ok_or_else(|| UnknownProduct(name.to_owned()))
    }
}

/// The five methods Zoho's products use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Reads; the only one that may be repeated after an unknown outcome.
    Get,
    /// Creates and actions.
    Post,
    /// Updates, and Books' upsert.
    Put,
    /// Partial updates.
    Patch,
    /// Deletes.
    Delete,
}

/// A method that is none of `GET POST PUT PATCH DELETE`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown method `{0}`; one of GET, POST, PUT, PATCH, DELETE")]
pub struct UnknownMethod(String);

impl Method {
    /// The method as it stands in a request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = UnknownMethod;

    fn from_str(name: &str) -> Result<Self, UnknownMethod> {
        [Self::Get, Self::Post, Self::Put, Self::Patch, Self::Delete]
            .into_iter()
            .find(|method| method.as_str() == name)
            .ok_or_else(|| UnknownMethod(name.to_owned()))
    }
}

impl From<Method> for reqwest::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_finance_products_draw_from_one_ledger_scope_and_the_others_from_their_own() {
        let scopes: Vec<_> = Product::ALL.into_iter().map(|p| p.ledger_scope().as_str()).collect();
        assert_eq!(scopes, ["crm", "finance", "finance", "finance", "fsm"]);
    }

    #[test]
    fn a_product_is_read_back_from_its_name_and_nothing_else() {
        for product in Product::ALL {
            assert_eq!(product.as_str().parse(), Ok(product));
        }
        assert!("CRM".parse::<Product>().is_err());
        assert!("subscriptions".parse::<Product>().is_err());
    }
}
