//! What is left of a long list of CRM's, read by a bulk job instead of page by page: for polls and sweeps alike. When, and at what price, is said in
//! [`sluice_sync::bulk`]; how the file is read, in [`file`].
//!
//! A bulk read is never needed: whatever is refused, lost, late or not understood, the walk goes on by pages where it was. So nothing here fails a run
//! or pauses a sync; and what the walk does next is always stored before it is done.

mod file;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;
use sluice_core::config::sync::{BulkRead, Product};
use sluice_core::db::Tx;
use sluice_queue::calls::NoGrant;
use sluice_sync::bulk::{self, Bulk, File, sample::Sample};
use sluice_sync::cursor::Walk;
use sluice_sync::definition::Definition;
use sluice_zoho::crm::bulk::{self as zoho, Query, State};
use sluice_zoho::{Error, NotSent, cost, crm, finance};

use super::pull::crm_fields;
use crate::engine::Engine;
use crate::outcome::{self, Stops};
use crate::session::{Ended, Session};

pub(super) use file::{Chunk, Chunks};

/// The longest that a file, or a place in the budget for its job, is waited for.
const PATIENCE: TimeDelta = TimeDelta::minutes(30);
/// Between two looks at a job: at first, and at most. Each look costs a credit.
const FIRST_LOOK: Duration = Duration::from_secs(5);
const LAST_LOOK: Duration = Duration::from_secs(60);
/// Jobs that are asked for in vain for one file: their answers were lost, or their files are there no more.
const MOST_LOST: u32 = 2;
/// Credits of a sweep's day besides those of the job: for its state and its file.
const LOOKS: i64 = 10;

/// What a bulk read does next.
pub(super) enum Step {
    /// It is at another place, which is to be kept. `pause`: what it waits for, and for how long.
    Keep { bulk: Bulk, pause: Option<(Duration, &'static str)>, said: Option<String> },
    /// The rows of the file, in chunks.
    Rows(Chunks),
}

/// A bulk read of what follows this page, if the walk turns to one. `linked`: the records that a walk over everything is sure to meet. `calls_left`: of a
/// sweep's day.
pub(super) fn begin(
    definition: &Definition,
    walk: &Walk,
    page: &[Value],
    linked: i64,
    calls_left: Option<i64>,
    now: DateTime<Utc>,
) -> Option<Bulk> {
    let affordable = calls_left.is_none_or(|left| left >= i64::from(bulk::COST) + LOOKS);
    if !applies(definition, walk) || !affordable || !bulk::turns(definition.sync.bulk_read, walk.pages + 1, linked) {
        return None;
    }
    let since = page.iter().filter_map(|row| definition.module.modified_at(row)).min()?;
    Some(Bulk::new(since, Sample::of(definition, &fields(definition), page), now))
}

/// Whether a page of this walk can be followed by a bulk read at all.
pub(super) fn applies(definition: &Definition, walk: &Walk) -> bool {
    definition.module.product == Product::Crm && definition.sync.bulk_read != BulkRead::Never && !walk.deleted && walk.bulk.is_none()
}

/// Whether a walk may know beforehand how long it is: from its first page, if it looks at everything.
pub(super) fn may_know(definition: &Definition, walk: &Walk) -> bool {
    applies(definition, walk) && definition.sync.bulk_read == BulkRead::Auto && walk.from.is_none() && walk.pages == 0
}

/// The records of the sync that are linked, as they were counted last.
pub(super) async fn linked(tx: &mut Tx, sync: &str) -> Result<i64, sqlx::Error> {
    let counted = sqlx::query_scalar!(r#"select greatest(linked, 0) as "linked!" from sluice.sync_counter where sync = $1"#, sync);
    Ok(counted.fetch_optional(tx).await?.unwrap_or(0))
}

/// The credits that a step took, of a sweep's day.
pub(super) fn spent(before: &Bulk, step: &Step, calls: u16) -> i32 {
    let made_a_job = matches!(step, Step::Keep { bulk, .. } if bulk.job.is_some() && before.job.is_none());
    if made_a_job { i32::try_from(bulk::COST).unwrap_or(i32::MAX) } else { i32::from(calls) }
}

/// Goes on with a bulk read by one call at most.
///
/// # Errors
/// What would end a page's call likewise, and is nothing of the bulk read's: no grant, a limit, a token.
pub(super) async fn step(
    engine: &Engine,
    session: &Session<'_>,
    definition: &Definition,
    bulk: &Bulk,
    now: DateTime<Utc>,
) -> Result<Step, Ended> {
    let read = Read { engine, session, definition, bulk, now };
    match &bulk.job {
        None if bulk.lost >= MOST_LOST => Ok(read.by_pages("its jobs, or their files, were lost".to_owned())),
        None => read.ask().await,
        Some(job) => match &job.file {
            None => read.look(&job.id).await,
            Some(file) => read.fetch(&job.id, file).await,
        },
    }
}

/// The fields that are asked for, as of a list.
fn fields(definition: &Definition) -> Vec<String> {
    crm_fields(definition).into_iter().take(crm::MAX_FIELDS).collect()
}

struct Read<'a> {
    engine: &'a Engine,
    session: &'a Session<'a>,
    definition: &'a Definition,
    bulk: &'a Bulk,
    now: DateTime<Utc>,
}

impl Read<'_> {
    /// Asks for a job.
    async fn ask(&self) -> Result<Step, Ended> {
        let fields = fields(self.definition);
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let query = match &self.bulk.token {
            Some(token) => Query::Following(token),
            None => Query::Since { module: &self.definition.module.name, fields: &fields, since: self.bulk.since },
        };
        match self.session.ask(zoho::COST, async |g, c, t| zoho::create(g, c, t, query).await).await {
            Ok(job) => Ok(self.later(self.bulk.asked(job.id, self.now, job.created_time), "Zoho prepares a bulk read")),
            // a page costs one credit and may have its grant; this has to wait until there are fifty
            Err(Ended::NoGrant(NoGrant::Later)) => Ok(self.later(self.bulk.clone(), "the budget has no 50 credits for a bulk read now")),
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::OutcomeUnknown { .. }) => {
                Ok(self.later(self.bulk.lost_one(), "the answer to a bulk read was lost"))
            }
            Err(failure) => self.refused(failure),
        }
    }

    /// Asks how far the job is.
    async fn look(&self, job: &str) -> Result<Step, Ended> {
        match self.session.ask(cost::Cost::ONE, async |g, c, t| zoho::state(g, c, t, job).await).await {
            Ok(State::Preparing) => Ok(self.later(self.bulk.clone(), "Zoho prepares a bulk read")),
            Ok(State::Failed { code }) => Ok(self.by_pages(format!("Zoho's job failed ({code})"))),
            Ok(State::Completed(file)) if file.more && file.next.is_none() => {
                Ok(self.by_pages("Zoho left records out and did not say how to ask for them".to_owned()))
            }
            Ok(State::Completed(file)) => {
                let mut bulk = Bulk { waits: 0, wanted_at: self.now, ..self.bulk.clone() };
                if let Some(job) = &mut bulk.job {
                    job.file = Some(File { count: file.count, next: file.next.filter(|_| file.more) });
                }
                Ok(Step::Keep { bulk, pause: None, said: None })
            }
            Err(failure) => self.refused(failure),
        }
    }

    /// Reads the file, and finds out what of it can be believed.
    async fn fetch(&self, job: &str, file: &File) -> Result<Step, Ended> {
        let bytes = match self.session.ask(cost::Cost::ONE, async |g, c, t| zoho::result(g, c, t, job).await).await {
            Ok(finance::File::Whole { bytes, .. }) => bytes,
            Ok(finance::File::TooLarge) => {
                return Ok(self.by_pages(format!("the file is larger than {} MiB", zoho::MAX_FILE_BYTES >> 20)));
            }
            Err(failure) => return self.refused(failure),
        };
        let (sample, fields) = (self.bulk.sample.clone(), fields(self.definition));
        let surveyed = match file::survey(bytes, sample, fields, self.bulk.believed.clone()).await {
            Ok(surveyed) => surveyed,
            Err(why) => return Ok(self.by_pages(why)),
        };
        let (setting, pulls) = (self.definition.sync.bulk_read, self.definition.sync.direction.pulls());
        let refuted = surveyed.refuted();
        if !refuted.is_empty() {
            let linked = match self.linked().await {
                Ok(linked) => linked,
                Err(error) => return Err(Ended::NoGrant(NoGrant::Ledger(error))),
            };
            if !bulk::is_worth_it(setting, false, pulls, surveyed.rows, linked) {
                return Ok(self.by_pages(format!(
                    "its file writes {} otherwise than the list does, so that most records would be read again",
                    refuted.join(", ")
                )));
            }
        }
        let mut said = Vec::new();
        if !refuted.is_empty() {
            said.push(format!(
                "a bulk read's file writes {} otherwise than the list does: of it these fields are not believed",
                refuted.join(", ")
            ));
        }
        let short =
            (surveyed.rows != file.count).then(|| format!("a bulk read's file has {} rows, and Zoho says {}", surveyed.rows, file.count));
        said.extend(short.clone());
        Ok(Step::Rows(surveyed.chunks(self.bulk, said, short, self.now)))
    }

    async fn linked(&self) -> Result<i64, sqlx::Error> {
        let mut tx = self.engine.db.begin().await?;
        let linked = linked(&mut tx, self.definition.name()).await?;
        tx.commit().await?;
        Ok(linked)
    }

    /// A refusal that concerns the bulk read alone ends it; what concerns every call is the caller's.
    fn refused(&self, failure: Ended) -> Result<Step, Ended> {
        let Ended::Zoho(error, _) = &failure else { return Err(failure) };
        let token = || outcome::stops(error, self.session.token_replaces_refused()) == Some(Stops::Token);
        match &**error {
            Error::RateLimited { .. } | Error::NotSent(NotSent::Late { .. }) => Err(failure),
            Error::Unauthorized { .. } if token() => Err(failure),
            Error::NotFound { .. } if self.bulk.job.is_some() => {
                Ok(self.later(self.bulk.lost_one(), "a bulk read's file is there no more"))
            }
            Error::Unavailable { .. } => Ok(self.later(self.bulk.clone(), "Zoho did not answer to a bulk read")),
            error if zoho::lacks_scope(error) => Ok(self.by_pages(format!(
                "{error}. Give the token the scope ZohoCRM.bulk.READ (sluice auth {}), or set bulk_read = \"never\" in [syncs.{}]",
                self.definition.sync.connection,
                self.definition.name()
            ))),
            error => Ok(self.by_pages(error.to_string())),
        }
    }

    /// At this place, after a pause that grows; unless it has been waited for long enough. So what was put off, however long ago, is tried once more.
    fn later(&self, bulk: Bulk, why: &'static str) -> Step {
        if self.now - bulk.wanted_at > PATIENCE {
            return self.by_pages(format!("no file came within {} minutes", PATIENCE.num_minutes()));
        }
        let pause = (FIRST_LOOK * 2_u32.saturating_pow(bulk.waits.min(10))).min(LAST_LOOK);
        Step::Keep { bulk: Bulk { waits: bulk.waits + 1, ..bulk }, pause: Some((pause, why)), said: None }
    }

    fn by_pages(&self, why: String) -> Step {
        tracing::warn!(sync = self.definition.name(), why, "a bulk read came to nothing");
        let said = format!("the list was read by pages to its end, not by a bulk read: {why}");
        Step::Keep { bulk: self.bulk.given_up(), pause: None, said: Some(said) }
    }
}
