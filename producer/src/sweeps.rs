//! Sweeps on a trickle: each sync with `[syncs.NAME.reconcile]` is compared as a whole as often as it says. When one is due is a row's time in the
//! database, so that one is asked for however many producers look.

use std::time::Duration;

use sluice_core::db::Db;

use crate::definitions::Definitions;

/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(30);

/// Asks for the sweeps that are due, of syncs that are published as this file has them. Their runs.
///
/// # Errors
/// The database's. A sync whose sweep is refused is left out, and logged.
pub async fn ask(db: &Db, definitions: &Definitions) -> Result<Vec<i64>, sqlx::Error> {
    let mut runs = Vec::new();
    for definition in definitions.by_name.values() {
        let Some(reconcile) = definition.sync.reconcile else { continue };
        let asked = sqlx::query_scalar!(
            "select sluice.reconcile_if_due($1, $2, make_interval(secs => $3))",
            definition.name(),
            definition.hash(),
            reconcile.within.as_secs_f64()
        )
        .fetch_one(db)
        .await;
        match asked {
            Ok(run) => runs.extend(run),
            Err(sqlx::Error::Database(refusal)) => {
                tracing::error!(sync = definition.name(), error = refusal.message(), "a sweep was refused");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(runs)
}
