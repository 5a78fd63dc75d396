//! The operators' listener: metrics, health, status, purge and explain.

mod explain;
mod guard;
mod purge;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, header};
use hyper::service::Service;
use serde_json::{Map, Value};

use super::question::Question;
use crate::access::{Caller, CallerBook};
use crate::clock::Duration;
use crate::domain::{CustomerId, Kind, Vendor};
use crate::exchange::site::OwnNames;
use crate::exchange::{AnswerBody, Answered, Boxed, Named, ReadingBody};
use crate::metrics::Metrics;
use crate::problem::{Code, Problem};

/// What a purge ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PurgeTarget {
    /// Everything remembered.
    All,
    /// What mentions one customer.
    Customer(CustomerId),
    /// One kind of answer.
    Kind(Kind),
}

/// A purge, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Purge {
    /// What it ends.
    pub target: PurgeTarget,
    /// Soft: what is remembered counts as stale. Else it is gone, and page tokens with it.
    pub soft: bool,
}

/// How a vendor is doing, for `/readyz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VendorState {
    /// Answers.
    Ok,
    /// Failed lately, or its budget is gone; what is remembered is still served.
    Degraded,
    /// Not configured.
    Disabled,
}

impl VendorState {
    /// The word in the answer.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Disabled => "disabled",
        }
    }
}

/// Whether requests should be sent here.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// False while draining; a failing vendor does not make it false, since hits still count.
    pub ready: bool,
    /// Each vendor's state.
    pub vendors: Vec<(Vendor, VendorState)>,
}

/// What the admin listener asks of the gateway.
pub trait AdminReads: Send + Sync {
    /// Purges; the number of entries that it ended.
    fn purge(&self, purge: Purge) -> u64;

    /// Identity, entry, age, policy, lane and what would be called, without a vendor call.
    ///
    /// # Errors
    /// As the question itself would be refused: a customer outside the audience, a bad page token.
    fn explain(&self, question: &Question, caller: &Arc<Caller>) -> Result<Value, Problem>;

    /// The state of everything, for people.
    fn status(&self) -> Value;

    /// Whether requests should be sent here.
    fn readiness(&self) -> Readiness;
}

/// Answers the admin listener. Cheap to clone.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    reads: Arc<dyn AdminReads>,
    metrics: Arc<Metrics>,
    callers: Arc<CallerBook>,
    loopback: bool,
    names: OwnNames,
    body_timeout: Duration,
}

impl Admin {
    /// `loopback`: the listener is bound to a loopback address, so that whoever reaches it may also
    /// purge and explain. `names`: by which names it is asked, where a browser could be tricked.
    pub fn new(
        reads: Arc<dyn AdminReads>,
        metrics: Arc<Metrics>,
        callers: Arc<CallerBook>,
        loopback: bool,
        names: OwnNames,
        body_timeout: Duration,
    ) -> Self {
        Self(Arc::new(Inner {
            reads,
            metrics,
            callers,
            loopback,
            names,
            body_timeout,
        }))
    }
}

impl Service<Named> for Admin {
    type Response = Answered;
    type Error = Problem;
    type Future = Boxed<Result<Answered, Problem>>;

    fn call(&self, named: Named) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move { inner.serve(named).await })
    }
}

impl Inner {
    async fn serve(&self, named: Named) -> Result<Answered, Problem> {
        let head = &named.head;
        let certificate = named.record.peer.certificate.as_deref();
        let post_only = match head.uri.path() {
            "/admin/purge" => true,
            "/metrics" | "/healthz" | "/readyz" | "/admin/status" | "/admin/explain" => false,
            _ => return Err(Problem::not_found()),
        };
        let allowed = if post_only {
            head.method == Method::POST
        } else {
            head.method == Method::GET || head.method == Method::HEAD
        };
        if !allowed {
            let allow = if post_only { "POST" } else { "GET, HEAD" };
            return Err(Problem::method_not_allowed(allow));
        }
        match head.uri.path() {
            "/metrics" => self.metrics(),
            "/healthz" => Ok(json(StatusCode::OK, &serde_json::json!({"alive": true}))),
            "/readyz" => Ok(self.readiness()),
            "/admin/status" => {
                guard::refuse_other_sites(head, &self.names)?;
                Ok(json(StatusCode::OK, &self.reads.status()))
            }
            "/admin/explain" => {
                let operator =
                    guard::operator(head, certificate, &self.callers, &self.names, self.loopback)?;
                let (question, caller) = explain::read(head.uri.query(), &self.callers, operator)?;
                let explained = self.reads.explain(&question, &caller)?;
                Ok(json(StatusCode::OK, &explained))
            }
            _ => {
                guard::operator(head, certificate, &self.callers, &self.names, self.loopback)?;
                guard::is_json(head)?;
                let body = ReadingBody::new(named.body, self.body_timeout)
                    .await
                    .map_err(|_| {
                        Problem::new(Code::InvalidBody, "The body could not be read.").closing()
                    })?;
                let purge = purge::read(&body)?;
                let purged = self.reads.purge(purge);
                Ok(json(StatusCode::OK, &serde_json::json!({"purged": purged})))
            }
        }
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
        let Readiness { ready, vendors } = self.reads.readiness();
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
            &serde_json::json!({"ready": ready, "vendors": vendors}),
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
