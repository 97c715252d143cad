//! Modules and fields over the API: what there is, and new fields with the names that Zoho makes for them (CRM facts 5).

use serde_json::{Map, Value, json};

use super::{Context, Crm, Module, Refusal, meta::Field};
use crate::{exchange::Answer, scenario::CrmField};

/// Most fields of one call.
const MOST_FIELDS: usize = 5;
/// Longest label.
const MOST_LABEL: usize = 25;
/// The types of which a field can be made.
const TYPES: &[&str] = &[
    "text",
    "textarea",
    "email",
    "phone",
    "picklist",
    "multiselectpicklist",
    "date",
    "datetime",
    "integer",
    "autonumber",
    "currency",
    "percent",
    "bigint",
    "double",
    "website",
    "boolean",
    "lookup",
];

impl Crm {
    pub(super) fn list_modules(&self) -> Answer {
        let modules = self.modules.values().map(|module| {
            json!({
                "id": module.id, "api_name": module.name, "module_name": module.name, "singular_label": module.name.trim_end_matches('s'),
                "plural_label": module.name.replace('_', " "), "generated_type": "default", "api_supported": true, "creatable": true,
                "editable": true, "deletable": true, "viewable": true, "recycle_bin_on_delete": true,
            })
        });
        Answer::json(200, json!({ "modules": modules.collect::<Vec<_>>() }))
    }

    pub(super) fn list_fields(&mut self, context: &Context<'_>) -> Answer {
        match self.module_of_query(context) {
            Ok(module) => {
                let fields: Vec<Value> = module.fields.iter().map(Field::to_json).collect();
                Answer::json(200, json!({ "fields": fields }))
            }
            Err(answer) => answer,
        }
    }

    /// `POST /settings/fields?module=M`: each field succeeds or fails for itself.
    pub(super) fn create_fields(&mut self, context: &mut Context<'_>) -> Answer {
        let given = match fields_of_body(context) {
            Ok(given) => given,
            Err(refusal) => return refusal.answer(400),
        };
        let module = match self.module_of_query(context) {
            Ok(module) => module,
            Err(answer) => return answer,
        };
        let results = given.iter().enumerate().map(|(at, field)| {
            let (spec, external, label) = new_field(module, field, at)?;
            module.set_field(spec, context.ids);
            let made = module.fields.last_mut().ok_or_else(|| Refusal::new("INTERNAL_ERROR", "no field", json!({})))?;
            made.label = label;
            made.external = external;
            Ok(made.id.clone())
        });
        let results: Vec<Result<String, Refusal>> = results.collect();
        answered(results, 201, "field created")
    }

    /// `PATCH /settings/fields[/{id}]?module=M`: labels change, values of picklists are added.
    pub(super) fn change_fields(&mut self, context: &mut Context<'_>) -> Answer {
        let given = match fields_of_body(context) {
            Ok(given) => given,
            Err(refusal) => return refusal.answer(400),
        };
        let path_id = context.captures.first().cloned();
        let module = match self.module_of_query(context) {
            Ok(module) => module,
            Err(answer) => return answer,
        };
        let results = given.iter().enumerate().map(|(at, change)| {
            let id = path_id.clone().or_else(|| change.get("id").and_then(Value::as_str).map(str::to_owned)).unwrap_or_default();
            let field = module.fields.iter_mut().find(|field| field.id == id);
            let field = field.ok_or_else(|| {
                let details = json!({ "api_name": "id", "json_path": format!("$.fields[{at}].id") });
                Refusal::new("INVALID_DATA", "the id given seems to be invalid", details)
            })?;
            if let Some(label) = change.get("field_label").and_then(Value::as_str) {
                field.label = label.to_owned();
            }
            for value in pick_values(change) {
                if !field.spec.pick_list.contains(&value) {
                    field.spec.pick_list.push(value);
                }
            }
            Ok(id)
        });
        let results: Vec<Result<String, Refusal>> = results.collect();
        answered(results, 200, "field updated")
    }

    fn module_of_query(&mut self, context: &Context<'_>) -> Result<&mut Module, Answer> {
        let Some(name) = context.request.query("module") else {
            let details = json!({ "param_name": "module" });
            return Err(Refusal::new("REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", details).answer(400));
        };
        self.modules
            .get_mut(name)
            .ok_or_else(|| Refusal::new("INVALID_MODULE", "the module name given seems to be invalid", json!({})).answer(400))
    }
}

fn fields_of_body(context: &Context<'_>) -> Result<Vec<Map<String, Value>>, Refusal> {
    let mut body = context.request.json_object().unwrap_or_default();
    let Some(Value::Array(given)) = body.remove("fields") else {
        let details = json!({ "api_name": "fields", "json_path": "$.fields" });
        return Err(Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details));
    };
    if given.is_empty() || given.len() > MOST_FIELDS {
        let details = json!({ "limit": MOST_FIELDS, "api_name": "fields" });
        return Err(Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details));
    }
    Ok(given.into_iter().map(|field| field.as_object().cloned().unwrap_or_default()).collect())
}

/// A field as it is asked for: its specification, its `external` object, its label.
fn new_field(module: &Module, given: &Map<String, Value>, at: usize) -> Result<(CrmField, Value, String), Refusal> {
    let place = |name: &str| json!({ "api_name": name, "json_path": format!("$.fields[{at}].{name}") });
    let text = |name: &str| given.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let missing = |name: &str| Refusal::new("MANDATORY_NOT_FOUND", "required field not found", place(name));
    let label = text("field_label").ok_or_else(|| missing("field_label"))?;
    if label.chars().count() > MOST_LABEL {
        let mut details = place("field_label");
        details["maximum_length"] = MOST_LABEL.into();
        return Err(Refusal::new("INVALID_DATA", "invalid data", details));
    }
    if module.fields.iter().any(|field| field.label.eq_ignore_ascii_case(label)) {
        return Err(Refusal::new("DUPLICATE_DATA", "duplicate data", place("field_label")));
    }
    let data_type = text("data_type").ok_or_else(|| missing("data_type"))?;
    if !TYPES.contains(&data_type) {
        let mut details = place("data_type");
        details["supported_values"] = json!(TYPES);
        return Err(Refusal::new("INVALID_DATA", "invalid data", details));
    }
    let pick_list = pick_values(given).collect::<Vec<_>>();
    if matches!(data_type, "picklist" | "multiselectpicklist") && pick_list.is_empty() {
        return Err(missing("pick_list_values"));
    }
    let unique = given.get("unique").and_then(Value::as_object);
    let external = given.get("external").filter(|external| external.is_object()).cloned().unwrap_or_default();
    let spec = CrmField {
        module: module.name.clone(),
        api_name: api_name(module, label),
        data_type: data_type.to_owned(),
        unique: unique.is_some() || !external.is_null(),
        case_sensitive: unique.is_some_and(|unique| unique.get("case_sensitive") == Some(&Value::Bool(true))),
        mandatory: false,
        length: given.get("length").and_then(Value::as_u64).and_then(|length| usize::try_from(length).ok()).unwrap_or(255),
        pick_list,
        lookup: given.get("lookup").and_then(|lookup| lookup["module"]["api_name"].as_str()).map(str::to_owned),
    };
    Ok((spec, external, label.to_owned()))
}

fn pick_values(given: &Map<String, Value>) -> impl Iterator<Item = String> {
    let values = given.get("pick_list_values").and_then(Value::as_array);
    values.into_iter().flatten().filter_map(|value| value["actual_value"].as_str().or(value["display_value"].as_str()).map(str::to_owned))
}

/// The name that Zoho makes of a label; one that is taken gets a number.
fn api_name(module: &Module, label: &str) -> String {
    let words: Vec<&str> = label.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    let name = words.join("_");
    let free = |name: &String| module.field(name).is_none();
    (0..).map(|number| if number == 0 { name.clone() } else { format!("{name}{number}") }).find(free).unwrap_or(name)
}

fn answered(results: Vec<Result<String, Refusal>>, all_well: u16, message: &str) -> Answer {
    let failed = results.iter().filter(|result| result.is_err()).count();
    let status = match failed {
        0 => all_well,
        _ if failed == results.len() => 400,
        _ => 207,
    };
    let rows = results.into_iter().map(|result| match result {
        Ok(id) => json!({ "code": "SUCCESS", "details": { "id": id }, "message": message, "status": "success" }),
        Err(refusal) => refusal.to_json(),
    });
    Answer::json(status, json!({ "fields": rows.collect::<Vec<_>>() }))
}
