//! Integration tests: the gateway over the sandbox vendors, in paused time and in-memory pipes.

// A test may stop where it stands; clippy knows that of test functions, not of their helpers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod kit;
mod whole;

mod callers;
mod framing;
mod hostile;
mod json;
mod matrix;
mod paging;
mod proof;
mod reload;
mod walks;
