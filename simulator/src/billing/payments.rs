//! Payments, which reduce the balances of invoices, and the list of transactions, which is the only way to find one.

use serde_json::{Value, json};

use super::{
    Billing, Context, Outcome, Record, Refusal, done,
    fields::{self, Field, Kind, may, must},
    invalid_url, invoices,
    list::{self, Listing},
    single, text,
};
use crate::{money::Money, operations::Verb};

const FIELDS: &[Field] = &[
    must("customer_id", Kind::Id),
    must("payment_mode", Kind::Text(100)),
    must("amount", Kind::Money),
    may("date", Kind::Date),
    may("reference_number", Kind::Text(100)),
    may("description", Kind::Text(2_000)),
    may("invoices", Kind::List),
    may("exchange_rate", Kind::Money),
    may("bank_charges", Kind::Money),
    may("tax_account_id", Kind::Id),
    may("account_id", Kind::Id),
    may("custom_fields", Kind::CustomFields),
];

/// One invoice's share of a payment.
struct Share {
    invoice_id: String,
    amount: Money,
}

impl Billing {
    pub(super) fn payment(&mut self, verb: Verb, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        match verb {
            Verb::Create => self.create_payment(context),
            Verb::Get => {
                let record = self.payments.get(&id).ok_or_else(missing)?;
                Ok(single(200, "success", "payment", record, &id))
            }
            Verb::Update => self.update_payment(&id, context),
            Verb::Delete => {
                let record = self.payments.remove(&id).ok_or_else(missing)?;
                self.take_back(&record, context);
                Ok(done("The payment has been deleted.", &id))
            }
            Verb::List | Verb::Patch | Verb::Activate | Verb::Deactivate | Verb::Cancel | Verb::Reactivate | Verb::Void | Verb::Open => {
                Err(invalid_url())
            }
        }
    }

    fn create_payment(&mut self, context: &mut Context<'_>) -> Outcome {
        let body = context.body()?;
        let mut given = fields::read("payments", FIELDS, &body, true, context)?;
        let customer = self.known_customer(text(&given, "customer_id"))?.clone();
        let amount = amount_of(&given)?;
        let shares = self.shares(&given, amount, text(&given, "customer_id"))?;
        let id = context.ids.record();
        self.last_payment_number += 1;
        let mut record = Record::new();
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("payments"))?;
        for (key, value) in [
            ("date", context.today().to_string().into()),
            ("reference_number", "".into()),
            ("description", "".into()),
            ("bank_charges", 0.into()),
        ] {
            record.insert(key.to_owned(), value);
        }
        record.extend(given);
        for (key, value) in [
            ("payment_id", id.clone().into()),
            ("payment_number", self.last_payment_number.to_string().into()),
            ("status", "success".into()),
            ("customer_name", customer["display_name"].clone()),
            ("email", customer["email"].clone()),
            ("currency_code", customer["currency_code"].clone()),
            ("amount_refunded", 0.into()),
            ("created_time", context.now()),
            ("updated_time", context.now()),
        ] {
            record.insert(key.to_owned(), value);
        }
        self.apply(&mut record, amount, &shares, context);
        self.event("payment_thankyou", "payment", &record, context);
        let record = self.payments.entry(id.clone()).or_insert(record);
        Ok(single(201, "The payment has been created.", "payment", record, &id))
    }

    fn update_payment(&mut self, id: &str, context: &mut Context<'_>) -> Outcome {
        let old = self.payments.get(id).cloned().ok_or_else(missing)?;
        let body = context.body()?;
        let mut given = fields::read("payments", FIELDS, &body, false, context)?;
        if given.contains_key("customer_id") && given["customer_id"] != old["customer_id"] {
            return Err(Refusal::invalid("customer_id"));
        }
        let mut record = old.clone();
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut record, custom, context.custom_fields("payments"))?;
        record.extend(given);
        let amount = amount_of(&record)?;
        // The shares are judged as if the old ones had never been; on refusal the old ones stand again.
        self.take_back(&old, context);
        let shares = match self.shares(&record, amount, text(&old, "customer_id")) {
            Ok(shares) => shares,
            Err(refusal) => {
                self.give_again(&old, context);
                return Err(refusal);
            }
        };
        self.apply(&mut record, amount, &shares, context);
        record.insert("updated_time".to_owned(), context.now());
        let answer = single(200, "The payment has been updated.", "payment", &record, id);
        self.payments.insert(id.to_owned(), record);
        Ok(answer)
    }

    /// The shares a payment gives, checked against each invoice's balance and the payment's amount. The codes of
    /// an excess are *unverified*.
    fn shares(&self, given: &Record, amount: Money, customer_id: &str) -> Result<Vec<Share>, Refusal> {
        let mut shares: Vec<Share> = Vec::new();
        let mut left = amount;
        for entry in given.get("invoices").and_then(Value::as_array).into_iter().flatten() {
            let id = entry.get("invoice_id").and_then(fields::id).ok_or_else(|| Refusal::missing("invoice_id"))?;
            let applied = entry.get("amount_applied").ok_or_else(|| Refusal::missing("amount_applied"))?;
            let share = Money::from_json(applied).filter(|share| !share.is_negative());
            let share = share.ok_or_else(|| Refusal::invalid("amount_applied"))?;
            let invoice = self.invoices.get(&id).ok_or_else(|| Refusal::not_found("Invoice"))?;
            if text(invoice, "customer_id") != customer_id || text(invoice, "status") == "void" {
                return Err(Refusal::invalid("invoice_id"));
            }
            let earlier = shares.iter().filter(|other| other.invoice_id == id);
            let already = earlier.fold(Money::ZERO, |sum, other| sum.plus(other.amount));
            if already.plus(share) > invoices::balance(invoice) {
                let number = text(invoice, "invoice_number");
                let message = format!("Invalid value passed for amount_applied: more than the balance of {number}");
                return Err(Refusal::new(400, 4, message));
            }
            if share > left {
                let message = "Invalid value passed for amount_applied: more than the payment's amount";
                return Err(Refusal::new(400, 4, message));
            }
            left = left.minus(share);
            shares.push(Share { invoice_id: id, amount: share });
        }
        Ok(shares)
    }

    fn apply(&mut self, record: &mut Record, amount: Money, shares: &[Share], context: &Context<'_>) {
        let mut unused = amount;
        let mut rows = Vec::new();
        for share in shares {
            self.pay_invoice(&share.invoice_id, share.amount, context);
            unused = unused.minus(share.amount);
            let invoice = &self.invoices[&share.invoice_id];
            rows.push(json!({
                "invoice_id": share.invoice_id,
                "invoice_number": invoice["invoice_number"],
                "date": invoice["date"],
                "invoice_amount": invoice["total"],
                "amount_applied": share.amount.to_json(),
                "balance_amount": invoice["balance"],
            }));
        }
        record.insert("invoices".to_owned(), rows.into());
        record.insert("unused_amount".to_owned(), unused.to_json());
    }

    fn take_back(&mut self, record: &Record, context: &Context<'_>) {
        for (invoice_id, share) in recorded_shares(record) {
            self.pay_invoice(&invoice_id, Money::ZERO.minus(share), context);
        }
    }

    fn give_again(&mut self, record: &Record, context: &Context<'_>) {
        for (invoice_id, share) in recorded_shares(record) {
            self.pay_invoice(&invoice_id, share, context);
        }
    }

    /// `GET /transactions`: invoices and payments of a customer (finance fact 4.2). `transaction_id` is the
    /// record's own id; what Zoho means by `reference_id` is not documented, here it is the same.
    pub(super) fn transactions(&self, context: &mut Context<'_>) -> Outcome {
        let filter = context.request.query("filter_by").unwrap_or("TransactionType.All");
        let (invoices, payments) = match filter {
            "TransactionType.All" => (true, true),
            "TransactionType.INVOICE" => (true, false),
            "TransactionType.PAYMENT" => (false, true),
            "TransactionType.CREDIT" | "TransactionType.REFUND" => (false, false),
            _ => return Err(Refusal::new(400, 2, "Invalid value passed for filter_by")),
        };
        let customer = context.request.query("customer_id");
        let of_customer = |record: &&Record| customer.is_none_or(|id| text(record, "customer_id") == id);
        let row = |record: &Record, key: &str, kind: &str, amount: &str| {
            let amount = record.get(amount).and_then(Money::from_json).unwrap_or_default();
            json!({
                "transaction_id": record[key],
                "reference_id": record[key],
                "customer_id": record["customer_id"],
                "date": record["date"],
                "type": kind,
                "status": record["status"],
                "amount": amount.to_text(),
            })
        };
        let mut rows = Vec::new();
        if payments {
            let found = self.payments.values().rev().filter(of_customer);
            rows.extend(found.map(|record| row(record, "payment_id", "payment", "amount")));
        }
        if invoices {
            let found = self.invoices.values().rev().filter(of_customer);
            rows.extend(found.map(|record| row(record, "invoice_id", "invoice", "total")));
        }
        let listing = Listing { key: "transactions", report_name: "Transactions", applied_filter: filter };
        Ok(list::page(&listing, &rows, context))
    }
}

fn missing() -> Refusal {
    Refusal::not_found("Payment")
}

fn amount_of(record: &Record) -> Result<Money, Refusal> {
    let amount = record.get("amount").and_then(Money::from_json);
    amount.filter(|amount| *amount > Money::ZERO).ok_or_else(|| Refusal::invalid("amount"))
}

fn recorded_shares(record: &Record) -> Vec<(String, Money)> {
    let rows = record.get("invoices").and_then(Value::as_array).into_iter().flatten();
    rows.filter_map(|row| {
        let id = row.get("invoice_id").and_then(Value::as_str)?;
        Some((id.to_owned(), row.get("amount_applied").and_then(Money::from_json)?))
    })
    .collect()
}
