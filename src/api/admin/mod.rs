//! The operators' listener: metrics, health, status, purge, explain, and the console's data.
//!
//! `AdminRoute` names every path, its method and who may use it. Metrics, health and status are for
//! programs and need no key. Purge, explain and everything that the console reads need an
//! operator's key, unless the listener is bound to a loopback address. The console's page itself
//! contains no data and needs no key.

mod console;
mod explain;
mod guard;
mod live;
mod purge;
mod requests;
mod resume;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::Service;
use serde_json::{Map, Value};

use super::query_string::{Params, wrong};
use super::question::Question;
use crate::access::{Caller, CallerBook};
use crate::clock::{Clock, Duration};
use crate::domain::{CustomerId, Kind, Vendor};
use crate::exchange::site::OwnNames;
use crate::exchange::{AnswerBody, Answered, AtTenuresEnd, Boxed, Named, ReadingBody, Record};
use crate::history::History;
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};
use crate::store::{PurgeReach, StoreHealth};

/// The text of a 404. It names all paths.
const NO_SUCH_PATH: &str = "This path does not exist. The admin listener has /metrics, /healthz, /readyz and, under /admin/, status, explain, purge, resume, live, history, requests, snapshots, callers and settings.";

/// What a purge ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// Everything that is remembered.
    All,
    /// Answers that mention one customer.
    Customer(CustomerId),
    /// One kind of answer.
    Kind(Kind),
}

impl fmt::Display for PurgeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("everything"),
            Self::Customer(customer) => write!(f, "customer {customer}"),
            Self::Kind(kind) => write!(f, "kind {}", kind.as_str()),
        }
    }
}

/// A purge, after validation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PurgeRequest {
    /// What to purge.
    pub target: PurgeTarget,
    /// A soft purge makes answers stale. A hard one removes them, and ends page tokens.
    pub soft: bool,
}

/// State of a vendor, for `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorState {
    /// The vendor answers.
    Ok,
    /// The vendor failed recently, or its budget is used up. Remembered answers are still served.
    Degraded,
    /// The vendor is not configured.
    Disabled,
}

impl VendorState {
    /// Returns the word in the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Disabled => "disabled",
        }
    }
}

/// Whether the gateway should get requests.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// False while draining, and while the store is away if nothing may be served without it. A
    /// failing vendor does not make it false, because hits are still served.
    pub ready: bool,
    /// The state of each vendor.
    pub vendors: Vec<(Vendor, VendorState)>,
    /// The state of the store. Unless `store.valkey.when_away` is `closed`, it does not change
    /// `ready`: memory and vendors answer.
    pub store: StoreHealth,
}

/// The outcome of a purge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Number of entries that it ended.
    pub entries: u64,
    /// The store is away, so a crash before it is back would undo the purge. If gateways share the
    /// store, the others do not know of the purge until then. Names which of the two it is: `store`
    /// or `fleet`.
    pub pending: Option<&'static str>,
    /// Gateways that share the store, and how many of them follow the purge already.
    pub reach: Option<PurgeReach>,
}

/// What the admin listener needs from the gateway.
pub trait AdminReads: Send + Sync {
    /// Purges at once. The answer waits until a crash cannot undo the purge, a second at most.
    fn purge(&self, purge: PurgeRequest) -> Boxed<Purged>;

    /// Ends a wait that a vendor asked for. Returns the rest of that wait, or `None` if there was
    /// none.
    ///
    /// # Errors
    /// Fails if the vendor is not configured.
    fn resume(&self, vendor: Vendor) -> Result<Option<Duration>, Problem>;

    /// Returns identity, entry, age, policy, lane and what would be called. Makes no vendor call.
    ///
    /// # Errors
    /// Fails as the question itself would: for a customer outside the audience, or a bad page
    /// token.
    fn explain(&self, question: &Question, caller: &Arc<Caller>) -> Result<Value, Problem>;

    /// Returns the state of everything, for people.
    fn status(&self) -> Value;

    /// Returns the most recently used snapshots, at most `limit`.
    fn snapshots(&self, limit: usize) -> Value;

    /// Returns every caller with its ledger.
    fn callers(&self) -> Value;

    /// Returns the settings in force, and the last reload.
    fn settings(&self) -> Value;

    /// Returns whether the gateway should get requests.
    fn readiness(&self) -> Readiness;
}

/// The parts of the admin listener.
pub struct AdminParts {
    /// Answers for the gateway.
    pub reads: Arc<dyn AdminReads>,
    /// Shown at `/metrics`.
    pub metrics: Arc<Metrics>,
    /// Samples and the last requests.
    pub history: Arc<History>,
    /// Reads the time.
    pub clock: Clock,
    /// Knows the operators.
    pub callers: Arc<CallerBook>,
    /// Whether the listener is bound to a loopback address, so that everyone who reaches it is an
    /// operator.
    pub loopback: bool,
    /// By which names it is asked, where a browser could be tricked.
    pub names: OwnNames,
    /// A request's body must be complete within this time.
    pub body_timeout: Duration,
}

/// Answers the admin listener. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<AdminParts>);

impl Admin {
    /// Creates the listener's service.
    pub fn new(parts: AdminParts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Service<Named> for Admin {
    type Response = Answered;
    type Error = Problem;
    type Future = Boxed<Result<Answered, Problem>>;

    fn call(&self, named: Named) -> Self::Future {
        let parts = self.0.clone();
        Box::pin(async move { parts.serve(named).await })
    }
}

/// A path of this listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AdminRoute<'a> {
    Metrics,
    Health,
    Ready,
    Status,
    Explain,
    Purge,
    Resume,
    Live,
    History,
    Requests,
    Request(&'a str),
    Snapshots,
    Callers,
    Settings,
    /// The path that a browser opens first.
    Root,
    /// A file of the console.
    Console(&'a str),
}

impl<'a> AdminRoute<'a> {
    fn find(path: &'a str) -> Option<Self> {
        Some(match path {
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Health,
            "/readyz" => Self::Ready,
            "/admin/status" => Self::Status,
            "/admin/explain" => Self::Explain,
            "/admin/purge" => Self::Purge,
            "/admin/resume" => Self::Resume,
            "/admin/live" => Self::Live,
            "/admin/history" => Self::History,
            "/admin/requests" => Self::Requests,
            "/admin/snapshots" => Self::Snapshots,
            "/admin/callers" => Self::Callers,
            "/admin/settings" => Self::Settings,
            "/" | "/console" => Self::Root,
            _ => match path.strip_prefix("/console/") {
                Some(file) => Self::Console(file),
                None => {
                    let id = path.strip_prefix("/admin/requests/")?;
                    (!id.is_empty() && !id.contains('/')).then_some(Self::Request(id))?
                }
            },
        })
    }

    /// Returns the methods for `Allow`.
    fn allow(self) -> &'static str {
        match self {
            Self::Purge | Self::Resume => "POST",
            Self::Explain => "GET, HEAD, POST",
            _ => "GET, HEAD",
        }
    }
}

/// Number of snapshots in one answer: without a `limit`, and at most.
const SNAPSHOTS_LIMIT: usize = 100;
const SNAPSHOTS_LIMIT_MAX: usize = 1000;

/// The operator behind a change, for the log.
struct Asker<'a> {
    /// The operator's name, or `loopback` if none is needed.
    by: &'a str,
    /// The address. Empty if there is none.
    peer: String,
}

impl<'a> Asker<'a> {
    fn of(operator: Option<&'a Caller>, record: &Record) -> Self {
        let peer = record.peer.address.map(|peer| peer.ip().to_string());
        Self {
            by: operator.map_or("loopback", |caller| &*caller.name),
            peer: peer.unwrap_or_default(),
        }
    }
}

fn snapshots_limit(query: Option<&str>) -> Result<usize, Problem> {
    let params = Params::parse(query, &["limit"])?;
    let Some(text) = params.get("limit") else {
        return Ok(SNAPSHOTS_LIMIT);
    };
    let limit = text.parse().ok();
    limit
        .filter(|limit| (1..=SNAPSHOTS_LIMIT_MAX).contains(limit))
        .ok_or_else(|| wrong("limit", format!("must be 1 to {SNAPSHOTS_LIMIT_MAX}")))
}

impl AdminParts {
    async fn serve(&self, named: Named) -> Result<Answered, Problem> {
        let head = &named.head;
        let certificate = named.record.peer.certificate.as_deref();
        let route = AdminRoute::find(head.uri.path())
            .ok_or_else(|| Problem::new(Code::NotFound, NO_SUCH_PATH))?;
        let allow = route.allow();
        if !allow
            .split(", ")
            .any(|method| method == head.method.as_str())
        {
            return Err(Problem::method_not_allowed(allow));
        }
        let operator =
            || guard::operator(head, certificate, &self.callers, &self.names, self.loopback);
        let query = head.uri.query();
        let found = |value: Value| Ok(json(StatusCode::OK, &value));
        match route {
            AdminRoute::Metrics => self.metrics(),
            AdminRoute::Health => found(serde_json::json!({"alive": true})),
            AdminRoute::Ready => Ok(self.readiness()),
            AdminRoute::Status => {
                guard::refuse_other_sites(head, &self.names)?;
                found(self.reads.status())
            }
            AdminRoute::Explain => {
                // The body is read only for an operator.
                let operator = operator()?;
                let sent = self.body(named.body).await?;
                let (question, caller) = explain::read(query, &sent, &self.callers, operator)?;
                found(self.reads.explain(&question, &caller)?)
            }
            AdminRoute::Live => {
                let operator = operator()?.filter(|_| !self.loopback);
                let certificate = named.record.peer.certificate.clone();
                let tenure = operator.map(|operator| {
                    Box::new(guard::tenure(head, certificate, &self.callers, operator))
                });
                let answer = live::live(query, &self.history.samples)?;
                Ok(answer.map(|body| body.lasting(tenure, AtTenuresEnd::End)))
            }
            AdminRoute::History => {
                operator()?;
                live::history(query, &self.history.samples)
            }
            AdminRoute::Requests => {
                operator()?;
                found(requests::list(query, &self.history.requests, &self.clock)?)
            }
            AdminRoute::Request(id) => {
                operator()?;
                found(requests::one(
                    query,
                    id,
                    &self.history.requests,
                    &self.clock,
                )?)
            }
            AdminRoute::Snapshots => {
                operator()?;
                found(self.reads.snapshots(snapshots_limit(query)?))
            }
            AdminRoute::Callers => {
                operator()?;
                Params::parse(query, &[])?;
                found(self.reads.callers())
            }
            AdminRoute::Settings => {
                operator()?;
                Params::parse(query, &[])?;
                found(self.reads.settings())
            }
            AdminRoute::Root => Ok(console::to_the_page()),
            AdminRoute::Console(file) => console::file(file, &head.headers),
            AdminRoute::Purge => {
                let operator = operator()?;
                guard::is_json(head)?;
                let purge = purge::read(&self.body(named.body).await?)?;
                let what = purge.target.to_string();
                let mode = if purge.soft { "soft" } else { "hard" };
                let Purged {
                    entries,
                    pending,
                    reach,
                } = self.reads.purge(purge).await;
                let Asker { by, peer } = Asker::of(operator.as_deref(), &named.record);
                tracing::info!(
                    by,
                    peer,
                    what,
                    mode,
                    purged = entries,
                    pending = pending.is_some(),
                    "purged"
                );
                let mut answer = serde_json::Map::new();
                answer.insert("purged".to_owned(), entries.into());
                if let Some(what) = pending {
                    answer.insert(what.to_owned(), "pending".into());
                }
                if let Some(PurgeReach { applied, of }) = reach {
                    let replicas = serde_json::json!({"applied": applied, "of": of});
                    answer.insert("replicas".to_owned(), replicas);
                }
                found(answer.into())
            }
            AdminRoute::Resume => {
                let operator = operator()?;
                guard::is_json(head)?;
                let vendor = resume::read(&self.body(named.body).await?)?;
                let left = self.reads.resume(vendor)?;
                let Asker { by, peer } = Asker::of(operator.as_deref(), &named.record);
                tracing::info!(
                    by,
                    peer,
                    vendor = vendor.as_str(),
                    left_s = left.map(|left| left.as_secs()),
                    "an operator ended the wait that the vendor asked for"
                );
                found(resume::answer(vendor, left))
            }
        }
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Problem> {
        let read = ReadingBody::new(body, self.body_timeout).await;
        read.map_err(|_| {
            Problem::new(Code::InvalidBody, "The request body could not be read.").closing()
        })
    }

    fn metrics(&self) -> Result<Answered, Problem> {
        let text = self
            .metrics
            .render()
            .map_err(|why| Problem::internal(format!("metrics: {why}")))?;
        Ok(answer(
            StatusCode::OK,
            "text/plain; version=0.0.4; charset=utf-8",
            text.into(),
        ))
    }

    fn readiness(&self) -> Answered {
        let Readiness {
            ready,
            vendors,
            store,
        } = self.reads.readiness();
        let vendors: Map<_, _> = vendors
            .into_iter()
            .map(|(vendor, state)| (vendor.as_str().to_owned(), state.as_str().into()))
            .collect();
        let status = if ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        json(
            status,
            &serde_json::json!({"ready": ready, "vendors": vendors, "store": store.as_str()}),
        )
    }
}

fn json(status: StatusCode, value: &Value) -> Answered {
    answer(status, "application/json", value.to_string().into())
}

fn answer(status: StatusCode, media: &'static str, body: Bytes) -> Answered {
    let mut response = Response::new(AnswerBody::full(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
