//! The CRM organisation of the token: `GET /org`, which says what edition it has and how many licensed users. One credit; needs the scope
//! `ZohoCRM.org.READ` (zoho.com/crm/developer/docs/api/v8/get-org-data.html).

use serde_json::Value;
use sluice_core::grant::Grant;

use crate::classify::Effect;
use crate::client::{Outgoing, Reply};
use crate::{AccessToken, Answer, Client, Method, Product, Result, mask};

/// What an organisation pays for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct License {
    /// The edition, as Zoho spells it: of the trial, while there is one and nothing is paid.
    pub edition: Option<String>,
    /// Users with a license.
    pub users: Option<u32>,
}

/// Asks for it.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn license(grant: Grant, client: &Client, token: &AccessToken) -> Result<License> {
    let request = Outgoing::new(Product::Crm, Method::Get, Effect::Read, "/org".to_owned());
    let Answer { value, evidence } = client.send(grant, request, token).await?.checked()?;
    match value.pointer("/org/0") {
        Some(organization) => Ok(Answer { value: read(organization), evidence }),
        None => Err(Reply::unreadable(Effect::Read, evidence, "no organisation")),
    }
}

fn read(organization: &Value) -> License {
    let details = organization.get("license_details").unwrap_or(&Value::Null);
    let text = |key: &str| details.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(mask::text);
    let paid = details.get("paid").and_then(Value::as_bool).unwrap_or(true);
    let trial = text("trial_type").filter(|_| !paid);
    License {
        edition: trial.or_else(|| text("paid_type")),
        users: details.get("users_license_purchased").and_then(Value::as_u64).and_then(|users| u32::try_from(users).ok()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_edition_is_the_paid_one_or_that_of_a_trial() {
        let read = |details: Value| read(&json!({"license_details": details}));
        let license = |edition: Option<&str>, users| License { edition: edition.map(str::to_owned), users };
        let paid = json!({"paid": true, "paid_type": "enterprise", "trial_type": null, "users_license_purchased": 5});
        assert_eq!(read(paid), license(Some("enterprise"), Some(5)));
        let trial = json!({"paid": false, "paid_type": "free", "trial_type": "professional", "users_license_purchased": 3});
        assert_eq!(read(trial), license(Some("professional"), Some(3)));
        let free = json!({"paid": false, "paid_type": "free", "trial_type": null, "users_license_purchased": 3});
        assert_eq!(read(free), license(Some("free"), Some(3)));
        assert_eq!(read(Value::Null), license(None, None));
    }
}
