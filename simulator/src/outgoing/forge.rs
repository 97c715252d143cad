//! Forgeries: what somebody sends who is not Zoho.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{
    Change, Operation, Outgoing,
    body::{Message, notification, webhook},
};
use crate::{crm::Crm, ids::Ids};

/// How a forgery is signed.
#[derive(Clone, Debug)]
pub(super) enum Signature {
    Right,
    Wrong,
    None,
    /// This very text.
    Text(String),
}

impl Signature {
    pub(super) fn named(name: &str) -> Self {
        match name {
            "right" => Self::Right,
            "wrong" => Self::Wrong,
            "none" => Self::None,
            text => Self::Text(text.to_owned()),
        }
    }

    /// What is sent instead of the true secret, token or digest.
    pub(super) fn replace(&self, right: String, ids: &mut Ids) -> Option<String> {
        match self {
            Self::Right => Some(right),
            Self::Wrong => Some(ids.hex(right.len().max(1))),
            Self::None => None,
            Self::Text(text) => Some(text.clone()),
        }
    }
}

impl Outgoing {
    pub(super) fn forgers_signature(&mut self) -> Signature {
        if self.chances.chance(0.5) { Signature::Wrong } else { Signature::None }
    }

    /// Sends a forgery, to which nothing else happens.
    pub(super) fn forge_now(&mut self, message: Option<Message>, signature: &Signature) -> Option<u64> {
        let mut message = message?;
        message.forged = Some(format!("{signature:?}").to_lowercase());
        Some(self.push(Arc::new(message), Duration::ZERO))
    }

    /// A forgery as the admin API asks for it: of a webhook by its number, or of a channel by its id.
    pub(crate) fn forge(&mut self, asked: &Map<String, Value>, crm: &Crm, now: DateTime<Utc>) -> Result<u64, String> {
        let text = |name: &str| asked.get(name).and_then(Value::as_str);
        let signature = Signature::named(text("signature").or(text("token")).unwrap_or("wrong"));
        let operation = match text("operation") {
            None | Some("edit" | "update") => Operation::Edit,
            Some("create" | "insert") => Operation::Create,
            Some("delete") => Operation::Delete,
            Some(other) => return Err(format!("`operation` cannot be {other}")),
        };
        let ids: Vec<String> = match asked.get("ids").and_then(Value::as_array) {
            Some(ids) => ids.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            None => text("id").map(str::to_owned).into_iter().collect(),
        };
        let change = |id: &String| Change {
            product: match text("product") {
                Some("billing") => "billing",
                Some("crm") => "crm",
                _ => "inventory",
            },
            organization: String::new(),
            module: text("module").unwrap_or("items").to_owned(),
            key: singular(text("module").unwrap_or("items")),
            id: id.clone(),
            operation,
            record: asked.get("record").cloned().unwrap_or_default(),
            fields: asked.get("record").and_then(Value::as_object).into_iter().flat_map(Map::keys).cloned().collect(),
            workflow: true,
        };
        let changes: Vec<Change> = ids.iter().map(change).collect();
        let message = match (asked.get("webhook").and_then(Value::as_u64), text("channel")) {
            (Some(number), _) => {
                let configured = self.webhooks.get(&number).cloned().ok_or_else(|| format!("no webhook {number}"))?;
                let change = changes.first().cloned().unwrap_or_else(|| change(&String::new()));
                webhook(number, &configured, &change, &signature, &mut self.chances)
            }
            (None, Some(id)) => {
                let channel = crm.channel(id).ok_or_else(|| format!("no channel {id}"))?;
                notification(channel, &changes.iter().collect::<Vec<_>>(), now, &signature, &mut self.chances)
            }
            (None, None) => return Err("`webhook` or `channel` must say what is forged".to_owned()),
        };
        *self.counts.entry("forged".to_owned()).or_default() += 1;
        self.forge_now(message, &signature).ok_or_else(|| "nothing to send: `id` or `ids` is missing".to_owned())
    }
}

/// A record with values that nobody has set, and a time that makes it look newer than what is known.
pub(super) fn forged_record(record: &Value) -> Value {
    let mut forged = record.clone();
    for name in
        ["name", "item_name", "contact_name", "display_name", "description", "sku", "Deal_Name", "Last_Name", "Account_Name", "Subject"]
    {
        if let Some(value) = forged.get_mut(name) {
            *value = "forged".into();
        }
    }
    for name in ["rate", "stock_on_hand", "available_stock", "Amount"] {
        if let Some(value) = forged.get_mut(name) {
            *value = 1.into();
        }
    }
    for name in ["last_modified_time", "updated_time"] {
        if let Some(value) = forged.get_mut(name) {
            *value = "2999-01-01T00:00:00+0000".into();
        }
    }
    forged
}

/// The key of a forged record in a webhook's payload.
fn singular(module: &str) -> &'static str {
    match module {
        "contacts" => "contact",
        "customers" => "customer",
        "subscriptions" => "subscription",
        "invoices" => "invoice",
        "payments" => "payment",
        _ => "item",
    }
}
