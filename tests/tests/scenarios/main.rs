//! Scenarios: rows change in a real PostgreSQL, our producer and worker run as they do in production, and a simulated Zoho tells what
//! reached it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::missing_panics_doc)]

mod agreeing;
mod arriving;
mod both_ways;
mod braking;
mod calling;
mod calls;
mod channels;
mod child_rows;
mod connecting;
mod converging;
mod dropped;
mod flapping;
mod hidden_rows;
mod hints;
mod images;
mod in_bulk;
mod keys_alike;
mod leaving;
mod locks;
mod lost;
mod matching;
mod outages;
mod parents;
mod planning;
mod planning_only;
mod plans;
mod polling;
mod provisioning;
mod pulling;
mod recipe_crm;
mod recipe_inventory;
mod reconciling;
mod referring;
mod reverted;
mod share;
mod similar_names;
mod stale_readings;
mod suspected;
mod suspicions;
mod tokens;
mod unread;
mod watching;
mod world;
mod written_here;
