//! `poll`: asks a module what changed since the last time, drops what equals the links (echoes of our own writes, edits of unmapped fields), and
//! asks for a run of each record that is left. It applies nothing itself.
//!
//! Each page is stored before the next is asked for, and the cursor moves over what was stored only, so a worker that dies costs a page.
//! A walk by time goes on from the newest time it has seen, not by page number: rows that change during the walk would shift the pages. Every
//! walk begins a little before the cursor, since Zoho's times have seconds and its lists may lag.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::config::field::Field;
use sluice_core::config::sync::{OnDelete, Product};
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_sync::cursor::{self, Walk};
use sluice_sync::definition::Definition;
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::{Link, store as links};
use sluice_sync::sighting::{self, Sighting};
use sluice_sync::value;
use sluice_zoho::finance::{self, Changes, Page};
use sluice_zoho::{Error, NotSent, crm};

use super::pull::crm_fields;
use super::push::finance_module;
use super::{all, ended, snooze};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::work::{Handled, Work};

/// How far before the cursor a walk begins.
const OVERLAP: chrono::Duration = chrono::Duration::seconds(5);

/// One page, whatever the product.
struct Listing {
    rows: Vec<Value>,
    more: bool,
}

struct Poll<'a> {
    engine: &'a Engine,
    work: &'a Work,
    session: &'a Session<'a>,
    definition: &'a Definition,
    slot: &'a Claimed,
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    let Some(definition) = engine.definition(&work.batch.sync) else {
        return all(work, |_| snooze(Duration::from_secs(60), "this worker's file does not have the sync"));
    };
    let [slot] = work.batch.slots.as_slice() else {
        return all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    };
    let poll = Poll { engine, work, session, definition: &definition, slot };
    let outcome = match engine.policy.exhausted(slot) {
        Some(letter) => Outcome::Dead(Box::new(letter)),
        None => poll.walk().await.unwrap_or_else(|error| {
            tracing::warn!(%error, sync = definition.name(), "what a poll found could not be stored");
            snooze(Duration::from_secs(1), "what it found could not be stored")
        }),
    };
    let request = Some(json!({"poll": definition.name()}));
    let settlement = Settlement { request, calls: work.calls.made(), ..Settlement::new(slot.id, outcome) };
    Handled { settlements: vec![settlement], ..Handled::default() }
}

impl Poll<'_> {
    async fn walk(&self) -> Result<Outcome, sqlx::Error> {
        let mut walk = self.begin().await?;
        loop {
            let listing = match self.page(&walk).await {
                Ok(listing) => listing,
                Err(failure) => return Ok(self.broken_off(&failure)),
            };
            let next = self.store(&walk, listing).await?;
            match next {
                Some(next) => walk = next,
                None => return Ok(Outcome::Done { reason: None }),
            }
        }
    }

    /// Goes on with the walk that is under way, or begins one.
    async fn begin(&self) -> Result<Walk, sqlx::Error> {
        let args = self.slot.args.clone().unwrap_or_default();
        let mut tx = self.engine.db.begin().await?;
        let cursor = cursor::load(&mut tx, self.definition.name()).await?;
        let walk = match cursor.walk {
            Some(walk) => walk,
            None => {
                let from = cursor.since.filter(|_| args.get("full").and_then(Value::as_bool) != Some(true)).map(|since| since - OVERLAP);
                let run_id = match args.get("run_id").and_then(Value::as_i64) {
                    Some(given) => given,
                    None => {
                        sqlx::query_scalar!(
                            r#"insert into sluice.run (kind, sync, asked_by) values ('poll', $1, $2) returning id"#,
                            self.definition.name(),
                            &*self.engine.worker
                        )
                        .fetch_one(&mut tx)
                        .await?
                    }
                };
                let deleted_from = cursor.deleted_since.map(|since| since - OVERLAP);
                let walk = Walk { run_id, from, page: 1, newest: None, deleted_from, deleted: false, seen: Vec::new(), began: cursor.now };
                cursor::keep(&mut tx, self.definition.name(), &walk).await?;
                walk
            }
        };
        tx.commit().await?;
        Ok(walk)
    }

    async fn page(&self, walk: &Walk) -> Result<Listing, Ended> {
        let name = &self.definition.module.name;
        if self.definition.module.product == Product::Crm {
            let listing = if walk.deleted {
                let call = async |g, c: &_, t: &_| crm::lists::deleted(g, c, t, name, walk.from, walk.page).await;
                self.session.call_costing(crm::lists::DELETED_COST, call).await?
            } else {
                let fields = crm_fields(self.definition);
                let fields: Vec<&str> = fields.iter().map(String::as_str).take(crm::MAX_FIELDS).collect();
                let call = async |g, c: &_, t: &_| crm::lists::modified(g, c, t, name, &fields, walk.from, walk.page).await;
                self.session.call_costing(crm::lists::LIST_COST, call).await?
            };
            return Ok(Listing { rows: listing.rows, more: listing.more });
        }
        let Some(module) = finance_module(self.definition).filter(|module| module.listed()) else {
            let reason = format!("{} has no list that this version can poll", self.definition.module);
            return Err(Ended::Zoho(Box::new(Error::NotSent(NotSent::Invalid { reason })), Duration::ZERO));
        };
        let since = walk.from.map(|from| from.format("%Y-%m-%dT%H:%M:%S+0000").to_string());
        let mut filters = Vec::new();
        match module.changes() {
            Changes::Since => {
                filters.extend([("sort_column", "last_modified_time"), ("sort_order", "A")]);
                filters.extend(since.iter().map(|since| ("last_modified_time", since.as_str())));
            }
            Changes::Sorted => filters.extend([("sort_column", "last_modified_time"), ("sort_order", "D")]),
            Changes::Whole => {}
        }
        let page = Page { page: walk.page, ..Page::FIRST };
        let listing = self.session.call(async |g, c, t| finance::list(g, c, t, module, page, &filters).await).await?;
        Ok(Listing { rows: listing.rows, more: listing.more })
    }

    fn changes(&self) -> Changes {
        match finance_module(self.definition) {
            Some(module) => module.changes(),
            None => Changes::Since,
        }
    }

    /// Stores what a page shows and asks for runs of what differs. The next page; `None`: the walk is at its end.
    async fn store(&self, walk: &Walk, listing: Listing) -> Result<Option<Walk>, sqlx::Error> {
        let sync = self.definition.name();
        let module = &self.definition.module;
        let found: Vec<(String, Value)> = listing.rows.into_iter().filter_map(|row| Some((module.id_of(&row)?, row))).collect();
        let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
        let timed: Vec<(String, DateTime<Utc>)> =
            found.iter().filter_map(|(id, row)| Some((id.clone(), module.modified_at(row)?))).collect();
        let seen = |id: &str, row: &Value| {
            module.modified_at(row).is_some_and(|at| walk.seen.iter().any(|(known, then)| known == id && *then == at))
        };
        let mut tx = self.engine.db.begin().await?;
        let known = links::load_by_id(&mut tx, sync, &ids).await?;
        let seen_at = walk.began;
        let mut sightings = BTreeMap::new();
        let (mut wanted, mut unchanged) = (Vec::new(), 0_i64);
        for (id, row) in found {
            if seen(&id, &row) {
                continue;
            }
            let link = known.get(&id);
            if walk.deleted {
                if link.is_some_and(|link| link.gone_at.is_none()) {
                    sightings.insert(id.clone(), self.sighting(None, true, seen_at, walk));
                    wanted.push(id);
                }
                continue;
            }
            match self.compare(&row, link) {
                Compared::Equal => unchanged += 1,
                Compared::Differs { complete } => {
                    sightings.insert(id.clone(), self.sighting(Some(row), complete, seen_at, walk));
                    wanted.push(id);
                }
            }
        }
        sighting::keep(&mut tx, sync, &sightings.into_iter().collect::<Vec<_>>()).await?;
        self.ask_for_runs(&mut tx, &wanted).await?;
        let total = unchanged + i64::try_from(wanted.len()).unwrap_or(0);
        note(&mut tx, walk.run_id, total, unchanged).await?;
        let next = self.next(walk, &timed, listing.more);
        match &next {
            Some(next) => cursor::keep(&mut tx, sync, next).await?,
            None => {
                let newest = walk.newest.max(timed.iter().map(|(_, at)| *at).max());
                cursor::end(&mut tx, sync, &Walk { newest, ..walk.clone() }).await?;
                sqlx::query!("update sluice.run set state = 'done', finished_at = clock_timestamp() where id = $1", walk.run_id)
                    .execute(&mut tx)
                    .await?;
            }
        }
        tx.commit().await?;
        self.engine.wake.notify_waiters();
        Ok(next)
    }

    fn sighting(&self, record: Option<Value>, complete: bool, seen_at: DateTime<Utc>, walk: &Walk) -> Sighting {
        Sighting { record, complete, seen_at, dated: self.session.dated(), age: Duration::ZERO, run_id: Some(walk.run_id) }
    }

    /// Where the walk goes on.
    fn next(&self, walk: &Walk, timed: &[(String, DateTime<Utc>)], more: bool) -> Option<Walk> {
        let last = timed.iter().map(|(_, at)| *at).max();
        let oldest = timed.iter().map(|(_, at)| *at).min();
        let on = Walk { newest: walk.newest.max(last), seen: Vec::new(), ..walk.clone() };
        let reads_deleted = self.definition.module.product == Product::Crm && self.definition.sync.on_delete != OnDelete::Ignore;
        let more = more
            && match (walk.deleted, self.changes()) {
                // newest first: what follows was seen the last time
                (false, Changes::Sorted) => walk.from.is_none_or(|from| oldest.is_none_or(|oldest| oldest >= from)),
                _ => true,
            };
        if more {
            // by time, unless a whole page has but one: then by number
            let from = last.map(|last| last - chrono::Duration::seconds(1));
            return Some(match (walk.deleted, self.changes(), from) {
                (false, Changes::Since, Some(from)) if walk.from.is_none_or(|before| from > before) => {
                    let again = timed.iter().filter(|(_, at)| *at >= from).cloned();
                    Walk { from: Some(from), page: 1, seen: again.collect(), ..on }
                }
                _ => Walk { page: walk.page + 1, ..on },
            });
        }
        let from = walk.deleted_from.filter(|_| reads_deleted && !walk.deleted)?;
        Some(Walk { deleted: true, page: 1, from: Some(from), ..on })
    }

    /// Whether a row of the list says anything that the link does not know.
    fn compare(&self, row: &Value, link: Option<&Link>) -> Compared {
        let module = &self.definition.module;
        let fields = self.definition.fields();
        let pulled = fields.iter().filter(|(_, field)| matches!(field, Field::Column(_) | Field::Ref(_)));
        let shown: Vec<(&String, Option<&Value>)> = pulled.map(|(path, _)| (path, field_in(module, row, path))).collect();
        let complete = self.definition.sync.columns.is_empty() && shown.iter().all(|(_, value)| value.is_some());
        let Some(link) = link else { return Compared::Differs { complete } };
        let theirs = module.modified_at(row);
        if theirs.is_some() && theirs < link.zoho_modified_at {
            return Compared::Equal; // an older state than the one we know
        }
        let same = |(path, value): &(&String, Option<&Value>)| {
            let Some(value) = value else { return true };
            let value = value::null_if_empty(value);
            link.fields
                .get(*path)
                .is_some_and(|pair| if pair.confirmed { value::same(&pair.zoho, &value) } else { value::alike(&pair.zoho, &value) })
        };
        // what an expression made is ours: an edit of it is not applied, but it is recorded
        let made = fields.iter().filter(|(path, field)| matches!(field, Field::Sql(_)) && link.fields.contains_key(*path));
        let mut made = made.map(|(path, _)| (path, field_in(module, row, path)));
        let same = shown.iter().all(same) && made.all(|shown| same(&shown)) && link.gone_at.is_none();
        let ours = theirs.is_some() && theirs == link.zoho_modified_at;
        if same && (complete || ours) { Compared::Equal } else { Compared::Differs { complete } }
    }

    /// A run for each record, in the lane of the poll.
    async fn ask_for_runs(&self, tx: &mut sluice_core::db::Tx, zoho_ids: &[String]) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "insert into sluice.job (kind, args, lane) select 'pull', jsonb_build_object('sync', $1::text, 'zoho_id', id), $3 from unnest($2::text[]) id",
            self.definition.name(),
            zoho_ids,
            self.work.batch.lane
        )
        .execute(tx)
        .await?;
        Ok(())
    }

    fn broken_off(&self, failure: &Ended) -> Outcome {
        if let Ended::Zoho(error, _) = failure
            && let Error::NotSent(NotSent::Invalid { reason }) = &**error
        {
            return Outcome::Dead(Box::new(
                Letter::new(Class::Payload, reason.clone()).hint("see the list of modules in docs/configuration.md"),
            ));
        }
        ended(self.engine, self.work, self.session, self.slot, failure, false).0
    }
}

enum Compared {
    Equal,
    Differs { complete: bool },
}

async fn note(tx: &mut sluice_core::db::Tx, run_id: i64, total: i64, unchanged: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.note_run($1, $2, 0, 0, $3, 0, '[]')", run_id, total, unchanged).execute(tx).await?;
    Ok(())
}
