//! Whom a change concerns: the records of each sync, and what is dropped or held before any row is read.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use sluice_sync::definition::{Columns, Definition, Watch};
use sluice_sync::read::Reader;

use super::held::Held;
use super::keys::{Keys, Unfit};
use super::store::{Change, Operation};
use super::watched;
use crate::definitions::Definitions;
use crate::publish::relation;

/// What the changes of one drain ask for.
#[derive(Debug, Default)]
pub(super) struct Sifted {
    /// Sync → keys → how many changes ask for it.
    pub(super) wanted: BTreeMap<String, BTreeMap<String, u64>>,
    /// Changed keys, in the order of their changes.
    pub(super) moves: Vec<Move>,
    /// Sync → calls not made.
    pub(super) avoided: BTreeMap<String, u64>,
    pub(super) held: Held,
    /// Sync → records that changed and are as they were: what was held of them is undone.
    pub(super) equal: BTreeMap<String, Vec<String>>,
}

/// A row of a sync's table whose key changed.
#[derive(Debug, Clone)]
pub(super) struct Move {
    pub(super) change: i64,
    pub(super) sync: String,
    pub(super) from: String,
    pub(super) to: String,
}

impl Sifted {
    pub(super) fn want(&mut self, sync: &str, key: String) {
        if !self.wanted.contains_key(sync) {
            self.wanted.insert(sync.to_owned(), BTreeMap::new());
        }
        if let Some(keys) = self.wanted.get_mut(sync) {
            *keys.entry(key).or_default() += 1;
        }
    }

    fn hold(&mut self, definition: &Definition, reason: &str, operation: &'static str, image: Option<&Value>) {
        self.held.add(definition.name(), operation, reason, image);
    }
}

/// Works out the records that the changes concern, of agreed syncs that push.
pub(super) async fn sift(
    reader: &Reader,
    definitions: &Definitions,
    agreed: &BTreeSet<String>,
    changes: &[Change],
) -> Result<Sifted, sqlx::Error> {
    let mut sifted = Sifted::default();
    let mut keys = Keys::new(reader);
    let mut by_relation: BTreeMap<&str, Vec<&Change>> = BTreeMap::new();
    for change in changes {
        by_relation.entry(&change.relation).or_default().push(change);
    }
    let pushing =
        definitions.by_name.values().filter(|definition| agreed.contains(definition.name()) && definition.sync.direction.pushes());
    for definition in pushing {
        if let Some(changes) = by_relation.get(relation(&definition.table).as_str()) {
            for change in changes {
                own_change(&mut sifted, &mut keys, definition, change).await?;
            }
        }
        for watch in &definition.watches {
            if let Some(changes) = by_relation.get(relation(&watch.table).as_str()) {
                watched_changes(&mut sifted, &mut keys, reader, definition, watch, changes).await?;
            }
        }
    }
    Ok(sifted)
}

async fn own_change(sifted: &mut Sifted, keys: &mut Keys<'_>, definition: &Definition, change: &Change) -> Result<(), sqlx::Error> {
    if change.operation == Operation::Truncate {
        sifted.hold(definition, &format!("{} was truncated", change.relation), "truncate", None);
        return Ok(());
    }
    if change.operation == Operation::Untouched {
        *sifted.avoided.entry(definition.name().to_owned()).or_default() += change.changes;
        return Ok(());
    }
    if change.operation == Operation::Update
        && change.changed.as_ref().is_some_and(|changed| !definition.relevant_columns().touched_by(changed))
    {
        *sifted.avoided.entry(definition.name().to_owned()).or_default() += 1;
        return Ok(());
    }
    let mut found = Vec::new();
    let mut held = Vec::new();
    for image in [&change.before, &change.after].into_iter().flatten() {
        match keys.of_image(definition, image).await? {
            Ok(key) => found.push(key),
            Err(unfit) => held.push((image, unfit)),
        }
    }
    // A row that has only now got its key was no record before.
    held.retain(|(image, unfit)| !(matches!(unfit, Unfit::Null(_)) && Some(*image) == change.before.as_ref() && !found.is_empty()));
    for (image, unfit) in held {
        sifted.hold(definition, &unfit.reason(), "key", Some(image));
    }
    match found.as_slice() {
        [from, to] if change.operation == Operation::Update && from != to => {
            let change = change.moved.as_ref().map_or(0, |moved| moved.number);
            sifted.moves.push(Move { change, sync: definition.name().to_owned(), from: from.clone(), to: to.clone() });
        }
        _ => found.dedup(),
    }
    for key in found {
        sifted.want(definition.name(), key);
    }
    Ok(())
}

/// Another table's changes: both the records that the row concerned before and those that it concerns now.
async fn watched_changes(
    sifted: &mut Sifted,
    keys: &mut Keys<'_>,
    reader: &Reader,
    definition: &Definition,
    watch: &Watch,
    changes: &[&Change],
) -> Result<(), sqlx::Error> {
    let mut images = Vec::new();
    for change in changes {
        if change.operation == Operation::Truncate {
            sifted.hold(definition, &format!("{}, which the sync watches, was truncated", change.relation), "truncate", None);
        }
        for image in [&change.before, &change.after].into_iter().flatten() {
            match absent(watch, image) {
                None => images.push(image),
                Some(column) => {
                    let table = &watch.relation;
                    let reason = format!("watch on {table}: the column `{column}` is not in the captured row: was it renamed or dropped?");
                    sifted.hold(definition, &reason, "watch", Some(image));
                }
            }
        }
    }
    for (image, found) in watched::keys(reader, watch, &images).await? {
        match found {
            Ok(texts) => {
                for text in texts {
                    match keys.of_text(definition, text).await? {
                        Ok(key) => sifted.want(definition.name(), key),
                        Err(reason) => sifted.hold(definition, &format!("watch on {}: {reason}", watch.relation), "watch", Some(image)),
                    }
                }
            }
            Err(reason) => sifted.hold(definition, &format!("watch on {}: {reason}", watch.relation), "watch", Some(image)),
        }
    }
    Ok(())
}

/// A column that the watch's expression names and that the image has not: to the expression it would be null, and so concern nobody.
fn absent<'a>(watch: &'a Watch, image: &Value) -> Option<&'a str> {
    match &watch.columns {
        Columns::Named(names) => names.iter().map(String::as_str).find(|name| image.get(name).is_none()),
        // the expression names them all only as far as anybody can tell
        Columns::All => None,
    }
}
