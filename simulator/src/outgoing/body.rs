//! What is sent: a webhook's request, a notification's request, and forged ones.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};
use url::Url;

use super::{
    Change, Operation,
    forge::Signature,
    signature::{HEADER, sign, signed_text},
};
use crate::{
    crm::Channel,
    ids::Ids,
    scenario::{Body, Webhook},
};

/// A request that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// `webhook` or `notification`.
    pub(super) kind: &'static str,
    /// The webhook's number, or the channel's id.
    pub(super) source: String,
    pub(super) product: String,
    pub(super) module: String,
    pub(super) ids: Vec<String>,
    pub(super) operation: &'static str,
    pub(super) method: String,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: String,
    /// How it is forged, if it is.
    pub(super) forged: Option<String>,
}

/// A webhook's request. The default payload has neither an event's name nor its time (finance fact 7.2).
pub(super) fn webhook(number: u64, webhook: &Webhook, change: &Change, signature: &Signature, ids: &mut Ids) -> Option<Message> {
    let mut url = Url::parse(&webhook.url).ok()?;
    for (name, value) in &webhook.query {
        // A secret in the query is what a forger does not know.
        if let Some(value) = signature.replace(value.clone(), ids) {
            url.query_pairs_mut().append_pair(name, &value);
        }
    }
    let payload = match change.product {
        // What a workflow of the CRM sends is up to whoever made it (CRM fact 4.2).
        "crm" => json!({ "module": change.module, "id": change.id, "operation": change.operation.name(), "record": change.record }),
        _ => json!({ change.key: change.record }),
    };
    let (kind, body, form) = match (&webhook.raw, webhook.body) {
        (Some(template), _) => ("application/json", filled(template, &payload, change), None),
        (None, Body::Json) => ("application/json", payload.to_string(), None),
        (None, Body::Form) => {
            let fields = vec![("JSONString".to_owned(), payload.to_string())];
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&fields).finish();
            ("application/x-www-form-urlencoded", body, Some(fields))
        }
    };
    let mut headers = vec![("Content-Type".to_owned(), kind.to_owned())];
    for (name, value) in &webhook.headers {
        headers.extend(signature.replace(value.clone(), ids).map(|value| (name.clone(), value)));
    }
    if let Some(secret) = &webhook.secret {
        let mut parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        parameters.extend(form.iter().flatten().cloned());
        let text = signed_text(&parameters, if form.is_some() { "" } else { &body });
        let digest = sign(secret, &text, webhook.encoding);
        headers.extend(signature.replace(digest, ids).map(|digest| (HEADER.to_owned(), digest)));
    }
    Some(Message {
        kind: "webhook",
        source: number.to_string(),
        product: change.product.to_owned(),
        module: change.module.clone(),
        ids: vec![change.id.clone()],
        operation: change.operation.name(),
        method: webhook.method.clone(),
        url: url.into(),
        headers,
        body,
        forged: None,
    })
}

/// A raw body: `${JSONString}` is the default payload, `${field}` a field of the record.
fn filled(template: &str, payload: &Value, change: &Change) -> String {
    let mut text = template.replace("${JSONString}", &payload.to_string());
    if let Value::Object(record) = &change.record {
        for (name, value) in record {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            text = text.replace(&format!("${{{name}}}"), &value);
        }
    }
    text
}

/// A notification of changes of one kind, in one module and by one call (CRM fact 4.1).
pub(super) fn notification(
    channel: &Channel,
    changes: &[&Change],
    now: DateTime<Utc>,
    token: &Signature,
    ids: &mut Ids,
) -> Option<Message> {
    let first = changes.first()?;
    // `insert` is confirmed, the other two are its likely siblings.
    let operation = match first.operation {
        Operation::Create => "insert",
        Operation::Edit => "update",
        Operation::Delete => "delete",
    };
    let edited = || changes.iter().filter(|change| change.operation == Operation::Edit);
    let url = Url::parse(&channel.notify_url).ok()?;
    let query: Map<String, Value> = url.query_pairs().map(|(name, value)| (name.into_owned(), value.into())).collect();
    let record_ids: Vec<String> = changes.iter().map(|change| change.id.clone()).collect();
    let mut body = json!({
        "server_time": now.timestamp_millis(),
        "query_params": query,
        "module": first.module,
        "resource_uri": format!("https://www.zohoapis.com/crm/v2/{}", first.module),
        "ids": record_ids,
        "affected_fields": edited().map(|change| json!({ change.id.as_str(): change.fields })).collect::<Vec<_>>(),
        "operation": operation,
        "channel_id": channel.id,
    });
    if let Some(token) = channel.token.clone().and_then(|right| token.replace(right, ids)) {
        body["token"] = token.into();
    }
    if channel.return_values {
        // The shape is as it is remembered, and not documented.
        let values = edited().map(|change| {
            let values: Map<String, Value> =
                change.fields.iter().filter_map(|field| Some((field.clone(), change.record.get(field)?.clone()))).collect();
            json!({ "record_id": change.id, "values": values })
        });
        body["affected_values"] = values.collect();
    }
    Some(Message {
        kind: "notification",
        source: channel.id.clone(),
        product: "crm".to_owned(),
        module: first.module.clone(),
        ids: record_ids,
        operation,
        method: "POST".to_owned(),
        url: channel.notify_url.clone(),
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: body.to_string(),
        forged: None,
    })
}
