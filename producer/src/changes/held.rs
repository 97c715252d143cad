//! Changes that name no record, or none that can be: they wait for a person, and hold up nobody.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use sluice_core::db::{Tx, cut};

/// Different reasons of a sync in one drain that are kept apart. A bulk insert of bad keys has one for each row; what is beyond is counted together.
const REASONS: usize = 100;

/// Rows that a held change shows.
const SAMPLE: usize = 10;

/// Characters of a value that a sample shows.
const VALUE_MAX: usize = 120;

/// What is held of one drain: by sync, what could not be read of it (`truncate`, `key`, `watch`) and why.
#[derive(Debug, Default)]
pub(super) struct Held {
    by_reason: BTreeMap<(String, &'static str, String), Group>,
    reasons: BTreeMap<String, usize>,
}

#[derive(Debug, Default)]
struct Group {
    changes: i64,
    sample: Vec<Value>,
}

impl Held {
    /// How many changes.
    pub(super) fn len(&self) -> u64 {
        self.by_reason.values().map(|group| group.changes.unsigned_abs()).sum()
    }

    /// Adds a change, with the kept columns of its row.
    pub(super) fn add(&mut self, sync: &str, operation: &'static str, reason: &str, image: Option<&Value>) {
        let mut name = (sync.to_owned(), operation, cut(reason));
        if !self.by_reason.contains_key(&name) {
            let reasons = self.reasons.entry(sync.to_owned()).or_default();
            *reasons += 1;
            if *reasons > REASONS {
                "many more changes, for different reasons: see the sample".clone_into(&mut name.2);
            }
        }
        let group = self.by_reason.entry(name).or_default();
        group.changes += 1;
        if group.sample.len() < SAMPLE {
            group.sample.extend(image.map(short));
        }
    }

    /// One row for each reason. What is held already for the same reason takes it in; a truncate that is still open is not held twice, and somebody is
    /// told of it.
    pub(super) async fn store(self, tx: &mut Tx) -> Result<(), sqlx::Error> {
        for ((sync, operation, reason), group) in self.by_reason {
            let sample = Value::Array(group.sample);
            if operation == "truncate" {
                truncated(tx, &sync, &reason, &sample).await?;
            } else {
                unread(tx, (&sync, operation, &reason), group.changes, &sample).await?;
            }
        }
        Ok(())
    }
}

async fn truncated(tx: &mut Tx, sync: &str, reason: &str, sample: &Value) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with held as (
           insert into sluice.held_change (sync, reason, operation, records, sample)
           select $1, $2, 'truncate', (select count(*) from sluice.link l where l.sync = $1 and l.zoho_id is not null), $3
           where not exists (select from sluice.held_change h where h.sync = $1 and h.operation = 'truncate' and h.resolution is null)
           returning *)
         insert into sluice.alert (occasion, subject, message)
         select 'brake', sync, format('%s: %s, with %s records in Zoho. Nothing of it is sent before somebody decides: sluice held show %s', sync, reason, records, id)
         from held",
        sync,
        reason,
        sample
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn unread(tx: &mut Tx, (sync, operation, reason): (&str, &str, &str), changes: i64, sample: &Value) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "with open as (
           select h.id from sluice.held_change h where h.sync = $1 and h.operation = $2 and h.reason = $3 and h.resolution is null
           order by h.id limit 1 for no key update skip locked
         ), joined as (
           update sluice.held_change h set records = coalesce(h.records, 0) + $4, sample = jsonb_path_query_array(h.sample || $5, '$[0 to 9]')
           from open where h.id = open.id returning h.id)
         insert into sluice.held_change (sync, operation, reason, records, sample) select $1, $2, $3, $4, $5 where not exists (select from joined)",
        sync,
        operation,
        reason,
        changes,
        sample
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// An image whose long values are cut: a key may be megabytes.
fn short(image: &Value) -> Value {
    match image {
        Value::Object(columns) => {
            Value::Object(columns.iter().map(|(name, value)| (name.clone(), cut_value(value))).collect::<Map<_, _>>())
        }
        other => cut_value(other),
    }
}

/// A value as a sample shows it.
pub(super) fn cut_value(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => value.to_string(),
        Value::Null | Value::Bool(_) | Value::Number(_) => return value.clone(),
    };
    match text.char_indices().nth(VALUE_MAX) {
        Some((end, _)) => Value::String(format!("{}…", &text[..end])),
        None => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn changes_of_one_reason_are_one_and_a_flood_of_reasons_is_counted_together() {
        let mut held = Held::default();
        for n in 0..500 {
            held.add("things", "key", "the same", Some(&json!({ "id": "x".repeat(1000), "n": n })));
            held.add("things", "key", &format!("reason {n}"), None);
        }
        assert_eq!(held.len(), 1000);
        assert_eq!(held.by_reason.len(), REASONS + 1);
        let same = &held.by_reason[&("things".to_owned(), "key", "the same".to_owned())];
        assert_eq!((same.changes, same.sample.len()), (500, SAMPLE));
        assert_eq!(same.sample[0]["id"].as_str().map(|id| id.chars().count()), Some(VALUE_MAX + 1));
    }
}
