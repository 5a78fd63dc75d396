//! Integration tests: the gateway over the sandbox vendors, in paused time and in-memory pipes.

mod kit;

mod paging;
mod proof;
