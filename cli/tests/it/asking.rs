//! `sluice check` asks Zoho whether it lets us in, within the budget.

use serde_json::{Value, json};
use sluice_core::secrets::{ExposeSecret, random_key};
use sluice_simulator::{Config, Scenario, Simulator};
use sluice_tests::TestDb;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::sluice::Folder;

struct World {
    url: String,
    /// A configuration whose organisation is still to be put in.
    config: String,
    db: TestDb,
    _stop: DropGuard,
}

async fn world(scenario: &str) -> World {
    let listen = "127.0.0.1:0".parse().unwrap();
    let simulator = Simulator::bind(Config { listen, scenario: Scenario::from_toml(scenario).unwrap() }).await.unwrap();
    let (url, zoho) = (simulator.url(), simulator.credentials());
    let stop = CancellationToken::new();
    tokio::spawn(simulator.serve(stop.clone()));
    sluice_zoho::install_tls();
    let db = TestDb::new().await;
    sqlx::raw_sql("create table public.customers (id bigint primary key, name text not null, email text)").execute(db.db()).await.unwrap();
    let config = format!(
        "[security]\nkey = \"{}\"\n[connections.main]\nclient_id = \"{}\"\nclient_secret = \"{}\"\nrefresh_token = \"{}\"\naccounts_url = \"{url}\"\napi_url = \"{url}\"\n\
         ORGANIZATION\n[connections.main.budget.finance]\nwindow_seconds = 1\n[syncs.customers]\nconnection = \"main\"\ntable = \"public.customers\"\nkey = \"id\"\nmodule = \"billing/customers\"\nreference = \"cf_key\"\n\
         [syncs.customers.fields]\ndisplay_name = \"name\"\n",
        random_key().expose_secret(),
        zoho.client_id,
        zoho.client_secret,
        zoho.refresh_token
    );
    World { url, config, db, _stop: stop.drop_guard() }
}

impl World {
    fn folder(&self, organization: &str) -> Folder {
        let folder = Folder::with(&self.config.replace("ORGANIZATION", organization)).on(self.db.url());
        assert_eq!(folder.run(&["attach"]).code, 0);
        folder
    }

    async fn stats(&self) -> Value {
        reqwest::get(format!("{}/admin/stats", self.url)).await.unwrap().json().await.unwrap()
    }
}

/// What `check` says of the connection: levels and messages.
fn of_the_connection(folder: &Folder, code: i32) -> Vec<(String, String)> {
    let ended = folder.run(&["check", "--json"]);
    assert_eq!(ended.code, code, "{ended:?}");
    let findings = serde_json::from_str::<Value>(&ended.out).unwrap()["findings"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    findings.iter().filter(|one| one["at"] == "connections.main").map(|one| (text(&one["level"]), text(&one["message"]))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_work_are_proved_with_one_call_of_the_budget_and_the_organisation_is_found_with_another() {
    let world = world("[finance]\norganizations = [\"60000000001\"]").await;
    let folder = world.folder("");
    let said = of_the_connection(&folder, 0);
    assert!(
        said.iter().any(|(level, message)| level == "ok"
            && message.contains("found organization_id 60000000001")
            && message.contains("billing/customers")),
        "{said:?}"
    );
    let again = of_the_connection(&folder, 0);
    assert!(again.iter().any(|(_, message)| message == "Zoho lets us read billing/customers"), "{again:?}");
    let calls: i64 = sqlx::query_scalar("select count(*) from sluice.place where kind = 'window' and granted_at is not null")
        .fetch_one(world.db.db())
        .await
        .unwrap();
    assert_eq!(calls, 3, "each in the ledger");
    assert_eq!(world.stats().await["tokens"]["minted"], 1, "the second check had the first one's token");
    let left: i64 = sqlx::query_scalar("select count(*) from sluice.batch").fetch_one(world.db.db()).await.unwrap();
    assert_eq!(left, 0, "no lease is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_that_crm_lacks_are_errors_then_a_plan_then_made_and_then_there() {
    let world = world("").await;
    let customers = world.config.find("[syncs.customers]").unwrap();
    let deals = "[syncs.customers]\nconnection = \"main\"\ntable = \"public.customers\"\nkey = \"id\"\nmodule = \"crm/Deals\"\nreference = \"Our_Key\"\n\
                 [syncs.customers.fields]\nDeal_Name = \"name\"\nStage = { value = \"Proposal\" }\nRisk_Tier = { column = \"email\", values = { low = \"Low\", high = \"High\" } }\n";
    let world = World { config: format!("{}{deals}", &world.config[..customers]), ..world };
    let folder = world.folder("");
    let said = |arguments: &[&str], code: i32| {
        let ended = folder.run(&[&["check", "--json"], arguments].concat());
        assert_eq!(ended.code, code, "{ended:?}");
        let findings: Value = serde_json::from_str(&ended.out).unwrap();
        let of_fields = |one: &&Value| one["at"] == "syncs.customers" && !one["message"].as_str().unwrap().contains("→");
        let findings = findings["findings"].as_array().unwrap().clone();
        findings
            .iter()
            .filter(of_fields)
            .map(|one| format!("{} {}", one["level"].as_str().unwrap(), one["message"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let key = "Deals has no field Our_Key: text, unique";
    let tier = "Deals has no field Risk_Tier: picklist of High, Low";
    let makes = ". sluice check --provision makes it (--plan only lists)";
    assert_eq!(said(&[], 1), [format!("error {key}{makes}"), format!("error {tier}{makes}")]);
    for _ in 0..2 {
        let planned = [format!("warning {key}; would be made"), format!("warning {tier}; would be made")];
        assert_eq!(said(&["--provision", "--plan"], 0), planned, "a plan makes nothing");
    }
    assert_eq!(said(&["--provision"], 0), ["ok Deals.Our_Key was made", "ok Deals.Risk_Tier was made"]);
    assert_eq!(said(&[], 0), ["ok crm/Deals has all 4 fields that are mapped"]);
    for (arguments, why) in [(&["check", "--plan"][..], "--provision"), (&["check", "--offline", "--provision"], "cannot be used with")] {
        let ended = folder.run(arguments);
        assert!(ended.code == 2 && ended.err.contains(why), "{ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_zoho_refuses_is_an_error_that_says_what_to_do_and_offline_nothing_is_asked() {
    let world = world("[finance]\norganizations = [\"60000000001\", \"60000000002\"]").await;
    let folder = world.folder("");
    let said = of_the_connection(&folder, 1);
    assert!(
        said.iter().any(|(_, message)| message.contains("60000000002 (Organisation 60000000002)") && message.contains("organization_id")),
        "{said:?}"
    );

    let wrong = world.folder("organization_id = \"71\"");
    let said = of_the_connection(&wrong, 1);
    assert!(
        said.iter().any(|(level, message)| level == "error" && message.contains("6041") && message.contains("organization_id")),
        "{said:?}"
    );
    assert_eq!(wrong.run(&["check", "--offline"]).code, 0);

    let right = world.folder("organization_id = \"60000000001\"");
    let fault = json!({"kind": "denied", "path": "/billing/v1/customers*"});
    reqwest::Client::new().post(format!("{}/admin/faults", world.url)).json(&fault).send().await.unwrap();
    let said = of_the_connection(&right, 1);
    assert!(
        said.iter().any(|(level, message)| level == "error" && message.contains("code 57") && message.contains("sluice auth main")),
        "{said:?}"
    );

    let secret = world.config.split("client_secret = \"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    sqlx::query("update sluice.credential set access_token = null, expires_at = null").execute(world.db.db()).await.unwrap();
    let other = Folder::with(&world.config.replace("ORGANIZATION", "organization_id = \"60000000001\"").replace(&secret, "wrong"))
        .on(world.db.url());
    let said = of_the_connection(&other, 1);
    assert!(said.iter().any(|(level, message)| level == "error" && message.contains("client_secret")), "{said:?}");
}
