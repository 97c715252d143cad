//! The counters equal a recount, whatever happened.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use sluice_queue::outcome::{Class, Retry};
use sluice_queue::{Batch, Outcome, Settlement, store};

use crate::world::{World, answered, dead, done, failed};

/// Syncs whose counters differ from a recount.
const WRONG: &str = "
with slots as (select sync, sluice.slot_standing(s) as standing from sluice.slot s), recount as (
  select y.name as sync,
    (select count(*) from slots s where s.sync = y.name and standing = 'pending') as pending, (select count(*) from slots s where s.sync = y.name and standing = 'running') as running,
    (select count(*) from slots s where s.sync = y.name and standing = 'retrying') as retrying, (select count(*) from slots s where s.sync = y.name and standing = 'waiting') as waiting,
    (select count(*) from sluice.dead_letter d where d.sync = y.name and d.resolution is null) as failed, (select count(*) from sluice.link l where l.sync = y.name and l.zoho_id is not null) as linked
  from sluice.sync y)
select coalesce(string_agg(r::text || ' but ' || coalesce(c::text, 'nothing'), '; '), '') from recount r left join sluice.sync_counter c using (sync)
where (r.pending, r.running, r.retrying, r.waiting, r.failed, r.linked)
   is distinct from (coalesce(c.pending, 0), coalesce(c.running, 0), coalesce(c.retrying, 0), coalesce(c.waiting, 0), coalesce(c.failed, 0), coalesce(c.linked, 0))";

fn any_outcome(rng: &mut StdRng) -> Outcome {
    match rng.random_range(0..7) {
        0 => Outcome::Continue { progress: None },
        1 => failed(),
        2 => Outcome::Snooze { after: std::time::Duration::from_secs(1), reason: "later".into() },
        3 => Outcome::Wait { sync: "customers".into(), key: rng.random_range(1..9).to_string() },
        4 => dead(Class::Validation),
        5 => Outcome::Retry(Retry { max_batch: Some(2), unbooked: true, ..Retry::default() }),
        _ => done(),
    }
}

async fn any_step(world: &World, rng: &mut StdRng, held: &mut Vec<Batch>) {
    let sync = *["orders", "customers", "shop"].choose(rng).unwrap();
    match rng.random_range(0..14) {
        0..4 => {
            world.push(sync, rng.random_range(1..9)).await;
            world.fold().await;
        }
        4..6 => held.extend(world.claim().await),
        6..9 if !held.is_empty() => {
            let batch = held.swap_remove(rng.random_range(0..held.len()));
            let mut outcomes: Vec<Settlement> = batch.slots.iter().map(|s| Settlement::new(s.id, any_outcome(rng))).collect();
            outcomes.truncate(rng.random_range(1..=outcomes.len()));
            store::settle(&world.db, batch.token, crate::world::WORKER, &answered(), &outcomes).await.unwrap();
        }
        9 => {
            world.run("update sluice.batch set lease_until = clock_timestamp() - interval '1 s' where token = (select min(token) from sluice.batch)").await;
            store::rescue(&world.db).await.unwrap();
        }
        10 => {
            let key = rng.random_range(1..9);
            world.run(format!("insert into sluice.link (sync, key, zoho_id) values ('{sync}', '{key}', '{key}') on conflict (sync, key) do update set zoho_id = excluded.zoho_id")).await;
            store::wake_waiting(&world.db, sync, &[key.to_string()], true).await.unwrap();
        }
        11 => world.run("select sluice.cancel(job_id) from sluice.slot_job order by job_id limit 1").await,
        12 => world.run("select case when id % 2 = 0 then sluice.requeue(id)::text else sluice.discard(id)::text end from sluice.dead_letter where resolution is null limit 1").await,
        _ => {
            world.run(format!("delete from sluice.link where sync = '{sync}' and key = '{}'", rng.random_range(1..9))).await;
            store::sweep_waiting(&world.db).await.unwrap();
            world.time_passes().await;
        }
    }
}

#[tokio::test]
async fn the_counters_equal_a_recount_after_a_storm_of_everything() {
    for seed in [1, 2, 3] {
        let world = World::new().await;
        let mut rng = StdRng::seed_from_u64(seed);
        let mut held = Vec::new();
        for step in 0..150 {
            any_step(&world, &mut rng, &mut held).await;
            if step % 10 == 0 {
                assert_eq!(world.get::<String>(WRONG).await, "", "seed {seed}, step {step}");
            }
        }
        assert_eq!(world.get::<String>(WRONG).await, "", "seed {seed}");
        assert_eq!(world.get::<i64>("select count(*) from sluice.slot s where state = 'running' and not exists (select from sluice.batch b where b.token = s.batch)").await, 0);
        assert_eq!(
            world
                .get::<i64>("select count(*) from sluice.slot_job j where not exists (select from sluice.slot s where s.id = j.slot_id)")
                .await,
            0
        );
        world.run("select sluice.gather_counts()").await;
        assert_eq!(world.get::<i64>("select count(*) from sluice.sync_difference").await, 0);
        assert_eq!(world.get::<String>(WRONG).await, "", "seed {seed}, gathered");
    }
}
