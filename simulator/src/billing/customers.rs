//! Customers. List rows show neither addresses nor custom fields (finance fact 4.2).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    Billing, Context, Outcome, Record, Refusal, done,
    fields::{self, Field, Kind, may, must},
    invalid_url,
    list::{self, Listing},
    single, text,
};
use crate::{money::Money, operations::Verb};

const FIELDS: &[Field] = &[
    must("display_name", Kind::Text(200)),
    must("email", Kind::Email),
    may("salutation", Kind::Text(50)),
    may("first_name", Kind::Text(100)),
    may("last_name", Kind::Text(100)),
    may("company_name", Kind::Text(200)),
    may("phone", Kind::Text(50)),
    may("mobile", Kind::Text(50)),
    may("department", Kind::Text(100)),
    may("designation", Kind::Text(100)),
    may("website", Kind::Text(200)),
    may("billing_address", Kind::Object),
    may("shipping_address", Kind::Object),
    may("payment_terms", Kind::Whole),
    may("payment_terms_label", Kind::Text(100)),
    may("currency_code", Kind::Text(100)),
    may("notes", Kind::Text(65_536)),
    may("tags", Kind::List),
    may("ach_supported", Kind::Flag),
    may("is_portal_enabled", Kind::Flag),
    may("twitter", Kind::Text(100)),
    may("facebook", Kind::Text(100)),
    may("skype", Kind::Text(100)),
    may("gst_no", Kind::Text(100)),
    may("gst_treatment", Kind::Text(100)),
    may("place_of_contact", Kind::Text(100)),
    may("vat_treatment", Kind::Text(100)),
    may("vat_reg_no", Kind::Text(100)),
    may("tax_id", Kind::Id),
    may("tax_authority_id", Kind::Id),
    may("tax_authority_name", Kind::Text(100)),
    may("tax_exemption_id", Kind::Id),
    may("tax_exemption_code", Kind::Text(100)),
    may("is_taxable", Kind::Flag),
    may("default_templates", Kind::Object),
    may("custom_fields", Kind::CustomFields),
];

const ROW: &[&str] = &[
    "customer_id",
    "display_name",
    "salutation",
    "first_name",
    "last_name",
    "email",
    "company_name",
    "phone",
    "mobile",
    "website",
    "department",
    "designation",
    "currency_code",
    "unused_credits",
    "outstanding",
    "status",
    "updated_time",
    "created_time",
];

impl Billing {
    pub(super) fn customer(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        match verb {
            Verb::Create => {
                let body = context.body()?;
                let id = self.create_customer(&body, context)?;
                Ok(single(201, "The customer has been created", "customer", &self.customers[&id], &id))
            }
            Verb::List => self.list_customers(context),
            Verb::Get => self.get_customer(context),
            Verb::Update => self.update_customer(context),
            Verb::Delete => self.delete_customer(context),
            Verb::Activate => self.set_customer_status("active", context),
            Verb::Deactivate => self.set_customer_status("inactive", context),
            Verb::Cancel | Verb::Reactivate | Verb::Void | Verb::Open | Verb::Patch => Err(invalid_url()),
        }
    }

    /// Also used for a subscription that brings its customer along.
    pub(super) fn create_customer(&mut self, body: &Record, context: &mut Context<'_>) -> Result<String, Refusal> {
        let mut given = fields::read("customers", FIELDS, body, true, context)?;
        self.check_name(text(&given, "display_name"), None, context)?;
        let mut record = Record::new();
        for blank in ["salutation", "first_name", "last_name", "company_name", "phone", "mobile", "website", "notes"] {
            record.insert(blank.to_owned(), "".into());
        }
        record.insert("currency_code".to_owned(), "USD".into());
        record.insert("custom_fields".to_owned(), Value::Array(Vec::new()));
        record.insert("custom_field_hash".to_owned(), Value::Object(Record::new()));
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("customers"))?;
        record.extend(given);
        let id = context.ids.record();
        for (key, value) in [
            ("customer_id", id.clone().into()),
            ("status", "active".into()),
            ("source", "api".into()),
            ("outstanding", Money::ZERO.to_json()),
            ("unused_credits", Money::ZERO.to_json()),
            ("created_time", context.now()),
            ("updated_time", context.now()),
        ] {
            record.insert(key.to_owned(), value);
        }
        self.customers.insert(id.clone(), record);
        Ok(id)
    }

    /// Code 3062, where the organisation wants unique names (finance fact 4.3).
    fn check_name(&self, name: &str, own: Option<&str>, context: &Context<'_>) -> Result<(), Refusal> {
        let taken = |(id, record): (&String, &Record)| own != Some(id.as_str()) && text(record, "display_name").eq_ignore_ascii_case(name);
        if context.scenario.finance.unique_display_name && self.customers.iter().any(taken) {
            let message = format!("The customer \"{name}\" already exists. Please specify a different name.");
            return Err(Refusal::new(400, 3062, message));
        }
        Ok(())
    }

    fn list_customers(&self, context: &mut Context<'_>) -> Outcome {
        let filter = context.request.query("filter_by").unwrap_or("Status.All");
        let status = match filter {
            "Status.All" => None,
            "Status.Active" => Some("active"),
            "Status.Inactive" => Some("inactive"),
            _ => return Err(Refusal::new(400, 2, "Invalid value passed for filter_by")),
        };
        let balances = self.balances();
        let rows: Vec<Value> = self
            .customers
            .values()
            .rev()
            .filter(|record| status.is_none_or(|status| text(record, "status") == status))
            .map(|record| list::row(&with_balance(record, &balances), ROW))
            .collect();
        let listing = Listing { key: "customers", report_name: "Customers", applied_filter: filter };
        Ok(list::page(&listing, &rows, context))
    }

    fn get_customer(&self, context: &Context<'_>) -> Outcome {
        let record = self.customers.get(context.id()).ok_or_else(|| Refusal::not_found("Customer"))?;
        let record = with_balance(record, &self.balances());
        Ok(single(200, "success", "customer", &record, context.id()))
    }

    fn update_customer(&mut self, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        if !self.customers.contains_key(&id) {
            return Err(Refusal::not_found("Customer"));
        }
        let body = context.body()?;
        let mut given = fields::read("customers", FIELDS, &body, false, context)?;
        if given.contains_key("display_name") {
            self.check_name(text(&given, "display_name"), Some(&id), context)?;
        }
        let record = self.customers.get_mut(&id).ok_or_else(|| Refusal::not_found("Customer"))?;
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(record, custom, context.custom_fields("customers"))?;
        record.extend(given);
        record.insert("updated_time".to_owned(), context.now());
        Ok(single(200, "Customer information has been saved.", "customer", record, &id))
    }

    fn delete_customer(&mut self, context: &Context<'_>) -> Outcome {
        let id = context.id();
        let has = |record: &Record| text(record, "customer_id") == id;
        if self.subscriptions.values().chain(self.invoices.values()).chain(self.payments.values()).any(has) {
            return Err(Refusal::not_allowed("Customers with transactions cannot be deleted."));
        }
        self.customers.remove(id).ok_or_else(|| Refusal::not_found("Customer"))?;
        Ok(done("The customer has been deleted.", id))
    }

    fn set_customer_status(&mut self, status: &str, context: &Context<'_>) -> Outcome {
        let record = self.customers.get_mut(context.id()).ok_or_else(|| Refusal::not_found("Customer"))?;
        record.insert("status".to_owned(), status.into());
        record.insert("updated_time".to_owned(), context.now());
        Ok(done(&format!("The customer has been marked as {status}."), context.id()))
    }

    /// Each customer's open balance, from its invoices. Nothing of it bumps the customer's `updated_time`
    /// (finance fact 2.7).
    fn balances(&self) -> BTreeMap<&str, Money> {
        let mut balances: BTreeMap<&str, Money> = BTreeMap::new();
        for invoice in self.invoices.values().filter(|invoice| !matches!(text(invoice, "status"), "void" | "draft")) {
            let balance = invoice.get("balance").and_then(Money::from_json).unwrap_or_default();
            let sum = balances.entry(text(invoice, "customer_id")).or_default();
            *sum = sum.plus(balance);
        }
        balances
    }

    pub(super) fn known_customer(&self, id: &str) -> Result<&Record, Refusal> {
        self.customers.get(id).ok_or_else(|| Refusal::not_found("Customer"))
    }
}

fn with_balance(record: &Record, balances: &BTreeMap<&str, Money>) -> Record {
    let mut record = record.clone();
    let balance = balances.get(text(&record, "customer_id")).copied().unwrap_or_default();
    record.insert("outstanding".to_owned(), balance.to_json());
    record
}
