//! What a call costs, beside being one call: CRM counts credits, and keeps a pool of ten for heavy calls (CRM sheet §6, from Zoho's page on
//! API limits). Pure. What Zoho does not say for certain is taken at the dearer of its two figures.

use serde_json::Value;

use crate::{Method, Product};

/// Records that a write carries for one credit.
const PER_CREDIT: usize = 10;
/// A write of more records than these counts as heavy.
const LIGHT_RECORDS: usize = 10;

/// What a call costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// CRM: credits. Elsewhere one: the day counts calls.
    pub units: u16,
    /// It takes a place in CRM's pool of heavy calls.
    pub heavy: bool,
}

impl Cost {
    /// A single read, and everything outside of CRM.
    pub const ONE: Self = Self { units: 1, heavy: false };

    /// A CRM insert, update or upsert of so many records.
    pub fn of_write(records: usize) -> Self {
        Self { units: credits(records, PER_CREDIT), heavy: records > LIGHT_RECORDS }
    }

    /// A CRM delete of so many records: one credit for each hundred.
    pub fn of_delete(records: usize) -> Self {
        Self { units: credits(records, 100), heavy: false }
    }

    /// Any request, by its method, path and what it carries.
    pub fn of(product: Product, method: Method, path: &str, query: &[(String, String)], body: Option<&Value>) -> Self {
        if product != Product::Crm {
            return Self::ONE;
        }
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        let given = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let records = body.and_then(|body| body.get("data")).and_then(Value::as_array).map_or(0, Vec::len);
        match (method, segments.as_slice()) {
            (_, ["coql"]) => Self { units: coql(body), heavy: true },
            (_, ["__composite_requests"]) => Self { units: 5, heavy: true },
            (_, [.., "convert"]) => Self { units: 5, heavy: true },
            (_, [.., "send_mail"]) => Self { units: 20, heavy: true },
            (_, [.., "merge"]) => Self { units: 50, heavy: false },
            (Method::Post, ["settings", "modules"]) => Self { units: 500, heavy: false },
            (Method::Post, ["bulk", .., "read"]) => Self { units: 50, heavy: false },
            (Method::Post, ["bulk", .., "write"]) => Self { units: 500, heavy: false },
            (Method::Get, [_, "search"]) => Self { units: 3, heavy: true },
            (Method::Get, [_, "deleted"]) => Self { units: 2, heavy: false },
            (Method::Get, [_]) if given("cvid").is_some() => Self { units: 3, heavy: true },
            (Method::Get, [_]) if given("sort_by").is_some() => Self { units: 1, heavy: true },
            (Method::Delete, [_]) => Self::of_delete(given("ids").map_or(1, |ids| ids.split(',').count())),
            (Method::Get | Method::Delete, _) => Self::ONE,
            (Method::Post, [.., "add_tags" | "remove_tags"]) => {
                Self { units: credits(given("ids").map_or(1, |ids| ids.split(',').count()), 50), heavy: false }
            }
            (Method::Post | Method::Put | Method::Patch, _) => Self::of_write(records),
        }
    }
}

fn credits(records: usize, per_credit: usize) -> u16 {
    u16::try_from(records.div_ceil(per_credit)).unwrap_or(u16::MAX).max(1)
}

/// One credit up to a limit of 200 rows, two up to 1,000, three beyond. A limit that cannot be read is taken for the largest.
fn coql(body: Option<&Value>) -> u16 {
    let query = body.and_then(|body| body.get("select_query")).and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let Some((_, limit)) = query.rsplit_once(" limit ") else { return 1 };
    let rows = limit.rsplit(',').next().and_then(|rows| rows.trim().parse::<u32>().ok());
    match rows {
        Some(..=200) => 1,
        Some(..=1000) => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cost(method: Method, path: &str, query: &[(&str, &str)], body: Option<Value>) -> (u16, bool) {
        let query: Vec<_> = query.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let Cost { units, heavy } = Cost::of(Product::Crm, method, path, &query, body.as_ref());
        (units, heavy)
    }

    #[test]
    fn the_documented_costs() {
        let records = |n: usize| Some(json!({"data": vec![json!({}); n]}));
        let select = |text: &str| Some(json!({"select_query": text}));
        assert_eq!(cost(Method::Post, "/Contacts/upsert", &[], records(100)), (10, true));
        assert_eq!(cost(Method::Put, "/Contacts", &[], records(11)), (2, true));
        assert_eq!(cost(Method::Put, "/Contacts", &[], records(10)), (1, false));
        assert_eq!(cost(Method::Delete, "/Contacts", &[("ids", "1,2,3")], None), (1, false));
        assert_eq!(cost(Method::Get, "/Contacts", &[("cvid", "4")], None), (3, true));
        assert_eq!(cost(Method::Get, "/Contacts", &[("sort_by", "id")], None), (1, true));
        assert_eq!(cost(Method::Get, "/Contacts/12", &[], None), (1, false));
        assert_eq!(cost(Method::Get, "/Contacts/deleted", &[], None), (2, false));
        assert_eq!(cost(Method::Post, "/coql", &[], select("select a from b where c = 1 LIMIT 200")), (1, true));
        assert_eq!(cost(Method::Post, "/coql", &[], select("select a from b where c = 1 limit 0, 2000")), (3, true));
        assert_eq!(cost(Method::Post, "/coql", &[], select("select a from b where c = 1 limit x")), (3, true));
        assert_eq!(cost(Method::Post, "/settings/modules", &[], None), (500, false));
    }

    #[test]
    fn finance_counts_calls() {
        let body = json!({"data": vec![json!({}); 100]});
        assert_eq!(Cost::of(Product::Books, Method::Post, "/invoices", &[], Some(&body)), Cost::ONE);
    }
}
