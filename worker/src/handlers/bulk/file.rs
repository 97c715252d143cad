//! The file of a bulk read: looked through once as a whole, to find out what of it can be believed, then read row by row in chunks that are stored one by
//! one. It is unpacked beside the tasks, and waits for whoever stores.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_sync::bulk::sample::{Believed, Sample, TIME};
use sluice_sync::bulk::{Bulk, File};
use sluice_sync::module::parse_time;
use sluice_zoho::crm::bulk::table;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

/// Rows that are stored in one transaction.
const CHUNK: usize = 1_000;

/// Rows of a file, and where the walk is when they are stored.
pub(crate) struct Chunk {
    pub(crate) rows: Vec<Value>,
    /// The bulk read then; `None`: it is at its end, and `complete_until` says up to when it has shown every change.
    pub(crate) after: Option<Bulk>,
    pub(crate) complete_until: Option<DateTime<Utc>>,
    /// The database's time before the job was asked for.
    pub(crate) seen_at: DateTime<Utc>,
    /// When the job was made, by Zoho's clock.
    pub(crate) dated: DateTime<Utc>,
    /// What is to be said of the file, once.
    pub(crate) said: Vec<String>,
    /// Why rows of it are missing.
    pub(crate) short: Option<String>,
}

/// What a look through the file has shown.
pub(super) struct Surveyed {
    bytes: Arc<Vec<u8>>,
    fields: Vec<String>,
    believed: Believed,
    pub(super) rows: u64,
    newest: Option<DateTime<Utc>>,
}

/// Looks through a whole file. Every row must say which record it is, as of when; and the records of the sample must be among them.
///
/// # Errors
/// A sentence: the file is not used.
pub(super) async fn survey(bytes: Vec<u8>, sample: Sample, fields: Vec<String>, before: Option<Believed>) -> Result<Surveyed, String> {
    let looked = spawn_blocking(move || {
        let (mut newest, mut unknown) = (None, None);
        let mut known: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
        let wanted = sample.ids();
        let mut row = 0_u64;
        let rows = table::read(&bytes, |cells| {
            row += 1;
            let (Some(id), Some(time)) = (cells.get(table::ID).filter(|id| !id.is_empty()), cells.get(TIME).and_then(parse_time)) else {
                unknown = Some(row);
                return ControlFlow::Break(());
            };
            newest = newest.max(Some(time));
            if wanted.contains(id) {
                let of_row = fields.iter().filter_map(|field| Some((field.clone(), cells.get(field)?.to_owned())));
                known.insert(id.to_owned(), of_row.collect());
            }
            ControlFlow::Continue(())
        });
        let rows = rows.map_err(|why| format!("its file cannot be read: {why}"))?;
        if let Some(row) = unknown {
            return Err(format!("row {row} of its file does not say which record it is, or when that was modified"));
        }
        let believed =
            sample.check(&known, before.as_ref()).ok_or("its file shows none of the records that the list showed before as they were")?;
        Ok(Surveyed { bytes: Arc::new(bytes), fields, believed, rows, newest })
    });
    looked.await.unwrap_or_else(|error| Err(format!("its file could not be looked through: {error}")))
}

impl Surveyed {
    /// The fields of which nothing is believed.
    pub(super) fn refuted(&self) -> Vec<String> {
        self.believed.refuted().into_iter().map(str::to_owned).collect()
    }

    /// The rows after those that are stored already. What is to be said is said with the first of all.
    pub(super) fn chunks(self, bulk: &Bulk, said: Vec<String>, short: Option<String>, now: DateTime<Utc>) -> Chunks {
        let mut bulk = Bulk { newest: bulk.newest.max(self.newest), believed: Some(self.believed.clone()), ..bulk.clone() };
        if let Some(File { count, .. }) = bulk.job.as_mut().and_then(|job| job.file.as_mut()) {
            *count = self.rows; // as many as there are
        }
        let stored = bulk.job.as_ref().map_or(0, |job| job.stored).min(self.rows);
        let said = if stored == 0 { said } else { Vec::new() };
        let (send, rows) = mpsc::channel(1);
        let (bytes, fields, believed) = (self.bytes, self.fields, self.believed);
        spawn_blocking(move || {
            let mut chunk = Vec::new();
            let mut skipped = 0;
            let read = table::read(&bytes, |cells| {
                if skipped < stored {
                    skipped += 1;
                    return ControlFlow::Continue(());
                }
                chunk.extend(believed.row(&fields, |name| cells.get(name)));
                if chunk.len() < CHUNK || send.blocking_send(std::mem::take(&mut chunk)).is_ok() {
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(()) // nobody stores them any more
            });
            if read.is_ok() && !chunk.is_empty() {
                let _ = send.blocking_send(chunk);
            }
        });
        Chunks { rows, stored, total: self.rows, bulk, said, short, now, over: false }
    }
}

/// The rows of a file, a thousand at a time.
pub(crate) struct Chunks {
    rows: mpsc::Receiver<Vec<Value>>,
    stored: u64,
    total: u64,
    bulk: Bulk,
    said: Vec<String>,
    short: Option<String>,
    now: DateTime<Utc>,
    over: bool,
}

impl Chunks {
    /// The next rows; a file without any gives one chunk of none. `None`: there are no more.
    pub(crate) async fn next(&mut self) -> Option<Chunk> {
        let job = self.bulk.job.as_ref().filter(|_| !self.over)?;
        let (seen_at, dated) = (job.asked_at, job.made);
        let rows = if self.stored < self.total { self.rows.recv().await } else { Some(Vec::new()) };
        let Some(rows) = rows else {
            // a file that was looked through a moment ago: never seen, and never tried again and again
            self.over = true;
            let said = vec!["the list was read by pages to its end: a bulk read's file could not be read a second time".to_owned()];
            let after = Some(self.bulk.given_up());
            return Some(Chunk { rows: Vec::new(), after, complete_until: None, seen_at, dated, said, short: None });
        };
        self.stored += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        self.over = self.stored >= self.total;
        let said = std::mem::take(&mut self.said);
        Some(Chunk {
            rows,
            after: self.bulk.after(self.stored, self.now),
            complete_until: self.bulk.complete_until(),
            seen_at,
            dated,
            said,
            short: self.short.clone(),
        })
    }
}
