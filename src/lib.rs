//! A caching aggregation gateway in front of two MSP vendor APIs: wiv and N-able.
//!
//! The modules in reading order, from what everything stands on to what stands on everything.
//! A module imports only what is above it in this list; `tests/tidy.rs` holds the code to that.
//! Start with [`stack`]: the request's whole path is there.

pub mod domain;

pub mod clock;
pub mod secrets;

pub mod metrics;
pub mod telemetry;
pub mod traces;

pub mod store;

pub mod access;
pub mod admission;

pub mod cache;
pub mod upstream;

pub mod vendors;

pub mod snapshot;

pub mod reads;

pub mod history;

pub mod exchange;

pub mod problem;

pub mod api;
pub mod middleware;

pub mod stack;

pub mod server;

pub mod config;

pub mod app;
pub mod reload;

pub mod cli;
pub mod sandbox;
