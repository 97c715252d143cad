//! `channel`: opens or renews the CRM notification channel of a webhook (crm §4.1). A channel lives a week at most; then Zoho forgets it, answers
//! NOT_SUBSCRIBED, and it is opened anew, which also asks for a poll of what nobody was told of.
//!
//! The channel's number is ours and stored before it is first sent, so whatever is sent twice concerns one channel.

use chrono::{DateTime, Utc};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sluice_core::secrets::token_matches;
use sluice_queue::outcome::{Class, Letter};
use sluice_queue::{Claimed, Outcome, Settlement};
use sluice_zoho::cost::Cost;
use sluice_zoho::{Error, Method, Product, call};

use super::{all, ended, snooze};
use crate::engine::Engine;
use crate::session::{Ended, Session};
use crate::work::{Handled, Work};

const PATH: &str = "/actions/watch";
/// An expiry further out than a week is taken for one hour (crm §4.1), so ours stays below it by this.
const BELOW_A_WEEK: chrono::Duration = chrono::Duration::hours(1);

/// What the row says is wanted.
struct Channel {
    source: String,
    channel_id: i64,
    events: Vec<String>,
    notify_url: String,
    token: String,
    expires_at: DateTime<Utc>,
}

pub(super) async fn run(engine: &Engine, work: &Work, session: &Session<'_>) -> Handled {
    // The shape carries one job a batch.
    let [slot] = work.batch.slots.as_slice() else {
        return all(work, |slot| Outcome::Continue { progress: slot.progress.clone() });
    };
    let outcome = match engine.policy.exhausted(slot) {
        Some(letter) => Outcome::Dead(Box::new(letter)),
        None => match load(engine, slot).await {
            Ok(Ok(channel)) => keep_open(engine, work, session, slot, &channel).await,
            Ok(Err(outcome)) => outcome,
            Err(error) => {
                tracing::warn!(%error, "a channel's row could not be read");
                snooze(std::time::Duration::from_secs(1), "the channel's row could not be read")
            }
        },
    };
    let request = slot.args.as_ref().map(|args| json!({ "channel": args["source"] }));
    let settlement = Settlement { request, calls: work.calls.made(), ..Settlement::new(slot.id, outcome) };
    Handled { settlements: vec![settlement], ..Handled::default() }
}

/// The channel as it is wanted, or what becomes of the job if it cannot be said.
async fn load(engine: &Engine, slot: &Claimed) -> Result<Result<Channel, Outcome>, sqlx::Error> {
    let source = slot.args.as_ref().and_then(|args| args["source"].as_str()).unwrap_or_default().to_owned();
    let fresh = i64::from(rand::random::<u32>()) + 1_000_000_000_000;
    let row = sqlx::query!(
        r#"update sluice.channel set channel_id = coalesce(channel_id, $2) where source = $1
           returning channel_id as "channel_id!", events, notify_url, token_hash, clock_timestamp() as "now!""#,
        source,
        fresh
    )
    .fetch_optional(&engine.db)
    .await?;
    let Some(row) = row else { return Ok(Err(Outcome::Done { reason: Some("no webhook wants this channel") })) };
    let secret = engine.config.webhooks.get(&source).map(|webhook| webhook.secret.expose_secret().to_owned());
    // a worker of another file leaves it to one that agrees
    let Some(token) = secret.filter(|secret| token_matches(secret, &row.token_hash)) else {
        return Ok(Err(snooze(std::time::Duration::from_secs(60), "this worker's file has another secret for the webhook")));
    };
    let expires_at = row.now + chrono::Duration::days(7) - BELOW_A_WEEK;
    Ok(Ok(Channel { source, channel_id: row.channel_id, events: row.events, notify_url: row.notify_url, token, expires_at }))
}

/// Renews it; opens it where Zoho does not know it.
async fn keep_open(engine: &Engine, work: &Work, session: &Session<'_>, slot: &Claimed, channel: &Channel) -> Outcome {
    let unknown = slot.progress.as_ref().is_some_and(|progress| progress["unknown"] == true);
    let method = if unknown { Method::Post } else { Method::Put };
    let mut answer = send(session, channel, method).await;
    let mut created = unknown;
    if !unknown && not_subscribed(&answer) {
        created = true;
        answer = send(session, channel, Method::Post).await;
        if let Err(Ended::NoGrant(_)) = &answer {
            return Outcome::Continue { progress: Some(json!({ "unknown": true })) };
        }
    }
    let outcome = match answer {
        Ok(body) => match refusal(&body) {
            None => return opened(engine, channel, &body, created).await,
            Some(said) => Outcome::Dead(Box::new(
                Letter::new(Class::Validation, said)
                    .hint("look at [webhooks] and [http] public_url: Zoho must reach that address over https"),
            )),
        },
        Err(failure) => ended(engine, work, session, slot, &failure, false).0,
    };
    if let Outcome::Dead(letter) = &outcome {
        failed(engine, channel, &letter.message).await;
    }
    outcome
}

async fn send(session: &Session<'_>, channel: &Channel, method: Method) -> Result<Value, Ended> {
    let body = json!({ "watch": [{
        "channel_id": channel.channel_id.to_string(), "events": channel.events, "notify_url": channel.notify_url, "token": channel.token,
        "channel_expiry": channel.expires_at.format("%Y-%m-%dT%H:%M:%S+00:00").to_string(), "notify_on_related_action": false,
    }] });
    let request = call::Request { product: Product::Crm, method, path: PATH.to_owned(), query: Vec::new(), body: Some(body) };
    let cost = Cost::of(request.product, method, PATH, &request.query, request.body.as_ref());
    session.call_costing(cost, async |grant, client, token| call::send(grant, client, token, &request).await).await
}

/// Zoho says it as an error of the whole request, or of the one channel in it.
fn not_subscribed(answer: &Result<Value, Ended>) -> bool {
    match answer {
        Ok(body) => body["watch"][0]["code"] == "NOT_SUBSCRIBED",
        Err(Ended::Zoho(error, _)) => matches!(&**error, Error::Rejected(rejection) if rejection.code == "NOT_SUBSCRIBED"),
        Err(Ended::NoGrant(_)) => false,
    }
}

/// Why an answer of status 2xx opened nothing, if it did not.
fn refusal(body: &Value) -> Option<String> {
    let said = &body["watch"][0];
    (said["code"] != "SUCCESS").then(|| format!("Zoho did not open the channel: {} {}", text(&said["code"]), text(&said["message"])))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("(no code)")
}

/// Until when it is open: what Zoho says, which may be sooner than what was asked for.
fn expiry(body: &Value, asked: DateTime<Utc>) -> DateTime<Utc> {
    let events = body["watch"][0]["details"]["events"].as_array().map(Vec::as_slice).unwrap_or_default();
    let said = events.iter().filter_map(|event| event["channel_expiry"].as_str()?.parse::<DateTime<Utc>>().ok()).min();
    said.map_or(asked, |said| said.min(asked))
}

async fn opened(engine: &Engine, channel: &Channel, body: &Value, created: bool) -> Outcome {
    let expires_at = expiry(body, channel.expires_at);
    let noted =
        sqlx::query_scalar!(r#"select sluice.open_channel($1, $2, $3, $4)"#, channel.source, channel.channel_id, expires_at, created)
            .fetch_one(&engine.db)
            .await;
    match noted {
        Ok(_) => Outcome::Done { reason: None },
        // once more: renewing it again does no harm
        Err(error) => {
            tracing::warn!(%error, "an open channel could not be noted");
            snooze(std::time::Duration::from_secs(1), "the open channel could not be noted")
        }
    }
}

/// A dead letter lies there now: a person mends the cause and requeues it, or it is tried again tomorrow.
async fn failed(engine: &Engine, channel: &Channel, message: &str) {
    let noted = sqlx::query!(
        "update sluice.channel set state = 'failed', error = $2, asked_until = clock_timestamp() + interval '1 day' where source = $1",
        channel.source,
        message
    );
    if let Err(error) = noted.execute(&engine.db).await {
        tracing::warn!(%error, "a failed channel could not be noted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_and_until_when_a_channel_is_open() {
        let asked: DateTime<Utc> = DateTime::UNIX_EPOCH + chrono::Duration::days(7);
        let body = |expiry: &str| {
            json!({ "watch": [{ "code": "SUCCESS", "details": { "events": [
                { "resource_name": "Deals", "channel_expiry": expiry }, { "resource_name": "Contacts", "channel_expiry": "1970-01-08T00:00:00+00:00" }] } }] })
        };
        assert_eq!(refusal(&body("x")), None);
        assert_eq!(expiry(&body("1970-01-01T02:00:00+01:00"), asked), DateTime::UNIX_EPOCH + chrono::Duration::hours(1));
        assert_eq!(expiry(&json!({}), asked), asked);
        let refused = json!({ "watch": [{ "code": "INVALID_DATA", "message": "invalid url" }] });
        assert!(refusal(&refused).is_some_and(|said| said.contains("INVALID_DATA")));
        assert!(not_subscribed(&Ok(json!({ "watch": [{ "code": "NOT_SUBSCRIBED" }] }))));
    }
}
