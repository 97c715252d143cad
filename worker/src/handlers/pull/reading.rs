//! What is known of Zoho's side: kept readings and fresh ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_core::config::field::Field;
use sluice_core::config::sync::Product;
use sluice_queue::{Claimed, Outcome};
use sluice_sync::definition::Definition;
use sluice_sync::link::store as links;
use sluice_sync::plan::Step;
use sluice_sync::sighting::{self, Sighting};
use sluice_zoho::{Error, crm, finance};

use super::{FRESH, Record, Run};
use crate::engine::Engine;
use crate::handlers::push::finance_module;
use crate::session::Ended;
use crate::work::{Next, Work};

/// What is only written here may have been read this long ago: a newer change brings a newer reading. Long enough for a list of 200,000 records: its file is
/// half an hour old at most when it is stored, and of its rows a grant takes over a hundred.
const USABLE: Duration = Duration::from_secs(3600);

/// What reading gave.
#[derive(Default)]
pub(super) struct Read {
    /// Readings by Zoho id.
    pub(super) found: BTreeMap<String, Sighting>,
    /// The calls that gave none.
    pub(super) failed: BTreeMap<String, Arc<Ended>>,
    /// Of these the records that a reading of several did not show: their next run begins with reading them singly, or a grant that is always
    /// spent on the others would never be theirs.
    pub(super) unshown: BTreeSet<String>,
}

/// The progress of a slot whose record is to be read singly.
const SINGLY: &str = "singly";

pub(super) fn to_be_read_singly(slot: &Claimed) -> bool {
    slot.progress.as_ref().is_some_and(|progress| progress[SINGLY] == true)
}

pub(super) fn read_singly_next() -> Outcome {
    Outcome::Continue { progress: Some(json!({ SINGLY: true })) }
}

impl Run<'_> {
    /// Readings that are kept from earlier.
    pub(super) async fn kept(&self, ids: &[String]) -> Result<BTreeMap<String, Sighting>, sqlx::Error> {
        let mut tx = self.engine.db.begin().await?;
        let kept = sighting::load(&mut tx, self.definition.name(), ids).await?;
        tx.commit().await?;
        Ok(kept)
    }

    /// Whether Zoho's side has to be read before anything is decided.
    pub(super) fn needs_reading(&self, record: &Record<'_>, sight: Option<&Sighting>) -> bool {
        let sends = self.definition.sync.direction.pushes() && matches!(self.step(record), Step::Update { .. } | Step::WaitFor(_));
        match sight {
            Some(sight) if sight.complete && sight.age <= FRESH => false,
            Some(_) if self.usable(sight) => sends,
            _ => record.slot.look || sends,
        }
    }

    /// Whether what was read will do to write it here. Of a module without single reading the list's row is all that there is, however old.
    pub(super) fn usable(&self, sight: Option<&Sighting>) -> bool {
        sight.is_some_and(|sight| sight.complete && (sight.age <= USABLE || !self.reads_single()))
    }

    /// Whether the module's records can be read one by one.
    pub(super) fn reads_single(&self) -> bool {
        finance_module(self.definition).is_none_or(finance::Module::readable)
    }

    /// Reads these records: many a call where the module lets us, those of `singly` first and each for itself.
    pub(super) async fn read(&self, ids: &[String], singly: &BTreeSet<String>) -> Result<Read, sqlx::Error> {
        let mut read = Read::default();
        if ids.is_empty() {
            return Ok(read);
        }
        let seen_at = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&self.engine.db).await?;
        let sight = |record| Sighting {
            record,
            complete: true,
            seen_at,
            dated: self.session.dated(),
            age: std::time::Duration::ZERO,
            run_id: None,
        };
        let (single, ids): (Vec<&String>, Vec<&String>) = ids.iter().partition(|id| singly.contains(*id));
        self.read_each(&single, sight, &mut read).await;
        let ids: Vec<String> = ids.into_iter().cloned().collect();
        // what reads several at once leaves out lists, such as subforms and line items (CRM sheet §2.1)
        let several = self.definition.rows().is_empty()
            && self.definition.module.read_max() > 1
            && (ids.len() > 1 || !ids.is_empty() && self.definition.module.product == Product::Crm);
        if several {
            match self.read_together(&ids).await {
                Ok(records) => read.found.extend(records.into_iter().map(|(id, record)| (id, sight(Some(record))))),
                Err(ended) => {
                    let ended = Arc::new(ended);
                    read.failed.extend(ids.iter().map(|id| (id.clone(), ended.clone())));
                }
            }
        }
        // A record is gone when its own address says so: a list that does not show it, or is empty by mistake, is no proof.
        let left: Vec<&String> = ids.iter().filter(|id| !read.found.contains_key(*id) && !read.failed.contains_key(*id)).collect();
        self.read_each(&left, sight, &mut read).await;
        if several {
            read.unshown = left.into_iter().filter(|id| read.failed.contains_key(*id)).cloned().collect();
        }
        Ok(read)
    }

    async fn read_each(&self, ids: &[&String], sight: impl Fn(Option<Value>) -> Sighting, read: &mut Read) {
        for id in ids.iter().copied().cloned() {
            match self.read_one(&id).await {
                Ok(record) => drop(read.found.insert(id, sight(Some(record)))),
                Err(Ended::Zoho(error, _)) if matches!(*error, Error::NotFound { .. }) => drop(read.found.insert(id, sight(None))),
                Err(ended) => drop(read.failed.insert(id, Arc::new(ended))),
            }
        }
    }

    async fn read_together(&self, ids: &[String]) -> Result<BTreeMap<String, Value>, Ended> {
        let name = &self.definition.module.name;
        if self.definition.module.product == Product::Crm {
            let fields = crm_fields(self.definition);
            let fields: Vec<&str> = fields.iter().map(String::as_str).take(crm::MAX_FIELDS).collect();
            let read = self.session.call(async |g, c, t| crm::get_by_ids(g, c, t, name, ids, &fields).await).await?;
            return Ok(read.into_iter().collect());
        }
        let module = self.known_module()?;
        let read = self.session.call(async |g, c, t| finance::details(g, c, t, module, ids).await).await?;
        Ok(read.into_iter().map(|record| (record.id, record.value)).collect())
    }

    async fn read_one(&self, id: &str) -> Result<Value, Ended> {
        if self.definition.module.product == Product::Crm {
            let name = &self.definition.module.name;
            return self.session.call(async |g, c, t| crm::get(g, c, t, name, id).await).await;
        }
        let module = self.known_module()?;
        Ok(self.session.call(async |g, c, t| finance::get(g, c, t, module, id).await).await?.value)
    }

    fn known_module(&self) -> Result<finance::Module, Ended> {
        finance_module(self.definition).ok_or_else(|| {
            let reason = format!("{} cannot be read by this version", self.definition.module);
            Ended::Zoho(Box::new(Error::NotSent(sluice_zoho::NotSent::Invalid { reason })), std::time::Duration::ZERO)
        })
    }

    /// A Zoho record that had a row here until a moment ago was deleted with it, and a list need not know: only its own address tells.
    pub(super) async fn set_aside_unlinked(
        &self,
        strangers: &[&Claimed],
        sights: &mut BTreeMap<String, Sighting>,
    ) -> Result<(), sqlx::Error> {
        let ids: Vec<String> = strangers.iter().map(|slot| super::stranger_id(slot)).collect();
        if ids.is_empty() || !self.reads_single() {
            return Ok(());
        }
        let mut tx = self.engine.db.begin().await?;
        let unlinked = links::unlinked(&mut tx, self.definition.name(), &ids).await?;
        tx.commit().await?;
        for id in unlinked {
            if let Some(sight) = sights.get_mut(&id) {
                sight.complete = false;
            }
        }
        Ok(())
    }

    /// Zoho records at which this slot's jobs were to look and that belong to another key by now, since the row's has changed: that one's run looks.
    pub(super) async fn moved_on(&self, slot: &Claimed) -> Result<Vec<Next>, sqlx::Error> {
        if !slot.look {
            return Ok(Vec::new());
        }
        let ids = sqlx::query_scalar!(
            r#"select distinct l.zoho_id as "zoho_id!" from sluice.slot_job j join sluice.link l on l.sync = $1 and l.zoho_id = j.args ->> 'zoho_id'
               where j.slot_id = $2 and l.key <> $3"#,
            self.definition.name(),
            slot.id,
            slot.key
        )
        .fetch_all(&self.engine.db)
        .await?;
        Ok(ids.into_iter().map(|zoho_id| Next::Anew { sync: self.definition.name().to_owned(), zoho_id }).collect())
    }
}

/// A reading that does not show what the link knows of, or what we wrote since it began, says that the record is to be read, and nothing else.
pub(super) fn set_aside_outdated(definition: &Definition, records: &[Record<'_>], sights: &mut BTreeMap<String, Sighting>) {
    for link in records.iter().filter_map(|record| record.link.as_ref()) {
        let Some(sight) = link.zoho_id.as_ref().and_then(|id| sights.get_mut(id)) else { continue };
        let theirs = sight.record.as_ref().and_then(|record| definition.module.modified_at(record));
        let older = theirs.is_some() && theirs < link.zoho_modified_at;
        if older || link.was_written_after(sight.seen_at) {
            sight.complete = false;
        }
    }
}

/// A reading that is older than the last request to look at the record says that it is to be read, and nothing else.
pub(super) fn set_aside_older(slots: &[Claimed], ids: &BTreeMap<i64, String>, sights: &mut BTreeMap<String, Sighting>) {
    for slot in slots {
        let Some(sight) = ids.get(&slot.id).and_then(|id| sights.get_mut(id)) else { continue };
        if slot.asked_at.is_some_and(|asked| sight.seen_at < asked) {
            sight.complete = false;
        }
    }
}

/// The records of the batch whose rows are still to be told of an earlier change of Zoho's.
pub(super) async fn pending(engine: &Engine, work: &Work) -> Result<BTreeSet<String>, sqlx::Error> {
    let keys: Vec<String> = work.batch.slots.iter().map(|slot| slot.key.clone()).collect();
    let pending = sqlx::query_scalar!(
        "select distinct key from sluice.local_write where sync = $1 and key = any ($2) and pull is not null and error is null",
        work.batch.sync,
        &keys
    )
    .fetch_all(&engine.db)
    .await?;
    Ok(pending.into_iter().collect())
}

/// The fields that a CRM list must be asked for: what is mapped and can be pulled, what the pull's own columns name, and the time.
pub(crate) fn crm_fields(definition: &sluice_sync::definition::Definition) -> Vec<String> {
    let mapped = definition.fields().iter().filter(|(_, field)| !matches!(field, Field::List(_) | Field::Rows(_)));
    let mapped = mapped.filter_map(|(path, _)| path.split('.').next().map(str::to_owned));
    let named = definition.sync.columns.values().flat_map(|expression| named_in(expression));
    let mut fields: BTreeSet<String> = mapped.chain(named).collect();
    fields.remove("id");
    fields.insert("Modified_Time".to_owned());
    fields.into_iter().collect()
}

/// The members that an expression takes of a JSON record: `zoho ->> 'Stage'`, `zoho #>> '{Owner,name}'`.
fn named_in(expression: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, arrow) in expression.match_indices(['>']) {
        let Some(rest) = expression[at + arrow.len()..].trim_start_matches('>').trim_start().strip_prefix('\'') else { continue };
        let Some(literal) = rest.split('\'').next() else { continue };
        let first = literal.trim_start_matches('{').split([',', '}']).next().unwrap_or_default().trim();
        let is_name = !first.is_empty() && first.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_name && !names.iter().any(|known| known == first) {
            names.push(first.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::named_in;

    #[test]
    fn an_expression_names_the_members_that_it_takes() {
        assert_eq!(named_in("zoho ->> 'Stage' = 'Closed Won'"), ["Stage"]);
        assert_eq!(named_in("(zoho #>> '{Owner, name}') || (zoho->'Deal_Name'->>'id')"), ["Owner", "Deal_Name", "id"]);
        assert!(named_in("'x' > 'y z'").is_empty());
    }
}
