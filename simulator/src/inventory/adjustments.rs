//! Inventory adjustments: `quantity_adjusted` is a signed difference, so that a repeated one moves stock twice
//! (finance fact 5.8).

use serde_json::Value;

use super::{Inventory, Module, Stored, items::value};
use crate::{
    clock::to_second,
    finance::{Context, Record, Refusal, fields, text},
    money::Money,
    outgoing::Operation,
};

impl Inventory {
    pub(super) fn check_adjustment(&self, values: &mut Record) -> Result<(), Refusal> {
        let kind = text(values, "adjustment_type").to_owned();
        let field = match kind.as_str() {
            "quantity" => "quantity_adjusted",
            "value" => "value_adjusted",
            _ => return Err(Refusal::invalid("adjustment_type")),
        };
        let lines = values.get_mut("line_items").and_then(Value::as_array_mut).filter(|lines| !lines.is_empty());
        let lines = lines.ok_or_else(|| Refusal::missing("line_items"))?;
        for line in lines {
            let id = line.get("item_id").and_then(fields::id).ok_or_else(|| Refusal::missing("item_id"))?;
            let item = self.known(Module::Items, &id)?;
            let amount = line.get(field).and_then(Money::from_json).ok_or_else(|| Refusal::invalid(field))?;
            line["item_id"] = id.into();
            line["name"] = value(&item.values, "name");
            line[field] = amount.to_json();
        }
        Ok(())
    }

    /// Moves the stock by what the adjustment is now, less what it was.
    pub(super) fn move_stock(&mut self, values: &Record, before: Option<&Record>, context: &mut Context<'_>) {
        let back = before.map(deltas).unwrap_or_default().into_iter().map(|(id, delta)| (id, Money::ZERO.minus(delta)));
        let moves: Vec<(String, Money)> = deltas(values).into_iter().chain(back).collect();
        for (id, delta) in moves.into_iter().filter(|(_, delta)| *delta != Money::ZERO) {
            let Some(item) = self.modules.get_mut(&Module::Items).and_then(|items| items.get_mut(&id)) else { continue };
            shift(item, delta);
            if context.scenario.inventory.stock_bumps {
                item.modified = to_second(context.now);
                self.changed(Module::Items, &id, Operation::Edit, context.zone(), context.changes);
            }
        }
    }

    pub(super) fn is_adjusted(&self, item: &str) -> bool {
        self.records(Module::Adjustments).any(|(_, adjustment)| {
            let lines = adjustment.values.get("line_items").and_then(Value::as_array);
            lines.is_some_and(|lines| lines.iter().any(|line| line["item_id"] == *item))
        })
    }
}

/// Adds to all figures of an item's stock.
fn shift(item: &mut Stored, delta: Money) {
    for name in ["stock_on_hand", "available_stock", "actual_available_stock"] {
        let stock = item.values.get(name).and_then(Money::from_json).unwrap_or_default();
        item.values.insert(name.to_owned(), stock.plus(delta).to_json());
    }
}

/// By how much each item's quantity is adjusted.
fn deltas(adjustment: &Record) -> Vec<(String, Money)> {
    let lines = adjustment.get("line_items").and_then(Value::as_array);
    let delta = |line: &Value| Some((fields::id(line.get("item_id")?)?, Money::from_json(line.get("quantity_adjusted")?)?));
    lines.into_iter().flatten().filter_map(delta).collect()
}
