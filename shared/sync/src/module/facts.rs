//! The table itself. One row per module that some sheet says something about; the rest takes its product's default.

use sluice_core::config::sync::Product;

use super::Lookup;

/// What is known about one module.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    /// The Zoho app.
    pub product: Product,
    /// The module's API name; empty in a product's default.
    pub name: &'static str,
    /// Whether this version writes to it. For CRM it writes to every module, also those that the table does not list.
    pub written: bool,
    /// The key of the record in an answer's envelope.
    pub record_key: &'static str,
    /// The key of the id in a record. Plans, addons and coupons are addressed by code, so the code is their id (fin §5.11).
    pub id_key: &'static str,
    /// The field that carries `<sync>:<key>` unless the sync names another.
    pub reference: Option<&'static str>,
    /// The field of which Zoho accepts no second equal value.
    pub unique: Option<&'static str>,
    /// CRM: the field that upsert checks when none is listed.
    pub duplicate_check: Option<&'static str>,
    /// Books: `PUT` on the collection with `X-Unique-Identifier-Key` is documented.
    pub upserts_by_header: bool,
    /// Whether records can be deleted.
    pub delete: bool,
    /// Whether records can be voided.
    pub void: bool,
    /// How a record is found again by what was sent.
    pub found_by: Found,
    /// Where these facts stand.
    pub source: &'static str,
}

/// How a module's records can be found again, apart from the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// By no documented request.
    Never,
    /// The list takes the reference as a filter.
    Reference,
    /// Through the customer's transactions.
    Payments,
    /// By these values in rows created since the send.
    Values(&'static [&'static str]),
}

impl Facts {
    pub(super) fn lookup(&self, reference: Option<&str>) -> Option<Lookup> {
        // Only the field that the request filters by will do, not any field that someone calls a reference.
        let usual = reference.filter(|field| self.reference == Some(*field)).map(str::to_owned);
        match self.found_by {
            Found::Never => None,
            Found::Reference => usual.map(|field| Lookup::Filter { field }),
            Found::Payments => usual.map(|field| Lookup::Payments { field }),
            Found::Values(values) => Some(Lookup::CreatedSince {
                values: values.iter().map(|value| (*value).to_owned()).collect(),
                reference: reference.map(str::to_owned),
            }),
        }
    }
}

const FINANCE: Facts = Facts {
    product: Product::Books,
    name: "",
    written: false,
    record_key: "",
    id_key: "",
    reference: None,
    unique: None,
    duplicate_check: None,
    upserts_by_header: false,
    delete: true,
    void: false,
    found_by: Found::Never,
    source: "fin §5",
};
const BILLING: Facts = Facts { product: Product::Billing, source: "fin §4.2, §5.11", ..FINANCE };
const BOOKS: Facts = Facts { product: Product::Books, upserts_by_header: true, source: "fin §4.1, §4.2, §5", ..FINANCE };
const INVENTORY: Facts = Facts { product: Product::Inventory, source: "fin §4.2, §5", ..FINANCE };
const CRM: Facts = Facts {
    product: Product::Crm,
    written: true,
    record_key: "data",
    id_key: "id",
    duplicate_check: Some("Name"),
    source: "crm §2.5, §2.8",
    ..FINANCE
};
const FSM: Facts = Facts { product: Product::Fsm, record_key: "data", id_key: "id", source: "fin §8", ..FINANCE };

const fn crm(name: &'static str, duplicate_check: &'static str) -> Facts {
    Facts { name, duplicate_check: Some(duplicate_check), ..CRM }
}

/// A finance document that carries our reference in `reference_number`, by which its list filters exactly (fin §4.2).
const fn document(base: Facts, name: &'static str, record_key: &'static str, id_key: &'static str, void: bool) -> Facts {
    Facts { name, record_key, id_key, reference: Some("reference_number"), found_by: Found::Reference, void, ..base }
}

/// Every module we know something particular about.
pub const KNOWN: &[Facts] = &[
    // No e-mail filter and no reference that a list shows: walked by what rows carry, a custom field told apart in single reads.
    Facts {
        name: "customers",
        written: true,
        record_key: "customer",
        id_key: "customer_id",
        found_by: Found::Values(&["display_name", "email"]),
        ..BILLING
    },
    Facts { name: "products", written: true, record_key: "product", id_key: "product_id", found_by: Found::Values(&["name"]), ..BILLING },
    Facts { name: "plans", written: true, record_key: "plan", id_key: "plan_code", unique: Some("plan_code"), ..BILLING },
    Facts { name: "addons", record_key: "addon", id_key: "addon_code", unique: Some("addon_code"), ..BILLING },
    Facts { name: "coupons", record_key: "coupon", id_key: "coupon_code", unique: Some("coupon_code"), ..BILLING },
    // The list takes `reference_contains` and shows `reference_id`.
    Facts {
        name: "subscriptions",
        written: true,
        record_key: "subscription",
        id_key: "subscription_id",
        reference: Some("reference_id"),
        found_by: Found::Reference,
        ..BILLING
    },
    // Our own number is unique; without one the customer's invoices since the send are looked through.
    Facts {
        name: "invoices",
        written: true,
        record_key: "invoice",
        id_key: "invoice_id",
        unique: Some("invoice_number"),
        void: true,
        found_by: Found::Values(&["customer_id"]),
        ..BILLING
    },
    Facts {
        name: "payments",
        written: true,
        record_key: "payment",
        id_key: "payment_id",
        reference: Some("reference_number"),
        found_by: Found::Payments,
        ..BILLING
    },
    // The name is unique across customers and vendors together (fin §4.3, code 3062).
    Facts { name: "contacts", record_key: "contact", id_key: "contact_id", unique: Some("contact_name"), ..BOOKS },
    Facts { name: "items", record_key: "item", id_key: "item_id", unique: Some("name"), ..BOOKS },
    document(BOOKS, "invoices", "invoice", "invoice_id", true),
    document(BOOKS, "estimates", "estimate", "estimate_id", false),
    document(BOOKS, "salesorders", "salesorder", "salesorder_id", true),
    document(BOOKS, "purchaseorders", "purchaseorder", "purchaseorder_id", false),
    document(BOOKS, "bills", "bill", "bill_id", true),
    document(BOOKS, "customerpayments", "payment", "payment_id", false),
    document(BOOKS, "vendorpayments", "vendorpayment", "payment_id", false),
    document(BOOKS, "creditnotes", "creditnote", "creditnote_id", true),
    document(BOOKS, "expenses", "expense", "expense_id", false),
    Facts { name: "pricebooks", record_key: "pricebook", id_key: "pricebook_id", ..BOOKS },
    Facts { name: "contacts", written: true, record_key: "contact", id_key: "contact_id", unique: Some("contact_name"), ..INVENTORY },
    Facts { name: "items", written: true, record_key: "item", id_key: "item_id", unique: Some("name"), ..INVENTORY },
    Facts { name: "categories", record_key: "category", id_key: "category_id", ..INVENTORY },
    Facts { name: "pricebooks", record_key: "pricebook", id_key: "pricebook_id", ..INVENTORY },
    Facts { name: "locations", record_key: "location", id_key: "location_id", ..INVENTORY },
    document(INVENTORY, "invoices", "invoice", "invoice_id", true),
    document(INVENTORY, "salesorders", "salesorder", "salesorder_id", true),
    document(INVENTORY, "purchaseorders", "purchaseorder", "purchaseorder_id", false),
    document(INVENTORY, "bills", "bill", "bill_id", true),
    document(INVENTORY, "customerpayments", "payment", "payment_id", false),
    // A delta: repeated, it would count twice, and the list takes no filter (fin §5.8).
    Facts {
        name: "inventoryadjustments",
        record_key: "inventory_adjustment",
        id_key: "inventory_adjustment_id",
        reference: Some("reference_number"),
        ..INVENTORY
    },
    crm("Leads", "Email"),
    crm("Contacts", "Email"),
    crm("Accounts", "Account_Name"),
    crm("Deals", "Deal_Name"),
    crm("Quotes", "Subject"),
    crm("Products", "Product_Name"),
    crm("Campaigns", "Campaign_Name"),
    crm("Cases", "Subject"),
    crm("Vendors", "Vendor_Name"),
    crm("Price_Books", "Price_Book_Name"),
    crm("Sales_Orders", "Subject"),
    crm("Purchase_Orders", "Subject"),
    crm("Invoices", "Subject"),
];

/// What holds for a module that the table does not list. Its finance envelope is unknown, so nothing is read from answers.
pub(super) fn default_for(product: Product) -> &'static Facts {
    match product {
        Product::Crm => &CRM,
        Product::Books => &Facts { upserts_by_header: false, ..BOOKS },
        Product::Inventory => &INVENTORY,
        Product::Billing => &BILLING,
        Product::Fsm => &FSM,
    }
}
