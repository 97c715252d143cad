//! Invoices: totals from their lines, status from their payments, and numbers of our own that cannot be taken twice.

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
    must("customer_id", Kind::Id),
    must("date", Kind::Date),
    must("invoice_items", Kind::List),
    may("invoice_number", Kind::Text(100)),
    may("reference_number", Kind::Text(100)),
    may("due_date", Kind::Date),
    may("payment_terms", Kind::Whole),
    may("payment_terms_label", Kind::Text(100)),
    may("discount", Kind::Money),
    may("discount_type", Kind::Text(100)),
    may("is_discount_before_tax", Kind::Flag),
    may("is_inclusive_tax", Kind::Flag),
    may("exchange_rate", Kind::Money),
    may("shipping_charge", Kind::Money),
    may("adjustment", Kind::Money),
    may("adjustment_description", Kind::Text(200)),
    may("salesperson_name", Kind::Text(200)),
    may("notes", Kind::Text(10_000)),
    may("terms", Kind::Text(10_000)),
    may("reason", Kind::Text(200)),
    may("contact_persons", Kind::List),
    may("place_of_supply", Kind::Text(100)),
    may("template_id", Kind::Id),
    may("project_id", Kind::Id),
    may("payment_options", Kind::Object),
    may("allow_partial_payments", Kind::Flag),
    may("custom_fields", Kind::CustomFields),
];

/// List rows say `number` and `invoice_date`, not `invoice_number` and `date` (finance fact 5.11).
const ROW: &[&str] = &[
    "invoice_id",
    "status",
    "due_date",
    "customer_id",
    "customer_name",
    "email",
    "balance",
    "total",
    "currency_code",
    "reference_number",
    "created_time",
    "updated_time",
];

impl Billing {
    pub(super) fn invoice(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        match verb {
            Verb::Create => self.create_invoice(context),
            Verb::List => self.list_invoices(context),
            Verb::Get => {
                let record = self.invoices.get(context.id()).ok_or_else(missing)?;
                Ok(single(200, "success", "invoice", record, context.id()))
            }
            Verb::Update => self.update_invoice(context),
            Verb::Delete => {
                let record = self.invoices.get(context.id()).ok_or_else(missing)?;
                if paid(record) != Money::ZERO {
                    return Err(Refusal::not_allowed("Invoices with payments cannot be deleted."));
                }
                self.invoices.remove(context.id());
                Ok(done("The invoice has been deleted.", context.id()))
            }
            Verb::Void => self.void_invoice(context),
            Verb::Open => self.open_invoice(context),
            Verb::Activate | Verb::Deactivate | Verb::Cancel | Verb::Reactivate | Verb::Patch => Err(invalid_url()),
        }
    }

    fn create_invoice(&mut self, context: &mut Context<'_>) -> Outcome {
        let body = context.body()?;
        let mut given = fields::read("invoices", FIELDS, &body, true, context)?;
        let customer = self.known_customer(text(&given, "customer_id"))?.clone();
        let number = self.take_number(&given, context)?;
        let lines = self.lines(&given, context)?;
        given.insert("invoice_items".to_owned(), lines.into());
        let id = context.ids.record();
        let mut record = Record::new();
        for (key, value) in [
            ("reference_number", "".into()),
            ("notes", "".into()),
            ("due_date", given["date"].clone()),
            ("discount", 0.into()),
            ("shipping_charge", 0.into()),
            ("adjustment", 0.into()),
            ("payment_made", 0.into()),
            ("credits_applied", 0.into()),
            ("write_off_amount", 0.into()),
            ("custom_fields", json!([])),
            ("custom_field_hash", json!({})),
        ] {
            record.insert(key.to_owned(), value);
        }
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("invoices"))?;
        record.extend(given);
        let sent = context.flag("send");
        for (key, value) in [
            ("invoice_id", id.clone().into()),
            ("invoice_number", number.into()),
            ("customer_name", customer["display_name"].clone()),
            ("email", customer["email"].clone()),
            ("currency_code", customer["currency_code"].clone()),
            ("status", if sent { "sent" } else { "draft" }.into()),
            ("is_emailed", sent.into()),
            ("created_time", context.now()),
            ("updated_time", context.now()),
        ] {
            record.insert(key.to_owned(), value);
        }
        settle(&mut record, context);
        self.event("invoice_created", "invoice", &record, context);
        let record = self.invoices.entry(id.clone()).or_insert(record);
        Ok(single(201, "The invoice has been created.", "invoice", record, &id))
    }

    /// The next number, or our own. An own number needs `ignore_auto_number_generation=true`, and the flag needs a
    /// number; a number that is taken is refused (code 1001 is *unverified* here).
    fn take_number(&mut self, given: &Record, context: &Context<'_>) -> Result<String, Refusal> {
        let own = context.flag("ignore_auto_number_generation");
        match (text(given, "invoice_number"), own) {
            ("", true) => Err(Refusal::missing("invoice_number")),
            ("", false) => loop {
                self.last_invoice_number += 1;
                let number = format!("INV-{:06}", self.last_invoice_number);
                if !self.has_number(&number, None) {
                    return Ok(number);
                }
            },
            (_, false) => Err(Refusal::invalid("invoice_number")),
            (number, true) if self.has_number(number, None) => Err(Refusal::exists(format!("Invoice number \"{number}\" already exists"))),
            (number, true) => Ok(number.to_owned()),
        }
    }

    fn has_number(&self, number: &str, except: Option<&str>) -> bool {
        self.invoices.iter().any(|(id, invoice)| except != Some(id) && text(invoice, "invoice_number") == number)
    }

    fn update_invoice(&mut self, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        let mut record = self.invoices.get(&id).cloned().ok_or_else(missing)?;
        let body = context.body()?;
        let mut given = fields::read("invoices", FIELDS, &body, false, context)?;
        if text(&record, "status") == "void" {
            return Err(Refusal::not_allowed("A void invoice cannot be changed."));
        }
        if given.contains_key("customer_id") && given["customer_id"] != record["customer_id"] {
            self.known_customer(text(&given, "customer_id"))?;
            return Err(Refusal::invalid("customer_id"));
        }
        let number = text(&given, "invoice_number");
        if given.contains_key("invoice_number") && number != text(&record, "invoice_number") {
            if number.is_empty() || !context.flag("ignore_auto_number_generation") {
                return Err(Refusal::invalid("invoice_number"));
            }
            if self.has_number(number, Some(&id)) {
                return Err(Refusal::exists(format!("Invoice number \"{number}\" already exists")));
            }
        }
        if given.contains_key("invoice_items") {
            let lines = self.lines(&given, context)?;
            given.insert("invoice_items".to_owned(), lines.into());
        }
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("invoices"))?;
        record.extend(given);
        record.insert("updated_time".to_owned(), context.now());
        settle(&mut record, context);
        if balance(&record).is_negative() {
            return Err(Refusal::invalid("invoice_items"));
        }
        let answer = single(200, "Invoice information has been updated.", "invoice", &record, &id);
        self.invoices.insert(id, record);
        Ok(answer)
    }

    /// A void invoice keeps its balance (finance fact 5.4).
    fn void_invoice(&mut self, context: &Context<'_>) -> Outcome {
        let record = self.invoices.get_mut(context.id()).ok_or_else(missing)?;
        if text(record, "status") == "void" || paid(record) != Money::ZERO {
            return Err(Refusal::not_allowed("Invoices that are void or have payments cannot be voided."));
        }
        record.insert("status".to_owned(), "void".into());
        record.insert("updated_time".to_owned(), context.now());
        Ok(done("Invoice status has been changed to Void.", context.id()))
    }

    fn open_invoice(&mut self, context: &Context<'_>) -> Outcome {
        let record = self.invoices.get_mut(context.id()).ok_or_else(missing)?;
        if !matches!(text(record, "status"), "draft" | "void") {
            return Err(Refusal::not_allowed("The invoice is already open."));
        }
        record.insert("status".to_owned(), "sent".into());
        record.insert("updated_time".to_owned(), context.now());
        settle(record, context);
        Ok(done("Status of the invoice has been changed to open.", context.id()))
    }

    fn list_invoices(&self, context: &mut Context<'_>) -> Outcome {
        let filter = context.request.query("filter_by").unwrap_or("Status.All");
        let wanted = filter.strip_prefix("Status.").map(str::to_ascii_lowercase);
        let Some(wanted) = wanted else {
            return Err(Refusal::new(400, 2, "Invalid value passed for filter_by"));
        };
        let customer = context.request.query("customer_id");
        let rows: Vec<Value> = self
            .invoices
            .values()
            .rev()
            .filter(|record| customer.is_none_or(|id| text(record, "customer_id") == id))
            .filter(|record| wanted == "all" || text(record, "status").replace('_', "") == wanted.replace('_', ""))
            .map(|record| {
                let mut row = list::row(record, ROW);
                row["number"] = record["invoice_number"].clone();
                row["invoice_date"] = record["date"].clone();
                row
            })
            .collect();
        let listing = Listing { key: "invoices", report_name: "Invoices", applied_filter: filter };
        Ok(list::page(&listing, &rows, context))
    }

    /// Adds a payment's share to an invoice, or takes it back (a negative share).
    pub(super) fn pay_invoice(&mut self, id: &str, share: Money, context: &Context<'_>) {
        if let Some(record) = self.invoices.get_mut(id) {
            let made = paid(record).plus(share);
            record.insert("payment_made".to_owned(), made.to_json());
            record.insert("last_payment_date".to_owned(), context.today().to_string().into());
            record.insert("updated_time".to_owned(), context.now());
            settle(record, context);
        }
    }
}

fn missing() -> Refusal {
    Refusal::not_found("Invoice")
}

fn paid(record: &Record) -> Money {
    record.get("payment_made").and_then(Money::from_json).unwrap_or_default()
}

pub(super) fn balance(record: &Record) -> Money {
    record.get("balance").and_then(Money::from_json).unwrap_or_default()
}

/// Total, balance and status, from lines, charges and payments.
fn settle(record: &mut Record, context: &Context<'_>) {
    let money = |key: &str| record.get(key).and_then(Money::from_json).unwrap_or_default();
    let (mut sub_total, mut tax_total) = (Money::ZERO, Money::ZERO);
    for line in record.get("invoice_items").and_then(Value::as_array).into_iter().flatten() {
        let of = |key: &str| line.get(key).and_then(Money::from_json).unwrap_or_default();
        sub_total = sub_total.plus(of("item_total"));
        tax_total = tax_total.plus(of("item_total").percent(of("tax_percentage")));
    }
    let charges = money("shipping_charge").plus(money("adjustment")).minus(money("discount"));
    let total = sub_total.plus(tax_total).plus(charges);
    let paid = money("payment_made");
    let balance = total.minus(paid);
    let overdue = text(record, "due_date").parse().is_ok_and(|due: chrono::NaiveDate| due < context.today());
    let status = match text(record, "status") {
        "void" => "void",
        _ if balance == Money::ZERO && paid > Money::ZERO => "paid",
        _ if paid > Money::ZERO => "partially_paid",
        "draft" => "draft",
        _ if overdue => "overdue",
        _ => "sent",
    };
    for (key, value) in [
        ("sub_total", sub_total.to_json()),
        ("tax_total", tax_total.to_json()),
        ("total", total.to_json()),
        ("balance", balance.to_json()),
        ("status", status.into()),
    ] {
        record.insert(key.to_owned(), value);
    }
}
