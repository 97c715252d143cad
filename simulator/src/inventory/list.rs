//! Lists: filtered, sorted, a page of partial rows.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::{Inventory, Module, Stored};
use crate::{
    clock::parse_time,
    finance::{
        Context, Outcome, Record, Refusal,
        list::{self, Listing},
        text,
    },
    money::Money,
};

/// What a column is sorted by. Values of one column are of one kind, but for blanks.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Blank,
    Number(Money),
    Time(DateTime<Utc>),
    Text(String),
}

impl Inventory {
    pub(super) fn list(&self, module: Module, context: &Context<'_>) -> Outcome {
        let spec = module.spec();
        let filter = context.request.query("filter_by").unwrap_or("Status.All");
        let (column, order) = sort(module, context)?;
        let since = since(module, context)?;
        let status = status(module, filter)?;
        let fits = |stored: &Stored| {
            since.is_none_or(|(at, inclusive)| stored.modified > at || (inclusive && stored.modified == at))
                && status.fits(&stored.values)
                && (module != Module::Items || exact(&stored.values, context))
        };
        let mut rows: Vec<(&String, &Stored)> = self.records(module).filter(|(_, stored)| fits(stored)).collect();
        // Stable, so that rows of one value stay in the order of their ids.
        rows.sort_by_cached_key(|(_, stored)| key(column, stored));
        if order == "D" {
            rows.reverse();
        }
        let listing = Listing { key: spec.keys, report_name: spec.report_name, applied_filter: filter };
        let with_custom = context.scenario.inventory.list_custom_fields;
        let show = |(id, stored): &(&String, &Stored)| {
            let mut row = self.full(module, id, stored, context.zone());
            let custom = row.remove("custom_field_hash").filter(|_| with_custom && !spec.hidden.is_empty());
            row.retain(|name, _| !spec.hidden.contains(&name.as_str()));
            if let Some(Value::Object(custom)) = custom {
                row.extend(custom);
            }
            Value::Object(row)
        };
        Ok(list::sorted_page(&listing, (column, order), &rows, context, show))
    }
}

/// The column and the order; code 2 for a column that cannot be sorted by.
fn sort<'a>(module: Module, context: &'a Context<'_>) -> Result<(&'static str, &'a str), Refusal> {
    let spec = module.spec();
    let column = match context.request.query("sort_column") {
        None => spec.sorts[0],
        Some(asked) => spec
            .sorts
            .iter()
            .find(|column| **column == asked)
            .ok_or_else(|| Refusal::new(400, 2, "Invalid value passed for sort_column"))?,
    };
    match context.request.query("sort_order") {
        None => Ok((column, spec.order)),
        Some("A" | "ascending") => Ok((column, "A")),
        Some("D" | "descending") => Ok((column, "D")),
        Some(_) => Err(Refusal::new(400, 2, "Invalid value passed for sort_order")),
    }
}

/// The instant after which rows were modified, and whether it is included. Only items have this filter; elsewhere it
/// is ignored, as Zoho ignores what it does not know (finance facts 2.6, 2.7).
fn since(module: Module, context: &Context<'_>) -> Result<Option<(DateTime<Utc>, bool)>, Refusal> {
    let rules = &context.scenario.inventory;
    match context.request.query("last_modified_time") {
        Some(_) if module != Module::Items || rules.ignore_modified_filter => Ok(None),
        Some(text) => {
            let at = parse_time(text).ok_or_else(|| Refusal::new(400, 2, "Invalid value passed for last_modified_time"))?;
            Ok(Some((at, context.scenario.modified_since_inclusive)))
        }
        None => Ok(None),
    }
}

/// What `filter_by` asks of a record.
enum Status {
    All,
    Is(&'static str),
    LowStock,
    Uncategorized,
    Grouped,
}

impl Status {
    fn fits(&self, values: &Record) -> bool {
        match self {
            Self::All => true,
            Self::Is(status) => text(values, "status") == *status,
            Self::LowStock => {
                let money = |name: &str| values.get(name).and_then(Money::from_json);
                money("stock_on_hand").zip(money("reorder_level")).is_some_and(|(stock, level)| stock <= level)
            }
            Self::Uncategorized => text(values, "category_id").is_empty(),
            Self::Grouped => !text(values, "group_id").is_empty(),
        }
    }
}

fn status(module: Module, filter: &str) -> Result<Status, Refusal> {
    match (filter, module) {
        ("Status.All", _) => Ok(Status::All),
        ("Status.Active", _) => Ok(Status::Is("active")),
        ("Status.Inactive", _) => Ok(Status::Is("inactive")),
        ("Status.Lowstock", Module::Items) => Ok(Status::LowStock),
        ("Status.Uncategorized", Module::Items) => Ok(Status::Uncategorized),
        ("Status.Grouped", Module::Items) => Ok(Status::Grouped),
        _ => Err(Refusal::new(400, 2, "Invalid value passed for filter_by")),
    }
}

/// The filters by value that a list of items takes.
fn exact(values: &Record, context: &Context<'_>) -> bool {
    let lower = |name: &str| text(values, name).to_lowercase();
    context.request.query.iter().all(|(name, wanted)| {
        let wanted = wanted.to_lowercase();
        match name.as_str() {
            "name" | "sku" | "status" | "category_id" | "vendor_id" | "group_id" => lower(name) == wanted,
            "name_contains" => lower("name").contains(&wanted),
            "name_startswith" => lower("name").starts_with(&wanted),
            "sku_contains" => lower("sku").contains(&wanted),
            "sku_startswith" => lower("sku").starts_with(&wanted),
            "search_text" => ["name", "sku", "description"].into_iter().any(|field| lower(field).contains(&wanted)),
            _ => true,
        }
    })
}

fn key(column: &str, stored: &Stored) -> Key {
    match column {
        "created_time" => Key::Time(stored.created),
        "last_modified_time" => Key::Time(stored.modified),
        _ => match stored.values.get(column) {
            None | Some(Value::Null) => Key::Blank,
            Some(Value::String(text)) if text.is_empty() => Key::Blank,
            Some(value @ Value::Number(_)) => Money::from_json(value).map_or(Key::Blank, Key::Number),
            Some(value) => Key::Text(value.as_str().unwrap_or_default().to_lowercase()),
        },
    }
}
