//! Modules and fields: what is mandatory, what is unique, and what identifies a record by the system's own rule.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Module, Values};
use crate::{ids::Ids, scenario::CrmField};

/// The modules that exist without being configured.
pub(super) const STANDARD_MODULES: &[&str] = &["Contacts", "Accounts", "Deals", "Leads", "Products", "Quotes"];

/// A field as configured, and what follows from where it came from.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) id: String,
    pub(super) spec: CrmField,
    pub(super) label: String,
    pub(super) custom: bool,
    pub(super) read_only: bool,
    /// The `external` object of an external-id field; null for others.
    pub(super) external: Value,
}

impl Field {
    /// A field whose label is its API name in words.
    pub(super) fn new(spec: CrmField, custom: bool, read_only: bool, ids: &mut Ids) -> Self {
        Self { id: ids.record(), label: spec.api_name.replace('_', " "), spec, custom, read_only, external: Value::Null }
    }

    pub(super) fn name(&self) -> &str {
        &self.spec.api_name
    }

    /// The value under which the index finds a record; `None` for empty ones, which never collide.
    pub(super) fn index_key(&self, value: &Value) -> Option<String> {
        match value {
            Value::Null => None,
            Value::String(text) if text.is_empty() => None,
            Value::String(text) if self.spec.case_sensitive => Some(text.clone()),
            Value::String(text) => Some(text.to_lowercase()),
            other => Some(other.to_string()),
        }
    }

    /// As `GET /settings/fields` answers it.
    pub(super) fn to_json(&self) -> Value {
        let unique = match (self.spec.unique, self.spec.case_sensitive) {
            (true, case_sensitive) => json!({ "case_sensitive": case_sensitive }),
            (false, _) => json!({}),
        };
        let pick = |(at, value): (usize, &String)| {
            json!({
                "id": format!("{}{at:02}", self.id), "display_value": value, "actual_value": value, "reference_value": value,
                "sequence_number": at + 1, "type": "used",
            })
        };
        let picks: Vec<Value> = self.spec.pick_list.iter().enumerate().map(pick).collect();
        let lookup = self.spec.lookup.as_ref().map(|module| json!({ "module": { "api_name": module } }));
        json!({
            "id": self.id,
            "api_name": self.spec.api_name,
            "field_label": self.label,
            "display_label": self.label,
            "external": self.external,
            "data_type": self.spec.data_type,
            "json_type": self.json_type(),
            "length": self.spec.length,
            "system_mandatory": self.spec.mandatory,
            "read_only": self.read_only,
            "field_read_only": self.read_only,
            "custom_field": self.custom,
            "visible": true,
            "unique": unique,
            "pick_list_values": picks,
            "lookup": lookup.unwrap_or_else(|| json!({})),
            "operation_type": {
                "web_create": !self.read_only, "web_update": !self.read_only,
                "api_create": !self.read_only, "api_update": !self.read_only,
            },
        })
    }

    /// Whether only single reads show it (CRM fact 2.1).
    pub(super) fn is_detail(&self) -> bool {
        matches!(self.spec.data_type.as_str(), "subform" | "multiselectlookup" | "multiuserlookup")
    }

    /// Zoho's word for the JSON form of this type.
    pub(super) fn json_type(&self) -> &'static str {
        match self.spec.data_type.as_str() {
            "integer" => "integer",
            "double" | "currency" | "percent" => "double",
            "boolean" => "boolean",
            "lookup" | "ownerlookup" | "jsonobject" => "jsonobject",
            "multiselectpicklist" | "subform" => "jsonarray",
            // A bigint is sent as text, since it does not fit a double.
            _ => "string",
        }
    }
}

/// The field that Zoho looks at for duplicates without being told to (CRM fact 2.5).
pub(super) fn system_field(module: &str) -> &'static str {
    match module {
        "Leads" | "Contacts" => "Email",
        "Accounts" => "Account_Name",
        "Deals" => "Deal_Name",
        "Quotes" => "Subject",
        "Products" => "Product_Name",
        _ => "Name",
    }
}

/// The field whose value names a record in lookups: the system's own field, but a person's last name.
pub(super) fn name_field(module: &str) -> &'static str {
    match module {
        "Contacts" | "Leads" => "Last_Name",
        other => system_field(other),
    }
}

/// The default fields of a module (CRM facts 8), as `name type`; `!` marks a mandatory one, `@Module` a lookup.
fn default_fields(module: &str) -> &'static [&'static str] {
    match module {
        "Contacts" => &[
            "!Last_Name text",
            "First_Name text",
            "Email email",
            "Secondary_Email email",
            "Phone phone",
            "Mobile phone",
            "Account_Name @Accounts",
            "Title text",
            "Department text",
            "Lead_Source picklist",
            "Mailing_Street text",
            "Mailing_City text",
            "Mailing_State text",
            "Mailing_Zip text",
            "Mailing_Country text",
            "Date_of_Birth date",
            "Email_Opt_Out boolean",
            "Description textarea",
        ],
        "Accounts" => &[
            "!Account_Name text",
            "Phone phone",
            "Website website",
            "Industry picklist",
            "Account_Number text",
            "Account_Type picklist",
            "Parent_Account @Accounts",
            "Annual_Revenue currency",
            "Employees integer",
            "Billing_Street text",
            "Billing_City text",
            "Billing_State text",
            "Billing_Code text",
            "Billing_Country text",
            "Shipping_Street text",
            "Shipping_City text",
            "Description textarea",
        ],
        "Deals" => &[
            "!Deal_Name text",
            "!Stage picklist",
            "Closing_Date date",
            "Amount currency",
            "Account_Name @Accounts",
            "Contact_Name @Contacts",
            "Pipeline picklist",
            "Probability integer",
            "Expected_Revenue currency",
            "Type picklist",
            "Next_Step text",
            "Lead_Source picklist",
            "Description textarea",
        ],
        "Leads" => &[
            "!Last_Name text",
            "First_Name text",
            "Company text",
            "Email email",
            "Phone phone",
            "Mobile phone",
            "Lead_Status picklist",
            "Lead_Source picklist",
            "Industry picklist",
            "Street text",
            "City text",
            "State text",
            "Zip_Code text",
            "Country text",
            "Website website",
            "Annual_Revenue currency",
            "No_of_Employees integer",
            "Description textarea",
        ],
        "Products" => &[
            "!Product_Name text",
            "Product_Code text",
            "Product_Active boolean",
            "Unit_Price currency",
            "Usage_Unit picklist",
            "Qty_in_Stock double",
            "Product_Category picklist",
            "Taxable boolean",
            "Description textarea",
        ],
        "Quotes" => &[
            "!Subject text",
            "!Quoted_Items subform",
            "Quote_Stage picklist",
            "Valid_Till date",
            "Deal_Name @Deals",
            "Contact_Name @Contacts",
            "Account_Name @Accounts",
            "Sub_Total currency",
            "Discount currency",
            "Tax currency",
            "Adjustment currency",
            "Grand_Total currency",
            "Carrier picklist",
            "Team text",
            "Billing_Street text",
            "Billing_City text",
            "Terms_and_Conditions textarea",
            "Description textarea",
        ],
        _ => &["!Name text", "Email email", "Description textarea"],
    }
}

const SYSTEM_FIELDS: &[(&str, &str)] =
    &[("Created_Time", "datetime"), ("Modified_Time", "datetime"), ("Created_By", "ownerlookup"), ("Modified_By", "ownerlookup")];

impl Module {
    pub(super) fn new(name: &str, ids: &mut Ids) -> Self {
        let mut module = Self {
            name: name.to_owned(),
            id: ids.record(),
            fields: Vec::new(),
            records: std::collections::BTreeMap::new(),
            deleted: Vec::new(),
            index: HashMap::new(),
        };
        for text in default_fields(name).iter().chain(&["Owner ownerlookup"]) {
            let (api_name, kind) = text.split_once(' ').unwrap_or((text, "text"));
            let lookup = kind.strip_prefix('@');
            let spec = CrmField {
                module: name.to_owned(),
                api_name: api_name.trim_start_matches('!').to_owned(),
                data_type: lookup.map_or(kind, |_| "lookup").to_owned(),
                unique: false,
                case_sensitive: false,
                mandatory: api_name.starts_with('!'),
                length: length_of(kind),
                pick_list: Vec::new(),
                lookup: lookup.map(str::to_owned),
            };
            module.fields.push(Field::new(spec, false, false, ids));
        }
        for (api_name, kind) in SYSTEM_FIELDS {
            let spec = CrmField {
                module: name.to_owned(),
                api_name: (*api_name).to_owned(),
                data_type: (*kind).to_owned(),
                unique: false,
                case_sensitive: false,
                mandatory: false,
                length: 255,
                pick_list: Vec::new(),
                lookup: None,
            };
            module.fields.push(Field::new(spec, false, true, ids));
        }
        module.rebuild_index();
        module
    }

    pub(super) fn set_field(&mut self, spec: CrmField, ids: &mut Ids) {
        match self.fields.iter_mut().find(|field| field.spec.api_name == spec.api_name) {
            Some(field) => field.spec = spec,
            None => self.fields.push(Field::new(spec, true, false, ids)),
        }
        self.rebuild_index();
    }

    pub(super) fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name() == name)
    }

    /// Whether duplicates are looked for in this field.
    pub(super) fn is_duplicate_field(&self, field: &Field) -> bool {
        field.spec.unique || field.name() == system_field(&self.name)
    }

    pub(super) fn rebuild_index(&mut self) {
        self.index.clear();
        let rows: Vec<(String, Values)> = self.records.iter().map(|(id, record)| (id.clone(), record.values.clone())).collect();
        for (id, values) in rows {
            self.add_to_index(&id, &values);
        }
    }
}

fn length_of(kind: &str) -> usize {
    match kind {
        "textarea" => 32_000,
        "phone" => 30,
        "email" => 100,
        "text" | "picklist" => 120,
        _ => 255,
    }
}
