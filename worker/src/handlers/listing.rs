//! A module's list, page by page, whatever the product: for polls, which ask what changed, and for sweeps, which compare everything.
//!
//! A walk by time goes on from the newest time it has seen, not by page number: rows that change during the walk would shift the pages.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sluice_core::config::field::Field;
use sluice_core::config::sync::Product;
use sluice_core::db::Tx;
use sluice_queue::outcome::{Class, Letter};
use sluice_sync::bulk::Bulk;
use sluice_sync::cursor::Walk;
use sluice_sync::definition::Definition;
use sluice_sync::link::agreed::field_in;
use sluice_sync::link::{Link, Pair, Pairs};
use sluice_sync::merge::children;
use sluice_sync::value;
use sluice_zoho::crm::lists::At;
use sluice_zoho::finance::{self, Changes, Page};
use sluice_zoho::{Error, NotSent, crm};

use super::bulk::Chunk;
use super::pull::crm_fields;
use super::push::finance_module;
use crate::session::{Ended, Session};

/// One page, whatever the product.
pub(super) struct Listing {
    pub(super) rows: Vec<Value>,
    /// Another page follows.
    pub(super) more: bool,
    /// Fewer rows than a page has that others follow.
    pub(super) short: bool,
    /// What the next page may be asked for with.
    pub(super) next: Option<String>,
    /// They are no page's but of a bulk read's file: where the walk is when they are stored, and as of when they are.
    pub(super) of_file: Option<Box<Chunk>>,
}

impl From<Chunk> for Listing {
    fn from(mut chunk: Chunk) -> Self {
        let (rows, more) = (std::mem::take(&mut chunk.rows), chunk.after.is_some());
        Self { rows, more, short: false, next: None, of_file: Some(Box::new(chunk)) }
    }
}

/// Whether the module has a list.
pub(super) fn is_listed(definition: &Definition) -> bool {
    definition.module.product == Product::Crm || finance_module(definition).is_some_and(finance::Module::listed)
}

/// How the module tells what changed.
pub(super) fn changes(definition: &Definition) -> Changes {
    finance_module(definition).map_or(Changes::Since, finance::Module::changes)
}

/// Reads the page at which the walk is.
pub(super) async fn page(session: &Session<'_>, definition: &Definition, walk: &Walk) -> Result<Listing, Ended> {
    let name = &definition.module.name;
    if definition.module.product == Product::Crm {
        let listing = if walk.deleted {
            let call = async |g, c: &_, t: &_| crm::lists::deleted(g, c, t, name, walk.from, walk.page).await;
            session.call_costing(crm::lists::DELETED_COST, call).await?
        } else {
            let fields = crm_fields(definition);
            let fields: Vec<&str> = fields.iter().map(String::as_str).take(crm::MAX_FIELDS).collect();
            let at = walk.token.as_deref().map_or(At::Page(walk.page), At::Token);
            let call = async |g, c: &_, t: &_| crm::lists::modified(g, c, t, name, &fields, walk.from, at).await;
            session.call_costing(crm::lists::LIST_COST, call).await?
        };
        return Ok(Listing { next: listing.next, ..listing_of(listing.rows, listing.more, crm::lists::PER_PAGE) });
    }
    let Some(module) = finance_module(definition).filter(|module| module.listed()) else {
        let reason = format!("{} has no list that this version can read", definition.module);
        return Err(Ended::Zoho(Box::new(Error::NotSent(NotSent::Invalid { reason })), Duration::ZERO));
    };
    let since = walk.from.map(|from| from.format("%Y-%m-%dT%H:%M:%S+0000").to_string());
    let mut filters = Vec::new();
    match module.changes() {
        Changes::Since => {
            filters.extend([("sort_column", "last_modified_time"), ("sort_order", "A")]);
            filters.extend(since.iter().map(|since| ("last_modified_time", since.as_str())));
        }
        Changes::Sorted => filters.extend([("sort_column", "last_modified_time"), ("sort_order", "D")]),
        Changes::Whole => {}
    }
    let page = Page { page: walk.page, ..Page::FIRST };
    let listing = session.call(async |g, c, t| finance::list(g, c, t, module, page, &filters).await).await?;
    Ok(listing_of(listing.rows, listing.more, page.per_page))
}

fn listing_of(rows: Vec<Value>, more: bool, per_page: u32) -> Listing {
    let short = more && rows.len() < usize::try_from(per_page).unwrap_or(usize::MAX);
    Listing { rows, more, short, next: None, of_file: None }
}

/// Where a walk goes on after a page that others follow: `timed` are the page's records with the times of their last change, `token` what the next
/// page may be asked for with, `turned` the bulk read that shows them first of all.
pub(super) fn following(
    definition: &Definition,
    walk: &Walk,
    timed: Vec<(String, DateTime<Utc>)>,
    token: Option<String>,
    turned: Option<Bulk>,
) -> Walk {
    let last = timed.iter().map(|(_, at)| *at).max();
    let on = Walk { newest: walk.newest.max(last), pages: walk.pages + 1, ..walk.anew() };
    // by time, unless a whole page has but one: then page by page, however many thousands have it
    let from = last.map(|last| last - chrono::Duration::seconds(1));
    let on = match (walk.deleted, changes(definition), from) {
        (false, Changes::Since, Some(from)) if walk.from.is_none_or(|before| from > before) => {
            let again = timed.iter().filter(|(_, at)| *at >= from).cloned();
            Walk { from: Some(from), seen: again.collect(), ..on }
        }
        _ => Walk { page: walk.page + 1, token, ..on },
    };
    match turned {
        // its file shows the whole page again
        Some(bulk) => Walk { seen: timed, ..on.with(bulk) },
        None => on,
    }
}

/// Whether the walk's next page is refused for its token, so that it has to begin anew.
pub(super) fn cannot_go_on(walk: &Walk, failure: &Ended) -> bool {
    walk.token.is_some() && matches!(failure, Ended::Zoho(error, _) if crm::lists::refuses_token(error))
}

/// The rows with their ids, and the times of their last change.
pub(super) type Identified = (Vec<(String, Value)>, Vec<(String, DateTime<Utc>)>);

pub(super) fn identified(definition: &Definition, rows: Vec<Value>) -> Identified {
    let module = &definition.module;
    let found: Vec<(String, Value)> = rows.into_iter().filter_map(|row| Some((module.id_of(&row)?, row))).collect();
    let timed = found.iter().filter_map(|(id, row)| Some((id.clone(), module.modified_at(row)?))).collect();
    (found, timed)
}

/// Whether the page before has shown this state of the record already.
pub(super) fn seen_before(definition: &Definition, walk: &Walk, id: &str, row: &Value) -> bool {
    let at = definition.module.modified_at(row);
    at.is_some_and(|at| walk.seen.iter().any(|(known, then)| known == id && *then == at))
}

/// What a row of a list says beside its link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Compared {
    /// What the link says.
    Equal,
    /// An older state than the one that the link knows: the list lags.
    Outdated,
    /// Something else, or something that the row does not show.
    Differs {
        /// The row shows every field that the sync maps.
        complete: bool,
        /// The fields that it shows to differ, with Zoho's values. Empty: only the time of the last change does, or there is no link.
        fields: BTreeMap<String, Value>,
    },
}

/// Compares a row of the list with the record's link. Fields that the row does not show are unknown, not empty.
pub(super) fn compare(definition: &Definition, row: &Value, link: Option<&Link>) -> Compared {
    let module = &definition.module;
    let pulls = definition.sync.direction.pulls();
    let only_listed = finance_module(definition).is_some_and(|module| !module.readable());
    let compared = definition.fields().iter().filter(|(path, field)| match field {
        // of a file, the version
        Field::Column(_) | Field::Ref(_) | Field::File(_) => true,
        // what an expression made is ours: an edit of it is not applied, but it is recorded
        Field::Sql(_) => link.is_some_and(|link| link.fields.contains_key(*path)),
        // of what is only pushed, Zoho has what was sent
        Field::Value(_) => !pulls && link.is_some_and(|link| link.fields.contains_key(*path)),
        Field::List(_) => false,
        // a list's row lacks it, or may show it empty: only where nothing else can be read
        Field::Rows(_) => only_listed,
    });
    let shown: Vec<(&String, Option<&Value>)> = compared.map(|(path, _)| (path, field_in(module, row, path))).collect();
    let pushed_only = |path: &String| matches!(definition.fields().get(path), Some(Field::Sql(_)));
    let read_singly = !definition.sync.columns.is_empty() || !definition.rows().is_empty() && !only_listed;
    let complete = !read_singly && shown.iter().all(|(path, value)| value.is_some() || (pulls && pushed_only(path)));
    let Some(link) = link else { return Compared::Differs { complete, fields: BTreeMap::new() } };
    let theirs = module.modified_at(row);
    if theirs.is_some() && theirs < link.zoho_modified_at {
        return Compared::Outdated;
    }
    let ours = theirs.is_some() && theirs == link.zoho_modified_at;
    let differs = |(path, value): (&String, Option<&Value>)| {
        let value = value::null_if_empty(value?);
        if definition.rows().contains_key(path) {
            return children::changed(definition, path, row, link).then(|| (path.clone(), value));
        }
        let same = match link.fields.get(path) {
            Some(pair) if pair.confirmed => {
                value::same(&pair.zoho, &value)
                    || matches!(definition.fields().get(path), Some(Field::Ref(_))) && value::same_lookup(&pair.zoho, &value)
            }
            // nobody wrote since our own write did: it is what Zoho made of what was sent
            Some(_) if ours && !pulls => true,
            Some(pair) => value::alike(&pair.zoho, &value),
            // it was never agreed on: a push leaves it alone, a pull takes it over
            None => !pulls,
        };
        (!same).then(|| (path.clone(), value))
    };
    let fields: BTreeMap<String, Value> = shown.into_iter().filter_map(differs).collect();
    // a list that was mapped since
    let never_read = definition.rows().keys().any(|path| !link.fields.contains_key(path));
    if fields.is_empty() && link.gone_at.is_none() && !never_read && (complete || ours || !pulls) {
        Compared::Equal
    } else {
        Compared::Differs { complete, fields }
    }
}

/// The pairs whose Zoho half this row confirms: what our last write sent, as Zoho holds it, while nobody has written since. Each as it was, and as it is now.
pub(super) fn confirmed(definition: &Definition, row: &Value, link: &Link) -> Option<(Pairs, Pairs)> {
    let module = &definition.module;
    if module.modified_at(row).is_none_or(|at| Some(at) != link.zoho_modified_at) {
        return None;
    }
    let unconfirmed = link
        .fields
        .iter()
        .filter(|(path, pair)| !pair.confirmed && definition.fields().get(*path).is_some_and(|field| !matches!(field, Field::List(_))));
    let (was, is): (Pairs, Pairs) = unconfirmed
        .filter_map(|(path, pair)| {
            let theirs = value::null_if_empty(field_in(module, row, path)?);
            let now = Pair { zoho: theirs, confirmed: true, ..pair.clone() };
            Some(((path.clone(), pair.clone()), (path.clone(), now)))
        })
        .unzip();
    (!is.is_empty()).then_some((was, is))
}

/// A run for each of these Zoho records.
pub(super) async fn ask_for_runs(tx: &mut Tx, sync: &str, zoho_ids: &[String], lane: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.job (kind, args, lane) select 'pull', jsonb_build_object('sync', $1::text, 'zoho_id', id, 'seen', true), $3 from unnest($2::text[]) id",
        sync,
        zoho_ids,
        lane
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// A letter for a module that cannot be listed.
pub(super) fn refused(failure: &Ended) -> Option<Letter> {
    match failure {
        Ended::Zoho(error, _) => match &**error {
            Error::NotSent(NotSent::Invalid { reason }) => {
                Some(Letter::new(Class::Payload, reason.clone()).hint("see the list of modules in docs/configuration.md"))
            }
            _ => None,
        },
        Ended::NoGrant(_) => None,
    }
}
