//! The table's side of a sweep: rows that were never pushed, or that changed without anybody noticing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sluice_core::config::units::format_duration;
use sluice_core::db::{Tx, cut};
use sluice_sync::key;
use sluice_sync::link::{Link, store as links};
use sluice_sync::plan::{self, Facts, Step};
use sluice_sync::read::{Error, Found, Row};
use sluice_sync::sweep::{self, Place};

use super::{Next, Sweep, store};
use crate::settle::note_run;
use crate::work::Sums;

/// Rows that are looked at in one go.
const CHUNK: u32 = 500;

/// Rows of a chunk whose keys are named where they can be no record's.
const REFUSED: usize = 3;

impl Sweep<'_> {
    /// Looks at the next rows of the table.
    pub(super) async fn rows(&self, mut place: Place) -> Result<Next, sqlx::Error> {
        let (definition, sync, reader) = (self.definition, self.definition.name(), &self.engine.reader);
        let keys = if definition.sync.direction.pushes() {
            reader.keys_after(definition, definition.sync.when.as_deref(), place.after.as_deref(), CHUNK).await?
        } else {
            Vec::new()
        };
        let mut sums = Sums::default();
        // no job can name these: nothing would be pushed of all the others
        let (refused, possible): (Vec<String>, Vec<String>) = keys.iter().cloned().partition(|one| key::refused(one).is_some());
        sums.messages
            .extend(refused.iter().filter_map(|one| key::refused(one)).take(REFUSED).map(|why| format!("a row is left out: {why}")));
        let candidates = self.at_rest(&possible).await?;
        let mut broken = false;
        let rows = match reader.rows(definition, &candidates).await {
            Ok(rows) => {
                let unread = |found: &Found| matches!(found, Found::Row(row) if row.unread().is_some());
                if rows.values().any(unread) {
                    place.incomplete.get_or_insert_with(|| "some of the table's rows could not be read in time".to_owned());
                }
                rows
            }
            Err(error @ Error::Broken { .. }) => {
                place.incomplete.get_or_insert_with(|| "the table's rows could not be read".to_owned());
                sums.messages.push(cut(&error.to_string()));
                broken = true;
                BTreeMap::new()
            }
            Err(Error::Unavailable(error)) => return Err(error),
        };
        // Asked again after the rows were read: a run that read an older row has a slot now, or has written its link by now.
        let still = self.at_rest(&candidates).await?;
        let mut tx = self.engine.db.begin().await?;
        let drift = self.differing(&mut tx, &rows, &still).await?;
        store_drift(&mut tx, sync, place.run_id, &drift).await?;
        place.drift += i64::try_from(drift.len()).unwrap_or(i64::MAX);
        let next = match keys.last().filter(|_| !broken) {
            Some(last) => {
                place.after = Some(last.clone());
                sweep::keep(&mut tx, sync, &place, 0).await?;
                Next::Go(Box::new(place))
            }
            None => {
                sums.messages.extend(self.push(&mut tx, &mut place).await?);
                sweep::keep(&mut tx, sync, &place, 0).await?;
                self.end(&mut tx, &place).await?;
                Next::End(Box::new(place))
            }
        };
        let (Next::Go(at) | Next::End(at)) = &next;
        note_run(&mut tx, at.run_id, &sums).await?;
        tx.commit().await?;
        Ok(next)
    }

    /// Of these keys, those of which nothing is under way and nothing waits for a person, or was decided by one.
    async fn at_rest(&self, keys: &[String]) -> Result<Vec<String>, sqlx::Error> {
        sqlx::query_scalar!(
            r#"select k.key as "key!" from unnest($2::text[]) as k (key)
               left join sluice.link l on l.sync = $1 and l.key = k.key
               where (l.key is null or l.zoho_id is not null and l.gone_at is null and not l.held and not l.unsure)
                 and not exists (select from sluice.slot s where s.sync = $1 and s.key = k.key)
                 and not exists (select from sluice.job j where j.sync = $1 and j.key = k.key)
                 and not exists (select from sluice.local_write w where w.sync = $1 and w.key = k.key and w.pull is not null)
                 and not exists (select from sluice.dead_letter d where d.sync = $1 and d.key = k.key
                   and (d.resolution is null or d.resolution = 'discarded' and d.resolved_at > coalesce(l.synced_at, '-infinity')))
                 and not exists (select from sluice.held_record h where h.sync = $1 and h.key = k.key
                   and (h.resolution is null or h.resolution = 'rejected' and h.resolved_at > coalesce(l.synced_at, '-infinity')))"#,
            self.definition.name(),
            keys
        )
        .fetch_all(&self.engine.db)
        .await
    }

    /// The rows that need a call, with what is to be shown of them.
    async fn differing(
        &self,
        tx: &mut Tx,
        rows: &BTreeMap<String, Found>,
        at_rest: &[String],
    ) -> Result<Vec<(String, Value)>, sqlx::Error> {
        let rows: Vec<&Row> =
            at_rest.iter().filter_map(|key| if let Some(Found::Row(row)) = rows.get(key) { Some(row) } else { None }).collect();
        let known = links::load(tx, self.definition.name(), at_rest).await?;
        let refs: Vec<_> = rows.iter().flat_map(|row| row.refs()).collect();
        let parents = links::parents(tx, &refs).await?;
        let nothing = BTreeSet::new();
        let needs = |row: &&Row| {
            let link = known.get(&row.key);
            let facts = Facts { row: Some(row), link, parents: &parents, leave_out: &nothing, repair: &nothing, force: false };
            match plan::decide(self.definition, facts) {
                Step::Create(_) => Some((row.key.clone(), sample("create", row, None, Vec::new()))),
                Step::Update { changed, .. } => Some((row.key.clone(), sample("update", row, link, changed))),
                Step::WaitFor(_) => {
                    Some((row.key.clone(), sample(if link.is_some() { "update" } else { "create" }, row, link, Vec::new())))
                }
                Step::Nothing(_)
                | Step::Delete { .. }
                | Step::Void { .. }
                | Step::Mark { .. }
                | Step::Held { .. }
                | Step::Unsendable { .. } => None,
            }
        };
        Ok(rows.iter().filter_map(needs).collect())
    }

    /// All rows were seen: what differs is pushed, or held if it is a mass change. What is to be said.
    async fn push(&self, tx: &mut Tx, place: &mut Place) -> Result<Option<String>, sqlx::Error> {
        let sync = self.definition.name();
        let found = sqlx::query!(
            r#"select (select count(*) from sluice.drift where sync = $1 and run_id = $2) as "drift!",
                 (select greatest(y.total, (select c.linked from sluice.sync_counter c where c.sync = y.name), 0) from sluice.sync y where y.name = $1) as "total""#,
            sync,
            place.run_id
        )
        .fetch_one(&mut *tx)
        .await?;
        if found.drift == 0 {
            return Ok(None);
        }
        let limit = self.definition.sync.brake.and_then(|brake| Some((brake.max_changes?, brake.per)));
        let allowed = limit.map(|(limit, per)| (limit.braked(found.total.unwrap_or(0).max(0).unsigned_abs()), per));
        let said = match allowed.filter(|(allowed, _)| found.drift.unsigned_abs() > *allowed) {
            Some((allowed, per)) => {
                let reason = format!(
                    "a sweep found {} rows that differ from what was synced and were not captured; within {} the brake allows {allowed}",
                    found.drift,
                    format_duration(per)
                );
                let id = store::hold(tx, sync, "change", &reason).await?;
                sqlx::query!(
                    "with named as (insert into sluice.held_record (held_id, sync, key, operation)
                       select $1, $2, d.key, d.sample ->> 'operation' from sluice.drift d where d.sync = $2 and d.run_id = $3 order by d.key)
                     update sluice.held_change set records = $4,
                       sample = (select jsonb_agg(s.sample order by s.key) from (select * from sluice.drift d where d.sync = $2 and d.run_id = $3 order by d.key limit 10) s)
                     where id = $1",
                    id,
                    sync,
                    place.run_id,
                    found.drift
                )
                .execute(&mut *tx)
                .await?;
                place.held = true;
                format!("{reason}: sluice held show {id}")
            }
            None => {
                sqlx::query!(
                    "insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', $1::text, 'key', d.key), $3
                     from sluice.drift d where d.sync = $1 and d.run_id = $2 order by d.key",
                    sync,
                    place.run_id,
                    self.work.batch.lane
                )
                .execute(&mut *tx)
                .await?;
                format!("{} rows differ from what was synced and are pushed", found.drift)
            }
        };
        sqlx::query!("delete from sluice.drift where sync = $1", sync).execute(tx).await?;
        Ok(Some(said))
    }
}

async fn store_drift(tx: &mut Tx, sync: &str, run_id: i64, drift: &[(String, Value)]) -> Result<(), sqlx::Error> {
    if drift.is_empty() {
        return Ok(());
    }
    let (keys, samples): (Vec<String>, Vec<Value>) = drift.iter().cloned().unzip();
    sqlx::query!(
        "insert into sluice.drift (sync, key, run_id, sample) select $1, n.key, $2, n.sample from unnest($3::text[], $4::jsonb[]) as n (key, sample) order by n.key
         on conflict on constraint drift_pkey do update set run_id = excluded.run_id, sample = excluded.sample",
        sync,
        run_id,
        &keys,
        &samples
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// What a person is shown, as a brake shows it.
fn sample(operation: &str, row: &Row, link: Option<&Link>, changed: Vec<String>) -> Value {
    let fields: serde_json::Map<String, Value> = changed
        .into_iter()
        .take(8)
        .map(|field| {
            let old = link.and_then(|link| link.fields.get(&field)).map_or(Value::Null, |pair| pair.local.clone());
            let new = row.fields.get(&field).map_or(Value::Null, |value| value.local());
            (field, json!({"old": old, "new": new}))
        })
        .collect();
    json!({"key": row.key, "operation": operation, "changed": fields})
}
