//! Syncs and their mappings.

use super::super::Config;
use super::super::field::{Field, Fields, FileField, RowsField, segments};
use super::super::sync::{BulkRead, Module, OnDelete, Product, Sync, WhenFalse};
use super::Check;

/// The field by which CRM's upsert finds an existing record without being told that it is unique; Zoho CRM API v8, "Upsert Records",
/// duplicate check fields. Modules not named here are custom ones, whose field is Name.
fn system_field(module: &Module) -> &'static str {
    match module.name.as_str() {
        "Leads" | "Contacts" => "Email",
        "Accounts" => "Account_Name",
        "Deals" => "Deal_Name",
        "Products" => "Product_Name",
        "Campaigns" => "Campaign_Name",
        "Vendors" => "Vendor_Name",
        "Price_Books" => "Price_Book_Name",
        "Quotes" | "Cases" | "Sales_Orders" | "Purchase_Orders" | "Invoices" => "Subject",
        _ => "Name",
    }
}

/// The fields of a finance module that keep a text of ours and by which its records are found again: Zoho's OpenAPI files of Books, Inventory and
/// Billing. A field that is not there is taken without a word and lost, so a reference in it finds nothing. Every module keeps its custom fields. None:
/// we know of no such field of the module's own.
fn reference_fields(module: &Module) -> &'static [&'static str] {
    match (module.product, module.name.as_str()) {
        (Product::Billing, "subscriptions") => &["reference_id"],
        (Product::Billing, "invoices") => &["reference_number", "invoice_number"],
        (Product::Billing, "payments") => &["reference_number"],
        (Product::Billing, "plans") => &["plan_code"],
        (Product::Billing, "addons") => &["addon_code"],
        (Product::Billing, "coupons") => &["coupon_code"],
        (
            Product::Books | Product::Inventory,
            "invoices"
            | "estimates"
            | "salesorders"
            | "purchaseorders"
            | "bills"
            | "customerpayments"
            | "vendorpayments"
            | "creditnotes"
            | "expenses"
            | "inventoryadjustments",
        ) => &["reference_number"],
        _ => &[],
    }
}

impl Check<'_> {
    pub(super) fn sync(&mut self, config: &Config, sync: &Sync) {
        let name = sync.name.as_str();
        let at = |key| ["syncs", name, key];
        let known = config.connections.keys().map(String::as_str).collect();
        self.reference(&at("connection"), "connections", &sync.connection, known);
        self.filled(&at("table"), &sync.table);
        let columns = sync.key.columns();
        self.wrong_if(columns.is_empty(), &at("key"), "name at least one column");
        self.wrong_if(columns.iter().any(|column| column.trim().is_empty()), &at("key"), "must not be empty");
        let twice = columns.iter().enumerate().any(|(index, column)| columns[..index].contains(column));
        self.wrong_if(twice, &at("key"), "names a column twice");
        if let Some(when) = &sync.when {
            self.filled(&at("when"), when);
        }
        self.wrong_if(sync.brake.is_some_and(|brake| brake.per.is_zero()), &at("brake"), "`per` must be longer than 0s");
        if let Some(reconcile) = sync.reconcile {
            self.wrong_if(reconcile.within.is_zero(), &at("reconcile"), "`within` must be longer than 0s");
            self.wrong_if(
                reconcile.max_calls_per_day == 0,
                &at("reconcile"),
                "`max_calls_per_day` must be at least 1; remove the section to compare nothing",
            );
        }
        for watch in &sync.watch {
            self.wrong_if(
                watch.table.trim().is_empty() || watch.key.trim().is_empty(),
                &at("watch"),
                "`table` and `key` must not be empty",
            );
        }
        let crm = sync.module.product == Product::Crm;
        self.wrong_if(sync.skip_workflows && !crm, &at("skip_workflows"), "only CRM writes can skip workflows; remove it");
        self.wrong_if(sync.bulk_read != BulkRead::Auto && !crm, &at("bulk_read"), "only CRM has bulk reads; remove it");
        self.deletes(sync);
        self.creates(sync);
        self.similar(sync);
        self.directions(sync);
        self.mapping(config, sync);
    }

    fn deletes(&mut self, sync: &Sync) {
        let at = |key| ["syncs", sync.name.as_str(), key];
        let marks = sync.on_delete == OnDelete::Mark;
        self.wrong_if(
            marks && sync.mark.is_empty(),
            &at("mark"),
            "on_delete = \"mark\" needs it: the Zoho fields to set, such as { status = \"inactive\" }",
        );
        if !marks && !sync.mark.is_empty() {
            self.note(&at("mark"), "has no effect without on_delete = \"mark\"");
        }
        let nothing_to_do = sync.when_false == WhenFalse::Delete && sync.on_delete == OnDelete::Ignore;
        self.wrong_if(
            nothing_to_do,
            &at("when_false"),
            "\"delete\" does what `on_delete` says, which is \"ignore\"; choose mark, void or delete there",
        );
    }

    /// Similar names are looked for in CRM, and a person's answer stands in the column of the Zoho id.
    fn similar(&mut self, sync: &Sync) {
        let Some(field) = &sync.match_similar else { return };
        let at = ["syncs", sync.name.as_str(), "match_similar"];
        let created_here = sync.module.product == Product::Crm && sync.direction.pushes();
        self.wrong_if(!created_here, &at, "is for CRM syncs that push; remove it");
        let mapped = matches!(sync.fields.get(field), Some(Field::Column(_) | Field::Sql(_)));
        if !mapped {
            self.wrong(&at, format!("names `{field}`, which is not among the sync's fields, or is no column or sql; map it"));
        }
        self.wrong_if(
            sync.writeback.id.is_none(),
            &at,
            "needs `writeback.id`: the column into which a person writes the Zoho id that is meant, or the word new",
        );
    }

    /// A create must be one that cannot happen twice.
    fn creates(&mut self, sync: &Sync) {
        let at = |key| ["syncs", sync.name.as_str(), key];
        for field in &sync.match_on {
            let mapped = sync.fields.contains_key(field) || self.in_file(&["syncs", &sync.name, "fields", field]);
            if !mapped {
                self.wrong(&at("match_on"), format!("names `{field}`, which is not among the sync's fields; map it"));
            }
        }
        for field in sync.match_on.iter().filter(|_| sync.direction.pulls() && sync.inserts) {
            let plain = match sync.fields.get(field) {
                Some(Field::Column(column)) => column.values.is_empty(),
                Some(_) => false,
                None => true,
            };
            let advice = "is no plain column, so no row would be found by it and each record of Zoho's would get a second one: match by a plain column, or set inserts = false";
            self.wrong_if(!plain, &at("match_on"), &format!("`{field}` {advice}"));
        }
        if let Some(reference) = &sync.reference {
            self.filled(&at("reference"), reference);
            self.wrong_if(
                sync.fields.contains_key(reference),
                &at("reference"),
                "names a field that is mapped; it must be one that nothing else writes",
            );
            self.keeps(sync, reference);
        }
        self.wrong_if(
            !sync.creates && !sync.direction.pushes(),
            &at("creates"),
            "is for syncs that push; this one makes nothing in Zoho anyway",
        );
        self.wrong_if(!sync.inserts && !sync.direction.pulls(), &at("inserts"), "is for syncs that pull; remove it");
        if sync.module.product != Product::Crm || !sync.direction.pushes() || !sync.creates || sync.reference.is_some() {
            return;
        }
        let system = system_field(&sync.module);
        if sync.match_on.is_empty() {
            let advice = format!(
                "a CRM sync needs `reference` (a field that carries our key) or `match_on` with a field that CRM keeps unique, such as [\"{system}\"]; else a create could happen twice"
            );
            self.wrong(&at("reference"), advice);
        }
    }

    /// The reference must come back from Zoho, else a create whose answer was lost is not found and made again.
    fn keeps(&mut self, sync: &Sync, reference: &str) {
        let module = &sync.module;
        let finance = matches!(module.product, Product::Books | Product::Inventory | Product::Billing);
        let usual = reference_fields(module);
        if !finance || !sync.direction.pushes() || reference.starts_with("cf_") || usual.contains(&reference) {
            return;
        }
        let path = ["syncs", &sync.name, "reference"];
        let lost = format!(
            "{module} is not known to keep `{reference}`, and then a create whose answer was lost is not found again and made twice"
        );
        if usual.is_empty() {
            self.note(&path, format!("{lost}: a custom field of yours (`cf_…`) is kept"));
        } else {
            let choice: String = usual.iter().map(|field| format!("`{field}`, or ")).collect();
            self.wrong(&path, format!("{lost}: name {choice}a custom field of yours (`cf_…`)"));
        }
    }

    fn directions(&mut self, sync: &Sync) {
        let at = |key| ["syncs", sync.name.as_str(), key];
        let written = |key| self.in_file(&at(key));
        let (fields, columns) = (written("fields") && !sync.fields.is_empty(), written("columns") && !sync.columns.is_empty());
        let (pushes, pulls) = (sync.direction.pushes(), sync.direction.pulls());
        self.wrong_if(pushes && !fields, &at("fields"), "a sync that pushes needs at least one field");
        self.wrong_if(!pushes && !fields && !columns, &at("fields"), "a sync that pulls needs `fields` or `columns`");
        self.wrong_if(!pulls && columns, &at("columns"), "is for pulling; set direction to \"pull\" or \"both\", or remove it");
        for (name, field) in &sync.fields {
            let at = ["syncs", sync.name.as_str(), "fields", name.as_str()];
            self.wrong_if(
                !pulls && matches!(field, Field::File(_)),
                &at,
                "a file comes from Zoho and is never sent: set direction to \"pull\" or \"both\", or remove it",
            );
            if let (Field::File(field), true) = (field, pulls) {
                self.file(sync, name, field);
            }
            self.wrong_if(!pushes && !field.is_pulled(), &at, "sql, value and lists are for pushing; use [columns] to pull with SQL");
            if let Field::Column(field) = field {
                let ours = sync.writeback.columns().any(|column| column == field.column);
                self.wrong_if(pushes && ours, &at, "maps a column that `writeback` writes; each push would cause the next");
                let twice = sync.columns.contains_key(&field.column);
                self.wrong_if(pulls && twice, &at, "its column is also written by [columns]; keep one");
            }
        }
        for (column, sql) in &sync.columns {
            self.filled(&["syncs", &sync.name, "columns", column], sql);
        }
    }

    /// A file of the record's: one that we know the address of, in a column that nothing else writes.
    fn file(&mut self, sync: &Sync, name: &str, field: &FileField) {
        let at = ["syncs", sync.name.as_str(), "fields", name];
        let items = sync.module.product == Product::Inventory && sync.module.name == "items";
        self.wrong_if(
            !items || field.file != "image",
            &at,
            "the files that this version fetches are images of Inventory's items: image_document_id = { file = \"image\", column = … }",
        );
        let others = sync.fields.iter().filter(|(other, _)| *other != name).filter_map(|(_, field)| field.own_column());
        let written = others.chain(sync.columns.keys().map(String::as_str)).chain(sync.writeback.columns());
        let twice = written.into_iter().any(|column| column == field.column);
        self.wrong_if(twice, &at, "its column is also written by something else; keep one");
    }

    fn mapping(&mut self, config: &Config, sync: &Sync) {
        self.fields(config, sync, &["syncs", &sync.name, "fields"], &sync.fields);
        for (name, field) in &sync.fields {
            if let Field::Rows(rows) = field {
                self.rows(config, sync, name, rows);
            }
            if let Field::List(list) = field {
                self.fields(config, sync, &["syncs", &sync.name, "fields", name, "item"], &list.item);
                self.fields(config, sync, &["syncs", &sync.name, "fields", name, "or_else"], &list.or_else);
                self.items(&["syncs", &sync.name, "fields", name, "item"], &list.item, true);
                self.items(&["syncs", &sync.name, "fields", name, "or_else"], &list.or_else, false);
            }
        }
    }

    fn fields(&mut self, config: &Config, sync: &Sync, at: &[&str], fields: &Fields) {
        for (name, field) in fields {
            let path = [at, &[name.as_str()]].concat();
            let part_missing = segments(name).any(|segment| segment.trim().is_empty());
            self.wrong_if(part_missing, &path, "a Zoho field's name has no empty part");
            let parents = name.match_indices('.').map(|(position, _)| &name[..position]);
            if let Some(parent) = parents.into_iter().find(|parent| fields.contains_key(*parent)) {
                self.wrong(&path, format!("`{parent}` is mapped as a whole too; keep one"));
            }
            match field {
                Field::Column(field) => self.filled(&path, &field.column),
                Field::Sql(field) => self.filled(&path, &field.sql),
                Field::List(list) => self.filled(&path, &list.each),
                Field::Rows(rows) => self.filled(&path, &rows.table),
                Field::Value(_) => {}
                Field::File(field) => self.filled(&path, &field.column),
                Field::Ref(field) => {
                    self.filled(&path, &field.column);
                    self.reference(&path, "syncs", &field.sync, config.syncs.keys().map(String::as_str).collect());
                    let other = config.syncs.get(&field.sync);
                    let elsewhere = other.is_some_and(|other| other.connection != sync.connection);
                    self.wrong_if(elsewhere, &path, "refers to a sync of another connection, whose Zoho ids mean nothing here");
                }
            }
        }
    }

    /// What stands inside a list is pushed only, and its SQL is `each`.
    fn items(&mut self, at: &[&str], fields: &Fields, of_each: bool) {
        for (name, field) in fields {
            let path = [at, &[name.as_str()]].concat();
            let owned = match field {
                Field::Column(field) => field.owner.is_some() || field.conflict.is_some(),
                Field::Ref(field) => field.owner.is_some() || field.conflict.is_some(),
                Field::Sql(_) => {
                    self.wrong_if(of_each, &path, "write the expression as a column of `each`, and name that column here");
                    false
                }
                Field::File(_) => {
                    self.wrong(&path, "a file is the record's own; it does not stand inside a list");
                    false
                }
                Field::List(_) | Field::Rows(_) => {
                    self.wrong(&path, "a list does not stand inside a list; build the inner one as json in SQL");
                    false
                }
                Field::Value(_) => false,
            };
            self.wrong_if(owned, &path, "`owner` and `conflict` belong to fields of the record; a list is pushed only, as a whole");
        }
    }

    /// A list that becomes rows of a child table.
    fn rows(&mut self, config: &Config, sync: &Sync, name: &str, rows: &RowsField) {
        let at = ["syncs", &sync.name, "fields", name];
        let item = ["syncs", &sync.name, "fields", name, "item"];
        self.wrong_if(
            !sync.direction.pulls(),
            &at,
            "`rows` is for pulling: set direction to \"pull\" or \"both\", or push the list with `each`",
        );
        self.fields(config, sync, &item, &rows.item);
        for (name, field) in &rows.item {
            let path = [&item[..], &[name.as_str()]].concat();
            let owned = match field {
                Field::Column(field) => field.owner.is_some() || field.conflict.is_some(),
                Field::Ref(field) => field.owner.is_some() || field.conflict.is_some(),
                Field::Sql(_) | Field::Value(_) | Field::List(_) | Field::Rows(_) | Field::File(_) => {
                    self.wrong(&path, "what Zoho says goes into a column, or a ref; let a trigger or a generated column make more of it");
                    false
                }
            };
            self.wrong_if(owned, &path, "`owner` and `conflict` belong to fields of the record; the rows of a list are Zoho's");
        }
        self.wrong_if(
            rows.matched().is_none(),
            &at,
            "`match_on` names a field of `item` that goes into a column as it is, such as { line_item_id = \"zoho_line_id\" }",
        );
        let expected = sync.key.columns().len();
        if rows.parent.columns().len() != expected {
            self.wrong(&at, format!("`parent` names as many columns as the sync's `key` has, in its order: {expected}"));
        }
        self.wrong_if(rows.on_delete == OnDelete::Void, &at, "rows are deleted, marked or ignored; \"void\" is for records of Zoho's");
        let marks = rows.on_delete == OnDelete::Mark;
        self.wrong_if(
            marks && rows.mark.is_empty(),
            &at,
            "on_delete = \"mark\" needs `mark`: the columns to set, such as { removed = true }",
        );
        self.wrong_if(!marks && !rows.mark.is_empty(), &at, "`mark` has no effect without on_delete = \"mark\"");
    }
}
