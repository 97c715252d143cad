//! Contacts: one name in the whole organisation; e-mail and phone are those of the primary contact person.

use serde_json::Value;

use super::{Inventory, Module};
use crate::finance::{Record, Refusal, text};

impl Inventory {
    /// Code 3062 for a name that is taken, among customers and vendors together (finance fact 4.3); and what the read
    /// shows of the primary person at the top level (fact 5.2).
    pub(super) fn check_contact(&self, own: Option<&str>, values: &mut Record) -> Result<(), Refusal> {
        let name = text(values, "contact_name").to_lowercase();
        let same = |other: &Record| text(other, "contact_name").to_lowercase() == name;
        if self.records(Module::Contacts).any(|(id, other)| own != Some(id) && same(&other.values)) {
            let message = format!("The customer \"{}\" already exists. Please specify a different name.", text(values, "contact_name"));
            return Err(Refusal::new(400, 3062, message));
        }
        let persons = values.get("contact_persons").and_then(Value::as_array).cloned().unwrap_or_default();
        let primary = persons.iter().find(|person| person["is_primary_contact"] == true).or(persons.first());
        for field in ["first_name", "last_name", "email", "phone", "mobile"] {
            let value = primary.and_then(|person| person.get(field)).and_then(Value::as_str).unwrap_or_default();
            values.insert(field.to_owned(), value.into());
        }
        Ok(())
    }
}
