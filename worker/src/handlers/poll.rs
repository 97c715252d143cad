//! `poll`: asks a module what changed since the last time, drops what equals the links (echoes of our own writes, edits of unmapped fields), and
//! asks for a run of each record that is left. It applies nothing itself.
//!
//! Each page is stored before the next is asked for, and the cursor moves over what was stored only, so a worker that dies costs a page.
//! Every walk begins a little before the cursor, since Zoho's times have seconds and its lists may lag.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::config::sync::{OnDelete, Product};
use sluice_core::db::Tx;
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_sync::bulk::Bulk;
use sluice_sync::cursor::{self, Walk};
use sluice_sync::definition::Definition;
use sluice_sync::link::store as links;
use sluice_sync::sighting::{self, Sighting};
use sluice_zoho::finance::Changes;

use super::bulk::{self, Chunk, Step};
use super::listing::{self, Compared, Listing};
use super::{all, ended, snooze};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::settle::note_run;
use crate::work::{Handled, Sums, Work};

/// How far before the cursor a walk begins.
const OVERLAP: chrono::Duration = chrono::Duration::seconds(5);

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
            if let Some(bulk) = walk.bulk().cloned() {
                match self.in_bulk(walk, &bulk).await? {
                    ControlFlow::Continue(next) => walk = *next,
                    ControlFlow::Break(outcome) => return Ok(outcome),
                }
                continue;
            }
            let listing = match listing::page(self.session, self.definition, &walk).await {
                Ok(listing) => listing,
                Err(failure) if listing::cannot_go_on(&walk, &failure) => {
                    let mut tx = self.engine.db.begin().await?;
                    cursor::keep(&mut tx, self.definition.name(), &walk.anew()).await?;
                    tx.commit().await?;
                    return Ok(Outcome::Continue { progress: None });
                }
                Err(failure) => return Ok(self.broken_off(&failure)),
            };
            let next = self.store(&walk, listing, 1).await?;
            match next {
                Some(next) => walk = next,
                None => return Ok(Outcome::Done { reason: None }),
            }
        }
    }

    /// Goes on with a bulk read of what is left of the walk.
    async fn in_bulk(&self, mut walk: Walk, bulk: &Bulk) -> Result<ControlFlow<Outcome, Box<Walk>>, sqlx::Error> {
        let made = self.work.calls.made();
        let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(&self.engine.db).await?;
        let step = match bulk::step(self.engine, self.session, self.definition, bulk, now).await {
            Ok(step) => step,
            Err(failure) => return Ok(ControlFlow::Break(self.broken_off(&failure))),
        };
        let calls = i64::from(self.work.calls.made() - made);
        match step {
            Step::Keep { bulk, pause, said } => {
                walk = walk.with(bulk);
                let mut tx = self.engine.db.begin().await?;
                cursor::keep(&mut tx, self.definition.name(), &walk).await?;
                note_run(&mut tx, walk.run_id, &Sums { calls, messages: said.into_iter().collect(), ..Sums::default() }).await?;
                tx.commit().await?;
                Ok(pause.map_or_else(|| ControlFlow::Continue(Box::new(walk)), |(after, why)| ControlFlow::Break(snooze(after, why))))
            }
            Step::Rows(mut chunks) => {
                let mut calls = calls;
                while let Some(chunk) = chunks.next().await {
                    match self.store(&walk, chunk.into(), std::mem::take(&mut calls)).await? {
                        Some(next) => walk = next,
                        None => return Ok(ControlFlow::Break(Outcome::Done { reason: None })),
                    }
                }
                Ok(ControlFlow::Continue(Box::new(walk)))
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
                let walk = Walk::new(run_id, from, deleted_from, cursor.now);
                cursor::keep(&mut tx, self.definition.name(), &walk).await?;
                walk
            }
        };
        tx.commit().await?;
        Ok(walk)
    }

    /// Stores what a page, or a part of a bulk read's file, shows and asks for runs of what differs. What comes next; `None`: the walk is at its end.
    async fn store(&self, walk: &Walk, mut listing: Listing, calls: i64) -> Result<Option<Walk>, sqlx::Error> {
        let sync = self.definition.name();
        let mut tx = self.engine.db.begin().await?;
        let turned = self.turned(&mut tx, walk, &listing).await?;
        let (found, timed) = listing::identified(self.definition, std::mem::take(&mut listing.rows));
        let ids: Vec<String> = found.iter().map(|(id, _)| id.clone()).collect();
        let known = links::load_by_id(&mut tx, sync, &ids).await?;
        // what an earlier page has shown may be about to become a row
        let kept = if walk.deleted { sighting::load(&mut tx, sync, &ids).await? } else { BTreeMap::new() };
        let (seen_at, dated) = listing.of_file.as_ref().map_or((walk.began, self.session.dated()), |file| (file.seen_at, Some(file.dated)));
        let sighting = |record, complete| Sighting { record, complete, seen_at, dated, age: Duration::ZERO, run_id: Some(walk.run_id) };
        let mut sightings = BTreeMap::new();
        let (mut wanted, mut unchanged) = (Vec::new(), 0_i64);
        for (id, row) in found {
            if listing::seen_before(self.definition, walk, &id, &row) {
                continue;
            }
            let link = known.get(&id);
            if walk.deleted {
                if link.map_or(kept.contains_key(&id), |link| link.gone_at.is_none()) {
                    sightings.insert(id.clone(), sighting(None, true));
                    wanted.push(id);
                }
                continue;
            }
            match listing::compare(self.definition, &row, link) {
                Compared::Equal | Compared::Outdated => unchanged += 1,
                Compared::Differs { complete, .. } => {
                    sightings.insert(id.clone(), sighting(Some(row), complete));
                    wanted.push(id);
                }
            }
        }
        let sightings: Vec<_> = sightings.into_iter().collect();
        sighting::found(&mut tx, sync, walk.run_id, &sightings).await?;
        listing::ask_for_runs(&mut tx, sync, &wanted, &self.work.batch.lane).await?;
        let total = unchanged + i64::try_from(sightings.len()).unwrap_or(0);
        let messages = listing.of_file.as_mut().map(|file| std::mem::take(&mut file.said)).unwrap_or_default();
        note_run(&mut tx, walk.run_id, &Sums { total, unchanged, calls, messages, ..Sums::default() }).await?;
        let (next, newest) = match listing.of_file {
            Some(file) => self.after_file(walk, *file),
            None => {
                let newest = walk.newest.max(timed.iter().map(|(_, at)| *at).max());
                (self.next(walk, timed, listing.more, listing.next, turned), newest)
            }
        };
        match &next {
            Some(next) => cursor::keep(&mut tx, sync, next).await?,
            None => {
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

    /// A bulk read of what follows the page, if the walk turns to one.
    async fn turned(&self, tx: &mut Tx, walk: &Walk, listing: &Listing) -> Result<Option<Bulk>, sqlx::Error> {
        if !listing.more || listing.of_file.is_some() || !bulk::applies(self.definition, walk) {
            return Ok(None);
        }
        let linked = if bulk::may_know(self.definition, walk) { bulk::linked(tx, self.definition.name()).await? } else { 0 };
        let now = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#).fetch_one(tx).await?;
        Ok(bulk::begin(self.definition, walk, &listing.rows, linked, None, now))
    }

    /// Where the walk goes on after rows of a file, and the newest change that it has seen then.
    fn after_file(&self, walk: &Walk, file: Chunk) -> (Option<Walk>, Option<DateTime<Utc>>) {
        match file.after {
            Some(bulk) => (Some(walk.with(bulk)), walk.newest),
            None => {
                let walk = Walk { newest: walk.newest.max(file.complete_until), ..walk.clone() };
                (self.deleted(&walk), walk.newest)
            }
        }
    }

    /// The list of deleted records, if the walk is to read it yet.
    fn deleted(&self, walk: &Walk) -> Option<Walk> {
        let reads_deleted = self.definition.module.product == Product::Crm && self.definition.sync.on_delete != OnDelete::Ignore;
        let from = walk.deleted_from.filter(|_| reads_deleted && !walk.deleted)?;
        Some(Walk { deleted: true, from: Some(from), bulk: None, ..walk.anew() })
    }

    /// Where the walk goes on after a page.
    fn next(
        &self,
        walk: &Walk,
        timed: Vec<(String, DateTime<Utc>)>,
        more: bool,
        token: Option<String>,
        turned: Option<Bulk>,
    ) -> Option<Walk> {
        let last = timed.iter().map(|(_, at)| *at).max();
        let oldest = timed.iter().map(|(_, at)| *at).min();
        let more = more
            && match (walk.deleted, listing::changes(self.definition)) {
                // newest first: what follows was seen the last time
                (false, Changes::Sorted) => walk.from.is_none_or(|from| oldest.is_none_or(|oldest| oldest >= from)),
                _ => true,
            };
        if more {
            return Some(listing::following(self.definition, walk, timed, token, turned));
        }
        self.deleted(&Walk { newest: walk.newest.max(last), ..walk.clone() })
    }

    fn broken_off(&self, failure: &Ended) -> Outcome {
        match listing::refused(failure) {
            Some(letter) => Outcome::Dead(Box::new(letter)),
            None => ended(self.engine, self.work, self.session, self.slot, failure, false).0,
        }
    }
}
