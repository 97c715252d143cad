//! Stock of Inventory's items: Zoho takes no level, only differences (finance sheet §5.8). What a row says is compared with the level that was
//! read moments ago, and the difference posted as an inventory adjustment.
//!
//! A difference must never be posted twice. Each one carries a reference of its own, which is in the link before it is sent; while it stands
//! there, nothing else is posted for the record. It is looked for in Zoho's list, and only when it has not turned up five minutes after the
//! sending is it taken for never made; then the level is read anew, and what is missing by then is posted.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_queue::Outcome;
use sluice_queue::outcome::{Class, Letter};
use sluice_sync::link::adjusting::{self, ADJUSTING, Adjusting};
use sluice_sync::link::store::Agreed;
use sluice_sync::link::{Link, Pair, Pairs};
use sluice_sync::plan::Write;
use sluice_sync::value;
use sluice_zoho::Error;
use sluice_zoho::finance::{self, Module, Page};

use super::{Record, Run, Verdict};
use crate::handlers::snooze;
use crate::session::Ended;

/// The longest that one may take to turn up in Zoho's list.
const TURNS_UP_WITHIN: Duration = Duration::from_secs(300);
/// Pages of the list, newest first, that are looked through.
const PAGES: u32 = 10;
/// Zoho's clock may differ from ours by this much.
const CLOCKS_DIFFER: chrono::Duration = chrono::Duration::minutes(10);
/// Characters of a reference number (finance sheet §5.8).
const REFERENCE_LENGTH: usize = 50;
const REASON: &str = "Level set by Sluice";

/// The part of a write that is an ordinary update, and the level in it.
pub(super) fn parted(level: Option<&str>, write: &Write) -> (Option<Write>, Option<Write>) {
    let Some(level) = level.filter(|level| write.sent.iter().any(|field| field == level)) else { return (Some(write.clone()), None) };
    let (mut rest, mut alone) = (write.clone(), write.clone());
    rest.sent.retain(|field| field != level);
    alone.sent.retain(|field| field == level);
    if let (Value::Object(rest), Value::Object(alone)) = (&mut rest.body, &mut alone.body) {
        rest.remove(level);
        alone.retain(|field, _| field == level);
    }
    ((!rest.sent.is_empty()).then_some(rest), Some(alone))
}

/// A new record is given its level as the opening one (finance sheet §5.3).
pub(super) fn opening(level: Option<&str>, body: &Value) -> Value {
    let mut body = body.clone();
    if let (Some(level), Value::Object(body)) = (level, &mut body)
        && let Some(opening) = body.remove(level)
    {
        body.insert("initial_stock".to_owned(), opening);
    }
    body
}

impl Run<'_> {
    /// Brings Zoho's level to the row's.
    pub(super) async fn adjust(&self, record: &Record<'_>, zoho_id: &str, level: &str, write: &Write) -> Verdict {
        match self.adjusted(record, zoho_id, level, write).await {
            Ok(verdict) => verdict,
            Err(error) => {
                tracing::warn!(%error, sync = self.definition.name(), key = record.slot.key, "an adjustment could not be written down");
                Verdict::of(snooze(Duration::from_secs(1), "the database does not answer"))
            }
        }
    }

    async fn adjusted(&self, record: &Record<'_>, zoho_id: &str, level: &str, write: &Write) -> Result<Verdict, sqlx::Error> {
        let (Some(link), Some(row)) = (&record.link, &record.row) else { return Ok(Verdict::of(Outcome::Continue { progress: None })) };
        if let Some(pending) = adjusting::pending(link) {
            return self.settle_pending(record, link, zoho_id, level, pending).await;
        }
        let theirs = match &record.level {
            Some(theirs) => theirs.clone(),
            None => match self.session.call(async |g, c, t| finance::get(g, c, t, Module::ITEMS, zoho_id).await).await {
                Ok(item) => item.value.get(level).cloned().unwrap_or_default(),
                Err(failure) => return Ok(self.ended(record, &failure)),
            },
        };
        let ours = write.body.get(level).cloned().unwrap_or_default();
        if let Some(letter) = unfit(level, &ours, &theirs) {
            return Ok(Verdict::dead(letter));
        }
        let local = row.fields.get(level).map_or(Value::Null, sluice_sync::read::FieldValue::local);
        let pairs = with_level(link, level, Pair { local, zoho: ours.clone(), confirmed: true });
        if value::alike(&ours, &theirs) {
            let agreed = Agreed { written: false, ..self.agreed_on(record, zoho_id, pairs) };
            return Ok(Verdict { agreed: Some(agreed), ..Verdict::of(Outcome::Done { reason: Some("no_change") }) });
        }
        let reference = reference(self.definition.name(), &record.slot.key);
        let (from, to) = (value::scalar_text(&theirs), value::scalar_text(&ours));
        let mut tx = self.engine.db.begin().await?;
        let name = (self.definition.name(), record.slot.key.as_str());
        let intended = adjusting::intend(&mut tx, self.work.batch.token, name, &reference, &from, &to).await?;
        tx.commit().await?;
        match intended {
            Some(intended) => self.post(record, zoho_id, pairs, &intended).await,
            None => Ok(Verdict::of(Outcome::Continue { progress: None })), // the lease is gone: somebody else has the record
        }
    }

    async fn post(&self, record: &Record<'_>, zoho_id: &str, pairs: Pairs, intended: &Adjusting) -> Result<Verdict, sqlx::Error> {
        let body = json!({
            "date": intended.date, "reason": REASON, "adjustment_type": "quantity", "reference_number": intended.reference,
            "line_items": [{"item_id": zoho_id, "quantity_adjusted": intended.by}],
        });
        let posted = self.session.call(async |g, c, t| finance::create(g, c, t, Module::ADJUSTMENTS, &body, &[]).await).await;
        let verdict = match posted {
            Ok(_) => Verdict::written(self.agreed_on(record, zoho_id, pairs)),
            Err(failure) => {
                let unknown = matches!(&failure, Ended::Zoho(error, _) if matches!(**error, Error::OutcomeUnknown { .. }));
                if !unknown {
                    self.strike_out(&record.slot.key, &intended.reference).await?;
                }
                self.ended(record, &failure)
            }
        };
        Ok(Verdict { request: Some(body), ..verdict })
    }

    /// One that was sent before and whose answer was lost.
    async fn settle_pending(
        &self,
        record: &Record<'_>,
        link: &Link,
        zoho_id: &str,
        level: &str,
        pending: Adjusting,
    ) -> Result<Verdict, sqlx::Error> {
        let found = match self.is_listed(&pending).await {
            Ok(found) => found,
            Err(failure) => return Ok(self.ended(record, &failure)),
        };
        let mut tx = self.engine.db.begin().await?;
        let age = Duration::try_from_secs_f64(adjusting::age_seconds(&mut tx, &pending).await?).unwrap_or_default();
        tx.commit().await?;
        if !found && age < TURNS_UP_WITHIN {
            let reason = format!("the adjustment {} was sent and not answered, and Zoho does not list it yet", pending.reference);
            return Ok(Verdict::of(snooze(TURNS_UP_WITHIN.saturating_sub(age), &reason)));
        }
        let pairs = if found {
            with_level(link, level, Pair { local: pending.to.clone(), zoho: pending.to, confirmed: true })
        } else {
            link.fields.iter().filter(|(name, _)| *name != ADJUSTING).map(|(name, pair)| (name.clone(), pair.clone())).collect()
        };
        let agreed = Agreed { written: found, ..self.agreed_on(record, zoho_id, pairs) };
        // and once more, with the level as it is now
        Ok(Verdict { agreed: Some(agreed), ..Verdict::of(Outcome::Continue { progress: None }) })
    }

    /// Whether Zoho has it. Its list takes no filter and shows the newest first (finance sheet §5.8).
    async fn is_listed(&self, pending: &Adjusting) -> Result<bool, Ended> {
        let mut page = Page::FIRST;
        loop {
            let listing = self.session.call(async |g, c, t| finance::list(g, c, t, Module::ADJUSTMENTS, page, &[]).await).await?;
            if listing.rows.iter().any(|row| row.get("reference_number").and_then(Value::as_str) == Some(&*pending.reference)) {
                return Ok(true);
            }
            let made = |row: &Value| row.get("created_time").and_then(Value::as_str).and_then(sluice_sync::module::parse_time);
            let older = listing.rows.iter().filter_map(made).any(|made| made < pending.at - CLOCKS_DIFFER);
            if !listing.more || older || page.page >= PAGES {
                return Ok(false);
            }
            page = page.next();
        }
    }

    fn agreed_on(&self, record: &Record<'_>, zoho_id: &str, fields: Pairs) -> Agreed {
        Agreed {
            key: record.slot.key.clone(),
            zoho_id: zoho_id.to_owned(),
            fields,
            zoho_modified_at: None,
            written: true,
            look_again: false,
        }
    }

    async fn strike_out(&self, key: &str, reference: &str) -> Result<(), sqlx::Error> {
        let mut tx = self.engine.db.begin().await?;
        adjusting::forget(&mut tx, self.definition.name(), key, reference).await?;
        tx.commit().await
    }
}

fn with_level(link: &Link, level: &str, pair: Pair) -> Pairs {
    let mut pairs = link.fields.clone();
    pairs.remove(ADJUSTING);
    pairs.insert(level.to_owned(), pair);
    pairs
}

/// Why there is no difference between these two.
fn unfit(level: &str, ours: &Value, theirs: &Value) -> Option<Letter> {
    if !value::is_decimal(ours) {
        let letter = Letter::new(Class::Validation, format!("{level}: a level that is sent must be a number, and cannot be cleared"));
        return Some(letter.field(level).hint("give the row a number; it is pushed again by itself"));
    }
    (!value::is_decimal(theirs)).then(|| {
        Letter::new(Class::Conflict, format!("{level}: Zoho keeps no stock of this item"))
            .field(level)
            .hint("track the item's stock in Zoho, then requeue; or leave the column null for it")
    })
}

/// `<sync>:<key>:<chance>`: readable in Zoho, and different each time.
fn reference(sync: &str, key: &str) -> String {
    let chance = format!(":{:012x}", rand::random::<u64>() >> 16);
    let name: String = format!("{sync}:{key}").chars().take(REFERENCE_LENGTH - chance.len()).collect();
    name + &chance
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_goes_its_own_way_and_everything_else_in_one_update() {
        let write = |body: Value, sent: &[&str]| Write { body, sent: sent.iter().map(|field| (*field).to_owned()).collect() };
        let both = write(json!({"rate": 2, "stock_on_hand": 5}), &["rate", "stock_on_hand"]);
        let (rest, level) = (write(json!({"rate": 2}), &["rate"]), write(json!({"stock_on_hand": 5}), &["stock_on_hand"]));
        assert_eq!(parted(Some("stock_on_hand"), &both), (Some(rest.clone()), Some(level.clone())));
        assert_eq!(parted(Some("stock_on_hand"), &rest), (Some(rest), None));
        assert_eq!(parted(Some("stock_on_hand"), &level), (None, Some(level)));
        assert_eq!(parted(None, &both), (Some(both), None));
        assert_eq!(opening(Some("stock_on_hand"), &json!({"name": "a", "stock_on_hand": 5})), json!({"name": "a", "initial_stock": 5}));
    }

    #[test]
    fn a_reference_is_short_enough_for_zoho_and_no_two_are_alike() {
        let of = |key: &str| reference("items", key);
        assert!(of("42").starts_with("items:42:") && of("42") != of("42"));
        assert_eq!(of(&"é".repeat(80)).chars().count(), REFERENCE_LENGTH);
    }

    #[test]
    fn only_numbers_have_a_difference() {
        let letter = |ours: Value, theirs: Value| unfit("stock_on_hand", &ours, &theirs).map(|letter| letter.class);
        assert_eq!(letter(json!(5), json!("7.5")), None);
        assert_eq!(letter(json!(""), json!(1)), Some(Class::Validation));
        assert_eq!(letter(json!(1), json!("")), Some(Class::Conflict));
    }
}
