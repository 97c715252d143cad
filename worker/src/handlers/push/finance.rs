//! Finance products: one record a call. Billing's customers, products, plans, subscriptions, invoices and payments.

use std::collections::BTreeSet;

use serde_json::Value;
use sluice_queue::Outcome;
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::settle::Create;
use sluice_sync::definition::Definition;
use sluice_sync::link::Link;
use sluice_sync::link::agreed::{after_withdrawal, after_write, not_kept};
use sluice_sync::link::store::Agreed;
use sluice_sync::module::{Create as Way, Refusal};
use sluice_sync::plan::{self, Facts, Step, Withdrawal, Write};
use sluice_sync::value;
use sluice_zoho::finance::{self, Module};
use sluice_zoho::{Error, RejectionKind};

use super::adjust::{opening, parted};
use super::search::Search;
use super::{Record, Run, Verdict};
use crate::handlers::ended;
use crate::session::Ended;

impl Run<'_> {
    /// Makes the call that a step asks for.
    pub(super) async fn send_to_finance(&self, record: &Record<'_>, step: Step) -> Verdict {
        let Some(module) = finance_module(self.definition).filter(|module| module.writable() && self.definition.module.facts.written)
        else {
            let what = format!("{} cannot be pushed to by this version", self.definition.module);
            return Verdict::dead(Letter::new(Class::Payload, what).hint("see the list of modules in docs/configuration.md"));
        };
        match step {
            Step::Create(write) => self.create(record, module, &write).await,
            Step::Update { zoho_id, write, .. } => self.change(record, module, &zoho_id, &write).await,
            Step::Delete { zoho_id } => self.delete(record, module, &zoho_id).await,
            Step::Void { zoho_id } => self.withdraw(record, module, &zoho_id, Withdrawal::Void, None).await,
            Step::Mark { zoho_id, body } => self.withdraw(record, module, &zoho_id, Withdrawal::Mark, Some(body)).await,
            Step::Nothing(_) => match self.as_if_new(record) {
                Some(write) => self.look_again(record, module, &write.body).await,
                None => Verdict { looked_again: true, ..Verdict::of(Outcome::Done { reason: Some("looked_again") }) },
            },
            Step::WaitFor(_) | Step::Held { .. } | Step::Unsendable { .. } => Verdict::of(Outcome::Continue { progress: None }),
        }
    }

    /// What a create of this row would send.
    fn as_if_new(&self, record: &Record<'_>) -> Option<Write> {
        let facts = Facts {
            row: record.row.as_ref(),
            link: None,
            parents: &self.parents,
            leave_out: &record.leave_out,
            repair: &record.repair,
            force: false,
        };
        match plan::decide(self.definition, facts) {
            Step::Create(write) => Some(write),
            _ => None,
        }
    }

    async fn create(&self, record: &Record<'_>, module: Module, write: &Write) -> Verdict {
        let lost = record.link.as_ref().is_some_and(Link::may_be_lost);
        let way = self.definition.create_way();
        if lost && way == Way::Parked {
            match self.sent_anew(record).await {
                Ok(true) => {}
                Ok(false) => return Verdict::dead(parked("an earlier create was sent whose answer was lost")),
                Err(verdict) => return verdict,
            }
        }
        let found = if lost {
            let since = record.link.as_ref().and_then(|link| link.create_sent_at);
            // The row may say something else by now.
            let sent = record.link.as_ref().and_then(|link| link.lost().next_back()).unwrap_or(&write.body);
            match &way {
                Way::Refused { by: Refusal::Unique { field } } if sent.get(field) != write.body.get(field) => {
                    if Search::of(record).in_vain { Ok(Vec::new()) } else { self.find_lost(record, module, sent, since).await }
                }
                // refused already: there was only no call left to find it with, and each further create could be lost as well
                Way::Refused { .. } if Search::of(record).refused => self.find_lost(record, module, sent, since).await,
                // it refuses a second one by itself: simply send it again
                Way::Refused { .. } => Ok(Vec::new()),
                // looked for already: only the call for the create was not granted then
                Way::FoundAgain { .. } | Way::Parked if Search::of(record).in_vain => Ok(Vec::new()),
                Way::FoundAgain { .. } | Way::Parked => self.find_lost(record, module, sent, since).await,
            }
        } else if self.definition.sync.match_on.is_empty() {
            Ok(Vec::new())
        } else {
            self.find_match(record, module, &write.body, Search::of(record).refused).await
        };
        match found {
            Ok(hits) => match self.adopt(record, hits).await {
                Ok(Some(verdict)) | Err(verdict) => return verdict,
                Ok(None) => {}
            },
            Err(verdict) => return verdict,
        }
        self.send_create(record, module, write, lost, &way).await
    }

    async fn send_create(&self, record: &Record<'_>, module: Module, write: &Write, lost: bool, way: &Way) -> Verdict {
        let query = create_query(module, &write.body);
        let body = opening(self.definition.module.level(), &write.body);
        let answer = match self.note_sending(&[(record.slot.key.clone(), write.body.clone())]).await {
            Ok(()) => self.session.call(async |g, c, t| finance::create(g, c, t, module, &body, &query).await).await,
            Err(unnoted) => Err(unnoted),
        };
        let verdict = match answer {
            Ok(created) => {
                self.engine.walks.add(&self.work.batch.connection, module, &created.value).await;
                let repeated = lost && matches!(way, Way::FoundAgain { .. });
                self.agreed(record, write, &created.id, &created.value, repeated)
            }
            Err(Ended::Zoho(error, _)) if is_duplicate(&error) && matches!(way, Way::Refused { by: Refusal::Unique { .. } }) => {
                self.refused_duplicate(record, module, write, lost, &error).await
            }
            Err(Ended::Zoho(error, latency)) if is_duplicate(&error) && !lost && !self.definition.sync.match_on.is_empty() => {
                self.refused_match(record, module, write, &Ended::Zoho(error, latency)).await
            }
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::OutcomeUnknown { .. }) && *way == Way::Parked => {
                Verdict { create: Create::Doubt, ..Verdict::dead(parked(&error.to_string())) }
            }
            Err(failure) => {
                let (outcome, create) = ended(self.engine, self.work, self.session, record.slot, &failure, true);
                let verdict = Verdict { create, ..Verdict::of(outcome) };
                if lost { Search::of(record).ended_in_vain().kept(verdict) } else { verdict }
            }
        };
        Verdict { request: Some(write.body.clone()), ..verdict }
    }

    /// Zoho says it has one with our unique value. After a lost create it is ours; else `match_on` says whether it is to be adopted.
    async fn refused_duplicate(&self, record: &Record<'_>, module: Module, write: &Write, lost: bool, error: &Error) -> Verdict {
        let Way::Refused { by: Refusal::Unique { field } } = self.definition.create_way() else {
            return Verdict::dead(Letter::new(Class::Duplicate, error.to_string()));
        };
        if lost || self.definition.sync.match_on.contains(&field) {
            match self.find_lost(record, module, &write.body, None).await {
                Ok(hits) => match self.adopt(record, hits).await {
                    Ok(Some(verdict)) | Err(verdict) => return verdict,
                    Ok(None) => {}
                },
                Err(verdict) => return verdict,
            }
        }
        let letter = Letter::new(Class::Duplicate, error.to_string())
            .field(field.clone())
            .hint(format!("Zoho has a record with this {field}; add it to match_on to adopt such records, or change the row"));
        Verdict { create: Create::Settled, ..Verdict::dead(letter) }
    }

    /// Zoho says it has one already, which `match_on` did not find: it has it in another case, perhaps.
    async fn refused_match(&self, record: &Record<'_>, module: Module, write: &Write, refusal: &Ended) -> Verdict {
        match self.find_match(record, module, &write.body, true).await {
            Ok(hits) => match self.adopt(record, hits).await {
                Ok(Some(verdict)) | Err(verdict) => return verdict,
                Ok(None) => {}
            },
            Err(verdict) => return Search::of(record).of_refused().kept(verdict),
        }
        let (mut outcome, create) = ended(self.engine, self.work, self.session, record.slot, refusal, true);
        if let Outcome::Dead(letter) = &mut outcome {
            let by = self.definition.sync.match_on.join(", ");
            letter.hint = Some(format!(
                "Zoho has one that it takes for the same, but none whose {by} is the row's: make the two say the same, then requeue"
            ));
        }
        Verdict { create, ..Verdict::of(outcome) }
    }

    /// An update, and the adjustment of a level, which needs calls of its own.
    async fn change(&self, record: &Record<'_>, module: Module, zoho_id: &str, write: &Write) -> Verdict {
        let level = self.definition.module.level();
        match (parted(level, write), level) {
            ((None, Some(alone)), Some(level)) => self.adjust(record, zoho_id, level, &alone).await,
            ((Some(rest), Some(_)), _) => {
                let verdict = self.update(record, module, zoho_id, &rest).await;
                let outcome = if verdict.agreed.is_some() { Outcome::Continue { progress: None } } else { verdict.outcome.clone() };
                Verdict { outcome, ..verdict }
            }
            _ => self.update(record, module, zoho_id, write).await,
        }
    }

    async fn update(&self, record: &Record<'_>, module: Module, zoho_id: &str, write: &Write) -> Verdict {
        // What is noted as ours is not what stood there before.
        let body = whole_objects(write, record.theirs.as_ref());
        let answer = match self.note_sending(&[(record.slot.key.clone(), write.body.clone())]).await {
            Ok(()) => self.session.call(async |g, c, t| finance::update(g, c, t, module, zoho_id, &body, &[]).await).await,
            Err(unnoted) => Err(unnoted),
        };
        let verdict = match answer {
            Ok(updated) => self.agreed(record, write, zoho_id, &updated.value, false),
            Err(failure) => self.ended(record, &failure),
        };
        Verdict { request: Some(write.body.clone()), ..verdict }
    }

    fn agreed(&self, record: &Record<'_>, write: &Write, zoho_id: &str, answered: &Value, look_again: bool) -> Verdict {
        let Some(row) = &record.row else { return Verdict::of(Outcome::Continue { progress: None }) };
        let verdict = Verdict::written(Agreed {
            key: record.slot.key.clone(),
            zoho_id: zoho_id.to_owned(),
            fields: after_write(self.definition, row, record.link.as_ref(), write, Some(answered)),
            zoho_modified_at: self.definition.module.modified_at(answered),
            written: true,
            look_again,
        });
        let lost = not_kept(self.definition, write, answered);
        let response = (!lost.is_empty()).then(|| serde_json::json!({ "not_kept": lost }));
        let verdict = Verdict { response, ..verdict };
        if record.leave_out.is_empty() { verdict } else { Verdict { outcome: Outcome::Continue { progress: None }, ..verdict } }
    }

    async fn delete(&self, record: &Record<'_>, module: Module, zoho_id: &str) -> Verdict {
        let answer = self.session.call(async |g, c, t| finance::delete(g, c, t, module, zoho_id).await).await;
        let verdict = match answer {
            Ok(()) => Verdict { unlinked: true, ..Verdict::of(Outcome::Done { reason: None }) },
            // gone already: an earlier delete whose answer was lost, or somebody else's
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::NotFound { .. }) => {
                Verdict { unlinked: true, ..Verdict::of(Outcome::Done { reason: None }) }
            }
            Err(failure) => kept_by_zoho(self.ended(record, &failure)),
        };
        Verdict { request: Some(serde_json::json!({"delete": zoho_id})), ..verdict }
    }

    async fn withdraw(&self, record: &Record<'_>, module: Module, zoho_id: &str, how: Withdrawal, body: Option<Value>) -> Verdict {
        let answer = match &body {
            Some(body) => self.session.call(async |g, c, t| finance::update(g, c, t, module, zoho_id, body, &[]).await).await.map(|_| ()),
            None => {
                let voided = self.session.call(async |g, c, t| finance::action(g, c, t, module, zoho_id, "void", None, &[]).await).await;
                voided.map(|_| ())
            }
        };
        let request = body.unwrap_or_else(|| serde_json::json!({"void": zoho_id}));
        let verdict = match (answer, &record.link) {
            (Ok(()), Some(link)) => Verdict::written(Agreed {
                key: record.slot.key.clone(),
                zoho_id: zoho_id.to_owned(),
                fields: after_withdrawal(self.definition, link, how),
                zoho_modified_at: None,
                written: true,
                look_again: false,
            }),
            (Ok(()), None) => Verdict::of(Outcome::Done { reason: None }),
            (Err(failure), _) => kept_by_zoho(self.ended(record, &failure)),
        };
        Verdict { request: Some(request), ..verdict }
    }
}

/// There is no row to mend any more.
fn kept_by_zoho(mut verdict: Verdict) -> Verdict {
    if let Outcome::Dead(letter) = &mut verdict.outcome {
        let what = "the row is gone, and Zoho does not let go of its record: requeue once what hinders it there is removed, or withdraw it there by hand and discard this";
        letter.hint = Some(what.to_owned());
    }
    verdict
}

/// The finance module that a sync names.
pub(crate) fn finance_module(definition: &Definition) -> Option<Module> {
    let product = definition.module.product.as_str().parse().ok()?;
    Module::parse(product, &definition.module.name)
}

/// An update is partial only at the top level (finance sheet §5): an object of which parts are mapped is sent with all that Zoho has in it, or what a
/// person edited there, and what is not mapped, would be cleared.
fn whole_objects(write: &Write, theirs: Option<&Value>) -> Value {
    let mut body = write.body.clone();
    let (Some(theirs), Some(members)) = (theirs, body.as_object_mut()) else { return body };
    let tops: BTreeSet<&str> = write.sent.iter().filter_map(|path| Some(path.split_once('.')?.0)).collect();
    for (name, ours) in members.iter_mut().filter(|(name, _)| tops.contains(name.as_str())) {
        if let Some(theirs @ Value::Object(_)) = theirs.get(name) {
            *ours = over(theirs.clone(), ours.take());
        }
    }
    body
}

/// `ours` laid over `theirs`, member by member.
fn over(theirs: Value, ours: Value) -> Value {
    match (theirs, ours) {
        (Value::Object(mut theirs), Value::Object(ours)) => {
            for (name, value) in ours {
                let under = theirs.remove(&name).unwrap_or_default();
                theirs.insert(name, over(under, value));
            }
            Value::Object(theirs)
        }
        (_, ours) => ours,
    }
}

/// An invoice with a number of ours goes with the flag that lets it (finance sheet §4.2, §5.4).
fn create_query(module: Module, body: &Value) -> Vec<(&'static str, &'static str)> {
    let numbered = module == Module::INVOICES && body.get("invoice_number").is_some_and(|number| !value::is_empty(number));
    if numbered { vec![("ignore_auto_number_generation", "true")] } else { Vec::new() }
}

fn is_duplicate(error: &Error) -> bool {
    matches!(error, Error::Rejected(rejection) if rejection.kind == RejectionKind::Duplicate)
}

pub(super) fn parked(what: &str) -> Letter {
    Letter::new(Class::Unknown, format!("{what}; Zoho offers no way to find the record again")).hint(
        "look in Zoho: if the record is there, delete it there, or discard this letter; then, or if it is not there, requeue: that creates it anew. A `reference` avoids this",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_module_that_can_be_listed_has_the_id_under_which_its_records_are_known() {
        for module in Module::all().filter(|module| module.listed() && *module != Module::TRANSACTIONS && *module != Module::EVENTS) {
            let name = format!("{}/{}", module.product().as_str(), module.as_str());
            let known = sluice_sync::module::Module::of(&name.parse().expect("a module's name"));
            assert!(known.is_known(), "{name} would be polled and nothing of it kept");
            assert_eq!((known.facts.record_key, known.facts.id_key), (module.response_key(), module.id_key()), "{name}");
        }
    }
}
