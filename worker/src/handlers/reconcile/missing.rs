//! Linked records that a complete list did not show.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_core::config::field::Field;
use sluice_core::config::sync::Direction;
use sluice_core::config::units::Limit;
use sluice_core::db::Tx;
use sluice_sync::link::{Link, Pair, Pairs};
use sluice_sync::sweep::Place;

use super::{Sweep, store};

impl Sweep<'_> {
    /// The list is at its end: what it did not show is read by its id, unless it is so much that the list is the likelier mistake. What is to be said.
    pub(super) async fn missing(&self, tx: &mut Tx, place: &mut Place) -> Result<Option<String>, sqlx::Error> {
        let (sync, definition) = (self.definition.name(), self.definition);
        if let Some(why) = &place.incomplete {
            return Ok(Some(why.clone()));
        }
        // an earlier sweep's finding is over: this one looked anew
        sqlx::query!(
            "with over as (
               update sluice.held_change set resolution = 'undone', resolved_by = 'sluice', resolved_at = clock_timestamp()
               where id in (select id from sluice.held_change where sync = $1 and operation = 'missing' and resolution is null for update skip locked) returning id)
             update sluice.held_record r set resolution = 'undone', resolved_at = clock_timestamp() from over where r.held_id = over.id and r.resolution is null",
            sync
        )
        .execute(&mut *tx)
        .await?;
        let found = sqlx::query!(
            r#"select count(*) as "linked!",
                 coalesce(array_agg(key order by key) filter (where coalesce(seen_at, '-infinity') < $2 and created_at < $2 and coalesce(synced_at, '-infinity') < $2), '{}') as "missing!"
               from sluice.link where sync = $1 and zoho_id is not null and gone_at is null"#,
            sync,
            place.began
        )
        .fetch_one(&mut *tx)
        .await?;
        let count = found.missing.len();
        if count == 0 {
            return Ok(None);
        }
        place.drift += i64::try_from(count).unwrap_or(i64::MAX);
        if definition.sync.direction == Direction::Push {
            return Ok(Some(format!("{count} linked records are in no page of Zoho's list: {}", some(&found.missing))));
        }
        let limit = definition.sync.max_deletes();
        let allowed = limit.of(found.linked.unsigned_abs());
        if u64::try_from(count).unwrap_or(u64::MAX) <= allowed {
            sqlx::query!(
                "insert into sluice.job (kind, args, lane) select 'pull', jsonb_build_object('sync', $1::text, 'key', k), $3 from unnest($2::text[]) k",
                sync,
                &found.missing,
                self.work.batch.lane
            )
            .execute(tx)
            .await?;
            return Ok(Some(format!(
                "{count} linked records are in no page of Zoho's list and are read by their ids: {}",
                some(&found.missing)
            )));
        }
        let reason = format!(
            "{count} of {} linked records are in no page of Zoho's list; the brake allows {} deletes. Nothing was deleted, and nothing is asked for before somebody decides",
            found.linked,
            match limit {
                Limit::Count(_) => limit.to_string(),
                Limit::Percent(_) => format!("{allowed} ({limit})"),
            }
        );
        let id = store::hold(tx, sync, "missing", &reason).await?;
        sqlx::query!(
            "with named as (insert into sluice.held_record (held_id, sync, key, operation) select $1, $2, k, 'missing' from unnest($3::text[]) k order by k)
             update sluice.held_change set records = cardinality($3::text[]), sample = (
               select jsonb_agg(jsonb_build_object('key', l.key, 'operation', 'missing', 'zoho_id', l.zoho_id) order by l.key)
               from sluice.link l where l.sync = $2 and l.key = any (($3::text[])[:10])) where id = $1",
            id,
            sync,
            &found.missing
        )
        .execute(tx)
        .await?;
        place.held = true;
        Ok(Some(format!("{reason}: sluice held show {id}")))
    }

    /// Zoho's values of fields that are ours alone and repaired: the link takes them for what both sides had, so that our row differs and is pushed.
    /// Each pair as it was, and as it is now.
    pub(super) fn repaired(&self, link: &Link, fields: &BTreeMap<String, Value>) -> Option<(Pairs, Pairs)> {
        let repairs = |path: &String| match self.definition.fields().get(path) {
            Some(Field::Column(field)) => field.repair,
            Some(Field::Ref(field)) => field.repair,
            _ => false,
        };
        let (was, is): (Pairs, Pairs) = fields
            .iter()
            .filter(|(path, _)| repairs(path))
            .filter_map(|(path, theirs)| {
                let now = Pair { local: theirs.clone(), zoho: theirs.clone(), confirmed: true };
                Some(((path.clone(), link.fields.get(path)?.clone()), (path.clone(), now)))
            })
            .unzip();
        (!is.is_empty()).then_some((was, is))
    }
}

fn some(keys: &[String]) -> String {
    let named = keys.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    if keys.len() > 10 { format!("{named}, …") } else { named }
}
