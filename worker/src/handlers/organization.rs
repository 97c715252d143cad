//! Which organisation a connection is, where its file does not say: asked for with the grant of the first batch that needs it, and stored for
//! all. The batch itself goes on in a later claim.
//!
//! Never guesses: several organisations without a default pause the connection until its file names one.

use std::time::Duration;

use sluice_queue::Outcome;
use sluice_zoho::cost::Cost;
use sluice_zoho::organizations::{self, Organization};
use sluice_zoho::{Error, Product};

use super::plan::{self, Said};
use super::{all, ended, snooze};
use crate::engine::Engine;
use crate::outcome::{self, PAUSED, Stops};
use crate::session::{Ended, Session};
use crate::work::{Handled, Work};

/// The finance product of a batch that cannot be sent, since no organisation is known. CRM and FSM know theirs by the token.
pub(super) fn needed(work: &Work, session: &Session<'_>) -> Option<Product> {
    let product: Product = work.batch.product.parse().ok()?;
    (needs_one(product) && session.organization().is_none()).then_some(product)
}

/// Whether calls of the product must name an organisation (finance sheet §1.2).
pub(crate) fn needs_one(product: Product) -> bool {
    matches!(product, Product::Books | Product::Inventory | Product::Billing)
}

/// How soon to look again while another worker asks.
const SOON: Duration = Duration::from_millis(250);

/// Asks Zoho and stores the answer. One batch of all workers asks; the others find it known, and give their grants back.
pub(super) async fn find(engine: &Engine, work: &Work, session: &Session<'_>, product: Product) -> Handled {
    let again = || all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    let connection = &work.batch.connection;
    let _one = engine.tokens.finding().await;
    match engine.tokens.look_for_organization(connection).await {
        Ok(true) => return again(),
        Ok(false) => {}
        Err(error) => {
            tracing::warn!(%error, connection, "the connection's organisation could not be looked up");
            return all(work, |_| snooze(Duration::from_secs(1), "the connection's organisation could not be looked up"));
        }
    }
    match engine.tokens.take_question(connection).await {
        Ok(true) => {}
        Ok(false) => return all(work, |_| snooze(SOON, "another worker asks which organisation the connection is")),
        Err(error) => {
            tracing::warn!(%error, connection, "the question for the connection's organisation could not be taken");
            return all(work, |_| snooze(Duration::from_secs(1), "the connection's organisation could not be looked up"));
        }
    }
    let handled = asked(engine, work, session, product).await;
    engine.tokens.drop_question(connection).await;
    handled
}

/// What becomes of the batch that asks.
async fn asked(engine: &Engine, work: &Work, session: &Session<'_>, product: Product) -> Handled {
    let again = || all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    let connection = &work.batch.connection;
    let reason = match session.ask(Cost::ONE, async |g, c, t| organizations::list(g, c, t, product).await).await {
        Ok(found) => match choose(&found) {
            Ok(one) => match engine.tokens.learn_organization(connection, &one.id).await {
                Ok(()) => {
                    tracing::info!(connection, organization = one.id, name = one.name, "found the connection's organisation");
                    let said = Said { plan: one.plan.clone(), users: None, time_zone: one.time_zone.clone() };
                    if let Err(error) = plan::learn(engine, connection, &work.batch.product, &said).await {
                        tracing::warn!(%error, connection, "the plan could not be stored; it will be asked for");
                    }
                    return again();
                }
                Err(error) => {
                    tracing::warn!(%error, connection, "the connection's organisation could not be stored");
                    return all(work, |_| snooze(Duration::from_secs(1), "the connection's organisation could not be stored"));
                }
            },
            Err(several) => several,
        },
        Err(Ended::Zoho(error, _)) if is_refusal(&error, session.token_replaces_refused()) => {
            format!("Zoho does not say which organisation this is (the token needs the scope to read the app's settings): {error}")
        }
        Err(failure) => return all(work, |slot| ended(engine, work, session, slot, &failure, false).0),
    };
    session.pause_connection(&reason).await;
    all(work, |_| snooze(PAUSED, &reason))
}

/// The only one, or the one that Zoho opens for the user.
///
/// # Errors
/// What a person is to be told.
pub(crate) fn choose(found: &[Organization]) -> Result<&Organization, String> {
    let mut defaults = found.iter().filter(|one| one.is_default);
    match (found, defaults.next(), defaults.next()) {
        ([only], _, _) | (_, Some(only), None) => Ok(only),
        ([], _, _) => Err("the connection's user belongs to no organisation".to_owned()),
        _ => {
            let names: Vec<String> = found.iter().map(|one| format!("{} ({})", one.id, one.name)).collect();
            Err(format!("the account has several organisations and no default: {}", names.join(", ")))
        }
    }
}

/// Zoho understood and refused: asking again would not help, and no record is to blame.
fn is_refusal(error: &Error, token_replaces_refused: bool) -> bool {
    match error {
        Error::Unauthorized { .. } => outcome::stops(error, token_replaces_refused) != Some(Stops::Token),
        Error::Rejected(_) | Error::NotFound { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn organization(id: &str, is_default: bool) -> Organization {
        Organization { id: id.to_owned(), name: format!("Org {id}"), is_default, plan: None, time_zone: None }
    }

    #[test]
    fn the_only_organisation_or_the_default_one_is_taken_and_never_one_of_several() {
        let chosen = |found: &[Organization]| choose(found).map(|one| one.id.clone());
        assert_eq!(chosen(&[organization("1", false)]), Ok("1".to_owned()));
        assert_eq!(chosen(&[organization("1", false), organization("2", true)]), Ok("2".to_owned()));
        let said = chosen(&[organization("1", false), organization("2", false)]).expect_err("several and no default");
        assert!(said.contains("1 (Org 1), 2 (Org 2)"), "{said}");
        assert!(chosen(&[]).is_err());
    }
}
