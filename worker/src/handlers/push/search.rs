//! How far a search has come. A search may need more calls than one claim grants: what it has learnt is kept with the record, so that every
//! call brings it further and none is made twice.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sluice_queue::Outcome;
use sluice_zoho::finance::Page;

use super::{Record, Verdict};

/// What a search for one record has learnt. It holds for one lost create: after another one it begins anew.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Search {
    /// Creates whose outcome was unknown when it began.
    creates: i16,
    /// How old the first of those was then, by the database's clock: what says, in whichever process, how long it has been going on.
    began_at_age_ms: Option<i64>,
    /// Pages of the list that were read.
    pages: u32,
    /// The list was read to its end.
    listed: bool,
    /// Records that were listed, and have to be read one by one.
    pub(super) unread: Vec<String>,
    /// Those that were, and are not ours.
    pub(super) read: BTreeSet<String>,
    /// Ours.
    pub(super) hits: Vec<Hit>,
    /// There is none.
    pub(super) in_vain: bool,
    /// Zoho has refused a second one, so there is one: it is to be found, not sent once more.
    pub(super) refused: bool,
}

/// A record that Zoho has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Hit {
    pub(super) id: String,
    pub(super) value: Value,
}

impl Search {
    /// Goes on with the record's search, if it is for the same lost create.
    pub(super) fn of(record: &Record<'_>) -> Self {
        let creates = record.link.as_ref().map_or(0, |link| link.creates);
        let kept = record.slot.progress.clone().and_then(|progress| serde_json::from_value::<Self>(progress).ok());
        kept.filter(|kept| kept.creates == creates).unwrap_or(Self { creates, ..Self::default() })
    }

    /// The time after which a list must have been begun to show what is looked for. A search begins when a lost create can no longer
    /// arrive, so it is the time at which this one began; all lists since serve, and many searches share one.
    pub(super) fn lists_since(&mut self, record: &Record<'_>) -> Instant {
        let now = Instant::now();
        let ago = |ms: i64| u64::try_from(ms).ok().and_then(|ms| now.checked_sub(Duration::from_millis(ms))).unwrap_or(now);
        if let Some(at) = record.link.as_ref().and_then(|link| link.look_again_at) {
            return ago((chrono::Utc::now() - at).num_milliseconds());
        }
        let Some(age) = record.slot.doubt_age_ms else { return now };
        ago(age - *self.began_at_age_ms.get_or_insert(age))
    }

    /// The next page to be listed.
    pub(super) fn page(&self) -> Option<Page> {
        (!self.listed).then(|| Page { page: self.pages + 1, ..Page::FIRST })
    }

    /// A page was listed.
    pub(super) fn turn(&mut self, more: bool) {
        self.pages += 1;
        self.listed = !more;
    }

    /// Zoho has one.
    pub(super) fn of_refused(self) -> Self {
        Self { refused: true, ..self }
    }

    /// It ended, and there is none.
    pub(super) fn ended_in_vain(self) -> Self {
        Self { in_vain: true, ..self }
    }

    /// Keeps it with the record, where it is to be run again.
    pub(super) fn kept(&self, verdict: Verdict) -> Verdict {
        let search = serde_json::to_value(self).ok();
        let outcome = match verdict.outcome {
            Outcome::Continue { .. } => Outcome::Continue { progress: search },
            Outcome::Retry(mut retry) => {
                retry.progress = search;
                Outcome::Retry(retry)
            }
            other => other,
        };
        Verdict { outcome, ..verdict }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sluice_queue::Claimed;
    use sluice_sync::link::Link;

    use super::*;

    fn slot(progress: Option<Value>) -> Claimed {
        serde_json::from_value(json!({"id": 1, "key": "1", "failures": 0, "tries": 0, "panics": 0, "progress": progress})).expect("a slot")
    }

    fn record(slot: &Claimed, creates: i16) -> Record<'_> {
        let link = Link { sync: "payments".to_owned(), key: "1".to_owned(), creates, ..Link::default() };
        Record {
            slot,
            row: None,
            link: Some(link),
            leave_out: BTreeSet::new(),
            keep_back: BTreeSet::new(),
            repair: BTreeSet::new(),
            level: None,
            theirs: None,
            compared: false,
            braked: None,
            dated: None,
        }
    }

    #[test]
    fn what_was_learnt_holds_until_another_create_is_sent() {
        let first = slot(None);
        let mut search = Search::of(&record(&first, 1));
        search.turn(true);
        search.unread.push("460".to_owned());
        search.in_vain = true;
        let Outcome::Continue { progress } = search.kept(Verdict::of(Outcome::Continue { progress: None })).outcome else {
            panic!("it goes on")
        };
        let later = slot(progress);
        assert_eq!(Search::of(&record(&later, 1)), search, "the same doubt goes on where it was");
        assert_eq!(Search::of(&record(&later, 1)).page().map(|page| page.page), Some(2));
        let anew = Search::of(&record(&later, 2));
        assert!(!anew.in_vain && anew.unread.is_empty(), "what was sent since may be there: {anew:?}");
    }

    #[test]
    fn lists_serve_a_search_from_its_beginning_in_whichever_process_until_another_create_is_sent() {
        let aged = |ms: i64, progress: Option<Value>| Claimed { doubt_age_ms: Some(ms), ..slot(progress) };
        let age = |slot: &Claimed, creates: i16| {
            let record = record(slot, creates);
            Search::of(&record).lists_since(&record).elapsed().as_secs()
        };
        let first = aged(40_000, None);
        let mut search = Search::of(&record(&first, 1));
        search.lists_since(&record(&first, 1));
        assert_eq!(age(&first, 1), 0, "what was listed before it began may lack what arrived late");
        let Outcome::Continue { progress } = search.kept(Verdict::of(Outcome::Continue { progress: None })).outcome else {
            panic!("it goes on")
        };
        assert_eq!(age(&aged(47_000, progress.clone()), 1), 7);
        assert_eq!(age(&aged(90_000, progress), 2), 0, "another was sent since");
    }

    #[test]
    fn a_list_ends_with_its_last_page() {
        let mut search = Search::default();
        search.turn(true);
        search.turn(false);
        assert_eq!(search.page(), None);
    }
}
