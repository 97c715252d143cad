//! Which published syncs this replica's own file agrees with. A replica works only for those; the others it leaves to replicas that
//! agree. Read again every [`REREAD`]; nothing here may claim, produce or publish.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

/// How old an agreement may get before it is read again.
pub const REREAD: Duration = Duration::from_secs(5);

/// What is published, compared with a replica's own definitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreement {
    /// The names of the syncs whose published hash equals our own.
    pub syncs: Vec<String>,
    /// The shapes that may be worked on: those of these syncs, and those that belong to no sync.
    pub shapes: Vec<i64>,
    /// Syncs on which the replica and the published configuration differ.
    pub differing: Vec<Differing>,
}

/// A sync on which the replica and the published configuration differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Differing {
    /// The sync.
    pub sync: String,
    /// When and by whom it was published; `None` if it never was.
    pub published: Option<(DateTime<Utc>, String)>,
}

impl fmt::Display for Differing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.published {
            Some((at, by)) => write!(f, "config differs: {} (published {} by {by})", self.sync, at.format("%H:%M")),
            None => write!(f, "config differs: {} (not published; run \"sluice attach\")", self.sync),
        }
    }
}

impl Agreement {
    /// Compares `own` (sync name → definition hash) with what is published. Retired syncs count as not published.
    ///
    /// # Errors
    /// The database's.
    pub async fn read(db: impl PgExecutor<'_>, own: &BTreeMap<String, String>) -> Result<Self, sqlx::Error> {
        let rows = sqlx::query!(
            r#"select s.id as "shape?", y.name as "sync?", y.hash as "hash?", y.published_at as "published_at?", y.published_by as "published_by?"
               from (select * from sluice.sync where retired_at is null) y
               full join sluice.shape s on s.sync = y.name
               order by y.name, s.id"#
        )
        .fetch_all(db)
        .await?;
        let mut agreement = Self::default();
        let mut published = Vec::new();
        for row in rows {
            let Some(sync) = row.sync else {
                // A shape of its own, or one of a retired sync, which claims leave alone.
                agreement.shapes.extend(row.shape);
                continue;
            };
            if own.get(&sync).map(String::as_str) == row.hash.as_deref() {
                agreement.shapes.extend(row.shape);
                agreement.syncs.push(sync.clone());
            } else {
                let published = row.published_at.zip(row.published_by);
                agreement.differing.push(Differing { sync: sync.clone(), published });
            }
            published.push(sync);
        }
        agreement.syncs.dedup();
        agreement.differing.dedup();
        let unpublished = own.keys().filter(|name| !published.contains(name));
        agreement.differing.extend(unpublished.map(|name| Differing { sync: name.clone(), published: None }));
        Ok(agreement)
    }
}
