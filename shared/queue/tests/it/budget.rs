//! The ledger: never more calls than the cap in any window, never more in flight than allowed, whoever dies.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::{RngExt as _, SeedableRng as _};
use sluice_queue::calls::{Calls, NoGrant};
use sluice_queue::settle::{Health, Limit, Seen, Throttled};
use sluice_queue::{Claim, Cost, Report, Settlement, store};

use crate::world::{LEASE, TIMEOUT, WORKER, World, answered, done, unanswered};

/// The most of these moments that lie in one stretch of `window`.
fn most_in_any(mut moments: Vec<Instant>, window: Duration) -> usize {
    moments.sort();
    (0..moments.len()).map(|i| moments[i..].iter().take_while(|m| **m < moments[i] + window).count()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn eight_claimers_never_make_more_calls_than_the_cap_in_any_window_nor_more_at_once_than_allowed() {
    const CAP: u32 = 20;
    const IN_FLIGHT: u32 = 5;
    let window = Duration::from_secs(1);
    let world = World::new().await;
    world.limit(CAP, IN_FLIGHT, "1 s").await;
    world
        .run("insert into sluice.job (kind, args, lane) select 'push', jsonb_build_object('sync', 'shop', 'key', k), 'realtime' from generate_series(1, 400) k")
        .await;
    while world.fold().await > 0 {}
    // So many calls are five windows' worth. When a request may arrive at Zoho: any moment between grant and answer. Both ends are noted by this process's clock.
    let calls: Arc<Mutex<Vec<(Instant, Instant)>>> = Arc::default();
    let claimer = |n: u64| {
        let (db, shapes, calls) = (world.db.clone(), world.shapes.clone(), calls.clone());
        async move {
            let mut rng = rand::rngs::StdRng::seed_from_u64(n);
            let worker: Arc<str> = format!("w{n}:a").into();
            while calls.lock().unwrap().len() < 5 * usize::try_from(CAP).unwrap() {
                let claim = store::claim(&db, &worker, &shapes, LEASE, TIMEOUT).await.unwrap();
                let (mut batch, grant) = match claim {
                    Claim::Batch(batch, grant) => (batch, grant),
                    Claim::Wait(wait) => {
                        tokio::time::sleep(wait.unwrap_or(Duration::from_millis(20)).min(Duration::from_millis(50))).await;
                        continue;
                    }
                };
                let ledger = Calls::new(batch.token, worker.clone(), grant, Cost::ONE);
                let second = rng.random_bool(0.3);
                for _ in 0..1 + i32::from(second) {
                    match ledger.grant(&db, Cost::ONE).await {
                        Ok(_grant) => {}
                        Err(NoGrant::Later) => break,
                        Err(error) => panic!("{error}"),
                    }
                    if rng.random_bool(0.1) {
                        break; // never sent
                    }
                    ledger.sending();
                    let sent = Instant::now();
                    tokio::time::sleep(Duration::from_millis(rng.random_range(1..150))).await;
                    calls.lock().unwrap().push((sent, Instant::now()));
                    ledger.answered(sent.elapsed(), true, Cost::ONE, None, Seen::default());
                }
                let settlements: Vec<_> = batch.slots.drain(..).map(|s| Settlement::new(s.id, done())).collect();
                assert!(store::settle(&db, batch.token, &worker, &ledger.report(), &settlements).await.unwrap());
            }
        }
    };
    futures::future::join_all((0..8).map(claimer)).await;
    let calls = calls.lock().unwrap().clone();
    let cap = usize::try_from(CAP).unwrap();
    assert!(most_in_any(calls.iter().map(|c| c.0).collect(), window) <= cap, "all arrive at once");
    assert!(most_in_any(calls.iter().map(|c| c.1).collect(), window) <= cap, "all arrive as late as they can");
    let mut rng = rand::rngs::StdRng::seed_from_u64(9);
    for _ in 0..20 {
        let arrivals = calls.iter().map(|(sent, end)| *sent + (*end - *sent).mul_f64(rng.random())).collect();
        assert!(most_in_any(arrivals, window) <= cap);
    }
    let at_once = calls.iter().map(|(sent, _)| calls.iter().filter(|(s, e)| s <= sent && sent < e).count()).max();
    assert!(at_once <= Some(usize::try_from(IN_FLIGHT).unwrap()), "{at_once:?} in flight");
}

fn limited_for(seconds: u64) -> Option<Throttled> {
    Some(Throttled { limit: Limit::Minute, retry_after: Some(Duration::from_secs(seconds)) })
}

/// Seconds until the place of a call comes free, and of its place in flight.
async fn free_in(world: &World) -> (Option<f64>, Option<f64>) {
    let of = async |kind: &str| {
        world
            .get::<Option<f64>>(format!("select extract(epoch from max(free_at) - clock_timestamp())::float8 from sluice.place where kind = '{kind}' and free_at > clock_timestamp()"))
            .await
    };
    (of("window").await, of("in_flight").await)
}

#[tokio::test]
async fn a_place_comes_free_a_window_after_the_answer_and_without_one_a_window_after_it_can_no_longer_arrive() {
    let world = World::new().await;
    for key in [1, 2] {
        world.push("shop", key).await;
    }
    let batch = world.batch().await;
    let (window, flight) = free_in(&world).await;
    assert!((91.0..=92.0).contains(&window.unwrap()), "send_by (2 s) + time-out (30 s) + window (60 s), not {window:?}");
    assert!((31.0..=32.0).contains(&flight.unwrap()), "{flight:?}");
    world.settle(&batch, done()).await;
    let (window, flight) = free_in(&world).await;
    assert!((59.0..=60.0).contains(&window.unwrap()), "{window:?}");
    assert_eq!(flight, None);
    world.run("update sluice.place set free_at = '-infinity'").await;
    let batch = world.claim().await.unwrap();
    world.settle_with(&batch, &unanswered(), |s| Settlement::new(s, done())).await;
    let (window, flight) = free_in(&world).await;
    assert!(window.unwrap() > 90.0 && flight.unwrap() > 30.0, "{window:?} {flight:?}");
}

#[tokio::test]
async fn a_dead_workers_grant_frees_itself_and_not_before_its_time() {
    let world = World::new().await;
    world.push("shop", 1).await;
    world.batch().await;
    world.leases_end().await;
    store::rescue(&world.db).await.unwrap();
    let (window, flight) = free_in(&world).await;
    assert!(window.unwrap() > 90.0 && flight.unwrap() > 30.0, "{window:?} {flight:?}");
}

#[tokio::test]
async fn a_grant_that_was_not_spent_comes_back_at_once() {
    let world = World::new().await;
    world.push("shop", 1).await;
    let batch = world.batch().await;
    world.settle_with(&batch, &Report::default(), |s| Settlement::new(s, done())).await;
    assert_eq!(free_in(&world).await, (None, None));
}

#[tokio::test]
async fn two_connections_to_one_organisation_share_a_budget_and_others_do_not() {
    let world = World::new().await;
    world.limit(1, 10, "60 s").await;
    for (sync, key) in [("orders", "1"), ("shop", "1"), ("alone", "1")] {
        world.push(sync, key).await;
    }
    let mut syncs = vec![world.batch().await.sync, world.claim().await.expect("another organisation's").sync];
    assert!(world.claim().await.is_none(), "the shared minute is spent");
    syncs.sort();
    assert!(syncs.contains(&"alone".to_owned()), "{syncs:?}");
}

#[tokio::test]
async fn a_second_call_takes_a_place_of_its_own_and_keeps_the_one_in_flight() {
    let world = World::new().await;
    world.limit(2, 1, "60 s").await;
    world.run("update sluice.sync set lane = 'realtime' where name = 'shop'").await; // no grid
    world.push("shop", 1).await;
    let batch = world.batch().await;
    let again = async || store::grant_again(&world.db, batch.token, WORKER, &answered(), Cost::ONE).await;
    assert!(matches!(again().await.unwrap(), store::Again::Granted { .. }));
    assert!(matches!(again().await.unwrap(), store::Again::Later), "both calls of the minute are made");
    assert!(world.settle_with(&batch, &Report::default(), |s| Settlement::new(s, done())).await);
    let used: i64 = world
        .get("select count(*) from sluice.place where budget_id = 1 and kind = 'window' and free_at > clock_timestamp() + interval '55 s'")
        .await;
    assert_eq!((used, free_in(&world).await.1), (2, None));
}

#[tokio::test]
async fn a_call_that_was_not_answered_keeps_its_place_in_flight_when_another_is_asked_for() {
    let world = World::new().await;
    world.limit(10, 2, "60 s").await;
    world.run("update sluice.sync set lane = 'realtime' where name = 'shop'").await; // no grid
    world.push("shop", 1).await;
    let batch = world.batch().await;
    let again = async || store::grant_again(&world.db, batch.token, WORKER, &unanswered(), Cost::ONE).await;
    assert!(matches!(again().await.unwrap(), store::Again::Granted { .. }));
    assert!(matches!(again().await.unwrap(), store::Again::Later), "two may be under way");
}

#[tokio::test]
async fn a_refusal_by_zoho_stops_every_claim_and_every_second_call_until_it_ends() {
    let world = World::new().await;
    for key in [1, 2] {
        world.push("shop", key).await;
    }
    let (one, two) = (world.batch().await, world.claim().await.unwrap());
    let limited = Report { throttled: limited_for(1800), ..answered() };
    assert!(
        matches!(store::grant_again(&world.db, one.token, WORKER, &limited, Cost::ONE).await.unwrap(), store::Again::Later),
        "also its own"
    );
    assert!(matches!(store::grant_again(&world.db, two.token, WORKER, &answered(), Cost::ONE).await.unwrap(), store::Again::Later));
    world.push("orders", 1).await;
    world.fold().await;
    let Claim::Wait(Some(wait)) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
        panic!("claimed while blocked")
    };
    assert!((1790..=1800).contains(&wait.as_secs()), "{wait:?}");
    // A shorter refusal that was on its way does not shorten it.
    let shorter = Report { throttled: limited_for(1), health: Health::Unsaid, ..answered() };
    world.settle_with(&one, &shorter, |s| Settlement::new(s, done())).await;
    assert!(world.get::<bool>("select blocked_until > clock_timestamp() + interval '20 min' from sluice.budget where id = 1").await);
}

#[tokio::test]
async fn what_is_paused_claims_nothing_and_makes_no_second_call() {
    let world = World::new().await;
    world.run("update sluice.sync set lane = 'realtime'").await; // no grid
    for sync in ["orders", "customers", "shop"] {
        world.push(sync, 1).await;
    }
    world.fold().await;
    let running = world.claim().await.unwrap();
    for (pause, resume) in
        [(format!("sync => '{}'", running.sync), format!("sync => '{}'", running.sync)), (format!("'{}'", running.connection), "".into())]
    {
        world.run(format!("select sluice.pause({pause})")).await;
        assert!(
            matches!(store::grant_again(&world.db, running.token, WORKER, &answered(), Cost::ONE).await.unwrap(), store::Again::Later),
            "{pause}"
        );
        world.run(format!("select sluice.resume({resume})")).await;
    }
    world.settle(&running, done()).await;
    world.run("select sluice.pause('twin'); select sluice.pause(sync => 'customers')").await;
    world.push("orders", 1).await;
    world.fold().await;
    world.time_passes().await;
    let batch = world.claim().await.expect("what is not paused");
    assert_eq!(batch.sync, "orders");
    world.settle(&batch, done()).await;
    assert!(world.claim().await.is_none());
    world.run("select sluice.resume(); select sluice.resume(sync => 'customers')").await;
    assert!(world.claim().await.is_some());
}

#[tokio::test]
async fn a_refusal_concerns_everybody_at_once_and_the_settle_that_follows_does_not_count_it_again() {
    let world = World::new().await;
    let state = async || {
        world
            .get::<String>(
                "select concat_ws(' ', b.throttled, coalesce(b.shrunk_to, 0), round(extract(epoch from b.blocked_until - clock_timestamp()) / 60), m.refused_at is not null)
                 from sluice.budget b join sluice.meter m on m.budget_id = b.id where b.id = 1",
            )
            .await
    };
    for (limit, retry_after, expected) in
        [(Limit::Minute, None, "0 0 30 f"), (Limit::InFlight, Some(60), "1 1 1 f"), (Limit::Day, None, "0 0 0 t")]
    {
        world.run("update sluice.budget set throttled = 0, shrunk_to = null, shrunk_at = null, blocked_until = clock_timestamp(); delete from sluice.slot").await;
        for key in 1..=4 {
            world.push("shop", key).await;
        }
        world.fold().await;
        let throttled = Throttled { limit, retry_after: retry_after.map(Duration::from_secs) };
        let Claim::Batch(refused, grant) = store::claim(&world.db, WORKER, &world.shapes, LEASE, TIMEOUT).await.unwrap() else {
            panic!("{limit:?}")
        };
        world.run("update sluice.budget set grid_at = '-infinity'").await;
        let others = world.claim().await.unwrap();
        let calls = Calls::new(refused.token, WORKER.into(), grant, Cost::ONE);
        calls.sending();
        calls.answered(Duration::from_millis(100), true, Cost::ONE, Some(throttled), Seen::default());
        calls.tell_refusal(&world.db).await;
        assert_eq!(state().await, expected, "{limit:?}");
        assert!(world.claim().await.is_none(), "{limit:?}: nothing is granted while the batch goes on");
        let again = store::grant_again(&world.db, others.token, WORKER, &answered(), Cost::ONE).await.unwrap();
        assert!(matches!(again, store::Again::Later), "{limit:?}: nor to a batch in hand");
        if limit == Limit::InFlight {
            world.run("update sluice.budget set throttled = 1").await; // the answer in between had ended the row of refusals
        }
        world.settle_with(&refused, &calls.report(), |s| Settlement::new(s, done())).await;
        assert_eq!(state().await, expected, "{limit:?}, settled");
    }
}
