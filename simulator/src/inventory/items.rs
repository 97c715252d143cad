//! Items: names are taken once, SKUs as often as anyone likes; stock is given once and then moves by transactions.

use serde_json::{Value, json};

use super::{Inventory, Module};
use crate::{
    exchange::Answer,
    finance::{Context, Outcome, Record, Refusal, text},
    money::Money,
};

/// Most ids of one `itemdetails` call (finance fact 5.3: what clients keep to; the true cap is unverified).
const MOST_DETAILS: usize = 100;

impl Inventory {
    /// Code 1001 for a name that is taken (finance fact 4.3). A SKU may be taken twice.
    pub(super) fn check_item(&self, own: Option<&str>, values: &mut Record) -> Result<(), Refusal> {
        let name = text(values, "name").to_lowercase();
        let taken = self.records(Module::Items).any(|(id, other)| own != Some(id) && text(&other.values, "name").to_lowercase() == name);
        if taken {
            return Err(Refusal::exists(format!("Item \"{}\" already exists", text(values, "name"))));
        }
        match values.get("rate").map(Money::from_json) {
            Some(Some(rate)) if rate.is_negative() => return Err(Refusal::invalid("rate")),
            _ => {}
        }
        match text(values, "item_type") {
            "inventory" | "sales" | "purchases" | "sales_and_purchases" => {}
            _ => return Err(Refusal::invalid("item_type")),
        }
        let category = text(values, "category_id").to_owned();
        let category_name = match category.as_str() {
            "" => Value::from(""),
            id => value(&self.known(Module::Categories, id)?.values, "name"),
        };
        values.insert("category_name".to_owned(), category_name);
        // Stock is no field: only adjustments and transactions move it.
        values.remove("locations");
        copy_name(values);
        Ok(())
    }

    /// `GET /itemdetails?item_ids=a,b`: full records, in the order asked for; unknown ids are left out (unverified).
    pub(super) fn item_details(&self, context: &Context<'_>) -> Outcome {
        let ids: Vec<&str> = context.request.query("item_ids").unwrap_or_default().split(',').filter(|id| !id.is_empty()).collect();
        if ids.is_empty() || ids.len() > MOST_DETAILS {
            return Err(Refusal::new(400, 2, "Invalid value passed for item_ids"));
        }
        let found = ids.iter().filter_map(|id| {
            let stored = self.known(Module::Items, id).ok()?;
            Some(Value::Object(self.full(Module::Items, id, stored, context.zone())))
        });
        let items: Vec<Value> = found.collect();
        let ids = ids.into_iter().map(str::to_owned).collect();
        Ok(Answer::json(200, json!({ "code": 0, "message": "success", "items": items })).with_ids(ids))
    }

    /// The stock by location: all of it is at the primary one.
    pub(super) fn stock_by_location(&self, values: &Record) -> Value {
        let rows = self.records(Module::Locations).map(|(id, location)| {
            let here = value(&location.values, "is_primary") == true;
            let stock = |name: &str| match (here, values.get(name)) {
                (true, Some(stock)) => stock.clone(),
                _ => 0.into(),
            };
            json!({
                "location_id": id,
                "location_name": value(&location.values, "location_name"),
                "status": value(&location.values, "status"),
                "is_primary": here,
                "location_stock_on_hand": stock("stock_on_hand"),
                "location_available_stock": stock("available_stock"),
                "location_actual_available_stock": stock("actual_available_stock"),
            })
        });
        rows.collect()
    }
}

/// A field's value; null if a person left it out.
pub(super) fn value(values: &Record, name: &str) -> Value {
    values.get(name).cloned().unwrap_or_default()
}

/// What follows from a name and a type.
pub(super) fn copy_name(values: &mut Record) {
    if let Some(name) = values.get("name").cloned().filter(|_| values.contains_key("item_type")) {
        values.insert("item_name".to_owned(), name);
        let tracked = text(values, "item_type") == "inventory";
        values.insert("track_inventory".to_owned(), tracked.into());
    }
}

/// The stock that a new item starts with; `""` in all its fields for an item that is not tracked.
pub(super) fn set_opening_stock(values: &mut Record, body: &Record) {
    values.remove("initial_stock");
    copy_name(values);
    if text(values, "item_type") != "inventory" {
        return;
    }
    let of_locations = body.get("locations").and_then(Value::as_array).map(|locations| {
        let stock = locations.iter().filter_map(|location| Money::from_json(location.get("initial_stock")?));
        stock.fold(Money::ZERO, Money::plus)
    });
    let given = body.get("stock_on_hand").or_else(|| body.get("initial_stock")).and_then(Money::from_json);
    let stock = given.or(of_locations).unwrap_or_default().to_json();
    for name in ["stock_on_hand", "available_stock", "actual_available_stock"] {
        values.insert(name.to_owned(), stock.clone());
    }
}
