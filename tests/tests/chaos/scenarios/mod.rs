//! The scenarios, one file each.

mod database;
mod drain;
mod producers;
mod stopped;
pub(crate) mod storm;

use storm::Storm;

/// Runs one by its name; what it has to report is added to its line.
pub(crate) async fn run(name: &str) -> anyhow::Result<String> {
    match name {
        "a_storm_of_kills_and_faults_leaves_every_record_exactly_once" => Ok(format!("; {}", Storm::small().run().await?)),
        "a_worker_stopped_for_longer_than_its_lease_neither_sends_nor_settles" => stopped::run().await.map(|()| String::new()),
        "a_worker_told_to_stop_finishes_what_it_holds_and_leaves_no_lease" => drain::run().await.map(|()| String::new()),
        "without_the_database_no_call_leaves_any_replica" => database::run().await.map(|()| String::new()),
        "producers_killed_in_mid_drain_lose_no_change_and_tick_once" => producers::run().await.map(|()| String::new()),
        other => anyhow::bail!("there is no scenario {other}"),
    }
}
