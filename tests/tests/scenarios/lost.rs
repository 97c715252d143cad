//! A create whose answer is lost, in every way in which it can be, makes one Zoho record.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Setup, World};

/// Every way: nothing happened, it happened, it happens three seconds later.
const WAYS: &[&str] = &["drop_after", "drop_late", "error_after", "timeout_after", "drop_before"];

const PROSPECTS: &str = r#"
[syncs.prospects]
connection = "main"
table = "public.prospects"
key = "id"
module = "billing/customers"
[syncs.prospects.fields]
display_name = "name"
email = "mail"
"#;

const TABLES: &str =
    concat!(include_str!("../../../recipes/billing/tables.sql"), "create table prospects (id bigint primary key, name text, mail text);");

/// The pause of a product that seems to be down has its own test; here it would only stretch the time.
const NO_CIRCUIT: &str = "
    create function calm() returns trigger language plpgsql as $$ begin new.unanswered := 0; new.opened_at := null; new.probe_at := null; return new; end $$;
    create trigger calm before update on sluice.product for each row execute function calm();";

/// What the others refer to, which arrives without trouble.
const PARENTS: &str = "
    insert into products (code, name) values ('access', 'Internet access'), ('installation', 'Installation');
    insert into service_plans (code, product_code, name, monthly_price) values ('f100', 'access', 'Fibre 100', 49.90);
    insert into customers (id, account_number, name, email) values (100, 'A-100', 'Parent', 'parent@customer.example');
    insert into customer_invoices (id, customer_id, number, type, description, amount, issued_on, due_on)
      values (100, 100, 'INV-100', 'installation', 'Installation', 5000, '2026-01-05', '2026-01-12');";

const CHILDREN: &str = "
    insert into products (code, name) select 'p' || n, 'Product ' || n from generate_series(1, 5) n;
    insert into service_plans (code, product_code, name, monthly_price) select 'plan' || n, 'access', 'Plan ' || n, n from generate_series(1, 5) n;
    insert into customers (id, account_number, name, email) select n, 'A-' || n, 'Customer ' || n, 'c' || n || '@customer.example' from generate_series(1, 5) n;
    insert into prospects select n, 'Prospect ' || n, 'x' || n || '@prospect.example' from generate_series(1, 5) n;
    insert into services (id, customer_id, plan_code, status) select n, 100, 'f100', 'active' from generate_series(1, 5) n;
    insert into customer_invoices (id, customer_id, number, type, description, amount, issued_on, due_on)
      select n, 100, 'INV-' || n, 'installation', 'Installation', 10, '2026-01-05', '2026-01-12' from generate_series(1, 5) n;
    insert into payments (id, customer_id, amount, method, status, paid_on) select n, 100, 10, 'eft', 'completed', '2026-01-06' from generate_series(1, 5) n;
    insert into payment_allocations select n, 100, 10 from generate_series(1, 5) n;";

async fn lose_each_way(world: &World, product: &str, paths: &[(&str, usize)]) {
    let mut faults = Vec::new();
    for (path, rounds) in paths {
        for _ in 0..*rounds {
            faults.extend(WAYS.iter().map(|kind| json!({"kind": kind, "product": product, "method": "POST", "path": path, "times": 1})));
        }
    }
    world.zoho.fault(json!(faults)).await;
}

#[tokio::test]
async fn a_create_whose_answer_is_lost_doubles_no_record_of_billing() {
    let config = format!("{}{PROSPECTS}", include_str!("../../../recipes/billing/sluice.toml"));
    let world = World::new(Setup { request_timeout: Duration::from_secs(1), ..Setup::new(TABLES, config) }).await;
    world.run(NO_CIRCUIT).await;
    world.run(PARENTS).await;
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());

    let modules = ["products", "plans", "customers", "subscriptions", "invoices", "payments"];
    let path = |module: &str| format!("/billing/v1/{module}");
    let paths: Vec<(String, usize)> = modules.iter().map(|module| (path(module), if *module == "customers" { 2 } else { 1 })).collect();
    let paths: Vec<(&str, usize)> = paths.iter().map(|(path, rounds)| (path.as_str(), *rounds)).collect();
    lose_each_way(&world, "billing", &paths).await;
    world.run(CHILDREN).await;
    world.settled().await;

    assert_eq!(world.letters().await, Vec::<Value>::new());
    let applied = world.zoho.faults().await;
    for way in WAYS {
        assert_eq!(applied[way], json!(7), "{way} befell every kind of record: {applied}");
    }
    for (module, field, expected) in [
        ("products", "name", 7),
        ("plans", "plan_code", 6),
        ("customers", "email", 11),
        ("subscriptions", "reference_id", 5),
        ("invoices", "invoice_number", 6),
        ("payments", "reference_number", 5),
    ] {
        let values = world.zoho.values("billing", module, field).await;
        let distinct: BTreeSet<&String> = values.iter().collect();
        assert_eq!((values.len(), distinct.len()), (expected, expected), "{module}: {values:?}");
    }

    // what had to be sent twice is looked up once more after five minutes, and found single
    let again = world.count("select count(*) from sluice.link where look_again_at is not null").await;
    assert!(again > 0, "some creates had really been lost");
    world.run("update sluice.link set look_again_at = look_again_at - interval '10 min' where look_again_at is not null; update sluice.job set run_at = now()").await;
    world.settled().await;
    assert_eq!(world.count("select count(*) from sluice.link where look_again_at is not null").await, 0);
    assert_eq!(world.letters().await, Vec::<Value>::new());
    world.check_rules().await;
}

const PEOPLE: &str =
    "create table a (id bigint primary key, name text); create table b (like a including all); create table c (like a including all);
                      create table d (like a including all); create table e (like a including all);";

#[tokio::test]
async fn a_lost_upsert_doubles_no_record_of_crm() {
    // one sync for each way, each with one batch of records
    let syncs = [
        ("a", "Accounts", "Account_Name"),
        ("b", "Products", "Product_Name"),
        ("c", "Deals", "Deal_Name"),
        ("d", "Parcels", "Name"),
        ("e", "Shipments", "Name"),
    ];
    let config: String = syncs
        .iter()
        .map(|(table, module, field)| {
            let stage = if *module == "Deals" { "Stage = { value = \"Won\" }\n" } else { "" };
            format!("[syncs.{table}]\nconnection = \"main\"\ntable = \"public.{table}\"\nkey = \"id\"\nmodule = \"crm/{module}\"\nmatch_on = [\"{field}\"]\n[syncs.{table}.fields]\n{field} = \"name\"\n{stage}")
        })
        .collect();
    let setup = Setup {
        request_timeout: Duration::from_secs(1),
        scenario: "[crm]\nmodules = [\"Parcels\", \"Shipments\"]",
        ..Setup::new(PEOPLE, config)
    };
    let world = World::without_worker(setup).await;
    world.run(NO_CIRCUIT).await;
    for ((table, module, _), way) in syncs.iter().zip(WAYS) {
        let path = format!("/crm/v8/{module}/upsert");
        world.zoho.fault(json!({"kind": way, "product": "crm", "method": "POST", "path": path, "times": 1})).await;
        world.run(&format!("insert into {table} select n, 'Record ' || n from generate_series(1, 10) n")).await;
    }
    world.until("select count(*) = 50 from sluice.job").await;
    world.start_worker();
    world.settled().await;
    assert_eq!(world.letters().await, Vec::<Value>::new());
    for ((_, module, field), way) in syncs.iter().zip(WAYS) {
        let values = world.zoho.values("crm", module, field).await;
        let distinct: BTreeSet<&String> = values.iter().collect();
        assert_eq!((values.len(), distinct.len()), (10, 10), "{module}, {way}: {values:?}");
    }
    let applied = world.zoho.faults().await;
    assert!(WAYS.iter().all(|way| applied[way] == 1), "{applied}");
    world.check_rules().await;
}
