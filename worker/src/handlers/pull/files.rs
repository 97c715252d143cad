//! Files of records, one call each, once it is clear what else becomes of the record. A file whose call finds no grant, or no Zoho, holds the record back
//! until there is one; a file that cannot be had leaves its column as it is, and the rest of the record is written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_core::config::field::FileField;
use sluice_queue::{Claimed, Outcome};
use sluice_sync::merge::files::Wanted;
use sluice_sync::merge::{Ignored, Side};
use sluice_zoho::finance::{self, File};
use sluice_zoho::{Error, NotSent};

use super::comparing::update;
use super::{Gathered, Merged, Next, Run, Verdict};
use crate::handlers::ended;
use crate::handlers::push::finance_module;
use crate::session::Ended;

/// One run goes on fetching for so long; the other records' files come with their next run.
const PATIENCE: Duration = Duration::from_secs(10);
/// And until it holds so many bytes, which settle writes in one transaction.
const MOST_BYTES: usize = 8 * 1024 * 1024;

const TOO_LARGE: &str = "the file is larger than 5 MiB, the most that is taken over; the column was left as it is";
const ABSENT: &str = "the record names a file that Zoho does not have; the column was left as it is";
const REFUSED: &str = "Zoho refuses the file; the column was left as it is";
const NO_FILE: &str = "what Zoho answers is no file; the column was left as it is";

/// What a call for a file gave.
enum Fetched {
    Bytes(Vec<u8>),
    /// It cannot be had: why. Asked for again when the record names another version.
    Never(&'static str),
}

impl Run<'_> {
    pub(super) async fn fetch_files(&self, gathered: &mut Gathered, verdicts: &mut BTreeMap<i64, Verdict>) {
        let began = Instant::now();
        let (mut held, mut no_call) = (0, false);
        for slot in &self.work.batch.slots {
            let wanted = gathered.merged.get(&slot.id).map(|merged| merged.merge.files.clone()).unwrap_or_default();
            let id = gathered.ids.get(&slot.id).cloned().unwrap_or_default();
            let verdict = match verdicts.get(&slot.id) {
                Some(verdict) if !wanted.is_empty() => verdict,
                _ => continue,
            };
            if verdict.pushed {
                // what was sent is settled first
                gathered.runs.insert(Next::Key { sync: self.definition.name().to_owned(), key: slot.key.clone() });
                continue;
            }
            if !matches!(verdict.outcome, Outcome::Done { .. }) {
                continue;
            }
            let stopped = if no_call || self.session.paused() || began.elapsed() > PATIENCE || held > MOST_BYTES {
                Some(Outcome::Continue { progress: slot.progress.clone() })
            } else {
                self.fetch_all(slot, &id, &wanted, gathered, &mut held).await
            };
            // one refusal of the ledger is enough
            no_call |= matches!(stopped, Some(Outcome::Continue { .. }));
            if let Some(outcome) = stopped {
                gathered.merged.remove(&slot.id);
                verdicts.insert(slot.id, Verdict::of(outcome));
            }
        }
    }

    /// The files of one record. What is returned holds the record back.
    async fn fetch_all(&self, slot: &Claimed, id: &str, wanted: &[Wanted], gathered: &mut Gathered, held: &mut usize) -> Option<Outcome> {
        for one in wanted {
            let fetched = match self.fetch(slot, id, one).await {
                Ok(fetched) => fetched,
                Err(failure) => return Some(ended(self.engine, self.work, self.session, slot, &failure, false).0),
            };
            let Some(merged) = gathered.merged.get_mut(&slot.id) else { continue };
            match fetched {
                Fetched::Bytes(bytes) => {
                    *held += bytes.len();
                    merged.take_file(&slot.key, id, one, &bytes);
                }
                Fetched::Never(reason) => {
                    tracing::warn!(
                        sync = self.definition.name(),
                        key = slot.key,
                        zoho_id = id,
                        field = one.path,
                        reason,
                        "a file was not taken over"
                    );
                    merged.leave_file(one, reason);
                    let run = gathered.sights.get(id).and_then(|sight| sight.run_id);
                    gathered.notes.extend(run.map(|run_id| (run_id, format!("{id}: {}: {reason}", one.path))));
                }
            }
        }
        None
    }

    async fn fetch(&self, slot: &Claimed, id: &str, wanted: &Wanted) -> Result<Fetched, Ended> {
        let Some(module) = finance_module(self.definition) else {
            let reason = format!("files of {} cannot be read by this version", self.definition.module);
            return Err(Ended::Zoho(Box::new(Error::NotSent(NotSent::Invalid { reason })), Duration::ZERO));
        };
        let most = FileField::MAX_BYTES;
        match self.session.call(async |g, c, t| finance::file(g, c, t, module, id, &wanted.file, most).await).await {
            Ok(File::Whole { bytes, .. }) => Ok(Fetched::Bytes(bytes)),
            Ok(File::TooLarge) => Ok(Fetched::Never(TOO_LARGE)),
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::NotFound { .. }) => Ok(Fetched::Never(ABSENT)),
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::Rejected(_)) => Ok(Fetched::Never(REFUSED)),
            // once may have been a bad moment
            Err(Ended::Zoho(error, _)) if matches!(*error, Error::Malformed { .. }) && slot.tries > 0 => Ok(Fetched::Never(NO_FILE)),
            Err(failure) => Err(failure),
        }
    }
}

impl Merged {
    fn take_file(&mut self, key: &str, zoho_id: &str, wanted: &Wanted, bytes: &[u8]) {
        let pull = self.pull.get_or_insert_with(|| update(key, zoho_id, &self.merge, self.modified_at));
        pull.files.insert(wanted.column.clone(), as_text(bytes));
        pull.pulled.insert(wanted.path.clone(), wanted.version.clone());
    }

    /// The version is known now, so that nobody asks for it again.
    fn leave_file(&mut self, wanted: &Wanted, reason: &'static str) {
        let (path, version) = (wanted.path.clone(), wanted.version.clone());
        self.merge.ignored.push(Ignored { field: path.clone(), of: Side::Zoho, to: version.clone(), reason });
        match &mut self.pull {
            Some(new) if !self.compared => drop(new.pulled.insert(path, version)),
            _ => self.merge.settle_file(path, version),
        }
    }
}

/// Bytes as PostgreSQL prints them.
fn as_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("\\x");
    text.extend(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).filter_map(|half| char::from_digit(u32::from(half), 16)));
    text
}

#[cfg(test)]
mod tests {
    use super::as_text;

    #[test]
    fn bytes_are_printed_as_postgresql_prints_them() {
        assert_eq!(as_text(b"\0\x89PNG\xff"), "\\x0089504e47ff");
        assert_eq!(as_text(b""), "\\x");
    }
}
