//! How far a bulk read of a walk is (CRM sheet §3.1), and when a walk turns to one. Pure.
//!
//! A bulk read's file is never believed for what it is: see [`sample`].

pub mod sample;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sluice_core::config::sync::BulkRead;

use sample::{Believed, Sample};

/// What a bulk read costs, in pages of the list: 50 credits, of which a page costs one.
pub const COST: u32 = 50;
/// The records that as many pages show.
const RECORDS: i64 = 50 * 200;

/// Whether a walk that has read so many pages, and that others follow, is read to its end by a bulk job.
///
/// How many records follow is not known, and to ask would cost a call and a scope more. So the walk turns when it has paid for pages what a job costs: whoever
/// knew beforehand would have paid at least half of what was paid, whatever the end (the argument of renting skis or buying them). `linked`: the
/// records that a walk over everything is sure to meet; where these are more, nothing is gained by waiting.
pub fn turns(setting: BulkRead, pages: u32, linked: i64) -> bool {
    match setting {
        BulkRead::Never => false,
        BulkRead::Always => pages >= 1,
        BulkRead::Auto => pages >= COST || linked > RECORDS,
    }
}

/// Whether a file that shows some field of each record not at all is worth using: where its records are to be taken over, those that are new are then read
/// by their ids, a hundred a credit, and the list shows two hundred. `rows`: of the file; `linked`: records that are known already.
pub fn is_worth_it(setting: BulkRead, shows_all: bool, pulls: bool, rows: u64, linked: i64) -> bool {
    shows_all || !pulls || setting == BulkRead::Always || u64::try_from(linked).unwrap_or(0) > rows / 2
}

/// A bulk read of what is left of a walk. The walk itself stays at the page where it turned, and goes on there if the bulk read comes to nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bulk {
    /// Records modified at this time or later are asked for: the oldest of the last page, so that the file shows records that we have just read.
    pub since: DateTime<Utc>,
    /// What that page said of some of them.
    pub sample: Sample,
    /// The database's time from which the wait for a file counts.
    pub wanted_at: DateTime<Utc>,
    /// How often a job was asked for whose id, or file, never came.
    #[serde(default)]
    pub lost: u32,
    /// How often it was put off since, for want of an answer or of a budget.
    #[serde(default)]
    pub waits: u32,
    /// The job that is under way.
    #[serde(default)]
    pub job: Option<Job>,
    /// What the next job is asked for with: the one before left records out.
    #[serde(default)]
    pub token: Option<String>,
    /// How the files before were found to be written.
    #[serde(default)]
    pub believed: Option<Believed>,
    /// Zoho's time when the first job was made: what changed since then may be in no file.
    #[serde(default)]
    pub made: Option<DateTime<Utc>>,
    /// The newest change that a file has shown.
    #[serde(default)]
    pub newest: Option<DateTime<Utc>>,
    /// It came to nothing: the walk goes on by pages, to its end.
    #[serde(default)]
    pub given_up: bool,
}

/// A job that Zoho has taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: String,
    /// The database's time before it was asked for: what the file shows is no older.
    pub asked_at: DateTime<Utc>,
    /// When it was made, by Zoho's clock.
    pub made: DateTime<Utc>,
    /// There is a file.
    #[serde(default)]
    pub file: Option<File>,
    /// Rows of the file that are stored.
    #[serde(default)]
    pub stored: u64,
}

/// What Zoho says of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct File {
    /// Its rows.
    pub count: u64,
    /// What is asked for with what did not fit.
    pub next: Option<String>,
}

impl Bulk {
    /// A bulk read that is about to begin.
    pub fn new(since: DateTime<Utc>, sample: Sample, now: DateTime<Utc>) -> Self {
        Self {
            since,
            sample,
            wanted_at: now,
            lost: 0,
            waits: 0,
            job: None,
            token: None,
            believed: None,
            made: None,
            newest: None,
            given_up: false,
        }
    }

    /// Up to when the files show every change: a file is no snapshot, so what it shows of later than its job's beginning proves nothing about the rest.
    pub fn complete_until(&self) -> Option<DateTime<Utc>> {
        self.newest.zip(self.made).map(|(newest, made)| newest.min(made))
    }

    /// The job has given an id.
    #[must_use]
    pub fn asked(&self, id: String, asked_at: DateTime<Utc>, made: DateTime<Utc>) -> Self {
        let job = Job { id, asked_at, made, file: None, stored: 0 };
        Self { job: Some(job), made: Some(self.made.map_or(made, |first| first.min(made))), wanted_at: asked_at, waits: 0, ..self.clone() }
    }

    /// Its id, or its file, never came: another one is to be asked for.
    #[must_use]
    pub fn lost_one(&self) -> Self {
        Self { job: None, lost: self.lost + 1, waits: 0, ..self.clone() }
    }

    /// After so many rows of the file are stored; `None`: there is no file to follow.
    #[must_use]
    pub fn after(&self, stored: u64, now: DateTime<Utc>) -> Option<Self> {
        let job = self.job.as_ref()?;
        let file = job.file.as_ref()?;
        if stored < file.count {
            return Some(Self { job: Some(Job { stored, ..job.clone() }), waits: 0, ..self.clone() });
        }
        let token = file.next.clone()?;
        Some(Self { job: None, token: Some(token), lost: 0, waits: 0, wanted_at: now, ..self.clone() })
    }

    /// It comes to nothing. What was kept for it is forgotten.
    #[must_use]
    pub fn given_up(&self) -> Self {
        Self { given_up: true, ..Self::new(self.since, Sample::default(), self.wanted_at) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use chrono::TimeZone as _;

    use super::*;

    #[test]
    fn a_walk_turns_to_a_bulk_read_when_it_has_paid_what_one_costs_or_knows_that_it_would() {
        use BulkRead::{Always, Auto, Never};
        for (setting, pages, linked, turned) in [
            (Auto, 1, 0, false),
            (Auto, 49, 0, false),
            (Auto, 50, 0, true),
            (Auto, 51, 0, true),
            (Auto, 1, 10_000, false),
            (Auto, 1, 10_001, true),
            (Always, 1, 0, true),
            (Never, 1, 1_000_000, false),
            (Never, 5_000, 0, false),
        ] {
            assert_eq!(turns(setting, pages, linked), turned, "{setting:?} after {pages} pages, {linked} linked");
        }
    }

    #[test]
    fn a_file_that_lacks_a_field_is_not_used_where_every_row_of_it_would_be_read_again() {
        use BulkRead::{Always, Auto};
        for (setting, shows_all, pulls, rows, linked, used) in [
            (Auto, true, true, 50_000, 0, true),
            (Auto, false, true, 50_000, 0, false),
            (Auto, false, true, 50_000, 25_000, false),
            (Auto, false, true, 50_000, 25_001, true), // a sweep: most of them say by their time that nothing changed
            (Auto, false, false, 50_000, 0, true),     // nothing is read for a push
            (Always, false, true, 50_000, 0, true),
        ] {
            assert_eq!(is_worth_it(setting, shows_all, pulls, rows, linked), used, "{setting:?} {shows_all} {pulls} {rows} {linked}");
        }
    }

    #[test]
    fn a_file_counts_as_complete_up_to_its_newest_change_or_its_jobs_beginning_whichever_is_earlier() {
        let at = |second| Utc.timestamp_opt(second, 0).unwrap();
        let bulk = Bulk::new(at(10), Sample::default(), at(0));
        assert_eq!(bulk.complete_until(), None);
        let asked = bulk.asked("1".into(), at(0), at(100));
        for (newest, until) in [(50, 50), (100, 100), (130, 100)] {
            assert_eq!(Bulk { newest: Some(at(newest)), ..asked.clone() }.complete_until(), Some(at(until)));
        }
        let second = asked.lost_one().asked("2".into(), at(0), at(200));
        assert_eq!(Bulk { newest: Some(at(130)), ..second }.complete_until(), Some(at(100)), "the first job's, whatever came after it");
    }

    #[test]
    fn a_read_goes_on_at_the_row_after_those_that_are_stored_then_with_what_did_not_fit() {
        let now = Utc.timestamp_opt(0, 0).unwrap();
        let mut bulk = Bulk::new(now, Sample::default(), now).lost_one().asked("1".into(), now, now);
        if let Some(job) = &mut bulk.job {
            job.file = Some(File { count: 2_500, next: Some("more".into()) });
        }
        let on = bulk.after(1_000, now).unwrap();
        assert_eq!(on.job.as_ref().map(|job| job.stored), Some(1_000));
        let next = on.after(2_500, now).unwrap();
        assert_eq!((next.job, next.token.as_deref(), next.lost), (None, Some("more"), 0));
        if let Some(job) = &mut bulk.job {
            job.file = Some(File { count: 2_500, next: None });
        }
        assert_eq!(bulk.after(2_500, now), None);
    }
}
