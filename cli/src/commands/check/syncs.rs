//! Each sync against the tables it names, and each connection's way into Zoho.

use sluice_core::config::Config;
use sluice_core::config::field::{ColumnField, Field, Owner, RefField};
use sluice_core::config::sync::OnDelete;
use sluice_core::db::Db;
use sluice_core::db::dynamic::Ident;
use sluice_producer::Definitions;
use sluice_sync::definition::{self, Definition};
use sluice_sync::module::{Create, Lookup, Refusal};
use sluice_sync::read::hidden_from;

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
        findings.extend(new_rows(definition, db).await?);
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
    let writes = !known.is_empty() || definition.sync.direction.pulls();
    if writes && let Some(hidden) = hidden(&relation, db).await? {
        findings.push(Finding::error(&at, hidden));
    }
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

/// Whether a policy hides rows from the role that writes, which with `[database] expression_role` is not the one that reads.
async fn hidden(table: &Ident, db: &Db) -> Result<Option<String>, sqlx::Error> {
    let mut tx = db.begin().await?;
    let hidden = hidden_from(&mut tx, table).await?;
    tx.rollback().await?;
    Ok(hidden)
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
        if let Some(hidden) = hidden(&table, db).await? {
            findings.push(Finding::error(&at, hidden));
        }
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

/// Columns that a row made of a Zoho record must have and is not given.
async fn new_rows(definition: &Definition, db: &Db) -> Result<Vec<Finding>, sqlx::Error> {
    let sync = &definition.sync;
    let mut findings = Vec::new();
    if sync.direction.pulls() && sync.inserts {
        let here = |field: &&Field| {
            !matches!(
                field,
                Field::Column(ColumnField { owner: Some(Owner::Local), .. }) | Field::Ref(RefField { owner: Some(Owner::Local), .. })
            )
        };
        let mapped = definition.fields().values().filter(here).filter_map(Field::own_column);
        let given = mapped.chain(sync.columns.keys().map(String::as_str)).chain(sync.writeback.columns());
        let without = "map a field to it (one that Zoho always has), give it a default, or set inserts = false";
        let lacking = never_given(&Ident::qualified(&definition.table.schema, &definition.table.name), given, db).await?;
        findings.extend(lacking.into_iter().map(|column| lacks(&format!("syncs.{}", definition.name()), &sync.table, &column, without)));
    }
    for (path, list) in definition.rows() {
        let mapped = list.field.item.values().filter_map(Field::own_column).chain(list.field.parent.columns().iter().map(String::as_str));
        let lacking = never_given(&Ident::qualified(&list.table.schema, &list.table.name), mapped, db).await?;
        let at = format!("syncs.{}.fields.{path}", definition.name());
        let without = "name a field for it in `item` (one that Zoho always has), or give it a default";
        findings.extend(lacking.into_iter().map(|column| lacks(&at, &list.field.table, &column, without)));
    }
    Ok(findings)
}

fn lacks(at: &str, table: &str, column: &str, without: &str) -> Finding {
    Finding::warning(
        at,
        format!(
            "`{table}`.`{column}` must not be null and has no default, and a new record of Zoho's gives it nothing, so its row is refused unless a trigger fills it: {without}"
        ),
    )
}

/// The columns besides the given ones that an insert must name.
async fn never_given(table: &Ident, given: impl Iterator<Item = &str>, db: &Db) -> Result<Vec<String>, sqlx::Error> {
    let given: Vec<String> = given.map(str::to_owned).collect();
    sqlx::query_scalar!(
        r#"select a.attname::text as "name!" from pg_attribute a join pg_type t on t.oid = a.atttypid
           where a.attrelid = to_regclass($1)::oid and a.attnum > 0 and not a.attisdropped and (a.attnotnull or t.typnotnull)
             and not a.atthasdef and a.attidentity = '' and t.typdefault is null and a.attname <> all ($2) order by a.attnum"#,
        table.as_str(),
        &given
    )
    .fetch_all(db)
    .await
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
