//! The loop breaker: an automation in Zoho that takes back what we write, and one here that takes back what Zoho says, end by themselves.

use serde_json::{Value, json};

use crate::world::{Setup, World};

const SECRET: &str = "a secret that Zoho signs with";

async fn conflicts(world: &World) -> Vec<Value> {
    world.rows("select id, field, local, zoho, flapping from sluice.conflict where resolution is null order by id").await
}

async fn alerts(world: &World) -> i64 {
    world.count("select count(*) from sluice.alert where occasion = 'flapping'").await
}

const CONTRACTS: &str = "create table contracts (id bigint generated always as identity primary key, number text unique not null, amount numeric(12, 2), kyc text);";

const CRM: &str = r#"
    [syncs.contracts]
    connection = "main"
    table = "contracts"
    key = "id"
    module = "crm/Deals"
    direction = "both"
    min_interval = "10ms"
    match_on = ["Contract_Number"]
    [syncs.contracts.fields]
    Contract_Number = "number"
    Deal_Name = "number"
    Stage = { value = "Proposal" }
    Amount = "amount"
    KYC_Status = { column = "kyc", owner = "local", repair = true }"#;

const FIELDS: &str = r#"
    [[crm.fields]]
    module = "Deals"
    api_name = "Contract_Number"
    unique = true
    [[crm.fields]]
    module = "Deals"
    api_name = "KYC_Status"
"#;

async fn poll(world: &World) {
    world.zoho.pass(3).await;
    world.poll("contracts").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_field_that_crms_workflow_rewrites_after_each_of_our_writes_is_parked_until_somebody_decides() {
    let world = World::new(Setup { scenario: FIELDS, ..Setup::new(CONTRACTS, CRM) }).await;
    let workflow = json!({"kind": "rewrite", "product": "crm", "module": "Deals", "field": "KYC_Status", "value": "Declined"});
    world.zoho.fault(workflow).await;
    world.run("insert into contracts (number, amount, kyc) values ('C-1', 1, 'Completed')").await;
    world.all_arrived().await;
    // Were it not for what is remembered, there would be a write for each poll, for ever.
    world.zoho.forget_calls().await;
    for _ in 0..10 {
        world.run("update sluice.link set fields = fields - 'turns:KYC_Status'").await;
        poll(&world).await;
    }
    assert_eq!((world.zoho.count_writes().await, conflicts(&world).await.len(), alerts(&world).await), (10, 0, 0));

    world.run("update sluice.link set fields = fields - 'turns:KYC_Status'").await;
    world.zoho.forget_calls().await;
    for _ in 0..10 {
        poll(&world).await;
    }
    assert_eq!(world.zoho.count_writes().await, 4, "the fifth turn parks it");
    let open = conflicts(&world).await;
    assert_eq!(open.len(), 1, "{open:#?}");
    assert_eq!((&open[0]["local"], &open[0]["zoho"], &open[0]["flapping"]), (&json!("Completed"), &json!("Declined"), &json!(true)));
    assert_eq!(alerts(&world).await, 1);
    let told = world.rows("select says from sluice.explain('contracts', '1') where what = 'conflict'").await;
    assert!(told.iter().any(|line| line["says"].as_str().is_some_and(|says| says.starts_with("KYC_Status was parked"))), "{told:#?}");

    // Its other fields go on, both ways, and it stays where it is on both sides.
    let id = world.zoho.values("crm", "Deals", "id").await.remove(0);
    world.run("update contracts set amount = 2, kyc = 'In Progress'").await;
    world.settled().await;
    world.zoho.put_later("crm", "Deals", &id, json!({"Deal_Name": "Renamed"})).await;
    poll(&world).await;
    let deal = world.zoho.records("crm", "Deals").await.remove(0);
    assert_eq!((deal["Amount"].to_string().as_str(), &deal["KYC_Status"]), ("2.00", &json!("Declined")), "{deal}");
    assert_eq!(world.rows("select number, kyc from contracts").await, [json!({"number": "Renamed", "kyc": "In Progress"})]);
    world.zoho.forget_calls().await;
    poll(&world).await;
    assert_eq!(world.zoho.count_calls().await, 1, "the list, and nothing for the parked field");

    // The workflow is mended, and a person decides.
    world.zoho.clear_faults().await;
    let open = conflicts(&world).await;
    assert_eq!((open.len(), &open[0]["local"], alerts(&world).await), (1, &json!("In Progress"), 1));
    world.run(&format!("select sluice.resolve({}, 'local')", open[0]["id"])).await;
    world.all_arrived().await;
    assert_eq!(world.zoho.records("crm", "Deals").await[0]["KYC_Status"], "In Progress");
    world.run("update contracts set kyc = 'Completed'").await;
    world.all_arrived().await;
    assert_eq!(world.zoho.records("crm", "Deals").await[0]["KYC_Status"], "Completed");
    assert_eq!(world.count("select count(*) from sluice.conflict where applied_at is null").await, 0);
    world.check_rules().await;
}

/// The name that Zoho's workflow changes at each of our writes becomes part of the description, by a trigger.
const DRIVING: &str = "
    create table things (id bigint generated always as identity primary key, zoho_id text, name text not null, description text);
    create function derive() returns trigger language plpgsql as $$
    begin
      update things set description = 'About ' || new.name where id = new.id;
      return null;
    end $$;
    create trigger derive after update of name on things for each row when (new.name is distinct from old.name) execute function derive();";

fn things() -> String {
    format!(
        r#"
        [syncs.things]
        connection = "main"
        table = "things"
        key = "id"
        module = "inventory/items"
        direction = "both"
        min_interval = "10ms"
        writeback = {{ id = "zoho_id" }}
        fields = {{ name = "name", description = "description" }}
        [webhooks.things]
        connection = "main"
        verify = "zoho-signature"
        secret = "{SECRET}"
        sync = "things"
        per_minute = 100000
        "#
    )
}

/// Items and their table, each side told of the other's changes at once, and a workflow of Zoho's that rewrites a field after each of our writes.
async fn fight(tables: &'static str, speed: f64, field: &str, value: &str) -> World {
    let world = World::without_roles(Setup { speed, ..Setup::new(tables, things()) }).await;
    let (at, ..) = world.start_listening(None).await;
    world.start_worker();
    let webhook = json!({"product": "inventory", "modules": ["items"], "url": format!("http://{at}/webhook/things"), "secret": SECRET});
    world.zoho.post("webhooks", webhook).await;
    rewrite(&world, field, value).await;
    world
}

async fn rewrite(world: &World, field: &str, value: &str) {
    world.zoho.fault(json!({"kind": "rewrite", "product": "inventory", "module": "items", "field": field, "value": value})).await;
}

/// It ended by itself, after so many writes, with the description parked.
async fn is_parked(world: &World, most: usize) {
    world.until("select exists (select from sluice.conflict where flapping)").await;
    world.all_arrived().await;
    let made = world.zoho.count_writes().await;
    assert!(made <= most, "{made} writes");
    let open = conflicts(world).await;
    assert_eq!((open.len(), &open[0]["field"], alerts(world).await), (1, &json!("description"), 1), "{open:#?}");
}

/// The workflow is switched off: what the row says stands again. The item, as it is then.
async fn the_row_decides(world: &World) -> Value {
    world.zoho.clear_faults().await;
    world.run("select sluice.resolve(id, 'local') from sluice.conflict where resolution is null").await;
    world.all_arrived().await;
    let item = world.zoho.records("inventory", "items").await.remove(0);
    assert_eq!(world.rows("select description from things").await[0]["description"], item["description"]);
    assert!(conflicts(world).await.is_empty());
    item
}

#[tokio::test(flavor = "multi_thread")]
async fn two_fields_that_drive_each_other_through_a_workflow_and_a_trigger_come_to_rest() {
    let world = fight(DRIVING, 1.0, "name", "Cable {n}").await;
    world.run("insert into things (name) values ('Cable')").await;
    is_parked(&world, 11).await;
    let item = the_row_decides(&world).await;

    // A person who renames it again and again, each time as soon as we have answered, is believed.
    let id = item["item_id"].as_str().expect("an id");
    world.run("create table renamed as select name from things").await;
    for n in 0..8 {
        world.run(&format!("update renamed set name = 'Renamed {n}'")).await;
        world.zoho.put_later("inventory", "items", id, json!({"name": format!("Renamed {n}")})).await;
        world.until("select exists (select from things join renamed on description = 'About ' || renamed.name)").await;
        world.settled().await;
    }
    world.all_arrived().await;
    assert!(conflicts(&world).await.is_empty());

    // And one who writes here, though a workflow answers every time with another field: nothing of ours changed this one.
    world.run("alter table things disable trigger derive").await;
    rewrite(&world, "name", "Renamed by {n}").await;
    for n in 0..12 {
        world.run(&format!("update renamed set name = things.name from things; update things set description = 'Mine {n}'")).await;
        world.until("select exists (select from things, renamed where things.name <> renamed.name)").await;
        world.settled().await;
    }
    assert!(conflicts(&world).await.is_empty());
    assert_eq!(world.zoho.values("inventory", "items", "description").await, ["Mine 11"]);
    world.check_rules().await;
}

const THINGS: &str = "
    create table things (id bigint generated always as identity primary key, zoho_id text, name text not null, description text);
    create function ours() returns trigger language plpgsql as $$
    begin
      if new.description like 'Zoho says%' then update things set description = 'We say ' || nextval('says') where id = new.id; end if;
      return null;
    end $$;
    create sequence says;
    create constraint trigger ours after update on things deferrable initially deferred for each row execute function ours();";

#[tokio::test(flavor = "multi_thread")]
async fn two_automations_that_fight_over_an_items_field_by_webhooks_end_by_themselves() {
    // each turn leads to the next one, without end but for the breaker
    let world = fight(THINGS, Setup::new("", "").speed, "description", "Zoho says {n}").await;
    world.run("insert into things (name, description) values ('Cable', 'We say so')").await;
    is_parked(&world, 6).await;

    let id = world.zoho.values("inventory", "items", "item_id").await.remove(0);
    world.run("update things set name = 'Thick cable'").await;
    world.all_arrived().await;
    let item = world.zoho.records("inventory", "items").await.remove(0);
    assert_eq!(item["name"], "Thick cable");
    assert_ne!(json!(world.rows("select description from things").await[0]["description"]), item["description"], "parked as it was");
    world.zoho.put("inventory", "items", Some(&id), json!({"name": "Thin cable"})).await;
    world.until("select exists (select from things where name = 'Thin cable')").await;
    world.all_arrived().await;

    the_row_decides(&world).await;
    world.check_rules().await;
}
