//! What the database says about the tables that syncs name: kind, columns with their types, unique keys. Read from `pg_catalog`,
//! never guessed; reads no row of the user's.

use std::collections::BTreeMap;

use sluice_core::db::Tx;
use sluice_core::db::dynamic::Ident;

/// The tables by the name under which the configuration knows them. A name that is absent does not exist.
#[derive(Debug, Clone, Default)]
pub struct Catalog(BTreeMap<String, Table>);

/// A table, view or partitioned table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The schema, unquoted.
    pub schema: String,
    /// The name, unquoted.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// In the table's order.
    pub columns: Vec<Column>,
    /// The columns of each complete unique index, sorted by name.
    pub unique: Vec<Vec<String>>,
}

/// What kind of relation a table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain table.
    Table,
    /// A partitioned table: capture triggers sit on its partitions.
    Partitioned,
    /// A view, materialized or not: no capture trigger, it needs a `watch` or a schedule.
    View,
    /// A foreign table: read by schedule only.
    Foreign,
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, unquoted.
    pub name: String,
    /// The type below domains as SQL writes it, without length, so that a cast to it never truncates: `bigint`, `character varying`. A `numeric` has its scale, which its text shows.
    pub type_name: String,
    /// The schema of the type below domains.
    pub type_schema: String,
    /// The type below domains, as `pg_type.typname`: `timestamptz`. With its schema it is what a statement casts to.
    pub base_type: String,
    /// Precision and scale of a `numeric`, its own or its domain's, as `pg_attribute.atttypmod`. `None`: any, and of other types.
    pub numeric_modifier: Option<i32>,
    /// Whether its values that are equal are written alike as far as its collation decides.
    pub deterministic: bool,
}

impl Catalog {
    /// Looks up every name, as the configuration writes it: `table` (on the search path) or `schema.table`, each taken literally as
    /// column names are: `Kunde` is not `kunde`.
    ///
    /// # Errors
    /// When the database does not answer. A name that is no name, or names nothing, is merely absent.
    pub async fn load(tx: &mut Tx, names: &[String]) -> Result<Self, sqlx::Error> {
        let mut tables = BTreeMap::new();
        for name in names {
            if !tables.contains_key(name)
                && let Some(table) = load_table(tx, name).await?
            {
                tables.insert(name.clone(), table);
            }
        }
        Ok(Self(tables))
    }

    /// A catalog of given tables.
    pub fn of(tables: impl IntoIterator<Item = (String, Table)>) -> Self {
        Self(tables.into_iter().collect())
    }

    /// The table of that configured name, if it exists.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.0.get(name)
    }
}

impl Table {
    /// The column of that name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// All columns' names, in the table's order.
    pub fn column_names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }
}

async fn load_table(tx: &mut Tx, name: &str) -> Result<Option<Table>, sqlx::Error> {
    let quoted = Ident::table(name);
    let found = sqlx::query!(
        r#"select c.oid as "oid!", n.nspname::text as "schema!", c.relname::text as "name!", c.relkind::text as "kind!"
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where c.oid = pg_catalog.to_regclass($1)::oid and c.relkind in ('r', 'p', 'v', 'm', 'f')"#,
        quoted.as_str()
    )
    .fetch_optional(&mut *tx)
    .await;
    let Some(table) = absent_if_no_name(found)? else {
        return Ok(None);
    };
    let columns = sqlx::query_as!(
        Column,
        r#"with recursive base as (
             select a.attnum, a.attname, a.attcollation, a.atttypmod as modifier, a.atttypid as type from pg_catalog.pg_attribute a
             where a.attrelid = $1 and a.attnum > 0 and not a.attisdropped
             union all
             select b.attnum, b.attname, b.attcollation, t.typtypmod, t.typbasetype from base b
             join pg_catalog.pg_type t on t.oid = b.type and t.typtype = 'd'
           )
           select b.attname::text as "name!", pg_catalog.format_type(t.oid, case when t.oid = 'numeric'::regtype then b.modifier else -1 end) as "type_name!",
             n.nspname::text as "type_schema!", t.typname::text as "base_type!",
             case when t.oid = 'numeric'::regtype and b.modifier <> -1 then b.modifier end as "numeric_modifier?", coalesce(c.collisdeterministic, true) as "deterministic!"
           from base b
           join pg_catalog.pg_type t on t.oid = b.type and t.typtype <> 'd'
           join pg_catalog.pg_namespace n on n.oid = t.typnamespace
           left join pg_catalog.pg_collation c on c.oid = b.attcollation
           order by b.attnum"#,
        table.oid
    )
    .fetch_all(&mut *tx)
    .await?;
    let unique = sqlx::query_scalar!(
        r#"select array_agg(a.attname::text order by a.attname) as "columns!"
           from pg_catalog.pg_index i
           join pg_catalog.pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey)
           where i.indrelid = $1 and i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null
           group by i.indexrelid"#,
        table.oid
    )
    .fetch_all(tx)
    .await?;
    let kind = match table.kind.as_str() {
        "p" => Kind::Partitioned,
        "v" | "m" => Kind::View,
        "f" => Kind::Foreign,
        _ => Kind::Table,
    };
    Ok(Some(Table { schema: table.schema, name: table.name, kind, columns, unique }))
}

/// `to_regclass` answers null for what does not exist, but raises for what cannot be a name, such as an empty one.
fn absent_if_no_name<T>(found: Result<Option<T>, sqlx::Error>) -> Result<Option<T>, sqlx::Error> {
    match found {
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42602" | "42601" | "0A000")) => Ok(None),
        other => other,
    }
}
