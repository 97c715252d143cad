//! A drain that fails again and again: which change it is, found by halves, so that it waits for a person and the others go on.

use std::collections::BTreeSet;

use sluice_core::db::message;
use sluice_sync::definition::Definition;

use super::drain::{Drained, Gulp, MAX_CHANGES};
use super::held::Held;
use super::store::Change;
use crate::definitions::Definitions;
use crate::publish::relation;

/// So many suspects are held with nothing going well in between; then it is taken for a fault of all, which is told and waited out.
const HELD_IN_A_ROW: u32 = 10;

/// How the drains of a listener go.
#[derive(Debug)]
pub(super) struct Suspicion {
    limit: u16,
    /// Failures since a whole gulp went well; one may be chance.
    failures: u32,
    held_in_a_row: u32,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self { limit: MAX_CHANGES, failures: 0, held_in_a_row: 0 }
    }
}

impl Suspicion {
    /// What to take next.
    pub(super) fn gulp(&self) -> Gulp {
        if self.limit <= 1 && self.held_in_a_row < HELD_IN_A_ROW { Gulp::Suspect } else { Gulp::Up(self.limit) }
    }

    /// After a drain that went through; `held`: by holding its suspect.
    pub(super) fn went(&mut self, held: bool, drained: &Drained) {
        if held {
            // there may be another: the next failure is no chance
            *self = Self { limit: MAX_CHANGES, failures: 1, held_in_a_row: self.held_in_a_row + 1 };
        } else if drained.taken < u64::from(self.limit) {
            *self = Self::default();
        } else {
            self.held_in_a_row = 0;
            self.limit = self.limit.saturating_mul(2).min(MAX_CHANGES);
        }
    }

    /// After one that failed for something that does not pass: whether to try at once with fewer changes.
    pub(super) fn failed(&mut self, error: &sqlx::Error) -> bool {
        self.failures += 1;
        if self.failures < 2 || self.limit <= 1 {
            return false;
        }
        self.limit /= 2;
        tracing::warn!(error = message(error), changes = self.limit, "changes could not be turned into jobs; trying fewer of them");
        true
    }
}

/// Whether a failed drain says nothing about what it took.
pub(super) fn passes(error: &sqlx::Error) -> bool {
    // somebody cancelled the statement, or it met a limit that is not ours
    sluice_core::db::passes(error) || error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "57014")
}

/// Holds the changes, for each sync that they concern.
pub(super) fn hold(held: &mut Held, definitions: &Definitions, agreed: &BTreeSet<String>, changes: &[Change], error: &str) {
    let reason = format!("the change could not be turned into a job: {error}");
    let pushes = |one: &&Definition| agreed.contains(one.name()) && one.sync.direction.pushes();
    for definition in definitions.by_name.values().map(AsRef::as_ref).filter(pushes) {
        for change in changes {
            let image = change.after.as_ref().or(change.before.as_ref());
            if relation(&definition.table) == *change.relation {
                held.add(definition.name(), "key", &reason, image);
            } else if definition.watches.iter().any(|watch| relation(&watch.table) == *change.relation) {
                held.add(definition.name(), "watch", &reason, image);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn went_wrong() -> sqlx::Error {
        sqlx::Error::RowNotFound
    }

    #[test]
    fn the_first_failure_may_be_chance_and_then_a_gulp_is_halved_down_to_one() {
        let mut suspicion = Suspicion::default();
        assert!(!suspicion.failed(&went_wrong()));
        assert_eq!(suspicion.gulp(), Gulp::Up(MAX_CHANGES));
        let mut tries = 0;
        while suspicion.failed(&went_wrong()) {
            tries += 1;
        }
        assert_eq!((suspicion.gulp(), tries), (Gulp::Suspect, 12));
        // others before it
        suspicion.went(false, &Drained { taken: 1, jobs: 1, ..Drained::default() });
        assert_eq!(suspicion.gulp(), Gulp::Up(2));
        assert!(suspicion.failed(&went_wrong()));
        assert_eq!(suspicion.gulp(), Gulp::Suspect);
        suspicion.went(true, &Drained { taken: 1, held: 1, ..Drained::default() });
        assert_eq!(suspicion.gulp(), Gulp::Up(MAX_CHANGES));
        assert!(suspicion.failed(&went_wrong()), "another one");
        suspicion.went(false, &Drained { taken: 3, ..Drained::default() });
        assert!(!suspicion.failed(&went_wrong()), "all went well meanwhile");
    }

    #[test]
    fn a_fault_of_all_holds_few_of_them() {
        let mut suspicion = Suspicion { failures: 1, ..Suspicion::default() };
        for _ in 0..HELD_IN_A_ROW {
            while suspicion.failed(&went_wrong()) {}
            assert_eq!(suspicion.gulp(), Gulp::Suspect);
            suspicion.went(true, &Drained { taken: 1, held: 1, ..Drained::default() });
        }
        while suspicion.failed(&went_wrong()) {}
        assert_eq!(suspicion.gulp(), Gulp::Up(1));
    }
}
