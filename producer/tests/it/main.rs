//! The producer over a real PostgreSQL. Nothing here claims: a slot or a link is put where a worker would put it.
#![allow(clippy::unwrap_used)]

mod alerts;
mod brakes;
mod capture;
mod captured;
mod changes;
mod measure;
mod publish;
mod receiving;
mod schedules;
mod served;
mod setting;
mod unfit;
mod web;
mod webhook;
