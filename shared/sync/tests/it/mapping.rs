//! What rows of every kind become.

use serde_json::json;
use sluice_sync::read::{Class, FieldValue, Found, Reader};

use crate::support::{database, definition, printed, read, row, syncs, things};

#[tokio::test]
async fn values_cross_exactly_as_the_column_has_them() {
    let test = database(
        "create type mood as enum ('happy');
         create domain price as numeric(20, 10);
         create table things (id bigint primary key, amount numeric, huge bigint, tiny price, flag boolean, day date, at timestamptz, plain timestamp,
           tags text[], doc json, docb jsonb, uid uuid, mood mood, nothing text, narrow char(5), span interval);
         insert into things values (1, 1234567890123456789012345.10, 9007199254740993, 0.1, true, '2026-02-28', '2026-03-01 01:30:00.987654+03', '2026-03-01 01:30',
           '{a,\"b,c\"}', '{\"z\": 1.10, \"a\": [1e400]}', '{\"n\": 12345678901234567890.50}', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 'happy', null, 'ab', '1 day 2 hours')",
    )
    .await;
    let fields = ["amount", "huge", "tiny", "flag", "day", "at", "plain", "tags", "doc", "docb", "uid", "mood", "nothing", "span"];
    let mapped: String = fields.iter().map(|name| format!("{name} = \"{name}\"\n")).collect();
    let definition = things(&test, &mapped).await;
    let row = row(&test, &definition, "1").await;
    assert_eq!(row.problems, []);
    let printed = printed(&row);
    for expected in [
        r#""amount":1234567890123456789012345.10"#,
        r#""huge":9007199254740993"#,
        r#""tiny":0.1000000000"#,
        r#""flag":true"#,
        r#""day":"2026-02-28""#,
        r#""at":"2026-02-28T22:30:00+0000""#,
        r#""plain":"2026-03-01T01:30:00+0000""#,
        r#""tags":["a","b,c"]"#,
        r#""docb":{"n":12345678901234567890.50}"#,
        r#""uid":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11""#,
        r#""mood":"happy""#,
        r#""nothing":null"#,
        r#""span":"P1DT2H""#,
    ] {
        assert!(printed.contains(expected), "{expected} is not in {printed}");
    }
    assert!(printed.contains("1.10"), "json keeps the scale of its numbers: {printed}");
}

#[tokio::test]
async fn the_mapping_does_not_depend_on_the_sessions_settings() {
    let test = database(
        "create table things (id bigint primary key, at timestamptz, day date); insert into things values (1, '2026-03-01 00:00Z', '2026-03-01');
         do $$ begin execute format('alter database %I set timezone to ''Asia/Tokyo''', current_database());
           execute format('alter database %I set datestyle to ''German''', current_database()); end $$",
    )
    .await;
    let fresh = sluice_core::db::Db::connect(sluice_core::db::Settings::new(test.url())).await.unwrap();
    let definition = things(&test, "at = \"at\"\nsql = { sql = \"this.at\" }\nday = { sql = \"this.day::text\" }").await;
    let found = Reader::new(fresh, None).rows(&definition, &["1".to_owned()]).await.unwrap();
    let Found::Row(row) = &found["1"] else { panic!("no row") };
    assert_eq!(printed(row), r#"{"at":"2026-03-01T00:00:00+0000","day":"2026-03-01","sql":"2026-03-01T00:00:00+0000"}"#);
}

const BILLING: &str = r#"
[customers]
connection = "main"
table = "public.customers"
key = "id"
module = "billing/customers"
when = "status <> 'draft'"
[customers.fields]
display_name = "name"
status = { column = "status", values = { active = "Active", closed = "Inactive" } }
full_address = { sql = "concat_ws(', ', this.street, this.city)" }
"billing_address.street" = "street"
source = { value = "sluice" }
parent_id = { ref = "customers", column = "parent" }

[invoices]
connection = "main"
table = "invoices"
key = "id"
module = "billing/invoices"
[invoices.fields]
customer_id = { ref = "customers", column = "customer_id" }
[invoices.fields.invoice_items]
each = "select * from jsonb_to_recordset(this.lines) as l(name text, rate numeric, quantity numeric)"
item = { name = "name", price = "rate", quantity = "quantity" }
or_else = { name = "description", price = "amount", quantity = { value = 1 } }

[payments]
connection = "main"
table = "payments"
key = "id"
module = "billing/payments"
[payments.fields]
amount = "amount"
payment_mode = { column = "method", values = { card = "creditcard", eft = "banktransfer" } }
[payments.fields.invoices]
each = "select invoice_id, amount from allocations a where a.payment_id = this.id order by a.position desc"
item = { invoice_id = { ref = "invoices", column = "invoice_id" }, amount_applied = "amount" }
"#;

const TABLES: &str = "
create table customers (id bigint primary key, name text, status text, street text, city text, parent text);
create table invoices (id uuid primary key, customer_id bigint, lines jsonb, description text, amount numeric(12,2));
create table payments (id bigint primary key, amount numeric(12,2), method text);
create table allocations (payment_id bigint, invoice_id text, amount numeric(12,2), position int);
insert into customers values (1, 'Acme', 'active', 'Main 1', 'Rome', '007'), (2, 'New', 'draft', null, null, null), (3, 'Odd', 'paused', null, null, null);
insert into invoices values
  ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1, '[{\"name\": \"Router\", \"rate\": 99.90, \"quantity\": 2}, {\"name\": \"Visit\", \"rate\": 0, \"quantity\": 1}]', 'x', 5),
  ('B0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 1, '[]', 'Installation', 450.00),
  ('C0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', null, null, 'Pro rata', 10.50);
insert into payments values (1, 100.10, 'eft'), (2, 5, 'card');
insert into allocations values (1, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', 60.10, 1), (1, 'b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 40, 2);
";

#[tokio::test]
async fn a_customer_is_mapped_by_columns_sql_values_constants_and_references() {
    let test = database(TABLES).await;
    let customers = definition(&test, BILLING, "customers").await;
    let acme = row(&test, &customers, "1").await;
    assert!(acme.when && acme.problems.is_empty());
    let expected = r#"{"billing_address.street":"Main 1","display_name":"Acme","full_address":"Main 1, Rome","parent_id":"7","source":"sluice","status":"Active"}"#;
    assert_eq!(printed(&acme), expected);
    let refs = acme.refs();
    assert_eq!((refs[0].sync.as_str(), refs[0].key.as_str()), ("customers", "7"), "the parent's key is canonical");

    let read = read(&test, &customers, &["1", "2", "3", "4"]).await;
    assert_eq!(read["4"], Found::Gone);
    let Found::Row(draft) = &read["2"] else { panic!("no row 2") };
    assert!(!draft.when);
    assert_eq!(draft.fields["parent_id"], FieldValue::Plain(json!(null)), "no parent is no reference");
    let Found::Row(odd) = &read["3"] else { panic!("no row 3") };
    let problem = &odd.problems[0];
    assert_eq!((problem.class, problem.field.as_str()), (Class::Validation, "status"));
    assert!(problem.message.contains("`paused`") && problem.message.contains("active, closed"), "{}", problem.message);
}

#[tokio::test]
async fn an_invoices_lines_come_from_json_and_from_the_row_where_there_are_none() {
    let test = database(TABLES).await;
    let invoices = definition(&test, BILLING, "invoices").await;
    for (key, expected) in [
        (
            "a0",
            r#"{"customer_id":"1","invoice_items":[{"name":"Router","price":99.90,"quantity":2},{"name":"Visit","price":0,"quantity":1}]}"#,
        ),
        ("b0", r#"{"customer_id":"1","invoice_items":[{"name":"Installation","price":450.00,"quantity":1}]}"#),
        ("c0", r#"{"customer_id":null,"invoice_items":[{"name":"Pro rata","price":10.50,"quantity":1}]}"#),
    ] {
        let row = row(&test, &invoices, &format!("{key}eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")).await;
        assert_eq!((printed(&row), row.problems), (expected.to_owned(), vec![]));
    }
}

#[tokio::test]
async fn a_payments_invoices_are_references_in_the_querys_order() {
    let test = database(TABLES).await;
    let payments = definition(&test, BILLING, "payments").await;
    let first = row(&test, &payments, "1").await;
    let expected = r#"{"amount":100.10,"invoices":[{"amount_applied":40.00,"invoice_id":"b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},{"amount_applied":60.10,"invoice_id":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}],"payment_mode":"banktransfer"}"#;
    assert_eq!(printed(&first), expected);
    let fields: Vec<String> = first.refs().into_iter().map(|one| one.field).collect();
    assert_eq!(fields, ["invoices[0].invoice_id", "invoices[1].invoice_id"]);
    assert_eq!(printed(&row(&test, &payments, "2").await), r#"{"amount":5.00,"invoices":[],"payment_mode":"creditcard"}"#);
}

#[tokio::test]
async fn odd_names_of_tables_columns_and_fields_are_only_names() {
    let test = database(
        r#"create schema "Odd Schema";
           create table "Odd Schema"."Odd ""Table" ("Key; drop" text primary key, "say ""hi""" text, "select" int, sluice_key text, this text, key text);
           insert into "Odd Schema"."Odd ""Table" values ('it''s', 'hello', 5, 's', 't', 'k')"#,
    )
    .await;
    let file = r#"
[odd]
connection = "main"
table = 'Odd Schema.Odd "Table'
key = "Key; drop"
module = "billing/customers"
when = "key = 'k' -- a comment"
[odd.fields]
a = 'say "hi"'
b = "select"
c = "sluice_key"
d = { sql = "this.key || '-' || sluice_key || ')' -- trailing" }
"e'; drop" = "this"
"#;
    let definition = definition(&test, file, "odd").await;
    let row = row(&test, &definition, "it's").await;
    assert!(row.when, "{:?}", row.problems);
    assert_eq!(printed(&row), r#"{"a":"hello","b":5,"c":"s","d":"k-s)","e'; drop":"t"}"#);
}

#[tokio::test]
async fn composite_keys_are_json_arrays_and_every_key_has_one_form() {
    let test = database(
        "create table things (org bigint, code text, uid uuid, name text, primary key (org, code));
         insert into things values (1, 'a', null, 'one'), (1, 'b\"x', null, 'two'), (10, 'a', null, 'three'), (2, 'a', null, 'four')",
    )
    .await;
    let file = "[things]\nconnection = \"main\"\ntable = \"things\"\nkey = [\"org\", \"code\"]\nmodule = \"billing/customers\"\n[things.fields]\nname = \"name\"\n";
    let definition = definition(&test, file, "things").await;
    let reader = Reader::new(test.db().clone(), None);
    for (given, canonical) in [("[\"001\",\"a\"]", "[\"1\", \"a\"]"), ("[1, \"b\\\"x\"]", "[\"1\", \"b\\\"x\"]")] {
        assert_eq!(reader.canonical_key(&definition.key, given).await.unwrap().unwrap(), canonical);
    }
    for bad in ["[\"x\", \"a\"]", "[1]", "nonsense"] {
        assert!(reader.canonical_key(&definition.key, bad).await.unwrap().is_err(), "{bad}");
    }
    assert_eq!(printed(&row(&test, &definition, "[\"1\", \"b\\\"x\"]").await), r#"{"name":"two"}"#);

    let mut walked: Vec<String> = Vec::new();
    loop {
        let chunk = reader.keys_after(&definition, None, walked.last().map(String::as_str), 2).await.unwrap();
        if chunk.is_empty() {
            break;
        }
        walked.extend(chunk);
    }
    let expected = ["[\"1\", \"a\"]", "[\"1\", \"b\\\"x\"]", "[\"2\", \"a\"]", "[\"10\", \"a\"]"];
    assert_eq!(walked, expected, "each row once, in the order of the key's own types");
    let filtered = reader.keys_after(&definition, Some("name like 't%'"), None, 10).await.unwrap();
    assert_eq!(filtered, ["[\"1\", \"b\\\"x\"]", "[\"10\", \"a\"]"]);
}

#[tokio::test]
async fn the_catalog_knows_views_partitions_and_quoted_names_and_shrugs_at_nonsense() {
    use sluice_sync::catalog::{Catalog, Kind};
    let test = database(
        "create table plain (id int primary key, \"B\" varchar(10), unique (\"B\")); create view seen as select * from plain;
         create table \"Odd\" (id int); create table parts (id int primary key) partition by range (id)",
    )
    .await;
    let mut tx = test.db().begin().await.unwrap();
    let names = ["plain", "public.seen", "parts", "Odd", "nothing", "a.b"].map(str::to_owned);
    let catalog = Catalog::load(&mut tx, &names).await.unwrap();
    let plain = catalog.table("plain").unwrap();
    assert_eq!((plain.kind, plain.schema.as_str(), plain.columns[1].type_name.as_str()), (Kind::Table, "public", "character varying"));
    assert_eq!(plain.unique.len(), 2);
    assert_eq!(catalog.table("public.seen").unwrap().kind, Kind::View);
    assert_eq!(catalog.table("parts").unwrap().kind, Kind::Partitioned);
    assert_eq!(catalog.table("Odd").unwrap().name, "Odd", "names are taken literally");
    assert!(catalog.table("nothing").is_none() && catalog.table("a.b").is_none());
    let nonsense = Catalog::load(&mut tx, &["public.".to_owned()]).await.unwrap();
    assert!(nonsense.table("public.").is_none());
}

#[tokio::test]
async fn a_watch_yields_the_keys_that_its_expression_makes_of_a_changed_row() {
    let test = database(
        "create table things (id bigint primary key, name text);
         create table links (thing bigint, other text, note text); insert into things values (1, 'a'), (2, 'a'), (3, 'b')",
    )
    .await;
    let file = "[things]\nconnection = \"main\"\ntable = \"things\"\nkey = \"id\"\nmodule = \"billing/customers\"\n[things.fields]\nname = \"name\"\n\
                [[things.watch]]\ntable = \"links\"\nkey = \"thing\"\n[[things.watch]]\ntable = \"links\"\nkey = \"unnest(array(select t.id from things t where t.name = this.other order by 1))\"\n\
                [[things.watch]]\ntable = \"links\"\nkey = \"1 / thing\"\n";
    let definition = definition(&test, file, "things").await;
    let reader = Reader::new(test.db().clone(), None);
    let changed = json!({"thing": 7, "other": "a"});
    let keys = async |index: usize, row: &serde_json::Value| reader.watched_keys(&definition.watches[index], row).await.unwrap();
    assert_eq!(keys(0, &changed).await.unwrap(), ["7"]);
    assert_eq!(keys(1, &changed).await.unwrap(), ["1", "2"]);
    assert_eq!(keys(0, &json!({"thing": null})).await.unwrap(), Vec::<String>::new());
    assert!(keys(2, &json!({"thing": 0})).await.unwrap_err().contains("division by zero"));
    assert_eq!(definition.watches[1].columns.names(&[]), ["other"]);
    assert_eq!(syncs(file).len(), 1);
}

#[tokio::test]
async fn a_key_that_is_longer_or_finer_than_its_column_finds_no_row_and_is_no_other_records() {
    let test = database(
        "create domain code as varchar(3); create domain price as numeric(10, 2); create domain dear as price check (value > 5);
         create table codes (id code primary key); insert into codes values ('abc');
         create table prices (id dear primary key, code text); insert into prices values (7.50, 'abcdef');
         create table scaled (id numeric(12, 2) primary key, code text); insert into scaled values (7.50, 'abc')",
    )
    .await;
    let sync = |name: &str, field: &str| {
        format!(
            "[{name}]\nconnection = \"main\"\ntable = \"{name}\"\nkey = \"id\"\nmodule = \"billing/customers\"\n[{name}.fields]\n{field}\n"
        )
    };
    let file =
        [sync("codes", "name = \"id\""), sync("prices", "parent = { ref = \"codes\", column = \"code\" }"), sync("scaled", "n = \"id\"")]
            .concat();
    let reader = Reader::new(test.db().clone(), None);
    for (name, own, others) in
        [("codes", "abc", &["abcdef", "abcd"][..]), ("prices", "7.50", &["7.501", "7.5049"]), ("scaled", "7.50", &["7.501"])]
    {
        let definition = definition(&test, &file, name).await;
        for other in others {
            assert_eq!(read(&test, &definition, &[other]).await[*other], Found::Gone, "{name} {other}");
            let said = reader.canonical_key(&definition.key, other).await.unwrap();
            assert_ne!(said.as_deref(), Ok(own), "{name} {other}");
            assert_eq!(said.is_err(), name != "codes", "a length cuts nothing off, a scale is said: {said:?}");
        }
        assert_eq!(row(&test, &definition, own).await.problems, []);
    }
    let prices = definition(&test, &file, "prices").await;
    let refs = row(&test, &prices, "7.50").await.refs();
    assert_eq!(refs[0].key, "abcdef", "a reference is not cut either");
}

#[tokio::test]
async fn an_equal_key_that_its_row_writes_otherwise_is_a_problem_and_not_a_second_record() {
    let test = database(
        "create collation caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table things (id text collate caseless primary key, name text); insert into things values ('Abc', 'one')",
    )
    .await;
    let definition = things(&test, "name = \"name\"").await;
    assert_eq!(row(&test, &definition, "Abc").await.problems, []);
    let other = row(&test, &definition, "aBC").await;
    assert_eq!((other.key.as_str(), other.problems[0].field.as_str()), ("Abc", "key"), "{:?}", other.problems);
    assert!(other.problems[0].message.contains("`Abc`"), "{:?}", other.problems);
}

#[tokio::test]
async fn a_collation_of_equal_keys_is_warned_of() {
    let test = database(
        "create collation caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         create table things (id text collate caseless primary key, name text); create table plain (id text primary key, name text)",
    )
    .await;
    let sync = |name: &str| {
        format!(
            "[{name}]\nconnection = \"main\"\ntable = \"{name}\"\nkey = \"id\"\nmodule = \"billing/customers\"\n[{name}.fields]\nname = \"name\"\n"
        )
    };
    let syncs = syncs(&[sync("things"), sync("plain")].concat());
    let mut tx = test.db().begin().await.unwrap();
    let catalog = sluice_sync::catalog::Catalog::load(&mut tx, &["things".to_owned(), "plain".to_owned()]).await.unwrap();
    for (name, warned) in [("things", true), ("plain", false)] {
        let (_, findings) = sluice_sync::definition::Definition::compile(&syncs[name], &syncs, &catalog).unwrap();
        assert_eq!(findings.iter().any(|finding| finding.message.contains("written differently")), warned, "{findings:?}");
    }
}
