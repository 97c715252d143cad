//! What a merge needs beside the two sides: references, decisions, the pull's own columns, and when and by whom a field was last changed.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::field::Field;
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::store as links;
use sluice_sync::merge::{Keys, Side};
use sluice_sync::sighting::Sighting;

use super::{Record, Run};
use crate::apply::key_parts;

/// What lies around the records of a batch.
pub(super) struct Around {
    /// The keys that Zoho records of other syncs have here.
    pub(super) keys: Keys,
    /// What people decided of conflicts, by key and field.
    pub(super) decided: BTreeMap<String, BTreeMap<String, Side>>,
    /// The pull's own columns, by Zoho id.
    pub(super) own: BTreeMap<String, BTreeMap<String, Value>>,
}

impl Run<'_> {
    /// What a merge needs beside the two sides.
    pub(super) async fn around(&self, records: &[Record<'_>], sights: &BTreeMap<String, Sighting>) -> Result<Around, sqlx::Error> {
        let theirs: Vec<(&String, &Value)> = sights.iter().filter_map(|(id, sight)| Some((id, sight.record.as_ref()?))).collect();
        let refs: BTreeSet<(String, String)> = theirs.iter().flat_map(|(_, record)| self.refers_to(record)).collect();
        let keys: Vec<String> = records.iter().map(|record| record.slot.key.clone()).collect();
        let mut tx = self.engine.db.begin().await?;
        let refs = links::keys_of_all(&mut tx, &refs.into_iter().collect::<Vec<_>>()).await?;
        let decided = sqlx::query!(
            r#"select key, field, resolution as "side!" from sluice.conflict
               where sync = $1 and key = any ($2) and resolution in ('local', 'zoho') and applied_at is null"#,
            self.definition.name(),
            &keys
        )
        .fetch_all(&mut tx)
        .await?;
        tx.commit().await?;
        let mut by_key: BTreeMap<String, BTreeMap<String, Side>> = BTreeMap::new();
        for one in decided {
            let side = if one.side == "local" { Side::Local } else { Side::Zoho };
            by_key.entry(one.key).or_default().insert(one.field, side);
        }
        let values: Vec<&Value> = theirs.iter().map(|(_, record)| *record).collect();
        let mut own = BTreeMap::new();
        for ((id, _), columns) in theirs.iter().zip(self.engine.reader.pulled(self.definition, &values).await?) {
            match columns {
                Ok(columns) => drop(own.insert((*id).clone(), columns)),
                Err(problem) => {
                    tracing::warn!(
                        sync = self.definition.name(),
                        zoho_id = *id,
                        reason = problem.message,
                        "the sync's columns could not be made of a record"
                    )
                }
            }
        }
        Ok(Around { keys: refs, decided: by_key, own })
    }

    /// The records of other syncs that a Zoho record refers to: (sync, Zoho id).
    fn refers_to(&self, record: &Value) -> Vec<(String, String)> {
        let module = &self.definition.module;
        let fields = self.definition.fields().iter();
        let own = fields.filter_map(|(path, field)| refers(field, field_in(module, record, path)?));
        let lists = self.definition.rows().iter().filter_map(|(path, list)| Some((list, field_in(module, record, path)?.as_array()?)));
        let of_lists = lists.flat_map(|(list, objects)| objects.iter().map(move |object| (list, object))).flat_map(|(list, object)| {
            list.field.item.iter().filter_map(|(path, field)| refers(field, sluice_sync::value::at(object, path)?))
        });
        own.chain(of_lists).collect()
    }

    /// Of these fields the ones whose column was last changed in a transaction of ours: by a trigger of the table's, since what we write ourselves is
    /// agreed on.
    pub(super) async fn driven(&self, key: &str, fields: &[String]) -> Result<BTreeSet<String>, sqlx::Error> {
        let columns = fields.iter().filter_map(|path| Some((path, self.definition.fields().get(path)?.own_column()?.to_owned())));
        let columns: BTreeMap<&String, String> = columns.collect();
        if columns.is_empty() {
            return Ok(BTreeSet::new());
        }
        let table = &self.definition.table;
        let key_columns: Vec<String> = self.definition.key.iter().map(|column| column.name.clone()).collect();
        let ours = sqlx::query_scalar!(
            r#"with c as materialized (
                 select x.captured_at, x.origin, sluice.changed_columns(x.changed, x.relid, x.touched, x.layout) as columns from (
                   select captured_at, key, after, origin, case when changed is not null then array(select jsonb_array_elements_text(changed)) end as changed,
                     relid, touched, layout
                   from sluice.changes_of($1, $2, clock_timestamp() - interval '1 hour')
                   union all select captured_at, key, after, origin, changed, relid, touched, layout from sluice.change where relation = $1) x
                 where x.key = $2 or array(select x.after ->> u.k from unnest($3::text[]) with ordinality u (k, n) order by n) = $4::text[])
               select k as "column!" from unnest($5::text[]) k
               where (select c.origin from c where k = any (c.columns) order by c.captured_at desc limit 1) = 'sluice'"#,
            format!("{}.{}", table.schema, table.name),
            key,
            &key_columns,
            &key_parts(self.definition, key),
            &columns.values().cloned().collect::<Vec<_>>()
        )
        .fetch_all(&self.engine.db)
        .await?;
        Ok(columns.into_iter().filter(|(_, column)| ours.contains(column)).map(|(path, _)| path.clone()).collect())
    }

    /// When these fields of a row were last changed by anybody but us, as the capture saw it. Only what is not older than `since`, Zoho's time, is asked for:
    /// an older edit is not the newer one. Without it the history goes back a day.
    pub(super) async fn changed_at(
        &self,
        key: &str,
        fields: &[String],
        since: Option<DateTime<Utc>>,
    ) -> Result<BTreeMap<String, DateTime<Utc>>, sqlx::Error> {
        let columns = fields.iter().filter_map(|path| Some((path, self.definition.fields().get(path)?.own_column()?.to_owned())));
        let columns: BTreeMap<&String, String> = columns.collect();
        let table = &self.definition.table;
        let key_columns: Vec<String> = self.definition.key.iter().map(|column| column.name.clone()).collect();
        let times = sqlx::query!(
            r#"with c as materialized (
                 select x.captured_at, sluice.changed_columns(x.changed, x.relid, x.touched, x.layout) as columns from (
                   select captured_at, key, after, origin, case when changed is not null then array(select jsonb_array_elements_text(changed)) end as changed,
                     relid, touched, layout
                   from sluice.changes_of($1, $2, coalesce($6, clock_timestamp() - interval '1 day'))
                   union all select captured_at, key, after, origin, changed, relid, touched, layout from sluice.change where relation = $1) x
                 where (x.key = $2 or array(select x.after ->> u.k from unnest($3::text[]) with ordinality u (k, n) order by n) = $4::text[])
                   and x.origin is distinct from 'sluice')
               select k as "column!", max(c.captured_at) as "at!" from unnest($5::text[]) k join c on c.columns is null or k = any (c.columns) group by k"#,
            format!("{}.{}", table.schema, table.name),
            key,
            &key_columns,
            &key_parts(self.definition, key),
            &columns.values().cloned().collect::<Vec<_>>(),
            since
        )
        .fetch_all(&self.engine.db)
        .await?;
        let times: BTreeMap<String, DateTime<Utc>> = times.into_iter().map(|row| (row.column, row.at)).collect();
        Ok(columns.into_iter().filter_map(|(path, column)| Some((path.clone(), *times.get(&column)?))).collect())
    }
}

/// The record that a reference names: (sync, Zoho id).
fn refers(field: &Field, value: &Value) -> Option<(String, String)> {
    let Field::Ref(field) = field else { return None };
    let id = match value {
        Value::Object(lookup) => lookup.get("id").map(sluice_sync::value::scalar_text)?,
        Value::Null => return None,
        other => sluice_sync::value::scalar_text(other),
    };
    (!id.is_empty()).then(|| (field.sync.clone(), id))
}
