//! Products, and plans, which are addressed by their code.

use serde_json::Value;

use super::{
    Billing, Context, Outcome, Record, Refusal, done,
    fields::{self, Field, Kind, may, must},
    invalid_url,
    list::{self, Listing},
    single, text,
};
use crate::operations::Verb;

const PRODUCT_FIELDS: &[Field] = &[
    must("name", Kind::Text(100)),
    may("description", Kind::Text(2_000)),
    may("email_ids", Kind::Text(1_000)),
    may("redirect_url", Kind::Text(1_000)),
];

const PLAN_FIELDS: &[Field] = &[
    must("plan_code", Kind::Text(100)),
    must("name", Kind::Text(100)),
    must("recurring_price", Kind::Money),
    must("interval", Kind::Whole),
    must("product_id", Kind::Id),
    may("interval_unit", Kind::Text(20)),
    may("billing_cycles", Kind::Whole),
    may("trial_period", Kind::Whole),
    may("setup_fee", Kind::Money),
    may("setup_fee_account_id", Kind::Id),
    may("unit", Kind::Text(100)),
    may("product_type", Kind::Text(100)),
    may("description", Kind::Text(2_000)),
    may("store_markup_description", Kind::Text(10_000)),
    may("tax_id", Kind::Id),
    may("is_taxable", Kind::Flag),
    may("tax_exemption_id", Kind::Id),
    may("tax_exemption_code", Kind::Text(100)),
    may("hsn_or_sac", Kind::Text(100)),
    may("tags", Kind::List),
    may("item_tax_preferences", Kind::List),
    may("can_charge_setup_fee_immediately", Kind::Flag),
    may("custom_fields", Kind::CustomFields),
];

const PRODUCT_ROW: &[&str] = &["product_id", "name", "description", "email_ids", "redirect_url", "status", "created_time", "updated_time"];
const PLAN_ROW: &[&str] = &[
    "plan_code",
    "name",
    "description",
    "status",
    "product_id",
    "tax_id",
    "trial_period",
    "setup_fee",
    "recurring_price",
    "unit",
    "interval",
    "interval_unit",
    "billing_cycles",
    "product_type",
    "created_time",
    "updated_time",
];

impl Billing {
    pub(super) fn product(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        let missing = || Refusal::not_found("Product");
        match verb {
            Verb::Create => {
                let body = context.body()?;
                let mut record = fields::read("products", PRODUCT_FIELDS, &body, true, context)?;
                let id = context.ids.record();
                stamp(&mut record, "product_id", &id, context);
                let record = self.products.entry(id.clone()).or_insert(record);
                Ok(single(201, "The product has been created", "product", record, &id))
            }
            Verb::List => {
                let rows: Vec<Value> = self.products.values().rev().map(|record| list::row(record, PRODUCT_ROW)).collect();
                let listing = Listing { key: "products", report_name: "Products", applied_filter: "ProductStatus.All" };
                Ok(list::page(&listing, &rows, context))
            }
            Verb::Get => {
                let record = self.products.get(&id).ok_or_else(missing)?;
                Ok(single(200, "success", "product", record, &id))
            }
            Verb::Update => {
                let body = context.body()?;
                let record = self.products.get_mut(&id).ok_or_else(missing)?;
                record.extend(fields::read("products", PRODUCT_FIELDS, &body, false, context)?);
                record.insert("updated_time".to_owned(), context.now());
                Ok(single(200, "Product details have been updated.", "product", record, &id))
            }
            Verb::Delete => {
                if self.plans.values().any(|plan| text(plan, "product_id") == id) {
                    return Err(Refusal::not_allowed("A product that has plans cannot be deleted."));
                }
                self.products.remove(&id).ok_or_else(missing)?;
                Ok(done("The product has been deleted.", &id))
            }
            Verb::Activate | Verb::Deactivate => {
                let record = self.products.get_mut(&id).ok_or_else(missing)?;
                let status = set_status(record, verb, context);
                Ok(done(&format!("The product has been marked as {status}."), &id))
            }
            Verb::Cancel | Verb::Reactivate | Verb::Void | Verb::Open | Verb::Patch => Err(invalid_url()),
        }
    }

    pub(super) fn plan(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        let code = context.id().to_owned();
        let missing = || Refusal::not_found("Plan");
        match verb {
            Verb::Create => self.create_plan(context),
            Verb::List => {
                let product = context.request.query("product_id");
                let rows: Vec<Value> = self
                    .plans
                    .values()
                    .filter(|record| product.is_none_or(|id| text(record, "product_id") == id))
                    .map(|record| list::row(record, PLAN_ROW))
                    .collect();
                let listing = Listing { key: "plans", report_name: "Plans", applied_filter: "PlanStatus.All" };
                Ok(list::page(&listing, &rows, context))
            }
            Verb::Get => {
                let record = self.plans.get(&code).ok_or_else(missing)?;
                Ok(single(200, "success", "plan", record, &code))
            }
            Verb::Update => self.update_plan(&code, context),
            Verb::Delete => {
                if self.subscriptions.values().any(|record| record["plan"]["plan_code"] == *code) {
                    return Err(Refusal::not_allowed("A plan that has subscriptions cannot be deleted."));
                }
                self.plans.remove(&code).ok_or_else(missing)?;
                Ok(done("The plan has been deleted.", &code))
            }
            Verb::Activate | Verb::Deactivate => {
                let record = self.plans.get_mut(&code).ok_or_else(missing)?;
                let status = set_status(record, verb, context);
                Ok(done(&format!("The plan has been marked as {status}."), &code))
            }
            Verb::Cancel | Verb::Reactivate | Verb::Void | Verb::Open | Verb::Patch => Err(invalid_url()),
        }
    }

    fn create_plan(&mut self, context: &mut Context<'_>) -> Outcome {
        let body = context.body()?;
        let given = fields::read("plans", PLAN_FIELDS, &body, true, context)?;
        let code = text(&given, "plan_code").to_owned();
        self.check_plan(&given)?;
        if self.plans.contains_key(&code) {
            return Err(Refusal::exists(format!("Plan code \"{code}\" already exists")));
        }
        let mut record = Record::new();
        for (key, value) in [
            ("interval_unit", "months".into()),
            ("billing_cycles", (-1).into()),
            ("trial_period", 0.into()),
            ("setup_fee", 0.into()),
            ("description", "".into()),
        ] {
            record.insert(key.to_owned(), value);
        }
        set_plan(&mut record, given, context)?;
        stamp(&mut record, "plan_code", &code, context);
        let record = self.plans.entry(code.clone()).or_insert(record);
        Ok(single(201, "The plan has been created.", "plan", record, &code))
    }

    fn update_plan(&mut self, code: &str, context: &mut Context<'_>) -> Outcome {
        let mut record = self.plans.get(code).cloned().ok_or_else(|| Refusal::not_found("Plan"))?;
        let body = context.body()?;
        let given = fields::read("plans", PLAN_FIELDS, &body, false, context)?;
        self.check_plan(&given)?;
        set_plan(&mut record, given, context)?;
        record.insert("updated_time".to_owned(), context.now());
        let new_code = text(&record, "plan_code").to_owned();
        if new_code != code && self.plans.contains_key(&new_code) {
            return Err(Refusal::exists(format!("Plan code \"{new_code}\" already exists")));
        }
        self.plans.remove(code);
        let record = self.plans.entry(new_code.clone()).or_insert(record);
        Ok(single(200, "The plan has been updated.", "plan", record, &new_code))
    }

    fn check_plan(&self, given: &Record) -> Result<(), Refusal> {
        if given.contains_key("product_id") && !self.products.contains_key(text(given, "product_id")) {
            return Err(Refusal::not_found("Product"));
        }
        match given.get("interval_unit").and_then(Value::as_str) {
            None | Some("weeks" | "months" | "years") => {}
            Some(_) => return Err(Refusal::invalid("interval_unit")),
        }
        match given.get("interval").and_then(Value::as_i64) {
            Some(interval) if interval < 1 => Err(Refusal::invalid("interval")),
            _ => Ok(()),
        }
    }
}

fn set_plan(record: &mut Record, mut given: Record, context: &Context<'_>) -> Result<(), Refusal> {
    let custom = given.remove("custom_fields").unwrap_or_default();
    fields::merge_custom_fields(record, custom, context.custom_fields("plans"))?;
    record.extend(given);
    Ok(())
}

fn stamp(record: &mut Record, key: &str, id: &str, context: &Context<'_>) {
    record.insert(key.to_owned(), id.into());
    record.insert("status".to_owned(), "active".into());
    record.insert("created_time".to_owned(), context.now());
    record.insert("updated_time".to_owned(), context.now());
}

fn set_status(record: &mut Record, verb: Verb, context: &Context<'_>) -> &'static str {
    let status = if verb == Verb::Activate { "active" } else { "inactive" };
    record.insert("status".to_owned(), status.into());
    record.insert("updated_time".to_owned(), context.now());
    status
}
