//! Which deliveries there are: what was decided of each, when it is due, and what was answered.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};
use tokio::sync::Notify;

use super::{
    Change,
    body::{Message, notification, webhook},
    forge::{Signature, forged_record},
};
use crate::{
    clock::now_us,
    crm::Crm,
    ids::Ids,
    scenario::{Delivery as Rules, Scenario, Webhook},
};

/// Most deliveries that are kept for the admin API; those that are still to be sent are kept anyway.
const MOST_KEPT: usize = 100_000;
/// Most ids in one notification.
const MOST_IDS: usize = 100;

/// What has become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Pending,
    Sending,
    Delivered,
    /// Not answered with a 2xx, and not tried again.
    Failed,
    /// Never sent.
    Lost,
}

/// One delivery, from the change to the receiver's answer.
#[derive(Debug)]
struct Delivery {
    number: u64,
    message: Arc<Message>,
    made_us: i64,
    state: State,
    doubled: bool,
    delayed: bool,
    /// Held back so that a later one overtakes it.
    reordered: bool,
    tries: Vec<Value>,
    due: Instant,
}

/// All deliveries, and the webhooks they come from.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(super) webhooks: BTreeMap<u64, Webhook>,
    last_webhook: u64,
    last: u64,
    deliveries: VecDeque<Delivery>,
    /// Numbers of what is still to be sent, by their time.
    waiting: BTreeSet<(Instant, u64)>,
    /// Those that are held back to be overtaken.
    held: Vec<u64>,
    pub(super) counts: BTreeMap<String, u64>,
    pub(super) chances: Ids,
    wake: Arc<Notify>,
}

impl Outgoing {
    pub(crate) fn new(scenario: &Scenario) -> Self {
        let mut outgoing = Self {
            webhooks: BTreeMap::new(),
            last_webhook: 0,
            last: 0,
            deliveries: VecDeque::new(),
            waiting: BTreeSet::new(),
            held: Vec::new(),
            counts: BTreeMap::new(),
            // Its own, so that what is delivered does not shift ids and the faults' chances.
            chances: Ids::new(scenario.seed ^ 0x5eed),
            wake: Arc::default(),
        };
        for webhook in &scenario.webhooks {
            outgoing.add(webhook.clone());
        }
        outgoing
    }

    /// Told when there is something to send.
    pub(super) fn wake(&self) -> Arc<Notify> {
        Arc::clone(&self.wake)
    }

    pub(crate) fn add(&mut self, webhook: Webhook) -> u64 {
        self.last_webhook += 1;
        self.webhooks.insert(self.last_webhook, webhook);
        self.last_webhook
    }

    /// Removes one webhook, or all; how many there were.
    pub(crate) fn remove(&mut self, number: Option<u64>) -> usize {
        let before = self.webhooks.len();
        self.webhooks.retain(|known, _| number.is_some_and(|number| number != *known));
        before - self.webhooks.len()
    }

    /// Forgets what was delivered; with `all` also what is still to be sent, and all webhooks but the scenario's.
    pub(crate) fn reset(&mut self, all: bool, scenario: &Scenario) {
        self.counts.clear();
        if all {
            *self = Self { last: self.last, wake: Arc::clone(&self.wake), ..Self::new(scenario) };
        } else {
            self.deliveries.retain(|delivery| matches!(delivery.state, State::Pending | State::Sending));
        }
    }

    /// Tells all who want to know of these changes, which one call made.
    pub(crate) fn tell(&mut self, changes: &[Change], scenario: &Scenario, crm: &Crm, now: DateTime<Utc>) {
        let rules = &scenario.delivery;
        for change in changes {
            let fits: Vec<(u64, Webhook)> =
                self.webhooks.iter().filter(|(_, webhook)| wants(webhook, change)).map(|(n, w)| (*n, w.clone())).collect();
            for (number, configured) in fits {
                self.tell_webhook(number, &configured, change, rules);
            }
        }
        for group in groups(changes) {
            for channel in crm.subscribers(group[0], now) {
                let wanted: Vec<&Change> = group.iter().filter(|change| channel.wants(change)).copied().collect();
                if let Some(message) = notification(&channel, &wanted, now, &Signature::Right, &mut self.chances) {
                    self.schedule(message, rules);
                }
                if self.hits(rules.forge, "forged") {
                    let token = self.forgers_signature();
                    let message = notification(&channel, &wanted, now, &token, &mut self.chances);
                    self.forge_now(message, &token);
                }
            }
        }
    }

    fn tell_webhook(&mut self, number: u64, configured: &Webhook, change: &Change, rules: &Rules) {
        if let Some(message) = webhook(number, configured, change, &Signature::Right, &mut self.chances) {
            self.schedule(message, rules);
        }
        if self.hits(rules.forge, "forged") {
            let signature = self.forgers_signature();
            let change = Change { record: forged_record(&change.record), ..change.clone() };
            let message = webhook(number, configured, &change, &signature, &mut self.chances);
            self.forge_now(message, &signature);
        }
    }

    /// Decides what happens to a delivery, and when.
    fn schedule(&mut self, message: Message, rules: &Rules) {
        let message = Arc::new(message);
        if self.hits(rules.lose, "lost") {
            let number = self.push(message, Duration::ZERO);
            self.set_state(number, State::Lost);
            return;
        }
        let copies = 1 + usize::from(self.hits(rules.double, "doubled"));
        for copy in 0..copies {
            let mut wait = self.chances.between(rules.latency_ms[0], rules.latency_ms[1]);
            let delayed = self.hits(rules.delay, "delayed");
            if delayed {
                wait += self.chances.between(rules.delay_ms[0], rules.delay_ms[1]);
            }
            let reordered = self.hits(rules.reorder, "reordered");
            if reordered {
                wait += rules.hold_ms;
            }
            let number = self.push(Arc::clone(&message), Duration::from_millis(wait));
            if let Some(delivery) = self.deliveries.back_mut() {
                (delivery.doubled, delivery.delayed, delivery.reordered) = (copy > 0, delayed, reordered);
            }
            match reordered {
                true => self.held.push(number),
                false => self.release_held(&message.url),
            }
        }
    }

    /// Those that were held back follow this one, which has overtaken them.
    fn release_held(&mut self, url: &str) {
        const AFTER: Duration = Duration::from_millis(25);
        let Some(due) = self.deliveries.back().map(|delivery| delivery.due + AFTER) else { return };
        for number in std::mem::take(&mut self.held) {
            let Some(delivery) = self.delivery(number).filter(|delivery| delivery.state == State::Pending) else { continue };
            if delivery.message.url != url {
                self.held.push(number);
                continue;
            }
            let held_until = std::mem::replace(&mut delivery.due, due);
            self.waiting.remove(&(held_until, number));
            self.waiting.insert((due, number));
        }
    }

    pub(super) fn push(&mut self, message: Arc<Message>, wait: Duration) -> u64 {
        self.last += 1;
        while self.deliveries.len() >= MOST_KEPT
            && self.deliveries.front().is_some_and(|oldest| !matches!(oldest.state, State::Pending | State::Sending))
        {
            self.deliveries.pop_front();
        }
        let due = Instant::now() + wait;
        self.deliveries.push_back(Delivery {
            number: self.last,
            message,
            made_us: now_us(),
            state: State::Pending,
            doubled: false,
            delayed: false,
            reordered: false,
            tries: Vec::new(),
            due,
        });
        self.waiting.insert((due, self.last));
        self.wake.notify_one();
        self.last
    }

    /// Draws a chance, and counts it by its name if it hits.
    fn hits(&mut self, probability: f64, name: &str) -> bool {
        let hit = probability >= 1.0 || (probability > 0.0 && self.chances.chance(probability));
        if hit {
            *self.counts.entry(name.to_owned()).or_default() += 1;
        }
        hit
    }

    fn delivery(&mut self, number: u64) -> Option<&mut Delivery> {
        let at = self.deliveries.binary_search_by_key(&number, |delivery| delivery.number).ok()?;
        self.deliveries.get_mut(at)
    }

    fn set_state(&mut self, number: u64, state: State) {
        let Some(delivery) = self.delivery(number) else { return };
        delivery.state = state;
        let due = delivery.due;
        self.waiting.remove(&(due, number));
    }

    /// Takes what is due, at most so many; and says when the next one is.
    pub(super) fn due(&mut self, most: usize) -> (Vec<(u64, Arc<Message>)>, Option<Instant>) {
        let now = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < most {
            let Some((due, number)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) else { break };
            self.waiting.remove(&(due, number));
            if let Some(delivery) = self.delivery(number) {
                delivery.state = State::Sending;
                taken.push((number, Arc::clone(&delivery.message)));
            }
        }
        (taken, self.waiting.first().map(|(due, _)| *due))
    }

    /// Notes what a receiver answered, and tries again later if it did not take the delivery and the rules say so.
    pub(super) fn answered(&mut self, number: u64, outcome: &Result<u16, String>, took: Duration, rules: &Rules) {
        let name = match outcome {
            Ok(status) => status.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        *self.counts.entry(format!("answered {name}")).or_default() += 1;
        let Some(delivery) = self.delivery(number) else { return };
        let at = Utc::now() - took;
        delivery.tries.push(json!({
            "sent_at": at.to_rfc3339_opts(SecondsFormat::Micros, true),
            "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "status": outcome.as_ref().ok(),
            "error": outcome.as_ref().err(),
        }));
        let tries = delivery.tries.len();
        if matches!(outcome, Ok(200..300)) {
            delivery.state = State::Delivered;
        } else if tries > rules.retries || delivery.message.forged.is_some() {
            delivery.state = State::Failed;
        } else {
            let doublings = u32::try_from(tries - 1).unwrap_or(u32::MAX).min(16);
            delivery.due = Instant::now() + Duration::from_millis(rules.backoff_ms) * 2_u32.pow(doublings);
            delivery.state = State::Pending;
            let due = delivery.due;
            self.waiting.insert((due, number));
            *self.counts.entry("retried".to_owned()).or_default() += 1;
            self.wake.notify_one();
        }
    }

    /// What happened, and how often; `pending` is what is still to be sent or on its way.
    pub(crate) fn counts(&self) -> Value {
        let mut counts: Map<String, Value> = self.counts.iter().map(|(name, count)| (name.clone(), (*count).into())).collect();
        let count = |state: &[State]| self.deliveries.iter().filter(|delivery| state.contains(&delivery.state)).count();
        counts.insert("pending".to_owned(), count(&[State::Pending, State::Sending]).into());
        counts.insert("delivered".to_owned(), count(&[State::Delivered]).into());
        counts.insert("failed".to_owned(), count(&[State::Failed]).into());
        Value::Object(counts)
    }

    pub(crate) fn webhooks(&self) -> Vec<Value> {
        let row = |(number, webhook): (&u64, &Webhook)| {
            let mut row = serde_json::to_value(webhook).unwrap_or_default();
            row["id"] = (*number).into();
            row
        };
        self.webhooks.iter().map(row).collect()
    }

    /// The deliveries above a number, oldest first, and the number to go on from.
    pub(crate) fn list(&self, since: u64, most: usize) -> (Vec<Value>, u64) {
        let found: Vec<&Delivery> = self.deliveries.iter().filter(|delivery| delivery.number > since).take(most).collect();
        (found.iter().map(|delivery| delivery.to_json()).collect(), found.last().map_or(since, |last| last.number))
    }
}

impl Delivery {
    fn to_json(&self) -> Value {
        let message = &self.message;
        let made = DateTime::from_timestamp_micros(self.made_us).unwrap_or_default();
        json!({
            "number": self.number,
            "made_at": made.to_rfc3339_opts(SecondsFormat::Micros, true),
            "kind": message.kind, "source": message.source, "product": message.product, "module": message.module,
            "ids": message.ids, "operation": message.operation, "url": message.url, "body": message.body,
            "headers": message.headers.iter().cloned().collect::<BTreeMap<_, _>>(),
            "state": match self.state {
                State::Pending => "pending",
                State::Sending => "sending",
                State::Delivered => "delivered",
                State::Failed => "failed",
                State::Lost => "lost",
            },
            "doubled": self.doubled, "delayed": self.delayed, "reordered": self.reordered, "forged": message.forged,
            "tries": self.tries,
        })
    }
}

/// Whether a webhook is to be told of a change.
fn wants(webhook: &Webhook, change: &Change) -> bool {
    let named = |list: &[String], name: &str| list.is_empty() || list.iter().any(|one| one == name);
    webhook.product == change.product
        && webhook.organization.as_ref().is_none_or(|id| *id == change.organization)
        && named(&webhook.modules, &change.module)
        && named(&webhook.events, change.operation.name())
        && change.workflow
}

/// The changes of the CRM that go into one notification: of one module and kind, at most so many.
fn groups(changes: &[Change]) -> Vec<Vec<&Change>> {
    let mut groups: Vec<Vec<&Change>> = Vec::new();
    for change in changes.iter().filter(|change| change.product == "crm") {
        let same = |group: &&mut Vec<&Change>| {
            group.len() < MOST_IDS && group[0].module == change.module && group[0].operation == change.operation
        };
        match groups.iter_mut().rfind(same) {
            Some(group) => group.push(change),
            None => groups.push(vec![change]),
        }
    }
    groups
}
