//! COQL: reads what is stored, without the search index's lag.

mod parse;

use std::cmp::Ordering;

use serde_json::{Value, json};

use self::parse::{Fault, Filter, Query, Test, parse};
use super::{
    Context, Crm, Module, Refusal, Values,
    compare::{Cell, Literal, Row, cell, column, is_column},
};
use crate::exchange::Answer;

/// Rows that `limit` with an offset reaches.
const REACH: usize = 100_000;
/// Rows of a query without a limit.
const DEFAULT_ROWS: usize = 200;

impl Crm {
    pub(super) fn coql(&self, context: &Context<'_>) -> Answer {
        let body = context.request.json_object().unwrap_or_default();
        let Some(text) = body.get("select_query").and_then(Value::as_str) else {
            let details = json!({ "api_name": "select_query", "json_path": "$.select_query" });
            return Refusal::new("MANDATORY_NOT_FOUND", "required field not found", details).answer(400);
        };
        match self.selected(text, context) {
            Ok((rows, _)) if rows.is_empty() => Answer::empty(204),
            Ok((rows, more)) => {
                let info = json!({ "count": rows.len(), "more_records": more });
                Answer::json(200, json!({ "data": rows, "info": info }))
            }
            Err(refusal) => refusal.answer(400),
        }
    }

    fn selected(&self, text: &str, context: &Context<'_>) -> Result<(Vec<Value>, bool), Refusal> {
        let query = parse(text).map_err(refused)?;
        let module = self.modules.get(&query.module).ok_or_else(|| {
            let details = json!({ "module": query.module });
            Refusal::new("INVALID_QUERY", "invalid query formed", details)
        })?;
        self.check_columns(&query, module)?;
        let limit = query.limit.unwrap_or(DEFAULT_ROWS);
        if limit > context.scenario.crm.coql_rows || query.offset.saturating_add(limit) > REACH {
            let details = json!({ "clause": "limit", "limit": context.scenario.crm.coql_rows });
            return Err(Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", details));
        }
        let zone = context.zone();
        let all = module.records.iter().map(|(id, record)| Row::new(module, id, record));
        let mut rows: Vec<Row<'_>> = all.filter(|row| self.fits(row, &query.filter)).collect();
        rows.sort_by_cached_key(|row| SortKey {
            cells: query.order.iter().map(|(name, descending)| (cell(self, row, name), *descending)).collect(),
            id: row.id.to_owned(),
        });
        let shown = rows.iter().skip(query.offset).take(limit).map(|row| {
            let names = query.columns.iter().map(String::as_str).chain(["id"]);
            let values: Values = names.map(|name| (name.to_owned(), column(self, row, name, zone))).collect();
            Value::Object(values)
        });
        Ok((shown.collect(), query.offset + limit < rows.len()))
    }

    fn check_columns(&self, query: &Query, module: &Module) -> Result<(), Refusal> {
        let mut named: Vec<&str> = query.columns.iter().map(String::as_str).collect();
        named.extend(query.order.iter().map(|(column, _)| column.as_str()));
        columns_of(&query.filter, &mut named);
        match named.into_iter().find(|name| !is_column(self, module, name)) {
            None => Ok(()),
            Some(name) => {
                let details = json!({ "column_name": name, "module": query.module, "reason": "column given seems to be invalid" });
                Err(Refusal::new("INVALID_QUERY", "invalid query formed", details))
            }
        }
    }

    fn fits(&self, row: &Row<'_>, filter: &Filter) -> bool {
        match filter {
            Filter::And(left, right) => self.fits(row, left) && self.fits(row, right),
            Filter::Or(left, right) => self.fits(row, left) || self.fits(row, right),
            Filter::Is(name, test) => passes(&cell(self, row, name), test),
        }
    }
}

/// What rows are sorted by: the columns of the order, then the id.
struct SortKey {
    cells: Vec<(Cell, bool)>,
    id: String,
}

impl Ord for SortKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let columns = self.cells.iter().zip(&other.cells).map(|((left, descending), (right, _))| match descending {
            true => right.order(left),
            false => left.order(right),
        });
        columns.fold(Ordering::Equal, Ordering::then).then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialEq for SortKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for SortKey {}

impl PartialOrd for SortKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn columns_of<'a>(filter: &'a Filter, columns: &mut Vec<&'a str>) {
    match filter {
        Filter::And(left, right) | Filter::Or(left, right) => {
            columns_of(left, columns);
            columns_of(right, columns);
        }
        Filter::Is(column, _) => columns.push(column),
    }
}

fn passes(value: &Cell, test: &Test) -> bool {
    let is = |literal: &Literal, wanted: fn(Ordering) -> bool| value.compare(literal).is_some_and(wanted);
    let blank = *value == Cell::Blank;
    match test {
        Test::Equal(literal) => is(literal, Ordering::is_eq),
        Test::NotEqual(literal) => is(literal, Ordering::is_ne),
        Test::Greater(literal) => is(literal, Ordering::is_gt),
        Test::GreaterEqual(literal) => is(literal, Ordering::is_ge),
        Test::Less(literal) => is(literal, Ordering::is_lt),
        Test::LessEqual(literal) => is(literal, Ordering::is_le),
        Test::In(literals) => literals.iter().any(|literal| is(literal, Ordering::is_eq)),
        Test::NotIn(literals) => !blank && !literals.iter().any(|literal| is(literal, Ordering::is_eq)),
        Test::Like(pattern) => like(value, pattern),
        Test::NotLike(pattern) => !blank && !like(value, pattern),
        Test::Between(low, high) => is(low, Ordering::is_ge) && is(high, Ordering::is_le),
        Test::Null => blank,
        Test::NotNull => !blank,
    }
}

/// `%` stands for any text.
fn like(value: &Cell, pattern: &str) -> bool {
    let Cell::Text(text) = value else { return false };
    let pattern = pattern.to_lowercase();
    let parts: Vec<&str> = pattern.split('%').collect();
    let [first, middle @ .., last] = parts.as_slice() else { return *text == pattern };
    let Some(mut rest) = text.strip_prefix(first).and_then(|rest| rest.strip_suffix(last)) else { return false };
    middle.iter().all(|part| match rest.find(part) {
        Some(at) => {
            rest = &rest[at + part.len()..];
            true
        }
        None => false,
    })
}

fn refused(fault: Fault) -> Refusal {
    match fault {
        Fault::Syntax(clause) => Refusal::new("SYNTAX_ERROR", "error occurred while parsing the query", json!({ "clause": clause })),
        Fault::Limit(clause, limit) => Refusal::new("LIMIT_EXCEEDED", "the limit is exceeded", json!({ "clause": clause, "limit": limit })),
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, like};

    #[test]
    fn a_percent_sign_stands_for_any_text() {
        for (pattern, fits) in [("%bc%", true), ("ab%", true), ("%cd", true), ("a%d", true), ("a%c", false), ("abcd", true), ("b%", false)]
        {
            assert_eq!(like(&Cell::Text("abcd".into()), pattern), fits, "{pattern}");
        }
    }
}
