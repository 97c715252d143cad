//! The fields that CRM modules lack for the syncs: shown, and made where asked to. For `sluice check`.
//!
//! Every call goes the way of all calls: a grant of the ledger. Fields are made five to a call, each succeeding or failing for itself; the
//! name that Zoho gives a new field is read back, since it makes the name itself, of the label.

use serde_json::{Value, json};
use sluice_core::config::Config;
use sluice_core::config::sync::Product as Of;
use sluice_core::db::Db;
use sluice_sync::definition::Definition;
use sluice_sync::provision::{self, Need};
use sluice_sync::read::Reader;
use sluice_zoho::{Method, Product, call};

use crate::ask::{Asked, Asker};

/// Most fields of one call (CRM sheet §5).
const TOGETHER: usize = 5;
const PATH: &str = "/settings/fields";

/// What is so with a field of a module, or with all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provision {
    /// Nothing is missing: in words, what was looked at.
    Complete(String),
    /// This is missing, and can be made.
    Lacks(String),
    /// It was made.
    Made(String),
    /// A person has to see to it: what, and why.
    Person(String),
    /// Zoho could not be asked now: why.
    Unasked(String),
}

/// Compares the fields of a sync's module with what the sync needs and, with `make`, makes what is missing. One call; with `make` one more
/// for each five fields, each changed picklist, and one to read the new names back. Nothing for a sync of another product than CRM.
///
/// # Errors
/// When the configuration cannot be used (keys, addresses) or the database does not answer.
pub async fn provision(db: &Db, config: &Config, definition: &Definition, make: bool) -> anyhow::Result<Vec<Provision>> {
    if definition.module.product != Of::Crm {
        return Ok(Vec::new());
    }
    let yields = Reader::new(db.clone(), config.database.expression_role.clone()).yields(definition).await?;
    let wanted = provision::wanted(definition, &yields);
    let module = Module { asker: Asker::new(db, config, &definition.sync.connection)?, name: &definition.module.name };
    let fields = match module.fields().await? {
        Ok(fields) => fields,
        Err(asked) => return Ok(vec![unasked(&asked)]),
    };
    let needs = provision::needs(&wanted, &fields);
    if needs.is_empty() {
        return Ok(vec![Provision::Complete(format!("{} has all {} fields that are mapped", definition.module, wanted.len()))]);
    }
    if make { module.make(&needs).await } else { Ok(needs.iter().map(|need| module.lacks(need)).collect()) }
}

struct Module<'a> {
    asker: Asker<'a>,
    name: &'a str,
}

impl Module<'_> {
    async fn fields(&self) -> anyhow::Result<Result<Vec<Value>, Asked>> {
        let answer = self.asker.crm(&self.request(Method::Get, PATH.to_owned(), None)).await?;
        Ok(answer.map(|answer| answer["fields"].as_array().cloned().unwrap_or_default()))
    }

    fn request(&self, method: Method, path: String, body: Option<Value>) -> call::Request {
        let query = vec![("module".to_owned(), self.name.to_owned())];
        call::Request { product: Product::Crm, method, path, query, body }
    }

    fn lacks(&self, need: &Need) -> Provision {
        let module = self.name;
        match need {
            Need::Field(name, body) => Provision::Lacks(format!("{module} has no field {name}: {}", described(body))),
            Need::Values(name, _, values, _) => Provision::Lacks(format!("{module}.{name} lacks the values {}", values.join(", "))),
            Need::Person(name, what) => Provision::Person(format!("{module}.{name} {what}")),
        }
    }

    async fn make(&self, needs: &[Need]) -> anyhow::Result<Vec<Provision>> {
        let mut said = Vec::new();
        let new: Vec<(&String, &Value)> =
            needs.iter().filter_map(|need| if let Need::Field(name, body) = need { Some((name, body)) } else { None }).collect();
        let mut made: Vec<(String, String)> = Vec::new();
        for together in new.chunks(TOGETHER) {
            let bodies: Vec<&Value> = together.iter().map(|(_, body)| *body).collect();
            let request = self.request(Method::Post, PATH.to_owned(), Some(json!({ "fields": bodies })));
            match self.asker.crm(&request).await? {
                Err(asked) => said.push(self.failed(&names(together), &asked)),
                Ok(answer) => {
                    for (at, (name, _)) in together.iter().enumerate() {
                        match result(&answer["fields"][at]) {
                            Ok(id) => made.push(((*name).clone(), id)),
                            Err(why) => said.push(Provision::Person(format!("{}.{name} was not made: {why}", self.name))),
                        }
                    }
                }
            }
        }
        said.extend(self.read_back(&made).await?);
        for need in needs {
            match need {
                Need::Field(..) => {}
                Need::Person(..) => said.push(self.lacks(need)),
                Need::Values(name, id, values, body) => {
                    let request = self.request(Method::Patch, format!("{PATH}/{id}"), Some(body.clone()));
                    said.push(match self.asker.crm(&request).await? {
                        Err(asked) => self.failed(name, &asked),
                        Ok(answer) => match result(&answer["fields"][0]) {
                            Ok(_) => Provision::Made(format!("{}.{name} has the values {} now", self.name, values.join(", "))),
                            Err(why) => Provision::Person(format!("{}.{name} lacks the values {}: {why}", self.name, values.join(", "))),
                        },
                    });
                }
            }
        }
        Ok(said)
    }

    /// Zoho makes the API names itself.
    async fn read_back(&self, made: &[(String, String)]) -> anyhow::Result<Vec<Provision>> {
        if made.is_empty() {
            return Ok(Vec::new());
        }
        let fields = match self.fields().await? {
            Ok(fields) => fields,
            Err(asked) => return Ok(vec![self.failed("the names of the new fields", &asked)]),
        };
        let module = self.name;
        Ok(made
            .iter()
            .map(|(name, id)| match fields.iter().find(|field| field["id"] == id.as_str()).and_then(|field| field["api_name"].as_str()) {
                Some(called) if called == name => Provision::Made(format!("{module}.{name} was made")),
                Some(called) => Provision::Person(format!(
                    "{module}.{name} was made, but Zoho calls it {called}: change its API name in Zoho, or the mapping"
                )),
                None => Provision::Person(format!("{module}.{name} was made, but Zoho does not list it yet: run the check again")),
            })
            .collect())
    }

    fn failed(&self, what: &str, asked: &Asked) -> Provision {
        match asked {
            Asked::Refused(why) => Provision::Person(format!("{}: {what}: {why}", self.name)),
            other => unasked(other),
        }
    }
}

fn unasked(asked: &Asked) -> Provision {
    match asked {
        Asked::Refused(why) => Provision::Person(format!("the fields could not be read: {why}")),
        Asked::Unasked(why) | Asked::Works(why) => Provision::Unasked(why.clone()),
    }
}

/// The id of what succeeded, or why it did not.
fn result(element: &Value) -> Result<String, String> {
    match (element["code"].as_str(), element["details"]["id"].as_str()) {
        (Some("SUCCESS"), Some(id)) => Ok(id.to_owned()),
        _ => Err(format!("{} {}", element["code"].as_str().unwrap_or("no answer"), element["message"].as_str().unwrap_or_default())),
    }
}

fn names(fields: &[(&String, &Value)]) -> String {
    fields.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The kind of field, for people.
fn described(body: &Value) -> String {
    let data_type = body["data_type"].as_str().unwrap_or_default();
    let values: Vec<&str> =
        body["pick_list_values"].as_array().into_iter().flatten().filter_map(|one| one["display_value"].as_str()).collect();
    let unique = if body["unique"].is_object() { ", unique" } else { "" };
    if values.is_empty() { format!("{data_type}{unique}") } else { format!("{data_type} of {}", values.join(", ")) }
}
