//! Thin layers, one verb each. They contain no policy: each calls the room that decides.
//!
//! [`inbound`] has the layers that a caller's request passes, [`outbound`] those that a vendor call
//! passes. `stack.rs` puts both lists in order and gives the reason for each place. A layer's file
//! holds a function or a type that wraps an inner service, and nothing else:
//!
//! ```text
//! request ─▶ observe ─▶ check_framing ─▶ match_route ─▶ authenticate ─▶ … ─▶ handler
//!               │ a layer that refuses returns a `Problem`; `render_problem` turns it into an answer
//! answer  ◀─────┘
//! ```
//!
//! A layer is added in three steps: a file here, a line in `stack.rs` with its reason, and a test
//! that shows what it does to a request.
//!
//! What must never happen here:
//! - A layer reads a setting or decides what a caller may see. That is for `access` and `reads`.
//! - A layer keeps state between requests, except counters and gates that it shares with others.
//! - A layer above `authenticate` logs a header, or a layer below it sees the caller key.

pub mod inbound;
pub mod outbound;
