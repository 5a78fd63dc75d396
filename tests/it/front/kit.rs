//! A front without sockets and without vendors.

use std::sync::Arc;

use bytes::Bytes;
use hyper::service::Service;
use parking_lot::Mutex;
use tokio::io::duplex;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

pub use crate::peer::{Peer, Reply, get, post};
use msp_gateway::access::{CallerBook, CallerKeyHash, CallerSpec, Role};
use msp_gateway::cache::FiledBodies;
use msp_gateway::clock::{Clock, Duration};
use msp_gateway::domain::Audience;
use msp_gateway::exchange::{AnswerBody, Answered, Boxed, Call, InFlight};
use msp_gateway::history::History;
use msp_gateway::metrics::Metrics;
use msp_gateway::middleware::inbound::CrossOrigin;
use msp_gateway::problem::Problem;
use msp_gateway::server::Connections;
use msp_gateway::server::Drain;
use msp_gateway::server::Ending;
use msp_gateway::server::Patience;
use msp_gateway::stack::{Inbound, InboundParts, inbound};
use msp_gateway::telemetry::LogSink;
use msp_gateway::traces::Traces;

type Handler = Arc<dyn Fn(Call) -> Boxed<Result<Answered, Problem>> + Send + Sync>;

/// A stub in place of the routes.
#[derive(Clone)]
pub struct Stub {
    handler: Handler,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Service<Call> for Stub {
    type Response = Answered;
    type Error = Problem;
    type Future = Boxed<Result<Answered, Problem>>;

    fn call(&self, call: Call) -> Self::Future {
        self.seen
            .lock()
            .push(format!("{} {}", call.head.method, call.head.uri));
        (self.handler)(call)
    }
}

/// A whole front.
pub struct Front {
    pub connections: Connections,
    pub log: LogSink,
    pub metrics: Arc<Metrics>,
    pub drain: Drain,
    pub in_flight: Arc<InFlight>,
    pub seen: Arc<Mutex<Vec<String>>>,
}

pub const KEY: &str = "authorization: Bearer k-all\r\n";
pub const LIMITED: &str = "x-api-key: k-limited\r\n";
pub const IN_FLIGHT_MAX: usize = 2;
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub fn specs() -> Vec<CallerSpec> {
    let spec = |name: &str, role, limit| CallerSpec {
        name: name.into(),
        keys: vec![CallerKeyHash::of(format!("k-{name}").as_bytes())],
        sans: Vec::new(),
        role,
        audience: Audience::All,
        billing: true,
        requests_per_minute: limit,
        forced_refreshes_per_minute: 6,
        expires: None,
    };
    vec![
        spec("all", Role::Reader, None),
        spec("limited", Role::Reader, Some(6)),
        spec("op", Role::Operator, None),
    ]
}

pub fn callers(metrics: &Metrics, clock: &Clock) -> Arc<CallerBook> {
    Arc::new(CallerBook::new(&specs(), metrics, clock.clone()))
}

pub fn ok(text: &'static str) -> Answered {
    http::Response::new(AnswerBody::full(Bytes::from_static(text.as_bytes())))
}

impl Front {
    /// Creates a front that answers everything with `{}`.
    pub fn new() -> Self {
        Self::with(|_| Box::pin(async { Ok(ok("{}")) }))
    }

    pub fn with(
        handler: impl Fn(Call) -> Boxed<Result<Answered, Problem>> + Send + Sync + 'static,
    ) -> Self {
        Self::shared_with(None, handler)
    }

    /// Creates a front that answers nothing until its semaphore has a permit.
    pub fn holding() -> (Self, Arc<Semaphore>) {
        let release = Arc::new(Semaphore::new(0));
        let held = release.clone();
        let front = Self::with(move |_| {
            let held = held.clone();
            Box::pin(async move {
                let _ = held.acquire().await;
                Ok(ok("{}"))
            })
        });
        (front, release)
    }

    /// Returns whether a request with this text in its first line reached the routes.
    pub fn has_seen(&self, text: &str) -> bool {
        self.seen.lock().iter().any(|seen| seen.contains(text))
    }

    /// Creates a front whose answers web pages of these origins may read.
    pub fn shared_with(
        cross_origin: Option<Arc<CrossOrigin>>,
        handler: impl Fn(Call) -> Boxed<Result<Answered, Problem>> + Send + Sync + 'static,
    ) -> Self {
        Self::of(cross_origin, handler, callers)
    }

    /// Creates a front that knows these callers and answers them with `{}`.
    pub fn knowing(callers: impl FnOnce(&Metrics, &Clock) -> Arc<CallerBook>) -> Self {
        Self::of(None, |_| Box::pin(async { Ok(ok("{}")) }), callers)
    }

    fn of(
        cross_origin: Option<Arc<CrossOrigin>>,
        handler: impl Fn(Call) -> Boxed<Result<Answered, Problem>> + Send + Sync + 'static,
        callers: impl FnOnce(&Metrics, &Clock) -> Arc<CallerBook>,
    ) -> Self {
        let metrics = Metrics::new().unwrap();
        let clock = Clock::anchored("2026-11-22T12:00:00Z".parse().unwrap());
        let log = LogSink::kept(clock.clone());
        let history = History::within(1 << 20);
        let in_flight = InFlight::of_requests(IN_FLIGHT_MAX);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let parts = InboundParts {
            clock: clock.clone(),
            metrics: metrics.clone(),
            callers: callers(&metrics, &clock),
            log: log.clone(),
            history,
            traces: Traces::off(),
            in_flight: in_flight.clone(),
            request_timeout: REQUEST_TIMEOUT,
            body_timeout: Duration::from_secs(15),
            cross_origin,
            docs: true,
        };
        let stub = Stub {
            handler: Arc::new(handler),
            seen: seen.clone(),
        };
        let drain = Drain::default();
        Self {
            connections: serving(inbound(parts, stub), clock, drain.clone()),
            log,
            metrics,
            drain,
            in_flight,
            seen,
        }
    }

    /// Opens a connection whose other end is served.
    pub fn connect(&self) -> Served {
        connect(&self.connections)
    }

    /// Sends one request on a connection of its own. Returns the answer.
    pub async fn ask(&self, request: impl AsRef<[u8]>) -> Reply {
        let mut peer = self.connect();
        peer.send(request).await;
        peer.reply().await.expect("an answer")
    }

    pub fn last_line(&self) -> serde_json::Value {
        serde_json::from_str(self.log.lines().last().expect("a line")).unwrap()
    }
}

pub fn serving(stack: Inbound, clock: Clock, drain: Drain) -> Connections {
    Connections {
        answering: Arc::new(move |arrival| stack.answer(arrival)),
        patience: Patience {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            write_stall: Duration::from_secs(15),
        },
        clock,
        drain,
        files: FiledBodies::default(),
    }
}

/// A peer with the task that serves it.
pub struct Served {
    pub peer: Peer,
    pub task: JoinHandle<Ending>,
}

impl std::ops::Deref for Served {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl std::ops::DerefMut for Served {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

pub fn connect(connections: &Connections) -> Served {
    connect_through(connections, 256 * 1024)
}

/// Opens a connection through a pipe of this capacity.
pub fn connect_through(connections: &Connections, bytes: usize) -> Served {
    let (near, far) = duplex(bytes);
    let task = tokio::spawn(connections.clone().serve(far, None));
    Served {
        peer: Peer::new(near, Arc::default()),
        task,
    }
}

impl Reply {
    /// Returns (status, code of the problem).
    pub fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let body = self.json();
        assert_eq!(body["status"], self.status);
        assert_eq!(body["request_id"], self.header("x-request-id"));
        assert_eq!(
            body["type"],
            format!("urn:msp-gateway:{}", body["code"].as_str().unwrap())
        );
        (self.status, body["code"].as_str().unwrap().to_owned())
    }
}
