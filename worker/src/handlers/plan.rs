//! What plan the organisation has, where its file does not say: asked for with the grant of one batch, once for all replicas, and again a week
//! later. What follows from it (calls under way, the day's calls or credits) stands in the ledger at once.
//!
//! It stops nothing: while Zoho does not say, the defaults hold. The batch itself goes on in a later claim.

use sluice_core::config::Product as Configured;
use sluice_core::config::connection::Budget;
use sluice_core::config::limits::{Limits, plan_named};
use sluice_queue::Outcome;
use sluice_zoho::cost::Cost;
use sluice_zoho::crm::organization as crm;
use sluice_zoho::{Error, Product, organizations};
use sqlx::PgExecutor;

use super::all;
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::work::{Handled, Work};

/// What Zoho says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Said {
    pub(crate) plan: Option<String>,
    pub(crate) users: Option<u32>,
    pub(crate) time_zone: Option<String>,
}

/// Asks Zoho and stores the answer.
pub(super) async fn ask(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    let (connection, product) = (&work.batch.connection, &work.batch.product);
    let said = match product.parse() {
        Ok(Product::Crm) => session.ask(Cost::ONE, async |g, c, t| crm::license(g, c, t).await).await.map(|license| Said {
            plan: license.edition,
            users: license.users,
            time_zone: None,
        }),
        Ok(finance @ (Product::Books | Product::Inventory | Product::Billing)) => {
            session.ask(Cost::ONE, async |g, c, t| organizations::list(g, c, t, finance).await).await.map(|all| {
                let own = all.into_iter().find(|one| Some(one.id.as_str()) == session.organization());
                own.map_or_else(Said::default, |one| Said { plan: one.plan, users: None, time_zone: one.time_zone })
            })
        }
        Ok(Product::Fsm) | Err(_) => Ok(Said::default()),
    };
    let stored = match said {
        Ok(said) => learn(engine, connection, product, &said).await,
        Err(Ended::Zoho(error, _))
            if matches!(*error, Error::Unauthorized { .. } | Error::Rejected(_) | Error::NotFound { .. } | Error::Malformed { .. }) =>
        {
            tracing::info!(%error, connection, product, "Zoho does not say which plan this is; the defaults hold");
            unsaid(&engine.db, connection, product, &error.to_string()).await
        }
        // Another batch asks, in ten minutes.
        Err(_) => Ok(()),
    };
    if let Err(error) = stored {
        tracing::warn!(%error, connection, product, "the plan could not be stored; it will be asked for again");
    }
    all(work, |slot| Outcome::Continue { progress: slot.progress.clone() })
}

/// Stores what Zoho says, with the limits that follow from it and that the file does not set.
pub(crate) async fn learn(engine: &Engine, connection: &str, product: &str, said: &Said) -> Result<(), sqlx::Error> {
    let Some(name) = &said.plan else { return unsaid(&engine.db, connection, product, "Zoho names no plan").await };
    let configured = Configured::ALL.into_iter().find(|one| one.as_str() == product);
    let Some((configured, file)) = configured.zip(engine.config.connections.get(connection)) else { return Ok(()) };
    let (_, budget) = file.budget_of(configured);
    if budget.plan.is_some() {
        return Ok(()); // by now the file names it
    }
    let by_default = Limits::of(configured, &budget).in_flight;
    let own_bound = budget.in_flight.is_some();
    let known = plan_named(name);
    let planned = Budget { plan: known.map(str::to_owned), users: budget.users.or(said.users), ..budget };
    let limits = Limits::of(configured, &planned);
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let in_flight = known.is_some().then_some(limits.in_flight).filter(|_| !own_bound).map(int);
    tracing::info!(connection, product, plan = name, users = said.users, in_flight, day = limits.by_plan, "learnt the plan");
    sqlx::query_scalar!(
        r#"select sluice.learn_plan($1, $2, $3, $4, $5, $6, $7, $8) as "learnt!""#,
        connection,
        product,
        name,
        said.users.map(int),
        in_flight,
        int(by_default),
        limits.by_plan.map(int),
        said.time_zone
    )
    .fetch_one(&engine.db)
    .await?;
    Ok(())
}

async fn unsaid(db: impl PgExecutor<'_>, connection: &str, product: &str, why: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("select sluice.plan_unsaid($1, $2, $3)", connection, product, why).execute(db).await?;
    Ok(())
}
