#![allow(clippy::unwrap_used)]

mod agreed;
mod steps;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::fixture::{compile, linked, table};
use crate::link::agreed::{after_match, after_withdrawal, after_write, carries, field_in};
use crate::link::{Pair, Pairs};
use crate::read::FieldValue;

const CUSTOMERS: &str = r#"
[customers]
connection = "main"
table = "customers"
key = "id"
module = "billing/customers"
reference = "cf_sluice_key"
mark = { status = "inactive", "meta.gone" = true }
[customers.fields]
display_name = "name"
email = "email"
status = "status"
"billing_address.street" = "street"
"billing_address.city" = "city"
cf_tier = "tier"
cf_region = "region"
parent_id = { ref = "customers", column = "parent" }
credit = { column = "credit", owner = "zoho" }
[customers.fields.lines]
each = "select 1"
item = { item_id = { ref = "items", column = "i" }, "tax.rate" = "r" }

[items]
connection = "main"
table = "items"
key = "id"
module = "billing/products"
[items.fields]
name = "name"

[deals]
connection = "main"
table = "customers"
key = "id"
module = "crm/Deals"
reference = "Sluice_Key"
[deals.fields]
Deal_Name = "name"
"Account_Name.id" = { ref = "customers", column = "parent" }
Contact_Name = { ref = "customers", column = "parent" }
Phone = "email"
[deals.fields.Quoted_Items]
each = "select 1"
item = { Product_Name = { ref = "items", column = "i" } }
"#;

fn definition(sync: &str, settings: &str) -> Definition {
    let columns = ["name", "email", "status", "street", "city", "tier", "region", "parent", "credit"].map(|name| (name, "text"));
    let columns: Vec<_> = std::iter::once(("id", "int8")).chain(columns).collect();
    let file = CUSTOMERS.replace(&format!("[{sync}]\n"), &format!("[{sync}]\n{settings}\n"));
    compile(&file, sync, &[table("customers", &columns), table("items", &[("id", "int8"), ("name", "text")])]).unwrap().0
}

fn row(fields: &[(&str, Value)]) -> Row {
    let fields = fields.iter().map(|(path, value)| ((*path).to_owned(), FieldValue::Plain(value.clone()))).collect();
    Row { key: "42".to_owned(), when: true, fields, problems: vec![] }
}

fn parent(key: &str) -> FieldValue {
    FieldValue::Ref { sync: "customers".to_owned(), key: key.to_owned() }
}

fn line(item: &str, rate: &str) -> BTreeMap<String, FieldValue> {
    let item = FieldValue::Ref { sync: "items".to_owned(), key: item.to_owned() };
    BTreeMap::from([("item_id".to_owned(), item), ("tax.rate".to_owned(), FieldValue::Plain(serde_json::from_str(rate).unwrap()))])
}

fn known() -> Parents {
    let known = [("customers", "7", "z7"), ("items", "1", "z1"), ("items", "2", "z2")];
    known.map(|(sync, key, id)| ((sync.to_owned(), key.to_owned()), id.to_owned())).into()
}

fn decide_with(definition: &Definition, row: Option<&Row>, link: Option<&Link>, parents: &Parents) -> Step {
    decide(definition, Facts { row, link, parents, leave_out: &BTreeSet::new(), repair: &BTreeSet::new(), force: false })
}

fn pairs(fields: &[(&str, Value)]) -> Pairs {
    let pair = |(path, value): &(&str, Value)| ((*path).to_owned(), Pair { local: value.clone(), zoho: value.clone(), confirmed: true });
    fields.iter().map(pair).collect()
}

fn create_of(step: Step) -> Write {
    match step {
        Step::Create(write) => write,
        other => panic!("not a create: {other:?}"),
    }
}

fn update_of(step: Step) -> (Write, Vec<String>) {
    match step {
        Step::Update { write, changed, .. } => (write, changed),
        other => panic!("not an update: {other:?}"),
    }
}
