//! What is wrong before anything is done ends with 2 and says what to do.

use crate::sluice::Folder;

const GOOD: &str = r#"
[connections.main]
client_id = "id"
client_secret = "very-secret"
refresh_token = "also-secret"
organization_id = "60000000001"

[syncs.customers]
connection = "main"
table = "public.customers"
key = "id"
module = "billing/customers"

[syncs.customers.fields]
display_name = "name"
email = "email"
"#;

#[test]
fn mistakes_on_the_command_line_end_with_2() {
    let folder = Folder::empty();
    for (arguments, said) in [
        (&["nonsense"][..], "unrecognized subcommand"),
        (&["demo", "--recipe", "nonsense"], "there is no recipe `nonsense`; there is billing, inventory"),
        (&["dlq", "list", "--class", "nonsense"], "possible values"),
        (&["jobs", "list", "--since", "yesterday"], "neither a time"),
        (&["pause", "--sync", "a", "--connection", "b"], "cannot be used with"),
        (&["worker", "--concurrency", "0"], "0 is not in"),
    ] {
        let ended = folder.run(arguments);
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(ended.err.contains(said), "{arguments:?}: {}", ended.err);
        assert_eq!(ended.out, "", "nothing but data belongs on standard output");
    }
}

#[test]
fn a_command_that_needs_a_configuration_says_where_it_looked() {
    let ended = Folder::empty().run(&["config", "show"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("no sluice.toml in"), "{}", ended.err);
}

#[test]
fn every_mistake_of_a_configuration_is_named_with_its_line() {
    let bad =
        GOOD.replace("client_id = \"id\"\n", "").replace("key = \"id\"", "keys = \"id\"").replace("billing/customers", "biling/customers");
    let ended = Folder::with(&bad).run(&["check"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    for said in ["connections.main.client_id", "is required", "syncs.customers.keys", "did you mean", "unknown product `biling`", "line "] {
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
}

#[test]
fn without_a_running_server_a_command_says_what_to_start() {
    for command in ["status", "check", "migrate", "producer"] {
        let ended = Folder::with(GOOD).run(&[command]);
        assert_eq!(ended.code, 2, "{command}: {ended:?}");
        assert!(ended.err.contains("sluice up"), "{command}: {}", ended.err);
    }
}

#[test]
fn the_effective_configuration_shows_defaults_and_no_secret() {
    let folder = Folder::with(GOOD);
    let shown = folder.run(&["config", "show", "--json"]);
    let config = shown.json();
    assert_eq!(config["connections"]["main"]["client_secret"], "***");
    assert_eq!(config["worker"]["concurrency"], 4);
    let text = folder.run(&["config", "show"]);
    assert!(text.out.contains("[syncs.customers.fields]"), "{}", text.out);
    for out in [&shown.out, &text.out] {
        assert!(!out.contains("very-secret") && !out.contains("also-secret"), "{out}");
    }
}

#[test]
fn editors_get_a_json_schema_and_shells_get_completions() {
    let folder = Folder::empty();
    let schema = folder.run(&["config", "schema"]).json();
    assert!(schema["properties"]["syncs"].is_object(), "{schema}");
    let bash = folder.run(&["completions", "bash"]);
    assert!(bash.code == 0 && bash.out.contains("requeue"), "{bash:?}");
}
