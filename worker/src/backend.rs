//! Our queue as an apalis backend: one task is one batch, and a batch is claimed only when a handler is free for it.
//!
//! It never returns an error: apalis takes one for the end of the worker and drops what runs. A passing fault is logged and waited out in
//! [`Engine::find_work`], which is its own task because apalis does not poll a backend while the service is busy or draining.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use apalis_core::backend::finalize::Ephemeral;
use apalis_core::backend::{Backend, BackendConfig};
use apalis_core::task::Task;
use apalis_core::task::builder::TaskBuilder;
use apalis_core::task::task_id::TaskId;
use apalis_core::worker::context::WorkerContext;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::settle::SettleLayer;
use crate::work::Work;

/// Never happens; apalis asks for a type.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Never {}

/// The backend. Dropping it stops the search for work; what was found meanwhile is given back.
#[derive(Debug)]
pub(crate) struct QueueBackend {
    engine: Arc<Engine>,
    stop: CancellationToken,
    search: Option<Search>,
    returning: Option<Returning>,
}

#[derive(Debug)]
struct Search {
    found: oneshot::Receiver<Work>,
    task: JoinHandle<()>,
}

struct Returning(BoxFuture<'static, ()>);

impl std::fmt::Debug for Returning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Returning")
    }
}

impl QueueBackend {
    pub(crate) fn new(engine: Arc<Engine>) -> Self {
        Self { engine, stop: CancellationToken::new(), search: None, returning: None }
    }

    fn start(&self) -> Search {
        let (hand_over, found) = oneshot::channel();
        let task = tokio::spawn(self.engine.clone().find_work(self.stop.clone(), hand_over));
        Search { found, task }
    }
}

impl Drop for QueueBackend {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Backend for QueueBackend {
    type Task = Task<Work>;
    type Error = Never;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Never>> {
        Poll::Ready(Ok(()))
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Never>>> {
        loop {
            let mut search = match self.search.take() {
                Some(search) => search,
                None => self.start(),
            };
            match Pin::new(&mut search.found).poll(cx) {
                Poll::Pending => {
                    self.search = Some(search);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(work)) => {
                    // apalis wants an id that no other task has; tokens are positive and never used twice
                    let id = TaskId::from_int(work.batch.token.unsigned_abs());
                    return Poll::Ready(Some(Ok(TaskBuilder::new(work).task_id(id).build())));
                }
                // The search ended without a batch: it was told to stop, or it panicked. Another one finds out.
                Poll::Ready(Err(_)) if self.stop.is_cancelled() => return Poll::Pending,
                Poll::Ready(Err(_)) => {}
            }
        }
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Never>> {
        self.stop.cancel();
        if let Some(search) = &mut self.search {
            let _ = ready!(Pin::new(&mut search.task).poll(cx));
        }
        if let Some(Search { mut found, .. }) = self.search.take()
            && let Ok(work) = found.try_recv()
        {
            let engine = self.engine.clone();
            self.returning = Some(Returning(async move { engine.give_back(&work).await }.boxed()));
        }
        if let Some(Returning(giving_back)) = &mut self.returning {
            ready!(giving_back.as_mut().poll(cx));
            self.returning = None;
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for QueueBackend {
    type Args = Work;
    type Id = u64;
    type Kind = Ephemeral; // used as it is: a row that cannot be read is ours to bury, not apalis's to die of
    type Config = Arc<Engine>;
    type Layer = SettleLayer;

    fn config(&self) -> &Arc<Engine> {
        &self.engine
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> SettleLayer {
        SettleLayer::new(self.engine.clone())
    }
}
