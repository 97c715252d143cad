//! The queue's SQL over a real PostgreSQL, called as a worker calls it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod arrivals;
mod budget;
mod callers;
mod circuit;
mod coalesce;
mod counters;
mod fence;
mod insert;
mod lanes;
mod ledger;
mod letters;
mod meters;
mod model;
mod refused_days;
mod rescue;
mod rights;
mod scale;
mod turns;
mod upkeep;
mod wait;
mod waiting;
mod world;
