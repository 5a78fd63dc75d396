//! A request at each stage of its way in.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;

use super::record::Record;
use crate::access::{Caller, ClientCertificate, LastKey, Tenure};
use crate::admission::Payer;
use crate::domain::Route;
use crate::reads::Asker;

/// The other end of a connection, as far as the connection identifies it.
#[derive(Debug, Default)]
pub struct PeerIdentity {
    /// Its address. `None` if the connection is no socket.
    pub address: Option<SocketAddr>,
    /// Its verified client certificate.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Whether it speaks TLS.
    pub secure: bool,
    /// The caller key that it sent last.
    pub last_key: LastKey,
}

/// A request as hyper read it.
#[derive(Debug)]
pub struct Arrival {
    /// The head, and the body that is still arriving.
    pub request: http::Request<Incoming>,
    /// The other end of the connection, shared by all its requests.
    pub peer: Arc<PeerIdentity>,
}

/// A request with an id.
#[derive(Debug)]
pub struct Named {
    /// Method, target, headers. Boxed: it passes ten layers by value.
    pub head: Box<Parts>,
    /// The body, not yet read.
    pub body: Incoming,
    /// What is known about the request.
    pub record: Arc<Record>,
}

/// A request for one of our routes.
#[derive(Debug)]
pub struct Routed {
    /// The request.
    pub named: Named,
    /// The matched route.
    pub matched: Matched,
}

/// A request of a known caller.
#[derive(Debug)]
pub struct Known {
    /// The request and its route.
    pub routed: Routed,
    /// The caller.
    pub caller: Arc<Caller>,
    /// The payer of its vendor calls.
    pub payer: Arc<Payer>,
    /// How long an answer may last, where the route has answers that do. Boxed: few have.
    pub tenure: Option<Box<Tenure>>,
}

/// A complete request, as handlers get it.
#[derive(Debug)]
pub struct Call {
    /// Method, target, headers.
    pub head: Box<Parts>,
    /// The whole body.
    pub body: Bytes,
    /// What is known about the request.
    pub record: Arc<Record>,
    /// The matched route.
    pub matched: Matched,
    /// The caller's identity and limits, for the reads.
    pub asker: Asker,
    /// How long its answer may last; see [`Known::tenure`].
    pub tenure: Option<Box<Tenure>>,
}

impl Call {
    /// Returns a path parameter of the route's pattern, as sent. Empty if the pattern has fewer.
    pub fn param(&self, at: usize) -> &str {
        self.matched.param(self.head.uri.path(), at)
    }
}

/// What a route does with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// No body is expected. One that comes is read and ignored.
    Ignored,
    /// JSON.
    Json,
    /// JSON or nothing.
    JsonOrNothing,
}

/// Maximum number of parameters in a path pattern.
pub const PARAMS_MAX: usize = 3;

/// A route that a request's method and path fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// The route.
    pub route: Route,
    /// How to treat a body.
    pub body: BodyRule,
    /// Position of the parameters in the path: start and end, in bytes.
    pub params: [(u16, u16); PARAMS_MAX],
}

impl Matched {
    /// Returns parameter number `at` of the route's pattern, as it stands in `path`. Empty if the
    /// pattern has fewer.
    pub fn param<'a>(&self, path: &'a str, at: usize) -> &'a str {
        let (start, end) = self.params.get(at).copied().unwrap_or((0, 0));
        path.get(usize::from(start)..usize::from(end)).unwrap_or("")
    }
}

/// The route table's answer for a method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// The route.
    Found(Matched),
    /// The path exists, but not with this method.
    WrongMethod {
        /// The route of the path.
        route: Route,
        /// The allowed methods, for `Allow`.
        allow: &'static str,
    },
    /// No route has this path.
    Unknown,
}

/// Looks up a method and a path in the route table.
pub type FindRoute = fn(&Method, &str) -> Routing;
