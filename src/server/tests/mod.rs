//! The whole front over in-memory pipes: raw bytes in, raw bytes out, a stub where the reads are.

mod admin;
mod cross_origin;
mod drain;
mod framing;
mod kit;
mod limits;
mod order;
mod outcomes;
