//! The outermost layer: whatever became of a batch, also a panic or a time-out, is settled here, in one transaction, before apalis
//! counts it as ended. Retries its own write until the lease is gone.

mod pulls;
mod store;

pub(crate) use pulls::note_run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use apalis_core::error::{AbortError, BoxDynError};
use apalis_core::task::Task;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use sluice_queue::outcome::{Class, Letter, Retry};
use sluice_queue::settle::Create;
use sluice_queue::{Outcome, Settlement, store as queue};
use sluice_sync::link;
use sluice_sync::link::store::Agreed;
use tower::{Layer, Service};

use crate::engine::Engine;
use crate::local_write;
use crate::outcome::{LATE_WRITE, halved};
use crate::work::{Handled, Work, Writeback};

#[derive(Debug, Clone)]
pub(crate) struct SettleLayer(Arc<Engine>);

impl SettleLayer {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self(engine)
    }
}

impl<S> Layer<S> for SettleLayer {
    type Service = SettleService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SettleService { inner, engine: self.0.clone() }
    }
}

#[derive(Debug)]
pub(crate) struct SettleService<S> {
    inner: S,
    engine: Arc<Engine>,
}

impl<S> Service<Task<Work>> for SettleService<S>
where
    S: Service<Task<Work>, Response = Handled>,
    S::Error: Into<BoxDynError>,
    S::Future: Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Work>) -> Self::Future {
        let work = task.args.clone();
        let engine = self.engine.clone();
        let run = self.inner.call(task);
        async move {
            let started = Instant::now();
            let handled = match run.await.map_err(Into::into) {
                Ok(handled) => handled,
                Err(error) => broken(&engine, &work, &error),
            };
            engine.settle(&work, handled, started.elapsed()).await;
            engine.wake.notify_waiters(); // the records are free again, and a place may be
            Ok(())
        }
        .boxed()
    }
}

/// The handler panicked or ran out of time. What was sent is known from the calls; nothing else is.
fn broken(engine: &Engine, work: &Work, error: &BoxDynError) -> Handled {
    let panicked = error.downcast_ref::<AbortError>().is_some();
    let alone = work.batch.slots.len() == 1;
    let sent = work.calls.made() > 0;
    tracing::error!(token = work.batch.token, sync = work.batch.sync, panicked, %error, "a batch's run broke off");
    let settlements = work.batch.slots.iter().map(|slot| {
        let hold = (sent && matches!(work.batch.kind.as_str(), "push" | "pull")).then(|| engine.request_timeout() + LATE_WRITE);
        let outcome = if sent && work.batch.kind == "call" && slot.args.as_ref().is_some_and(|a| a["method"] != "GET") {
            Outcome::Dead(Box::new(
                Letter::new(Class::Unknown, format!("broke off while the request was under way: {error}"))
                    .hint("look in Zoho, then requeue or discard"),
            ))
        } else if panicked && alone && slot.panics >= 1 {
            Outcome::Dead(Box::new(
                Letter::new(Class::Panic, format!("twice, alone in its batch: {error}"))
                    .hint("this is a bug: please report it with this letter"),
            ))
        } else if alone {
            let retry = Retry {
                after: engine.policy.pause(slot.tries, None, &mut rand::rng()),
                hold,
                unbooked: !panicked,
                panicked,
                message: error.to_string(),
                ..Retry::default()
            };
            engine.policy.decide(slot, retry)
        } else {
            match halved(work.batch.slots.len(), &error.to_string()) {
                Outcome::Retry(retry) => Outcome::Retry(Retry { hold, ..retry }),
                other => other,
            }
        };
        Settlement {
            create: if sent { Create::Doubt } else { Create::None },
            calls: work.calls.made(),
            ..Settlement::new(slot.id, outcome)
        }
    });
    Handled { settlements: settlements.collect(), ..Handled::default() }
}

impl Engine {
    /// Settles until it is done or the lease is gone; then somebody else has the records.
    async fn settle(&self, work: &Work, mut handled: Handled, ran: Duration) {
        let ms = u32::try_from(ran.as_millis()).ok();
        for settlement in &mut handled.settlements {
            settlement.ms = settlement.ms.or(ms);
        }
        let mut pause = Duration::from_millis(50);
        loop {
            match self.settle_once(work, &handled).await {
                Ok(true) => break,
                Ok(false) => {
                    tracing::warn!(token = work.batch.token, sync = work.batch.sync, "the lease was lost; nothing was settled");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, token = work.batch.token, "settle failed; trying again");
                    if let Some(link::store::Error::Taken { detail }) = error.downcast_ref() {
                        self.part_the_taken(work, &mut handled, detail).await;
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
            }
        }
        log(work, &handled);
        self.wake_others(work, &handled).await;
    }

    async fn settle_once(&self, work: &Work, handled: &Handled) -> anyhow::Result<bool> {
        let mut told = BTreeMap::new();
        let mut tx = self.db.begin().await?;
        if !queue::settle(&mut tx, work.batch.token, &self.worker, &work.calls.report(), &handled.settlements).await? {
            return Ok(false);
        }
        if !work.batch.sync.is_empty() {
            let sync = &work.batch.sync;
            if !handled.agreed.is_empty() {
                link::store::save(&mut tx, sync, &handled.agreed).await?;
                store::look_again_later(&mut tx, sync, &handled.agreed).await?;
            }
            if !handled.unlinked.is_empty() {
                link::store::remove(&mut tx, sync, &handled.unlinked).await?;
            }
            for key in &handled.looked_again {
                link::store::looked_again(&mut tx, sync, key).await?;
            }
            if !handled.gone.is_empty() {
                link::store::gone(&mut tx, sync, &handled.gone).await?;
            }
            if let Some(definition) = self.definition(sync) {
                local_write::leave(&mut tx, &definition, &handled.writebacks).await?;
                told = pulls::leave(&mut tx, sync, handled, &work.batch.lane).await?;
            }
            store::count_avoided(&mut tx, sync, work, handled).await?;
            store::push_parents(&mut tx, &handled.parents, &work.batch.lane).await?;
        }
        if let Some(result) = &handled.call_result {
            store::keep_call_result(&mut tx, result).await?;
        }
        if let Some(definition) = self.definition(&work.batch.sync) {
            pulls::use_up_approvals(&mut tx, &definition, handled).await?;
            pulls::leave_pulls(&mut tx, &definition, &handled.pulls, &told).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// A Zoho id that we were about to link belongs to another row: two rows are one record over there, and a person must say which. The
    /// others of the batch are settled as they are. Where the write of the row that lost has changed the record (CRM's upsert takes what
    /// matches), the link of the row that it belongs to says so: what differs is then an edit of that row, and not one of Zoho's.
    async fn part_the_taken(&self, work: &Work, handled: &mut Handled, detail: &str) {
        let ids: Vec<String> = handled.agreed.iter().map(|a| a.zoho_id.clone()).collect();
        let mut owner = match self.linked_keys(&work.batch.sync, &ids).await {
            Ok(owners) => owners,
            Err(error) => {
                tracing::warn!(%error, "could not ask whose the Zoho records are");
                return;
            }
        };
        let mut losers = BTreeMap::new();
        let mut overwritten: BTreeMap<String, Agreed> = BTreeMap::new();
        handled.agreed.retain(|agreed| {
            let owner = owner.entry(agreed.zoho_id.clone()).or_insert_with(|| agreed.key.clone());
            let mine = *owner == agreed.key;
            if !mine {
                losers.insert(agreed.key.clone(), (agreed.zoho_id.clone(), owner.clone()));
                overwritten.extend(agreed.written.then(|| (owner.clone(), agreed.clone())));
            }
            mine
        });
        for agreed in &mut handled.agreed {
            if let Some(last) = overwritten.get(&agreed.key) {
                agreed.fields.clone_from(&last.fields); // it rode in the same call
            }
        }
        if let Err(error) = store::overwritten(&self.db, &work.batch.sync, &overwritten, &work.batch.lane).await {
            tracing::warn!(%error, "what was written over other rows' records could not be noted");
            return;
        }
        tracing::warn!(?losers, detail, "Zoho records are linked to other rows already");
        for slot in &work.batch.slots {
            let Some((zoho_id, owner)) = losers.get(&slot.key) else { continue };
            let message = format!("its Zoho record {zoho_id} is linked to {owner} already");
            for settlement in handled.settlements.iter_mut().filter(|s| s.slot == slot.id) {
                let letter = Letter::new(Class::Duplicate, &*message).hint("two rows stand for one Zoho record: merge them, then requeue");
                settlement.outcome = Outcome::Dead(Box::new(letter));
                settlement.create = Create::Settled;
            }
            for writeback in handled.writebacks.iter_mut().filter(|w| w.key == slot.key) {
                *writeback = Writeback { key: slot.key.clone(), status: "failed", zoho_id: None, error: Some(message.clone()) };
            }
        }
    }

    async fn linked_keys(&self, sync: &str, ids: &[String]) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let mut tx = self.db.begin().await?;
        link::store::keys_of(&mut tx, sync, ids).await
    }

    /// Children that waited for these records look again: their parent is linked now, or dead.
    async fn wake_others(&self, work: &Work, handled: &Handled) {
        let sync = &work.batch.sync;
        if sync.is_empty() {
            return;
        }
        let linked: BTreeSet<&str> = handled.agreed.iter().map(|a| a.key.as_str()).collect();
        let dead: Vec<String> = work
            .batch
            .slots
            .iter()
            .filter(|s| handled.settlements.iter().any(|o| o.slot == s.id && matches!(o.outcome, Outcome::Dead(_))))
            .map(|s| s.key.clone())
            .collect();
        let linked: Vec<String> = linked.into_iter().map(str::to_owned).collect();
        for (keys, are_linked) in [(linked, true), (dead, false)] {
            if keys.is_empty() {
                continue;
            }
            if let Err(error) = queue::wake_waiting(&self.db, sync, &keys, are_linked).await {
                tracing::warn!(%error, "waiting records were not woken; the sweep will");
            }
        }
        if !(handled.writebacks.is_empty() && handled.pulls.is_empty()) {
            self.written.notify_one();
        }
    }
}

/// A failure is logged once, here.
fn log(work: &Work, handled: &Handled) {
    for settlement in &handled.settlements {
        let key = work.batch.slots.iter().find(|s| s.id == settlement.slot).map_or("", |s| s.key.as_str());
        let sync = work.batch.sync.as_str();
        match &settlement.outcome {
            Outcome::Dead(l) => {
                tracing::warn!(sync, key, class = l.class.as_str(), code = l.code, field = l.field, message = l.message, "dead letter")
            }
            Outcome::Retry(r) => tracing::info!(sync, key, message = r.message, counts = r.counts, "will be tried again"),
            Outcome::Done { .. } | Outcome::Continue { .. } | Outcome::Snooze { .. } | Outcome::Wait { .. } => {
                tracing::debug!(sync, key, outcome = settlement.outcome.as_str(), "settled");
            }
        }
    }
}
