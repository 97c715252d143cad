//! First contact: a Zoho record that no row is linked to. It is the row's that says so (the column of the Zoho id, or `match_on`), else a new
//! row is made of it. Never a guess: several rows that could be meant wait for a person.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_core::config::field::Field;
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Claimed, Outcome};
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::store as links;
use sluice_sync::merge;
use sluice_sync::module::{CLOCKS_DIFFER_BY, parse_time};
use sluice_sync::read::{FieldValue, Found, Row};
use sluice_sync::value;

use super::around::Around;
use super::{Gathered, MISSING, Merged, Next, Run, Verdict, stranger_id, waits_for};
use crate::handlers::{ended, snooze};
use crate::session::Ended;
use crate::work::{Act, Pull};

/// A record that may be what a create of ours made is looked at again after this.
const IN_DOUBT: Duration = Duration::from_secs(5);

/// How it stands with a record that another one refers to, and that had no row when this was last asked.
enum Standing {
    /// It has one since.
    Linked,
    /// It was looked at lately, came to no row, and no run of it is under way.
    LookedFor,
    /// It has to be asked for, or has been.
    Unknown,
}

impl Run<'_> {
    pub(super) async fn know_strangers(
        &self,
        slots: &[&Claimed],
        failed: &BTreeMap<String, Arc<Ended>>,
        gathered: &mut Gathered,
        verdicts: &mut BTreeMap<i64, Verdict>,
    ) -> Result<(), sqlx::Error> {
        if slots.is_empty() {
            return Ok(());
        }
        let ids: Vec<String> = slots.iter().map(|slot| stranger_id(slot)).collect();
        let mut tx = self.engine.db.begin().await?;
        let linked = links::keys_of(&mut tx, self.definition.name(), &ids).await?;
        tx.commit().await?;
        let Around { keys, own, .. } = self.around(&[], &gathered.sights).await?;
        for slot in slots {
            let id = stranger_id(slot);
            let verdict = if let Some(letter) = self.engine.policy.exhausted(slot) {
                Verdict::dead(letter)
            } else if let Some(failure) = failed.get(&id) {
                Verdict::of(ended(self.engine, self.work, self.session, slot, failure, false).0)
            } else if let Some(key) = linked.get(&id) {
                self.go_on_with(key, &id, gathered);
                Verdict::of(Outcome::Done { reason: Some("linked") })
            } else {
                match gathered.sights.get(&id).and_then(|sight| sight.record.clone()) {
                    None => Verdict::of(Outcome::Done { reason: Some("gone") }),
                    Some(record) => self.first_contact(slot, &id, &record, (&keys, own.get(&id)), gathered).await?,
                }
            };
            verdicts.insert(slot.id, verdict);
        }
        Ok(())
    }

    /// The record has a row: that one's run goes on with what was read.
    fn go_on_with(&self, key: &str, id: &str, gathered: &mut Gathered) {
        gathered.runs.insert(Next::Key { sync: self.definition.name().to_owned(), key: key.to_owned() });
        if let Some(sight) = gathered.sights.remove(id) {
            gathered.handed_on.push((id.to_owned(), sight));
        }
    }

    async fn first_contact(
        &self,
        slot: &Claimed,
        id: &str,
        record: &Value,
        (keys, own): (&merge::Keys, Option<&BTreeMap<String, Value>>),
        gathered: &mut Gathered,
    ) -> Result<Verdict, sqlx::Error> {
        let rows = self.rows_of(id, record).await?;
        match rows.as_slice() {
            [] => {}
            // the row is another record's of this very batch: decided when that is linked
            [key] if gathered.adopted.iter().any(|(adopted, _)| adopted == key) => {
                gathered.handed_on.extend(gathered.sights.remove(id).map(|sight| (id.to_owned(), sight)));
                return Ok(Verdict::of(snooze(IN_DOUBT, "its row is another record's, which is being linked")));
            }
            [key] => {
                gathered.adopted.push((key.clone(), id.to_owned()));
                self.go_on_with(key, id, gathered);
                return Ok(Verdict::of(Outcome::Done { reason: Some("matched") }));
            }
            several => {
                let letter = Letter::new(Class::Duplicate, format!("several rows match Zoho's record {id}: {}", several.join(", ")))
                    .hint("write its id into the right one's Zoho id column, or make them differ in the match_on fields, then requeue");
                return Ok(Verdict::dead(letter));
            }
        }
        if !self.definition.sync.inserts {
            let Some((key, linked)) = self.taken_row(record).await? else {
                return Ok(Verdict::of(Outcome::Done { reason: Some("no_row") }));
            };
            let letter = Letter::new(
                Class::Duplicate,
                format!("Zoho's record {id} matches the row {key}, which is linked to Zoho's {linked} already"),
            )
            .hint("merge the two in Zoho, or make them differ in the match_on fields, then requeue");
            return Ok(Verdict::dead(letter));
        }
        if let Some(verdict) = self.may_be_ours(id, record, gathered).await? {
            return Ok(verdict);
        }
        if own.is_none() && !self.definition.sync.columns.is_empty() {
            let letter = Letter::new(Class::Payload, "an expression of `columns` fails on this record")
                .hint("mend the expression in the sync's `columns` (sluice check shows whether it can be prepared), then requeue");
            return Ok(Verdict::dead(letter));
        }
        let nothing = BTreeMap::new();
        let merge::NewRow { columns, pulled, rows, files, missing } = merge::insert(self.definition, record, own.unwrap_or(&nothing), keys);
        if let Some(verdict) = self.await_rows(&missing, gathered).await? {
            return Ok(verdict);
        }
        let pull = Pull {
            key: slot.key.clone(),
            zoho_id: id.to_owned(),
            act: Act::Insert,
            gone: false,
            columns,
            expected: BTreeMap::new(),
            pulled,
            rows,
            files: BTreeMap::new(),
            modified_at: self.definition.module.modified_at(record),
            closes: false,
            run_id: None,
        };
        let merge = merge::Merge { files, ..merge::Merge::default() };
        gathered.merged.insert(slot.id, Merged { pull: Some(pull), merge, ..Merged::default() });
        Ok(Verdict::of(Outcome::Done { reason: None }))
    }

    /// The row of a linked record is gone. Where nothing is pushed no capture tells of a key that changed: the row that says it is the record's takes
    /// the link over.
    pub(super) async fn row_elsewhere(&self, key: &str, id: &str, record: &Value, gathered: &mut Gathered) -> Result<Verdict, sqlx::Error> {
        let rows = self.rows_of(id, record).await?;
        let [to] = rows.as_slice() else { return Ok(Verdict::of(Outcome::Done { reason: Some("row_gone") })) };
        gathered.moved.push((key.to_owned(), to.clone()));
        gathered.runs.insert(Next::Anew { sync: self.definition.name().to_owned(), zoho_id: id.to_owned() });
        Ok(Verdict::of(Outcome::Done { reason: Some("matched") }))
    }

    /// Whether a record without row may be what a create of ours made, whose answer is not here yet or was lost. It waits until that is known: given a row
    /// of its own, it would be passed by where the lost create is looked up, which would then be sent again. A create that gave up has told a person; a
    /// record that says what its row says is for him as well.
    async fn may_be_ours(&self, id: &str, record: &Value, gathered: &mut Gathered) -> Result<Option<Verdict>, sqlx::Error> {
        let (definition, module) = (self.definition, &self.definition.module);
        if !definition.sync.direction.pushes() {
            return Ok(None);
        }
        let created = ["created_time", "Created_Time"].iter().find_map(|name| parse_time(record.get(*name)?.as_str()?));
        let doubts = sqlx::query!(
            r#"select l.key, coalesce(l.reference, l.sync || ':' || l.key) as "reference!",
                 exists (select from sluice.slot s where s.sync = l.sync and s.key = l.key) as "under_way!"
               from sluice.link l
               where l.sync = $1 and l.zoho_id is null and (l.create_sent_at is not null or l.creates > 0)
                 and coalesce(l.create_sent_at, l.created_at) <= coalesce($2::timestamptz, 'infinity') + make_interval(secs => $3)
               order by l.key limit 100"#,
            definition.name(),
            created.or_else(|| module.modified_at(record)),
            CLOCKS_DIFFER_BY.as_seconds_f64()
        )
        .fetch_all(&self.engine.db)
        .await?;
        let shown = definition.reference().and_then(|field| field_in(module, record, field)).map(value::scalar_text);
        let doubts: Vec<_> = doubts.into_iter().filter(|one| shown.as_ref().is_none_or(|shown| *shown == one.reference)).collect();
        if doubts.iter().any(|one| one.under_way) {
            gathered.handed_on.extend(gathered.sights.remove(id).map(|sight| (id.to_owned(), sight)));
            return Ok(Some(Verdict::of(snooze(IN_DOUBT, "a create of ours is under way, and this may be what it made"))));
        }
        let keys: Vec<String> = doubts.into_iter().map(|one| one.key).collect();
        let rows = match self.engine.reader.rows(definition, &keys).await {
            Ok(rows) => rows,
            Err(sluice_sync::read::Error::Unavailable(error)) => return Err(error),
            Err(sluice_sync::read::Error::Broken { .. }) => return Ok(None),
        };
        let says_the_same = |row: &Row| {
            let both = |(path, field): (&String, &FieldValue)| {
                Some((
                    field.sent(path, &self.parents, module.wraps_lookups()).filter(|_| !field.is_null())?,
                    field_in(module, record, path)?,
                ))
            };
            let mut both = row.fields.iter().filter_map(both).peekable();
            both.peek().is_some() && both.all(|(sent, theirs)| value::alike(&sent, theirs))
        };
        let same = rows.iter().find(|(_, found)| matches!(found, Found::Row(row) if says_the_same(row)));
        Ok(same.map(|(key, _)| {
            let message =
                format!("Zoho's record {id} says what the row {key} says, and a create of that row was sent whose answer was lost");
            Verdict::dead(
                Letter::new(Class::Duplicate, message)
                    .hint("requeue the row's own dead letter first, which looks for its record; then this one"),
            )
        }))
    }

    /// A record refers to others that have no row yet: they are asked for first. One that was asked for and came to no row is waited for no more.
    pub(super) async fn await_rows(&self, missing: &[(String, String)], gathered: &mut Gathered) -> Result<Option<Verdict>, sqlx::Error> {
        let next = |(sync, zoho_id): &(String, String)| Next::Zoho { sync: sync.clone(), zoho_id: zoho_id.clone() };
        let mut coming = Vec::new();
        for one in missing.iter().filter(|one| self.pulls(&next(one))) {
            match self.standing(one).await? {
                Standing::Linked => {}
                Standing::LookedFor => continue,
                Standing::Unknown => drop(gathered.runs.insert(next(one))),
            }
            coming.push(one.clone());
        }
        Ok((!coming.is_empty()).then(|| Verdict::of(Outcome::Snooze { after: MISSING, reason: waits_for(&coming) })))
    }

    /// In one statement: what came to its row is linked before nothing is left of its run.
    async fn standing(&self, (sync, zoho_id): &(String, String)) -> Result<Standing, sqlx::Error> {
        let (linked, looked_for) = sqlx::query!(
            r#"select exists (select from sluice.link where sync = $1 and zoho_id = $2) as "linked!",
                  exists (select from sluice.attempt where sync = $1 and key = 'zoho:' || $2 and at > clock_timestamp() - interval '10 minutes')
                  and not exists (select from sluice.slot where sync = $1 and key = 'zoho:' || $2)
                  and not exists (select from sluice.local_write where sync = $1 and key = 'zoho:' || $2) as "looked_for!""#,
            sync,
            zoho_id
        )
        .fetch_one(&self.engine.db)
        .await
        .map(|row| (row.linked, row.looked_for))?;
        Ok(match (linked, looked_for) {
            (true, _) => Standing::Linked,
            (false, true) => Standing::LookedFor,
            (false, false) => Standing::Unknown,
        })
    }

    /// The unlinked rows that say they are this record's: by the column that holds the Zoho id, else by all fields of `match_on`.
    async fn rows_of(&self, id: &str, record: &Value) -> Result<Vec<String>, sqlx::Error> {
        let sync = &self.definition.sync;
        if let Some(column) = &sync.writeback.id {
            let rows = self.unlinked(&[(column.as_str(), id.to_owned())]).await?;
            if !rows.is_empty() {
                return Ok(rows);
            }
        }
        match self.match_values(record) {
            Some(wanted) if !wanted.is_empty() => self.unlinked(&wanted).await,
            Some(_) | None => Ok(Vec::new()),
        }
    }

    /// A row that says in all fields of `match_on` what the record says, and is another's: (key, Zoho id).
    async fn taken_row(&self, record: &Value) -> Result<Option<(String, String)>, sqlx::Error> {
        let Some(wanted) = self.match_values(record).filter(|wanted| !wanted.is_empty()) else { return Ok(None) };
        let rows = self.engine.reader.keys_where(self.definition, &wanted, 20).await?;
        let mut tx = self.engine.db.begin().await?;
        let links = links::load(&mut tx, self.definition.name(), &rows).await?;
        tx.commit().await?;
        Ok(links.into_values().filter(|link| link.gone_at.is_none()).find_map(|link| Some((link.key, link.zoho_id?))))
    }

    /// What the columns behind `match_on` must say; `None`: the record does not say it.
    fn match_values(&self, record: &Value) -> Option<Vec<(&str, String)>> {
        let sync = &self.definition.sync;
        let wanted: Option<Vec<(&str, String)>> = sync
            .match_on
            .iter()
            .map(|path| match (self.definition.fields().get(path), field_in(&self.definition.module, record, path)) {
                (Some(Field::Column(field)), Some(theirs)) if field.values.is_empty() && !value::is_empty(theirs) => {
                    Some((field.column.as_str(), value::scalar_text(theirs)))
                }
                _ => None,
            })
            .collect();
        wanted
    }

    async fn unlinked(&self, wanted: &[(&str, String)]) -> Result<Vec<String>, sqlx::Error> {
        let rows = self.engine.reader.keys_where(self.definition, wanted, 20).await?;
        if rows.is_empty() {
            return Ok(rows);
        }
        let mut tx = self.engine.db.begin().await?;
        let links = links::load(&mut tx, self.definition.name(), &rows).await?;
        tx.commit().await?;
        Ok(rows.into_iter().filter(|key| links.get(key).is_none_or(|link| link.zoho_id.is_none())).collect())
    }
}
