//! The listeners: connections in, drain out.

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
pub use inherit::Inherited;
pub use listen::{BindError, Drained, Listeners, Server};
pub use pulse::Patience;
pub use tls::{ClientAuth, Tls, TlsFile, TlsOptions, TlsProblem, TlsSetup};
pub use transport::Transport;

/// The `[listen]` and `[limits]` settings.
#[derive(Clone, Debug)]
pub struct ServerOptions {
    /// Callers connect here.
    pub public: SocketAddr,
    /// Operators and Prometheus connect here.
    pub admin: SocketAddr,
    /// TLS for callers; absent: in the clear.
    pub public_tls: Option<TlsOptions>,
    /// TLS for operators and Prometheus; absent: in the clear.
    pub admin_tls: Option<TlsOptions>,
    /// More names that the admin listener is asked by. Without any, and beyond loopback, by all.
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
    /// A connection whose reader takes nothing for so long is closed.
    pub write_stall_timeout: Duration,
    /// Connections open at once on the public listener.
    pub connections_max: usize,
    /// Connections of one peer at once on the public listener.
    pub connections_per_peer_max: usize,
    /// Requests in flight at once; more are refused as overloaded.
    pub requests_in_flight_max: usize,
    /// Exports running at once; more are refused as overloaded.
    pub exports_max: usize,
    /// Questions for changes at once, those that wait among them; more are refused as overloaded.
    pub followers_max: usize,
    /// After a termination signal: time in which readiness fails while requests are still taken.
    pub drain_delay: Duration,
    /// Then: time for requests in flight to end.
    pub drain_grace: Duration,
}

impl ServerOptions {
    /// Returns how long a connection may take for what.
    pub fn patience(&self) -> Patience {
        Patience {
            header: self.header_timeout,
            idle: self.idle_timeout,
            write_stall: self.write_stall_timeout,
        }
    }
}

#[cfg(test)]
mod tests;
