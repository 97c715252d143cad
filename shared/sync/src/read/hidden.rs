//! Row-level security: a row that a policy hides from us is not gone.

use sluice_core::db::Tx;
use sluice_core::db::dynamic::Ident;

use super::{Problem, Reader};
use crate::definition::Definition;

impl Reader {
    /// Whether a policy would hide rows of the table from the role that reads it.
    pub(super) async fn hidden(&self, definition: &Definition) -> Result<Option<Problem>, sqlx::Error> {
        let table = Ident::qualified(&definition.table.schema, &definition.table.name);
        let mut tx = self.begin().await?;
        let role = hidden_from(&mut tx, &table).await?;
        tx.rollback().await?;
        Ok(role.map(|hidden| Problem::payload("table", hidden)))
    }
}

/// What keeps the transaction's role from seeing all rows of a table, and the statements that mend it. A policy that lets all pass is no remedy: with
/// `row_security` off PostgreSQL refuses to apply any.
///
/// # Errors
/// When the database does not answer.
pub async fn hidden_from(tx: &mut Tx, table: &Ident) -> Result<Option<String>, sqlx::Error> {
    let found = sqlx::query!(
        r#"select current_user::text as "role!", pg_catalog.pg_get_userbyid(c.relowner)::text as "owner!", c.relforcerowsecurity as "forced!"
           from pg_catalog.pg_class c where c.oid = pg_catalog.to_regclass($1)::oid and pg_catalog.row_security_active(c.oid)"#,
        table.as_str()
    )
    .fetch_optional(tx)
    .await?;
    Ok(found.map(|found| {
        let (role, owner) = (Ident::name(&found.role), Ident::name(&found.owner));
        let (role, owner, table) = (role.as_str(), owner.as_str(), table.as_str());
        let or = if found.forced { String::new() } else { format!("\nor, if it may do what the owner may: grant {owner} to {role};") };
        format!(
            "{table} has row-level security, which hides rows from the role {role}; a hidden row would be taken for a deleted one, so none is read until the role sees them all. \
             As a superuser:\nalter role {role} bypassrls;{or}"
        )
    }))
}
