//! What Zoho allows, by product and plan, as far as its pages say so: where the ledger starts before Zoho has answered anything. Pure.
//!
//! Every figure has its source beside it. A plan that nobody named has no day limit here: the first answer of Books, Inventory and Billing tells
//! it (`X-Rate-Limit-Limit`), CRM tells what is left once half of it is spent (`X-API-CREDITS-REMAINING`), and a guess would stop paying
//! organisations early.

use super::connection::Budget;
use super::sync::Product;

/// Zoho's plans, by the names that `plan` takes.
pub const PLANS: [&str; 8] = ["free", "trial", "standard", "professional", "premium", "elite", "enterprise", "ultimate"];

/// The plan that Zoho means by this name. `None`: one of which nothing is published.
pub fn plan_named(name: &str) -> Option<&'static str> {
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase();
    match name.as_str() {
        "starter" => Some("standard"),
        "zohoone" => Some("enterprise"),
        "crmplus" => Some("ultimate"),
        known => PLANS.into_iter().find(|plan| *plan == known),
    }
}

/// The limits of one product's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls in any window.
    pub per_window: u32,
    /// Seconds of a window.
    pub window_seconds: u32,
    /// Calls under way at once.
    pub in_flight: u32,
    /// Of them, calls that CRM counts as heavy; 0 elsewhere.
    pub heavy: u32,
    /// What a day or 24 hours count.
    pub meter: Meter,
    /// A bound of your own on it.
    pub configured: Option<u32>,
    /// What the plan has of it.
    pub by_plan: Option<u32>,
}

/// What Zoho counts beside the minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meter {
    /// Calls until midnight in the organisation's zone.
    Calls,
    /// Credits in any 24 hours.
    Credits,
}

impl Meter {
    /// The name in the ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Credits => "credits",
        }
    }
}

impl Limits {
    /// The limits of `product` under a budget: what the file says, else what the plan has.
    pub fn of(product: Product, budget: &Budget) -> Self {
        let plan = budget.plan.as_deref();
        let crm = product == Product::Crm;
        Self {
            per_window: budget.per_minute,
            window_seconds: budget.window_seconds,
            in_flight: budget.in_flight.unwrap_or_else(|| in_flight(product, plan)),
            heavy: if crm { budget.heavy_in_flight.unwrap_or(HEAVY) } else { 0 },
            meter: if crm { Meter::Credits } else { Meter::Calls },
            configured: budget.per_day,
            by_plan: plan.and_then(|plan| per_day(product, plan, budget.users.unwrap_or(1))),
        }
    }
}

/// CRM's pool for heavy calls, all editions (zoho.com/crm/developer/docs/api/v8/api-limits.html).
const HEAVY: u32 = 10;

/// Calls at once. Finance: 5 free, 10 paid (zoho.com/books/api/v3/introduction). CRM: 5 to 25 by edition (its page on API limits). FSM: 5 free, 15
/// paid (zoho.com/fsm/developer/help/api). Without a plan: what every paid one has.
fn in_flight(product: Product, plan: Option<&str>) -> u32 {
    match (product, plan) {
        (_, Some("free")) | (Product::Fsm, Some("trial") | None) => 5,
        (Product::Fsm, Some(_)) | (Product::Crm, Some("professional")) => 15,
        (Product::Crm, Some("enterprise")) => 20,
        (Product::Crm, Some("ultimate")) => 25,
        _ => 10,
    }
}

/// Calls a day, or credits in 24 hours; `None` where Zoho's pages do not say.
fn per_day(product: Product, plan: &str, users: u32) -> Option<u32> {
    match product {
        // zoho.com/books/api/v3/introduction
        Product::Books => match plan {
            "free" | "trial" => Some(1_000),
            "standard" => Some(2_000),
            "professional" => Some(5_000),
            "premium" | "elite" | "ultimate" => Some(10_000),
            _ => None,
        },
        // zoho.com/inventory/api/v1/introduction
        Product::Inventory => match plan {
            "free" => Some(1_000),
            "standard" => Some(2_500),
            "professional" => Some(5_000),
            "premium" => Some(7_500),
            "enterprise" => Some(10_000),
            _ => None,
        },
        // Not documented. One live organisation was told of 1,000.
        Product::Billing => None,
        // zoho.com/crm/developer/docs/api/v8/api-limits.html
        Product::Crm => {
            let credits = |each: u32, most: u32| Some(50_000_u32.saturating_add(each.saturating_mul(users)).min(most));
            match plan {
                "free" => Some(5_000),
                "standard" => credits(250, 100_000),
                "professional" => credits(500, 3_000_000),
                "enterprise" => credits(1_000, 5_000_000),
                "ultimate" => credits(2_000, u32::MAX),
                _ => None,
            }
        }
        // zoho.com/fsm/developer/help/api; where its two editions differ, the lower figure
        Product::Fsm => match plan {
            "free" | "trial" => Some(5_000),
            "standard" | "professional" => Some(25_000),
            "premium" => Some(50_000),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(product: Product, plan: &str, users: Option<u32>) -> (u32, u32, Option<u32>) {
        let limits = Limits::of(product, &Budget { plan: Some(plan.into()), users, ..Budget::default() });
        (limits.in_flight, limits.heavy, limits.by_plan)
    }

    #[test]
    fn zohos_published_figures() {
        assert_eq!(limits(Product::Books, "free", None), (5, 0, Some(1_000)));
        assert_eq!(limits(Product::Books, "premium", None), (10, 0, Some(10_000)));
        assert_eq!(limits(Product::Inventory, "premium", None), (10, 0, Some(7_500)));
        assert_eq!(limits(Product::Billing, "premium", None), (10, 0, None));
        assert_eq!(limits(Product::Crm, "free", Some(3)), (5, 10, Some(5_000)));
        assert_eq!(limits(Product::Crm, "standard", Some(40)), (10, 10, Some(60_000)));
        assert_eq!(limits(Product::Crm, "standard", Some(400)), (10, 10, Some(100_000)));
        assert_eq!(limits(Product::Crm, "enterprise", Some(40)), (20, 10, Some(90_000)));
        assert_eq!(limits(Product::Fsm, "standard", None), (15, 0, Some(25_000)));
    }

    #[test]
    fn plans_are_known_by_the_names_that_zoho_has_for_them_and_others_promise_nothing() {
        assert_eq!(plan_named("Professional"), Some("professional"));
        assert_eq!(plan_named("zoho_one"), Some("enterprise"));
        assert_eq!(plan_named("CRM Plus"), Some("ultimate"));
        assert_eq!(plan_named("bigin"), None);
    }

    #[test]
    fn what_the_file_says_wins_and_an_unnamed_plan_has_no_day_limit() {
        let none = Limits::of(Product::Books, &Budget::default());
        assert_eq!((none.per_window, none.in_flight, none.configured, none.by_plan), (100, 10, None, None));
        let own = Budget { plan: Some("free".into()), per_day: Some(300), in_flight: Some(2), ..Budget::default() };
        let own = Limits::of(Product::Books, &own);
        assert_eq!((own.in_flight, own.configured, own.by_plan), (2, Some(300), Some(1_000)));
        let crm = Limits::of(Product::Crm, &Budget { heavy_in_flight: Some(3), ..Budget::default() });
        assert_eq!((crm.heavy, crm.meter), (3, Meter::Credits));
    }
}
