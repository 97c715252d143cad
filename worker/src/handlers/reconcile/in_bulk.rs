//! A sweep whose list is read to its end by a bulk job.

use std::ops::ControlFlow;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::db::Tx;
use sluice_queue::Outcome;
use sluice_sync::bulk::Bulk;
use sluice_sync::cursor::Walk;
use sluice_sync::sweep::{self, Place};

use super::{Next, Sweep, store};
use crate::handlers::bulk::{self, Step};
use crate::handlers::snooze;
use crate::settle::note_run;
use crate::work::Sums;

impl Sweep<'_> {
    /// A bulk read of what follows the page, if the walk turns to one.
    pub(super) async fn turned(
        &self,
        tx: &mut Tx,
        walk: &Walk,
        page: &[Value],
        (now, calls): (DateTime<Utc>, i32),
    ) -> Result<Option<Bulk>, sqlx::Error> {
        let linked = if bulk::may_know(self.definition, walk) { bulk::linked(tx, self.definition.name()).await? } else { 0 };
        let left = self.definition.sync.reconcile.map(|reconcile| i64::from(reconcile.max_calls_per_day) - i64::from(calls));
        Ok(bulk::begin(self.definition, walk, page, linked, left, now))
    }

    /// Goes on with the bulk read that the walk waits for.
    pub(super) async fn in_bulk(&self, mut place: Place, walk: Walk) -> Result<ControlFlow<Outcome, Next>, sqlx::Error> {
        let Some(bulk) = walk.bulk().cloned() else {
            return Ok(ControlFlow::Continue(Next::Go(Box::new(Place { walk: Some(walk), ..place }))));
        };
        let made = self.work.calls.made();
        let now = store::now(&self.engine.db).await?;
        let step = match bulk::step(self.engine, self.session, self.definition, &bulk, now).await {
            Ok(step) => step,
            Err(failure) => return Ok(ControlFlow::Break(self.broken_off(Place { walk: Some(walk), ..place }, &failure).await?)),
        };
        let calls = self.work.calls.made() - made;
        let spent = bulk::spent(&bulk, &step, calls);
        let mut tx = self.engine.db.begin().await?;
        let mut sums = Sums { calls: i64::from(calls), ..Sums::default() };
        let chunks = match step {
            Step::Keep { bulk, pause, said } => {
                sums.messages.extend(said);
                place.walk = Some(walk.with(bulk));
                sweep::keep(&mut tx, self.definition.name(), &place, spent).await?;
                note_run(&mut tx, place.run_id, &sums).await?;
                tx.commit().await?;
                return Ok(match pause {
                    Some((after, why)) => ControlFlow::Break(snooze(after, why)),
                    None => ControlFlow::Continue(Next::Go(Box::new(place))),
                });
            }
            Step::Rows(chunks) => chunks,
        };
        place.walk = Some(walk);
        sweep::keep(&mut tx, self.definition.name(), &place, spent).await?;
        note_run(&mut tx, place.run_id, &sums).await?;
        tx.commit().await?;
        self.rows_of(place, chunks).await.map(ControlFlow::Continue)
    }

    async fn rows_of(&self, mut place: Place, mut chunks: bulk::Chunks) -> Result<Next, sqlx::Error> {
        while let Some(chunk) = chunks.next().await {
            let Some(walk) = place.walk.take() else { break };
            let seen_at = chunk.seen_at;
            match self.store(place, walk, chunk.into(), (seen_at, 0)).await? {
                Next::Go(next) => place = *next,
                end @ Next::End(_) => return Ok(end),
            }
        }
        Ok(Next::Go(Box::new(place)))
    }
}
