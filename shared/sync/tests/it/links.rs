//! `sluice.link`: pairs survive exactly, both ways are unique, nobody deadlocks.

use serde_json::Value;
use sluice_core::db::Db;
use sluice_sync::link::store::{self, Agreed, Error};
use sluice_sync::link::{Pair, Pairs};
use sluice_sync::read::Ref;
use sluice_tests::TestDb;

use crate::support::run;

fn agreed(key: &str, zoho_id: &str) -> Agreed {
    let value: Value = serde_json::from_str("{\"a\": 1234567890123456789.10, \"b\": [null, \"x\"]}").unwrap();
    let fields = Pairs::from([("lines".to_owned(), Pair { local: value.clone(), zoho: value, confirmed: true })]);
    Agreed { key: key.to_owned(), zoho_id: zoho_id.to_owned(), fields, zoho_modified_at: None, written: true, look_again: false }
}

async fn save(db: &Db, sync: &str, rows: &[Agreed]) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    store::save(&mut tx, sync, rows).await?;
    Ok(tx.commit().await?)
}

async fn load(test: &TestDb, key: &str) -> Option<sluice_sync::link::Link> {
    let mut tx = test.db().begin().await.unwrap();
    store::load(&mut tx, "customers", &[key.to_owned()]).await.unwrap().remove(key)
}

#[tokio::test]
async fn what_was_agreed_on_comes_back_to_the_last_digit_and_ends_the_intent() {
    let test = TestDb::new().await;
    run(&test, "insert into sluice.link (sync, key, create_sent_at, creates) values ('customers', '1', now(), 1)").await;
    assert!(load(&test, "1").await.unwrap().may_be_lost());
    save(test.db(), "customers", &[agreed("1", "z1"), agreed("2", "z2")]).await.unwrap();
    let link = load(&test, "1").await.unwrap();
    assert_eq!((link.zoho_id.as_deref(), link.creates, link.create_sent_at), (Some("z1"), 0, None));
    assert_eq!(link.fields["lines"].local.to_string(), r#"{"a":1234567890123456789.10,"b":[null,"x"]}"#);
    assert!(link.pushed_at.is_some() && link.synced_at.is_some());
}

#[tokio::test]
async fn an_older_answer_never_sets_the_known_time_back_and_a_read_is_no_push() {
    let test = TestDb::new().await;
    let at = |text: &str| Some(text.parse().unwrap());
    let newer = Agreed { zoho_modified_at: at("2026-01-02T00:00:00Z"), look_again: true, ..agreed("1", "z1") };
    save(test.db(), "customers", &[newer]).await.unwrap();
    let before = load(&test, "1").await.unwrap();
    for older in [at("2026-01-01T00:00:00Z"), None] {
        save(test.db(), "customers", &[Agreed { zoho_modified_at: older, written: false, ..agreed("1", "z1") }]).await.unwrap();
    }
    let after = load(&test, "1").await.unwrap();
    assert_eq!(
        (after.zoho_modified_at, after.pushed_at, after.look_again_at),
        (before.zoho_modified_at, before.pushed_at, before.look_again_at)
    );
    assert!(after.look_again_at.is_some());
    let mut tx = test.db().begin().await.unwrap();
    store::looked_again(&mut tx, "customers", "1").await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(load(&test, "1").await.unwrap().look_again_at, None);
}

#[tokio::test]
async fn a_zoho_record_belongs_to_one_row_of_a_sync() {
    let test = TestDb::new().await;
    save(test.db(), "customers", &[agreed("1", "z1")]).await.unwrap();
    let taken = save(test.db(), "customers", &[agreed("2", "z1")]).await;
    assert!(matches!(&taken, Err(Error::Taken { detail }) if detail.contains("z1")), "{taken:?}");
    save(test.db(), "people", &[agreed("2", "z1")]).await.unwrap();
    let mut tx = test.db().begin().await.unwrap();
    let owners = store::keys_of(&mut tx, "customers", &["z1".to_owned(), "z9".to_owned()]).await.unwrap();
    assert_eq!(owners.into_iter().collect::<Vec<_>>(), [("z1".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn parents_are_resolved_together_and_those_without_zoho_id_are_absent() {
    let test = TestDb::new().await;
    save(test.db(), "customers", &[agreed("1", "z1")]).await.unwrap();
    save(test.db(), "plans", &[agreed("basic", "p1")]).await.unwrap();
    run(&test, "insert into sluice.link (sync, key, create_sent_at) values ('customers', '2', now())").await;
    let refs = [("customers", "1"), ("customers", "1"), ("customers", "2"), ("customers", "3"), ("plans", "basic")];
    let refs = refs.map(|(sync, key)| Ref { field: "f".to_owned(), sync: sync.to_owned(), key: key.to_owned() });
    let mut tx = test.db().begin().await.unwrap();
    let parents = store::parents(&mut tx, &refs).await.unwrap();
    let ids: Vec<&str> = parents.values().map(String::as_str).collect();
    assert_eq!(ids, ["z1", "p1"]);
    assert_eq!(store::zoho_id(&mut tx, "plans", "basic").await.unwrap().as_deref(), Some("p1"));
    assert_eq!(store::zoho_id(&mut tx, "customers", "2").await.unwrap(), None);
}

#[tokio::test]
async fn a_withdrawn_intent_leaves_nothing_unless_an_outcome_is_unknown() {
    let test = TestDb::new().await;
    run(
        &test,
        "insert into sluice.link (sync, key, zoho_id, create_sent_at, creates)
         values ('customers', '1', null, now(), 0), ('customers', '2', null, now(), 1), ('customers', '3', 'z3', null, 0)",
    )
    .await;
    let mut tx = test.db().begin().await.unwrap();
    store::clear_create_intents(&mut tx, "customers", &["1", "2", "3"].map(str::to_owned)).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(load(&test, "1").await, None);
    let unknown = load(&test, "2").await.unwrap();
    assert!(unknown.may_be_lost() && unknown.create_sent_at.is_none());
    assert!(load(&test, "3").await.is_some());
}

#[tokio::test]
async fn a_changed_key_takes_its_link_along_but_never_over_another() {
    let test = TestDb::new().await;
    save(test.db(), "customers", &[agreed("1", "z1"), agreed("2", "z2")]).await.unwrap();
    let mut tx = test.db().begin().await.unwrap();
    assert!(store::move_key(&mut tx, "customers", "1", "10").await.unwrap());
    assert!(!store::move_key(&mut tx, "customers", "10", "2").await.unwrap());
    assert!(!store::move_key(&mut tx, "customers", "1", "11").await.unwrap());
    store::remove(&mut tx, "customers", &["2".to_owned()]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(load(&test, "10").await.unwrap().zoho_id.as_deref(), Some("z1"));
    assert!(load(&test, "1").await.is_none() && load(&test, "2").await.is_none());
}

#[tokio::test]
async fn settles_that_write_the_same_links_in_opposite_orders_do_not_deadlock() {
    let test = TestDb::new().await;
    let forward: Vec<Agreed> = (0..100).map(|key| agreed(&format!("{key:03}"), &format!("z{key}"))).collect();
    let backward: Vec<Agreed> = forward.iter().rev().cloned().collect();
    save(test.db(), "customers", &forward).await.unwrap();
    let rounds = async |rows: &[Agreed]| {
        for _ in 0..20 {
            save(test.db(), "customers", rows).await.unwrap();
        }
    };
    tokio::join!(rounds(&forward), rounds(&backward));
    assert_eq!(load(&test, "099").await.unwrap().zoho_id.as_deref(), Some("z99"));
}

#[tokio::test]
async fn a_reading_shows_what_we_wrote_if_it_began_when_our_last_write_was_answered_and_no_lost_one_could_arrive_any_more() {
    let test = TestDb::new().await;
    save(test.db(), "customers", &[agreed("1", "z1")]).await.unwrap();
    let mut link = load(&test, "1").await.unwrap();
    let at = |seconds| chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::seconds(seconds);
    for (pushed, hold, began, written) in [
        (None, None, 0, false),
        (Some(5), None, 4, true),
        (Some(5), None, 5, false),
        (Some(5), Some(9), 8, true),
        (None, Some(9), 8, true),
        (Some(5), Some(9), 9, false),
    ] {
        (link.pushed_at, link.hold_until) = (pushed.map(at), hold.map(at));
        assert_eq!(link.was_written_after(at(began)), written, "{pushed:?} {hold:?} {began}");
    }
}
