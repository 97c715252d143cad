//! What sets the modules apart: their keys, fields, messages, columns and orders (finance facts 5.1 to 5.10).

use serde_json::{Value, json};

use crate::finance::{
    Record,
    fields::{Field, Kind, may, must},
};

/// The modules of Inventory that are simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Module {
    Items,
    Categories,
    Contacts,
    Adjustments,
    Locations,
    Pricebooks,
}

/// One module.
pub(super) struct Spec {
    /// Key of one record in a body.
    pub(super) key: &'static str,
    /// Key of a list, and the module's name for the admin API.
    pub(super) keys: &'static str,
    pub(super) id: &'static str,
    /// As messages call a record.
    pub(super) what: &'static str,
    pub(super) report_name: &'static str,
    pub(super) fields: &'static [Field],
    /// What a list row leaves out of the record.
    pub(super) hidden: &'static [&'static str],
    /// Values of `sort_column`; the first is the default.
    pub(super) sorts: &'static [&'static str],
    /// `A` or `D`, while none is asked for.
    pub(super) order: &'static str,
    pub(super) added: &'static str,
    pub(super) saved: &'static str,
    pub(super) deleted: &'static str,
}

impl Module {
    pub(crate) const ALL: [Self; 6] = [Self::Items, Self::Categories, Self::Contacts, Self::Adjustments, Self::Locations, Self::Pricebooks];

    pub(super) fn spec(self) -> &'static Spec {
        match self {
            Self::Items => &ITEMS,
            Self::Categories => &CATEGORIES,
            Self::Contacts => &CONTACTS,
            Self::Adjustments => &ADJUSTMENTS,
            Self::Locations => &LOCATIONS,
            Self::Pricebooks => &PRICEBOOKS,
        }
    }

    /// As lists and the admin API call it.
    pub(crate) fn name(self) -> &'static str {
        self.spec().keys
    }

    /// The key of a record's id.
    pub(crate) fn id(self) -> &'static str {
        self.spec().id
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|module| module.name() == name)
    }
}

const ITEMS: Spec = Spec {
    key: "item",
    keys: "items",
    id: "item_id",
    what: "Item",
    report_name: "Items",
    fields: &[
        must("name", Kind::Text(100)),
        may("rate", Kind::Money),
        may("purchase_rate", Kind::Money),
        may("description", Kind::Text(2000)),
        may("purchase_description", Kind::Text(2000)),
        may("sku", Kind::Text(100)),
        may("upc", Kind::Text(100)),
        may("ean", Kind::Text(100)),
        may("isbn", Kind::Text(100)),
        may("part_number", Kind::Text(100)),
        may("unit", Kind::Text(100)),
        may("unit_id", Kind::Id),
        may("tax_id", Kind::Id),
        may("is_taxable", Kind::Flag),
        may("item_type", Kind::Text(100)),
        may("product_type", Kind::Text(100)),
        may("account_id", Kind::Id),
        may("purchase_account_id", Kind::Id),
        may("inventory_account_id", Kind::Id),
        may("vendor_id", Kind::Id),
        may("reorder_level", Kind::Money),
        may("initial_stock", Kind::Money),
        may("initial_stock_rate", Kind::Money),
        may("locations", Kind::List),
        may("package_details", Kind::Object),
        may("group_id", Kind::Id),
        may("group_name", Kind::Text(100)),
        may("category_id", Kind::Id),
        may("brand", Kind::Text(100)),
        may("manufacturer", Kind::Text(100)),
        may("custom_fields", Kind::CustomFields),
    ],
    hidden: &[
        "locations",
        "custom_fields",
        "custom_field_hash",
        "documents",
        "price_brackets",
        "sales_rate",
        "pricebook_rate",
        "package_details",
        "unit_id",
        "image_id",
        "initial_stock",
        "initial_stock_rate",
    ],
    sorts: &["name", "sku", "rate", "purchase_rate", "created_time", "last_modified_time", "reorder_level", "stock_on_hand"],
    order: "A",
    added: "The item has been added.",
    saved: "Item details have been saved.",
    deleted: "The item has been deleted.",
};

/// Not in the OpenAPI files; the path and the keys are those that public clients use (*unverified*).
const CATEGORIES: Spec = Spec {
    key: "category",
    keys: "categories",
    id: "category_id",
    what: "Category",
    report_name: "Categories",
    fields: &[
        must("name", Kind::Text(100)),
        may("parent_category_id", Kind::Id),
        may("description", Kind::Text(2000)),
        may("url", Kind::Text(200)),
    ],
    hidden: &[],
    sorts: &["name", "created_time", "last_modified_time"],
    order: "A",
    added: "The category has been added.",
    saved: "The category has been saved.",
    deleted: "The category has been deleted.",
};

const CONTACTS: Spec = Spec {
    key: "contact",
    keys: "contacts",
    id: "contact_id",
    what: "Contact",
    report_name: "Contacts",
    fields: &[
        must("contact_name", Kind::Text(200)),
        may("contact_type", Kind::Text(100)),
        may("customer_sub_type", Kind::Text(100)),
        may("company_name", Kind::Text(200)),
        may("website", Kind::Text(200)),
        may("currency_id", Kind::Id),
        may("payment_terms", Kind::Whole),
        may("payment_terms_label", Kind::Text(100)),
        may("billing_address", Kind::Object),
        may("shipping_address", Kind::Object),
        may("contact_persons", Kind::List),
        may("notes", Kind::Text(65_536)),
        may("gst_no", Kind::Text(100)),
        may("gst_treatment", Kind::Text(100)),
        may("place_of_contact", Kind::Text(100)),
        may("vat_treatment", Kind::Text(100)),
        may("custom_fields", Kind::CustomFields),
    ],
    hidden: &["billing_address", "shipping_address", "contact_persons", "notes", "custom_fields", "custom_field_hash"],
    sorts: &["contact_name", "first_name", "last_name", "email", "outstanding_receivable_amount", "created_time", "last_modified_time"],
    order: "A",
    added: "The contact has been added.",
    saved: "Contact information has been saved.",
    deleted: "The customer has been deleted.",
};

const ADJUSTMENTS: Spec = Spec {
    key: "inventory_adjustment",
    keys: "inventory_adjustments",
    id: "inventory_adjustment_id",
    what: "Inventory adjustment",
    report_name: "Inventory Adjustments",
    fields: &[
        must("date", Kind::Date),
        must("reason", Kind::Text(50)),
        must("adjustment_type", Kind::Text(100)),
        must("line_items", Kind::List),
        may("reference_number", Kind::Text(50)),
        may("description", Kind::Text(500)),
        may("location_id", Kind::Id),
        may("custom_fields", Kind::CustomFields),
    ],
    hidden: &["line_items", "custom_fields", "custom_field_hash"],
    sorts: &["created_time"],
    order: "D",
    added: "Inventory adjustment has been added",
    saved: "Inventory adjustment has been updated",
    deleted: "Inventory adjustment has been deleted",
};

const LOCATIONS: Spec = Spec {
    key: "location",
    keys: "locations",
    id: "location_id",
    what: "Location",
    report_name: "Locations",
    fields: &[
        must("location_name", Kind::Text(100)),
        may("type", Kind::Text(100)),
        may("email", Kind::Email),
        may("phone", Kind::Text(50)),
        may("address", Kind::Object),
        may("parent_location_id", Kind::Id),
    ],
    hidden: &[],
    sorts: &["location_name"],
    order: "A",
    added: "Location has been created.",
    saved: "Location details have been saved.",
    deleted: "Location has been deleted.",
};

/// There is no reading of a single price list; the list shows the prices (OpenAPI, `pricelists.yml`).
const PRICEBOOKS: Spec = Spec {
    key: "pricebook",
    keys: "pricebooks",
    id: "pricebook_id",
    what: "Price list",
    report_name: "Price Lists",
    fields: &[
        must("name", Kind::Text(100)),
        must("pricebook_type", Kind::Text(100)),
        must("sales_or_purchase_type", Kind::Text(100)),
        may("currency_id", Kind::Id),
        may("description", Kind::Text(2000)),
        may("percentage", Kind::Money),
        may("is_increase", Kind::Flag),
        may("rounding_type", Kind::Text(100)),
        may("decimal_place", Kind::Whole),
        may("pricing_scheme", Kind::Text(100)),
        may("pricebook_items", Kind::List),
    ],
    hidden: &[],
    sorts: &["name", "created_time", "last_modified_time"],
    order: "A",
    added: "Price list has been created.",
    saved: "Price list has been updated.",
    deleted: "Price list has been deleted.",
};

/// A record before anything is known of it. What is absent is `""`, numbers and ids too (finance fact 2.4).
pub(super) fn blank(module: Module) -> Record {
    let blanks: &[&str] = match module {
        Module::Items => &[
            "description",
            "purchase_description",
            "sku",
            "upc",
            "ean",
            "isbn",
            "part_number",
            "unit",
            "unit_id",
            "tax_id",
            "tax_name",
            "tax_percentage",
            "account_id",
            "account_name",
            "purchase_account_id",
            "purchase_account_name",
            "inventory_account_id",
            "vendor_id",
            "vendor_name",
            "group_id",
            "group_name",
            "category_id",
            "category_name",
            "brand",
            "manufacturer",
            "purchase_rate",
            "pricebook_rate",
            "reorder_level",
            "image_id",
            "image_name",
            "image_type",
            "image_document_id",
            "stock_on_hand",
            "available_stock",
            "actual_available_stock",
        ],
        Module::Categories => &["parent_category_id", "description", "url"],
        Module::Contacts => &["company_name", "website", "first_name", "last_name", "email", "phone", "mobile", "notes", "currency_id"],
        Module::Adjustments => &["reference_number", "description", "reason_id", "location_id", "location_name"],
        Module::Locations => &["type", "email", "phone", "parent_location_id"],
        Module::Pricebooks => &["description", "percentage", "rounding_type", "pricing_scheme", "currency_id"],
    };
    let rest = match module {
        Module::Items => json!({
            "rate": 0, "status": "active", "source": "api", "item_type": "inventory", "product_type": "goods", "is_taxable": true,
            "can_be_sold": true, "can_be_purchased": true, "has_attachment": false, "is_linked_with_zohocrm": false,
            "documents": [], "price_brackets": [], "tags": [], "custom_fields": [], "custom_field_hash": {},
        }),
        Module::Contacts => json!({
            "contact_type": "customer", "status": "active", "source": "api", "payment_terms": 0, "payment_terms_label": "Due on Receipt",
            "currency_code": "USD", "outstanding_receivable_amount": 0, "unused_credits_receivable_amount": 0,
            "contact_persons": [], "custom_fields": [], "custom_field_hash": {},
        }),
        Module::Adjustments => json!({ "line_items": [], "total": 0, "custom_fields": [], "custom_field_hash": {} }),
        Module::Locations => json!({ "status": "active", "is_primary": false }),
        Module::Pricebooks => json!({
            "status": "active", "is_default": false, "is_increase": false, "currency_code": "USD", "decimal_place": 2, "pricebook_items": [],
        }),
        Module::Categories => json!({ "status": "active" }),
    };
    let mut record: Record = blanks.iter().map(|name| ((*name).to_owned(), Value::from(""))).collect();
    if let Value::Object(rest) = rest {
        record.extend(rest);
    }
    record
}
