//! What a settle writes of a pull: changes for the application's own rows, readings for the next run, conflicts, and who is to run next.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sluice_core::config::sync::Brake;
use sluice_core::config::units::Limit;
use sluice_core::db::Tx;
use sluice_sync::definition::Definition;
use sluice_sync::{link, sighting};

use crate::work::{Act, Conflict, Fate, Handled, Next, Pull, Sums};

/// The runs that the pulls are to tell, by Zoho id.
pub(super) async fn leave(tx: &mut Tx, sync: &str, handled: &Handled, lane: &str) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let mut told = BTreeMap::new();
    if !handled.sightings.is_empty() {
        sighting::keep(tx, sync, &handled.sightings).await?;
    }
    if !handled.acted_on.is_empty() {
        let used: Vec<_> = handled.acted_on.iter().map(|(used, _)| used.clone()).collect();
        told = sighting::forget(tx, sync, &used).await?;
    }
    if !handled.compared.is_empty() {
        close_conflicts(tx, sync, handled).await?;
    }
    for conflict in &handled.conflicts {
        open_conflict(tx, sync, conflict).await?;
    }
    for (key, zoho_id) in &handled.adopted {
        adopt(tx, sync, key, zoho_id).await?;
    }
    for (from, to) in &handled.moved {
        link::store::move_key(tx, sync, from, to).await?;
    }
    run_next(tx, &handled.runs, lane).await?;
    let mut sums = handled.sums.clone();
    for (used, fate) in &handled.acted_on {
        let Some(run_id) = told.get(&used.zoho_id) else { continue };
        let sum = sums.entry(*run_id).or_default();
        match fate {
            Fate::Unchanged => sum.unchanged += 1,
            Fate::Failed(why) => {
                sum.failed += 1;
                sum.messages.push(format!("{}: {why}", used.zoho_id));
            }
            Fate::Later => {}
        }
    }
    for (run_id, sums) in &sums {
        note_run(tx, *run_id, sums).await?;
    }
    Ok(told)
}

/// What was approved passes once. Where a run found nothing to be done to the row any more, the approval is over as well: a later change is another one.
pub(super) async fn use_up_approvals(tx: &mut Tx, definition: &Definition, handled: &Handled) -> Result<(), sqlx::Error> {
    let idle = |key: &&String| !handled.pulls.iter().any(|pull| pull.key == **key);
    let idle: Vec<String> = handled.compared.iter().filter(idle).cloned().collect();
    if definition.sync.brake.is_none() || idle.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        r"update sluice.held_record set passed_at = clock_timestamp() where id = any (array(
            select id from sluice.held_record where sync = $1 and key = any ($2) and resolution = 'approved' and passed_at is null
              and (operation like 'pull\_%' or operation = 'missing') order by id for update skip locked))",
        definition.name(),
        &idle
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Leaves the changes for the application's own rows, but for those that the brake holds. The last thing that a settle does: it may wait for another
/// settle of the sync, which then waits for nothing of ours.
///
/// `told`: the runs to tell of them. What is held is told here: its row is as it was.
pub(super) async fn leave_pulls(
    tx: &mut Tx,
    definition: &Definition,
    pulls: &[Pull],
    told: &BTreeMap<String, i64>,
) -> Result<(), sqlx::Error> {
    if pulls.is_empty() {
        return Ok(());
    }
    let held = held_back(tx, definition, pulls).await?;
    for pull in pulls.iter().filter(|pull| held.contains(&pull.key)) {
        if let Some(run_id) = told.get(&pull.zoho_id) {
            let message = format!("{}: held by the brake, or rejected before: sluice held list", pull.zoho_id);
            note_run(tx, *run_id, &Sums { unchanged: 1, messages: vec![message], ..Sums::default() }).await?;
        }
    }
    // what a person decided for them is carried out when they are let through
    sqlx::query!(
        "update sluice.conflict set applied_at = null where sync = $1 and key = any ($2) and resolution = 'zoho' and applied_at >= now()",
        definition.name(),
        &held.iter().cloned().collect::<Vec<_>>()
    )
    .execute(&mut *tx)
    .await?;
    let told_of = |pull: &Pull| json!(Pull { run_id: told.get(&pull.zoho_id).copied(), ..pull.clone() });
    let (keys, pulls): (Vec<String>, Vec<Value>) =
        pulls.iter().filter(|pull| !held.contains(&pull.key)).map(|pull| (pull.key.clone(), told_of(pull))).unzip();
    sqlx::query!(
        "insert into sluice.local_write (sync, key, columns, pull) select $1, t.key, '{}', t.pull from unnest($2::text[], $3::jsonb[]) as t (key, pull)",
        definition.name(),
        &keys,
        &pulls
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// The records that wait for a person, or were rejected by one.
async fn held_back(tx: &mut Tx, definition: &Definition, pulls: &[Pull]) -> Result<BTreeSet<String>, sqlx::Error> {
    let Some(Brake { max_changes, max_deletes, per }) = definition.sync.brake else { return Ok(BTreeSet::new()) };
    let (deletes, changes): (Vec<&Pull>, Vec<&Pull>) = pulls.iter().partition(|pull| pull.removes() > 0);
    let mut held = BTreeSet::new();
    for (class, limit, pulls) in [("pull", max_changes, changes), ("pull_delete", Some(max_deletes), deletes)] {
        let Some(limit) = limit.filter(|_| !pulls.is_empty()) else { continue };
        let total = total(tx, definition.name()).await?;
        let allowed = limit.braked(total);
        let text = match limit {
            Limit::Count(count) => count.to_string(),
            Limit::Percent(_) => format!("{allowed} ({limit} of {total}, at least {})", Limit::SHARE_MIN),
        };
        let given: Vec<Value> = pulls
            .iter()
            .map(|pull| {
                json!({"key": pull.key, "operation": operation(pull), "weight": pull.removes().max(1), "pull": shown(definition, pull)})
            })
            .collect();
        let through = sqlx::query_scalar!(
            r#"select key as "key!" from sluice.brake_pulls($1, $2, $3, $4, make_interval(secs => $5), $6) key"#,
            definition.name(),
            class,
            i64::try_from(allowed).unwrap_or(i64::MAX),
            text,
            per.as_secs_f64(),
            Value::Array(given)
        )
        .fetch_all(&mut *tx)
        .await?;
        held.extend(pulls.iter().map(|pull| pull.key.clone()).filter(|key| !through.contains(key)));
    }
    Ok(held)
}

/// What whoever decides on a pull is shown, and what a rejected one is known again by: of a file its version instead of its bytes.
fn shown(definition: &Definition, pull: &Pull) -> Pull {
    let versions = definition.fields().iter().filter_map(|(path, field)| {
        let column = field.own_column().filter(|column| pull.files.contains_key(*column))?;
        Some((column.to_owned(), pull.pulled.get(path)?.clone()))
    });
    let columns = pull.columns.clone().into_iter().chain(versions).collect();
    Pull { columns, files: BTreeMap::new(), ..pull.clone() }
}

fn operation(pull: &Pull) -> &'static str {
    match pull.act {
        Act::Insert => "pull_create",
        Act::Update if pull.removes() == 0 => "pull_update",
        Act::Update | Act::Delete => "pull_delete",
    }
}

/// The records of a sync, of which a share is one: as the brake on pushes counts them.
async fn total(tx: &mut Tx, sync: &str) -> Result<u64, sqlx::Error> {
    let total = sqlx::query_scalar!(
        r#"select greatest(y.total, (select c.linked from sluice.sync_counter c where c.sync = y.name), 0) as "total!" from sluice.sync y where y.name = $1"#,
        sync
    )
    .fetch_optional(tx)
    .await?;
    Ok(total.unwrap_or_default().max(0).unsigned_abs())
}

/// Conflicts of records that were compared just now are over, unless they are there again; and what a person decided was carried out.
async fn close_conflicts(tx: &mut Tx, sync: &str, handled: &Handled) -> Result<(), sqlx::Error> {
    let (compared, open, undone) = (&handled.compared, &handled.conflicts, &handled.undone);
    let (keys, fields): (Vec<String>, Vec<String>) = open.iter().map(|one| (one.key.clone(), one.clash.field.clone())).unzip();
    sqlx::query!(
        "update sluice.conflict c set resolution = coalesce(resolution, 'superseded'), resolved_by = coalesce(resolved_by, 'sluice'),
           resolved_at = coalesce(resolved_at, clock_timestamp()), applied_at = clock_timestamp()
         where c.id = any (array(
           select x.id from sluice.conflict x
           where x.sync = $1 and x.key = any ($2) and x.applied_at is null and x.resolution is distinct from 'superseded'
             and (x.resolution is null or x.key <> all ($5))
             and (x.key, x.field) not in (select k, f from unnest($3::text[], $4::text[]) as o (k, f))
           order by x.id for update skip locked))",
        sync,
        compared,
        &keys,
        &fields,
        undone
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn open_conflict(tx: &mut Tx, sync: &str, conflict: &Conflict) -> Result<(), sqlx::Error> {
    let clash = &conflict.clash;
    let base = clash.base.as_ref().map(|pair| json!({"local": pair.local, "zoho": pair.zoho}));
    // A field that flaps in a thousand records is told of once.
    sqlx::query!(
        "with opened as (
           insert into sluice.conflict (sync, key, zoho_id, field, base, local, zoho, local_changed_at, zoho_modified_at, reason, flapping)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
           on conflict (sync, key, field) where resolution is null do update set local = excluded.local, zoho = excluded.zoho,
             local_changed_at = excluded.local_changed_at, zoho_modified_at = excluded.zoho_modified_at, reason = excluded.reason, flapping = excluded.flapping
           returning id, flapping)
         insert into sluice.alert (occasion, subject, message)
         select 'flapping', format('%s %s', $1::text, $4::text),
           format('%s: %s of record %s goes to and fro between here and Zoho and was parked: nothing is written to it any more on either side. Which automation fights whom? See: sluice conflicts show %s', $1::text, $4::text, $2::text, o.id)
         from opened o
         where o.flapping and not exists (select from sluice.alert a where a.occasion = 'flapping' and a.subject = format('%s %s', $1::text, $4::text)
           and a.raised_at > clock_timestamp() - interval '6 hours')",
        sync,
        conflict.key,
        conflict.zoho_id,
        clash.field,
        base,
        clash.local,
        clash.zoho,
        conflict.local_changed_at as Option<DateTime<Utc>>,
        conflict.zoho_modified_at as Option<DateTime<Utc>>,
        clash.reason,
        clash.flapping
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Links a record to the row that was found for it, unless a create for that row is under way: the run that is asked for looks again then.
async fn adopt(tx: &mut Tx, sync: &str, key: &str, zoho_id: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.link as l (sync, key, zoho_id) select $1, $2, $3
         where not exists (select from sluice.link x where x.sync = $1 and x.zoho_id = $3)
         on conflict on constraint link_pkey do update set zoho_id = excluded.zoho_id
         where l.zoho_id is null and l.create_sent_at is null and l.creates = 0",
        sync,
        key,
        zoho_id
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn run_next(tx: &mut Tx, runs: &[Next], lane: &str) -> Result<(), sqlx::Error> {
    let args: Vec<Value> = runs
        .iter()
        .map(|next| match next {
            Next::Key { sync, key } => json!({"sync": sync, "key": key, "seen": true}),
            Next::Zoho { sync, zoho_id } => json!({"sync": sync, "zoho_id": zoho_id, "seen": true}),
            Next::Anew { sync, zoho_id } => json!({"sync": sync, "zoho_id": zoho_id}),
        })
        .collect();
    if args.is_empty() {
        return Ok(());
    }
    sqlx::query!("insert into sluice.job (kind, args, lane) select 'pull', a, $2 from unnest($1::jsonb[]) a", &args, lane)
        .execute(tx)
        .await?;
    Ok(())
}

/// Tells a run over many records what became of some of them.
pub(crate) async fn note_run(tx: &mut Tx, run_id: i64, sums: &Sums) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "select sluice.note_run($1, $2, $3, $4, $5, $6, $7, $8)",
        run_id,
        sums.total,
        sums.created,
        sums.updated,
        sums.unchanged,
        sums.failed,
        json!(sums.messages),
        sums.calls
    )
    .execute(tx)
    .await?;
    Ok(())
}
