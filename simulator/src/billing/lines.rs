//! The lines of an invoice: what each must name, and what it comes to.

use serde_json::{Value, json};

use super::{Billing, Context, Record, Refusal, fields, text};
use crate::money::Money;

impl Billing {
    /// The lines with their ids and totals. A line that keeps its `item_id` keeps it; others get one.
    pub(super) fn lines(&self, given: &Record, context: &mut Context<'_>) -> Result<Vec<Value>, Refusal> {
        let lines = given.get("invoice_items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if lines.is_empty() {
            return Err(Refusal::missing("invoice_items"));
        }
        lines.iter().enumerate().map(|(index, line)| self.line(line, index, context)).collect()
    }

    fn line(&self, line: &Value, index: usize, context: &mut Context<'_>) -> Result<Value, Refusal> {
        let mut line = line.as_object().cloned().ok_or_else(|| Refusal::invalid("invoice_items"))?;
        let product = match line.get("product_id").filter(|id| !matches!(id.as_str(), Some(""))) {
            Some(value) => {
                let id = fields::id(value).ok_or_else(|| Refusal::invalid("product_id"))?;
                Some(self.products.get(&id).ok_or_else(|| Refusal::not_found("Product"))?)
            }
            None if text(&line, "name").is_empty() => return Err(Refusal::missing("product_id")),
            None => None,
        };
        if let Some(product) = product {
            line.insert("product_id".to_owned(), product["product_id"].clone());
            line.entry("name").or_insert_with(|| product["name"].clone());
        }
        let money = |key: &str, otherwise: Option<Money>| match line.get(key) {
            None => otherwise.ok_or_else(|| Refusal::missing(key)),
            Some(value) => Money::from_json(value).ok_or_else(|| Refusal::invalid(key)),
        };
        let price = money("price", None)?;
        let quantity = money("quantity", Money::from_json(&json!(1)))?;
        let tax = money("tax_percentage", Some(Money::ZERO))?;
        if text(&line, "description").chars().count() >= 2_000 {
            return Err(Refusal::new(400, 15, "Please ensure that the description has less than 2000 characters."));
        }
        let total = price.times(quantity);
        let item_id = line.get("item_id").and_then(fields::id).unwrap_or_else(|| context.ids.record());
        for (key, value) in [
            ("item_id", item_id.into()),
            ("price", price.to_json()),
            ("quantity", quantity.to_json()),
            ("tax_percentage", tax.to_json()),
            ("item_order", index.into()),
            ("item_total", total.to_json()),
        ] {
            line.insert(key.to_owned(), value);
        }
        line.entry("description").or_insert_with(|| "".into());
        Ok(Value::Object(line))
    }
}
