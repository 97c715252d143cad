//! Finding records that Zoho has already: a create whose answer was lost, or one that somebody made before us.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_queue::Outcome;
use sluice_queue::outcome::{Class, Letter};
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::store::Agreed;
use sluice_sync::link::{self, Link};
use sluice_sync::module::{CLOCKS_DIFFER_BY, Create as Way, Lookup, Refusal, parse_time};
use sluice_sync::plan;
use sluice_sync::value;
use sluice_zoho::Error;
use sluice_zoho::finance::{self, Module};

use super::search::{Hit, Search};
use super::{Record, Run, Verdict};
use crate::handlers::matching::{Age, NotNow};
use crate::handlers::{ended, snooze};
use crate::session::Ended;

impl Run<'_> {
    /// Looks for a create of ours whose answer was lost, the way that the module has for it.
    pub(super) async fn find_lost(
        &self,
        record: &Record<'_>,
        module: Module,
        body: &Value,
        since: Option<DateTime<Utc>>,
    ) -> Result<Vec<Hit>, Verdict> {
        let reference = self.definition.reference_of(&record.slot.key, record.link.as_ref());
        let hits = match self.definition.create_way() {
            Way::FoundAgain { how: Lookup::Filter { field } } => self.by_filter(record, module, &field, &reference).await?,
            Way::FoundAgain { how: Lookup::Payments { field } } => self.by_transactions(record, body, &field, &reference).await?,
            Way::FoundAgain { how: Lookup::CreatedSince { values, reference: field } } => {
                self.by_values(record, module, body, &values, field.as_deref().map(|f| (f, reference.as_str())), since).await?
            }
            Way::Refused { by: Refusal::Unique { field } } => self.by_unique(record, module, body, &field).await?,
            Way::Refused { .. } | Way::Parked => Vec::new(),
        };
        self.not_linked_to_others(record, hits).await
    }

    /// Looks for a record that `match_on` says is the row's, in whatever case where Zoho has `refused` a second one. Without a value to match by
    /// there is none.
    pub(super) async fn find_match(&self, record: &Record<'_>, module: Module, body: &Value, refused: bool) -> Result<Vec<Hit>, Verdict> {
        let Some(wanted) = self.definition.matched_by(body) else { return Ok(Vec::new()) };
        // what a person made before the row was changed is seen
        let age = record.slot.age_ms.and_then(|ms| u64::try_from(ms).ok()).map_or(Duration::ZERO, Duration::from_millis);
        let asked_for = self.work.asked_at.checked_sub(age).unwrap_or(self.work.asked_at);
        let rows = self.list(record, module, Age::About(asked_for)).await?;
        let found = self.hits(module, rows.iter().filter(|row| self.carries(row, &wanted, alike)));
        if !found.is_empty() || !refused {
            return Ok(found);
        }
        Ok(self.hits(module, rows.iter().filter(|row| self.carries(row, &wanted, alike_in_any_case))))
    }

    fn carries(&self, row: &Value, wanted: &[(&str, &Value)], alike: fn(&Value, &Value) -> bool) -> bool {
        wanted.iter().all(|(path, want)| field_in(&self.definition.module, row, path).is_some_and(|has| alike(want, has)))
    }

    fn hits<'v>(&self, module: Module, rows: impl Iterator<Item = &'v Value>) -> Vec<Hit> {
        rows.filter_map(|row| Some(Hit { id: finance::id_of(module, row)?, value: row.clone() })).collect()
    }

    async fn by_filter(&self, record: &Record<'_>, module: Module, field: &str, reference: &str) -> Result<Vec<Hit>, Verdict> {
        let mut search = Search::of(record);
        while let Some(page) = search.page() {
            let filters = [("reference_contains", reference)];
            let listing = self.session.call(async |g, c, t| finance::list(g, c, t, module, page, &filters).await).await;
            let listing = listing.map_err(|e| search.kept(self.ended(record, &e)))?;
            // The filter matches parts, and Zoho has been seen to ignore filters: the row decides.
            let ours = listing.rows.iter().filter(|row| value::at(row, field).and_then(Value::as_str) == Some(reference));
            search.hits.extend(self.hits(module, ours));
            search.turn(listing.more);
        }
        Ok(search.hits)
    }

    /// A payment shows its reference in single reads only.
    async fn by_transactions(&self, record: &Record<'_>, body: &Value, field: &str, reference: &str) -> Result<Vec<Hit>, Verdict> {
        let Some(customer) = body.get("customer_id").map(value::scalar_text) else { return Ok(Vec::new()) };
        let filters = [("customer_id", customer.as_str()), ("filter_by", "TransactionType.PAYMENT")];
        let mut search = Search::of(record);
        loop {
            while let Some(id) = search.unread.last().cloned() {
                match self.session.call(async |g, c, t| finance::get(g, c, t, Module::PAYMENTS, &id).await).await {
                    Ok(single) if value::at(&single.value, field).and_then(Value::as_str) == Some(reference) => {
                        return Ok(vec![Hit { id: single.id, value: single.value }]);
                    }
                    Ok(_) => {}
                    Err(Ended::Zoho(error, _)) if matches!(*error, Error::NotFound { .. }) => {}
                    Err(other) => return Err(search.kept(self.ended(record, &other))),
                }
                search.unread.pop();
                search.read.insert(id);
            }
            let Some(page) = search.page() else { return Ok(Vec::new()) };
            let listing = self.session.call(async |g, c, t| finance::list(g, c, t, Module::TRANSACTIONS, page, &filters).await).await;
            let listing = listing.map_err(|e| search.kept(self.ended(record, &e)))?;
            for row in &listing.rows {
                let same_amount = match (row.get("amount"), body.get("amount")) {
                    (Some(has), Some(want)) => alike(want, has),
                    _ => true,
                };
                search.unread.extend(finance::id_of(Module::TRANSACTIONS, row).filter(|id| same_amount && !search.read.contains(id)));
            }
            search.turn(listing.more);
        }
    }

    /// Rows made since the send that carry the very values sent; where a custom field holds our reference, the single read decides.
    async fn by_values(
        &self,
        record: &Record<'_>,
        module: Module,
        body: &Value,
        values: &[String],
        reference: Option<(&str, &str)>,
        since: Option<DateTime<Utc>>,
    ) -> Result<Vec<Hit>, Verdict> {
        let wanted: Vec<(&str, &Value)> = values.iter().filter_map(|path| Some((path.as_str(), value::at(body, path)?))).collect();
        let mut search = Search::of(record);
        let begun_since = search.lists_since(record);
        let rows = self.list(record, module, Age::Since(begun_since)).await.map_err(|verdict| search.kept(verdict))?;
        let recent = |row: &Value| match (since, row.get("created_time").and_then(Value::as_str).and_then(parse_time)) {
            (Some(since), Some(created)) => created >= since - CLOCKS_DIFFER_BY,
            _ => true,
        };
        let candidates = self.hits(module, rows.iter().filter(|row| recent(row) && self.carries(row, &wanted, alike)));
        let Some((field, ours)) = reference else { return Ok(candidates) };
        for candidate in candidates {
            if search.read.contains(&candidate.id) || search.hits.iter().any(|hit| hit.id == candidate.id) {
                continue;
            }
            let single = self.session.call(async |g, c, t| finance::get(g, c, t, module, &candidate.id).await).await;
            let single = single.map_err(|e| search.kept(self.ended(record, &e)))?;
            if field_in(&self.definition.module, &single.value, field).map(value::scalar_text).as_deref() == Some(ours) {
                search.hits.push(Hit { id: single.id, value: single.value });
            } else {
                search.read.insert(candidate.id);
            }
        }
        Ok(search.hits)
    }

    /// By a value that Zoho keeps unique: a plan by its code, an invoice among its customer's by its number.
    async fn by_unique(&self, record: &Record<'_>, module: Module, body: &Value, field: &str) -> Result<Vec<Hit>, Verdict> {
        let Some(wanted) = value::at(body, field) else { return Ok(Vec::new()) };
        if module.addressed_by_code() {
            let code = value::scalar_text(wanted);
            return match self.session.call(async |g, c, t| finance::get(g, c, t, module, &code).await).await {
                Ok(single) => Ok(vec![Hit { id: single.id, value: single.value }]),
                Err(Ended::Zoho(error, _)) if matches!(*error, Error::NotFound { .. }) => Ok(Vec::new()),
                Err(other) => Err(Search::of(record).of_refused().kept(self.ended(record, &other))),
            };
        }
        let customer = body.get("customer_id").map(value::scalar_text);
        let filters: Vec<(&str, &str)> = customer.iter().map(|id| ("customer_id", id.as_str())).collect();
        let mut search = Search::of(record).of_refused();
        while let Some(page) = search.page() {
            let listing = self.session.call(async |g, c, t| finance::list(g, c, t, module, page, &filters).await).await;
            let listing = listing.map_err(|e| search.kept(self.ended(record, &e)))?;
            // Billing's invoice rows call the number `number` (finance sheet §5.11).
            let names = [field, field.rsplit('_').next().unwrap_or(field)];
            let found = listing.rows.iter().filter(|row| names.iter().any(|name| row.get(name).is_some_and(|has| alike(wanted, has))));
            let hits = self.hits(module, found);
            if !hits.is_empty() {
                return Ok(hits);
            }
            search.turn(listing.more);
        }
        Ok(Vec::new())
    }

    async fn list(&self, record: &Record<'_>, module: Module, age: Age) -> Result<std::sync::Arc<Vec<Value>>, Verdict> {
        let connection = &self.work.batch.connection;
        self.engine.walks.rows(self.session, connection, module, age).await.map_err(|not_now| match not_now {
            NotNow::Busy => Verdict::of(snooze(Duration::from_millis(200), "the module's list is being read")),
            NotNow::Ended(e) => match self.ended(record, &e) {
                // The list is everybody's: that it cannot be read says nothing about this record.
                Verdict { outcome: Outcome::Retry(retry), .. } => Verdict::of(snooze(Duration::from_secs(1), &retry.message)),
                verdict => verdict,
            },
        })
    }

    /// Hits that are linked to other rows of the sync are not ours.
    async fn not_linked_to_others(&self, record: &Record<'_>, hits: Vec<Hit>) -> Result<Vec<Hit>, Verdict> {
        let owners = self.owners(&hits).await?;
        Ok(hits.into_iter().filter(|hit| owners.get(&hit.id).is_none_or(|key| *key == record.slot.key)).collect())
    }

    async fn owners(&self, hits: &[Hit]) -> Result<std::collections::BTreeMap<String, String>, Verdict> {
        let ids: Vec<String> = hits.iter().map(|hit| hit.id.clone()).collect();
        if ids.is_empty() {
            return Ok(std::collections::BTreeMap::new());
        }
        let asked = async {
            let mut tx = self.engine.db.begin().await?;
            link::store::keys_of(&mut tx, self.definition.name(), &ids).await
        };
        asked.await.map_err(|error: sqlx::Error| {
            tracing::warn!(%error, "links could not be read");
            Verdict::of(snooze(Duration::from_secs(1), "links could not be read"))
        })
    }

    /// Takes a found record for the row's: equal fields agree, differing ones are sent next.
    pub(super) async fn adopt(&self, record: &Record<'_>, hits: Vec<Hit>) -> Result<Option<Verdict>, Verdict> {
        let Some(row) = &record.row else { return Ok(None) };
        let owners = self.owners(&hits).await?;
        let [hit] = hits.as_slice() else {
            return Ok((!hits.is_empty()).then(|| Verdict::dead(several(&hits))));
        };
        if let Some(owner) = owners.get(&hit.id).filter(|key| **key != record.slot.key) {
            let letter = Letter::new(Class::Duplicate, format!("Zoho's record {} matches, but is linked to {owner} already", hit.id))
                .hint("two rows stand for one Zoho record: merge them, or make them differ in the match_on fields, then requeue");
            return Ok(Some(Verdict::dead(letter)));
        }
        let fields = link::agreed::after_match(self.definition, row, &self.parents, &hit.value);
        let agreed = Agreed {
            key: record.slot.key.clone(),
            zoho_id: hit.id.clone(),
            fields,
            zoho_modified_at: self.definition.module.modified_at(&hit.value),
            written: false,
            look_again: false,
        };
        let linked = Link {
            sync: self.definition.name().to_owned(),
            key: agreed.key.clone(),
            zoho_id: Some(agreed.zoho_id.clone()),
            fields: agreed.fields.clone(),
            ..Link::default()
        };
        let outcome = if plan::changed_fields(self.definition, row, &linked).is_empty() {
            Outcome::Done { reason: None }
        } else {
            Outcome::Continue { progress: None }
        };
        Ok(Some(Verdict { agreed: Some(agreed), create: sluice_queue::settle::Create::Settled, ..Verdict::of(outcome) }))
    }

    /// Whether a person has requeued the letter that says that an earlier create may be in Zoho, and nothing was tried since.
    pub(super) async fn sent_anew(&self, record: &Record<'_>) -> Result<bool, Verdict> {
        let newest = sqlx::query_scalar!(
            r#"select coalesce((select d.error_class = 'unknown' and d.resolution is not distinct from 'requeued' from sluice.dead_letter d
               where d.sync = $1 and d.key = $2 order by d.id desc limit 1), false) as "requeued!""#,
            self.definition.name(),
            record.slot.key
        );
        let requeued = newest.fetch_one(&self.engine.db).await.map_err(|error| {
            tracing::warn!(%error, "letters could not be read");
            Verdict::of(snooze(Duration::from_secs(1), "letters could not be read"))
        })?;
        Ok(requeued && record.slot.tries == 0)
    }

    /// The second look at a record that came of a repeated create: two hits are never silence.
    pub(super) async fn look_again(&self, record: &Record<'_>, module: Module, body: &Value) -> Verdict {
        let since = record.link.as_ref().and_then(|link| link.look_again_at).map(|at| at - chrono::Duration::hours(2));
        match self.find_lost(record, module, body, since).await {
            Ok(hits) if hits.len() > 1 => Verdict { looked_again: true, ..Verdict::dead(several(&hits)) },
            Ok(_) => Verdict { looked_again: true, ..Verdict::of(Outcome::Done { reason: Some("looked_again") }) },
            Err(verdict) => verdict,
        }
    }

    pub(in crate::handlers) fn ended(&self, record: &Record<'_>, failure: &Ended) -> Verdict {
        let (outcome, create) = ended(self.engine, self.work, self.session, record.slot, failure, false);
        // A look-up creates nothing, so it settles nothing either: an older doubt stays.
        let _ = create;
        Verdict::of(outcome)
    }
}

fn several(hits: &[Hit]) -> Letter {
    let ids: Vec<&str> = hits.iter().map(|hit| hit.id.as_str()).collect();
    Letter::new(Class::Duplicate, format!("Zoho has several records for this row: {}", ids.join(", ")))
        .hint("merge or delete all but one of them in Zoho, then requeue")
}

/// A text names the record that carries it as it is: `007` is not `7`. Mail addresses are the same in whatever case.
fn alike(want: &Value, has: &Value) -> bool {
    match want {
        Value::String(text) if text.contains('@') => alike_in_any_case(want, has),
        Value::String(text) => text.trim() == value::scalar_text(has).trim(),
        _ => value::alike(want, has),
    }
}

fn alike_in_any_case(want: &Value, has: &Value) -> bool {
    let same = |value: &Value| value::scalar_text(value).trim().to_lowercase();
    same(want) == same(has)
}
