//! Records as the admin API shows and edits them: as a person in Zoho's own pages would, unchecked and uncounted.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::{Mistake, Outcome, body, mistake};
use crate::{billing, exchange::Request, inventory::Module, outgoing::Change, scenario::Seed, state::State};

pub(super) fn show(state: &State, request: &Request) -> Outcome {
    let organization = request.query("organization");
    let wanted = |id: &str| organization.is_none_or(|wanted| wanted == id);
    let Some(module) = request.query("module") else {
        return Ok(counts(state, wanted));
    };
    let billing = || state.billing.iter().filter(|(id, _)| wanted(id)).map(|(_, one)| one);
    let inventory = || state.inventory.iter().filter(|(id, _)| wanted(id)).map(|(_, one)| one);
    match request.query("product") {
        Some("billing") if billing::MODULES.contains(&module) => {
            let rows: Vec<_> = billing().filter_map(|one| one.all(module)).flatten().collect();
            Ok(json!({ "records": rows }))
        }
        Some("inventory") if Module::named(module).is_some() => {
            let rows: Vec<_> = inventory().filter_map(|one| one.all(module, state.zone())).flatten().collect();
            Ok(json!({ "records": rows }))
        }
        Some("crm") => match state.crm.all(module, state.zone()) {
            Some(rows) => Ok(json!({ "records": rows })),
            None => Err(Mistake(404, format!("no CRM module {module}"))),
        },
        Some(product @ ("billing" | "inventory")) => Err(Mistake(404, format!("no {product} module {module}"))),
        _ => Err(no_product()),
    }
}

fn counts(state: &State, wanted: impl Fn(&str) -> bool) -> Value {
    let billing: Map<String, Value> = billing::MODULES
        .iter()
        .map(|module| {
            let of_organizations = state.billing.iter().filter(|(id, _)| wanted(id));
            let count: usize = of_organizations.filter_map(|(_, one)| one.all(module)).map(|rows| rows.len()).sum();
            ((*module).to_owned(), count.into())
        })
        .collect();
    let inventory: Map<String, Value> = Module::ALL
        .iter()
        .map(|module| {
            let of_organizations = state.inventory.iter().filter(|(id, _)| wanted(id));
            let count: usize = of_organizations.map(|(_, one)| one.count(module.name())).sum();
            (module.name().to_owned(), count.into())
        })
        .collect();
    let crm: Map<String, Value> =
        state.crm.module_names().into_iter().map(|name| (name.to_owned(), state.crm.count(name).into())).collect();
    json!({ "counts": { "billing": billing, "inventory": inventory, "crm": crm } })
}

fn no_product() -> Mistake {
    mistake("`product` must be billing, inventory or crm")
}

/// The module that an edit is of.
struct Place {
    product: String,
    module: String,
    organization: String,
}

impl Place {
    fn new(state: &State, product: Option<&str>, module: Option<&str>, organization: Option<&str>) -> Result<Self, Mistake> {
        let product = product.filter(|name| ["billing", "inventory", "crm"].contains(name)).ok_or_else(no_product)?;
        let organization = organization.unwrap_or_else(|| only_organization(state, product));
        if product != "crm" && organization.is_empty() {
            return Err(mistake("`organization` is needed while there is none, or several"));
        }
        Ok(Self { product: product.to_owned(), module: module.unwrap_or_default().to_owned(), organization: organization.to_owned() })
    }

    fn of_body(state: &State, body: &Map<String, Value>) -> Result<Self, Mistake> {
        let text = |name: &str| body.get(name).and_then(Value::as_str);
        Self::new(state, text("product"), text("module"), text("organization"))
    }

    fn put(&self, state: &mut State, id: Option<&str>, record: Map<String, Value>, now: DateTime<Utc>) -> Option<Value> {
        let mut inventory = (self.product == "inventory").then(|| state.take_inventory(&self.organization));
        let (mut hand, products) = state.hand(&self.organization, now);
        let stored = match (&mut inventory, self.product.as_str()) {
            (Some(inventory), _) => inventory.put_by_hand(&self.module, id, record, &mut hand).map(Value::Object),
            (None, "billing") => {
                let billing = products.billing.entry(self.organization.clone()).or_default();
                billing.put_by_hand(&self.module, id, record, &mut hand).map(Value::Object)
            }
            (None, _) => products.crm.put_by_hand(&self.module, id, record, &mut hand),
        };
        if let Some(inventory) = inventory {
            products.inventory.insert(self.organization.clone(), inventory);
        }
        stored
    }
}

/// The organisation, if there is exactly one.
fn only_organization<'a>(state: &'a State, product: &str) -> &'a str {
    let mut known = match product {
        "inventory" => state.inventory.keys().collect::<Vec<_>>(),
        _ => state.billing.keys().collect(),
    };
    match (known.pop(), known.is_empty(), state.scenario.finance.organizations.as_slice()) {
        (Some(id), true, _) => id,
        (None, _, [only]) => only,
        _ => "",
    }
}

pub(super) fn put(state: &mut State, request: &Request) -> Outcome {
    let mut body = body(request)?;
    let Some(Value::Object(record)) = body.remove("record") else {
        return Err(mistake("`record` must be an object"));
    };
    let place = Place::of_body(state, &body)?;
    let now = state.clock.now();
    let missing = || Mistake(404, "no such module or record".to_owned());
    let Some(ids) = body.get("ids") else {
        let stored = place.put(state, body.get("id").and_then(Value::as_str), record, now);
        return stored.map(|record| json!({ "record": record })).ok_or_else(missing);
    };
    let ids = ids.as_array().ok_or_else(|| mistake("`ids` must be a list"))?;
    let mut records = Vec::with_capacity(ids.len());
    for id in ids {
        let id = id.as_str().ok_or_else(|| mistake("an id must be text"))?;
        records.push(place.put(state, Some(id), record.clone(), now).ok_or_else(missing)?);
    }
    Ok(json!({ "records": records }))
}

/// Changes a field of a record that was just written, as a workflow of Zoho's does.
pub(crate) fn rewrite(state: &mut State, written: &Change, field: &str, value: Value) {
    let place = Place { product: written.product.to_owned(), module: written.module.clone(), organization: written.organization.clone() };
    let now = state.clock.now();
    place.put(state, Some(&written.id), Map::from_iter([(field.to_owned(), value)]), now);
}

pub(super) fn delete(state: &mut State, request: &Request) -> Outcome {
    let (module, id) = (request.query("module"), request.query("id").unwrap_or_default());
    let place = Place::new(state, request.query("product"), module, request.query("organization"))?;
    let now = state.clock.now();
    let permanent = request.query("permanent") == Some("true");
    let (mut hand, products) = state.hand(&place.organization, now);
    let deleted = match place.product.as_str() {
        "billing" => products.billing.get_mut(&place.organization).is_some_and(|one| one.delete_by_hand(&place.module, id, &mut hand)),
        "inventory" => products.inventory.get_mut(&place.organization).is_some_and(|one| one.delete_by_hand(&place.module, id, &mut hand)),
        _ => products.crm.delete_by_hand(&place.module, id, permanent, &mut hand),
    };
    if deleted { Ok(json!({})) } else { Err(Mistake(404, "no such module or record".to_owned())) }
}

/// Makes the scenario's records.
pub(crate) fn plant(state: &mut State) -> Result<(), String> {
    for seed in state.scenario.records.clone() {
        sow(state, &seed).map_err(|Mistake(_, message)| message)?;
    }
    Ok(())
}

pub(super) fn seed(state: &mut State, request: &Request) -> Outcome {
    let seed: Seed = serde_json::from_value(Value::Object(body(request)?)).map_err(|error| mistake(error.to_string()))?;
    seed.validate().map_err(mistake)?;
    sow(state, &seed)
}

fn sow(state: &mut State, seed: &Seed) -> Outcome {
    let place = Place::new(state, Some(&seed.product), Some(&seed.module), seed.organization.as_deref())?;
    let (age, step) = seed.times().map_err(mistake)?;
    let (mut at, told) = (state.clock.now() - age, state.changes.len());
    let mut ids = Vec::new();
    for record in seed.made() {
        let stored = place.put(state, None, record, at).ok_or_else(|| Mistake(404, "no such module".to_owned()))?;
        ids.push(id_of(&stored, &place));
        at += step;
        if !seed.notify {
            state.changes.truncate(told);
        }
    }
    Ok(json!({ "ids": ids }))
}

/// The id of a record as its product calls it.
fn id_of(record: &Value, place: &Place) -> Value {
    match place.product.as_str() {
        "crm" => record["id"].clone(),
        "inventory" => Module::named(&place.module).map_or(Value::Null, |module| record[module.id()].clone()),
        _ => record[billing::id_key(&place.module).unwrap_or_default()].clone(),
    }
}
