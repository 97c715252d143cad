//! What is particular to each Zoho module: how its create is kept from doubling, how records are named in answers, which deletes
//! exist. The one table of such facts; it sends nothing and knows no paths (those are the client's).
//!
//! Sources: the finance and FSM sheet ("fin §") and the CRM sheet ("crm §"), both made of Zoho's OpenAPI files and recorded answers.

use std::fmt;

use serde_json::Value;
use sluice_core::config::did_you_mean;
use sluice_core::config::sync::{Module as Name, Product};

use crate::value;

mod facts;
pub use facts::{Facts, KNOWN};

/// How a create is kept from making a second record when its answer is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Create {
    /// Zoho refuses, or merges, a second record: the create may simply be sent again.
    Refused {
        /// What makes Zoho refuse it.
        by: Refusal,
    },
    /// A documented request finds the record again; it is asked before the create is repeated.
    FoundAgain {
        /// Which request.
        how: Lookup,
    },
    /// Neither: a create of unknown outcome is parked for a person.
    Parked,
}

/// What makes Zoho refuse a second record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// CRM upsert with these `duplicate_check_fields`, in this order (crm §2.5).
    Upsert {
        /// API names: the module's system field, or fields marked unique.
        fields: Vec<String>,
    },
    /// Books upsert with `X-Unique-Identifier-Key`, a custom field that allows no duplicates (fin §4.1).
    UpsertHeader {
        /// The custom field's API name.
        field: String,
    },
    /// A field of ours that is unique in the module; an invoice's number goes with `ignore_auto_number_generation=true` (fin §4.2).
    Unique {
        /// The Zoho field.
        field: String,
    },
}

/// The request that finds a record again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// A list filtered by `field`, which shows it in its rows: the value that was sent says which.
    Filter {
        /// The Zoho field that carries our reference.
        field: String,
    },
    /// `GET /transactions?customer_id=…&filter_by=TransactionType.PAYMENT`, then the singles, until `field` is ours (fin §4.2).
    Payments {
        /// The Zoho field that carries our reference.
        field: String,
    },
    /// The list walked from the time of the send; rows that carry `values` as sent, then their singles for `reference` where there is
    /// one (custom fields stand in single reads only: fin §4.2).
    CreatedSince {
        /// Fields that list rows show and that must equal what was sent.
        values: Vec<String>,
        /// The Zoho field that carries our reference, if one was sent.
        reference: Option<String>,
    },
}

/// A Zoho module: its name and what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// The Zoho app.
    pub product: Product,
    /// The name as the API spells it.
    pub name: String,
    /// What is known; for a module outside the table the product's cautious defaults.
    pub facts: &'static Facts,
}

impl Module {
    /// Looks a configured module up. Unknown names are taken as the product's own or custom modules, with cautious facts.
    pub fn of(name: &Name) -> Self {
        let facts = KNOWN
            .iter()
            .find(|facts| facts.product == name.product && facts.name == name.name)
            .unwrap_or_else(|| facts::default_for(name.product));
        Self { product: name.product, name: name.name.clone(), facts }
    }

    /// Whether the table knows this module by name.
    pub fn is_known(&self) -> bool {
        self.facts.name == self.name
    }

    /// Why this version cannot push to the module, if it cannot; or what is odd about its name, if it can.
    ///
    /// # Errors
    /// A sentence that lists the modules that there are.
    pub fn push_target(&self) -> Result<Option<String>, String> {
        let names = |product| KNOWN.iter().filter(move |facts| facts.product == product && facts.written).map(|facts| facts.name);
        if self.product == Product::Crm {
            let near = if self.is_known() { String::new() } else { did_you_mean(&self.name, names(Product::Crm)) };
            return Ok((!near.is_empty())
                .then(|| format!("`{}` is none of CRM's own modules{near}; it is taken for the API name of a custom one", self.name)));
        }
        if self.facts.written {
            return Ok(None);
        }
        let list = |product| names(product).collect::<Vec<_>>().join(", ");
        let near = did_you_mean(&self.name, names(self.product));
        Err(match self.product {
            Product::Billing => format!("this version cannot push to `{self}`{near}; in Billing it knows {}", list(Product::Billing)),
            _ => format!("this version cannot push to `{self}`; it knows Billing ({}) and every module of CRM", list(Product::Billing)),
        })
    }

    /// Records that one write may carry: CRM takes 100 (crm §2.3, §2.5), everything else one.
    pub fn batch_max(&self) -> u16 {
        if self.product == Product::Crm { 100 } else { 1 }
    }

    /// Records that one read may carry: CRM takes 100 ids (crm §2.1), items of Books and Inventory go 100 to an `itemdetails` (fin §5.3),
    /// everything else is read singly.
    pub fn read_max(&self) -> u16 {
        let items = matches!(self.product, Product::Books | Product::Inventory) && self.name == "items";
        if self.product == Product::Crm || items { 100 } else { 1 }
    }

    /// The field that is a level which Zoho moves by differences only: an update that carries it is taken without it, silently (fin §5.3, §5.8).
    pub fn level(&self) -> Option<&'static str> {
        (self.product == Product::Inventory && self.name == "items").then_some("stock_on_hand")
    }

    /// What clears a field on update: CRM and FSM take null (crm §2.4), finance reads and prints `""` (fin §2.4).
    pub fn cleared(&self) -> Value {
        if self.product.is_finance() { Value::String(String::new()) } else { Value::Null }
    }

    /// Whether lookups are objects `{"id": …}` (crm §8: always send the id).
    pub fn wraps_lookups(&self) -> bool {
        self.product == Product::Crm
    }

    /// Whether rows of a list that are sent without id are added to the ones there instead of replacing them: CRM subforms do that on
    /// update (crm §2.3); finance replaces lists as a whole (fin §5).
    pub fn appends_rows(&self) -> bool {
        self.product == Product::Crm
    }

    /// Whether `cf_…` fields travel in `custom_fields` instead of by their own name (fin §4.1).
    pub fn nests_custom_fields(&self) -> bool {
        self.product.is_finance()
    }

    /// The UTC offset as the product writes it: finance without colon (fin §2.5), the others with (crm §8, fin §8.3).
    pub fn utc_offset(&self) -> &'static str {
        if self.product.is_finance() { "+0000" } else { "+00:00" }
    }

    /// How a create is kept from doubling, given the fields that a sync sends, its `reference` and its `match_on`.
    pub fn create(&self, sends: impl Fn(&str) -> bool, reference: Option<&str>, match_on: &[String]) -> Create {
        let own = |field: &str| reference == Some(field) || sends(field);
        if self.product == Product::Crm {
            let fields: Vec<String> = reference.map(str::to_owned).into_iter().chain(match_on.iter().cloned()).collect();
            return if fields.is_empty() { Create::Parked } else { Create::Refused { by: Refusal::Upsert { fields } } };
        }
        if let Some(field) = reference.filter(|field| self.facts.upserts_by_header && field.starts_with("cf_")) {
            return Create::Refused { by: Refusal::UpsertHeader { field: field.to_owned() } };
        }
        if let Some(field) = self.facts.unique.filter(|field| own(field)) {
            return Create::Refused { by: Refusal::Unique { field: field.to_owned() } };
        }
        self.facts.lookup(reference).map_or(Create::Parked, |how| Create::FoundAgain { how })
    }

    /// The record inside an answer's envelope: `{"customer": {…}}`, `{"data": [{…}]}`.
    pub fn record_in<'a>(&self, answer: &'a Value) -> Option<&'a Value> {
        let record = answer.get(self.facts.record_key)?;
        match record {
            Value::Array(records) => records.first(),
            Value::Object(_) => Some(record),
            _ => None,
        }
    }

    /// The record's id, which is a text whatever the answer prints (fin §2.4). For plans, addons and coupons the code.
    pub fn id_of(&self, record: &Value) -> Option<String> {
        let id = record.get(self.facts.id_key)?;
        (!value::is_empty(id)).then(|| value::scalar_text(id))
    }

    /// When the record last changed, by Zoho's own clock.
    pub fn modified_at(&self, record: &Value) -> Option<chrono::DateTime<chrono::Utc>> {
        ["last_modified_time", "updated_time", "Modified_Time"]
            .iter()
            .find_map(|key| record.get(*key).and_then(Value::as_str))
            .and_then(parse_time)
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.product, self.name)
    }
}

/// Records are told apart by Zoho's clock, to the second, against ours.
pub const CLOCKS_DIFFER_BY: chrono::Duration = chrono::Duration::minutes(5);

/// Zoho's times: `2026-06-09T13:16:45-0400` in finance, `…-04:00` elsewhere (fin §2.5, crm §8).
pub fn parse_time(text: &str) -> Option<chrono::DateTime<chrono::Utc>> {
    let time = chrono::DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z").or_else(|_| chrono::DateTime::parse_from_rfc3339(text));
    time.ok().map(|time| time.to_utc())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::json;

    use super::*;

    fn module(name: &str) -> Module {
        Module::of(&name.parse().unwrap())
    }

    fn create(name: &str, sends: &[&str], reference: Option<&str>, match_on: &[&str]) -> Create {
        let match_on: Vec<String> = match_on.iter().map(|field| (*field).to_owned()).collect();
        module(name).create(|field| sends.contains(&field), reference, &match_on)
    }

    #[test]
    fn every_module_has_one_way_to_keep_a_create_from_doubling() {
        let upsert = |fields: &[&str]| Create::Refused { by: Refusal::Upsert { fields: fields.iter().map(|f| (*f).to_owned()).collect() } };
        let unique = |field: &str| Create::Refused { by: Refusal::Unique { field: field.to_owned() } };
        for (name, sends, reference, match_on, expected) in [
            ("crm/Deals", &["Deal_Name"][..], Some("Contract_Number"), &[][..], upsert(&["Contract_Number"])),
            ("crm/Contacts", &[], None, &["Email"], upsert(&["Email"])),
            ("crm/Contacts", &[], Some("Key"), &["Email"], upsert(&["Key", "Email"])),
            ("crm/Deals", &["Deal_Name"], None, &[], Create::Parked),
            ("billing/plans", &["plan_code"], None, &[], unique("plan_code")),
            ("billing/invoices", &["invoice_number"], None, &[], unique("invoice_number")),
            ("billing/invoices", &[], Some("invoice_number"), &[], unique("invoice_number")),
            ("books/invoices", &[], Some("cf_key"), &[], Create::Refused { by: Refusal::UpsertHeader { field: "cf_key".to_owned() } }),
            ("books/contacts", &["contact_name"], None, &[], unique("contact_name")),
            (
                "billing/subscriptions",
                &[],
                Some("reference_id"),
                &[],
                Create::FoundAgain { how: Lookup::Filter { field: "reference_id".to_owned() } },
            ),
            (
                "billing/payments",
                &[],
                Some("reference_number"),
                &[],
                Create::FoundAgain { how: Lookup::Payments { field: "reference_number".to_owned() } },
            ),
            (
                "billing/customers",
                &["display_name", "email"],
                Some("cf_key"),
                &["email"],
                Create::FoundAgain {
                    how: Lookup::CreatedSince { values: vec!["display_name".into(), "email".into()], reference: Some("cf_key".into()) },
                },
            ),
            ("billing/payments", &[], None, &[], Create::Parked),
            ("fsm/Work_Orders", &[], None, &[], Create::Parked),
            ("inventory/inventoryadjustments", &[], None, &[], Create::Parked),
        ] {
            assert_eq!(create(name, sends, reference, match_on), expected, "{name} {reference:?}");
        }
    }

    #[test]
    fn a_module_that_nothing_can_be_pushed_to_is_refused_with_the_one_that_was_meant() {
        for (name, said) in [
            ("billing/custmers", "(did you mean `customers`?); in Billing it knows customers, products, plans"),
            ("billing/events", "in Billing it knows customers"),
            ("books/contacts", "it knows Billing (customers, "),
        ] {
            let refused = module(name).push_target().unwrap_err();
            assert!(refused.contains(said), "{name}: {refused}");
        }
        for name in ["billing/payments", "crm/Deals", "crm/Shipments"] {
            assert_eq!(module(name).push_target(), Ok(None), "{name}");
        }
        let odd = module("crm/contact").push_target().unwrap().unwrap();
        assert!(odd.contains("did you mean `Contacts`"), "{odd}");
    }

    #[test]
    fn records_and_ids_are_found_in_every_envelope() {
        let customers = module("billing/customers");
        let answer =
            json!({"code": 0, "message": "ok", "customer": {"customer_id": 90300000001_i64, "updated_time": "2026-06-09T13:16:45-0400"}});
        let record = customers.record_in(&answer).unwrap();
        assert_eq!(customers.id_of(record).as_deref(), Some("90300000001"));
        assert_eq!(customers.modified_at(record).unwrap().to_rfc3339(), "2026-06-09T17:16:45+00:00");
        let deals = module("crm/Deals");
        let answer = json!({"data": [{"id": "7", "Modified_Time": "2026-06-09T13:16:45+05:30"}]});
        let record = deals.record_in(&answer).unwrap();
        assert_eq!(deals.id_of(record).as_deref(), Some("7"));
        assert_eq!(deals.modified_at(record).unwrap().to_rfc3339(), "2026-06-09T07:46:45+00:00");
        assert_eq!(module("billing/plans").id_of(&json!({"plan_id": "", "plan_code": "basic"})).as_deref(), Some("basic"));
        assert_eq!(customers.id_of(&json!({"customer_id": ""})), None);
    }

    #[test]
    fn no_module_stands_twice_in_the_table() {
        for (index, facts) in KNOWN.iter().enumerate() {
            assert!(!KNOWN[..index].iter().any(|other| other.product == facts.product && other.name == facts.name), "{}", facts.name);
        }
    }
}
