//! `reconcile`: one complete sweep over both sides of a sync. Zoho's list is compared with the links, record by record and whatever its time; then the
//! table's rows are. What differs is asked for with jobs of its own; the sweep writes to neither side.
//!
//! Each page is stored with the place before the next is asked for, so a worker that dies costs a page. A record that is on no page is not gone: it is
//! asked for by its id, and only that answer counts. Where more are missing than may be deleted at once, not even that: a person is asked.

mod in_bulk;
mod local;
mod missing;
mod store;

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::config::sync::Reconcile;
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_sync::cursor::Walk;
use sluice_sync::definition::Definition;
use sluice_sync::link::store as links;
use sluice_sync::sighting::{self, Sighting};
use sluice_sync::sweep::{self, Place};

use super::listing::{self, Compared, Listing};
use super::{all, ended, snooze};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::settle::note_run;
use crate::work::{Handled, Sums, Work};

/// Pages, or chunks of the table, that one claim goes through: a run may not take for ever.
const PAGES: u32 = 20;

struct Sweep<'a> {
    engine: &'a Engine,
    work: &'a Work,
    session: &'a Session<'a>,
    definition: &'a Definition,
    slot: &'a Claimed,
}

/// How a step left the sweep.
enum Next {
    /// There is more to look at.
    Go(Box<Place>),
    /// Zoho's list, or the table, is at its end.
    End(Box<Place>),
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    let Some(definition) = engine.definition(&work.batch.sync) else {
        return all(work, |_| snooze(Duration::from_secs(60), "this worker's file does not have the sync"));
    };
    let [slot] = work.batch.slots.as_slice() else {
        return all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    };
    let sweep = Sweep { engine, work, session, definition: &definition, slot };
    let outcome = match engine.policy.exhausted(slot) {
        Some(letter) => Outcome::Dead(Box::new(letter)),
        None => sweep.go_on().await.unwrap_or_else(|error| {
            tracing::warn!(error = sluice_core::db::message(&error), sync = definition.name(), "what a sweep found could not be stored");
            snooze(Duration::from_secs(1), "what it found could not be stored")
        }),
    };
    if let Outcome::Dead(letter) = &outcome
        && let Err(error) = sweep.give_up(&letter.message).await
    {
        tracing::warn!(%error, sync = definition.name(), "the run of a sweep that gave up still counts as running");
    }
    engine.wake.notify_waiters();
    let request = Some(json!({"reconcile": definition.name()}));
    let settlement = Settlement { request, calls: work.calls.made(), ..Settlement::new(slot.id, outcome) };
    Handled { settlements: vec![settlement], ..Handled::default() }
}

impl Sweep<'_> {
    async fn go_on(&self) -> Result<Outcome, sqlx::Error> {
        let (mut place, mut calls) = self.begin().await?;
        for _ in 0..PAGES {
            let next = match place.walk.take() {
                Some(walk) if walk.bulk().is_some() => match self.in_bulk(place, walk).await? {
                    ControlFlow::Continue(next) => next,
                    ControlFlow::Break(outcome) => return Ok(outcome),
                },
                Some(walk) => {
                    if let Some(pause) = self.spent(calls).await? {
                        return Ok(pause);
                    }
                    let now = store::now(&self.engine.db).await?;
                    calls += 1;
                    match listing::page(self.session, self.definition, &walk).await {
                        Ok(listing) => self.store(place, walk, listing, (now, calls)).await?,
                        Err(failure) if listing::cannot_go_on(&walk, &failure) => {
                            let place = Place { walk: Some(walk.anew()), promised: false, ..place };
                            let mut tx = self.engine.db.begin().await?;
                            sweep::keep(&mut tx, self.definition.name(), &place, 1).await?;
                            tx.commit().await?;
                            return Ok(Outcome::Continue { progress: None });
                        }
                        Err(failure) => return self.broken_off(Place { walk: Some(walk), ..place }, &failure).await,
                    }
                }
                None => self.rows(place).await?,
            };
            match next {
                Next::Go(next) => place = *next,
                Next::End(_) => return Ok(Outcome::Done { reason: None }),
            }
        }
        Ok(Outcome::Continue { progress: None })
    }

    /// Goes on with the sweep that is under way, or begins one. With it, the pages that were asked for today.
    async fn begin(&self) -> Result<(Place, i32), sqlx::Error> {
        let sync = self.definition.name();
        let mut tx = self.engine.db.begin().await?;
        let cursor = sweep::load(&mut tx, sync).await?;
        let place = match cursor.place {
            Some(place) => place,
            None => {
                let run_id = store::run(&mut tx, sync, &self.engine.worker).await?;
                sqlx::query!("delete from sluice.drift where sync = $1", sync).execute(&mut tx).await?;
                let listed = listing::is_listed(self.definition) || self.definition.sync.direction.pulls();
                let walk = listed.then(|| Walk::new(run_id, None, None, cursor.now));
                let place =
                    Place { run_id, began: cursor.now, walk, promised: false, incomplete: None, held: false, drift: 0, after: None };
                sweep::keep(&mut tx, sync, &place, 0).await?;
                place
            }
        };
        tx.commit().await?;
        Ok((place, cursor.calls))
    }

    /// The day's calls are spent: the sweep goes on tomorrow.
    async fn spent(&self, calls: i32) -> Result<Option<Outcome>, sqlx::Error> {
        let Some(Reconcile { max_calls_per_day, .. }) = self.definition.sync.reconcile else { return Ok(None) };
        if i64::from(calls) < i64::from(max_calls_per_day) {
            return Ok(None);
        }
        let mut tx = self.engine.db.begin().await?;
        let cursor = sweep::load(&mut tx, self.definition.name()).await?;
        tx.commit().await?;
        let after = Duration::try_from_secs_f64(cursor.day_ends_in.max(0.0)).unwrap_or_default() + Duration::from_secs(1);
        Ok(Some(snooze(
            after,
            &format!("the {max_calls_per_day} calls of [syncs.{}.reconcile] are spent until midnight UTC", self.definition.name()),
        )))
    }

    /// Stores what a page, or a part of a bulk read's file, shows and asks for runs of what differs. It was asked for after `now`; `calls` is what the day has
    /// spent so far.
    async fn store(&self, mut place: Place, walk: Walk, listing: Listing, (now, calls): (DateTime<Utc>, i32)) -> Result<Next, sqlx::Error> {
        let (definition, sync) = (self.definition, self.definition.name());
        if place.incomplete.is_none() {
            place.incomplete = incomplete(&place, &walk, &listing);
        }
        let (more, of_file) = (listing.more, listing.of_file.is_some());
        let dated = listing.of_file.as_ref().map_or(self.session.dated(), |file| Some(file.dated));
        let mut tx = self.engine.db.begin().await?;
        let turned = if more && !of_file { self.turned(&mut tx, &walk, &listing.rows, (now, calls)).await? } else { None };
        let (rows, timed) = listing::identified(definition, listing.rows);
        // a record that moved within the list while it was read counts once
        let rows: BTreeMap<String, Value> =
            rows.into_iter().filter(|(id, row)| !listing::seen_before(definition, &walk, id, row)).collect();
        let ids: Vec<String> = rows.keys().cloned().collect();
        let known = links::load_by_id(&mut tx, sync, &ids).await?;
        let pulls = definition.sync.direction.pulls();
        let (mut seen, mut verified, mut sightings) = (Vec::new(), Vec::new(), Vec::new());
        let mut pairs = Vec::new();
        let mut sums = Sums { total: i64::try_from(rows.len()).unwrap_or(i64::MAX), calls: i64::from(!of_file), ..Sums::default() };
        for (id, row) in rows {
            let link = known.get(&id);
            seen.extend(link.map(|link| link.key.clone()));
            // Nobody reads the record again here, and the row need not show what we wrote meanwhile: the next sweep's will.
            if !pulls && link.is_some_and(|link| link.was_written_after(now)) {
                continue;
            }
            // a file shows less of a lookup than what a write is compared with later
            if let Some(link) = link.filter(|_| !pulls && !of_file) {
                pairs.extend(listing::confirmed(definition, &row, link).map(|(was, is)| (link.key.clone(), was, is)));
            }
            match (listing::compare(definition, &row, link), link) {
                (Compared::Equal, link) => verified.extend(link.map(|link| link.key.clone())),
                (Compared::Outdated, _) => {}
                (Compared::Differs { complete, fields }, link) if pulls && (link.is_some() || self.takes_strangers()) => {
                    place.drift += i64::from(link.is_none() || !fields.is_empty());
                    let sighting =
                        Sighting { record: Some(row), complete, seen_at: now, dated, age: Duration::ZERO, run_id: Some(place.run_id) };
                    sightings.push((id, sighting));
                }
                (Compared::Differs { fields, .. }, Some(link)) if !pulls => {
                    place.drift += 1;
                    sums.messages.push(differs(link, &fields));
                    let repaired = self.repaired(link, &fields).map(|(was, is)| (link.key.clone(), was, is));
                    sums.updated += i64::from(repaired.is_some());
                    pairs.extend(repaired);
                }
                (Compared::Differs { .. }, _) => {}
            }
        }
        let wanted: Vec<String> = sightings.iter().map(|(id, _)| id.clone()).collect();
        // what is looked at is told by whoever does; of everything else nothing is done
        sums.unchanged = sums.total - sums.updated - i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        sighting::found(&mut tx, sync, place.run_id, &sightings).await?;
        listing::ask_for_runs(&mut tx, sync, &wanted, &self.work.batch.lane).await?;
        store::agree(&mut tx, sync, &pairs).await?;
        store::looked_at(&mut tx, sync, place.began, &seen, &verified).await?;
        place.promised = more;
        let after = listing.of_file.map(|file| (file.said, file.after));
        if let Some((said, after)) = after {
            sums.messages.extend(said);
            place.walk = after.map(|bulk| walk.with(bulk));
        } else if more {
            place.walk = Some(listing::following(definition, &walk, timed, listing.next, turned));
        }
        if !more {
            sums.messages.extend(self.missing(&mut tx, &mut place).await?);
        }
        note_run(&mut tx, place.run_id, &sums).await?;
        let next = self.end_of_list(&mut tx, place, i32::from(!of_file)).await?;
        tx.commit().await?;
        self.engine.wake.notify_waiters();
        Ok(next)
    }

    async fn end_of_list(&self, tx: &mut sluice_core::db::Tx, place: Place, calls: i32) -> Result<Next, sqlx::Error> {
        sweep::keep(tx, self.definition.name(), &place, calls).await?;
        if place.walk.is_none() && !self.definition.sync.direction.pushes() {
            self.end(tx, &place).await?;
            return Ok(Next::End(Box::new(place)));
        }
        Ok(Next::Go(Box::new(place)))
    }

    /// The sweep is over.
    async fn end(&self, tx: &mut sluice_core::db::Tx, place: &Place) -> Result<(), sqlx::Error> {
        let complete = place.incomplete.is_none() && !place.held;
        sweep::end(tx, self.definition.name(), place, complete).await?;
        store::end_run(tx, place.run_id, if place.held { "held" } else { "done" }).await
    }

    /// Whether a Zoho record without row may come to one.
    fn takes_strangers(&self) -> bool {
        let sync = &self.definition.sync;
        sync.inserts || !sync.match_on.is_empty() || sync.writeback.id.is_some()
    }

    async fn broken_off(&self, place: Place, failure: &Ended) -> Result<Outcome, sqlx::Error> {
        if let Some(letter) = listing::refused(failure) {
            return Ok(Outcome::Dead(Box::new(letter)));
        }
        if let Ended::Zoho(..) = failure {
            let mut tx = self.engine.db.begin().await?;
            sweep::keep(&mut tx, self.definition.name(), &place, 1).await?;
            tx.commit().await?;
        }
        Ok(ended(self.engine, self.work, self.session, self.slot, failure, false).0)
    }

    async fn give_up(&self, why: &str) -> Result<(), sqlx::Error> {
        let sync = self.definition.name();
        let mut tx = self.engine.db.begin().await?;
        store::fail_run(&mut tx, sync, why).await?;
        sweep::give_up(&mut tx, sync).await?;
        tx.commit().await
    }
}

/// Why a page shows that the list is not complete.
fn incomplete(place: &Place, walk: &Walk, listing: &Listing) -> Option<String> {
    let rows = listing.rows.len();
    if let Some(file) = &listing.of_file {
        file.short.as_ref().map(|why| format!("{why}: what is missing in the list was not asked for"))
    } else if listing.short {
        Some(format!("a page of Zoho's list had only {rows} rows and said that more follow: what is missing in the list was not asked for"))
    } else if place.promised && rows == 0 {
        Some(format!(
            "page {} of Zoho's list was empty, though it had been announced: what is missing in the list was not asked for",
            walk.page
        ))
    } else {
        None
    }
}

/// For people: what Zoho says, and what was agreed on.
fn differs(link: &sluice_sync::link::Link, fields: &std::collections::BTreeMap<String, serde_json::Value>) -> String {
    let one = |(field, theirs): (&String, &serde_json::Value)| {
        let agreed = link.fields.get(field).map_or(&serde_json::Value::Null, |pair| &pair.zoho);
        format!("{field} is {theirs} in Zoho, not {agreed}")
    };
    let fields: Vec<String> = fields.iter().take(5).map(one).collect();
    format!("{} ({}): {}", link.key, link.zoho_id.as_deref().unwrap_or("no Zoho record"), fields.join(", "))
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    #[test]
    fn a_list_is_complete_only_if_every_page_keeps_what_it_and_the_one_before_promised() {
        let walk = Walk { page: 3, ..Walk::new(1, None, None, Utc::now()) };
        let place =
            |promised| Place { run_id: 1, began: walk.began, walk: None, promised, incomplete: None, held: false, drift: 0, after: None };
        let listing = |rows: usize, more, short| Listing { rows: vec![Value::Null; rows], more, short, next: None, of_file: None };
        for (promised, page, complete) in [
            (true, listing(200, true, false), true),
            (true, listing(7, false, false), true),
            (false, listing(0, false, false), true), // an empty module, or a lie: then much is missing
            (true, listing(180, true, true), false),
            (true, listing(0, false, false), false),
        ] {
            let told = incomplete(&place(promised), &walk, &page);
            assert_eq!(told.is_none(), complete, "{told:?}: {} rows, more {}, promised {promised}", page.rows.len(), page.more);
        }
    }
}
