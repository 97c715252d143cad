//! A new CRM record is made only if nothing in Zoho is called like it (`match_similar`). Names are looked for with one query for up to 24 of
//! them; which of the answers are alike is decided by [`sluice_sync::similar`]; what is not clear waits for a person, whose answer stands in
//! the row's column of the Zoho id. What was learnt is kept with the records, so that a call that is refused loses nothing.

use std::collections::BTreeMap;

use chrono::Utc;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_queue::Outcome;
use sluice_queue::calls::NoGrant;
use sluice_queue::outcome::{Class, Letter};
use sluice_sync::link::store as links;
use sluice_sync::plan::{self, Step};
use sluice_sync::read::FieldValue;
use sluice_sync::similar::{self, Candidate, Judgement};
use sluice_sync::value;
use sluice_zoho::crm::names;

use super::{Record, Run, Verdict};
use crate::handlers::snooze;
use crate::session::Ended;

/// What a person writes into the column of the Zoho id if it is none of the records that were found.
const NEW: &str = "new";
/// What was learnt of Zoho's names is believed for this long, in seconds.
const BELIEVED: i64 = 600;
/// A record waits this long for one of a similar name that is made first.
const NEXT: std::time::Duration = std::time::Duration::from_secs(1);
/// How many names ride in one query, by how narrowly they are looked for: common beginnings have more than one page of names.
const TOGETHER: [usize; 3] = [names::MAX_BEGINNINGS, 6, 1];

/// What is known of Zoho's names like a record's. Kept with the record while it waits for its next call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Looked {
    name: String,
    /// How narrowly it was, or is to be, looked for: an index of [`TOGETHER`].
    narrowness: u8,
    /// It was found that nothing is called like it, or which record it is.
    #[serde(default)]
    done: bool,
    #[serde(default)]
    adopt: Option<String>,
    at: i64,
}

/// What was learnt, by slot.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<i64, Looked>);

impl Known {
    /// Keeps it with the records that go on in a later claim.
    pub(super) fn keep(&self, verdicts: &mut BTreeMap<i64, Verdict>) {
        for (slot, looked) in &self.0 {
            if let Some(Outcome::Continue { progress }) = verdicts.get_mut(slot).map(|verdict| &mut verdict.outcome) {
                *progress = serde_json::to_value(looked).ok();
            }
        }
    }
}

impl Run<'_> {
    /// The steps that can be sent now: creates that nothing in Zoho is similar to, and those that were found to be an existing record.
    /// All others get their verdict.
    pub(super) async fn without_similar<'r>(
        &self,
        steps: Vec<(Record<'r>, Step)>,
        verdicts: &mut BTreeMap<i64, Verdict>,
    ) -> (Vec<(Record<'r>, Step)>, Known) {
        let mut known = Known::default();
        let Some(field) = &self.definition.sync.match_similar else { return (steps, known) };
        let (creates, mut rest): (Vec<_>, Vec<_>) = steps.into_iter().partition(|(_, step)| matches!(step, Step::Create(_)));
        if creates.is_empty() {
            return (rest, known);
        }
        let Some(mut creates) = self.answered(creates, &mut rest, verdicts).await else { return (rest, known) };
        creates.sort_by_key(|(record, _)| record.slot.id);
        let named: Vec<String> = creates.iter().map(|(record, _)| name_of(record, field)).collect();
        let followers = similar::followers(named.iter().map(String::as_str));
        for (at, ((record, _), name)) in creates.iter().zip(named).enumerate() {
            if followers.contains(&at) {
                let first = snooze(NEXT, "a record with a similar name goes first");
                verdicts.insert(record.slot.id, Verdict::of(first));
            } else {
                known.0.insert(record.slot.id, looked(record, name));
            }
        }
        let waiting = self.look(field, &creates, &mut known, verdicts).await;
        for (record, step) in creates {
            let Some(looked) = known.0.get(&record.slot.id).filter(|_| !verdicts.contains_key(&record.slot.id)) else { continue };
            match (step, &looked.adopt) {
                // all that were asked for together are made together
                (_, _) if waiting => drop(verdicts.insert(record.slot.id, Verdict::of(Outcome::Continue { progress: None }))),
                (Step::Create(write), Some(id)) => rest.push((record, plan::adopted(self.definition, id, write))),
                (step, _) => rest.push((record, step)),
            }
        }
        (rest, known)
    }

    /// Takes out the records for which a person has answered. `None`: the answers could not be read, and the records wait.
    async fn answered<'r>(
        &self,
        creates: Vec<(Record<'r>, Step)>,
        rest: &mut Vec<(Record<'r>, Step)>,
        verdicts: &mut BTreeMap<i64, Verdict>,
    ) -> Option<Vec<(Record<'r>, Step)>> {
        let Some(column) = &self.definition.sync.writeback.id else { return Some(creates) };
        let keys: Vec<String> = creates.iter().map(|(record, _)| record.slot.key.clone()).collect();
        let answers = match self.engine.reader.column(self.definition, column, &keys).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(
                    error = sluice_core::db::message(&error),
                    sync = self.definition.name(),
                    column,
                    "the column could not be read"
                );
                let wait = |(record, _): &(Record<'_>, Step)| (record.slot.id, Verdict::of(snooze(NEXT, "rows could not be read")));
                verdicts.extend(creates.iter().map(wait));
                return None;
            }
        };
        let mut open = Vec::new();
        for (record, step) in creates {
            match (answers.get(&record.slot.key).map(String::as_str), step) {
                (None, step) => open.push((record, step)),
                (Some(answer), step) if answer.eq_ignore_ascii_case(NEW) => rest.push((record, step)),
                (Some(id), Step::Create(write)) if id.len() <= 30 && id.bytes().all(|b| b.is_ascii_digit()) => {
                    rest.push((record, plan::adopted(self.definition, id, write)));
                }
                (Some(odd), _) => {
                    let letter = Letter::new(Class::Validation, format!("the column `{column}` says `{odd}`, which is no Zoho id"))
                        .hint(format!("write into `{column}` the Zoho id of the record that is meant, or the word {NEW}, or empty it"));
                    verdicts.insert(record.slot.id, Verdict::dead(letter));
                }
            }
        }
        Some(open)
    }

    /// Looks for the names that are not known yet, one query after the other. True: the ledger refused a call, so the rest comes later.
    async fn look(&self, field: &str, creates: &[(Record<'_>, Step)], known: &mut Known, verdicts: &mut BTreeMap<i64, Verdict>) -> bool {
        loop {
            let open = |(record, _): &&(Record<'_>, Step)| {
                !verdicts.contains_key(&record.slot.id) && known.0.get(&record.slot.id).is_some_and(|looked| !looked.done)
            };
            let open: Vec<&Record<'_>> = creates.iter().filter(open).map(|(record, _)| record).collect();
            let Some(narrowness) = open.iter().filter_map(|record| known.0.get(&record.slot.id)).map(|looked| looked.narrowness).min()
            else {
                return false;
            };
            let alike = |record: &&&Record<'_>| known.0.get(&record.slot.id).is_some_and(|looked| looked.narrowness == narrowness);
            let together = TOGETHER.get(usize::from(narrowness)).copied().unwrap_or(1);
            let asked: Vec<&Record<'_>> = open.iter().filter(alike).take(together).copied().collect();
            let wanted: Vec<String> =
                asked.iter().filter_map(|record| known.0.get(&record.slot.id)).map(|looked| looked.name.clone()).collect();
            match self.ask_for(field, &wanted, narrowness).await {
                Ok((candidates, more)) => self.judged(&asked, &candidates, more, known, verdicts),
                Err(Ended::NoGrant(_)) => return true,
                Err(failure) => verdicts.extend(asked.iter().map(|record| (record.slot.id, self.ended(record, &failure)))),
            }
        }
    }

    /// Zoho's records that are called like one of these, and whether there are more.
    async fn ask_for(&self, field: &str, wanted: &[String], narrowness: u8) -> Result<(Vec<Candidate>, bool), Ended> {
        let module = &self.definition.module.name;
        let exact: Vec<&str> = wanted.iter().map(|name| name.trim()).collect();
        let mut beginnings: Vec<String> = wanted.iter().filter_map(|name| similar::pattern(name, narrowness)).collect();
        beginnings.sort();
        beginnings.dedup();
        let found =
            self.session.call_costing(names::COST, async |g, c, t| names::find(g, c, t, module, field, &exact, &beginnings).await).await?;
        let candidate = |row: &Value| {
            let id = row.get("id").map(value::scalar_text)?;
            Some(Candidate { id, name: row.get(field).map(value::scalar_text)?, row: None })
        };
        let mut candidates: Vec<Candidate> = found.rows.iter().filter_map(candidate).collect();
        let rows = self.linked(&candidates).await.map_err(|error| Ended::NoGrant(NoGrant::Ledger(error)))?;
        for one in &mut candidates {
            one.row = rows.get(&one.id).cloned();
        }
        Ok((candidates, found.more))
    }

    /// The rows that have these records already.
    async fn linked(&self, candidates: &[Candidate]) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let ids: Vec<String> = candidates.iter().map(|one| one.id.clone()).collect();
        let mut tx = self.engine.db.begin().await?;
        let rows = links::keys_of(&mut tx, self.definition.name(), &ids).await?;
        tx.commit().await?;
        Ok(rows)
    }

    fn judged(
        &self,
        asked: &[&Record<'_>],
        candidates: &[Candidate],
        more: bool,
        known: &mut Known,
        verdicts: &mut BTreeMap<i64, Verdict>,
    ) {
        for record in asked {
            let Some(looked) = known.0.get_mut(&record.slot.id) else { continue };
            looked.at = Utc::now().timestamp();
            let last = usize::from(looked.narrowness) + 1 >= TOGETHER.len();
            match similar::judge(&looked.name, candidates) {
                Judgement::Adopt(id) if !more => (looked.done, looked.adopt) = (true, Some(id)),
                Judgement::New if !more => looked.done = true,
                _ if more && !last => looked.narrowness += 1,
                judgement => {
                    let found = match judgement {
                        Judgement::Person(found) => found,
                        Judgement::Adopt(id) => candidates.iter().filter(|one| one.id == id).cloned().collect(),
                        Judgement::New => Vec::new(),
                    };
                    verdicts.insert(record.slot.id, Verdict::dead(self.for_a_person(&looked.name, &found, more)));
                }
            }
        }
    }

    fn for_a_person(&self, name: &str, found: &[Candidate], more: bool) -> Letter {
        let (sync, module) = (&self.definition.sync, &self.definition.module.name);
        let listed: Vec<String> = found
            .iter()
            .map(|one| match &one.row {
                Some(row) => format!("{} \"{}\" (linked to {row})", one.id, one.name),
                None => format!("{} \"{}\"", one.id, one.name),
            })
            .collect();
        let others = if more { "; more begin alike than one answer shows" } else { "" };
        let column = sync.writeback.id.as_deref().unwrap_or_default();
        let field = sync.match_similar.clone().unwrap_or_default();
        Letter::new(Class::Duplicate, format!("\"{name}\" may be in {module} already: {}{others}", listed.join(", "))).field(field).hint(
            format!(
                "write into the row's column `{column}` the id of the one that is meant, or the word {NEW} if it is none of them: \
             update {} set {column} = '…' where … ; the record then goes on by itself",
                sync.table
            ),
        )
    }
}

/// What was learnt of the record before, if it holds.
fn looked(record: &Record<'_>, name: String) -> Looked {
    let now = Utc::now().timestamp();
    let kept = record.slot.progress.clone().and_then(|progress| serde_json::from_value::<Looked>(progress).ok());
    let kept = kept.filter(|kept| kept.name == name && now - kept.at < BELIEVED);
    kept.unwrap_or(Looked { done: name.trim().is_empty(), name, narrowness: 0, adopt: None, at: now })
}

fn name_of(record: &Record<'_>, field: &str) -> String {
    match record.row.as_ref().and_then(|row| row.fields.get(field)) {
        Some(FieldValue::Plain(Value::Null)) | None => String::new(),
        Some(FieldValue::Plain(name)) => value::scalar_text(name),
        Some(FieldValue::Ref { .. } | FieldValue::List(_)) => String::new(),
    }
}
