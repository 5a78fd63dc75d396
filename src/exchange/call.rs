//! A request at each stage of its way in.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;

use super::record::Record;
use crate::access::{Caller, ClientCertificate, Tenure};
use crate::admission::Payer;
use crate::domain::Route;
use crate::reads::Asker;

/// The other end of a connection, as far as the connection itself tells it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Peer {
    /// Its address; none where the connection is no socket.
    pub address: Option<SocketAddr>,
    /// Its verified client certificate.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// A request as hyper read it.
#[derive(Debug)]
pub struct Arrival {
    /// Head, and the body still on its way.
    pub request: http::Request<Incoming>,
    /// Who is connected.
    pub peer: Peer,
}

/// A request with a name.
#[derive(Debug)]
pub struct Named {
    /// Method, target, headers. Boxed: it passes ten layers by value.
    pub head: Box<Parts>,
    /// Not yet read.
    pub body: Incoming,
    /// What is known of it.
    pub record: Arc<Record>,
}

/// A request for one of our routes.
#[derive(Debug)]
pub struct Routed {
    /// The request.
    pub named: Named,
    /// Which route.
    pub matched: Matched,
}

/// A request of a known caller.
#[derive(Debug)]
pub struct Known {
    /// The request and its route.
    pub routed: Routed,
    /// Who asks.
    pub caller: Arc<Caller>,
    /// Who pays for vendor calls.
    pub payer: Arc<Payer>,
    /// How long an answer may last, where the route has answers that do. Boxed: few have.
    pub tenure: Option<Box<Tenure>>,
}

/// A request that is complete: what a handler gets.
#[derive(Debug)]
pub struct Call {
    /// Method, target, headers.
    pub head: Box<Parts>,
    /// The whole body.
    pub body: Bytes,
    /// What is known of it.
    pub record: Arc<Record>,
    /// Which route.
    pub matched: Matched,
    /// Its side of a read.
    pub asker: Asker,
    /// How long its answer may last; see [`Known::tenure`].
    pub tenure: Option<Box<Tenure>>,
}

impl Call {
    /// Returns a path parameter of the route's pattern, as sent; empty if the pattern has fewer.
    pub fn param(&self, at: usize) -> &str {
        self.matched.param(self.head.uri.path(), at)
    }
}

/// What a route does with a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    /// None expected; one that comes is read and forgotten.
    Ignored,
    /// JSON.
    Json,
    /// JSON or nothing.
    JsonOrNothing,
}

/// Most parameters that a path pattern has.
pub const PARAMS_MAX: usize = 3;

/// A route that a request's method and path fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Which route.
    pub route: Route,
    /// What to do with a body.
    pub body: BodyRule,
    /// Where in the path its parameters stand: start and end in bytes.
    pub params: [(u16, u16); PARAMS_MAX],
}

impl Matched {
    /// Returns a parameter of `path`, as sent.
    pub fn param<'a>(&self, path: &'a str, at: usize) -> &'a str {
        let (start, end) = self.params.get(at).copied().unwrap_or((0, 0));
        path.get(usize::from(start)..usize::from(end)).unwrap_or("")
    }
}

/// What the route table says of a method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Routing {
    /// A route.
    Found(Matched),
    /// The path is known, but not with this method.
    WrongMethod {
        /// The route of the path.
        route: Route,
        /// The methods that it has, for `Allow`.
        allow: &'static str,
    },
    /// No route.
    Unknown,
}

/// The table's question, as the middleware asks it.
pub type FindRoute = fn(&Method, &str) -> Routing;
