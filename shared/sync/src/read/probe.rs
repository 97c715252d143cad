//! What is asked of the database to learn whether it accepts a definition's expressions, and what it says put into the configuration's terms.

use sluice_core::config::field::Field;
use sluice_core::db::dynamic::{Expression, Ident, Sql};
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};

use super::statement::{self, Part};
use crate::definition::Definition;

/// Characters of an expression that are shown from where PostgreSQL stumbled.
const SHOWN: usize = 30;

/// One thing to be prepared.
pub(super) struct Probe<'a> {
    /// Where in the sync: `when`, `fields.email`, `watch.public.addresses`.
    pub(super) at: String,
    /// Reads nothing: it is given no key, or limited to no row.
    pub(super) statement: Sql,
    /// Whether its placeholder is one jsonb, and not a list of keys.
    pub(super) takes_json: bool,
    /// The expressions of the configuration that it holds.
    pub(super) expressions: Vec<&'a str>,
}

/// Everything of a definition that PostgreSQL has to understand.
pub(super) fn all(definition: &Definition) -> Vec<Probe<'_>> {
    let keyed = |at: String, part, expressions| Probe { at, statement: statement::rows(definition, part), takes_json: false, expressions };
    let json = |at: String, statement: Sql, expression| Probe {
        at,
        statement: statement.text(" limit 0"),
        takes_json: true,
        expressions: vec![expression],
    };
    let when = definition.sync.when.as_deref().into_iter().collect();
    let mut all = vec![keyed("when".to_owned(), Part::When, when)];
    for (path, field) in definition.fields() {
        let mut expressions = Vec::new();
        gather(field, &mut expressions);
        all.push(keyed(format!("fields.{path}"), Part::Field(path), expressions));
    }
    for watch in &definition.watches {
        let table = Ident::qualified(&watch.table.schema, &watch.table.name);
        let statement = statement::watched_keys(&Expression::from_configuration(&watch.key), &table);
        all.push(json(format!("watch.{}", watch.relation), statement, &watch.key));
    }
    for (column, expression) in &definition.sync.columns {
        let statement = statement::pulled(&Expression::from_configuration(expression));
        all.push(json(format!("columns.{column}"), statement, expression));
    }
    all
}

fn gather<'a>(field: &'a Field, expressions: &mut Vec<&'a str>) {
    match field {
        Field::Sql(field) => expressions.push(&field.sql),
        Field::List(list) => {
            expressions.push(&list.each);
            list.item.values().chain(list.or_else.values()).for_each(|inner| gather(inner, expressions));
        }
        Field::Column(_) | Field::Ref(_) | Field::Value(_) | Field::Rows(_) | Field::File(_) => {}
    }
}

/// PostgreSQL's words, where in the expression it stumbled, and its advice.
pub(super) fn said(error: &sqlx::Error, statement: &str, expressions: &[&str]) -> String {
    let Some(error) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) else {
        return sluice_core::db::message(error);
    };
    let place = match error.position() {
        Some(PgErrorPosition::Original(at)) => place(at, statement, expressions),
        Some(PgErrorPosition::Internal { .. }) | None => None,
    };
    let place = place.map_or_else(String::new, |(at, from)| format!(" (at character {at}: `{from}`)"));
    let hint = error.hint().map_or_else(String::new, |hint| format!(" {hint}"));
    format!("PostgreSQL says: {}{place}{hint}", error.message())
}

/// The position within the expression that it falls into, from 1, and what stands there. Positions count characters, not bytes.
fn place(at: usize, statement: &str, expressions: &[&str]) -> Option<(usize, String)> {
    let at = at.checked_sub(1)?;
    expressions.iter().find_map(|expression| {
        let length = expression.chars().count();
        statement.match_indices(expression).find_map(|(byte, _)| {
            let start = statement[..byte].chars().count();
            let within = at.checked_sub(start).filter(|within| *within < length)?;
            Some((within + 1, expression.chars().skip(within).take(SHOWN).collect()))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn a_position_in_our_statement_becomes_one_in_the_users_expression() {
        let statement = "select 'é', (a || colour\n) from t";
        assert_eq!(place(19, statement, &["a || colour"]), Some((6, "colour".to_owned())));
        assert_eq!(place(1, statement, &["a || colour"]), None, "our own text");
    }
}
