//! Parents first: a record whose reference has no Zoho id yet waits for it, or dies naming it, or closes a cycle and goes without it.

use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Outcome, store};
use sluice_sync::definition::Definition;
use sluice_sync::read::{Found, Ref};

use super::{Record, Run, Verdict};

/// What can be said of a missing parent.
enum Parent {
    /// It is asked for, or will be.
    Coming,
    /// It waits for this very record.
    Cycle,
    /// It will not come by itself.
    Never(String),
}

impl Run<'_> {
    /// `None`: nothing is missing any more, because the fields that close a cycle are left out for now.
    pub(super) async fn await_parents(&self, record: &mut Record<'_>, missing: &[Ref]) -> Option<Verdict> {
        let mut coming = Vec::new();
        for parent in missing {
            match self.find_parent(record, parent).await {
                Ok(Parent::Coming) => coming.push(parent),
                Ok(Parent::Cycle) => {
                    // the whole mapped field is left out, also if only one element of a list closes the cycle
                    let field = parent.field.split('[').next().unwrap_or(&parent.field);
                    record.leave_out.insert(field.to_owned());
                }
                Ok(Parent::Never(why)) => {
                    let letter = Letter {
                        depends_on: Some((parent.sync.clone(), parent.key.clone())),
                        ..Letter::new(Class::Dependency, why)
                            .field(parent.field.clone())
                            .hint("it is requeued by itself when that record is linked")
                    };
                    return Some(Verdict::dead(letter));
                }
                Err(error) => {
                    tracing::warn!(%error, sync = parent.sync, key = parent.key, "a parent could not be looked up");
                    return Some(Verdict::of(super::snooze(std::time::Duration::from_secs(1), "a parent could not be looked up")));
                }
            }
        }
        let first = coming.first()?;
        Some(Verdict {
            parents: coming.iter().map(|p| (p.sync.clone(), p.key.clone())).collect(),
            ..Verdict::of(Outcome::Wait { sync: first.sync.clone(), key: first.key.clone() })
        })
    }

    async fn find_parent(&self, record: &Record<'_>, parent: &Ref) -> Result<Parent, sluice_sync::read::Error> {
        let name = format!("{} {}", parent.sync, parent.key);
        let Some(definition) = self.engine.definition(&parent.sync) else {
            if self.engine.config.syncs.contains_key(&parent.sync) {
                return Ok(Parent::Coming); // its sync does not fit its table now, and waits for that itself
            }
            return Ok(Parent::Never(format!("{}: {name} is of a sync that is not configured here", parent.field)));
        };
        if !definition.sync.direction.pushes() {
            return Ok(Parent::Never(format!("{}: {name} has no Zoho record, and its sync only pulls", parent.field)));
        }
        if !definition.sync.creates {
            return Ok(Parent::Never(format!("{}: {name} has no Zoho record, and its sync makes none", parent.field)));
        }
        if let Some(letter) = self.open_letter(parent).await? {
            return Ok(Parent::Never(format!("{}: {name} is a dead letter itself: {letter}", parent.field)));
        }
        if let Some(why) = self.excluded(&definition, parent).await? {
            return Ok(Parent::Never(format!("{}: {name} {why}", parent.field)));
        }
        if let Some(why) = self.not_as_published(parent).await? {
            return Ok(Parent::Never(format!("{}: {name} {why}; run \"sluice attach\"", parent.field)));
        }
        let me = (self.definition.name(), record.slot.key.as_str());
        let waits_for_me =
            me == (parent.sync.as_str(), parent.key.as_str()) || store::waits_on(&self.engine.db, (&parent.sync, &parent.key), me).await?;
        Ok(if waits_for_me { Parent::Cycle } else { Parent::Coming })
    }

    async fn excluded(&self, definition: &Definition, parent: &Ref) -> Result<Option<String>, sluice_sync::read::Error> {
        let mut rows = self.engine.reader.rows(definition, std::slice::from_ref(&parent.key)).await?;
        Ok(match rows.remove(&parent.key) {
            None | Some(Found::Gone) => Some(format!("has no row in {}", definition.sync.table)),
            Some(Found::Row(row)) if row.key != parent.key => {
                Some(format!("is written `{}` in its own row of {}: write it alike here", row.key, definition.sync.table))
            }
            Some(Found::Row(row)) if !row.when => Some("is excluded by its sync's `when`".to_owned()),
            Some(Found::Row(_)) => None,
        })
    }

    /// Whether the parent would be asked for under another key than the one that is waited for, as where the key's type is not the one that was published:
    /// the child would wait for ever, and ask again each time.
    async fn not_as_published(&self, parent: &Ref) -> Result<Option<String>, sqlx::Error> {
        let asked = sqlx::query_scalar!(r#"select sluice.canonical_key($1, to_jsonb($2::text)) as "key!""#, parent.sync, parent.key)
            .fetch_one(&self.engine.db)
            .await;
        match asked {
            Ok(key) if key == parent.key => Ok(None),
            Ok(key) => Ok(Some(format!("would be asked for as {key}, since its key has another type than was published"))),
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("22023") => {
                Ok(Some(format!("cannot be asked for: {}", error.message())))
            }
            Err(error) => Err(error),
        }
    }

    async fn open_letter(&self, parent: &Ref) -> Result<Option<String>, sqlx::Error> {
        sqlx::query_scalar!(
            "select message from sluice.dead_letter d where d.sync = $1 and d.key = $2 and d.resolution is null
               and not exists (select from sluice.slot s where s.sync = d.sync and s.key = d.key)
             order by d.id desc limit 1",
            parent.sync,
            parent.key
        )
        .fetch_optional(&self.engine.db)
        .await
    }
}
