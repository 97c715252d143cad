//! Notification channels (`/actions/watch`, CRM fact 4.1): subscribed to, renewed, dropped, and gone when they expire.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use super::{Context, Crm, Refusal};
use crate::{
    clock::{Zone, parse_time},
    exchange::Answer,
    operations::Verb,
    outgoing::{Change, Operation},
};

/// Most channels of one call.
const MOST_CHANNELS: usize = 50;
/// Longest token, and longest address.
const MOST_TOKEN: usize = 50;
const MOST_URL: usize = 255;
/// Life of a channel that asks for none, or for too long a one.
const DEFAULT_LIFE: TimeDelta = TimeDelta::hours(1);
const LONGEST_LIFE: TimeDelta = TimeDelta::days(7);

/// One channel.
#[derive(Clone, Debug)]
pub(crate) struct Channel {
    pub(crate) id: String,
    /// `Deals.all`, `Contacts.edit`.
    events: BTreeSet<String>,
    pub(crate) notify_url: String,
    pub(crate) token: Option<String>,
    expiry: DateTime<Utc>,
    pub(crate) return_values: bool,
    /// Fields of which one must have changed; none: any.
    condition: Vec<String>,
}

impl Channel {
    /// As `GET /actions/watch` shows it for one of its modules. The token is not shown.
    fn to_json(&self, module: &str, crm: &Crm, zone: Zone) -> Value {
        json!({
            "channel_id": self.id, "resource_name": module, "resource_id": crm.module_id(module),
            "resource_uri": format!("https://www.zohoapis.com/crm/v8/{module}"),
            "events": self.events.iter().filter(|event| module_of(event) == module).collect::<Vec<_>>(),
            "notify_url": self.notify_url, "channel_expiry": zone.crm_time(self.expiry), "token": self.token,
            "return_affected_field_values": self.return_values, "notify_on_related_action": false,
        })
    }

    fn modules(&self) -> BTreeSet<&str> {
        self.events.iter().map(|event| module_of(event)).collect()
    }

    /// Whether it is to be told of a change.
    pub(crate) fn wants(&self, change: &Change) -> bool {
        let operation = change.operation.name();
        let listens = ["all", operation].iter().any(|kind| self.events.contains(&format!("{}.{kind}", change.module)));
        let of_condition = || change.fields.iter().any(|field| self.condition.contains(field));
        listens && (self.condition.is_empty() || change.operation != Operation::Edit || of_condition())
    }
}

fn module_of(event: &str) -> &str {
    event.split_once('.').map_or(event, |(module, _)| module)
}

impl Crm {
    pub(super) fn watch(&mut self, verb: Verb, context: &mut Context<'_>) -> Answer {
        // Expired channels are collected: a later call does not find them.
        self.channels.retain(|_, channel| channel.expiry > context.now);
        match verb {
            Verb::List => self.list_channels(context),
            Verb::Delete => self.drop_channels(context),
            _ => self.write_channels(verb, context),
        }
    }

    fn module_id(&self, module: &str) -> Value {
        self.modules.get(module).map_or(Value::Null, |module| module.id.as_str().into())
    }

    fn list_channels(&self, context: &Context<'_>) -> Answer {
        let get = |name: &str| context.request.query(name);
        let mut rows = Vec::new();
        for channel in self.channels.values().filter(|channel| get("channel_id").is_none_or(|id| id == channel.id)) {
            let modules = channel.modules().into_iter().filter(|module| get("module").is_none_or(|wanted| wanted == *module));
            rows.extend(modules.map(|module| channel.to_json(module, self, context.zone())));
        }
        match rows.len() {
            0 => Answer::empty(204),
            count => {
                let info = json!({ "per_page": 200, "count": count, "page": 1, "more_records": false });
                Answer::json(200, json!({ "watch": rows, "info": info }))
            }
        }
    }

    /// `POST` subscribes, `PUT` replaces, `PATCH` changes what is named.
    fn write_channels(&mut self, verb: Verb, context: &mut Context<'_>) -> Answer {
        let mut body = context.request.json_object().unwrap_or_default();
        let Some(Value::Array(given)) = body.remove("watch") else {
            let details = json!({ "api_name": "watch", "json_path": "$.watch" });
            return Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details).answer(400);
        };
        if given.is_empty() || given.len() > MOST_CHANNELS {
            let details = json!({ "api_name": "watch", "maximum_length": MOST_CHANNELS });
            return Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details).answer(400);
        }
        let mut failed = 0;
        let mut rows = Vec::new();
        for (at, given) in given.iter().enumerate() {
            let channel = given.as_object().cloned().unwrap_or_default();
            match self.written(verb, &channel, at, context) {
                Ok(channel) => {
                    rows.push(self.subscribed(&channel, context.zone()));
                    self.channels.insert(channel.id.clone(), channel);
                }
                Err(refusal) => {
                    failed += 1;
                    rows.push(refusal.to_json());
                }
            }
        }
        let all_well = if verb == Verb::Create { 201 } else { 200 };
        let status = match failed {
            0 => all_well,
            _ if failed == rows.len() => 400,
            _ => 207,
        };
        Answer::json(status, json!({ "watch": rows }))
    }

    fn subscribed(&self, channel: &Channel, zone: Zone) -> Value {
        let events = channel.modules().into_iter().map(|module| {
            json!({
                "channel_id": channel.id, "resource_name": module, "resource_id": self.module_id(module),
                "resource_uri": format!("https://www.zohoapis.com/crm/v8/{module}"),
                "channel_expiry": zone.crm_time(channel.expiry),
            })
        });
        json!({
            "code": "SUCCESS", "status": "success", "message": "Successfully subscribed for actions-watch of the given module",
            "details": { "events": events.collect::<Vec<_>>() },
        })
    }

    /// The channel as it is to be stored.
    fn written(&self, verb: Verb, given: &Map<String, Value>, at: usize, context: &Context<'_>) -> Result<Channel, Refusal> {
        let place = |name: &str| json!({ "api_name": name, "json_path": format!("$.watch[{at}].{name}") });
        let missing = |name: &str| Refusal::new("MANDATORY_NOT_FOUND", "required field not found", place(name));
        let invalid = |name: &str| Refusal::new("INVALID_DATA", "invalid data", place(name));
        let id = match given.get("channel_id") {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => return Err(missing("channel_id")),
        };
        if id.parse::<i64>().is_err() {
            return Err(invalid("channel_id"));
        }
        let known = self.channels.get(&id).cloned();
        if verb != Verb::Create && known.is_none() {
            return Err(not_subscribed(&id));
        }
        let events = self.events(given).map_err(|()| invalid("events"))?;
        let old = known.filter(|_| verb == Verb::Patch);
        let url = given.get("notify_url").and_then(Value::as_str).map(str::to_owned);
        let mut channel = match (old, url) {
            (Some(old), url) => Channel { notify_url: url.unwrap_or(old.notify_url.clone()), ..old },
            (None, None) => return Err(missing("notify_url")),
            (None, Some(_)) if events.is_none() => return Err(missing("events")),
            (None, Some(notify_url)) => Channel {
                id,
                events: BTreeSet::new(),
                notify_url,
                token: None,
                expiry: context.now,
                return_values: false,
                condition: Vec::new(),
            },
        };
        if channel.notify_url.len() > MOST_URL || url::Url::parse(&channel.notify_url).is_err() {
            return Err(invalid("notify_url"));
        }
        match (events, given.get("_delete_events") == Some(&Value::Bool(true))) {
            (Some(events), true) => channel.events.retain(|event| !events.contains(event)),
            (Some(events), false) => channel.events = events,
            (None, _) => {}
        }
        if let Some(token) = given.get("token") {
            let token = token.as_str().filter(|token| token.chars().count() <= MOST_TOKEN).ok_or_else(|| invalid("token"))?;
            channel.token = Some(token.to_owned());
        }
        if let Some(wanted) = given.get("return_affected_field_values") {
            channel.return_values = wanted == &Value::Bool(true);
        }
        if let Some(condition) = given.get("notification_condition") {
            channel.condition = condition_fields(condition);
        }
        if given.contains_key("channel_expiry") || verb != Verb::Patch {
            let asked = given.get("channel_expiry").and_then(Value::as_str).and_then(parse_time);
            let asked = asked.filter(|at| *at > context.now && *at - context.now <= LONGEST_LIFE);
            channel.expiry = asked.unwrap_or(context.now + DEFAULT_LIFE);
        }
        Ok(channel)
    }

    /// The events given, if any; an error if one of them cannot be.
    fn events(&self, given: &Map<String, Value>) -> Result<Option<BTreeSet<String>>, ()> {
        let Some(events) = given.get("events") else { return Ok(None) };
        let mut found = BTreeSet::new();
        for event in events.as_array().ok_or(())? {
            let event = event.as_str().ok_or(())?;
            let (module, kind) = event.split_once('.').ok_or(())?;
            if !self.modules.contains_key(module) || !["create", "edit", "delete", "all"].contains(&kind) {
                return Err(());
            }
            found.insert(event.to_owned());
        }
        Ok(Some(found))
    }

    fn drop_channels(&mut self, context: &Context<'_>) -> Answer {
        let Some(ids) = context.request.query("channel_ids").filter(|ids| !ids.is_empty()) else {
            let details = json!({ "param_name": "channel_ids" });
            return Refusal::new("REQUIRED_PARAM_MISSING", "One of the expected parameter is missing", details).answer(400);
        };
        let mut failed = 0;
        let mut rows = Vec::new();
        for id in ids.split(',') {
            let Some(channel) = self.channels.remove(id) else {
                failed += 1;
                rows.push(not_subscribed(id).to_json());
                continue;
            };
            rows.extend(channel.modules().into_iter().map(|module| {
                json!({
                    "code": "SUCCESS", "status": "success", "message": "Successfully un-subscribed from actions-watch",
                    "details": { "channel_id": id, "resource_name": module, "resource_id": self.module_id(module) },
                })
            }));
        }
        let status = match failed {
            0 => 200,
            _ if failed == rows.len() => 400,
            _ => 207,
        };
        Answer::json(status, json!({ "watch": rows }))
    }

    /// The channels that are to be told of a change.
    pub(crate) fn subscribers(&self, change: &Change, now: DateTime<Utc>) -> Vec<Channel> {
        self.channels.values().filter(|channel| channel.expiry > now && channel.wants(change)).cloned().collect()
    }

    pub(crate) fn channel(&self, id: &str) -> Option<&Channel> {
        self.channels.get(id)
    }

    /// All channels, expired ones too; for the admin API.
    pub(crate) fn channels(&self, zone: Zone) -> Vec<Value> {
        let row = |channel: &Channel| {
            json!({
                "channel_id": channel.id, "events": channel.events, "notify_url": channel.notify_url, "token": channel.token,
                "channel_expiry": zone.crm_time(channel.expiry),
            })
        };
        self.channels.values().map(row).collect()
    }

    /// Loses a channel, or all, as if they had never been; for the admin API.
    pub(crate) fn lose_channels(&mut self, id: Option<&str>) -> usize {
        let before = self.channels.len();
        self.channels.retain(|known, _| id.is_some_and(|id| id != known));
        before - self.channels.len()
    }
}

fn not_subscribed(id: &str) -> Refusal {
    Refusal::new("NOT_SUBSCRIBED", "the channel is not subscribed", json!({ "channel_id": id }))
}

/// The API names in a `notification_condition`, of one field or of a group.
fn condition_fields(condition: &Value) -> Vec<String> {
    let mut fields = Vec::new();
    let mut left: Vec<&Value> = condition.as_array().into_iter().flatten().map(|one| &one["field_selection"]).collect();
    while let Some(selection) = left.pop() {
        fields.extend(selection["field"]["api_name"].as_str().map(str::to_owned));
        left.extend(selection["group"].as_array().into_iter().flatten());
    }
    fields
}
