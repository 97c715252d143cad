//! Lists of Zoho's become rows of child tables: an invoice's lines, a price list's prices, a subform's rows.

use serde_json::{Value, json};
use sluice_core::db::dynamic;

use crate::world::{Setup, World};

/// `written` logs every write to a line that a trigger sees.
const INVOICES: &str = "
    create table items (id bigint generated always as identity primary key, zoho_id text, name text);
    create table invoices (id bigint generated always as identity primary key, zoho_id text, number text, zoho_status text);
    create table lines (
      id bigint generated always as identity primary key, invoice_id bigint not null references invoices on delete cascade,
      zoho_line_id text, item_id bigint references items, name text, price numeric(12, 2), quantity numeric(8, 2), removed boolean not null default false,
      unique (invoice_id, zoho_line_id));
    create table written (id bigint generated always as identity, what text, zoho_line_id text);
    create function note() returns trigger language plpgsql as $$
    begin insert into written (what, zoho_line_id) values (lower(tg_op), coalesce(new.zoho_line_id, old.zoho_line_id)); return null; end $$;
    create trigger note after insert or update or delete on lines for each row execute function note();";

fn invoices(settings: &str, list: &str) -> String {
    format!(
        r#"
        [syncs.items]
        connection = "main"
        table = "items"
        key = "id"
        module = "inventory/items"
        direction = "pull"
        writeback = {{ id = "zoho_id" }}
        fields = {{ name = "name" }}
        [syncs.invoices]
        connection = "main"
        table = "invoices"
        key = "id"
        module = "billing/invoices"
        direction = "pull"
        writeback = {{ id = "zoho_id", status = "zoho_status" }}
        watch = [{{ table = "lines", key = "invoice_id" }}]
        {settings}
        [syncs.invoices.fields]
        invoice_number = "number"
        [syncs.invoices.fields.invoice_items]
        rows = "lines"
        parent = "invoice_id"
        match_on = "item_id"
        {list}
        item = {{ item_id = "zoho_line_id", name = "name", price = "price", quantity = "quantity", product_id = {{ ref = "items", column = "item_id" }} }}
        "#
    )
}

fn line(id: &str, price: Value) -> Value {
    json!({"item_id": id, "name": format!("Line {id}"), "price": price, "quantity": 1, "item_order": 0, "product_id": ""})
}

fn invoice(lines: &[Value]) -> Value {
    json!({"invoice_number": "INV-1", "date": "2026-06-01", "status": "sent", "total": 10, "balance": 10, "invoice_items": lines})
}

/// A world with one invoice, which was pulled with its lines; its Zoho id.
async fn with_invoice(settings: &str, list: &str, lines: &[Value]) -> (World, String) {
    let world = World::new(Setup::new(INVOICES, invoices(settings, list))).await;
    let made = world.zoho.put("billing", "invoices", None, invoice(lines)).await;
    world.poll("invoices").await;
    (world, made["invoice_id"].as_str().expect("an id").to_owned())
}

/// The lines of all invoices: by hand where the id is null.
async fn lines(world: &World) -> Vec<Value> {
    world.rows("select zoho_line_id as id, price::text, removed from lines order by zoho_line_id nulls last").await
}

/// What was written since the last time: operation and line.
async fn written(world: &World) -> Vec<Value> {
    let written = world.rows("select concat_ws(' ', what, zoho_line_id) as w from written order by what, zoho_line_id").await;
    world.run("delete from written").await;
    written.iter().map(|one| one["w"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_line_does_not_show_stays_as_it_is_in_its_row_though_another_line_shows_it() {
    let world = World::new(Setup::new(INVOICES, invoices("", ""))).await;
    let made = world.zoho.put("billing", "invoices", None, invoice(&[line("L1", json!(1)), line("L2", json!(2))])).await;
    let id = made["invoice_id"].as_str().expect("an id").to_owned();
    world.poll("invoices").await;
    let edited = [line("L1", json!("1.50")), json!({"item_id": "L2", "name": "Two"}), json!({"item_id": "L3", "name": "Three"})];
    world.zoho.put_later("billing", "invoices", &id, invoice(&edited)).await;
    world.poll("invoices").await;
    let rows = world.rows("select concat_ws(' ', zoho_line_id, name, price, quantity) as row from lines order by zoho_line_id").await;
    let rows: Vec<&str> = rows.iter().filter_map(|row| row["row"].as_str()).collect();
    assert_eq!(rows, ["L1 Line L1 1.50 1.00", "L2 Two 2.00 1.00", "L3 Three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invoices_lines_are_rows_that_follow_it_and_only_the_lines_that_changed_are_written() {
    let world = World::new(Setup::new(INVOICES, invoices("", "on_delete = \"delete\""))).await;
    let item = world.zoho.put("inventory", "items", None, json!({"name": "Router", "rate": 1})).await["item_id"].clone();
    let mut first = line("L1", json!("10.10"));
    first["product_id"] = item.clone();
    let made = world.zoho.put("billing", "invoices", None, invoice(&[first.clone(), line("L2", json!(2))])).await;
    let id = made["invoice_id"].as_str().expect("an id").to_owned();
    world.poll("invoices").await;
    let got =
        world.rows("select l.zoho_line_id, l.price::text, i.name from lines l left join items i on i.id = l.item_id order by 1").await;
    assert_eq!(
        got,
        [json!({"zoho_line_id": "L1", "price": "10.10", "name": "Router"}), json!({"zoho_line_id": "L2", "price": "2.00", "name": null})],
        "the item that a line refers to was pulled first"
    );
    assert_eq!(written(&world).await, ["insert L1", "insert L2"]);
    world.run("insert into lines (invoice_id, name, price) select id, 'By hand', 5 from invoices").await;
    world.all_arrived().await;
    assert_eq!(written(&world).await, ["insert"]);

    // One changes, one goes, one comes.
    first["price"] = json!(11.25);
    world.zoho.put_later("billing", "invoices", &id, invoice(&[line("L3", json!(3)), first.clone()])).await;
    world.zoho.forget_calls().await;
    world.poll("invoices").await;
    assert_eq!(written(&world).await, ["delete L2", "insert L3", "update L1"]);
    let expected = [("L1", "11.25"), ("L3", "3.00")].map(|(id, price)| json!({"id": id, "price": price, "removed": false}));
    let by_hand = json!({"id": null, "price": "5.00", "removed": false});
    assert_eq!(lines(&world).await, [&expected[..], std::slice::from_ref(&by_hand)].concat());
    // The table is watched: our own writes were captured, found to concern nothing, and cost no call.
    assert_eq!(world.zoho.count_calls().await, 2, "the list, and the invoice: {:#?}", world.zoho.calls().await);

    // The same lines in another order, and another edit of the invoice: nothing to write.
    world.zoho.put_later("billing", "invoices", &id, invoice(&[first.clone(), line("L3", json!("3.00"))])).await;
    world.zoho.put_later("billing", "invoices", &id, json!({"notes": "Thank you"})).await;
    world.poll("invoices").await;
    world.ask_for_all("invoices").await;
    world.all_arrived().await;
    assert_eq!(written(&world).await, Vec::<Value>::new());

    // The record itself says that it has none any more.
    world.zoho.put_later("billing", "invoices", &id, invoice(&[])).await;
    world.poll("invoices").await;
    assert_eq!(lines(&world).await, [by_hand]);
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_is_gone_is_marked_where_the_list_says_so_and_kept_as_it_is_otherwise() {
    for (policy, expected) in [("", false), ("on_delete = \"mark\"\nmark = { removed = true }", true)] {
        let (world, id) = with_invoice("", policy, &[line("L1", json!(1)), line("L2", json!(2))]).await;
        written(&world).await;
        world.zoho.put_later("billing", "invoices", &id, invoice(&[line("L1", json!(1))])).await;
        world.poll("invoices").await;
        let row = |id: &str, price: &str, removed| json!({"id": id, "price": price, "removed": removed});
        assert_eq!(lines(&world).await, [row("L1", "1.00", false), row("L2", "2.00", expected)]);
        assert_eq!(written(&world).await.len(), usize::from(expected));
        world.all_arrived().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_loses_more_lines_than_the_brake_allows_is_held_until_somebody_approves() {
    let all: Vec<Value> = (0..10).map(|n| line(&format!("L{n}"), json!(n))).collect();
    let (world, id) = with_invoice("brake = { max_deletes = 3 }", "on_delete = \"delete\"", &all).await;
    world.zoho.put_later("billing", "invoices", &id, invoice(&all[..8])).await;
    world.poll("invoices").await;
    assert_eq!(world.count("select count(*) from lines").await, 8, "two may go");
    world.run("delete from sluice.brake_record").await;

    world.zoho.put_later("billing", "invoices", &id, invoice(&[])).await;
    world.poll("invoices").await;
    assert_eq!(world.count("select count(*) from lines").await, 8);
    let held = world.rows("select reason from sluice.held_change where resolution is null").await;
    let reason = held[0]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("Zoho would delete 8 rows of 1 records here; within"), "{reason}");
    world.count("select sluice.approve(id) from sluice.held_change where resolution is null").await;
    world.all_arrived().await;
    assert_eq!(world.count("select count(*) from lines").await, 0);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_somebody_holds_delays_its_invoice_as_a_whole_and_nobody_else() {
    let (world, id) = with_invoice("", "on_delete = \"delete\"", &[line("L1", json!(1)), line("L2", json!(2))]).await;
    let mut tx = world.connect().await.begin().await.expect("a transaction");
    let hold = "update lines set name = 'Mine' where zoho_line_id = 'L2'";
    dynamic::script(hold.to_owned()).execute(&mut tx).await.expect("a lock");
    let mut edited = invoice(&[line("L1", json!(5))]);
    edited["invoice_number"] = json!("INV-2");
    world.zoho.put_later("billing", "invoices", &id, edited).await;
    let mut other = invoice(&[line("L9", json!(9))]);
    other["invoice_number"] = json!("INV-3");
    world.zoho.put("billing", "invoices", None, other).await;
    world.ask_for_poll("invoices").await;
    world.until("select exists (select from lines where zoho_line_id = 'L9')").await;
    world.until("select exists (select from sluice.local_write where tries > 0)").await;
    let untouched =
        world.rows("select i.number, l.price::text from invoices i join lines l on l.invoice_id = i.id where l.zoho_line_id = 'L1'").await;
    assert_eq!(untouched, [json!({"number": "INV-1", "price": "1.00"})], "neither half is written before the other can be");
    tx.commit().await.expect("a commit");
    world.all_arrived().await;
    assert_eq!(world.rows("select number from invoices order by id").await, [json!({"number": "INV-2"}), json!({"number": "INV-3"})]);
    assert_eq!(world.rows("select zoho_line_id as l from lines order by 1").await, [json!({"l": "L1"}), json!({"l": "L9"})]);
    world.check_rules().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_the_child_table_refuses_is_a_dead_letter_that_names_the_list_and_nothing_of_it_is_written() {
    let (world, id) = with_invoice("", "on_delete = \"delete\"", &[line("L1", json!(1)), line("L2", json!("many"))]).await;
    let letters = world.letters().await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    assert_eq!((&letters[0]["error_class"], &letters[0]["field"]), (&json!("validation"), &json!("invoice_items")), "{letters:#?}");
    assert_eq!(world.count("select count(*) from lines").await + world.count("select count(*) from invoices").await, 0);
    world.zoho.put_later("billing", "invoices", &id, invoice(&[line("L1", json!(1)), line("L2", json!(2))])).await;
    world.poll("invoices").await;
    assert_eq!(world.count("select count(*) from lines").await, 2);
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_of_a_list_that_only_its_list_shows_follow_it_but_an_empty_one_deletes_nothing() {
    let config = r#"
        [syncs.price_lists]
        connection = "main"
        table = "price_lists"
        key = "id"
        module = "inventory/pricebooks"
        direction = "pull"
        writeback = { id = "zoho_id" }
        [syncs.price_lists.fields]
        name = "name"
        pricebook_items = { rows = "prices", parent = "list_id", match_on = "item_id", on_delete = "delete", item = { item_id = "zoho_item_id", pricebook_rate = "price" } }
    "#;
    let tables = "
        create table price_lists (id bigint generated always as identity primary key, zoho_id text, name text);
        create table prices (list_id bigint references price_lists, zoho_item_id text, price numeric(12, 2), primary key (list_id, zoho_item_id));";
    let world = World::new(Setup::new(tables, config)).await;
    let list = |prices: &[(&str, Value)]| {
        let items: Vec<Value> = prices.iter().map(|(id, rate)| json!({"item_id": id, "pricebook_rate": rate})).collect();
        json!({"name": "Retail", "pricebook_type": "per_item", "sales_or_purchase_type": "sales", "pricebook_items": items})
    };
    let made = world.zoho.put("inventory", "pricebooks", None, list(&[("7", json!(1.5)), ("8", json!(2))])).await;
    let id = made["pricebook_id"].as_str().expect("an id");
    let prices = || world.rows("select zoho_item_id as item, price::text from prices order by 1");
    world.poll("price_lists").await;
    assert_eq!(prices().await, [json!({"item": "7", "price": "1.50"}), json!({"item": "8", "price": "2.00"})]);
    world.zoho.put_later("inventory", "pricebooks", id, list(&[("9", json!(3)), ("7", json!("1.75"))])).await;
    world.poll("price_lists").await;
    let then = [json!({"item": "7", "price": "1.75"}), json!({"item": "9", "price": "3.00"})];
    assert_eq!(prices().await, then);
    let mut emptied = list(&[]);
    emptied["name"] = json!("Retail prices");
    world.zoho.put_later("inventory", "pricebooks", id, emptied).await;
    world.poll("price_lists").await;
    assert_eq!(world.rows("select name from price_lists").await, [json!({"name": "Retail prices"})]);
    assert_eq!(prices().await, then, "nobody read the list itself");
    world.check_rules().await;
    world.all_arrived().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subforms_rows_which_no_list_of_crms_shows_are_read_one_record_at_a_time() {
    let config = r#"
        [syncs.deals]
        connection = "main"
        table = "deals"
        key = "id"
        module = "crm/Deals"
        direction = "pull"
        on_delete = "delete"
        writeback = { id = "zoho_id" }
        [syncs.deals.fields]
        Deal_Name = "name"
        Sites = { rows = "sites", parent = "deal_id", match_on = "id", on_delete = "delete", item = { id = "zoho_id", City = "city" } }
    "#;
    let tables = "
        create table deals (id bigint generated always as identity primary key, zoho_id text, name text);
        create table sites (deal_id bigint references deals, zoho_id text unique, city text);";
    let fields = "[[crm.fields]]\nmodule = \"Deals\"\napi_name = \"Sites\"\ndata_type = \"subform\"";
    let world = World::new(Setup { scenario: fields, ..Setup::new(tables, config) }).await;
    let mut ids = Vec::new();
    for n in 1..=2 {
        let sites = json!([{"City": "Oslo"}, {"City": "Rome"}]);
        let deal =
            world.zoho.put("crm", "Deals", None, json!({"Deal_Name": format!("Deal {n}"), "Stage": "Proposal", "Sites": sites})).await;
        ids.push(deal["id"].as_str().expect("an id").to_owned());
    }
    world.poll("deals").await;
    assert_eq!(world.count("select count(*) from sites").await, 4);
    world.zoho.put_later("crm", "Deals", &ids[0], json!({"Sites": [{"City": "Bergen"}]})).await;
    world.poll("deals").await;
    let cities = || world.rows("select d.name, s.city from sites s join deals d on d.id = s.deal_id order by 1, 2");
    let city = |n: u8, city: &str| json!({"name": format!("Deal {n}"), "city": city});
    assert_eq!(cities().await, [city(1, "Bergen"), city(2, "Oslo"), city(2, "Rome")]);
    // a deal that Zoho deleted takes its rows with it
    world.zoho.delete("crm", "Deals", &ids[1]).await;
    world.poll("deals").await;
    assert_eq!(cities().await, [city(1, "Bergen")]);
    assert_eq!(world.count("select count(*) from deals").await, 1);
    world.check_rules().await;
    world.all_arrived().await;
}
