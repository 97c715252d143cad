//! What `sluice plan` says is what then happens: planned, carried out, and compared with the requests that Zoho saw, by endpoint.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_producer::Definitions;
use sluice_producer::plan::{self, Plan, What};
use sluice_sync::read::Reader;

use crate::world::{Setup, World};

pub(crate) const TRIGGER: What = What::Trigger { force: false };
pub(crate) const FORCE: What = What::Trigger { force: true };
pub(crate) const BACKFILL: What = What::Backfill { condition: None, force: false };

/// As a person without our triggers would: nothing is captured, so nothing is sent but what the test asks for.
pub(crate) async fn unseen(world: &World, sql: &str) {
    world.run(&format!("set local session_replication_role = replica; {sql}")).await;
}

pub(crate) async fn planned(world: &World, sync: &str, what: &What) -> Plan {
    try_plan(world, sync, what).await.unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) async fn try_plan(world: &World, sync: &str, what: &What) -> Result<Plan, plan::Error> {
    let definitions = Definitions::proven(world.db(), &world.config).await.expect("definitions");
    let reader = Reader::new(world.db().clone(), world.config.database.expression_role.clone());
    plan::plan(world.db(), &reader, &definitions, &world.config, (sync, what), &mut |_| {}).await
}

/// A run for every row that matches, as a backfill asks for it.
async fn send_all(world: &World, sync: &str, rows: &str) {
    world.run(&format!("insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', '{sync}', 'key', id::text), 'backfill' from {rows}")).await;
    world.settled().await;
}

/// What Zoho saw, by method and shape of the path.
async fn seen(world: &World) -> BTreeMap<String, u64> {
    let mut seen = BTreeMap::new();
    for call in world.zoho.calls().await {
        let text = |name: &str| call[name].as_str().unwrap_or_default();
        let path: Vec<&str> = text("path")
            .split('/')
            .map(|part| if part.len() > 9 && part.bytes().all(|b| b.is_ascii_digit()) { "{id}" } else { part })
            .collect();
        let listed =
            ["ids", "item_ids", "page"].into_iter().find(|name| text("query").split('&').any(|one| one.starts_with(&format!("{name}="))));
        let query = listed.map(|name| format!("?{name}=…")).unwrap_or_default();
        *seen.entry(format!("{} {}{query}", text("method"), path.join("/"))).or_default() += 1;
    }
    seen
}

async fn credits(world: &World) -> u64 {
    world.zoho.stats().await["crm"]["credits"].as_u64().unwrap_or_default()
}

/// Every call that was seen was planned, as often as planned; and nothing else was.
#[track_caller]
fn agree(plan: &Plan, seen: &BTreeMap<String, u64>) {
    let mut ranges: BTreeMap<String, (u64, Option<u64>)> = BTreeMap::new();
    for call in &plan.calls {
        let of = ranges.entry(format!("{} {}", call.method, call.path.split(" (").next().unwrap_or_default())).or_insert((0, Some(0)));
        *of = (of.0 + call.calls.at_least, of.1.zip(call.calls.at_most).map(|(one, two)| one + two));
    }
    for (endpoint, count) in seen {
        assert!(ranges.contains_key(endpoint), "{endpoint} was not planned: {ranges:#?}\nseen: {seen:#?}");
        let _ = count;
    }
    for (endpoint, (least, most)) in &ranges {
        let count = seen.get(endpoint).copied().unwrap_or(0);
        assert!(
            count >= *least && most.is_none_or(|most| count <= most),
            "{endpoint}: {count} seen, {least} to {most:?} planned\nseen: {seen:#?}"
        );
    }
    let total: u64 = seen.values().sum();
    assert!(total >= plan.total.at_least && plan.total.at_most.is_none_or(|most| total <= most), "{total} of {:?}", plan.total);
}

fn exactly(plan: &Plan) -> BTreeMap<String, u64> {
    plan.calls
        .iter()
        .map(|call| {
            assert_eq!(Some(call.calls.at_least), call.calls.at_most, "{call:?}");
            (format!("{} {}", call.method, call.path), call.calls.at_least)
        })
        .collect()
}

fn counts(pairs: &[(&str, u64)]) -> BTreeMap<String, u64> {
    pairs.iter().map(|(endpoint, count)| ((*endpoint).to_owned(), *count)).collect()
}

pub(crate) const SHOP: &str = "
    create table customers (id bigint primary key, name text, email text, phone text);
    create table bills (id bigint primary key, customer_id bigint, number text, state text, note text, issued date default '2026-01-05');
    insert into customers select n, 'Customer ' || n, 'c' || n || '@shop.example', '1' from generate_series(1, 5) n;
    -- two for the first customer; one without a customer, one whose state is unknown, two drafts
    insert into bills select n, greatest(1, n - 1), 'B-' || n, 'open', 'first' from generate_series(1, 6) n;
    insert into bills values (7, 99, 'B-7', 'open', ''), (8, 1, 'B-8', 'odd', ''), (9, 1, 'B-9', 'draft', ''), (10, 1, 'B-10', 'draft', '');";
pub(crate) const SHOP_CONFIG: &str = r#"
[syncs.customers]
connection = "main"
table = "public.customers"
key = "id"
module = "billing/customers"
reference = "cf_key"
min_interval = "0s"
[syncs.customers.fields]
display_name = "name"
email = "email"
phone = "phone"

[syncs.bills]
connection = "main"
table = "public.bills"
key = "id"
module = "billing/invoices"
when = "state <> 'draft'"
when_false = "delete"
on_delete = "void"
min_interval = "0s"
[syncs.bills.fields]
customer_id = { ref = "customers", column = "customer_id" }
invoice_number = "number"
date = "issued"
notes = "note"
reference_number = { column = "state", values = { open = "Open", draft = "Draft" } }
[syncs.bills.fields.invoice_items]
each = "select 'Line' as name"
item = { name = "name", price = { value = 1 }, quantity = { value = 1 } }
"#;

#[tokio::test]
async fn a_plan_for_billing_is_what_then_happens() {
    let world = World::without_worker(Setup::new(SHOP, SHOP_CONFIG)).await;
    let plan = planned(&world, "bills", &TRIGGER).await;
    assert_eq!((plan.rows.looked_at, plan.rows.excluded, plan.rows.due), (10, 2, 8), "{plan:#?}");
    assert_eq!((plan.rows.create, plan.rows.waiting, plan.rows.unmappable), (6, 6, 2));
    assert_eq!((plan.parents["customers"].waiting, plan.parents["customers"].pushed), (6, 5));
    let letters: Vec<_> = plan.unmappable.iter().map(|one| (one.key.as_str(), one.class, one.field.as_str())).collect();
    assert_eq!(letters, [("7", "dependency", "customer_id"), ("8", "validation", "reference_number")]);
    assert_eq!(exactly(&plan), counts(&[("POST /billing/v1/customers", 5), ("POST /billing/v1/invoices", 6)]));
    world.start_worker();
    world.trigger("bills").await;
    world.settled().await;
    agree(&plan, &seen(&world).await);
    let died: Vec<Value> =
        world.letters().await.iter().map(|letter| json!([letter["key"], letter["error_class"], letter["field"]])).collect();
    assert_eq!(died.len(), letters.len(), "{died:?}");
    for (key, class, field) in letters {
        assert!(died.contains(&json!([key, class, field])), "{key}: {died:?}");
    }

    // nothing is due now but what died; of all rows two differ, one became a draft, and a draft is sent
    let again = planned(&world, "bills", &TRIGGER).await;
    assert_eq!((again.rows.due, again.rows.not_due, again.rows.with_dead_letter, again.rows.unmappable), (2, 6, 2, 2), "{again:#?}");
    assert_eq!(again.calls, []);
    unseen(&world, "update bills set note = 'second' where id in (1, 2); update bills set state = 'draft' where id = 3; update bills set state = 'open' where id = 9").await;
    let plan = planned(&world, "bills", &BACKFILL).await;
    assert_eq!((plan.rows.update, plan.rows.void, plan.rows.create, plan.rows.unchanged, plan.rows.excluded), (2, 1, 1, 3, 2), "{plan:#?}");
    assert_eq!(
        exactly(&plan),
        counts(&[("POST /billing/v1/invoices", 1), ("PUT /billing/v1/invoices/{id}", 2), ("POST /billing/v1/invoices/{id}/void", 1)])
    );
    world.zoho.forget_calls().await;
    send_all(&world, "bills", "bills").await;
    agree(&plan, &seen(&world).await);

    let some = What::Backfill { condition: Some("this.id <= 2".to_owned()), force: true };
    let plan = planned(&world, "bills", &some).await;
    assert_eq!((plan.rows.looked_at, plan.rows.update), (2, 2));
    let forced = planned(&world, "bills", &FORCE).await;
    world.zoho.forget_calls().await;
    world.force("bills").await;
    world.settled().await;
    agree(&forced, &seen(&world).await);
    assert_eq!(exactly(&forced), counts(&[("PUT /billing/v1/invoices/{id}", 6)]));
    world.check_rules().await;
}

#[tokio::test]
async fn a_customer_that_may_be_there_already_is_looked_for_before_it_is_made() {
    let config = SHOP_CONFIG.replace("reference = \"cf_key\"", "reference = \"cf_key\"\nmatch_on = [\"email\"]");
    let world = World::without_worker(Setup::new(SHOP, config)).await;
    world.zoho.put("billing", "customers", None, json!({"display_name": "Customer 1", "email": "c1@shop.example", "phone": "1"})).await;
    world.zoho.put("billing", "customers", None, json!({"display_name": "Old", "email": "c2@shop.example", "phone": "1"})).await;
    unseen(&world, "update customers set email = null where id = 5").await;
    let plan = planned(&world, "customers", &TRIGGER).await;
    let of = |purpose: &str| plan.calls.iter().find(|call| call.purpose == purpose).map(|call| (call.calls.at_least, call.calls.at_most));
    // one has nothing to be matched by, so it is made; the others may all be there
    assert_eq!((of("create"), of("update"), of("look_up")), (Some((1, Some(5))), Some((0, Some(4))), Some((1, None))));
    world.start_worker();
    world.trigger("customers").await;
    world.settled().await;
    let seen = seen(&world).await;
    agree(&plan, &seen);
    assert_eq!(
        seen,
        counts(&[("GET /billing/v1/customers?page=…", 1), ("POST /billing/v1/customers", 3), ("PUT /billing/v1/customers/{id}", 1)])
    );
    world.check_rules().await;
}

pub(crate) const PEOPLE: &str = "
    create table firms (id bigint primary key, name text);
    create table people (id bigint primary key, name text, mail text, firm_id bigint, title text default 'here');
    insert into firms select n, 'Firm ' || n from generate_series(1, 30) n;
    insert into people select n, 'Person ' || n, 'p' || n || '@people.example', null from generate_series(1, 250) n;";
pub(crate) const PEOPLE_CONFIG: &str = r#"
[syncs.firms]
connection = "main"
table = "public.firms"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
min_interval = "0s"
[syncs.firms.fields]
Account_Name = "name"

[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
when = "title <> 'private'"
when_false = "delete"
on_delete = "delete"
min_interval = "0s"
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
Account_Name = { ref = "firms", column = "firm_id" }
"#;

#[tokio::test]
async fn a_plan_for_crm_has_the_batches_and_the_credits_that_zoho_counts() {
    let world = World::without_worker(Setup::new(PEOPLE, PEOPLE_CONFIG)).await;
    let plan = planned(&world, "people", &TRIGGER).await;
    assert_eq!(exactly(&plan), counts(&[("POST /crm/v8/Contacts/upsert", 3)]));
    assert_eq!(plan.credits.map(|credits| (credits.at_least, credits.at_most)), Some((25, Some(25))));
    world.trigger("people").await;
    let before = credits(&world).await;
    world.start_worker();
    world.settled().await;
    agree(&plan, &seen(&world).await);
    assert_eq!(credits(&world).await - before, 25);

    // 130 changed, of which 60 come to have one of 30 firms that Zoho has not; 20 leave; the rest stays as it is
    unseen(&world, "update people set name = name || '!' where id <= 130; update people set firm_id = 1 + id % 30 where id <= 60; update people set title = 'private' where id > 230").await;
    let plan = planned(&world, "people", &BACKFILL).await;
    let rows = plan.rows;
    assert_eq!((rows.update, rows.delete, rows.unchanged, rows.waiting, plan.parents["firms"].pushed), (130, 20, 100, 60, 30), "{plan:#?}");
    world.zoho.forget_calls().await;
    let before = credits(&world).await;
    send_all(&world, "people", "people").await;
    agree(&plan, &seen(&world).await);
    let spent = credits(&world).await - before;
    let said = plan.credits.expect("credits");
    assert!(spent >= said.at_least && said.at_most.is_some_and(|most| spent <= most), "{spent} of {said:?}");
    assert!(said.at_least >= 17 && said.at_most <= Some(35), "a range that says something: {said:?}");
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

const FAMILY: &str = "
    create table firms (id bigint primary key, name text, active boolean default true, contact_id bigint, owner_id bigint);
    create table people (id bigint primary key, name text, mail text, firm_id bigint);
    -- a firm and its person name each other; 2 belongs to 3, which belongs to 4; 5 belongs to itself; 6 is not active, and 7 belongs to it
    insert into firms values (1, 'One', true, 1, null), (2, 'Two', true, null, 3), (3, 'Three', true, null, 4), (4, 'Four', true, null, null),
      (5, 'Five', true, null, 5), (6, 'Six', false, null, null), (7, 'Seven', true, null, 6), (8, 'Eight', true, null, null);
    insert into people select n, 'Person ' || n, 'p' || n || '@people.example', n from generate_series(1, 7) n;
    insert into people values (9, 'Person 9', 'p9@people.example', 5);";
const FAMILY_CONFIG: &str = r#"
[syncs.firms]
connection = "main"
table = "public.firms"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
when = "active"
min_interval = "0s"
[syncs.firms.fields]
Account_Name = "name"
Main_Contact = { ref = "people", column = "contact_id" }
Parent_Account = { ref = "firms", column = "owner_id" }

[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
min_interval = "0s"
[syncs.people.fields]
Last_Name = "name"
Email = "mail"
Account_Name = { ref = "firms", column = "firm_id" }
"#;

#[tokio::test]
async fn parents_of_parents_are_planned_once_and_who_waits_in_vain_is_a_dead_letter() {
    let scenario = "[[crm.fields]]\nmodule = \"Accounts\"\napi_name = \"Main_Contact\"\ndata_type = \"lookup\"\nlookup = \"Contacts\"";
    let world = World::without_worker(Setup { scenario, ..Setup::new(FAMILY, FAMILY_CONFIG) }).await;
    let plan = planned(&world, "people", &TRIGGER).await;
    // firms 1 to 5; 6 is excluded, and 7 waits for it in vain
    assert_eq!((plan.rows.create, plan.rows.waiting, plan.parents["firms"].pushed), (6, 6, 5), "{plan:#?}");
    let vain: Vec<_> = plan.unmappable.iter().map(|one| (one.key.as_str(), one.class, one.reason.as_str())).collect();
    let excluded = "firms 6 is excluded by its sync's `when`";
    let behind = "firms 7 cannot be sent itself: Parent_Account: firms 6 is excluded by its sync's `when`";
    assert_eq!(vain, [("6", "dependency", excluded), ("7", "dependency", behind)]);
    world.start_worker();
    world.trigger("people").await;
    world.settled().await;
    agree(&plan, &seen(&world).await);
    let linked = world.rows("select sync, count(*) from sluice.link where zoho_id is not null group by 1 order by 1").await;
    assert_eq!(linked, [json!({"sync": "firms", "count": 5}), json!({"sync": "people", "count": 6})]);
    let letters: Vec<Value> = world.letters().await.iter().filter(|one| one["sync"] == "people").map(|one| one["key"].clone()).collect();
    assert_eq!(letters.len(), 2, "{letters:?}");

    // of a sync whose rows belong to each other, each is planned once
    let plan = planned(&world, "firms", &TRIGGER).await;
    assert_eq!(
        (plan.rows.create, plan.parents.get("firms").map_or(0, |parent| parent.pushed), plan.rows.unmappable),
        (1, 0, 1),
        "{plan:#?}"
    );
    world.zoho.forget_calls().await;
    world.trigger("firms").await;
    world.settled().await;
    agree(&plan, &seen(&world).await);
    world.check_rules().await;
}

const DEALS: &str = "
    create table deals (id bigint primary key, number text, title text);
    insert into deals select n, 'N-' || n, 'Deal ' || n from generate_series(1, 120) n;";
const DEALS_CONFIG: &str = r#"
[syncs.deals]
connection = "main"
table = "public.deals"
key = "id"
module = "crm/Deals"
direction = "both"
match_on = ["Contract_Number"]
min_interval = "0s"
[syncs.deals.fields]
Contract_Number = "number"
Deal_Name = "title"
Stage = { value = "Qualification" }
"#;
const DEALS_SCENARIO: &str = "[[crm.fields]]\nmodule = \"Deals\"\napi_name = \"Contract_Number\"\nunique = true\n";

#[tokio::test(flavor = "multi_thread")]
async fn in_both_directions_records_are_read_before_they_are_written() {
    let world = World::without_worker(Setup { scenario: DEALS_SCENARIO, ..Setup::new(DEALS, DEALS_CONFIG) }).await;
    world.start_worker();
    send_all(&world, "deals", "deals").await;
    // a change of the same second would be refused as one that came after the reading
    world.zoho.pass(10).await;
    unseen(&world, "update deals set title = title || '!'").await;
    let plan = planned(&world, "deals", &BACKFILL).await;
    assert_eq!((plan.rows.update, plan.rows.read_first), (120, 120), "{plan:#?}");
    assert_eq!(exactly(&plan), counts(&[("GET /crm/v8/Deals?ids=…", 2), ("PUT /crm/v8/Deals", 2)]));
    world.zoho.forget_calls().await;
    send_all(&world, "deals", "deals").await;
    agree(&plan, &seen(&world).await);

    // every field again: Zoho's side says the same, so nothing is written; and the module is walked
    let plan = planned(&world, "deals", &FORCE).await;
    world.zoho.forget_calls().await;
    world.force("deals").await;
    world.settled().await;
    let written = plan.calls.iter().find(|call| call.purpose == "update").map(|call| call.calls.at_least);
    let listed = plan.calls.iter().find(|call| call.purpose == "list").map(|call| (call.estimate, call.calls.at_least, call.calls.at_most));
    assert_eq!((written, listed), (Some(0), Some((Some(1), 1, None))), "{plan:#?}");
    agree(&plan, &seen(&world).await);
    world.check_rules().await;
}

const ITEMS: &str = "
    create table items (id bigint primary key, name text, sku text, price numeric, stock numeric);
    insert into items select n, 'Item ' || n, 'I-' || n, n, 10 from generate_series(1, 12) n;";
const ITEMS_CONFIG: &str = r#"
[syncs.items]
connection = "main"
table = "public.items"
key = "id"
module = "inventory/items"
direction = "both"
min_interval = "0s"
[syncs.items.fields]
name = "name"
sku = "sku"
rate = "price"
stock_on_hand = "stock"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_level_of_stock_costs_an_adjustment_and_items_are_read_together() {
    let world = World::without_worker(Setup::new(ITEMS, ITEMS_CONFIG)).await;
    let plan = planned(&world, "items", &BACKFILL).await;
    assert_eq!(exactly(&plan), counts(&[("POST /inventory/v1/items", 12)]));
    world.start_worker();
    send_all(&world, "items", "items").await;
    agree(&plan, &seen(&world).await);
    for (change, reads, puts, adjusted) in [
        ("update items set stock = 11 where id <= 3; update items set price = 99 where id in (3, 4)", 1, 2, 3),
        ("update items set price = 98 where id = 7", 0, 1, 0),
    ] {
        unseen(&world, change).await;
        let plan = planned(&world, "items", &BACKFILL).await;
        let of = |purpose: &str| {
            plan.calls
                .iter()
                .filter(|call| call.purpose == purpose)
                .map(|call| call.calls)
                .reduce(plan::Range::and)
                .unwrap_or(plan::Range::exactly(0))
        };
        assert_eq!((of("update"), of("adjust").at_most), (plan::Range::exactly(puts), Some(adjusted)), "{plan:#?}");
        world.zoho.forget_calls().await;
        send_all(&world, "items", "items").await;
        let seen = seen(&world).await;
        agree(&plan, &seen);
        assert_eq!(seen.get("GET /inventory/v1/itemdetails?item_ids=…").copied().unwrap_or(0), reads, "{seen:#?}");
        assert_eq!(seen.get("POST /inventory/v1/inventoryadjustments").copied().unwrap_or(0), adjusted, "{seen:#?}");
    }
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}
