//! Integration tests: the gateway over the sandbox vendors, in paused time and in-memory pipes; and
//! the running program over real sockets, where the program is the point.

mod kit;
mod process;

mod binary;
mod crowd;
mod paging;
mod proof;
