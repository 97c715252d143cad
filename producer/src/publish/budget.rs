//! `sluice.budget`, `sluice.place`, `sluice.product`: one budget per organisation and what it meters together.
//!
//! A place that is in use is never deleted, and no change of the configuration makes room for a call that the window does not have.

use std::collections::BTreeMap;

use sluice_core::config::{Config, Connection, Product};
use sluice_core::db::{Db, Tx};

use super::{Change, How, Published};

/// Data centre, organisation, scope.
type Key = (String, String, String);

#[derive(Debug, Clone, Copy)]
struct Limits {
    cap: i32,
    in_flight: i32,
    window_seconds: i32,
}

pub(super) async fn publish(tx: &mut Tx, config: &Config, published: &mut Published) -> Result<(), sqlx::Error> {
    let (budgets, products) = wanted(tx, config).await?;
    // In one order and before the products, as claim and settle lock them.
    sqlx::query!("select from sluice.budget order by id for update").fetch_all(&mut *tx).await?;
    let mut ids = BTreeMap::new();
    for (key, limits) in &budgets {
        let id = publish_one(tx, key, *limits, published).await?;
        ids.insert(key, id);
    }
    for ((connection, product), key) in &products {
        let Some(id) = ids.get(key) else { continue };
        draw_from(tx, connection, *product, *id).await?;
    }
    fill(tx).await?;
    // Every product of a connection can be asked by `call`, whether a sync uses it or not.
    sqlx::query!(
        "insert into sluice.shape (connection, product, kind, batch_max) select p.connection, p.product, 'call', 1 from sluice.product p
         on conflict on constraint shape_key do nothing"
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the number of places what the budgets say, as far as they are free: a place in use goes at a later call. Also removes budgets
/// from which nothing draws any longer.
///
/// # Errors
/// The database's.
pub async fn adjust(db: &Db) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    sqlx::query!("select from sluice.budget order by id for update").fetch_all(&mut tx).await?;
    fill(&mut tx).await?;
    sqlx::query!(
        "delete from sluice.budget b
         where not exists (select from sluice.product p where p.budget_id = b.id) and not exists (select from sluice.batch x where x.budget_id = b.id)
           and not exists (select from sluice.place p where p.budget_id = b.id and p.free_at > clock_timestamp())"
    )
    .execute(&mut tx)
    .await?;
    tx.commit().await
}

type Wanted = (BTreeMap<Key, Limits>, BTreeMap<(String, Product), Key>);

async fn wanted(tx: &mut Tx, config: &Config) -> Result<Wanted, sqlx::Error> {
    let mut budgets: BTreeMap<Key, Limits> = BTreeMap::new();
    let mut products = BTreeMap::new();
    for (name, connection) in &config.connections {
        let organization = organization(tx, name, connection).await?;
        for product in Product::ALL {
            let (scope, budget) = connection.budget_of(product);
            let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX).max(1);
            let limits =
                Limits { cap: int(budget.per_minute), in_flight: int(budget.in_flight), window_seconds: int(budget.window_seconds) };
            let key = (connection.data_center.as_str().to_owned(), organization.clone(), scope.to_owned());
            // Two connections to one organisation draw from one budget: the more careful figures hold.
            budgets
                .entry(key.clone())
                .and_modify(|known| {
                    known.cap = known.cap.min(limits.cap);
                    known.in_flight = known.in_flight.min(limits.in_flight);
                    known.window_seconds = known.window_seconds.max(limits.window_seconds);
                })
                .or_insert(limits);
            products.insert((name.clone(), product), key);
        }
    }
    Ok((budgets, products))
}

/// The organisation's id, or a name of its own for one that is not known yet. A budget under that name becomes the organisation's when
/// the id is learnt, so that the calls in its window still count.
async fn organization(tx: &mut Tx, name: &str, connection: &Connection) -> Result<String, sqlx::Error> {
    let unknown = format!("connection:{name}");
    let known = sqlx::query_scalar!("select organization_id from sluice.connection where name = $1", name)
        .fetch_optional(&mut *tx)
        .await?
        .flatten();
    let Some(id) = connection.organization_id.clone().or(known) else { return Ok(unknown) };
    sqlx::query!(
        "update sluice.budget b set organization_id = $2 where b.organization_id = $1
           and not exists (select from sluice.budget o where o.data_center = b.data_center and o.organization_id = $2 and o.scope = b.scope)",
        unknown,
        id
    )
    .execute(tx)
    .await?;
    Ok(id)
}

async fn publish_one(
    tx: &mut Tx,
    (data_center, organization, scope): &Key,
    limits: Limits,
    published: &mut Published,
) -> Result<i64, sqlx::Error> {
    let name = format!("{organization}/{scope}");
    let known = sqlx::query!(
        r#"select id, cap, in_flight, extract(epoch from call_window)::float8 as "window_seconds!" from sluice.budget
           where data_center = $1 and organization_id = $2 and scope = $3"#,
        data_center,
        organization,
        scope
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(known) = known {
        if (known.cap, known.in_flight) != (limits.cap, limits.in_flight) || known.window_seconds != f64::from(limits.window_seconds) {
            sqlx::query!(
                "update sluice.budget set cap = $2, in_flight = $3, call_window = make_interval(secs => $4) where id = $1",
                known.id,
                limits.cap,
                limits.in_flight,
                f64::from(limits.window_seconds)
            )
            .execute(tx)
            .await?;
            published.changes.push(Change { what: "budget", name, how: How::Changed { linked: 0 } });
        }
        return Ok(known.id);
    }
    published.changes.push(Change { what: "budget", name, how: How::Added });
    sqlx::query_scalar!(
        "insert into sluice.budget (data_center, organization_id, scope, cap, in_flight, call_window)
         values ($1, $2, $3, $4, $5, make_interval(secs => $6)) returning id",
        data_center,
        organization,
        scope,
        limits.cap,
        limits.in_flight,
        f64::from(limits.window_seconds)
    )
    .fetch_one(tx)
    .await
}

/// A product that changes its budget leaves calls behind in the former one's window: the new one rests until they are out of it.
async fn draw_from(tx: &mut Tx, connection: &str, product: Product, budget: i64) -> Result<(), sqlx::Error> {
    let former =
        sqlx::query_scalar!("select budget_id from sluice.product where connection = $1 and product = $2", connection, product.as_str())
            .fetch_optional(&mut *tx)
            .await?;
    match former {
        Some(former) if former == budget => return Ok(()),
        None => {
            sqlx::query!(
                "insert into sluice.product (connection, product, budget_id) values ($1, $2, $3)",
                connection,
                product.as_str(),
                budget
            )
            .execute(&mut *tx)
            .await?;
            return Ok(());
        }
        Some(former) => {
            sqlx::query!(
                "update sluice.budget b set blocked_until = greatest(b.blocked_until, u.until), blocked_reason = 'the configuration moved calls to this budget'
                 from (select max(p.free_at) as until from sluice.place p where p.budget_id = $2 and p.free_at > clock_timestamp()) u
                 where b.id = $1 and u.until is not null",
                budget,
                former
            )
            .execute(&mut *tx)
            .await?;
        }
    }
    sqlx::query!("update sluice.product set budget_id = $3 where connection = $1 and product = $2", connection, product.as_str(), budget)
        .execute(tx)
        .await?;
    Ok(())
}

/// The caller holds the budgets' rows, without which no place is granted.
async fn fill(tx: &mut Tx) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into sluice.place (budget_id, kind)
         select b.id, k.kind from sluice.budget b
         cross join lateral (values ('window', b.cap), ('in_flight', b.in_flight)) as k (kind, wanted)
         cross join lateral (select count(*) as n from sluice.place p where p.budget_id = b.id and p.kind = k.kind) has
         cross join lateral generate_series(has.n + 1, k.wanted)"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from sluice.place where id in (
           select p.id from (
             select p.id, p.free_at, row_number() over w as number, count(*) over (partition by p.budget_id, p.kind) - case p.kind when 'window' then b.cap else b.in_flight end as excess
             from sluice.place p join sluice.budget b on b.id = p.budget_id
             window w as (partition by p.budget_id, p.kind order by p.free_at)) p
           where p.number <= p.excess and p.free_at <= clock_timestamp())"
    )
    .execute(tx)
    .await?;
    Ok(())
}
