//! Integration tests: the gateway over the sandbox vendors, in paused time and in-memory pipes; and
//! the running program over real sockets, where the program is the point.

// A test may stop where it stands; clippy knows that of test functions, not of their helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod authority;
mod frames;
mod kit;
mod peer;
mod process;
#[path = "../fuzz/src/promises/mod.rs"]
mod promises;
#[path = "../../src/store/valkey/test_server.rs"]
mod test_server;
mod whole;

mod binary;
mod callers;
mod console;
mod corpus;
mod crowd;
mod events;
mod explain;
mod fleet;
mod fleet_bell;
mod fleet_budget;
mod fleet_callers;
mod fleet_flights;
mod fleet_resync;
mod fleet_server;
mod fleet_slots;
mod fleet_takeover;
mod fleet_tls;
mod fleet_walks;
mod follow;
mod forms;
mod framing;
mod front;
mod gauges;
mod heal;
mod hostile;
mod json;
mod kept;
mod kept_rows;
mod limits;
mod log;
mod matrix;
mod months;
mod outages;
mod outbound;
mod paging;
mod proof;
mod quota;
mod refusals;
mod reload;
mod runbook;
mod smuggle;
mod sources;
mod store;
mod tenure;
mod tls;
mod traces;
mod vectors;
mod views;
mod walks;
mod when_away;
mod words;
