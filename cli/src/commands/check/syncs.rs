//! Each sync against the tables it names, and each connection's way into Zoho.

use sluice_core::config::Config;
use sluice_core::config::sync::OnDelete;
use sluice_core::db::Db;
use sluice_core::db::dynamic::Ident;
use sluice_producer::Definitions;
use sluice_sync::definition::{self, Definition};
use sluice_sync::module::{Create, Lookup, Refusal};

use super::Finding;

pub(super) async fn definitions(definitions: &Definitions, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings: Vec<Finding> = definitions.findings.iter().map(translate).collect();
    for definition in definitions.by_name.values() {
        let at = format!("syncs.{}", definition.name());
        let (table, module) = (&definition.sync.table, &definition.module);
        if definition.sync.direction.pushes() {
            findings.push(Finding::ok(&at, format!("{table} → {module}; a create {}", create_way(&definition.create_way()))));
        } else {
            findings.push(Finding::ok(&at, format!("{module} → {table}")));
        }
        findings.extend(writeback(definition, db).await?);
        findings.extend(rows(definition, db).await?);
    }
    Ok(findings)
}

fn translate(finding: &definition::Finding) -> Finding {
    match finding.level {
        definition::Level::Warning => Finding::warning(&finding.at, &finding.message),
        definition::Level::Error => Finding::error(&finding.at, &finding.message),
    }
}

/// How a create of the sync is kept from making a second record, in words.
fn create_way(way: &Create) -> String {
    match way {
        Create::Refused { by: Refusal::Upsert { fields } } => format!("is an upsert on {}, so it cannot double", fields.join(", ")),
        Create::Refused { by: Refusal::UpsertHeader { field } } => format!("is an upsert on {field}, so it cannot double"),
        Create::Refused { by: Refusal::Unique { field } } => format!("that was made already is refused by Zoho, since {field} is unique"),
        Create::FoundAgain { how: Lookup::Filter { field } } => format!("whose answer is lost is found again by {field}"),
        Create::FoundAgain { how: Lookup::Payments { field } } => {
            format!("whose answer is lost is found again by {field} among the customer's payments")
        }
        Create::FoundAgain { how: Lookup::CreatedSince { values, reference } } => {
            let by: Vec<&str> = values.iter().chain(reference).map(String::as_str).collect();
            format!("whose answer is lost is found again among new records by {}", by.join(", "))
        }
        Create::Parked => "whose answer is lost waits for a person".to_owned(),
    }
}

async fn writeback(definition: &Definition, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let at = format!("syncs.{}.writeback", definition.name());
    let (known, unknown): (Vec<&str>, Vec<&str>) =
        definition.sync.writeback.columns().partition(|column| definition.table.column(column).is_some());
    let relation = Ident::qualified(&definition.table.schema, &definition.table.name);
    let mut findings: Vec<Finding> = unknown
        .iter()
        .map(|column| {
            let table = &definition.sync.table;
            let kind = if definition.sync.writeback.synced_at.as_deref() == Some(*column) { "timestamptz" } else { "text" };
            Finding::warning(
                &at,
                format!(
                    "`{table}` has no column `{column}`: leave it out, or: alter table {} add column {} {kind};",
                    relation.as_str(),
                    Ident::name(column).as_str()
                ),
            )
        })
        .collect();
    for column in known {
        let may = sqlx::query_scalar!(
            r#"select coalesce(has_column_privilege(to_regclass($1)::oid, $2, 'UPDATE'), false) as "may!""#,
            relation.as_str(),
            column
        )
        .fetch_one(db)
        .await?;
        if !may {
            findings.push(Finding::warning(&at, format!("our role may not update `{column}`, so it stays empty")));
        }
    }
    Ok(findings)
}

/// The child tables that lists become rows of, and our rights on them.
async fn rows(definition: &Definition, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    for (path, list) in definition.rows() {
        let at = format!("syncs.{}.fields.{path}", definition.name());
        let table = Ident::qualified(&list.table.schema, &list.table.name);
        let deletes = list.field.on_delete == OnDelete::Delete;
        let missing = sqlx::query_scalar!(
            r#"select privilege as "privilege!" from unnest(array['select', 'insert', 'update', 'delete']) as privilege
               where (privilege <> 'delete' or $2) and not has_table_privilege(to_regclass($1)::oid, privilege)"#,
            table.as_str(),
            deletes
        )
        .fetch_all(db)
        .await?;
        let by = format!("{} and {}", list.field.parent.columns().join(", "), list.matched);
        if missing.is_empty() {
            findings.push(Finding::ok(&at, format!("its objects are rows of {}, told apart by {by}", list.field.table)));
        } else {
            let role = sqlx::query_scalar!(r#"select current_user::text as "role!""#).fetch_one(db).await?;
            let grant = format!("grant {} on {} to {};", missing.join(", "), table.as_str(), Ident::name(&role).as_str());
            findings.push(Finding::error(&at, format!("our role may not write the rows of {}; as its owner:\n{grant}", list.field.table)));
        }
    }
    Ok(findings)
}

pub(super) async fn credentials(config: &Config, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let published = sqlx::query!(
        r#"select c.name, c.credential is not null as "stored!", r.failure, c.organization_id from sluice.connection c
           left join sluice.credential r on r.fingerprint = c.credential where c.retired_at is null"#
    )
    .fetch_all(db)
    .await?;
    let findings = config.connections.iter().map(|(name, connection)| {
        let at = format!("connections.{name}");
        let row = published.iter().find(|row| row.name == *name);
        match row {
            Some(row) if row.failure.is_some() => {
                Finding::error(at, format!("Zoho refused a token: {}", row.failure.as_deref().unwrap_or_default()))
            }
            Some(row) if row.stored => Finding::ok(at, "a refresh token is stored"),
            _ if connection.refresh_token.is_some() => Finding::ok(at, "the file has a refresh token; it is stored at first use"),
            _ => Finding::error(at, format!("there is no refresh token: run `sluice auth {name}`, or set refresh_token")),
        }
    });
    Ok(findings.collect())
}
