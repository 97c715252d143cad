//! The event log (`GET /events`), from which a client catches up on what its webhooks missed (finance fact 7.4).

use serde_json::{Value, json};

use super::{
    Billing, Context, Outcome, Record, Refusal,
    list::{self, Listing},
    single,
};
use crate::exchange::Answer;

/// Most events that are kept; Zoho's own retention is limited too.
const MOST_EVENTS: usize = 100_000;

const ROW: &[&str] = &["event_id", "event_type", "event_time"];

impl Billing {
    /// Notes that something happened to a record. The payload is JSON in a string, as Zoho has it.
    pub(super) fn event(&mut self, kind: &str, key: &str, record: &Record, context: &mut Context<'_>) {
        if self.events.len() >= MOST_EVENTS {
            self.events.pop_first();
        }
        let id = context.ids.record();
        let mut event = Record::new();
        for (name, value) in [
            ("event_id", id.clone().into()),
            ("event_type", kind.into()),
            ("event_time", context.now()),
            ("payload", json!({ key: record }).to_string().into()),
            ("webhooks", json!([])),
        ] {
            event.insert(name.to_owned(), value);
        }
        self.events.insert(id, event);
    }

    pub(super) fn list_events(&self, context: &Context<'_>) -> Answer {
        let rows: Vec<Value> = self.events.values().rev().map(|event| list::row(event, ROW)).collect();
        let listing = Listing { key: "events", report_name: "Events", applied_filter: "All" };
        list::page(&listing, &rows, context)
    }

    pub(super) fn get_event(&self, context: &Context<'_>) -> Outcome {
        let event = self.events.get(context.id()).ok_or_else(|| Refusal::not_found("Event"))?;
        Ok(single(200, "success", "event", event, context.id()))
    }
}
