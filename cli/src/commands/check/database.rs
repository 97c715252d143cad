//! The server, and the rights that our role has in it.

use sluice_core::config::Config;
use sluice_core::db::Db;

use super::Finding;

/// The oldest release that Sluice is tested with.
const OLDEST: i32 = 150_000;

pub(super) async fn rights(config: &Config, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let server = sqlx::query!(
        r#"select current_setting('server_version') as "version!", current_setting('server_version_num')::integer as "number!", current_user::text as "role!",
             rolsuper as "superuser!", has_database_privilege(current_database(), 'CREATE') as "may_create!", to_regnamespace('sluice') is not null as "has_schema!"
           from pg_roles where rolname = current_user"#
    )
    .fetch_one(db)
    .await?;
    let mut findings = vec![Finding::ok("database", format!("PostgreSQL {}, as role {}", server.version, server.role))];
    if server.number < OLDEST {
        findings.push(Finding::warning("database", "older than PostgreSQL 15, with which Sluice is tested"));
    }
    if !server.may_create && !server.has_schema {
        let grant = format!("grant create on database <its name> to \"{}\";", server.role);
        findings
            .push(Finding::error("database", format!("the role may not create the schema `sluice`; as the database's owner:\n{grant}")));
    }
    if server.superuser && config.database.expression_role.is_none() {
        findings.push(Finding::warning(
            "database",
            "the role is a superuser, and so are the expressions of the configuration (when, sql, each, --where): connect as an ordinary role, or \
             name one in [database] expression_role",
        ));
    }
    Ok(findings)
}

/// The roles that migrations could not create, with the statements that do.
pub(super) async fn roles(db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let missing = sqlx::query_scalar!(
        r#"select name as "name!" from unnest(array['sluice_enqueue', 'sluice_read', 'sluice_admin']) as name
           where not exists (select from pg_roles where rolname = name)"#
    )
    .fetch_all(db)
    .await?;
    if missing.is_empty() {
        return Ok(vec![Finding::ok("roles", "sluice_enqueue, sluice_read and sluice_admin are there")]);
    }
    let creates: String = missing.iter().map(|name| format!("create role {name} nologin;\n")).collect();
    Ok(vec![Finding::warning(
        "roles",
        format!("missing; as a role with CREATEROLE, and then as the schema's owner:\n{creates}{}", rights_of_roles()),
    )])
}

/// Whether attempts, jobs and changes of today are kept: the producer makes a partition for each day ahead.
pub(super) async fn history(db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let missing = sqlx::query_scalar!(
        r#"select parent as "parent!" from unnest(array['attempt', 'job_history', 'change_history']) as parent
           where to_regclass(format('sluice.%s_%s', parent, to_char(clock_timestamp() at time zone 'UTC', 'YYYYMMDD'))) is null"#
    )
    .fetch_all(db)
    .await?;
    let message = |table: &String| {
        format!(
            "sluice.{table} has no partition for today, so nothing of today is remembered in it: start `sluice producer`, which makes the days ahead, or: select sluice.keep_partitions(7, 90);"
        )
    };
    Ok(missing.iter().map(|table| Finding::warning("history", message(table))).collect())
}

const LAST_MIGRATION: &str = include_str!("../../../../migrations/0013_upkeep_and_rights.sql");

/// The statements that give the three roles their rights, whichever of them exist: as the migration has them, so that they cannot differ.
fn rights_of_roles() -> &'static str {
    LAST_MIGRATION.rfind("\ndo $$").map_or("", |start| LAST_MIGRATION[start..].trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_that_check_prints_cover_every_role_and_can_be_run_by_themselves() {
        let statements = rights_of_roles();
        assert!(statements.starts_with("do $$") && statements.ends_with("$$;"), "{statements}");
        for role in ["sluice_enqueue", "sluice_read", "sluice_admin"] {
            assert!(statements.contains(&format!("grant usage on schema sluice to {role}")), "{role}");
        }
    }
}
