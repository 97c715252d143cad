//! Lists of Zoho's, walked once for many records: Billing has no filter for most of what a record could be found by (finance sheet
//! §4.2), so its list is read page by page and kept in memory for a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use sluice_zoho::finance::{self, Module, Page};

use crate::session::{Ended, Session};

/// So many pages are read anew for rows that are newer than the list.
const SHORT: usize = 3;

/// Of a longer list each page makes it serve so much longer, so that reading it takes a tenth of a budget of a hundred a minute at most.
const A_PAGE_SERVES: Duration = Duration::from_secs(6);

/// No list serves rows that are newer by more than this.
const LONGEST: Duration = Duration::from_secs(300);

/// How old a list may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Age {
    /// It was begun at this moment or later.
    Since(Instant),
    /// The same, but a long one may be older, as long as it is.
    About(Instant),
}

impl Age {
    fn serves(self, walk: &Walk, rows: &[Value]) -> bool {
        let pages = rows.len().div_ceil(finance::MAX_PER_PAGE as usize);
        let older = if pages > SHORT { (A_PAGE_SERVES * u32::try_from(pages).unwrap_or(u32::MAX)).min(LONGEST) } else { Duration::ZERO };
        walk.started.is_some_and(|started| match self {
            Self::Since(moment) => started >= moment,
            Self::About(moment) => started + older >= moment,
        })
    }
}

/// The lists of this process, by connection and module.
#[derive(Debug, Default)]
pub(crate) struct Walks(Mutex<HashMap<(String, Module), SharedWalk>>);

type SharedWalk = Arc<tokio::sync::Mutex<Walk>>;

#[derive(Debug, Default)]
struct Walk {
    rows: Vec<Value>,
    started: Option<Instant>,
    next: Option<Page>,
    complete: Option<Arc<Vec<Value>>>,
}

/// Why there is no list now.
#[derive(Debug)]
pub(crate) enum NotNow {
    /// Another batch of this process is walking it.
    Busy,
    /// The call for the next page ended this way; what was read so far is kept.
    Ended(Ended),
}

impl Walks {
    /// All rows of a module's list, as read by a walk of that age. A walk that is under way is always finished,
    /// however old: a long list takes longer than the next search waits, and beginning anew for each would never end.
    pub(crate) async fn rows(&self, session: &Session<'_>, connection: &str, module: Module, age: Age) -> Result<Arc<Vec<Value>>, NotNow> {
        let walk = self.walk(connection, module);
        let mut walk = walk.try_lock().map_err(|_| NotNow::Busy)?;
        loop {
            match &walk.complete {
                Some(rows) if age.serves(&walk, rows) => return Ok(rows.clone()),
                None if walk.started.is_some() => {}
                Some(_) | None => *walk = Walk { started: Some(Instant::now()), next: Some(Page::FIRST), ..Walk::default() },
            }
            while let Some(page) = walk.next {
                let listing = session
                    .call(async |grant, client, token| finance::list(grant, client, token, module, page, &[]).await)
                    .await
                    .map_err(NotNow::Ended)?;
                walk.rows.extend(listing.rows);
                walk.next = listing.more.then(|| page.next());
            }
            walk.complete = Some(Arc::new(std::mem::take(&mut walk.rows)));
        }
    }

    /// Adds a record of our own to the list in memory, so that a second row like it finds it.
    pub(crate) async fn add(&self, connection: &str, module: Module, record: &Value) {
        let walk = self.walk(connection, module);
        let mut walk = walk.lock().await;
        if let Some(rows) = &mut walk.complete {
            Arc::make_mut(rows).push(record.clone());
        }
    }

    fn walk(&self, connection: &str, module: Module) -> SharedWalk {
        let mut walks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        walks.entry((connection.to_owned(), module)).or_default().clone()
    }
}
