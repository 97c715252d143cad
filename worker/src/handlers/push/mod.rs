//! `push`: makes Zoho match the local row as it is now. Reads the rows and their links, lets [`plan::decide`] say what each needs, and makes
//! the one call that the batch was granted; what needs more goes on in a later claim.

mod adjust;
mod braked;
mod crm;
mod finance;
mod lookup;
mod parents;
mod search;
mod similar;
mod unread;

pub(crate) use finance::finance_module;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_core::config::Field;
use sluice_core::config::sync::Product;
use sluice_core::db::cut;
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::settle::Create;
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_sync::definition::Definition;
use sluice_sync::link::store::Agreed;
use sluice_sync::link::{self, Link};
use sluice_sync::merge::{Ignored, Side};
use sluice_sync::plan::{self, Facts, Step};
use sluice_sync::read::{self, Found, Parents, Row};
use sluice_zoho::mask;

use self::braked::Braked;
pub(super) use self::unread::{later, unread};
use super::{all, snooze};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::work::{Handled, Work, Writeback};

/// What is known of one record of the batch.
#[derive(Debug)]
pub(super) struct Record<'a> {
    pub(super) slot: &'a Claimed,
    pub(super) row: Option<Row>,
    pub(super) link: Option<Link>,
    /// Fields left out because they close a cycle; they follow in a second push.
    leave_out: BTreeSet<String>,
    /// Fields whose Zoho value stands, or that wait for a person: not sent at all.
    pub(super) keep_back: BTreeSet<String>,
    /// Fields whose Zoho value is to be overwritten though the row did not change.
    pub(super) repair: BTreeSet<String>,
    /// Zoho's level, where the module has one, as it was read moments ago.
    pub(super) level: Option<Value>,
    /// Zoho's record as it was compared with the row moments ago.
    pub(super) theirs: Option<Value>,
    /// Both sides were compared a moment ago: what a lost write left in Zoho is known.
    pub(super) compared: bool,
    /// When Zoho gave the answer that it was compared with, by its own clock.
    pub(super) dated: Option<chrono::DateTime<chrono::Utc>>,
    /// The brake holds what would be sent: nobody has decided about it.
    braked: Option<Braked>,
}

/// What became of one record, before it is told to the queue, the link and the application's row.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) outcome: Outcome,
    create: Create,
    pub(super) agreed: Option<Agreed>,
    unlinked: bool,
    looked_again: bool,
    pub(super) pushed: bool,
    /// Zoho's record has changed since it was read.
    pub(super) outdated: bool,
    parents: Vec<(String, String)>,
    request: Option<Value>,
    response: Option<Value>,
    /// Why the record is left as it is, for the row.
    held: Option<String>,
}

impl Verdict {
    pub(super) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            create: Create::None,
            agreed: None,
            unlinked: false,
            looked_again: false,
            pushed: false,
            outdated: false,
            parents: Vec::new(),
            request: None,
            response: None,
            held: None,
        }
    }

    /// Zoho's side is left as it is, and the row is told why.
    pub(super) fn held(why: &str) -> Self {
        Self { held: Some(why.to_owned()), ..Self::of(Outcome::Done { reason: Some("held") }) }
    }

    pub(super) fn dead(letter: Letter) -> Self {
        Self::of(Outcome::Dead(Box::new(letter)))
    }

    /// Edits of a side that does not own the field stand in the attempt, where `explain` shows them.
    pub(super) fn note_not_applied(&mut self, ignored: &[Ignored]) {
        if ignored.is_empty() || self.response.is_some() {
            return;
        }
        let values: Map<String, Value> = ignored.iter().map(|one| (one.field.clone(), one.to.clone())).collect();
        let mut masked = mask::excerpt(&Value::Object(values));
        for one in ignored {
            if let Some(value) = masked.get_mut(&one.field) {
                let of = if one.of == Side::Zoho { "zoho" } else { "local" };
                *value = json!({ "of": of, "to": value.take(), "reason": one.reason });
            }
        }
        self.response = Some(json!({ "not_applied": masked }));
    }

    /// Both sides agree now, and this run wrote it.
    fn written(agreed: Agreed) -> Self {
        Self { agreed: Some(agreed), create: Create::Settled, pushed: true, ..Self::of(Outcome::Done { reason: None }) }
    }
}

/// What the parts of a push share.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Engine,
    pub(super) work: &'a Work,
    pub(super) session: &'a Session<'a>,
    pub(super) definition: &'a Definition,
    pub(super) parents: Parents,
    /// A key of this table changed and its link has not followed yet: a record without link may be one that has.
    pub(super) keys_are_moving: bool,
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    let Some(definition) = engine.definition(&work.batch.sync) else {
        return all(work, |_| snooze(Duration::from_secs(60), "this worker's file does not have the sync"));
    };
    let slots: Vec<&Claimed> = work.batch.slots.iter().collect();
    let (records, parents, keys_are_moving) = match load(engine, &slots, &definition).await {
        Ok(loaded) => loaded,
        Err(error) => return unread(work, &definition, &error),
    };
    let run = Run { engine, work, session, definition: &definition, parents, keys_are_moving };
    let verdicts = run.decide(records).await;
    run.report(verdicts)
}

/// The records of these slots: their rows as they are now, and their links.
pub(super) async fn load<'a>(
    engine: &Engine,
    slots: &[&'a Claimed],
    definition: &Definition,
) -> Result<(Vec<Record<'a>>, Parents, bool), read::Error> {
    let keys: Vec<String> = slots.iter().map(|slot| slot.key.clone()).collect();
    let mut rows = engine.reader.rows(definition, &keys).await?;
    let mut tx = engine.db.begin().await?;
    let table = &definition.table;
    let key: Vec<String> = definition.key.iter().map(|column| column.name.clone()).collect();
    let moving = link::store::keys_are_moving(&mut tx, &format!("{}.{}", table.schema, table.name), &key).await?;
    let mut links = link::store::load(&mut tx, definition.name(), &keys).await?;
    let braked = braked::of(&mut tx, definition.name(), &keys).await?;
    let refs: Vec<_> =
        rows.values().filter_map(|found| if let Found::Row(row) = found { Some(row.refs()) } else { None }).flatten().collect();
    let parents = link::store::parents(&mut tx, &refs).await?;
    tx.commit().await?;
    let records = slots.iter().map(|slot| Record {
        slot,
        row: match rows.remove(&slot.key) {
            Some(Found::Row(row)) => Some(row),
            Some(Found::Gone) | None => None,
        },
        link: links.remove(&slot.key),
        leave_out: BTreeSet::new(),
        keep_back: BTreeSet::new(),
        repair: BTreeSet::new(),
        level: None,
        theirs: None,
        compared: false,
        dated: None,
        braked: braked.get(&slot.key).copied(),
    });
    Ok((records.collect(), parents, moving))
}

impl Run<'_> {
    /// A step for each record, then the calls. Verdicts by slot.
    pub(super) async fn decide(&self, records: Vec<Record<'_>>) -> BTreeMap<i64, Verdict> {
        let mut verdicts = BTreeMap::new();
        let mut to_send = Vec::new();
        for mut record in records {
            if let Some(letter) = self.engine.policy.exhausted(record.slot) {
                verdicts.insert(record.slot.id, Verdict::dead(letter));
                continue;
            }
            if let Some(outcome) = later(self.engine, &record, self.work.batch.slots.len()) {
                verdicts.insert(record.slot.id, Verdict::of(outcome));
                continue;
            }
            let mut step = self.step(&record);
            if let Step::WaitFor(missing) = &step {
                match self.await_parents(&mut record, missing).await {
                    Some(verdict) => {
                        verdicts.insert(record.slot.id, verdict);
                        continue;
                    }
                    None => step = self.step(&record),
                }
            }
            let verdict = self.without_call(&record, &step);
            match verdict.or_else(|| record.braked.and_then(|braked| braked.verdict(&step))) {
                Some(verdict) => {
                    verdicts.insert(record.slot.id, verdict);
                }
                None => to_send.push((record, step)),
            }
        }
        if self.definition.module.product == Product::Crm {
            verdicts.extend(self.send_to_crm(to_send).await);
        } else {
            for (record, step) in to_send {
                verdicts.insert(record.slot.id, self.send_to_finance(&record, step).await);
            }
        }
        verdicts
    }

    pub(super) fn step(&self, record: &Record<'_>) -> Step {
        let leave_out = record.leave_out.union(&record.keep_back).cloned().collect();
        let in_doubt = record.slot.tries > 0 || record.link.as_ref().is_some_and(|link| link.unsure);
        let facts = Facts {
            row: record.row.as_ref(),
            link: record.link.as_ref(),
            parents: &self.parents,
            leave_out: &leave_out,
            repair: &record.repair,
            // A write whose answer was lost may have changed what the link does not know of, and the row may say again what the link
            // says: after a run that failed every field is sent, or Zoho would keep the lost write's values.
            force: in_doubt && !record.compared && !looks_again(record),
        };
        plan::decide(self.definition, facts)
    }

    /// Notes what is about to be sent: a write that is lost must not come back as an edit of Zoho's, a create is looked for as it was sent, and what it
    /// filled can be cleared, whatever the row says by then.
    pub(super) async fn note_sending(&self, bodies: &[(String, Value)]) -> Result<(), Ended> {
        if bodies.is_empty() {
            return Ok(());
        }
        let noted = async {
            let mut tx = self.engine.db.begin().await?;
            link::store::sending(&mut tx, self.definition.name(), bodies).await?;
            tx.commit().await
        };
        noted.await.map_err(|error: sqlx::Error| Ended::NoGrant(sluice_queue::calls::NoGrant::Ledger(error)))
    }

    /// The verdict on a step that needs no call.
    fn without_call(&self, record: &Record<'_>, step: &Step) -> Option<Verdict> {
        match step {
            Step::Create(_) | Step::Delete { .. } | Step::Void { .. } | Step::Mark { .. } if self.keys_are_moving => {
                Some(Verdict::of(snooze(Duration::from_millis(500), "a key of its table has changed; the link goes first")))
            }
            Step::Nothing(_) if looks_again(record) => None,
            Step::Nothing(reason) => Some(Verdict::of(Outcome::Done { reason: Some(reason.as_str()) })),
            Step::Held { reason } => Some(Verdict::held(reason)),
            Step::Unsendable { problems } => {
                let first = problems.first()?;
                let class = match first.class {
                    read::Class::Validation => Class::Validation,
                    read::Class::Payload | read::Class::Unread => Class::Payload,
                };
                let message = cut(&problems.iter().map(|p| format!("{}: {}", p.field, p.message)).collect::<Vec<_>>().join("; "));
                Some(Verdict::dead(
                    Letter::new(class, message).field(first.field.clone()).hint("mend the row or the mapping, then requeue"),
                ))
            }
            Step::WaitFor(missing) => {
                let first = missing.first()?;
                Some(Verdict::of(Outcome::Wait { sync: first.sync.clone(), key: first.key.clone() }))
            }
            Step::Create(_) | Step::Update { .. } | Step::Delete { .. } | Step::Void { .. } | Step::Mark { .. } => None,
        }
    }

    /// Zoho's sentence often names the field that its codes do not; and of a field the mapping says what to mend.
    fn name_the_field(&self, verdict: &mut Verdict) {
        let Outcome::Dead(letter) = &mut verdict.outcome else { return };
        if letter.class != Class::Validation {
            return;
        }
        let fields = self.definition.fields();
        if letter.field.is_none() {
            letter.field = field_named_in(&letter.message, fields.keys());
        }
        // a lookup is sent as an object, and CRM names what it did not like inside
        let mapped = |name: &String| fields.get_key_value(name).or_else(|| fields.get_key_value(name.strip_suffix(".id")?));
        if let Some((name, field)) = letter.field.as_ref().and_then(mapped) {
            letter.hint = Some(what_to_mend(self.definition.name(), name, field, letter.response.as_ref()));
        }
    }

    /// Tells the verdicts to the queue, the links and the application's rows.
    pub(super) fn report(&self, mut verdicts: BTreeMap<i64, Verdict>) -> Handled {
        let mut handled = Handled::default();
        let calls = self.work.calls.made();
        for slot in &self.work.batch.slots {
            let mut verdict =
                verdicts.remove(&slot.id).unwrap_or_else(|| Verdict::of(Outcome::Continue { progress: slot.progress.clone() }));
            self.name_the_field(&mut verdict);
            handled.writebacks.extend(self.writeback(slot, &verdict));
            handled.settlements.push(Settlement {
                create: verdict.create,
                pushed: verdict.pushed,
                calls: if verdict.request.is_some() { calls } else { 0 },
                request: verdict.request.as_ref().map(mask::excerpt),
                response: verdict.response,
                sent_fields: verdict.request.as_ref().map(outermost),
                ..Settlement::new(slot.id, verdict.outcome)
            });
            handled.agreed.extend(verdict.agreed);
            handled.parents.extend(verdict.parents);
            if verdict.unlinked {
                handled.unlinked.push(slot.key.clone());
            }
            if verdict.looked_again {
                handled.looked_again.push(slot.key.clone());
            }
        }
        handled
    }

    fn writeback(&self, slot: &Claimed, verdict: &Verdict) -> Option<Writeback> {
        let (status, error) = match &verdict.outcome {
            Outcome::Done { reason: None } => ("synced", None),
            Outcome::Done { reason: Some("held") } => ("failed", verdict.held.as_ref().map(|why| format!("held: {why}"))),
            // Nothing changed over there; the row may still say that an earlier run failed.
            Outcome::Done { reason: Some("no_change" | "not_applied" | "looked_again") }
                if slot.tries > 0 || self.work.batch.lane == "interactive" =>
            {
                ("synced", None)
            }
            Outcome::Retry(retry) => ("retrying", Some(retry.message.clone())),
            Outcome::Wait { sync, key } => ("pending", Some(format!("waits for {sync} {key}"))),
            Outcome::Dead(letter) => ("failed", Some(letter.message.clone())),
            Outcome::Done { .. } | Outcome::Continue { .. } | Outcome::Snooze { .. } => return None,
        };
        let zoho_id = verdict.agreed.as_ref().map(|agreed| agreed.zoho_id.clone());
        Some(Writeback { key: slot.key.clone(), status, zoho_id, error })
    }
}

/// The fields of a body by their outermost names, `custom_fields` by their own.
fn outermost(body: &Value) -> Vec<String> {
    let custom = body.get("custom_fields").and_then(Value::as_array).into_iter().flatten();
    let custom = custom.filter_map(|field| Some(field.get("api_name")?.as_str()?.to_owned()));
    body.as_object().into_iter().flatten().map(|(name, _)| name.clone()).chain(custom).collect()
}

/// Whether it is time to look a repeated create up once more.
fn looks_again(record: &Record<'_>) -> bool {
    record.link.as_ref().is_some_and(|link| link.look_again_at.is_some_and(|at| at <= chrono::Utc::now()))
}

/// Where the refused value comes from, and, where Zoho says it, what it takes instead (CRM: `details.expected_data_type`).
fn what_to_mend(sync: &str, name: &str, field: &Field, response: Option<&Value>) -> String {
    let source = match field {
        Field::Column(column) => format!("the column `{}`", column.column),
        Field::Ref(reference) => format!("the column `{}`, as the Zoho id of {}", reference.column, reference.sync),
        Field::Sql(field) => format!("the expression `{}`", field.sql),
        Field::Value(_) => "a constant".to_owned(),
        Field::List(_) | Field::Rows(_) => "a list".to_owned(),
        Field::File(_) => "a file".to_owned(),
    };
    let wanted = response.and_then(|response| response.pointer("/details/expected_data_type")).and_then(Value::as_str);
    let wanted = wanted.map_or_else(String::new, |wanted| format!(", and Zoho takes {wanted} there"));
    format!(
        "`{name}` comes from {source}{wanted}: mend the row (it is pushed again by itself when it changes, or requeue) or the mapping in [syncs.{sync}.fields]"
    )
}

/// The longest mapped field whose name stands in the sentence as a word.
fn field_named_in<'f>(sentence: &str, fields: impl Iterator<Item = &'f String>) -> Option<String> {
    let words: BTreeSet<&str> =
        sentence.split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '.'))).map(|w| w.trim_matches('.')).collect();
    fields.filter(|field| words.contains(field.as_str())).max_by_key(|field| field.len()).cloned()
}

#[cfg(test)]
mod tests {
    use super::field_named_in;

    #[test]
    fn a_field_is_found_in_a_sentence_as_a_whole_word_only() {
        let fields = ["email".to_owned(), "name".to_owned(), "display_name".to_owned(), "billing_address.zip".to_owned()];
        let find = |sentence| field_named_in(sentence, fields.iter());
        assert_eq!(find("Enter a valid email.").as_deref(), Some("email"));
        assert_eq!(find("The display_name is taken").as_deref(), Some("display_name"));
        assert_eq!(find("billing_address.zip: too long").as_deref(), Some("billing_address.zip"));
        assert_eq!(find("The emails are wrong"), None);
    }
}
