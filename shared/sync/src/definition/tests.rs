#![allow(clippy::unwrap_used)]

use super::*;
use crate::catalog::Kind;
use crate::fixture::{compile, table};

const FILE: &str = r#"
[customers]
connection = "main"
table = "customers"
key = "id"
module = "billing/customers"
when = "status <> 'draft'"
match_on = ["email"]
reference = "cf_sluice_key"
[customers.fields]
display_name = "name"
email = { column = "email", owner = "local" }
full_address = { sql = "concat_ws(', ', this.street, this.city)" }
"billing_address.street" = "street"
source = { value = "sluice" }
[[customers.watch]]
table = "addresses"
key = "customer_id"

[invoices]
connection = "main"
table = "invoices"
key = "id"
module = "billing/invoices"
[invoices.fields]
customer_id = { ref = "customers", column = "customer" }
[invoices.fields.invoice_items]
each = "select * from jsonb_to_recordset(this.lines) as l(name text)"
item = { name = "name" }
or_else = { name = "description" }
"#;

fn tables() -> Vec<crate::catalog::Table> {
    vec![
        table(
            "customers",
            &[
                ("id", "int8"),
                ("name", "text"),
                ("email", "text"),
                ("street", "text"),
                ("city", "text"),
                ("status", "text"),
                ("note", "text"),
            ],
        ),
        table("invoices", &[("id", "int8"), ("customer", "text"), ("lines", "jsonb"), ("description", "text"), ("note", "text")]),
        table("addresses", &[("id", "int8"), ("customer_id", "int8"), ("town", "text")]),
    ]
}

/// The messages of everything that is wrong after `from` in the file was replaced by `to`.
fn findings(sync: &str, from: &str, to: &str) -> Vec<String> {
    assert!(FILE.contains(from), "{from}");
    match compile(&FILE.replace(from, to), sync, &tables()) {
        Ok((_, warnings)) => warnings.iter().map(ToString::to_string).collect(),
        Err(findings) => findings.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn only_columns_that_the_mapping_looks_at_are_relevant() {
    let (customers, warnings) = compile(FILE, "customers", &tables()).unwrap();
    assert_eq!(warnings, []);
    let expected = ["city", "email", "id", "name", "status", "street"];
    assert_eq!(customers.relevant_columns().names(&[]), expected);
    assert!(!customers.relevant_columns().touched_by(&["note"]));
    assert!(customers.relevant_columns().touched_by(&["note", "status"]));
    let (invoices, _) = compile(FILE, "invoices", &tables()).unwrap();
    assert_eq!(invoices.relevant_columns().names(&[]), ["customer", "description", "id", "lines"]);
    assert_eq!(invoices.parents["customers"].type_name, "int8");
    assert_eq!(customers.watches[0].columns.names(&[]), ["customer_id"]);
}

#[test]
fn an_expression_over_the_whole_row_makes_every_column_relevant() {
    let file = FILE.replace("concat_ws(', ', this.street, this.city)", "to_jsonb(this)");
    let (customers, _) = compile(&file, "customers", &tables()).unwrap();
    assert_eq!(customers.relevant_columns(), &Columns::All);
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_with_a_way_out() {
    for (sync, from, to, expected) in [
        ("customers", "table = \"customers\"", "table = \"clients\"", "syncs.customers.table: there is no table or view `clients`"),
        ("customers", "key = \"id\"", "key = \"uid\"", "syncs.customers.key: `customers` has no column `uid`; it has id, name"),
        ("customers", "display_name = \"name\"", "display_name = \"nam\"", "fields.display_name: `customers` has no column `nam`"),
        ("customers", "match_on = [\"email\"]", "match_on = [\"phone\"]", "match_on: `phone` is not among `fields`"),
        ("customers", "reference = \"cf_sluice_key\"", "reference = \"email\"", "reference: `email` is mapped as well"),
        ("customers", "table = \"addresses\"", "table = \"adresses\"", "watch: there is no table or view `adresses`"),
        ("customers", "source = {", "billing_address = {", "fields.billing_address.street: `billing_address` is mapped as a whole"),
        ("customers", "reference = \"cf_sluice_key\"", "on_delete = \"void\"", "on_delete: billing/customers cannot be voided"),
        ("customers", "reference = \"cf_sluice_key\"", "on_delete = \"mark\"", "mark: on_delete = \"mark\" needs the fields"),
        (
            "customers",
            "reference = \"cf_sluice_key\"",
            "direction = \"both\"\non_delete = \"mark\"\nmark = { status = \"inactive\" }",
            "mark.status: a row whose Zoho record is gone is marked through the mapping: map `status` to a column",
        ),
        (
            "customers",
            "reference = \"cf_sluice_key\"\n[customers.fields]",
            "direction = \"both\"\non_delete = \"mark\"\nmark = { status = \"inactive\" }\n[customers.fields]\nstatus = { column = \"status\", values = { open = \"active\" } }",
            "mark.status: \"inactive\" is not among the `values` of `status`",
        ),
        (
            "customers",
            "module = \"billing/customers\"\nwhen",
            "module = \"billing/custmers\"\nwhen",
            "syncs.customers.module: this version cannot push to `billing/custmers` (did you mean `customers`?)",
        ),
        ("invoices", "ref = \"customers\"", "ref = \"people\"", "fields.customer_id: `ref` names the sync `people`"),
        ("invoices", "column = \"customer\"", "column = \"client\"", "fields.customer_id: `invoices` has no column `client`"),
        (
            "invoices",
            "or_else = { name = \"description\" }",
            "or_else = { name = \"text\" }",
            "fields.invoice_items: `invoices` has no column `text`",
        ),
        (
            "invoices",
            "item = { name = \"name\" }",
            "item = { a = { each = \"select 1\", item = { b = \"c\" } } }",
            "a list cannot hold a list",
        ),
    ] {
        let found = findings(sync, from, to);
        assert!(found.iter().any(|finding| finding.contains(expected)), "{to}: {found:?}");
    }
    let several = findings(
        "customers",
        "display_name = \"name\"\nemail = { column = \"email\", owner",
        "display_name = \"a\"\nemail = { column = \"b\", owner",
    );
    assert_eq!(several.len(), 2, "{several:?}");
}

#[test]
fn a_crm_sync_that_could_double_is_refused_and_one_with_a_unique_field_is_not() {
    let crm = |extra: &str| {
        let file = format!(
            "[people]\nconnection = \"main\"\ntable = \"customers\"\nkey = \"id\"\nmodule = \"crm/Contacts\"\n{extra}\n[people.fields]\nEmail = \"email\"\n"
        );
        compile(&file, "people", &tables())
    };
    let findings = crm("").unwrap_err();
    assert!(findings[0].message.contains("could double") && findings[0].message.contains("Email"), "{findings:?}");
    assert!(crm("reference = \"Sluice_Key\"").is_ok());
    assert!(crm("match_on = [\"Email\"]").is_ok());
}

#[test]
fn a_table_whose_key_is_not_unique_and_a_view_that_nobody_watches_are_warned_about() {
    let mut tables = tables();
    tables[0].unique.clear();
    tables[1].kind = Kind::View;
    let (_, warnings) = compile(FILE, "customers", &tables).unwrap();
    assert!(warnings.iter().any(|warning| warning.message.contains("no unique index covers id")), "{warnings:?}");
    let (_, warnings) = compile(FILE, "invoices", &tables).unwrap();
    assert!(warnings.iter().any(|warning| warning.message.contains("are not captured")), "{warnings:?}");
}

#[test]
fn our_reference_goes_into_the_named_field_else_into_the_modules_usual_one() {
    let (customers, _) = compile(FILE, "customers", &tables()).unwrap();
    assert_eq!(customers.reference(), Some("cf_sluice_key"));
    assert_eq!(customers.reference_of("42", None), "customers:42");
    let payments = |field: &str| {
        let file = format!(
            "[payments]\nconnection = \"main\"\ntable = \"customers\"\nkey = \"id\"\nmodule = \"billing/payments\"\n[payments.fields]\n{field} = \"name\"\n"
        );
        compile(&file, "payments", &tables()).unwrap().0
    };
    assert_eq!(payments("description").reference(), Some("reference_number"));
    assert_eq!(payments("reference_number").reference(), None);
}

#[test]
fn the_hash_follows_the_meaning_of_the_configuration() {
    let hash = |file: &str| compile(file, "customers", &tables()).unwrap().0.hash().to_owned();
    assert_eq!(hash(FILE), hash(&FILE.replace("email = { column", "email = {   column")));
    assert_ne!(hash(FILE), hash(&FILE.replace("'draft'", "'new'")));
}

#[test]
fn a_level_that_zoho_takes_no_update_of_needs_the_reading_of_both_sides() {
    let items = |direction: &str| {
        let file = format!(
            "[items]\nconnection = \"main\"\ntable = \"items\"\nkey = \"id\"\nmodule = \"inventory/items\"\ndirection = \"{direction}\"\n[items.fields]\nname = \"name\"\nstock_on_hand = \"stock\""
        );
        compile(&file, "items", &[table("items", &[("id", "int8"), ("name", "text"), ("stock", "numeric")])])
    };
    let refused = items("push").unwrap_err();
    assert!(refused[0].at == "syncs.items.fields.stock_on_hand" && refused[0].message.contains("\"both\""), "{refused:?}");
    assert_eq!(items("both").unwrap().1, []);
    assert_eq!(items("pull").unwrap().1, []);
}
