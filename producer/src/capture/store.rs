//! What the catalog says of capture triggers, partitions, inheritance and locks.

use std::collections::BTreeMap;

use sluice_core::db::Db;
use sluice_sync::catalog::Table;

use super::{Capture, Function, Functions, TRIGGERS, Target};

/// The capture triggers of one table.
#[derive(Debug, Clone, Default)]
pub(super) struct Installed(BTreeMap<String, Trigger>);

#[derive(Debug, Clone)]
struct Trigger {
    arguments: Vec<String>,
    fires: bool,
    /// The table's own function; `None` for the general one.
    own: Option<Function>,
}

impl Installed {
    /// Whether all triggers are there, enabled, and capture that.
    pub(super) fn is_whole(&self, capture: &Capture) -> bool {
        TRIGGERS.iter().all(|(name, event, _)| {
            let own = capture.function(event).map(|(function, _)| function);
            self.0.get(*name).is_some_and(|trigger| trigger.fires && trigger.arguments == capture.arguments && trigger.own.as_ref() == own)
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

pub(super) async fn installed(db: &Db) -> Result<BTreeMap<Target, Installed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select n.nspname::text as "schema!", c.relname::text as "name!", t.tgname::text as "trigger!", t.tgargs as "arguments!",
                  t.tgenabled in ('O', 'A') as "fires!", p.proname::text as "function!", p.prosrc as "source!"
           from pg_catalog.pg_trigger t
           join pg_catalog.pg_proc p on p.oid = t.tgfoid
           join pg_catalog.pg_class c on c.oid = t.tgrelid
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where p.pronamespace = 'sluice'::regnamespace and p.proname ~ '^capture(_(update|rows)_.*)?$' and not t.tgisinternal"#
    )
    .fetch_all(db)
    .await?;
    let mut installed: BTreeMap<Target, Installed> = BTreeMap::new();
    for row in rows {
        // Each argument ends with a zero byte.
        let arguments = row.arguments.split(|byte| *byte == 0).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        let mut arguments: Vec<String> = arguments.collect();
        arguments.pop();
        let own = (row.function != "capture").then_some(Function { name: row.function, source: row.source });
        let trigger = Trigger { arguments, fires: row.fires, own };
        installed.entry(Target { schema: row.schema, name: row.name }).or_default().0.insert(row.trigger, trigger);
    }
    Ok(installed)
}

/// The functions that are made for the table's columns.
pub(super) async fn functions(db: &Db, table: &Target, arguments: &[String]) -> Result<Option<Functions>, sqlx::Error> {
    let [relation, kept @ ..] = arguments else { return Ok(None) };
    let row = sqlx::query!(
        r#"select sluice.capture_rows_name($3)::text as "statements!", sluice.capture_rows_source(c.oid, $3, $4) as "statements_source!",
                  sluice.capture_name($3)::text as "updates!", case when sluice.updates_by_row(c.oid) then sluice.capture_source(c.oid, $3, $4) end as updates_source
           from pg_catalog.pg_class c
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where n.nspname = $1 and c.relname = $2 and c.relkind in ('r', 'p')"#,
        table.schema,
        table.name,
        relation,
        kept
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Functions {
        statements: Function { name: row.statements, source: row.statements_source },
        updates: row.updates_source.map(|source| Function { name: row.updates, source }),
    }))
}

/// Drops the functions whose tables or triggers are gone.
pub(super) async fn drop_unused(db: &Db) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.drop_unused_captures()").execute(db).await?;
    Ok(())
}

/// The table itself, its partitions or the tables that inherit from it, and theirs; and whether each is a foreign table. A statement fires the triggers
/// of the table that it names, and no others.
pub(super) async fn parts(db: &Db, table: &Table) -> Result<Vec<(Target, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with recursive part as (
             select top.oid from pg_catalog.pg_class top
             join pg_catalog.pg_namespace tn on tn.oid = top.relnamespace
             where tn.nspname = $1 and top.relname = $2
             union
             select i.inhrelid from part join pg_catalog.pg_inherits i on i.inhparent = part.oid)
           select n.nspname::text as "schema!", c.relname::text as "name!", c.relkind = 'f' as "foreign!"
           from part
           join pg_catalog.pg_class c on c.oid = part.oid
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           order by 1, 2"#,
        table.schema,
        table.name
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|row| (Target { schema: row.schema, name: row.name }, row.foreign)).collect())
}

/// Who holds a lock that keeps triggers from being changed, at most five.
pub(super) async fn holders(db: &Db, table: &Target) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select distinct format('process %s, user %s%s, in a transaction for %s s, %s: %s', a.pid, a.usename,
                    case when a.application_name <> '' then format(' (%s)', a.application_name) end,
                    round(extract(epoch from clock_timestamp() - a.xact_start)), a.state, left(regexp_replace(a.query, '\s+', ' ', 'g'), 80)) as "holder!"
           from pg_catalog.pg_locks l
           join pg_catalog.pg_stat_activity a on a.pid = l.pid
           join pg_catalog.pg_class c on c.oid = l.relation
           join pg_catalog.pg_namespace n on n.oid = c.relnamespace
           where l.locktype = 'relation' and l.granted and n.nspname = $1 and c.relname = $2 and l.pid <> pg_backend_pid()
             and l.database = (select oid from pg_catalog.pg_database where datname = current_database())
             and l.mode not in ('AccessShareLock', 'RowShareLock')
           limit 5"#,
        table.schema,
        table.name
    )
    .fetch_all(db)
    .await
}
