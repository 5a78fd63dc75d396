//! Integration tests: the gateway over the sandbox vendors, in paused time and in-memory pipes.

// A test that panics has failed, which is what it is for; helpers outside of #[test] functions too.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod kit;
mod whole;

mod matrix;
mod paging;
mod proof;
