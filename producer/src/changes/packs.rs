//! What the database hands out when changes are taken, and what each of them says.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::db::Tx;
use sqlx::postgres::types::Oid;

use super::store::{Change, Moved, Operation};

/// Changes of one relation and one form: their parts side by side, `None` where none of them has that part.
#[derive(Debug, Default)]
pub(super) struct Pack {
    pub(super) relation: String,
    pub(super) operation: String,
    /// The only kept column; its values are `keys`.
    pub(super) kept: Option<String>,
    pub(super) relid: Option<Oid>,
    pub(super) layout: Option<i32>,
    pub(super) keys: Option<Vec<String>>,
    pub(super) before: Option<Vec<Value>>,
    pub(super) after: Option<Vec<Value>>,
    /// Names of columns.
    pub(super) changed: Option<Vec<Value>>,
    /// Or their bits: bit n - 1 stands for column n.
    pub(super) touched: Option<Vec<i64>>,
    pub(super) moves: Option<Vec<i64>>,
    pub(super) origins: Option<Vec<String>>,
    pub(super) captured_at: Vec<DateTime<Utc>>,
}

/// The columns of tables, as they are now.
#[derive(Debug, Default)]
pub(super) struct Tables(HashMap<Oid, Table>);

#[derive(Debug, Default)]
struct Table {
    layout: Option<i32>,
    names: BTreeMap<i16, String>,
}

impl Tables {
    /// Those that updates are of. Of tables that are gone there are none.
    pub(super) async fn of(tx: &mut Tx, packs: &[Pack]) -> Result<Self, sqlx::Error> {
        let tables: HashSet<Oid> = packs.iter().filter(|pack| pack.operation == "update").filter_map(|pack| pack.relid).collect();
        let tables: Vec<Oid> = tables.into_iter().collect();
        let mut known = Self::default();
        if tables.is_empty() {
            return Ok(known);
        }
        let rows = sqlx::query!(
            r#"select a.attrelid as table, a.attnum as number, a.attname::text as "name!", l.layout
               from (select t, sluice.layout(t) as layout from unnest($1::oid[]) t) l
               join pg_catalog.pg_attribute a on a.attrelid = l.t and a.attnum >= 1 and not a.attisdropped"#,
            &tables
        )
        .fetch_all(tx)
        .await?;
        for row in rows {
            let table = known.0.entry(row.table).or_default();
            table.layout = row.layout;
            table.names.insert(row.number, row.name);
        }
        Ok(known)
    }

    /// The pack's table, if its columns are still those that capture knew and the mapped ones are among them. Otherwise whatever changed
    /// may be one of these.
    fn known(&self, pack: &Pack, mapped: Option<&BTreeSet<&str>>) -> Option<&Table> {
        let table = self.0.get(&pack.relid?).filter(|table| table.layout.is_some() && table.layout == pack.layout)?;
        let has = |name: &&&str| table.names.values().any(|own| own == **name);
        mapped.is_none_or(|mapped| mapped.iter().all(|name| has(&name))).then_some(table)
    }
}

impl Table {
    fn bits(&self, names: &BTreeSet<&str>) -> i64 {
        let numbers = self.names.iter().filter(|(_, name)| names.contains(name.as_str())).map(|(number, _)| number);
        numbers.filter_map(bit).fold(0, |bits, bit| bits | bit)
    }

    fn named(&self, bits: i64) -> Arc<[String]> {
        self.names.iter().filter(|(number, _)| bit(number).is_some_and(|bit| bits & bit != 0)).map(|(_, name)| name.clone()).collect()
    }
}

fn bit(number: &i16) -> Option<i64> {
    (1..=63).contains(number).then(|| 1 << (number - 1))
}

impl Pack {
    /// The changes one by one; those that touch no column of `mapped` (absent: every column matters) only as their number.
    pub(super) fn unpack(mut self, tables: &Tables, mapped: Option<&BTreeSet<&str>>) -> Vec<Change> {
        let table = tables.known(&self, mapped);
        let mask = table.zip(mapped).map(|(table, mapped)| table.bits(mapped));
        let relation: Arc<str> = self.relation.as_str().into();
        let operation = match self.operation.as_str() {
            "insert" => Operation::Insert,
            "update" => Operation::Update,
            "delete" => Operation::Delete,
            _ => Operation::Truncate,
        };
        let mut named: HashMap<i64, Arc<[String]>> = HashMap::new();
        let mut untouched = 0;
        let mut changes = Vec::new();
        for at in 0..self.captured_at.len() {
            let bits = part(&self.touched, at).copied();
            let names = part(&self.changed, at);
            let moved = part(&self.moves, at).map(|number| Moved {
                number: *number,
                relid: self.relid,
                touched: bits,
                layout: self.layout,
                origin: part(&self.origins, at).cloned(),
                captured_at: self.captured_at[at],
            });
            // Where names say it, each sync looks for itself.
            let beside = mask.zip(bits).is_some_and(|(mask, bits)| bits & mask == 0);
            if operation == Operation::Update && moved.is_none() && beside {
                untouched += 1;
                continue;
            }
            let changed = table.and_then(|table| match (bits, names) {
                (Some(bits), _) => Some(named.entry(bits).or_insert_with(|| table.named(bits)).clone()),
                (None, Some(Value::Array(names))) => Some(names.iter().filter_map(|name| name.as_str().map(str::to_owned)).collect()),
                _ => None,
            });
            let after = match (&self.kept, part_mut(&mut self.keys, at)) {
                (Some(kept), Some(key)) => Some(Value::from_iter([(kept.clone(), Value::from(std::mem::take(key)))])),
                _ => part_mut(&mut self.after, at).map(Value::take),
            };
            let before = part_mut(&mut self.before, at).map(Value::take);
            changes.push(Change { relation: relation.clone(), operation, before, after, changed, moved, changes: 1 });
        }
        if untouched > 0 {
            let operation = Operation::Untouched;
            changes.push(Change { relation, operation, before: None, after: None, changed: None, moved: None, changes: untouched });
        }
        changes
    }
}

fn part<T>(parts: &Option<Vec<T>>, at: usize) -> Option<&T> {
    parts.as_ref()?.get(at)
}

fn part_mut<T>(parts: &mut Option<Vec<T>>, at: usize) -> Option<&mut T> {
    parts.as_mut()?.get_mut(at)
}
