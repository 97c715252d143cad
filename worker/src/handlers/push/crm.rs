//! CRM: up to a hundred records a call. Creates ride in one upsert on unique fields, updates in one `PUT` by id, deletes in one `DELETE`;
//! each record by its own result.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sluice_queue::Outcome;
use sluice_queue::settle::Create;
use sluice_sync::link::Pair;
use sluice_sync::link::agreed::{after_withdrawal, after_write};
use sluice_sync::link::store::Agreed;
use sluice_sync::module::{Create as Way, Refusal};
use sluice_sync::plan::{self, Step, Withdrawal, Write, replace_rows};
use sluice_sync::value;
use sluice_zoho::Error;
use sluice_zoho::cost::Cost;
use sluice_zoho::crm::{self, Action, RecordResult, WriteOptions, Written};

use super::finance::parked;
use super::{Record, Run, Verdict};
use crate::handlers::{ended, snooze};
use crate::outcome::halved;
use crate::session::Ended;

/// A record that changed since it was read is read again after this: Zoho's times have seconds, and a change of this very second would be refused
/// once more.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// One record's part of a call.
struct Part<'a> {
    record: Record<'a>,
    body: Map<String, Value>,
    then: Then,
}

/// What success means.
enum Then {
    /// The fields by which a lost create was to be found again, as it said them: the row says something else by now.
    Agree(Write, Map<String, Value>),
    Withdrawn,
    Unlink,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Call {
    Upsert,
    Update,
    Delete,
}

impl Run<'_> {
    /// Makes the calls, the one that carries most first; records whose call is not granted now go on in a later claim.
    pub(super) async fn send_to_crm<'r>(&self, steps: Vec<(Record<'r>, Step)>) -> BTreeMap<i64, Verdict> {
        let mut verdicts = BTreeMap::new();
        let mut calls: BTreeMap<Call, Vec<Part<'r>>> = BTreeMap::new();
        let (steps, known) = self.without_similar(steps, &mut verdicts).await;
        for (record, step) in steps {
            let slot = record.slot.id;
            match self.part(record, step).await {
                Ok((call, part)) => calls.entry(call).or_default().push(part),
                Err(verdict) => {
                    verdicts.insert(slot, verdict);
                }
            }
        }
        let mut calls: Vec<_> = calls.into_iter().collect();
        calls.sort_by_key(|(_, parts)| std::cmp::Reverse(parts.len()));
        for (call, parts) in calls {
            let answer = self.send(call, &parts).await;
            verdicts.extend(self.results(call, parts, answer));
        }
        known.keep(&mut verdicts);
        verdicts
    }

    async fn part<'r>(&self, record: Record<'r>, step: Step) -> Result<(Call, Part<'r>), Verdict> {
        Ok(match step {
            Step::Create(write) => {
                let (body, found_by) = self.as_before(&record, &write).await?;
                (Call::Upsert, Part { record, body, then: Then::Agree(write, found_by) })
            }
            Step::Update { zoho_id, mut write, subforms, .. } => {
                if !subforms.is_empty() {
                    let module = &self.definition.module.name;
                    let current = self.session.call(async |g, c, t| crm::get(g, c, t, module, &zoho_id).await).await;
                    let current = current.map_err(|failure| self.ended(&record, &failure))?;
                    for subform in &subforms {
                        replace_rows(&mut write.body, subform, &current);
                    }
                }
                let body = with_id(object(&write.body), zoho_id);
                (Call::Update, Part { record, body, then: Then::Agree(write, Map::new()) })
            }
            Step::Mark { zoho_id, body } => {
                let body = with_id(object(&body), zoho_id);
                (Call::Update, Part { record, body, then: Then::Withdrawn })
            }
            Step::Delete { zoho_id } => (Call::Delete, Part { record, body: with_id(Map::new(), zoho_id), then: Then::Unlink }),
            Step::Void { .. } | Step::Nothing(_) | Step::WaitFor(_) | Step::Held { .. } | Step::Unsendable { .. } => {
                return Err(Verdict { looked_again: true, ..Verdict::of(Outcome::Done { reason: Some("no_change") }) });
            }
        })
    }

    async fn send(&self, call: Call, parts: &[Part<'_>]) -> Result<Vec<RecordResult>, Ended> {
        let module = &self.definition.module.name;
        let records: Vec<Map<String, Value>> = parts.iter().map(|part| part.body.clone()).collect();
        let skip_workflows = self.definition.sync.skip_workflows;
        let duplicate_check_fields = match (call, self.definition.create_way()) {
            (Call::Upsert, Way::Refused { by: Refusal::Upsert { fields } }) => fields,
            _ => Vec::new(),
        };
        if call != Call::Delete {
            let bodies: Vec<(String, Value)> =
                parts.iter().map(|part| (part.record.slot.key.clone(), Value::Object(part.body.clone()))).collect();
            self.note_sending(&bodies).await?;
        }
        // One header for all: the earliest of the readings that they were compared with. Zoho's times have seconds.
        let dated: Option<Vec<_>> = parts.iter().map(|part| part.record.dated.filter(|_| part.record.compared)).collect();
        let since = dated.filter(|_| call == Call::Update).and_then(|dated| dated.into_iter().min());
        let if_unmodified_since = since.map(|since| since - chrono::Duration::seconds(1));
        let options = WriteOptions { duplicate_check_fields, skip_workflows, if_unmodified_since };
        match call {
            Call::Upsert => {
                self.session
                    .call_costing(Cost::of_write(records.len()), async |g, c, t| crm::upsert(g, c, t, module, &records, &options).await)
                    .await
            }
            Call::Update => {
                self.session
                    .call_costing(Cost::of_write(records.len()), async |g, c, t| crm::update(g, c, t, module, &records, &options).await)
                    .await
            }
            Call::Delete => {
                let ids: Vec<String> = records.iter().filter_map(|r| r.get("id").and_then(Value::as_str).map(str::to_owned)).collect();
                self.session
                    .call_costing(Cost::of_delete(ids.len()), async |g, c, t| crm::delete(g, c, t, module, &ids, skip_workflows).await)
                    .await
            }
        }
    }

    fn results(&self, call: Call, parts: Vec<Part<'_>>, answer: Result<Vec<RecordResult>, Ended>) -> Vec<(i64, Verdict)> {
        let count = parts.len();
        let creates = call == Call::Upsert;
        match answer {
            Ok(results) => {
                parts.into_iter().zip(results).map(|(part, result)| (part.record.slot.id, self.result(call, part, result))).collect()
            }
            Err(failure) => {
                // Refused as a whole: somebody among them is guilty, and halves find out who.
                let refused = matches!(&failure, Ended::Zoho(error, _) if matches!(**error, Error::Rejected(_)))
                    && count > 1
                    && !self.session.paused();
                let verdict = |part: &Part<'_>| {
                    if refused {
                        return Verdict { create: Create::Settled, ..Verdict::of(halved(count, "Zoho refused the batch as a whole")) };
                    }
                    let (outcome, create) = ended(self.engine, self.work, self.session, part.record.slot, &failure, creates);
                    Verdict { create, request: Some(Value::Object(part.body.clone())), ..Verdict::of(outcome) }
                };
                parts.iter().map(|part| (part.record.slot.id, verdict(part))).collect()
            }
        }
    }

    fn result(&self, call: Call, part: Part<'_>, result: RecordResult) -> Verdict {
        let Part { record, body, then } = part;
        let verdict = match (result, then) {
            (Ok(written), Then::Agree(write, found_by)) => self.agreed_with_crm(call, &record, &write, written, &found_by),
            (Ok(written), Then::Withdrawn) => match &record.link {
                Some(link) => Verdict::written(Agreed {
                    key: record.slot.key.clone(),
                    zoho_id: written.id,
                    fields: after_withdrawal(self.definition, link, Withdrawal::Mark),
                    zoho_modified_at: written.modified_time,
                    written: true,
                    look_again: false,
                }),
                None => Verdict::of(Outcome::Done { reason: None }),
            },
            (Ok(_), Then::Unlink) => Verdict { unlinked: true, ..Verdict::of(Outcome::Done { reason: None }) },
            (Err(Error::NotFound { .. }), Then::Unlink) => Verdict { unlinked: true, ..Verdict::of(Outcome::Done { reason: None }) },
            (Err(Error::Rejected(rejection)), _) if rejection.code == "ALREADY_MODIFIED" => {
                let reason = "Zoho's record has changed since it was read";
                Verdict { outdated: true, ..Verdict::of(snooze(AGAIN, reason)) }
            }
            (Err(error), _) => {
                let failure = Ended::Zoho(Box::new(error), std::time::Duration::ZERO);
                let (outcome, create) = ended(self.engine, self.work, self.session, record.slot, &failure, call == Call::Upsert);
                Verdict { create, ..Verdict::of(outcome) }
            }
        };
        Verdict { request: Some(Value::Object(body)), ..verdict }
    }

    /// The body of a create, which after a lost one finds the record by what that one said, whatever the row says now.
    async fn as_before(&self, record: &Record<'_>, write: &Write) -> Result<(Map<String, Value>, Map<String, Value>), Verdict> {
        let (mut body, mut found_by) = (object(&write.body), Map::new());
        let (Some(link), Way::Refused { by: Refusal::Upsert { fields } }) =
            // our own reference says the same whatever becomes of the row
            (record.link.as_ref().filter(|link| link.may_be_lost() && self.definition.reference().is_none()), self.definition.create_way())
        else {
            return Ok((body, found_by));
        };
        let before = link.lost().next_back().unwrap_or(&write.body);
        let said = fields.iter().filter_map(|field| Some((field, before.get(field)?))).filter(|(_, said)| !value::is_empty(said));
        let said: Vec<(&String, &Value)> = said.collect();
        if said.is_empty() && !self.sent_anew(record).await? {
            let what = format!("an earlier create was sent whose answer was lost, and its row said nothing in {}", fields.join(", "));
            return Err(Verdict::dead(parked(&what)));
        }
        for (field, said) in said {
            if body.get(field) != Some(said) {
                body.insert(field.clone(), said.clone());
                found_by.insert(field.clone(), said.clone());
            }
        }
        Ok((body, found_by))
    }

    fn agreed_with_crm(&self, call: Call, record: &Record<'_>, write: &Write, written: Written, found_by: &Map<String, Value>) -> Verdict {
        let Some(row) = &record.row else { return Verdict::of(Outcome::Continue { progress: None }) };
        let mut fields = after_write(self.definition, row, record.link.as_ref(), write, None);
        for (field, said) in found_by {
            fields.insert(field.clone(), Pair { local: said.clone(), zoho: said.clone(), confirmed: false });
        }
        // Zoho had the record already, and has appended the rows of our lists to those there: the next run replaces them.
        let lists =
            if call == Call::Upsert && written.action == Action::Updated { plan::subforms(self.definition, write) } else { Vec::new() };
        fields.retain(|field, _| !lists.contains(field));
        let more = !(record.leave_out.is_empty() && found_by.is_empty() && lists.is_empty());
        let verdict = Verdict::written(Agreed {
            key: record.slot.key.clone(),
            zoho_id: written.id,
            // The answer carries ids and times only: Zoho's half is what was sent, unconfirmed.
            fields,
            zoho_modified_at: written.modified_time,
            written: true,
            look_again: false,
        });
        if more { Verdict { outcome: Outcome::Continue { progress: None }, ..verdict } } else { verdict }
    }
}

fn object(body: &Value) -> Map<String, Value> {
    body.as_object().cloned().unwrap_or_default()
}

fn with_id(mut body: Map<String, Value>, id: String) -> Map<String, Value> {
    body.insert("id".to_owned(), Value::String(id));
    body
}
