//! `sluice.budget`, `sluice.place`, `sluice.meter`, `sluice.product`: one budget per organisation and what it meters together.
//!
//! A place that is in use is never deleted, and no change of the configuration makes room for a call that the window does not have.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sluice_core::config::limits::{Limits, Meter, plan_named};
use sluice_core::config::{Config, Connection, Product};
use sluice_core::db::{Db, Tx};

use super::{Change, How, Published};

/// Data centre, organisation, scope.
type Key = (String, String, String);

/// What the members of one budget share.
#[derive(Debug, Clone)]
struct Shared {
    cap: i32,
    in_flight: i32,
    heavy: i32,
    window_seconds: i32,
    time_zone: Option<String>,
    /// What each of its products' day or credits may cost.
    meters: BTreeMap<&'static str, Metered>,
}

/// A product's day, or its credits.
#[derive(Debug, Clone, Copy)]
struct Metered {
    meter: Meter,
    configured: Option<i32>,
    by_plan: Option<i32>,
}

pub(super) async fn publish(tx: &mut Tx, config: &Config, published: &mut Published) -> Result<(), sqlx::Error> {
    let (budgets, products) = wanted(tx, config).await?;
    // In one order and before the products, as claim and settle lock them.
    sqlx::query!("select from sluice.budget order by id for update").fetch_all(&mut *tx).await?;
    let mut ids = BTreeMap::new();
    for (key, limits) in &budgets {
        let id = publish_one(tx, key, limits, published).await?;
        publish_meters(tx, id, limits).await?;
        ids.insert(key, id);
    }
    for ((connection, product), key) in &products {
        let Some(id) = ids.get(key) else { continue };
        draw_from(tx, connection, *product, *id).await?;
    }
    ask_for_plans(tx, config).await?;
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

type Wanted = (BTreeMap<Key, Shared>, BTreeMap<(String, Product), Key>);

async fn wanted(tx: &mut Tx, config: &Config) -> Result<Wanted, sqlx::Error> {
    let mut budgets: BTreeMap<Key, Shared> = BTreeMap::new();
    let mut products = BTreeMap::new();
    for (name, connection) in &config.connections {
        let organization = organization(tx, name, connection).await?;
        for product in Product::ALL {
            let (scope, mut budget) = connection.budget_of(product);
            if budget.plan.is_none()
                && let Some(learnt) = learnt(tx, name, product).await?
            {
                (budget.plan, budget.users) = (Some(learnt.0.to_owned()), budget.users.or(learnt.1));
            }
            let limits = Limits::of(product, &budget);
            let metered = Metered { meter: limits.meter, configured: limits.configured.map(int), by_plan: limits.by_plan.map(int) };
            let one = Shared {
                cap: int(limits.per_window),
                in_flight: int(limits.in_flight),
                heavy: i32::try_from(limits.heavy).unwrap_or(i32::MAX),
                window_seconds: int(limits.window_seconds),
                time_zone: budget.time_zone,
                meters: BTreeMap::from([(product.as_str(), metered)]),
            };
            let key = (connection.data_center.as_str().to_owned(), organization.clone(), scope.to_owned());
            match budgets.entry(key.clone()) {
                Entry::Vacant(new) => drop(new.insert(one)),
                Entry::Occupied(mut known) => known.get_mut().join(one),
            }
            products.insert((name.clone(), product), key);
        }
    }
    Ok((budgets, products))
}

/// The plan that Zoho named, and its licensed users, where somebody asked.
async fn learnt(tx: &mut Tx, connection: &str, product: Product) -> Result<Option<(&'static str, Option<u32>)>, sqlx::Error> {
    let row =
        sqlx::query!("select plan, plan_users from sluice.product where connection = $1 and product = $2", connection, product.as_str())
            .fetch_optional(tx)
            .await?;
    let Some(row) = row else { return Ok(None) };
    let users = row.plan_users.and_then(|users| u32::try_from(users).ok());
    Ok(row.plan.as_deref().and_then(plan_named).map(|plan| (plan, users)))
}

/// Where the file names no plan, a worker asks Zoho with its first call. FSM has nobody to ask.
async fn ask_for_plans(tx: &mut Tx, config: &Config) -> Result<(), sqlx::Error> {
    for (name, connection) in &config.connections {
        for product in Product::ALL {
            let asks = product != Product::Fsm && connection.budget_of(product).1.plan.is_none();
            sqlx::query!(
                "update sluice.product set plan_due_at = case when $3 then coalesce(plan_due_at, '-infinity') end,
                   plan = case when $3 then plan end, plan_users = case when $3 then plan_users end, plan_in_flight = case when $3 then plan_in_flight end
                 where connection = $1 and product = $2",
                name,
                product.as_str(),
                asks
            )
            .execute(&mut *tx)
            .await?;
        }
    }
    Ok(())
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX).max(1)
}

impl Shared {
    /// Two connections to one organisation draw from one budget: the more careful figures hold.
    fn join(&mut self, other: Self) {
        self.cap = self.cap.min(other.cap);
        self.in_flight = self.in_flight.min(other.in_flight);
        self.heavy = self.heavy.min(other.heavy);
        self.window_seconds = self.window_seconds.max(other.window_seconds);
        self.time_zone = self.time_zone.take().or(other.time_zone);
        for (product, metered) in other.meters {
            let known = self.meters.entry(product).or_insert(metered);
            let least = |a: Option<i32>, b: Option<i32>| a.into_iter().chain(b).min();
            known.configured = least(known.configured, metered.configured);
            known.by_plan = least(known.by_plan, metered.by_plan);
        }
    }
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
    limits: &Shared,
    published: &mut Published,
) -> Result<i64, sqlx::Error> {
    let name = format!("{organization}/{scope}");
    let known = sqlx::query!(
        r#"select id, cap, in_flight, heavy, time_zone, extract(epoch from call_window)::float8 as "window_seconds!" from sluice.budget
           where data_center = $1 and organization_id = $2 and scope = $3"#,
        data_center,
        organization,
        scope
    )
    .fetch_optional(&mut *tx)
    .await?;
    if let Some(known) = known {
        let time_zone = limits.time_zone.clone().or_else(|| known.time_zone.clone()); // or what Zoho said
        let figures = (known.cap, known.in_flight, known.heavy, known.time_zone);
        if figures != (limits.cap, limits.in_flight, limits.heavy, time_zone.clone())
            || known.window_seconds != f64::from(limits.window_seconds)
        {
            sqlx::query!(
                "update sluice.budget set cap = $2, in_flight = $3, call_window = make_interval(secs => $4), heavy = $5, time_zone = $6 where id = $1",
                known.id,
                limits.cap,
                limits.in_flight,
                f64::from(limits.window_seconds),
                limits.heavy,
                time_zone
            )
            .execute(tx)
            .await?;
            published.changes.push(Change { what: "budget", name, how: How::Changed { linked: 0 } });
        }
        return Ok(known.id);
    }
    published.changes.push(Change { what: "budget", name, how: How::Added });
    sqlx::query_scalar!(
        "insert into sluice.budget (data_center, organization_id, scope, cap, in_flight, call_window, heavy, time_zone)
         values ($1, $2, $3, $4, $5, make_interval(secs => $6), $7, $8) returning id",
        data_center,
        organization,
        scope,
        limits.cap,
        limits.in_flight,
        f64::from(limits.window_seconds),
        limits.heavy,
        limits.time_zone
    )
    .fetch_one(tx)
    .await
}

/// What was counted stays counted. What Zoho itself has said of the limit stands against a plan's figure.
async fn publish_meters(tx: &mut Tx, budget: i64, limits: &Shared) -> Result<(), sqlx::Error> {
    for (product, metered) in &limits.meters {
        sqlx::query!(
            "insert into sluice.meter as m (budget_id, product, kind, configured, told, told_by, resets_at)
             values ($1, $2, $3, $4, $5, case when $5::integer is not null then 'plan' end, case when $3 = 'calls' then sluice.next_midnight($6, clock_timestamp()) end)
             on conflict on constraint meter_pkey do update set configured = excluded.configured,
               told = case when m.told_by = 'plan' or m.told is null then excluded.told else m.told end,
               told_by = case when m.told_by = 'plan' or m.told is null then excluded.told_by else m.told_by end",
            budget,
            product,
            metered.meter.as_str(),
            metered.configured,
            metered.by_plan,
            limits.time_zone
        )
        .execute(&mut *tx)
        .await?;
    }
    Ok(())
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
            // What the product has used of its day goes with it.
            sqlx::query!(
                "update sluice.meter n set used = o.used, others = o.others, urgent = o.urgent, normal = o.normal, urgent_before = o.urgent_before,
                   normal_before = o.normal_before, resets_at = o.resets_at, bucket = o.bucket, buckets = o.buckets, blocked_until = o.blocked_until, refused_at = o.refused_at, alerted_at = o.alerted_at,
                   told = case when o.told_by <> 'plan' then o.told else n.told end, told_by = case when o.told_by <> 'plan' then o.told_by else n.told_by end
                 from sluice.meter o where n.budget_id = $1 and n.product = $3 and o.budget_id = $2 and o.product = $3 and o.used > n.used",
                budget,
                former,
                product.as_str()
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
         cross join lateral (values ('window', b.cap), ('in_flight', b.in_flight), ('heavy', b.heavy)) as k (kind, wanted)
         cross join lateral (select count(*) as n from sluice.place p where p.budget_id = b.id and p.kind = k.kind) has
         cross join lateral generate_series(has.n + 1, k.wanted)"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!(
        "delete from sluice.place where id in (
           select p.id from (
             select p.id, p.free_at, row_number() over w as number, count(*) over (partition by p.budget_id, p.kind) - case p.kind when 'window' then b.cap when 'heavy' then b.heavy else b.in_flight end as excess
             from sluice.place p join sluice.budget b on b.id = p.budget_id
             window w as (partition by p.budget_id, p.kind order by p.free_at)) p
           where p.number <= p.excess and p.free_at <= clock_timestamp())"
    )
    .execute(tx)
    .await?;
    Ok(())
}
