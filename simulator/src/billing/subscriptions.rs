//! Subscriptions: created on a plan for a known or a new customer; live, or future until their start.
//!
//! No renewals happen and no invoices are raised by themselves: time does not pass in the simulated accounts.

use chrono::{Days, Months, NaiveDate};
use serde_json::{Value, json};

use super::{
    Billing, Context, Outcome, Record, Refusal, done,
    fields::{self, Field, Kind, may, must},
    invalid_url,
    list::{self, Listing},
    single, text,
};
use crate::{money::Money, operations::Verb};

const FIELDS: &[Field] = &[
    must("plan", Kind::Object),
    may("customer_id", Kind::Id),
    may("customer", Kind::Object),
    may("starts_at", Kind::Date),
    may("reference_id", Kind::Text(100)),
    may("auto_collect", Kind::Flag),
    may("addons", Kind::List),
    may("coupon_code", Kind::Text(100)),
    may("exchange_rate", Kind::Money),
    may("payment_terms", Kind::Whole),
    may("payment_terms_label", Kind::Text(100)),
    may("salesperson_name", Kind::Text(200)),
    may("add_to_unbilled_charges", Kind::Flag),
    may("create_backdated_invoice", Kind::Flag),
    may("place_of_supply", Kind::Text(100)),
    may("template_id", Kind::Id),
    may("card_id", Kind::Id),
    may("account_id", Kind::Id),
    may("contactpersons", Kind::List),
    may("payment_gateways", Kind::List),
    may("allow_partial_payments", Kind::Flag),
    may("custom_fields", Kind::CustomFields),
];

const ROW: &[&str] = &[
    "customer_id",
    "customer_name",
    "email",
    "plan_name",
    "plan_code",
    "subscription_id",
    "name",
    "status",
    "amount",
    "created_at",
    "activated_at",
    "current_term_starts_at",
    "current_term_ends_at",
    "last_billing_at",
    "next_billing_at",
    "expires_at",
    "interval",
    "interval_unit",
    "auto_collect",
    "created_time",
    "updated_time",
    "reference_id",
    "salesperson_name",
    "currency_code",
];

impl Billing {
    pub(super) fn subscription(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        match verb {
            Verb::Create => self.create_subscription(context),
            Verb::List => self.list_subscriptions(context),
            Verb::Get => {
                let record = self.known_subscription(context.id())?;
                Ok(single(200, "success", "subscription", record, context.id()))
            }
            Verb::Update => self.update_subscription(context),
            Verb::Delete => {
                let id = context.id();
                let record = self.subscriptions.remove(id).ok_or_else(|| Refusal::not_found("Subscription"))?;
                let answer = done("Subscription has been deleted successfully.", id);
                self.event("subscription_deleted", "subscription", &record, context);
                Ok(answer)
            }
            Verb::Cancel => self.cancel_subscription(context),
            Verb::Reactivate => self.reactivate_subscription(context),
            Verb::Activate | Verb::Deactivate | Verb::Void | Verb::Open | Verb::Patch => Err(invalid_url()),
        }
    }

    fn known_subscription(&self, id: &str) -> Result<&Record, Refusal> {
        self.subscriptions.get(id).ok_or_else(|| Refusal::not_found("Subscription"))
    }

    fn create_subscription(&mut self, context: &mut Context<'_>) -> Outcome {
        let body = context.body()?;
        let mut given = fields::read("subscriptions", FIELDS, &body, true, context)?;
        let plan = self.chosen_plan(&given)?;
        let starts = start(&given, context)?;
        let customer_id = match (given.remove("customer_id"), given.remove("customer")) {
            (Some(Value::String(id)), _) if !id.is_empty() => self.known_customer(&id).map(|_| id)?,
            (_, Some(Value::Object(customer))) => self.create_customer(&customer, context)?,
            _ => return Err(Refusal::missing("customer_id")),
        };
        let customer = self.known_customer(&customer_id)?.clone();
        let id = context.ids.record();
        let mut record = Record::new();
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("subscriptions"))?;
        record.insert("reference_id".to_owned(), "".into());
        record.insert("auto_collect".to_owned(), false.into());
        record.extend(given);
        self.set_plan_of(&mut record, &plan);
        let live = starts <= context.today();
        for (key, value) in [
            ("subscription_id", id.clone().into()),
            ("status", if live { "live" } else { "future" }.into()),
            ("customer_id", customer_id.into()),
            ("customer_name", customer["display_name"].clone()),
            ("email", customer["email"].clone()),
            ("customer", list::row(&customer, &["customer_id", "display_name", "email", "company_name"])),
            ("currency_code", customer["currency_code"].clone()),
            ("created_at", context.today().to_string().into()),
            ("activated_at", if live { starts.to_string() } else { String::new() }.into()),
            ("starts_at", starts.to_string().into()),
            ("current_term_starts_at", starts.to_string().into()),
            ("end_of_term", false.into()),
            ("created_time", context.now()),
            ("updated_time", context.now()),
        ] {
            record.insert(key.to_owned(), value);
        }
        set_term(&mut record, starts);
        self.event("subscription_created", "subscription", &record, context);
        if live {
            self.event("subscription_activation", "subscription", &record, context);
        }
        let record = self.subscriptions.entry(id.clone()).or_insert(record);
        Ok(single(201, "Subscription has been created successfully.", "subscription", record, &id))
    }

    /// The `plan` object completed from the plan itself, with the price that applies.
    fn chosen_plan(&self, given: &Record) -> Result<Record, Refusal> {
        let chosen = given.get("plan").and_then(Value::as_object).ok_or_else(|| Refusal::missing("plan"))?;
        let code = match chosen.get("plan_code").and_then(Value::as_str) {
            Some(code) if !code.is_empty() => code,
            _ => return Err(Refusal::missing("plan_code")),
        };
        let plan = self.plans.get(code).ok_or_else(|| Refusal::not_found("Plan"))?;
        if text(plan, "status") != "active" {
            return Err(Refusal::invalid("plan_code"));
        }
        let amount = |key: &str, otherwise: &Value| match chosen.get(key) {
            None => Ok(Money::from_json(otherwise).unwrap_or_default()),
            Some(value) => Money::from_json(value).filter(|money| !money.is_negative()).ok_or_else(|| Refusal::invalid(key)),
        };
        let price = amount("price", &plan["recurring_price"])?;
        let quantity = amount("quantity", &1.into())?;
        let mut full = chosen.clone();
        full.insert("plan_code".to_owned(), code.into());
        full.insert("name".to_owned(), plan["name"].clone());
        full.insert("price".to_owned(), price.to_json());
        full.insert("quantity".to_owned(), quantity.to_json());
        full.insert("total".to_owned(), price.times(quantity).to_json());
        full.insert("setup_fee".to_owned(), amount("setup_fee", &plan["setup_fee"])?.to_json());
        Ok(full)
    }

    fn set_plan_of(&self, record: &mut Record, plan: &Record) {
        let of_plan = &self.plans[text(plan, "plan_code")];
        let product = self.products.get(text(of_plan, "product_id"));
        let product_name = product.map_or("", |product| text(product, "name"));
        let addons = record.get("addons").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let amount = addons.iter().fold(Money::from_json(&plan["total"]).unwrap_or_default(), |sum, addon| {
            let money = |key: &str| addon.get(key).and_then(Money::from_json);
            let quantity = money("quantity").or_else(|| Money::from_json(&json!(1))).unwrap_or_default();
            sum.plus(money("price").unwrap_or_default().times(quantity))
        });
        for (key, value) in [
            ("name", format!("{product_name}-{}", text(of_plan, "name")).into()),
            ("plan_name", of_plan["name"].clone()),
            ("plan_code", of_plan["plan_code"].clone()),
            ("product_id", of_plan["product_id"].clone()),
            ("product_name", product_name.into()),
            ("interval", of_plan["interval"].clone()),
            ("interval_unit", of_plan["interval_unit"].clone()),
            ("amount", amount.to_json()),
            ("sub_total", amount.to_json()),
            ("plan", Value::Object(plan.clone())),
        ] {
            record.insert(key.to_owned(), value);
        }
    }

    fn update_subscription(&mut self, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        let mut record = self.known_subscription(&id)?.clone();
        let body = context.body()?;
        let mut given = fields::read("subscriptions", FIELDS, &body, false, context)?;
        if matches!(text(&record, "status"), "cancelled" | "expired") {
            return Err(Refusal::not_allowed("A cancelled subscription cannot be changed."));
        }
        // A subscription stays with its customer.
        given.remove("customer");
        if given.remove("customer_id").is_some_and(|id| id != record["customer_id"]) {
            return Err(Refusal::invalid("customer_id"));
        }
        let plan = given.contains_key("plan").then(|| self.chosen_plan(&given)).transpose()?;
        if given.contains_key("starts_at") && text(&record, "status") == "future" {
            let starts = start(&given, context)?;
            record.insert("current_term_starts_at".to_owned(), starts.to_string().into());
        }
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("subscriptions"))?;
        given.remove("plan");
        record.extend(given);
        if let Some(plan) = plan {
            self.set_plan_of(&mut record, &plan);
        }
        record.insert("updated_time".to_owned(), context.now());
        let answer = single(200, "Subscription has been updated successfully.", "subscription", &record, &id);
        self.subscriptions.insert(id, record);
        Ok(answer)
    }

    fn cancel_subscription(&mut self, context: &mut Context<'_>) -> Outcome {
        let mut record = self.known_subscription(context.id())?.clone();
        let at_end = context.flag("cancel_at_end");
        if text(&record, "status") == "cancelled" || (at_end && text(&record, "status") == "non_renewing") {
            return Err(Refusal::not_allowed("The subscription is already cancelled."));
        }
        let (status, event) = if at_end {
            ("non_renewing", "subscription_cancellation_scheduled")
        } else {
            record.insert("cancelled_at".to_owned(), context.today().to_string().into());
            ("cancelled", "subscription_cancelled")
        };
        record.insert("status".to_owned(), status.into());
        record.insert("end_of_term".to_owned(), at_end.into());
        Ok(self.settle(record, event, "The subscription has been cancelled.", context))
    }

    fn reactivate_subscription(&mut self, context: &mut Context<'_>) -> Outcome {
        let mut record = self.known_subscription(context.id())?.clone();
        if !matches!(text(&record, "status"), "non_renewing" | "cancelled") {
            return Err(Refusal::not_allowed("Only a cancelled subscription can be reactivated."));
        }
        record.insert("status".to_owned(), "live".into());
        record.insert("end_of_term".to_owned(), false.into());
        Ok(self.settle(record, "subscription_reactivated", "The subscription has been reactivated.", context))
    }

    fn settle(&mut self, mut record: Record, event: &str, message: &str, context: &mut Context<'_>) -> crate::exchange::Answer {
        record.insert("updated_time".to_owned(), context.now());
        self.event(event, "subscription", &record, context);
        let id = context.id().to_owned();
        let answer = single(200, message, "subscription", &record, &id);
        self.subscriptions.insert(id, record);
        answer
    }

    fn list_subscriptions(&self, context: &mut Context<'_>) -> Outcome {
        let filter = context.request.query("filter_by").unwrap_or("SubscriptionStatus.All");
        let wanted = filter.strip_prefix("SubscriptionStatus.").map(str::to_ascii_lowercase);
        let Some(wanted) = wanted else {
            return Err(Refusal::new(400, 2, "Invalid value passed for filter_by"));
        };
        let of_status = |record: &Record| match wanted.as_str() {
            "all" => true,
            "active" => matches!(text(record, "status"), "live" | "trial" | "non_renewing" | "dunning" | "unpaid"),
            "past_due" => text(record, "status") == "dunning",
            status => text(record, "status") == status,
        };
        let customer = context.request.query("customer_id");
        let reference = context.request.query("reference_contains");
        let rows: Vec<Value> = self
            .subscriptions
            .values()
            .rev()
            .filter(|record| of_status(record))
            .filter(|record| customer.is_none_or(|id| text(record, "customer_id") == id))
            .filter(|record| reference.is_none_or(|part| text(record, "reference_id").contains(part)))
            .map(|record| list::row(record, ROW))
            .collect();
        let listing = Listing { key: "subscriptions", report_name: "Subscriptions", applied_filter: filter };
        Ok(list::page(&listing, &rows, context))
    }
}

fn start(given: &Record, context: &Context<'_>) -> Result<NaiveDate, Refusal> {
    match text(given, "starts_at") {
        "" => Ok(context.today()),
        date => date.parse().map_err(|_| Refusal::invalid("starts_at")),
    }
}

/// The first term's end and the next billing, from the plan's interval.
fn set_term(record: &mut Record, starts: NaiveDate) {
    let count = record["interval"].as_u64().and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
    let next = match text(record, "interval_unit") {
        "weeks" => starts.checked_add_days(Days::new(u64::from(count) * 7)),
        "years" => starts.checked_add_months(Months::new(count.saturating_mul(12))),
        _ => starts.checked_add_months(Months::new(count)),
    }
    .unwrap_or(starts);
    record.insert("current_term_ends_at".to_owned(), next.to_string().into());
    record.insert("next_billing_at".to_owned(), next.to_string().into());
    record.insert("last_billing_at".to_owned(), starts.to_string().into());
    record.insert("expires_at".to_owned(), "".into());
}
