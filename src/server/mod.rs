//! Accepts connections, serves them, and drains them when the gateway leaves.
//!
//! [`Server`] runs two listeners, one for callers and one for operators. Each connection is a task
//! that reads requests with hyper and passes each as an `exchange::Arrival` to an [`Answering`]
//! service:
//!
//! ```text
//! Listeners ─▶ slot, seat ─▶ TLS? ─▶ http1 or http2 ─▶ Answering ─▶ stack::Inbound
//!               limits per     │           │
//!               peer           │           └ Pulse: one timer closes idle and slow connections
//!                              └ Tls: the certificate in force, exchanged by a reload
//! Drain: Serving ─▶ Leaving ─▶ Closing ─▶ Cut
//! ```
//!
//! [`Connections`] serves one connection on anything that reads and writes, so tests use pipes in
//! memory. [`Drain`] is the one handle that every part watches while the gateway leaves.
//! [`Inherited`] holds sockets that systemd bound, which outlive the process.
//!
//! What must never happen here:
//! - A request that the gateway has read gets no answer while it leaves, within the grace.
//! - A peer that is slow, silent or greedy holds a connection without a time limit.
//! - A caller key is accepted that has crossed the network without TLS on a port for TLS.

mod connection;
mod date;
mod descriptors;
mod drain;
mod http2;
mod inherit;
mod listen;
mod peers;
mod pulse;
mod tls;
mod transport;

use std::net::SocketAddr;

use crate::clock::Duration;

pub use connection::{Answering, Connections, Ending};
pub use descriptors::room_for_files;
pub use drain::{Drain, DrainPhase};
pub use http2::serve as serve_http2;
pub use inherit::Inherited;
pub use listen::{BindError, Drained, Listeners, Server};
pub use pulse::Patience;
pub use tls::{ClientAuth, Tls, TlsFile, TlsOptions, TlsProblem, TlsSetup, authorities};
pub use transport::ServerTransport;

/// The `[listen]` and `[limits]` settings.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Address for callers.
    pub public: SocketAddr,
    /// Address for operators and Prometheus.
    pub admin: SocketAddr,
    /// TLS for callers. `None`: no TLS.
    pub public_tls: Option<TlsOptions>,
    /// TLS for operators and Prometheus. `None`: no TLS.
    pub admin_tls: Option<TlsOptions>,
    /// Further host names of the admin listener. Beyond loopback, and without any, every name is
    /// accepted.
    pub admin_hosts: Vec<String>,
    /// Whether the public listener has a page for people at `/docs`.
    pub docs: bool,
    /// A request's head must be complete within this time.
    pub header_timeout: Duration,
    /// A request's body must be complete within this time.
    pub body_timeout: Duration,
    /// A request is answered within this time.
    pub request_timeout: Duration,
    /// A connection without a request in flight is closed after this time.
    pub idle_timeout: Duration,
    /// A connection whose reader takes nothing for this long is closed.
    pub write_stall_timeout: Duration,
    /// Maximum connections on the public listener.
    pub connections_max: usize,
    /// Maximum connections of one peer on the public listener.
    pub connections_per_peer_max: usize,
    /// Maximum requests in flight. Further ones are refused as overloaded.
    pub requests_in_flight_max: usize,
    /// Maximum exports at once. Further ones are refused as overloaded.
    pub exports_max: usize,
    /// Maximum requests for changes at once, waiting ones included. Further ones are refused as
    /// overloaded.
    pub followers_max: usize,
    /// Time after a termination signal in which readiness fails while requests are still accepted.
    pub drain_delay: Duration,
    /// Time after that for requests in flight to end.
    pub drain_grace: Duration,
}

impl ServerOptions {
    /// Returns the time limits of a connection.
    pub fn patience(&self) -> Patience {
        Patience {
            header: self.header_timeout,
            idle: self.idle_timeout,
            write_stall: self.write_stall_timeout,
        }
    }
}
