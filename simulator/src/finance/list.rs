//! Lists: paging, the page context, and the few columns that a list row shows.

use serde_json::{Value, json};

use super::{Context, Record};
use crate::exchange::Answer;

/// Rows of a page, unless fewer are asked for; also the most (finance fact 2.3).
const PER_PAGE: usize = 200;

/// What a list is called, and what it was filtered by.
pub(crate) struct Listing<'a> {
    pub(crate) key: &'a str,
    pub(crate) report_name: &'a str,
    pub(crate) applied_filter: &'a str,
}

/// One page of these rows, newest first.
pub(crate) fn page(listing: &Listing<'_>, rows: &[Value], context: &Context<'_>) -> Answer {
    sorted_page(listing, ("created_time", "D"), rows, context, Value::clone)
}

/// One page of these rows, which are in the order that `sort` (column, `A` or `D`) says. Only the rows of the page
/// are shown.
pub(crate) fn sorted_page<T>(
    listing: &Listing<'_>,
    (sort_column, sort_order): (&str, &str),
    rows: &[T],
    context: &Context<'_>,
    show: impl Fn(&T) -> Value,
) -> Answer {
    let number = |name: &str| context.request.query(name).and_then(|text| text.parse::<usize>().ok());
    let page = number("page").unwrap_or(1).max(1);
    let per_page = number("per_page").unwrap_or(PER_PAGE).clamp(1, PER_PAGE);
    let first = (page - 1).saturating_mul(per_page).min(rows.len());
    let last = first.saturating_add(per_page).min(rows.len());
    let body = json!({
        "code": 0,
        "message": "success",
        listing.key: rows[first..last].iter().map(show).collect::<Vec<_>>(),
        "page_context": {
            "page": page,
            "per_page": per_page,
            "has_more_page": last < rows.len(),
            "report_name": listing.report_name,
            "applied_filter": listing.applied_filter,
            "custom_fields": [],
            "sort_column": sort_column,
            "sort_order": sort_order,
        },
    });
    Answer::json(200, body)
}

/// The named fields of a record.
pub(crate) fn row(record: &Record, fields: &[&str]) -> Value {
    let pick = |name: &&str| record.get(*name).map(|value| ((*name).to_owned(), value.clone()));
    Value::Object(fields.iter().filter_map(pick).collect())
}
