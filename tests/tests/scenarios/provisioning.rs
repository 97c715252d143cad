//! CRM fields that a sync needs and the module lacks: listed, made within the budget, and their names read back.

use serde_json::json;
use sluice_producer::Definitions;
use sluice_worker::{Provision, provision};

use crate::world::{Setup, World};

const TABLES: &str = include_str!("../../../recipes/crm/tables.sql");
const CONFIG: &str = include_str!("../../../recipes/crm/sluice.toml");

async fn run(world: &World, sync: &str, make: bool) -> Vec<Provision> {
    let definitions = Definitions::compile(world.db(), &world.config).await.expect("definitions");
    provision(world.db(), &world.config, &definitions.by_name[sync], make).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fields_of_a_deal_are_listed_then_made_and_nothing_is_left_to_do() {
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    let lacks = |what: &str| Provision::Lacks(format!("Deals has no field {what}"));
    let missing = [
        lacks("Contract_Number: text, unique"),
        lacks("Contract_Signed_Date: date"),
        lacks("KYC_Status: picklist of Completed, Declined, In Progress, Not Started"),
        lacks("KYC_Verified_Date: date"),
        lacks("RICA_Status: picklist of Approved, Pending, Rejected, Submitted"),
        lacks("Risk_Tier: picklist of High, Low, Medium"),
    ];
    assert_eq!(run(&world, "contracts", false).await, missing);
    assert_eq!(run(&world, "contracts", false).await, missing, "listing makes nothing");

    world.zoho.forget_calls().await;
    let made = run(&world, "contracts", true).await;
    assert_eq!(made.len(), 6);
    assert!(made.iter().all(|one| matches!(one, Provision::Made(_))), "{made:?}");
    let calls = world.zoho.calls().await;
    let of_fields = calls.iter().filter(|call| call["path"].as_str().is_some_and(|path| path.contains("/settings/fields")));
    let methods: Vec<&str> = of_fields.filter_map(|call| call["method"].as_str()).collect();
    assert_eq!(methods, ["GET", "POST", "POST", "GET"], "five fields a call, then their names are read back");
    assert!(matches!(&run(&world, "contracts", true).await[..], [Provision::Complete(_)]));
    assert!(matches!(&run(&world, "quotes", true).await[..], [Provision::Made(what)] if what == "Quotes.Sluice_Key was made"));

    // and a contract fits
    world
        .run("insert into customers (id, name) values (1, 'Cape Bakery'); insert into contracts (number, customer_id) values ('C-1', 1)")
        .await;
    world.all_arrived().await;
    assert_eq!(world.zoho.values("crm", "Deals", "KYC_Status").await, ["Not Started"]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_added_to_a_picklist_and_what_the_api_cannot_mend_is_a_persons() {
    let scenario = r#"
        [[crm.fields]]
        module = "Deals"
        api_name = "Contract_Number"
        [[crm.fields]]
        module = "Deals"
        api_name = "Risk_Tier"
        data_type = "picklist"
        pick_list = ["Low", "Unknown"]
    "#;
    let world = World::new(Setup { scenario, ..Setup::new(TABLES, CONFIG) }).await;
    let said = run(&world, "contracts", true).await;
    assert!(said.contains(&Provision::Made("Deals.Risk_Tier has the values High, Medium now".to_owned())), "{said:?}");
    assert!(
        said.iter().any(|one| matches!(one, Provision::Person(what) if what.starts_with("Deals.Contract_Number is not marked unique"))),
        "{said:?}"
    );
    let said = run(&world, "contracts", false).await;
    assert_eq!(said.len(), 1, "{said:?}");
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_zoho_makes_otherwise_is_reported() {
    // the label is taken, so Zoho would refuse it; and with another of that name it numbers the new one
    let world = World::new(Setup::new(TABLES, CONFIG)).await;
    world.zoho.post("fields", json!({"module": "Quotes", "api_name": "Sluice Key"})).await;
    let said = run(&world, "quotes", true).await;
    assert!(matches!(&said[..], [Provision::Person(what)] if what.contains("Sluice_Key")), "{said:?}");
}
