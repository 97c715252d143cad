//! Records by name: one COQL query for many names (CRM sheet §2.11). Unlike a search it sees what was written a moment ago.

use serde_json::{Value, json};
use sluice_core::grant::Grant;

use super::lists::Listing;
use super::{invalid, module_path};
use crate::classify::Effect;
use crate::client::{Outgoing, Reply};
use crate::cost::Cost;
use crate::{AccessToken, Answer, Client, Method, Product, Result};

/// Most exact names of a query.
pub const MAX_NAMES: usize = 100;
/// Most beginnings of a query: Zoho takes 25 conditions, and the exact names are one.
pub const MAX_BEGINNINGS: usize = 24;
/// Rows of an answer: the figure that both of Zoho's pages allow.
const ROWS: u32 = 200;
/// What a query costs: one credit, and a place in the pool of heavy calls (CRM sheet §6).
pub const COST: Cost = Cost { units: 1, heavy: true };

/// Reads `id` and `field` of the records whose `field` is one of `names` or is `like` one of `beginnings` (letters, digits and `%`), at most 200.
/// `more` says that there are others. Names with quotes or backslashes are left to the beginnings: how COQL escapes them is not documented.
///
/// # Errors
/// [`Error`](crate::Error) with its evidence; `Malformed` when a row lacks its id.
pub async fn find(
    grant: Grant,
    client: &Client,
    token: &AccessToken,
    module: &str,
    field: &str,
    names: &[&str],
    beginnings: &[String],
) -> Result<Listing> {
    let query = match module_path(module).and_then(|_| query(module, field, names, beginnings)) {
        Ok(query) => query,
        Err(reason) => return Err(invalid(&grant, reason)),
    };
    let body = json!({ "select_query": query });
    let mut outgoing = Outgoing::new(Product::Crm, Method::Post, Effect::Read, "/coql".to_owned());
    outgoing.body = Some(&body);
    let Answer { value: mut json, evidence } = client.send(grant, outgoing, token).await?.checked()?;
    if json.is_null() {
        return Ok(Answer { value: Listing { rows: Vec::new(), more: false, next: None }, evidence });
    }
    let more = json.pointer("/info/more_records").and_then(Value::as_bool).unwrap_or(false);
    match json.get_mut("data").map(Value::take) {
        Some(Value::Array(rows)) if rows.iter().all(|row| super::records::id(row).is_some()) => {
            Ok(Answer { value: Listing { rows, more, next: None }, evidence })
        }
        _ => Err(Reply::unreadable(Effect::Read, evidence, "no rows with ids")),
    }
}

/// The query. Its conditions stand in parentheses pairwise, as COQL wants them.
fn query(module: &str, field: &str, names: &[&str], beginnings: &[String]) -> std::result::Result<String, String> {
    if names.len() > MAX_NAMES || beginnings.len() > MAX_BEGINNINGS {
        return Err(format!("at most {MAX_NAMES} names and {MAX_BEGINNINGS} beginnings"));
    }
    if field.is_empty() || !field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("`{field}` is no API name of a field"));
    }
    if let Some(odd) = beginnings.iter().find(|pattern| !pattern.chars().all(|c| c.is_alphanumeric() || c == '%')) {
        return Err(format!("`{odd}` is no beginning"));
    }
    let plain: Vec<String> = names.iter().filter(|name| !name.contains(['\'', '"', '\\'])).map(|name| format!("'{name}'")).collect();
    let exact = (!plain.is_empty()).then(|| format!("{field} in ({})", plain.join(", ")));
    let like = beginnings.iter().map(|pattern| format!("{field} like '{pattern}'"));
    let conditions = exact.into_iter().chain(like);
    let condition = conditions.reduce(|all, one| format!("({all} or {one})")).ok_or("no name to look for")?;
    Ok(format!("select id, {field} from {module} where {condition} limit {ROWS}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_stand_in_parentheses_pairwise_and_no_name_can_end_its_text() {
        let beginnings = ["abc%".to_owned(), "cap%".to_owned()];
        assert_eq!(
            query("Accounts", "Account_Name", &["ABC Corp", "O'Brien' or id > '1", "Cape"], &beginnings).as_deref(),
            Ok(
                "select id, Account_Name from Accounts where ((Account_Name in ('ABC Corp', 'Cape') or Account_Name like 'abc%') or Account_Name like 'cap%') limit 200"
            )
        );
        assert_eq!(
            query("Accounts", "Name", &["It's"], &["it%".to_owned()]).as_deref(),
            Ok("select id, Name from Accounts where Name like 'it%' limit 200")
        );
        assert!(query("Accounts", "Name' or", &["A"], &[]).is_err());
        assert!(query("Accounts", "Name", &["A"], &["a' or".to_owned()]).is_err());
        assert!(query("Accounts", "Name", &[], &[]).is_err());
    }

    #[test]
    fn a_query_holds_no_more_than_zoho_takes() {
        let names = vec!["A"; MAX_NAMES + 1];
        assert!(query("Accounts", "Name", &names, &[]).is_err());
        assert!(query("Accounts", "Name", &[], &vec!["a%".to_owned(); MAX_BEGINNINGS + 1]).is_err());
    }
}
