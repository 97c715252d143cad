//! Zoho Inventory v1: items with their stock and images, categories, contacts, adjustments, locations, price lists.
//!
//! Written from Zoho's OpenAPI files and the finance facts; where no source names an error code or a behaviour, the
//! one chosen here is marked *unverified*, and a scenario can choose another.

mod adjustments;
mod contacts;
mod images;
mod items;
mod list;
mod spec;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::{
    clock::{Zone, to_second},
    exchange::Answer,
    finance::{Context, Outcome, Record, Refusal, done, fields, invalid_url, single, text},
    operations::{Action, Verb},
    outgoing::{Change, Hand, Operation},
};
use images::Image;
pub(crate) use spec::Module;

/// A record with its times, which are kept to the second and shown in the organisation's zone.
#[derive(Clone, Debug)]
struct Stored {
    values: Record,
    created: DateTime<Utc>,
    modified: DateTime<Utc>,
}

/// The records of a module by id, oldest first.
type Records = BTreeMap<String, Stored>;

/// What one organisation holds.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    organization: String,
    modules: BTreeMap<Module, Records>,
    images: BTreeMap<String, Image>,
}

impl Inventory {
    /// An organisation with its one location, as a new one has.
    pub(crate) fn new(organization: &str, now: DateTime<Utc>, ids: &mut crate::ids::Ids) -> Self {
        let mut inventory = Self { organization: organization.to_owned(), ..Self::default() };
        let mut location = Record::new();
        for (key, value) in [("location_name", "Head Office".into()), ("is_primary", true.into()), ("status", "active".into())] {
            location.insert(key.to_owned(), value);
        }
        inventory.insert(Module::Locations, ids.record(), location, now);
        inventory
    }

    /// Carries out one documented operation.
    pub(crate) fn handle(&mut self, action: Action, context: &mut Context<'_>) -> Answer {
        let outcome = match action {
            Action::Inventory(module, Verb::List) => self.list(module, context),
            Action::Inventory(module, Verb::Get) => self.get(module, context),
            Action::Inventory(module, Verb::Create) => self.create(module, context),
            Action::Inventory(module, Verb::Update) => self.update(module, context),
            Action::Inventory(module, Verb::Delete) => self.delete(module, context),
            Action::Inventory(module, Verb::Activate) => self.set_status(module, "active", context),
            Action::Inventory(module, Verb::Deactivate) => self.set_status(module, "inactive", context),
            Action::ItemDetails => self.item_details(context),
            Action::ItemImage(verb) => self.image(verb, context),
            // Of another product, or a verb that no module here has.
            _ => Err(invalid_url()),
        };
        outcome.unwrap_or_else(Refusal::into_answer)
    }

    fn get(&self, module: Module, context: &Context<'_>) -> Outcome {
        let record = self.known(module, context.id())?;
        let full = self.full(module, context.id(), record, context.zone());
        Ok(single(200, "success", module.spec().key, &full, context.id()))
    }

    fn create(&mut self, module: Module, context: &mut Context<'_>) -> Outcome {
        let spec = module.spec();
        let body = context.body()?;
        let mut given = fields::read(spec.keys, spec.fields, &body, true, context)?;
        let mut values = spec::blank(module);
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut values, custom, context.custom_fields(spec.keys))?;
        values.extend(given);
        self.check(module, None, &mut values)?;
        let id = context.ids.record();
        self.complete(module, &mut values, &body);
        self.apply(module, &values, None, context);
        self.insert(module, id.clone(), values, context.now);
        self.changed(module, &id, Operation::Create, context.zone(), context.changes);
        let full = self.full(module, &id, self.known(module, &id)?, context.zone());
        Ok(single(201, spec.added, spec.key, &full, &id))
    }

    fn update(&mut self, module: Module, context: &mut Context<'_>) -> Outcome {
        let (spec, id) = (module.spec(), context.id().to_owned());
        let before = self.known(module, &id)?.values.clone();
        let body = context.body()?;
        let mut given = fields::read(spec.keys, spec.fields, &body, false, context)?;
        // Stock is given at creation only (finance fact 5.3).
        for once in ["initial_stock", "initial_stock_rate"].into_iter().filter(|once| given.remove(*once).is_some()) {
            context.log.ignored_field(spec.keys, once);
        }
        let mut values = before.clone();
        let custom = given.remove("custom_fields").unwrap_or_default();
        fields::merge_custom_fields(&mut values, custom, context.custom_fields(spec.keys))?;
        values.extend(given);
        self.check(module, Some(&id), &mut values)?;
        self.apply(module, &values, Some(&before), context);
        // A PUT that changes nothing was seen not to bump the time (finance fact 2.7; one sample).
        if values != before || context.scenario.inventory.noop_bumps {
            self.replace(module, &id, values, context.now);
            self.changed(module, &id, Operation::Edit, context.zone(), context.changes);
        }
        let full = self.full(module, &id, self.known(module, &id)?, context.zone());
        Ok(single(200, spec.saved, spec.key, &full, &id))
    }

    fn delete(&mut self, module: Module, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        let values = self.known(module, &id)?.values.clone();
        self.check_unused(module, &id)?;
        self.apply(module, &Record::new(), Some(&values), context);
        self.changed(module, &id, Operation::Delete, context.zone(), context.changes);
        self.remove(module, &id);
        Ok(done(module.spec().deleted, &id))
    }

    fn set_status(&mut self, module: Module, status: &str, context: &mut Context<'_>) -> Outcome {
        let id = context.id().to_owned();
        let mut values = self.known(module, &id)?.values.clone();
        if text(&values, "status") != status {
            values.insert("status".to_owned(), status.into());
            self.replace(module, &id, values, context.now);
            self.changed(module, &id, Operation::Edit, context.zone(), context.changes);
        }
        Ok(done(&format!("The {} has been marked as {status}.", module.spec().what.to_lowercase()), &id))
    }

    /// What a module wants of a record beyond the types of its fields.
    fn check(&self, module: Module, own: Option<&str>, values: &mut Record) -> Result<(), Refusal> {
        match module {
            Module::Items => self.check_item(own, values),
            Module::Contacts => self.check_contact(own, values),
            Module::Categories => {
                let name = text(values, "name").to_lowercase();
                let taken = |(id, other): (&String, &Stored)| own != Some(id) && text(&other.values, "name").to_lowercase() == name;
                match self.records(module).any(taken) {
                    true => Err(Refusal::exists(format!("Category \"{}\" already exists", text(values, "name")))),
                    false => Ok(()),
                }
            }
            Module::Adjustments => self.check_adjustment(values),
            Module::Locations | Module::Pricebooks => Ok(()),
        }
    }

    /// What a new record gets from elsewhere than its fields.
    fn complete(&self, module: Module, values: &mut Record, body: &Record) {
        if module == Module::Items {
            items::set_opening_stock(values, body);
        }
    }

    /// What writing a record does to others: an adjustment moves stock.
    fn apply(&mut self, module: Module, values: &Record, before: Option<&Record>, context: &mut Context<'_>) {
        if module == Module::Adjustments {
            self.move_stock(values, before, context);
        }
    }

    /// Code 2049: a record that transactions refer to cannot be deleted (finance facts 6).
    fn check_unused(&self, module: Module, id: &str) -> Result<(), Refusal> {
        let used = match module {
            Module::Items => self.is_adjusted(id),
            Module::Categories => self.records(Module::Items).any(|(_, item)| text(&item.values, "category_id") == id),
            _ => false,
        };
        let message = format!("{} cannot be deleted as they are a part of other transactions.", module.spec().what);
        if used { Err(Refusal::new(400, 2049, message)) } else { Ok(()) }
    }

    fn records(&self, module: Module) -> impl Iterator<Item = (&String, &Stored)> {
        self.modules.get(&module).into_iter().flatten()
    }

    fn known(&self, module: Module, id: &str) -> Result<&Stored, Refusal> {
        let found = self.modules.get(&module).and_then(|records| records.get(id));
        found.ok_or_else(|| Refusal::not_found(module.spec().what))
    }

    fn insert(&mut self, module: Module, id: String, values: Record, now: DateTime<Utc>) {
        let now = to_second(now);
        self.modules.entry(module).or_default().insert(id, Stored { values, created: now, modified: now });
    }

    fn replace(&mut self, module: Module, id: &str, values: Record, now: DateTime<Utc>) {
        if let Some(stored) = self.modules.get_mut(&module).and_then(|records| records.get_mut(id)) {
            stored.values = values;
            stored.modified = to_second(now);
        }
    }

    fn remove(&mut self, module: Module, id: &str) -> bool {
        self.images.remove(id);
        self.modules.get_mut(&module).is_some_and(|records| records.remove(id).is_some())
    }

    /// A record as a single read answers it.
    fn full(&self, module: Module, id: &str, stored: &Stored, zone: Zone) -> Record {
        let mut full = stored.values.clone();
        full.insert(module.spec().id.to_owned(), id.into());
        full.insert("created_time".to_owned(), zone.finance_time(stored.created).into());
        full.insert("last_modified_time".to_owned(), zone.finance_time(stored.modified).into());
        if module == Module::Items {
            full.insert("locations".to_owned(), self.stock_by_location(&stored.values));
        }
        full
    }

    /// Notes a change, from which webhooks are made.
    fn changed(&self, module: Module, id: &str, operation: Operation, zone: Zone, changes: &mut Vec<Change>) {
        let Ok(stored) = self.known(module, id) else { return };
        changes.push(Change {
            product: "inventory",
            organization: self.organization.clone(),
            module: module.spec().keys.to_owned(),
            key: module.spec().key,
            id: id.to_owned(),
            operation,
            record: Value::Object(self.full(module, id, stored, zone)),
            fields: Vec::new(),
            workflow: true,
        });
    }

    /// All records of a module, as single reads answer them; for the admin API.
    pub(crate) fn all(&self, module: &str, zone: Zone) -> Option<Vec<Record>> {
        let module = Module::named(module)?;
        Some(self.records(module).map(|(id, stored)| self.full(module, id, stored, zone)).collect())
    }

    pub(crate) fn count(&self, module: &str) -> usize {
        Module::named(module).map_or(0, |module| self.records(module).count())
    }

    /// Changes fields of a record as a person in Zoho would, without any check, or adds one. `None` if there is no
    /// such module or record.
    pub(crate) fn put_by_hand(&mut self, module: &str, id: Option<&str>, mut given: Record, hand: &mut Hand<'_>) -> Option<Record> {
        let module = Module::named(module)?;
        let image = given.remove("image").filter(|_| module == Module::Items);
        let (id, operation) = match id {
            Some(id) => {
                let mut values = self.known(module, id).ok()?.values.clone();
                overlay(&mut values, given);
                if let Some(image) = &image {
                    self.image_by_hand(id, image, &mut values, hand.ids);
                }
                self.replace(module, id, values, hand.now);
                (id.to_owned(), Operation::Edit)
            }
            None => {
                let id = match given.get(module.spec().id) {
                    Some(Value::String(id)) => id.clone(),
                    _ => hand.ids.record(),
                };
                let mut values = spec::blank(module);
                let opening = given.clone();
                overlay(&mut values, given);
                self.complete(module, &mut values, &opening);
                if let Some(image) = &image {
                    self.image_by_hand(&id, image, &mut values, hand.ids);
                }
                self.insert(module, id.clone(), values, hand.now);
                (id, Operation::Create)
            }
        };
        self.changed(module, &id, operation, hand.zone, hand.changes);
        let stored = self.known(module, &id).ok()?;
        Some(self.full(module, &id, stored, hand.zone))
    }

    /// Deletes a record as a person in Zoho would, without any check.
    pub(crate) fn delete_by_hand(&mut self, module: &str, id: &str, hand: &mut Hand<'_>) -> bool {
        let Some(module) = Module::named(module) else { return false };
        self.changed(module, id, Operation::Delete, hand.zone, hand.changes);
        self.remove(module, id)
    }
}

/// Puts given values over a record's; custom fields by their own rule, also those given by their names alone. What Zoho works out itself is left out.
fn overlay(values: &mut Record, mut given: Record) {
    let mut custom = given.remove("custom_fields").unwrap_or_else(|| Value::Array(Vec::new()));
    let (named, rest): (Record, Record) = given.into_iter().partition(|(name, _)| name.starts_with("cf_"));
    if let Value::Array(custom) = &mut custom {
        custom.extend(named.into_iter().map(|(name, value)| json!({ "api_name": name, "value": value })));
    }
    let mut given = rest;
    // An entry of no use is left out, as nothing here is checked.
    let _ = fields::merge_custom_fields(values, custom, None);
    for derived in ["created_time", "last_modified_time", "locations", "item_id", "initial_stock"] {
        given.remove(derived);
    }
    if let Some(stock) = given.get("stock_on_hand").cloned() {
        for copy in ["available_stock", "actual_available_stock"] {
            given.entry(copy).or_insert_with(|| stock.clone());
        }
    }
    values.extend(given);
    items::copy_name(values);
}
