//! The modules of the finance products that we know, in one table.

use std::hash::{Hash, Hasher};

use crate::Product;

/// A module of Billing, Books or Inventory.
#[derive(Debug, Clone, Copy)]
pub struct Module(&'static Row);

/// What a module allows, after Zoho's OpenAPI files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Verbs {
    pub(super) write: bool,
    pub(super) get: bool,
    pub(super) list: bool,
}

#[derive(Debug)]
struct Row {
    product: Product,
    /// Name in the configuration, and path.
    name: &'static str,
    /// Key of a list in an answer: nearly always the same word.
    list: &'static str,
    /// Key of a single record in an answer.
    one: &'static str,
    /// Key of a record's address: its id, or its code.
    id: &'static str,
    verbs: Verbs,
    changes: Changes,
    /// Whether up to a hundred records can be read in one call (`itemdetails`).
    details: bool,
}

/// How a module tells what changed (finance sheet §2.6, §2.7). None of them tells what was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// The list takes `last_modified_time` as a filter and sorts by it.
    Since,
    /// The list sorts by `last_modified_time`: walked newest first, down to what is known.
    Sorted,
    /// Neither: the whole list is compared. Its rows carry the time of their last change.
    Whole,
}

const FULL: Verbs = Verbs { write: true, get: true, list: true };

const fn row(product: Product, name: &'static str, one: &'static str, id: &'static str) -> Row {
    Row { product, name, list: name, one, id, verbs: FULL, changes: Changes::Whole, details: false }
}

const fn billing(name: &'static str, one: &'static str, id: &'static str) -> Row {
    row(Product::Billing, name, one, id)
}

static BILLING: [Row; 8] = [
    billing("customers", "customer", "customer_id"),
    billing("products", "product", "product_id"),
    // addressed by their code, not by an id
    billing("plans", "plan", "plan_code"),
    billing("subscriptions", "subscription", "subscription_id"),
    billing("invoices", "invoice", "invoice_id"),
    Row { verbs: Verbs { list: false, ..FULL }, ..billing("payments", "payment", "payment_id") },
    Row { verbs: Verbs { write: false, get: false, list: true }, ..billing("transactions", "transaction", "transaction_id") },
    Row { verbs: Verbs { write: false, ..FULL }, ..billing("events", "event", "event_id") },
];

static INVENTORY: [Row; 9] = [
    Row { changes: Changes::Since, details: true, ..row(Product::Inventory, "items", "item", "item_id") },
    Row { changes: Changes::Sorted, ..row(Product::Inventory, "contacts", "contact", "contact_id") },
    row(Product::Inventory, "categories", "category", "category_id"),
    Row {
        list: "inventory_adjustments",
        ..row(Product::Inventory, "inventoryadjustments", "inventory_adjustment", "inventory_adjustment_id")
    },
    row(Product::Inventory, "locations", "location", "location_id"),
    row(Product::Inventory, "pricebooks", "pricebook", "pricebook_id"),
    row(Product::Inventory, "salesorders", "salesorder", "salesorder_id"),
    row(Product::Inventory, "invoices", "invoice", "invoice_id"),
    row(Product::Inventory, "customerpayments", "payment", "payment_id"),
];

static BOOKS: [Row; 9] = [
    // no filter and no sort by modification (finance sheet §2.6)
    Row { details: true, ..row(Product::Books, "items", "item", "item_id") },
    Row { changes: Changes::Sorted, ..row(Product::Books, "contacts", "contact", "contact_id") },
    Row { changes: Changes::Since, ..row(Product::Books, "bills", "bill", "bill_id") },
    // they take the filter, but sort by created_time only
    row(Product::Books, "invoices", "invoice", "invoice_id"),
    row(Product::Books, "estimates", "estimate", "estimate_id"),
    row(Product::Books, "salesorders", "salesorder", "salesorder_id"),
    row(Product::Books, "customerpayments", "payment", "payment_id"),
    row(Product::Books, "creditnotes", "creditnote", "creditnote_id"),
    row(Product::Books, "pricebooks", "pricebook", "pricebook_id"),
];

impl Module {
    /// Billing: people and companies that are billed.
    pub const CUSTOMERS: Self = Self(&BILLING[0]);
    /// Billing: prices with an interval; addressed by their code.
    pub const PLANS: Self = Self(&BILLING[2]);
    /// Billing: invoices.
    pub const INVOICES: Self = Self(&BILLING[4]);
    /// Billing: payments received. They cannot be listed: see [`Module::TRANSACTIONS`].
    pub const PAYMENTS: Self = Self(&BILLING[5]);
    /// Billing: invoices, payments and credits of one customer, by list only.
    pub const TRANSACTIONS: Self = Self(&BILLING[6]);
    /// Billing: what happened in the organisation; read only.
    pub const EVENTS: Self = Self(&BILLING[7]);
    /// Inventory: what is bought, kept and sold.
    pub const ITEMS: Self = Self(&INVENTORY[0]);
    /// Inventory: by how much the stock of items was corrected.
    pub const ADJUSTMENTS: Self = Self(&INVENTORY[3]);

    /// All modules.
    pub fn all() -> impl Iterator<Item = Self> {
        BILLING.iter().chain(&INVENTORY).chain(&BOOKS).map(Self)
    }

    /// The module that the configuration calls `{product}/{name}`.
    pub fn parse(product: Product, name: &str) -> Option<Self> {
        Self::all().find(|module| module.product() == product && module.as_str() == name)
    }

    /// The product.
    pub fn product(self) -> Product {
        self.0.product
    }

    /// The name in the configuration, which is also the path segment.
    pub fn as_str(self) -> &'static str {
        self.0.name
    }

    /// The key that holds a list in an answer.
    pub fn list_key(self) -> &'static str {
        self.0.list
    }

    /// The key that holds one record in an answer.
    pub fn response_key(self) -> &'static str {
        self.0.one
    }

    /// The key of a record's address: `customer_id`, and `plan_code` for plans.
    pub fn id_key(self) -> &'static str {
        self.0.id
    }

    /// Whether records are addressed by a code of our own choosing instead of an id of Zoho's.
    pub fn addressed_by_code(self) -> bool {
        self == Self::PLANS
    }

    /// Whether records can be created, updated and deleted.
    pub fn writable(self) -> bool {
        self.0.verbs.write
    }

    /// Whether its records can be listed.
    pub fn listed(self) -> bool {
        self.0.verbs.list
    }

    /// How it tells what changed.
    pub fn changes(self) -> Changes {
        self.0.changes
    }

    /// Whether [`details`](super::details) reads it.
    pub fn has_details(self) -> bool {
        self.0.details
    }

    pub(super) fn verbs(self) -> Verbs {
        self.0.verbs
    }
}

impl PartialEq for Module {
    fn eq(&self, other: &Self) -> bool {
        (self.0.product, self.0.name) == (other.0.product, other.0.name)
    }
}

impl Eq for Module {}

impl Hash for Module {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}
