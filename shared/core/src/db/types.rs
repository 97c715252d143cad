//! Teaches a new connection the types that this database has beyond PostgreSQL's own.
//!
//! sqlx asks the server about an unknown type in the middle of preparing a statement, by a simple query; and a simple query makes
//! the server drop the unnamed statement, the only kind that we may use behind a transaction pooler. So the types are learnt
//! beforehand, by way of a named statement that is gone before its transaction ends: until then the server connection is ours.

use sqlx::{Connection, Executor, PgConnection, SqlSafeStr};

use super::dynamic::{self, Ident, Sql};

/// A select list may hold 1664 columns; more types than this are learnt when they are met.
const LIMIT: i32 = 1600;

pub(super) async fn learn(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let mut tx = connection.begin().await?;
    let types: Vec<(String, String)> = sqlx::query_as(
        "select n.nspname::text, t.typname::text
         from pg_type t
         join pg_namespace n on n.oid = t.typnamespace
         left join pg_type e on e.oid = t.typelem and t.typcategory = 'A'
         left join pg_class c on c.oid = coalesce(e.typrelid, t.typrelid)
         where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
           and n.nspname not like 'pg\\_%temp\\_%'
           and (c.oid is null or c.relkind = 'c')
           and has_schema_privilege(n.oid, 'usage')
         order by n.nspname <> 'sluice', t.oid
         limit $1",
    )
    .persistent(false)
    .bind(LIMIT)
    .fetch_all(&mut *tx)
    .await?;
    if !types.is_empty() {
        let mut sql = Sql::new("select null");
        for (schema, name) in &types {
            sql = sql.text(", null::").ident(&Ident::qualified(schema, name));
        }
        forget_named(&mut tx).await?; // what a connection left that was cut off just here
        tx.prepare_with(dynamic::text(sql).into_sql_str(), &[]).await?;
        forget_named(&mut tx).await?;
    }
    tx.commit().await
}

/// Removes what sqlx named on this server connection.
async fn forget_named(tx: &mut PgConnection) -> Result<(), sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar("select name from pg_prepared_statements where not from_sql and name like 'sqlx\\_s\\_%'")
        .persistent(false)
        .fetch_all(&mut *tx)
        .await?;
    for name in names {
        dynamic::query(Sql::new("deallocate ").ident(&Ident::name(&name))).persistent(false).execute(&mut *tx).await?;
    }
    Ok(())
}
