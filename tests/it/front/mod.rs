//! Tests of the whole front over pipes in memory: raw bytes in, raw bytes out, a stub in place of
//! the reads.

mod admin;
mod cross_origin;
mod drain;
mod filed;
mod framing;
mod http2;
mod kit;
mod limits;
mod order;
mod outcomes;
mod tls;
mod tls_kit;
