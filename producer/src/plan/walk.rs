//! The walk over a sync's rows, a page at a time, and to the parents that they wait for. It reads, and nothing else: in read-only transactions.
//!
//! What is kept in memory beside a page: a key for each missing parent, and, for a sync whose rows refer to rows of its own, a key for each row
//! without Zoho record.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sluice_core::db::{Db, cut};
use sluice_sync::definition::Definition;
use sluice_sync::key;
use sluice_sync::link::{self, Link};
use sluice_sync::read::{self, Found, Parents, Reader, Ref, Row};

use super::calls::Tally;
use super::record::{self, Need, Problem};
use super::{Error, Letter, Parent, Rows, What};
use crate::definitions::Definitions;
use crate::trigger::{self, Standing};

/// Keys of a page.
const PAGE: u32 = 1000;
/// Rows that one statement reads: mappings with expressions take their time, and one has five seconds.
const READ: usize = 250;
/// What our own tables are asked.
const LIMIT: Duration = Duration::from_secs(30);
/// Rows that cannot be mapped, of which the plan says why.
const LETTERS: usize = 10;
/// Parents of parents of parents …
const DEPTH: u32 = 32;

/// Whether a parent will have a Zoho id.
#[derive(Debug, Clone)]
enum Fate {
    /// With whether its own push is counted already.
    Coming {
        counted: bool,
    },
    Never(String),
}

/// What the walk is over, and what it has found.
pub(super) struct Walk<'a> {
    pub(super) db: &'a Db,
    pub(super) reader: &'a Reader,
    pub(super) definitions: &'a Definitions,
    pub(super) definition: &'a Definition,
    pub(super) what: &'a What,
    pub(super) rows: Rows,
    pub(super) letters: Vec<Letter>,
    /// By sync: the walk's own, and those of parents.
    pub(super) tallies: BTreeMap<String, Tally>,
    pub(super) parents: BTreeMap<String, Parent>,
    fates: HashMap<(String, String), Fate>,
    /// Keys of the walk's own rows without Zoho record, where a row may name another one of the same sync.
    own: HashSet<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(db: &'a Db, reader: &'a Reader, definitions: &'a Definitions, definition: &'a Definition, what: &'a What) -> Self {
        Self {
            db,
            reader,
            definitions,
            definition,
            what,
            rows: Rows::default(),
            letters: Vec::new(),
            tallies: BTreeMap::new(),
            parents: BTreeMap::new(),
            fates: HashMap::new(),
            own: HashSet::new(),
        }
    }

    /// Looks at every row. `progress` is told how many it has seen.
    pub(super) async fn all(&mut self, progress: &mut (dyn FnMut(u64) + Send)) -> Result<(), Error> {
        let mut after: Option<String> = None;
        loop {
            let keys = self.page(after.as_deref()).await?;
            let Some((last, _)) = keys.last() else { return Ok(()) };
            after = Some(last.clone());
            let count = keys.len();
            self.rows.looked_at += u64::try_from(count).unwrap_or(u64::MAX);
            self.asked_for(keys).await?;
            progress(self.rows.looked_at);
            if count < usize::try_from(PAGE).unwrap_or(usize::MAX) {
                return Ok(());
            }
        }
    }

    /// The next keys, with what `when` says where that decides who is asked for.
    async fn page(&self, after: Option<&str>) -> Result<Vec<(String, bool)>, Error> {
        match self.what {
            What::Trigger { .. } => match self.reader.keys_told_after(self.definition, after, PAGE).await {
                Ok(keys) => Ok(keys),
                Err(error) => Err(trigger::blamed(self.reader, self.definition, after, error).await.into()),
            },
            What::Backfill { condition, .. } => {
                let keys = self.reader.keys_after(self.definition, condition.as_deref(), after, PAGE).await;
                match keys {
                    Ok(keys) => Ok(keys.into_iter().map(|key| (key, true)).collect()),
                    Err(sqlx::Error::Database(refusal)) if condition.is_some() => Err(Error::Where(cut(refusal.message()))),
                    Err(error) => Err(trigger::Error::from(error).into()),
                }
            }
        }
    }

    /// Counts the rows for which no run is asked, and decides the others.
    async fn asked_for(&mut self, keys: Vec<(String, bool)>) -> Result<(), Error> {
        let (within, excluded): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(_, when)| *when);
        self.rows.excluded += count(&excluded);
        let mut within: Vec<String> = within.into_iter().map(|(key, _)| key).collect();
        within.retain(|key| self.may_be(key));
        let mut tx = self.db.begin_read_only(None, LIMIT).await?;
        let standings = trigger::standing(&mut tx, self.definition.name(), &within).await?;
        tx.rollback().await?;
        let every = self.what.every();
        let (due, rest): (Vec<Standing>, Vec<Standing>) = standings.into_iter().partition(|one| one.is_due(self.definition, every));
        self.rows.not_due += count(&rest);
        self.rows.under_way += count(&rest.iter().chain(&due).filter(|one| one.under_way).collect::<Vec<_>>());
        self.rows.with_dead_letter += count(&rest.iter().chain(&due).filter(|one| one.letter).collect::<Vec<_>>());
        self.rows.due += count(&due);
        self.tallies.entry(self.definition.name().to_owned()).or_default().batches +=
            count(&due).div_ceil(self.definition.batch_max().into());
        for part in due.chunks(READ) {
            let keys: Vec<String> = part.iter().map(|one| one.key.clone()).collect();
            self.decide(&keys).await?;
        }
        Ok(())
    }

    /// Whether the key can be a record's; otherwise a trigger leaves its row out.
    fn may_be(&mut self, key: &str) -> bool {
        let Some(reason) = key::refused(key) else { return true };
        self.rows.due += 1;
        self.rows.unmappable += 1;
        if self.letters.len() < LETTERS {
            self.letters.push(Letter { key: key::shown(key), class: "payload", field: "key".to_owned(), reason });
        }
        false
    }

    async fn decide(&mut self, keys: &[String]) -> Result<(), Error> {
        let (definition, forgotten) = (self.definition, self.what.forgets());
        let records = self.load(definition, keys, forgotten).await?;
        if definition.parents.contains_key(definition.name()) {
            self.own.extend(records.iter().filter(|one| !one.linked()).map(|one| one.key.clone()));
        }
        for (key, row, need, waits) in self.needs(definition, records, forgotten, 0).await? {
            // another row's parent, that was met before its own turn
            if !matches!(self.fates.get(&(definition.name().to_owned(), key.clone())), Some(Fate::Coming { counted: true })) {
                self.tallies.entry(definition.name().to_owned()).or_default().add(&need, waits.is_some());
            }
            self.note(key, row.is_some_and(|row| row.when), &need, waits);
        }
        Ok(())
    }

    /// Counts a row of the sync itself.
    fn note(&mut self, key: String, when: bool, need: &Need, waits: Option<String>) {
        let rows = &mut self.rows;
        if !when {
            rows.excluded += 1;
        }
        if let Some(parent) = waits {
            rows.waiting += 1;
            self.parents.entry(parent).or_default().waiting += 1;
        }
        match need {
            Need::Excluded => rows.due -= 1,
            Need::Nothing | Need::LookAgain => rows.unchanged += 1,
            Need::Held => rows.held += 1,
            Need::Create { .. } => rows.create += 1,
            Need::Update { read, .. } => {
                rows.update += 1;
                rows.read_first += u64::from(*read);
            }
            Need::Delete => rows.delete += 1,
            Need::Void => rows.void += 1,
            Need::Mark => rows.mark += 1,
            Need::Dead(Problem { class, field, reason }) => {
                rows.unmappable += 1;
                if self.letters.len() < LETTERS {
                    self.letters.push(Letter { key, class, field: field.clone(), reason: reason.clone() });
                }
            }
        }
    }

    /// What each record needs, as it will be when its parents have come. With it the sync that it waits for.
    async fn needs(&mut self, definition: &Definition, records: Vec<Record>, forgotten: bool, depth: u32) -> Result<Vec<Decided>, Error> {
        let refs: Vec<Ref> = records.iter().filter_map(|one| one.row.as_ref()).flat_map(Row::refs).collect();
        let mut tx = self.db.begin_read_only(None, LIMIT).await?;
        let mut parents = link::store::parents(&mut tx, &refs).await?;
        tx.rollback().await?;
        let judged = |one: &Record, parents: &Parents| record::need(definition, one.row.as_ref(), one.link.as_ref(), parents, forgotten);
        let mut missing: Vec<Ref> = records.iter().filter_map(|one| judged(one, &parents).err()).flatten().collect();
        missing.sort();
        Box::pin(self.resolve(&missing, depth)).await?;
        let mut decided = Vec::new();
        let mut coming = Parents::new();
        for one in &missing {
            if matches!(self.fates.get(&(one.sync.clone(), one.key.clone())), Some(Fate::Coming { .. })) {
                coming.insert((one.sync.clone(), one.key.clone()), "0".to_owned());
            }
        }
        let known = parents.clone();
        parents.extend(coming);
        for one in records {
            let (need, waits) = match judged(&one, &known) {
                Ok(need) => (need, None),
                Err(first) => match judged(&one, &parents) {
                    Ok(need) => (need, first.first().map(|parent| parent.sync.clone())),
                    Err(never) => (Need::Dead(self.never(&never)), None),
                },
            };
            decided.push((one.key, one.row, need, waits));
        }
        Ok(decided)
    }

    fn never(&self, missing: &[Ref]) -> Problem {
        let why = missing.iter().find_map(|one| match self.fates.get(&(one.sync.clone(), one.key.clone())) {
            Some(Fate::Never(why)) => Some((one.field.clone(), format!("{} {} {why}", one.sync, one.key))),
            Some(Fate::Coming { .. }) | None => None,
        });
        let (field, reason) = why.unwrap_or_default();
        Problem { class: "dependency", field, reason }
    }

    /// Finds out what becomes of these parents, and of theirs.
    async fn resolve(&mut self, missing: &[Ref], depth: u32) -> Result<(), Error> {
        let mut by_sync: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for one in missing.iter().filter(|one| !self.fates.contains_key(&(one.sync.clone(), one.key.clone()))) {
            by_sync.entry(one.sync.clone()).or_default().insert(one.key.clone());
        }
        for (sync, keys) in by_sync {
            let keys: Vec<String> = keys.into_iter().collect();
            for keys in keys.chunks(READ) {
                self.resolve_in(&sync, keys, depth).await?;
            }
        }
        Ok(())
    }

    async fn resolve_in(&mut self, sync: &str, keys: &[String], depth: u32) -> Result<(), Error> {
        let never = |why: &str| Fate::Never(why.to_owned());
        let Some(definition) = self.definitions.by_name.get(sync).cloned() else {
            // its sync does not fit its table now, and waits for that itself
            self.fates.extend(keys.iter().map(|key| ((sync.to_owned(), key.clone()), Fate::Coming { counted: false })));
            return Ok(());
        };
        if !definition.sync.direction.pushes() {
            let why = never("has no Zoho record, and its sync only pulls");
            self.fates.extend(keys.iter().map(|key| ((sync.to_owned(), key.clone()), why.clone())));
            return Ok(());
        }
        let mut tx = self.db.begin_read_only(None, LIMIT).await?;
        let standings: HashMap<String, Standing> =
            trigger::standing(&mut tx, sync, keys).await?.into_iter().map(|one| (one.key.clone(), one)).collect();
        tx.rollback().await?;
        let mut open = Vec::new();
        for one in self.load(&definition, keys, false).await? {
            let name = (sync.to_owned(), one.key.clone());
            let standing = standings.get(&one.key);
            let fate = match &one.row {
                _ if standing.is_some_and(|one| one.letter && !one.under_way) => Some(never("is a dead letter itself")),
                None => Some(never(&format!("has no row in {}", definition.sync.table))),
                Some(row) if !row.when => Some(never("is excluded by its sync's `when`")),
                Some(_) => None,
            };
            match fate {
                Some(fate) => drop(self.fates.insert(name, fate)),
                None => {
                    // for the time being: or a cycle would not end
                    self.fates.insert(name, Fate::Coming { counted: false });
                    open.push(one);
                }
            }
        }
        if depth >= DEPTH {
            return Ok(());
        }
        for (key, _, need, waits) in self.needs(&definition, open, false, depth + 1).await? {
            let name = (sync.to_owned(), key);
            // the walk comes, or came, to rows of its own
            let of_the_walk = sync == self.definition.name() && (self.own.contains(&name.1) || !self.what.chooses());
            if let Need::Dead(problem) = &need {
                let why = format!("cannot be sent itself: {}: {}", problem.field, problem.reason);
                self.fates.insert(name, Fate::Never(why));
            } else if !of_the_walk && !standings.get(&name.1).is_some_and(|one| one.under_way) {
                self.tallies.entry(sync.to_owned()).or_default().add(&need, waits.is_some());
                self.parents.entry(sync.to_owned()).or_default().pushed += 1;
                self.fates.insert(name, Fate::Coming { counted: true });
            }
        }
        Ok(())
    }

    /// Rows and links, as a run would find them.
    async fn load(&self, definition: &Definition, keys: &[String], forgotten: bool) -> Result<Vec<Record>, Error> {
        let mut rows = match self.reader.rows(definition, keys).await {
            Ok(rows) => rows,
            Err(read::Error::Unavailable(error)) => return Err(trigger::Error::Database(error).into()),
            Err(broken @ read::Error::Broken { .. }) => {
                return Err(trigger::Error::Refused(format!("{broken}; `sluice check` says where")).into());
            }
        };
        let mut tx = self.db.begin_read_only(None, LIMIT).await?;
        let mut links = link::store::load(&mut tx, definition.name(), keys).await?;
        tx.rollback().await?;
        let record = |key: &String| Record {
            row: rows.remove(key).and_then(|found| if let Found::Row(row) = found { Some(row) } else { None }),
            link: links.remove(key).map(|link| if forgotten { link.forgotten() } else { link }),
            key: key.clone(),
        };
        Ok(keys.iter().map(record).collect())
    }
}

struct Record {
    key: String,
    row: Option<Row>,
    link: Option<Link>,
}

impl Record {
    fn linked(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.zoho_id.is_some())
    }
}

/// Key, row, what it needs, and the sync of the parent that it waits for.
type Decided = (String, Option<Row>, Need, Option<String>);

fn count<T>(of: &[T]) -> u64 {
    u64::try_from(of.len()).unwrap_or(u64::MAX)
}
