//! Zoho Billing v1: customers, products, plans, subscriptions, invoices, payments, transactions and events.
//!
//! Written from Zoho's OpenAPI files and the finance facts; where no source names an error code, the one chosen here
//! is marked *unverified*. Nothing here waits or fails at random: faults are the server's business.

mod catalogue;
mod customers;
mod events;
mod invoices;
mod lines;
mod payments;
mod subscriptions;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    exchange::Answer,
    finance::{Context, Outcome, Record, Refusal, done, fields, invalid_url, list, organizations, single, text},
    operations::Action,
    outgoing::{Change, Hand, Operation},
};

/// The records of a module by id (plans: by code), oldest first.
type Records = BTreeMap<String, Record>;

/// What one organisation holds.
#[derive(Debug, Default)]
pub(crate) struct Billing {
    customers: Records,
    products: Records,
    plans: Records,
    subscriptions: Records,
    invoices: Records,
    payments: Records,
    events: Records,
    last_invoice_number: u64,
    last_payment_number: u64,
}

impl Billing {
    /// Carries out one documented operation.
    pub(crate) fn handle(&mut self, action: Action, context: &mut Context<'_>) -> Answer {
        let outcome = match action {
            Action::Customers(verb) => self.customer(verb, context),
            Action::Products(verb) => self.product(verb, context),
            Action::Plans(verb) => self.plan(verb, context),
            Action::Subscriptions(verb) => self.subscription(verb, context),
            Action::Invoices(verb) => self.invoice(verb, context),
            Action::Payments(verb) => self.payment(verb, context),
            Action::Transactions => self.transactions(context),
            Action::Events => Ok(self.list_events(context)),
            Action::Event => self.get_event(context),
            Action::Organizations => Ok(organizations(context)),
            // Of another product.
            _ => Err(invalid_url()),
        };
        outcome.unwrap_or_else(Refusal::into_answer)
    }

    /// All records of a module, as single reads answer them; for the admin API.
    pub(crate) fn all(&self, module: &str) -> Option<Vec<&Record>> {
        self.module(module).map(|records| records.values().collect())
    }

    /// One record, as a single read answers it.
    pub(crate) fn record(&self, module: &str, key: &str) -> Option<&Record> {
        self.module(module)?.get(key)
    }

    fn module(&self, name: &str) -> Option<&Records> {
        Some(match name {
            "customers" => &self.customers,
            "products" => &self.products,
            "plans" => &self.plans,
            "subscriptions" => &self.subscriptions,
            "invoices" => &self.invoices,
            "payments" => &self.payments,
            "events" => &self.events,
            _ => return None,
        })
    }

    /// Changes fields of a record as a person in Zoho would, without any check, or adds a record that is complete
    /// as given. Returns the record; `None` if there is no such module, or no record of the `id` given.
    pub(crate) fn put_by_hand(&mut self, module: &str, id: Option<&str>, given: Record, hand: &mut Hand<'_>) -> Option<Record> {
        let (key, records) = (id_key(module)?, self.module_mut(module)?);
        let now: Value = hand.zone.finance_time(hand.now).into();
        let record = match id {
            Some(id) => records.get_mut(id)?,
            None => {
                let id = match given.get(key) {
                    Some(Value::String(id)) => id.clone(),
                    _ => hand.ids.record(),
                };
                let record = records.entry(id.clone()).or_default();
                record.insert(key.to_owned(), id.into());
                record.insert("created_time".to_owned(), now.clone());
                record
            }
        };
        let before = id.map(|_| record.clone());
        record.extend(given);
        record.insert("updated_time".to_owned(), now);
        let after = record.clone();
        hand.changes.extend(change(&hand.organization, module, text(&after, key), before, Some(after.clone())));
        Some(after)
    }

    /// Deletes a record as a person in Zoho would, without any check.
    pub(crate) fn delete_by_hand(&mut self, module: &str, id: &str, hand: &mut Hand<'_>) -> bool {
        let Some(removed) = self.module_mut(module).and_then(|records| records.remove(id)) else { return false };
        hand.changes.extend(change(&hand.organization, module, id, Some(removed), None));
        true
    }

    /// The records that a person can edit: all but the events.
    fn module_mut(&mut self, name: &str) -> Option<&mut Records> {
        Some(match name {
            "customers" => &mut self.customers,
            "products" => &mut self.products,
            "plans" => &mut self.plans,
            "subscriptions" => &mut self.subscriptions,
            "invoices" => &mut self.invoices,
            "payments" => &mut self.payments,
            _ => return None,
        })
    }
}

/// The key of a record's id; plans are addressed by their code.
pub(crate) fn id_key(module: &str) -> Option<&'static str> {
    Some(match module {
        "customers" => "customer_id",
        "products" => "product_id",
        "plans" => "plan_code",
        "subscriptions" => "subscription_id",
        "invoices" => "invoice_id",
        "payments" => "payment_id",
        _ => return None,
    })
}

/// The module that a call is about; `None` for those about none, and for other products.
pub(crate) fn module_of(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Customers(_) => "customers",
        Action::Products(_) => "products",
        Action::Plans(_) => "plans",
        Action::Subscriptions(_) => "subscriptions",
        Action::Invoices(_) => "invoices",
        Action::Payments(_) => "payments",
        _ => return None,
    })
}

/// What has become of a record, if anything has.
pub(crate) fn change(organization: &str, module: &str, id: &str, before: Option<Record>, after: Option<Record>) -> Option<Change> {
    let (operation, record) = match (before, after) {
        (None, Some(after)) => (Operation::Create, after),
        (Some(before), Some(after)) if before != after => (Operation::Edit, after),
        (Some(before), None) => (Operation::Delete, before),
        _ => return None,
    };
    let key = match module {
        "customers" => "customer",
        "products" => "product",
        "plans" => "plan",
        "subscriptions" => "subscription",
        "invoices" => "invoice",
        _ => "payment",
    };
    Some(Change {
        product: "billing",
        organization: organization.to_owned(),
        module: module.to_owned(),
        key,
        id: id.to_owned(),
        operation,
        record: Value::Object(record),
        fields: Vec::new(),
        workflow: true,
    })
}

/// Modules that the admin API can name.
pub(crate) const MODULES: &[&str] = &["customers", "products", "plans", "subscriptions", "invoices", "payments", "events"];
