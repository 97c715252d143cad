//! The finance organisations that the authorised user belongs to: `GET /organizations` of Books, Inventory and Billing.
//!
//! The one finance request that names no organisation (finance sheet §1.2, recorded for Books; OpenAPI of Books and Inventory). It costs
//! one call and needs the scope `settings` READ of the product.

use serde_json::Value;
use sluice_core::grant::Grant;

use crate::classify::Effect;
use crate::client::{Outgoing, Reply, not_sent};
use crate::{AccessToken, Answer, Client, Method, NotSent, Product, Result, mask};

/// One organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Organization {
    /// Digits, other than the record ids.
    pub id: String,
    /// For people.
    pub name: String,
    /// The one that Zoho opens for this user.
    pub is_default: bool,
    /// The name of its plan of the product that was asked, such as `Professional` (finance sheet §1.2, recorded for Books).
    pub plan: Option<String>,
    /// Its time zone, such as `America/New_York`, at whose midnight its day ends.
    pub time_zone: Option<String>,
}

/// Lists them. The client's own organisation, if it has one, is not sent.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence.
pub async fn list(grant: Grant, client: &Client, token: &AccessToken, product: Product) -> Result<Vec<Organization>> {
    let client = match client.with_organization(None) {
        Ok(client) => client,
        Err(error) => return Err(not_sent(grant.place(), NotSent::Invalid { reason: error.to_string() })),
    };
    let request = Outgoing::new(product, Method::Get, Effect::Read, "/organizations".to_owned());
    let Answer { value, evidence } = client.send(grant, request, token).await?.checked()?;
    match value.get("organizations").and_then(Value::as_array) {
        Some(rows) => Ok(Answer { value: rows.iter().filter_map(read).collect(), evidence }),
        None => Err(Reply::unreadable(Effect::Read, evidence, "no list of organisations")),
    }
}

fn read(row: &Value) -> Option<Organization> {
    let id = match row.get("organization_id")? {
        Value::String(id) if !id.is_empty() => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let name = mask::text(row.get("name").and_then(Value::as_str).unwrap_or_default());
    let text = |key: &str| row.get(key).and_then(Value::as_str).filter(|text| !text.is_empty()).map(mask::text);
    let (plan, time_zone) = (text("plan_name"), text("time_zone"));
    Some(Organization { id, name, plan, time_zone, is_default: row.get("is_default_org").and_then(Value::as_bool).unwrap_or(false) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_organisation_is_read_whether_its_id_is_a_text_or_a_number_and_one_without_is_left_out() {
        let plan = read(&json!({"organization_id": "1", "plan_name": "Professional", "time_zone": "America/New_York"})).unwrap();
        assert_eq!((plan.plan.as_deref(), plan.time_zone.as_deref()), (Some("Professional"), Some("America/New_York")));
        let read = |row: Value| read(&row).map(|one| (one.id, one.name, one.is_default));
        assert_eq!(
            read(json!({"organization_id": "10234695", "name": "Zillum", "is_default_org": true})),
            Some(("10234695".into(), "Zillum".into(), true))
        );
        assert_eq!(read(json!({"organization_id": 10234696, "name": "Other"})), Some(("10234696".into(), "Other".into(), false)));
        assert_eq!(read(json!({"organization_id": "", "name": "None"})), None);
    }
}
