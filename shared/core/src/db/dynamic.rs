//! SQL that is put together at run time, for tables that only the configuration knows.
//!
//! The only module of the workspace that may assert to sqlx that such text is safe. [`Sql`] can be made only out of the program's
//! own text, quoted identifiers, quoted literals, numbered placeholders, and expressions that the configuration's author wrote
//! as SQL. No value of a row, a webhook or Zoho may ever become part of the text: values are bound.

use sqlx::postgres::{PgArguments, Postgres};
use sqlx::query::{Query, QueryAs, QueryScalar};
use sqlx::{AssertSqlSafe, FromRow};

/// Quotes a name so that it is that name and nothing else, whatever characters it holds.
///
/// PostgreSQL cuts names at 63 bytes, and cannot hold NUL at all; such a name is cut or refused by the server.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A quoted name: of a column, or of a table with its schema.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Ident(String);

impl Ident {
    /// One name, taken literally: dots are part of it.
    pub fn name(name: &str) -> Self {
        Self(quote_ident(name))
    }

    /// A name in a schema.
    pub fn qualified(schema: &str, name: &str) -> Self {
        Self(format!("{}.{}", quote_ident(schema), quote_ident(name)))
    }

    /// A table as the configuration names it: `table` or `schema.table`, split at the first dot.
    pub fn table(configured: &str) -> Self {
        match configured.split_once('.') {
            Some((schema, name)) => Self::qualified(schema, name),
            None => Self::name(configured),
        }
    }

    /// The quoted text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A SQL expression that the author of the configuration wrote: `when`, `sql`, `each`, `--where` and the like.
///
/// It is code, not data. Run it in [`super::Db::begin_read_only`], under the role that the configuration gives to expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression(String);

impl Expression {
    /// Takes over text of the configuration. The name says what the caller vouches for.
    pub fn from_configuration(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// A statement in the making.
#[derive(Debug, Clone, Default)]
pub struct Sql {
    text: String,
    placeholders: usize,
}

impl Sql {
    /// Begins with the program's own text.
    pub fn new(text: &'static str) -> Self {
        Self { text: text.to_owned(), placeholders: 0 }
    }

    /// Adds the program's own text.
    pub fn text(mut self, text: &'static str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Adds a quoted name.
    pub fn ident(mut self, ident: &Ident) -> Self {
        self.text.push_str(ident.as_str());
        self
    }

    /// Adds quoted names, separated by commas.
    pub fn idents<'a>(mut self, idents: impl IntoIterator<Item = &'a Ident>) -> Self {
        let all: Vec<&str> = idents.into_iter().map(Ident::as_str).collect();
        self.text.push_str(&all.join(", "));
        self
    }

    /// Adds the next placeholder: `$1`, `$2`, … The values are bound to the query in the same order.
    pub fn placeholder(mut self) -> Self {
        self.placeholders += 1;
        self.text.push_str(&format!("${}", self.placeholders));
        self
    }

    /// Adds a placeholder by number, to use a value a second time. [`Sql::placeholder`] goes on after the highest.
    pub fn numbered(mut self, number: usize) -> Self {
        self.placeholders = self.placeholders.max(number);
        self.text.push_str(&format!("${number}"));
        self
    }

    /// Adds a quoted string, where the grammar allows no placeholder (arguments of a trigger, for example).
    pub fn literal(mut self, value: &str) -> Self {
        self.text.push_str(&quote_literal(value));
        self
    }

    /// Adds an expression of the configuration, in parentheses of its own.
    pub fn expression(mut self, expression: &Expression) -> Self {
        // The line break keeps a trailing `-- comment` from swallowing the parenthesis.
        self.text.push_str(&format!("({}\n)", expression.0));
        self
    }

    /// Adds another piece that was made the same way. Its placeholders keep their numbers.
    pub fn append(mut self, other: &Sql) -> Self {
        self.text.push_str(&other.text);
        self.placeholders = self.placeholders.max(other.placeholders);
        self
    }

    /// How many placeholders there are.
    pub fn placeholders(&self) -> usize {
        self.placeholders
    }

    /// The text so far, for messages and `plan`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// A query to bind values to. It is one statement: PostgreSQL refuses a second one after a semicolon.
pub fn query(sql: Sql) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(AssertSqlSafe(sql.text))
}

/// Like [`query`], into rows of type `T`.
pub fn query_as<T>(sql: Sql) -> QueryAs<'static, Postgres, T, PgArguments>
where
    T: for<'r> FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_as(AssertSqlSafe(sql.text))
}

/// Like [`query`], into the first column of each row.
pub fn query_scalar<T>(sql: Sql) -> QueryScalar<'static, Postgres, T, PgArguments>
where
    (T,): for<'r> FromRow<'r, sqlx::postgres::PgRow>,
{
    sqlx::query_scalar(AssertSqlSafe(sql.text))
}

/// The text for sqlx's lower levels.
pub(super) fn text(sql: Sql) -> AssertSqlSafe<String> {
    AssertSqlSafe(sql.text)
}

/// A whole SQL file that the person at the keyboard named, such as a recipe's tables; it may hold several statements.
pub fn script(file: String) -> sqlx::RawSql {
    sqlx::raw_sql(AssertSqlSafe(file))
}

/// A string constant that means the same under either setting of `standard_conforming_strings`.
fn quote_literal(value: &str) -> String {
    let quoted = value.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        assert_eq!(quote_ident(r#"a"; drop table b; --"#), r#""a""; drop table b; --""#);
        assert_eq!(Ident::table("public.Kunde").as_str(), r#""public"."Kunde""#);
        assert_eq!(Ident::table("Kunde").as_str(), r#""Kunde""#);
        assert_eq!(Ident::name("a.b").as_str(), r#""a.b""#);
    }

    #[test]
    fn a_literal_cannot_leave_its_quotes() {
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal(r"\' or 1"), r"E'\\'' or 1'");
    }

    #[test]
    fn a_comment_at_the_end_of_an_expression_does_not_swallow_what_follows() {
        let sql = Sql::new("select ").expression(&Expression::from_configuration("a -- why")).text(" from t");
        assert_eq!(sql.as_str(), "select (a -- why\n) from t");
    }

    #[test]
    fn placeholders_count_on_after_the_highest() {
        let sql = Sql::new("").placeholder().numbered(3).placeholder();
        assert_eq!((sql.as_str(), sql.placeholders()), ("$1$3$4", 4));
    }
}
