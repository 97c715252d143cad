//! Keys that are equal and written differently are one record, wherever they come from: the row, another row's reference, a watched table, a
//! job, a person.

use serde_json::json;
use sluice_producer::Definitions;
use sluice_sync::read::Reader;

use crate::world::{Setup, World, text};

/// A kind of key whose values have several forms.
struct Kind {
    name: &'static str,
    /// Of the row's key, and of what refers to it from elsewhere.
    types: (&'static str, &'static str),
    /// The row's, the child's and the note's way of writing the same key, and the row's later one.
    written: (&'static str, &'static str, &'static str, &'static str),
    /// What jobs and people call it.
    called: &'static [&'static str],
    /// The only form under which there may be a record.
    canonical: &'static str,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "scaled",
        types: ("numeric(12,2)", "int"),
        written: ("10", "10", "10", "10.00"),
        called: &["10", "10.0", "1e1"],
        canonical: "10.00",
    },
    Kind {
        name: "plain",
        types: ("numeric", "numeric"),
        written: ("10.00", "10", "10.000", "10.0"),
        called: &["10", "10.0", "1e1"],
        canonical: "10",
    },
    Kind { name: "priced", types: ("price", "int"), written: ("7", "7", "7", "7.00"), called: &["7", "7.0"], canonical: "7.00" },
    Kind {
        name: "spans",
        types: ("interval", "interval"),
        written: ("24 hours", "1 day", "1 day", "1440 minutes"),
        called: &["24:00", "P1D", "PT24H"],
        canonical: "P1D",
    },
    Kind { name: "floats", types: ("float8", "float8"), written: ("-0", "0", "-0", "0"), called: &["0", "-0", "0e5"], canonical: "0" },
    Kind {
        name: "cased",
        types: ("ext.citext", "ext.citext"),
        written: ("Abc", "ABC", "abc", "aBC"),
        called: &["abc", "ABC"],
        canonical: "abc",
    },
    Kind {
        name: "bytes",
        types: ("bytea", "text"),
        written: ("\\x5c00ff", "\\\\\\000\\377", "\\x5c00ff", "\\x5C00FF"),
        called: &["\\x5C00FF", "\\\\\\000\\377"],
        canonical: "\\x5c00ff",
    },
];

/// Where `bytea_output` is `escape`, texts of rows are other texts in some sessions than in others.
fn tables() -> String {
    let mut sql = "create schema ext; create extension citext schema ext; create domain price as numeric(10, 2);
        do $$ begin execute format('alter database %I set bytea_output to escape', current_database()); end $$;"
        .to_owned();
    for Kind { name, types: (own, other), .. } in KINDS {
        sql.push_str(&format!(
            "create table {name} (id {own} primary key, name text, zoho_id text); create table {name}_child (id bigint primary key, name text, parent_id {other});
             create table {name}_note (id bigint primary key, about {other}, said text);"
        ));
    }
    sql
}

fn config() -> String {
    let kind = |Kind { name, .. }: &Kind| {
        format!(
            r#"
[syncs.{name}]
connection = "main"
table = "public.{name}"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
min_interval = "0s"
writeback = {{ id = "zoho_id" }}
[syncs.{name}.fields]
Account_Name = "name"
[[syncs.{name}.watch]]
table = "public.{name}_note"
key = "about"

[syncs.{name}_child]
connection = "main"
table = "public.{name}_child"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
min_interval = "0s"
[syncs.{name}_child.fields]
Last_Name = "name"
Email = {{ sql = "this.name || '@people.example'" }}
Account_Name = {{ ref = "{name}", column = "parent_id" }}
"#
        )
    };
    KINDS.iter().map(kind).collect()
}

async fn one_record_each(world: &World, when: &str) {
    world.all_arrived().await;
    for Kind { name, canonical, .. } in KINDS {
        let links = world.rows(&format!("select key, zoho_id is not null as linked from sluice.link where sync = '{name}'")).await;
        assert_eq!(links, [json!({"key": canonical, "linked": true})], "{name}, {when}");
        let told = world.rows(&format!("select zoho_id is not null as told from {name}")).await;
        assert_eq!(told, [json!({"told": true})], "{name}, {when}");
    }
    assert_eq!(world.zoho.records("crm", "Accounts").await.len(), KINDS.len(), "{when}");
}

#[tokio::test]
async fn a_key_in_two_forms_is_one_record_whether_a_row_a_reference_a_watch_a_job_or_a_person_says_it() {
    let world = World::without_worker(Setup::new(tables().leak(), config())).await;
    // Everything at once, so that whichever comes first has no link to go by.
    for Kind { name, written: (row, child, note, _), called, .. } in KINDS {
        world
            .run(&format!(
                "insert into {name} values ('{row}', '{name}'); insert into {name}_child values (1, '{name}', '{child}');
                 insert into {name}_note values (1, '{note}', 'hello')"
            ))
            .await;
        for key in *called {
            let args = json!({"sync": name, "key": key});
            sqlx::query("insert into sluice.job (kind, args) values ('push', $1)").bind(args).execute(world.db()).await.expect("a job");
        }
    }
    world.start_worker();
    one_record_each(&world, "at first").await;
    let children = world.zoho.records("crm", "Contacts").await;
    assert_eq!(children.len(), KINDS.len());
    assert!(children.iter().all(|child| child["Account_Name"]["id"].is_string()), "{children:#?}");
    let asked =
        world.rows("select sync, count(*) as pushes from sluice.attempt where kind = 'push' group by sync having count(*) > 8").await;
    assert!(asked.is_empty(), "nothing is asked for again and again: {asked:?}");

    let definitions = Definitions::compile(world.db(), &world.config).await.expect("definitions");
    let reader = Reader::new(world.connect().await, None);
    for Kind { name, written: (_, _, note, later), called, .. } in KINDS {
        world
            .run(&format!(
                "update {name} set id = '{later}', name = '{name} anew'; update {name}_note set about = '{note}', said = 'again'"
            ))
            .await;
        for key in *called {
            sluice_producer::trigger(world.db(), &reader, &definitions, Some(name), Some(key), false).await.expect("a trigger");
        }
    }
    one_record_each(&world, "after the key was written otherwise").await;
    let names: Vec<String> = world.zoho.records("crm", "Accounts").await.iter().map(|record| text(&record["Account_Name"])).collect();
    assert!(names.iter().all(|name| name.ends_with("anew")), "{names:?}");
    // and what is known of it is found by any of its names
    for Kind { name, called, .. } in KINDS {
        for key in *called {
            let known = sqlx::query_scalar::<_, bool>("select sluice.zoho_id($1, $2) is not null").bind(name).bind(key);
            assert!(known.fetch_one(world.db()).await.expect("an answer"), "{name} {key}");
        }
    }
    for (name, key) in [("scaled", "10.001"), ("priced", "7.001")] {
        let args = json!({"sync": name, "key": key});
        let refused = sqlx::query("insert into sluice.job (kind, args) values ('push', $1)").bind(args).execute(world.db()).await;
        assert!(
            refused.is_err_and(|error| error.to_string().contains("does not fit")),
            "{name}: a key that its column would round is another record's"
        );
    }
    for (name, key) in [("scaled", "10"), ("plain", "10.000"), ("cased", "ABC")] {
        let changes = world.rows(&format!("select what, says from sluice.explain('{name}', '{key}') where what = 'change'")).await;
        assert!(changes.len() >= 2, "{name}: {changes:#?}");
    }
    world.check_rules().await;
}

#[tokio::test]
async fn a_child_does_not_wait_for_a_parent_that_would_be_asked_for_under_another_key() {
    let tables = "create table firms (id numeric(12, 2) primary key, name text); create table people (id bigint primary key, name text, firm_id int);";
    let config = r#"
[syncs.firms]
connection = "main"
table = "public.firms"
key = "id"
module = "crm/Accounts"
match_on = ["Account_Name"]
[syncs.firms.fields]
Account_Name = "name"

[syncs.people]
connection = "main"
table = "public.people"
key = "id"
module = "crm/Contacts"
match_on = ["Email"]
[syncs.people.fields]
Last_Name = "name"
Email = { sql = "this.name || '@people.example'" }
Account_Name = { ref = "firms", column = "firm_id" }
"#;
    let world = World::without_roles(Setup::new(tables, config)).await;
    world
        .run(
            "alter table firms disable trigger user; alter table firms alter id type numeric(12, 3); insert into firms values (10, 'Firm')",
        )
        .await;
    world.start_producer().await;
    world.start_worker();
    world.run("insert into people values (1, 'Child', 10)").await;
    world.until("select exists (select from sluice.dead_letter where resolution is null)").await;
    let letters = world.letters().await;
    assert_eq!((&letters[0]["sync"], &letters[0]["error_class"]), (&json!("people"), &json!("dependency")), "{letters:#?}");
    assert!(text(&letters[0]["message"]).contains("firms 10.000 would be asked for as 10.00"), "{letters:#?}");
    assert_eq!(world.count("select count(*) from sluice.attempt where sync = 'firms'").await, 0, "nobody asked");
}
