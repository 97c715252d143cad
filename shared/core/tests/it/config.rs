//! The whole way from text to a checked configuration.

use std::time::Duration;

use sluice_core::config::connection::Budget;
use sluice_core::config::section::Rotation;
use sluice_core::config::sync::{Direction, OnDelete};
use sluice_core::config::units::Limit;
use sluice_core::config::{Config, Environment, Error, Field, Lane, Product};
use sluice_core::secrets::{ExposeSecret, random_key};

const CONTRACT: &str = include_str!("contract.toml");
const EXAMPLE: &str = include_str!("../../../../sluice.example.toml");

/// What the contract's sample leaves out for brevity: the heads of the syncs of which it shows a part.
const REST_OF_CONTRACT: &str = r#"
[syncs.payments]
connection = "main"
table = "payments"
key = "id"
module = "billing/payments"
[syncs.invoices]
connection = "main"
table = "invoices"
key = ["company", "id"]
module = "billing/invoices"
[syncs.items]
connection = "main"
table = "items"
key = "id"
module = "books/items"
direction = "pull"
[syncs.accounts]
connection = "main"
table = "accounts"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
fields = { Account_Name = "name" }
[syncs.plans]
connection = "main"
table = "plans"
key = "id"
module = "billing/plans"
fields = { name = "name" }
"#;

/// A configuration that is right, to break in one place.
const SOUND: &str = r#"
[connections.main]
client_id = "id"
client_secret = "secret"
[syncs.deals]
connection = "main"
table = "contracts"
key = "id"
module = "crm/Deals"
match_on = ["Deal_Name"]
[syncs.deals.fields]
Deal_Name = "name"
"#;

fn environment() -> Environment {
    let key = random_key().expose_secret().to_owned();
    let variables = [
        ("DATABASE_URL", "postgres://app:hush@db/app"),
        ("DIRECT_URL", "postgres://app:hush@direct/app"),
        ("SLUICE_ADMIN_TOKEN", "hush"),
        ("ZOHO_CLIENT_ID", "client"),
        ("ZOHO_CLIENT_SECRET", "hush"),
        ("ZOHO_REFRESH_TOKEN", "hush"),
        ("ZOHO_ORG_ID", "10234695"),
        ("WEBHOOK_SECRET", "hush"),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/hush"),
        ("SLUICE_KEY", key.as_str()),
    ];
    variables.into_iter().collect()
}

fn contract() -> Config {
    Config::parse(&format!("{CONTRACT}{REST_OF_CONTRACT}"), &environment()).unwrap_or_else(|error| panic!("{error}"))
}

fn mistakes(text: &str, environment: &Environment) -> Vec<String> {
    match Config::parse(text, environment) {
        Err(Error::Invalid { findings, .. }) => findings.iter().map(ToString::to_string).collect(),
        Err(error) => panic!("{error}"),
        Ok(_) => Vec::new(),
    }
}

#[test]
fn the_sample_of_the_contract_loads_and_means_what_it_says() {
    let config = contract();
    let customers = &config.syncs["customers"];
    assert_eq!(
        (customers.name.as_str(), customers.module.product, customers.module.name.as_str()),
        ("customers", Product::Billing, "customers")
    );
    assert_eq!((customers.direction, customers.on_delete, customers.lane), (Direction::Push, OnDelete::Ignore, Lane::Normal));
    assert_eq!((customers.min_interval, customers.fresh_within), (Duration::from_secs(2), Some(Duration::from_secs(300))));
    let brake = customers.brake.expect("the contract's example has a brake");
    assert_eq!((brake.max_changes, brake.max_deletes), (Some(Limit::Percent(20)), Limit::Count(50)));
    assert_eq!(customers.writeback.columns().count(), 4);
    assert_eq!(customers.fields.len(), 9);
    assert_eq!(customers.fields["display_name"], Field::column("name"));
    assert_eq!(customers.fields["billing_address.street"], Field::column("street"));
    assert_eq!(customers.fields["parent_id"].refs(), ["accounts"]);
    assert_eq!(customers.watch[0].table, "public.addresses");
    assert_eq!(config.syncs["payments"].fields["invoices"].refs(), ["invoices"]);
    assert_eq!(config.syncs["invoices"].key.columns(), ["company", "id"]);
    let (budget, figures) = config.connections["main"].budget_of(Product::Billing);
    assert_eq!((budget, figures.per_day, figures.per_minute), ("finance", Some(10_000), 100));
    assert_eq!(config.connections["main"].budget_of(Product::Crm), ("crm", Budget::default()));
    let webhook = &config.webhooks["billing-events"];
    assert_eq!((webhook.max_body, webhook.secret.expose_secret()), (1 << 20, "hush"));
    assert!(webhook.allow[0].contains("203.0.113.9".parse().expect("an address")));
    assert_eq!(config.schedules["poll-items"].job.args["sync"], "items");
    assert!(config.http.read_token.is_none() && config.log.file.is_none() && config.rules["priced"].fix.is_none());
    assert_eq!((config.retry.cap, config.worker.grace), (Duration::from_secs(3600), Duration::from_secs(25)));
    assert_eq!(config.log.rotate, Rotation::Daily);
}

#[test]
fn the_example_file_loads_without_a_note() {
    let config = Config::parse(EXAMPLE, &environment()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.notes.is_empty(), "{:?}", config.notes);
    assert!(!config.syncs.is_empty());
}

#[test]
fn a_reference_in_a_field_that_nobody_knows_to_be_kept_is_noted() {
    let file = format!("{CONTRACT}{REST_OF_CONTRACT}").replace("reference = \"cf_sluice_key\"", "reference = \"reference_id\"");
    let config = Config::parse(&file, &environment()).unwrap_or_else(|error| panic!("{error}"));
    let noted: Vec<String> = config.notes.iter().map(ToString::to_string).collect();
    assert!(noted.iter().any(|note| note.contains("billing/customers is not known to keep `reference_id`")), "{noted:?}");
}

#[test]
fn an_empty_file_is_a_configuration_with_the_documented_defaults() {
    let config = Config::parse("", &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.database.url.is_none() && config.security.key.is_none());
    assert_eq!(
        (config.database.max_connections, config.worker.concurrency, config.retry.max_failures, config.retention.days),
        (4, 4, 8, 90)
    );
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
}

#[test]
fn the_shown_configuration_holds_no_secret_and_loads_again() {
    let config = contract();
    for shown in [config.to_masked_toml(), config.to_masked_json().to_string(), format!("{config:?}")] {
        assert!(!shown.contains("hush"), "{shown}");
    }
    let toml = config.to_masked_toml();
    assert!(toml.contains("postgres://app:***@db/app") && toml.contains("min_interval = \"2s\""), "{toml}");
    let complaints = mistakes(&toml, &Environment::default());
    let about_masks = complaints.iter().all(|complaint| complaint.contains("security.key") || complaint.contains("alerts.ops.url"));
    assert!(about_masks, "{complaints:#?}\n{toml}");
}

#[test]
fn every_key_of_the_contract_is_in_the_schema() {
    let schema = Config::schema();
    let sync = &schema["$defs"]["Sync"]["properties"];
    assert_eq!(sync["min_interval"]["type"], "string");
    assert_eq!(schema["$defs"]["Connection"]["properties"]["client_secret"]["type"], "string");
    let text = schema.to_string();
    for line in CONTRACT.lines().filter(|line| !line.starts_with(['#', '['])) {
        let Some((key, _)) = line.split_once(" = ") else {
            continue;
        };
        let free = ["display_name", "email", "status", "full_address", "stage", "source", "parent_id", "is_active"];
        if key.starts_with(['"', ' ']) || free.contains(&key.trim()) {
            continue;
        }
        assert!(text.contains(&format!("\"{}\":", key.trim())), "{key}");
    }
}

#[test]
fn a_definition_hash_is_of_the_meaning_and_not_of_the_spelling() {
    let hash = |text: &str| {
        Config::parse(text, &Environment::default()).unwrap_or_else(|error| panic!("{error}")).syncs["deals"].definition_hash()
    };
    let sound = hash(SOUND);
    assert_eq!(sound.len(), 64);
    let same = [
        SOUND.replace("Deal_Name = \"name\"", "Deal_Name = { column = 'name' }"),
        SOUND.replace(
            "table = \"contracts\"\nkey = \"id\"",
            "key = [\"id\"]\nlane = \"normal\"\nmin_interval = \"2000ms\"\ntable = \"contracts\"",
        ),
        SOUND.replace("client_secret = \"secret\"", "client_secret = \"other\""),
    ];
    for text in same {
        assert_eq!(hash(&text), sound, "{text}");
    }
    let other = [
        SOUND.replace("\"name\"", "\"title\""),
        SOUND.replace("module =", "min_interval = \"3s\"\nmodule ="),
        SOUND.replace("module =", "direction = \"both\"\nmodule ="),
        SOUND.replace("key = \"id\"", "key = [\"id\", \"x\"]"),
    ];
    for text in other {
        assert_ne!(hash(&text), sound, "{text}");
    }
}

#[test]
fn variables_are_read_in_whole_values_and_inside_them() {
    let environment: Environment = [("HOST", "db"), ("EMPTY", ""), ("COUNT", "7"), ("OPEN", "true")].into_iter().collect();
    let text = r#"
        [database]
        url = "postgres://app@${HOST}/${EMPTY}app"
        listen_url = "${NOT_SET}"
        max_connections = "${COUNT}"
        expression_role = "a$${HOST}"
        [http]
        metrics_open = "${OPEN}"
        hosts = ["${HOST}", "${NOT_SET}"]
    "#;
    let config = Config::parse(text, &environment).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.database.url.expect("set").expose_secret(), "postgres://app@db/app");
    assert!(config.database.listen_url.is_none());
    assert_eq!((config.database.max_connections, config.http.metrics_open), (7, true));
    assert_eq!(config.database.expression_role.as_deref(), Some("a${HOST}"));
    assert_eq!(config.http.hosts, ["db"]);
}

#[test]
fn a_variable_that_is_not_set_is_a_mistake_where_the_key_is_required_or_maps_a_field() {
    let text = SOUND.replace("\"id\"\nclient_secret", "\"${ZOHO_CLIENT_ID}\"\nclient_secret").replace("\"name\"", "\"${COLUMN}\"");
    let found = mistakes(&text, &Environment::default());
    assert_eq!(
        found,
        [
            "line 3: connections.main.client_id: is required, and ${ZOHO_CLIENT_ID} is not set; set it, in the environment or in .env",
            "line 12: syncs.deals.fields.Deal_Name: ${COLUMN} is not set; set it, in the environment or in .env",
        ]
    );
    let empty: Environment = [("ZOHO_CLIENT_ID", ""), ("COLUMN", "name")].into_iter().collect();
    assert_eq!(mistakes(&text, &empty), ["line 3: connections.main.client_id: must not be empty"]);
}

#[test]
fn all_mistakes_are_listed_in_the_order_of_the_file() {
    let text = r#"
[databse]
[database]
max_connections = "many"
[connections.main]
data_center = "de"
[syncs.deals]
conection = "main"
connection = "mian"
module = "crn/Deals"
key = 5
[syncs.deals.fields]
Name = { colum = "name" }
[retry]
max_failures = 0
"#;
    let found = mistakes(text, &Environment::default());
    let expected = [
        "line 2: databse: unknown key (did you mean `database`?)",
        "line 4: database.max_connections: expected a whole number, found a text",
        "line 5: connections.main.client_id: is required",
        "line 5: connections.main.client_secret: is required",
        "line 6: connections.main.data_center: unknown value `de`; one of com, eu, in, com.au, jp, ca, sa, uk, com.cn",
        "line 7: syncs.deals.table: is required",
        "line 8: syncs.deals.conection: unknown key (did you mean `connection`?)",
        "line 10: syncs.deals.module: unknown product `crn` (did you mean `crm`?); one of crm, books, inventory, billing, fsm",
        "line 11: syncs.deals.key: expected a column's name or a list of them, found a whole number",
        "line 13: syncs.deals.fields.Name.colum: unknown key (did you mean `column`?)",
        "line 15: retry.max_failures: must be at least 1: a job is tried once in any case",
    ];
    assert_eq!(found, expected, "{found:#?}");
}

/// Each breaks the sound file in one place: by replacing a text, or (where that is empty) by appending one.
const BREAKS: &[(&str, &str, &str)] = &[
    ("connection = \"main\"", "connection = \"mian\"", "there is no [connections.mian] (did you mean `main`?)"),
    ("\"name\"", "{ ref = \"account\", column = \"a\" }", "syncs.deals.fields.Deal_Name: there is no [syncs.account]"),
    ("match_on = [\"Deal_Name\"]", "", "syncs.deals.reference: a CRM sync needs `reference`"),
    ("[\"Deal_Name\"]", "[\"Amount\"]", "names `Amount`, which is not among the sync's fields"),
    ("match_on", "reference = \"Deal_Name\"\nmatch_on", "names a field that is mapped"),
    (
        "module = \"crm/Deals\"",
        "module = \"billing/invoices\"\nreference = \"reference_id\"",
        "syncs.deals.reference: billing/invoices is not known to keep `reference_id`, and then a create whose answer was lost is not found again and made twice: name `reference_number`, or `invoice_number`, or a custom field",
    ),
    (
        "[syncs.deals.fields]\nDeal_Name = \"name\"",
        "direction = \"both\"\n[syncs.deals.fields]\nDeal_Name = { sql = \"upper(this.name)\" }",
        "`Deal_Name` is no plain column, so no row would be found by it",
    ),
    ("match_on", "on_delete = \"mark\"\nmatch_on", "syncs.deals.mark: on_delete = \"mark\" needs it"),
    ("match_on", "when_false = \"delete\"\nmatch_on", "which is \"ignore\""),
    ("match_on", "lane = \"urgent\"\nmatch_on", "unknown value `urgent`; one of interactive, realtime"),
    ("match_on", "columns = { a = \"1\" }\nmatch_on", "is for pulling"),
    ("match_on", "min_interval = 2\nmatch_on", "syncs.deals.min_interval: expected a text, found a whole number"),
    ("match_on", "reconcile = { max_calls_per_day = -1 }\nmatch_on", "must be a whole number from 0 to 4294967295, not -1"),
    ("match_on", "min_interval = \"2 s\"\nmatch_on", "is not a duration"),
    ("match_on", "brake = { max_changes = \"120%\" }\nmatch_on", "syncs.deals.brake.max_changes"),
    ("match_on", "reconcile = { within = \"0s\" }\nmatch_on", "syncs.deals.reconcile: `within` must be longer than 0s"),
    ("match_on", "reconcile = { max_calls_per_day = 0 }\nmatch_on", "`max_calls_per_day` must be at least 1"),
    ("match_on", "writeback = { id = \"name\" }\nmatch_on", "each push would cause the next"),
    ("match_on", "direction = \"pull\"\ncreates = false\nmatch_on", "syncs.deals.creates: is for syncs that push"),
    ("match_on", "inserts = false\nmatch_on", "syncs.deals.inserts: is for syncs that pull"),
    ("match_on", "when = \" \"\nmatch_on", "syncs.deals.when: must not be empty"),
    ("module = \"crm/Deals\"", "module = \"Deals\"", "is not `product/module`"),
    ("module = \"crm/Deals\"", "module = \"books/items\"\nskip_workflows = true", "only CRM writes can skip workflows"),
    ("module = \"crm/Deals\"", "module = \"books/items\"\nbulk_read = \"never\"", "syncs.deals.bulk_read: only CRM has bulk reads"),
    ("match_on", "bulk_read = \"often\"\nmatch_on", "unknown value `often`; one of auto, always, never"),
    ("key = \"id\"", "key = []", "syncs.deals.key: name at least one column"),
    ("key = \"id\"", "key = [\"a\", \"a\"]", "names a column twice"),
    ("\"name\"", "\"name\"\n\"Deal_Name.x\" = \"x\"", "`Deal_Name` is mapped as a whole too"),
    ("\"name\"", "\"name\"\n\"a..b\" = \"x\"", "no empty part"),
    ("\"name\"", "\"name\"\naddress.street = \"x\"", "a dotted Zoho field is quoted: \"address.street\" = …"),
    ("\"name\"", "{ column = \"name\", values = { a = [] } }", "empty list"),
    ("\"name\"", "{ each = \"select 1\", item = { a = { sql = \"1\" } } }", "write the expression as a column of `each`"),
    ("\"name\"", "{ each = \"select 1\", item = { a = { column = \"b\", owner = \"zoho\" } } }", "a list is pushed only"),
    ("\"name\"", "{ rows = \"lines\", item = { id = \"z\" } }", "`rows` needs `parent`"),
    ("\"name\"", "{ rows = \"l\", parent = \"d\", match_on = \"id\", item = { id = \"z\" } }", "`rows` is for pulling: set direction"),
    ("\"name\"", "{ file = \"image\" }", "`file` needs `column`"),
    ("\"name\"", "{ file = \"image\", column = \"b\" }", "line 12: syncs.deals.fields.Deal_Name: a file comes from Zoho and is never sent"),
    ("\"name\"", "{ column = \"name\", parent = \"d\" }", "`parent` belongs to `rows`"),
    ("client_id = \"id\"", "client_id = \"id\"\napi_url = \"ftp://x\"", "begins with http:// or https://"),
    ("client_secret = \"secret\"", "client_secret = \"${\"", "is not a variable"),
    ("", "[connections.main.budget.finanse]\nper_minute = 1", "there is no budget of this name (did you mean `finance`?)"),
    ("", "[connections.main.budget.crm]\nshared = false", "belongs to the budget `finance` alone"),
    ("", "[connections.main.budget.crm]\nper_minute = 0", "must be at least 1"),
    ("", "[connections.\"a:b\"]\nclient_id = \"a\"\nclient_secret = \"b\"", "a name has 1 to 60 letters"),
    ("", "[schedules.s]\ncron = \"every day\"\njob = { kind = \"poll\", sync = \"deals\" }", "is not a cron expression"),
    (
        "",
        "[schedules.s]\ncron = \"* * * * *\"\njob = { kind = \"pol\", sync = \"deals\" }",
        "unknown job kind `pol` (did you mean `poll`?)",
    ),
    ("", "[schedules.s]\ncron = \"* * * * *\"\njob = { kind = \"poll\" }", "a job of kind `poll` needs `sync`"),
    (
        "",
        "[schedules.s]\ncron = \"* * * * *\"\njob = { kind = \"poll\", sync = \"deal\" }",
        "schedules.s.job.sync: there is no [syncs.deal]",
    ),
    ("", "[schedules.s]\ncron = \"* * * * *\"\njob = { sync = \"deals\" }", "a job needs `kind`"),
    (
        "",
        "[schedules.s]\ncron = \"* * * * *\"\njob = { kind = \"poll\", sync = \"deals\", full = \"yes\" }",
        "`full` must be true or false",
    ),
    ("", "[webhooks.w]\nconnection = \"main\"\nverify = \"crm-token\"\nsecret = \"\"\nsync = \"deals\"", "webhooks.w.secret: is empty"),
    ("", "[webhooks.w]\nconnection = \"main\"\nverify = \"crm-token\"\nsecret = \"s\"", "webhooks.w.sync: is required"),
    ("", "[webhooks.w]\nconnection = \"main\"\nverify = \"hmac\"\nsecret = \"s\"\nsync = \"deals\"", "unknown value `hmac`"),
    (
        "",
        "[webhooks.w]\nconnection = \"main\"\nverify = \"secret-header\"\nsecret = \"s\"\nsync = \"deals\"\npath = \"/sync/x\"",
        "is served by Sluice itself",
    ),
    (
        "",
        "[connections.other]\nclient_id = \"a\"\nclient_secret = \"b\"\n[webhooks.w]\nconnection = \"other\"\nverify = \"secret-header\"\nsecret = \"s\"\nsync = \"deals\"",
        "webhooks.w.connection: is `other`, but [syncs.deals] uses `main`",
    ),
    (
        "",
        "[webhooks.w]\nconnection = \"main\"\nverify = \"crm-token\"\nsecret = \"SSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSSS\"\nsync = \"deals\"",
        "longer than the 50 characters",
    ),
    ("", "[alerts.a]\nurl = \"mailto:x\"", "begins with http:// or https://"),
    ("", "[rules.r]\nsql = \"\"", "rules.r.sql: must not be empty"),
    ("", "[security]\nkey = \"c2hvcnQ=\"", "security.key: is not 32 bytes in base64"),
    ("", "[http]\nadmin_token = \"\"", "remove the key to have one made"),
    ("", "[http]\nlisten = \"8080\"", "http.listen"),
    ("", "[http]\ntrusted_proxies = [\"10.0.0.0/40\"]", "http.trusted_proxies[0]: `10.0.0.0/40` is not a block of addresses"),
    ("", "[database]\nurl = \"mysql://x\"", "database.url: is not an address that begins with postgres://"),
    ("", "[worker]\nlease = \"10ms\"", "worker.lease: must be at least 1s"),
    ("", "[retry]\nbase = \"1h\"\ncap = \"1s\"", "retry.cap: must not be shorter than `base`"),
    ("", "[retry\nbase = 1", "line 13: "),
];

#[test]
fn each_mistake_is_found_alone_and_says_what_to_do() {
    assert_eq!(mistakes(SOUND, &Environment::default()), [""; 0]);
    for (found, replacement, expected) in BREAKS {
        let text = if found.is_empty() { format!("{SOUND}{replacement}") } else { SOUND.replacen(found, replacement, 1) };
        let complaints = mistakes(&text, &Environment::default());
        assert!(complaints.first().is_some_and(|complaint| complaint.contains(expected)), "{replacement}: {complaints:#?}");
        assert!(complaints.len() == 1 || replacement.starts_with("[retry\n"), "{replacement}: {complaints:#?}");
    }
}

#[test]
fn a_file_is_an_image_of_inventorys_items_in_a_column_that_nothing_else_writes() {
    let with = |module: &str, field: &str| {
        let text = SOUND.replacen("match_on", "direction = \"pull\"\nwriteback = { id = \"zoho_id\" }\nmatch_on", 1).replacen(
            "crm/Deals",
            module,
            1,
        );
        mistakes(&text.replacen("\"name\"", &format!("\"name\"\nimage_document_id = {field}"), 1), &Environment::default())
    };
    assert_eq!(with("inventory/items", "{ file = \"image\", column = \"picture\" }"), [""; 0]);
    for (module, field, expected) in [
        ("inventory/contacts", "{ file = \"image\", column = \"picture\" }", "images of Inventory's items"),
        ("inventory/items", "{ file = \"photo\", column = \"picture\" }", "images of Inventory's items"),
        ("inventory/items", "{ file = \"image\", column = \"name\" }", "also written by something else"),
        ("inventory/items", "{ file = \"image\", column = \"zoho_id\" }", "also written by something else"),
    ] {
        let complaints = with(module, field);
        assert!(complaints.len() == 1 && complaints[0].contains(expected), "{module} {field}: {complaints:#?}");
    }
}

#[test]
fn a_list_that_becomes_rows_names_what_its_objects_are_known_by_and_what_becomes_of_those_that_go() {
    let with = |rows: &str| {
        let text = SOUND.replacen("match_on", "direction = \"pull\"\nmatch_on", 1);
        text.replacen("\"name\"", &format!("\"name\"\nLines = {{ rows = \"lines\", {rows} }}"), 1)
    };
    assert_eq!(mistakes(&with("parent = \"deal_id\", match_on = \"id\", item = { id = \"z\" }"), &Environment::default()), [""; 0]);
    for (rows, expected) in [
        ("parent = \"d\", match_on = \"id\", item = { no = \"z\" }", "`match_on` names a field of `item`"),
        (
            "parent = \"d\", match_on = \"id\", item = { id = { column = \"z\", values = { a = \"b\" } } }",
            "`match_on` names a field of `item`",
        ),
        ("parent = [\"a\", \"b\"], match_on = \"id\", item = { id = \"z\" }", "as many columns as the sync's `key` has, in its order: 1"),
        ("parent = \"d\", match_on = \"id\", item = { id = \"z\", n = { sql = \"1\" } }", "goes into a column, or a ref"),
        ("parent = \"d\", match_on = \"id\", item = { id = { column = \"z\", owner = \"zoho\" } }", "the rows of a list are Zoho's"),
        ("parent = \"d\", match_on = \"id\", on_delete = \"mark\", item = { id = \"z\" }", "needs `mark`: the columns to set"),
        ("parent = \"d\", match_on = \"id\", on_delete = \"void\", item = { id = \"z\" }", "deleted, marked or ignored"),
        ("parent = \"d\", match_on = \"id\", mark = { gone = true }, item = { id = \"z\" }", "no effect without on_delete"),
        (
            "parent = \"d\", match_on = \"id\", item = { id = \"z\", p = { ref = \"nobody\", column = \"p\" } }",
            "there is no [syncs.nobody]",
        ),
    ] {
        let complaints = mistakes(&with(rows), &Environment::default());
        assert!(complaints.len() == 1 && complaints[0].contains(expected), "{rows}: {complaints:#?}");
    }
}

#[test]
fn a_field_that_only_zoho_can_call_unique_is_left_to_the_check_that_asks_zoho() {
    let text = SOUND.replace("[\"Deal_Name\"]", "[\"Number\"]").replace("\"name\"", "\"name\"\nNumber = \"number\"");
    let config = Config::parse(&text, &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
    assert!(config.notes.is_empty(), "{:?}", config.notes);
}

#[test]
fn finance_products_share_a_minute_until_told_otherwise() {
    let budgets = |extra: &str| {
        let config = Config::parse(&format!("{SOUND}{extra}"), &Environment::default()).unwrap_or_else(|error| panic!("{error}"));
        [Product::Books, Product::Billing]
            .map(|product| config.connections["main"].budget_of(product))
            .map(|(name, budget)| (name, budget.per_minute))
    };
    assert_eq!(budgets(""), [("finance", 100), ("finance", 100)]);
    assert_eq!(budgets("[connections.main.budget.billing]\nper_minute = 7"), [("finance", 100), ("billing", 7)]);
    assert_eq!(budgets("[connections.main.budget.finance]\nper_minute = 9\nshared = false"), [("books", 9), ("billing", 9)]);
}

#[test]
fn the_file_is_loaded_with_its_env_file_and_a_broken_env_file_shows_no_value() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("sluice.toml");
    std::fs::write(&file, "[log]\nfile = \"${SLUICE_TEST_LOG_FILE}\"\n[database]\nexpression_role = \"${PATH}\"\n").expect("written");
    std::fs::write(folder.path().join(".env"), "SLUICE_TEST_LOG_FILE=from-env-file\nPATH=overridden\n").expect("written");
    let config = Config::load(Some(&file)).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(config.log.file.as_deref(), Some(std::path::Path::new("from-env-file")));
    assert_eq!(config.database.expression_role, std::env::var("PATH").ok(), "the real environment stands above .env");
    assert_eq!(config.folder(), folder.path());
    assert_eq!(sluice_core::config::find(&folder.path().join("deeper/still")), Some(file.clone()));
    std::fs::write(folder.path().join(".env"), "SECRET=hush hush hush'\n").expect("written");
    let error = Config::load(Some(&file)).map(|_| ()).expect_err("a broken .env").to_string();
    assert!(error.contains(".env") && !error.contains("hush"), "{error}");
}

#[test]
fn a_file_that_is_not_there_is_said_by_name() {
    let error = Config::load(Some("no/such/sluice.toml".as_ref())).map(|_| ()).expect_err("no file").to_string();
    assert!(error.contains("no/such/sluice.toml"), "{error}");
}
