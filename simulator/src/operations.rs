//! The table of everything the simulated Zoho understands, each row with the document it was taken from.
//!
//! A call that is not in the table is answered as Zoho answers a wrong address, and recorded: so a test run also
//! proves that the client only uses what is documented.

use crate::{
    exchange::{Product, Request},
    inventory::Module,
};

/// One documented operation.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// HTTP method.
    pub method: &'static str,
    /// Path with `{captures}`; a row with a literal stands before the row that would capture it.
    pub path: &'static str,
    /// The query parameters that are documented for it.
    pub query: &'static [&'static str],
    /// Where it is documented.
    pub source: &'static str,
    pub(crate) action: Action,
}

/// What each operation does; dispatch is a `match` over this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    OauthToken,
    OauthRevoke,
    Customers(Verb),
    Products(Verb),
    Plans(Verb),
    Subscriptions(Verb),
    Invoices(Verb),
    Payments(Verb),
    Transactions,
    Events,
    Event,
    Organizations,
    Inventory(Module, Verb),
    ItemDetails,
    ItemImage(Verb),
    CrmOrg,
    CrmModules,
    CrmFields,
    CrmFieldsCreate,
    CrmFieldsChange,
    CrmBulkRead,
    CrmBulkState,
    CrmBulkResult,
    CrmCoql,
    CrmWatch(Verb),
    CrmSearch,
    CrmDeleted,
    CrmUpsert,
    CrmCreate,
    CrmUpdate,
    CrmUpdateOne,
    CrmList,
    CrmGet,
    CrmDelete,
    CrmDeleteOne,
}

/// The verbs of the finance products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Create,
    List,
    Get,
    Update,
    Patch,
    Delete,
    Activate,
    Deactivate,
    Cancel,
    Reactivate,
    Void,
    Open,
}

const CUSTOMERS: &str = "Billing OpenAPI, customers.yml";
const PRODUCTS: &str = "Billing OpenAPI, products.yml";
const PLANS: &str = "Billing OpenAPI, plans.yml";
const SUBSCRIPTIONS: &str = "Billing OpenAPI, subscription.yml";
const INVOICES: &str = "Billing OpenAPI, invoices.yml";
const PAYMENTS: &str = "Billing OpenAPI, payments.yml";
const EVENTS: &str = "Billing OpenAPI, events.yml";
const ORGANIZATIONS: &str = "Books OpenAPI, organizations.yml; finance facts 1.2";
const ITEMS: &str = "Inventory OpenAPI, items.yml";
const ADJUSTMENTS: &str = "Inventory OpenAPI, inventoryadjustments.yml";
const CONTACTS: &str = "Inventory OpenAPI, contacts.yml";
const LOCATIONS: &str = "Inventory OpenAPI, locations.yml";
const PRICEBOOKS: &str = "Inventory OpenAPI, pricelists.yml";
const CATEGORIES: &str = "Not in the OpenAPI; public clients of Inventory (unverified)";
const OAUTH: &str = "Zoho accounts, OAuth 2.0 protocol: web apps";
const CRM: &str = "Zoho CRM API v8, records";
const CRM_COQL: &str = "Zoho CRM API v8, COQL";
const CRM_BULK: &str = "Zoho CRM API v8, bulk read: create, get details, download result";
const CRM_WATCH: &str = "Zoho CRM API v8, notifications";
const CRM_META: &str = "Zoho CRM API v8, metadata";

const NONE: &[&str] = &[];
const PAGES: &[&str] = &["page", "per_page"];

const fn operation(
    method: &'static str,
    path: &'static str,
    query: &'static [&'static str],
    source: &'static str,
    action: Action,
) -> Operation {
    Operation { method, path, query, source, action }
}

/// Everything the simulated Zoho understands. `filter_by` and `customer_id` on lists are documented in the prose of
/// the OpenAPI files; `page` and `per_page` are of the finance products' common conventions.
#[rustfmt::skip]
pub const OPERATIONS: &[Operation] = &[
    operation("POST", "/oauth/v2/token", TOKEN, OAUTH, Action::OauthToken),
    operation("POST", "/oauth/v2/token/revoke", &["token"], OAUTH, Action::OauthRevoke),
    operation("POST", "/billing/v1/customers", NONE, CUSTOMERS, Action::Customers(Verb::Create)),
    operation("GET", "/billing/v1/customers", FILTERED, CUSTOMERS, Action::Customers(Verb::List)),
    operation("GET", "/billing/v1/customers/{id}", NONE, CUSTOMERS, Action::Customers(Verb::Get)),
    operation("PUT", "/billing/v1/customers/{id}", NONE, CUSTOMERS, Action::Customers(Verb::Update)),
    operation("DELETE", "/billing/v1/customers/{id}", NONE, CUSTOMERS, Action::Customers(Verb::Delete)),
    operation("POST", "/billing/v1/customers/{id}/markasactive", NONE, CUSTOMERS, Action::Customers(Verb::Activate)),
    operation("POST", "/billing/v1/customers/{id}/markasinactive", NONE, CUSTOMERS, Action::Customers(Verb::Deactivate)),
    operation("GET", "/billing/v1/transactions", OF_CUSTOMER, CUSTOMERS, Action::Transactions),
    operation("POST", "/billing/v1/products", NONE, PRODUCTS, Action::Products(Verb::Create)),
    operation("GET", "/billing/v1/products", FILTERED, PRODUCTS, Action::Products(Verb::List)),
    operation("GET", "/billing/v1/products/{id}", NONE, PRODUCTS, Action::Products(Verb::Get)),
    operation("PUT", "/billing/v1/products/{id}", NONE, PRODUCTS, Action::Products(Verb::Update)),
    operation("DELETE", "/billing/v1/products/{id}", NONE, PRODUCTS, Action::Products(Verb::Delete)),
    operation("POST", "/billing/v1/products/{id}/markasactive", NONE, PRODUCTS, Action::Products(Verb::Activate)),
    operation("POST", "/billing/v1/products/{id}/markasinactive", NONE, PRODUCTS, Action::Products(Verb::Deactivate)),
    operation("POST", "/billing/v1/plans", NONE, PLANS, Action::Plans(Verb::Create)),
    operation("GET", "/billing/v1/plans", OF_PRODUCT, PLANS, Action::Plans(Verb::List)),
    operation("GET", "/billing/v1/plans/{plan_code}", NONE, PLANS, Action::Plans(Verb::Get)),
    operation("PUT", "/billing/v1/plans/{plan_code}", NONE, PLANS, Action::Plans(Verb::Update)),
    operation("DELETE", "/billing/v1/plans/{plan_code}", NONE, PLANS, Action::Plans(Verb::Delete)),
    operation("POST", "/billing/v1/plans/{plan_code}/markasactive", NONE, PLANS, Action::Plans(Verb::Activate)),
    operation("POST", "/billing/v1/plans/{plan_code}/markasinactive", NONE, PLANS, Action::Plans(Verb::Deactivate)),
    operation("POST", "/billing/v1/subscriptions", NONE, SUBSCRIPTIONS, Action::Subscriptions(Verb::Create)),
    operation("GET", "/billing/v1/subscriptions", SUBSCRIPTION_LIST, SUBSCRIPTIONS, Action::Subscriptions(Verb::List)),
    operation("GET", "/billing/v1/subscriptions/{id}", NONE, SUBSCRIPTIONS, Action::Subscriptions(Verb::Get)),
    operation("PUT", "/billing/v1/subscriptions/{id}", NONE, SUBSCRIPTIONS, Action::Subscriptions(Verb::Update)),
    operation("DELETE", "/billing/v1/subscriptions/{id}", NONE, SUBSCRIPTIONS, Action::Subscriptions(Verb::Delete)),
    operation("POST", "/billing/v1/subscriptions/{id}/cancel", &["cancel_at_end"], SUBSCRIPTIONS, Action::Subscriptions(Verb::Cancel)),
    operation("POST", "/billing/v1/subscriptions/{id}/reactivate", NONE, SUBSCRIPTIONS, Action::Subscriptions(Verb::Reactivate)),
    operation("POST", "/billing/v1/invoices", INVOICE_CREATE, INVOICES, Action::Invoices(Verb::Create)),
    operation("GET", "/billing/v1/invoices", OF_CUSTOMER, INVOICES, Action::Invoices(Verb::List)),
    operation("GET", "/billing/v1/invoices/{id}", NONE, INVOICES, Action::Invoices(Verb::Get)),
    operation("PUT", "/billing/v1/invoices/{id}", OWN_NUMBER, INVOICES, Action::Invoices(Verb::Update)),
    operation("DELETE", "/billing/v1/invoices/{id}", NONE, INVOICES, Action::Invoices(Verb::Delete)),
    operation("POST", "/billing/v1/invoices/{id}/void", NONE, INVOICES, Action::Invoices(Verb::Void)),
    operation("POST", "/billing/v1/invoices/{id}/converttoopen", NONE, INVOICES, Action::Invoices(Verb::Open)),
    operation("POST", "/billing/v1/payments", NONE, PAYMENTS, Action::Payments(Verb::Create)),
    operation("GET", "/billing/v1/payments/{id}", NONE, PAYMENTS, Action::Payments(Verb::Get)),
    operation("PUT", "/billing/v1/payments/{id}", NONE, PAYMENTS, Action::Payments(Verb::Update)),
    operation("DELETE", "/billing/v1/payments/{id}", NONE, PAYMENTS, Action::Payments(Verb::Delete)),
    operation("GET", "/billing/v1/organizations", NONE, ORGANIZATIONS, Action::Organizations),
    operation("GET", "/billing/v1/events", PAGES, EVENTS, Action::Events),
    operation("GET", "/billing/v1/events/{id}", NONE, EVENTS, Action::Event),
    operation("GET", "/inventory/v1/organizations", NONE, ORGANIZATIONS, Action::Organizations),
    operation("POST", "/inventory/v1/items", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Create)),
    operation("GET", "/inventory/v1/items", ITEM_LIST, ITEMS, Action::Inventory(Module::Items, Verb::List)),
    operation("GET", "/inventory/v1/itemdetails", &["item_ids"], ITEMS, Action::ItemDetails),
    operation("GET", "/inventory/v1/items/{id}", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Get)),
    operation("PUT", "/inventory/v1/items/{id}", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Update)),
    operation("DELETE", "/inventory/v1/items/{id}", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Delete)),
    operation("POST", "/inventory/v1/items/{id}/active", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Activate)),
    operation("POST", "/inventory/v1/items/{id}/inactive", NONE, ITEMS, Action::Inventory(Module::Items, Verb::Deactivate)),
    operation("POST", "/inventory/v1/items/{id}/image", NONE, ITEMS, Action::ItemImage(Verb::Create)),
    operation("GET", "/inventory/v1/items/{id}/image", &["preview"], ITEMS, Action::ItemImage(Verb::Get)),
    operation("DELETE", "/inventory/v1/items/{id}/image", NONE, ITEMS, Action::ItemImage(Verb::Delete)),
    operation("POST", "/inventory/v1/categories", NONE, CATEGORIES, Action::Inventory(Module::Categories, Verb::Create)),
    operation("GET", "/inventory/v1/categories", FILTERED, CATEGORIES, Action::Inventory(Module::Categories, Verb::List)),
    operation("GET", "/inventory/v1/categories/{id}", NONE, CATEGORIES, Action::Inventory(Module::Categories, Verb::Get)),
    operation("PUT", "/inventory/v1/categories/{id}", NONE, CATEGORIES, Action::Inventory(Module::Categories, Verb::Update)),
    operation("DELETE", "/inventory/v1/categories/{id}", NONE, CATEGORIES, Action::Inventory(Module::Categories, Verb::Delete)),
    operation("POST", "/inventory/v1/contacts", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Create)),
    operation("GET", "/inventory/v1/contacts", CONTACT_LIST, CONTACTS, Action::Inventory(Module::Contacts, Verb::List)),
    operation("GET", "/inventory/v1/contacts/{id}", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Get)),
    operation("PUT", "/inventory/v1/contacts/{id}", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Update)),
    operation("DELETE", "/inventory/v1/contacts/{id}", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Delete)),
    operation("POST", "/inventory/v1/contacts/{id}/active", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Activate)),
    operation("POST", "/inventory/v1/contacts/{id}/inactive", NONE, CONTACTS, Action::Inventory(Module::Contacts, Verb::Deactivate)),
    operation("POST", "/inventory/v1/inventoryadjustments", NONE, ADJUSTMENTS, Action::Inventory(Module::Adjustments, Verb::Create)),
    operation("GET", "/inventory/v1/inventoryadjustments", PAGES, ADJUSTMENTS, Action::Inventory(Module::Adjustments, Verb::List)),
    operation("GET", "/inventory/v1/inventoryadjustments/{id}", NONE, ADJUSTMENTS, Action::Inventory(Module::Adjustments, Verb::Get)),
    operation("PUT", "/inventory/v1/inventoryadjustments/{id}", NONE, ADJUSTMENTS, Action::Inventory(Module::Adjustments, Verb::Update)),
    operation("DELETE", "/inventory/v1/inventoryadjustments/{id}", NONE, ADJUSTMENTS, Action::Inventory(Module::Adjustments, Verb::Delete)),
    operation("POST", "/inventory/v1/locations", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Create)),
    operation("GET", "/inventory/v1/locations", &["is_hierarchical_response", "location_type"], LOCATIONS, Action::Inventory(Module::Locations, Verb::List)),
    operation("GET", "/inventory/v1/locations/{id}", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Get)),
    operation("PUT", "/inventory/v1/locations/{id}", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Update)),
    operation("DELETE", "/inventory/v1/locations/{id}", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Delete)),
    operation("POST", "/inventory/v1/locations/{id}/active", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Activate)),
    operation("POST", "/inventory/v1/locations/{id}/inactive", NONE, LOCATIONS, Action::Inventory(Module::Locations, Verb::Deactivate)),
    operation("POST", "/inventory/v1/pricebooks", NONE, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::Create)),
    operation("GET", "/inventory/v1/pricebooks", PRICEBOOK_LIST, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::List)),
    operation("PUT", "/inventory/v1/pricebooks/{id}", NONE, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::Update)),
    operation("DELETE", "/inventory/v1/pricebooks/{id}", NONE, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::Delete)),
    operation("POST", "/inventory/v1/pricebooks/{id}/active", NONE, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::Activate)),
    operation("POST", "/inventory/v1/pricebooks/{id}/inactive", NONE, PRICEBOOKS, Action::Inventory(Module::Pricebooks, Verb::Deactivate)),
    operation("GET", "/crm/v8/org", NONE, CRM_META, Action::CrmOrg),
    operation("GET", "/crm/v8/settings/fields", &["module", "type", "include"], CRM_META, Action::CrmFields),
    operation("POST", "/crm/v8/settings/fields", &["module"], CRM_META, Action::CrmFieldsCreate),
    operation("PATCH", "/crm/v8/settings/fields", &["module"], CRM_META, Action::CrmFieldsChange),
    operation("PATCH", "/crm/v8/settings/fields/{id}", &["module"], CRM_META, Action::CrmFieldsChange),
    operation("GET", "/crm/v8/settings/modules", NONE, CRM_META, Action::CrmModules),
    operation("POST", "/crm/bulk/v8/read", NONE, CRM_BULK, Action::CrmBulkRead),
    operation("GET", "/crm/bulk/v8/read/{job_id}", NONE, CRM_BULK, Action::CrmBulkState),
    operation("GET", "/crm/bulk/v8/read/{job_id}/result", NONE, CRM_BULK, Action::CrmBulkResult),
    operation("POST", "/crm/v8/coql", NONE, CRM_COQL, Action::CrmCoql),
    operation("POST", "/crm/v8/actions/watch", NONE, CRM_WATCH, Action::CrmWatch(Verb::Create)),
    operation("GET", "/crm/v8/actions/watch", &["module", "channel_id", "page", "per_page"], CRM_WATCH, Action::CrmWatch(Verb::List)),
    operation("PUT", "/crm/v8/actions/watch", NONE, CRM_WATCH, Action::CrmWatch(Verb::Update)),
    operation("PATCH", "/crm/v8/actions/watch", NONE, CRM_WATCH, Action::CrmWatch(Verb::Patch)),
    operation("DELETE", "/crm/v8/actions/watch", &["channel_ids"], CRM_WATCH, Action::CrmWatch(Verb::Delete)),
    operation("GET", "/crm/v8/{module}/deleted", &["type", "page", "per_page"], CRM, Action::CrmDeleted),
    operation("GET", "/crm/v8/{module}/search", CRM_SEARCH, CRM, Action::CrmSearch),
    operation("POST", "/crm/v8/{module}/upsert", NONE, CRM, Action::CrmUpsert),
    operation("POST", "/crm/v8/{module}", NONE, CRM, Action::CrmCreate),
    operation("PUT", "/crm/v8/{module}", NONE, CRM, Action::CrmUpdate),
    operation("PUT", "/crm/v8/{module}/{id}", NONE, CRM, Action::CrmUpdateOne),
    operation("GET", "/crm/v8/{module}", CRM_LIST, CRM, Action::CrmList),
    operation("GET", "/crm/v8/{module}/{id}", &["fields"], CRM, Action::CrmGet),
    operation("DELETE", "/crm/v8/{module}", &["ids", "wf_trigger"], CRM, Action::CrmDelete),
    operation("DELETE", "/crm/v8/{module}/{id}", &["wf_trigger"], CRM, Action::CrmDeleteOne),
];

const TOKEN: &[&str] = &["grant_type", "client_id", "client_secret", "refresh_token", "code", "redirect_uri", "scope"];
const FILTERED: &[&str] = &["filter_by", "page", "per_page"];
const OF_CUSTOMER: &[&str] = &["filter_by", "customer_id", "page", "per_page"];
const OF_PRODUCT: &[&str] = &["filter_by", "product_id", "page", "per_page"];
const SUBSCRIPTION_LIST: &[&str] = &["filter_by", "customer_id", "reference_contains", "page", "per_page"];
const INVOICE_CREATE: &[&str] = &["send", "ignore_auto_number_generation"];
const OWN_NUMBER: &[&str] = &["ignore_auto_number_generation"];
const CRM_SEARCH: &[&str] = &["criteria", "email", "phone", "word", "fields", "page", "per_page"];
const ITEM_LIST: &[&str] = &[
    "page",
    "per_page",
    "search_text",
    "filter_by",
    "sort_column",
    "sort_order",
    "status",
    "name",
    "name_startswith",
    "name_contains",
    "sku",
    "sku_startswith",
    "sku_contains",
    "vendor_id",
    "last_modified_time",
    "category_id",
    "group_id",
];
/// The OpenAPI has no `sort_order` here; Books has (finance fact 2.6).
const CONTACT_LIST: &[&str] = &["filter_by", "sort_column", "sort_order", "page", "per_page"];
const PRICEBOOK_LIST: &[&str] = &["filter_by", "search_text", "page", "per_page"];
const CRM_LIST: &[&str] = &["fields", "ids", "page", "per_page", "page_token", "sort_by", "sort_order"];

/// What the `{captures}` of a path stand for, in their order.
pub(crate) type Captures = Vec<String>;

/// The operation a request is for, and its captures.
pub(crate) fn find(request: &Request) -> Option<(&'static Operation, Captures)> {
    OPERATIONS
        .iter()
        .filter(|operation| operation.method == request.method)
        .find_map(|operation| captures(operation.path, &request.path).map(|found| (operation, found)))
}

/// The query parameters of a request that its operation does not document.
pub(crate) fn unknown_parameters<'a>(operation: &Operation, request: &'a Request) -> Vec<&'a str> {
    let names = request.query.iter().map(|(name, _)| name.as_str());
    // Every call of Inventory names its organisation there.
    let everywhere = |name: &str| name == "organization_id" && request.product() == Product::Inventory;
    names.filter(|name| !operation.query.contains(name) && !everywhere(name)).collect()
}

fn captures(template: &str, path: &str) -> Option<Captures> {
    let mut found = Vec::new();
    let (mut expected, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (expected.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(part), Some(value)) if part.starts_with('{') && !value.is_empty() => found.push(decode(value)),
            (Some(part), Some(value)) if part == value => {}
            _ => return None,
        }
    }
}

/// A path segment with its percent-encoding undone (plan codes may hold spaces).
fn decode(segment: &str) -> String {
    // A `+` is itself in a path, but a space in a form.
    let form = format!("x={}", segment.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Whether a path is one of the CRM's metadata, which must not be taken for a module.
pub(crate) fn is_reserved_module(name: &str) -> bool {
    matches!(name, "settings" | "org" | "users" | "coql" | "actions")
}

#[cfg(test)]
mod tests {
    use super::{OPERATIONS, captures};

    #[test]
    fn captures_follow_the_template_and_nothing_else() {
        assert_eq!(captures("/a/{id}/b", "/a/7/b"), Some(vec!["7".to_owned()]));
        assert_eq!(captures("/a/{code}", "/a/basic%20monthly"), Some(vec!["basic monthly".to_owned()]));
        for path in ["/a//b", "/a/7", "/a/7/b/", "/a/7/c"] {
            assert_eq!(captures("/a/{id}/b", path), None, "{path}");
        }
    }

    #[test]
    fn no_operation_is_hidden_by_an_earlier_one() {
        for (index, later) in OPERATIONS.iter().enumerate() {
            let hidden =
                OPERATIONS[..index].iter().any(|earlier| earlier.method == later.method && captures(earlier.path, later.path).is_some());
            assert!(!hidden, "{} {}", later.method, later.path);
        }
    }
}
