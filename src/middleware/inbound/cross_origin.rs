//! CORS: lets web pages of chosen origins read answers.
//!
//! A browser asks first whether a page may send a key or use another method (the preflight). It
//! hides the answer from a page that is not allowed. This file grants no access: a page needs a
//! caller key like every other caller, and cookies are not allowed because the gateway reads none.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use hyper::service::Service;
use std::sync::Arc;
use tower::Layer;
use tower::layer::layer_fn;

use crate::clock::Duration;
use crate::exchange::site::Origin;
use crate::exchange::{AnswerBody, Answered, Arrival, Boxed, DynStack};

/// Headers that a page may send: the key, the body's type, and what a read obeys.
const REQUEST_HEADERS: HeaderValue = HeaderValue::from_static(
    "Authorization, X-API-Key, Content-Type, Cache-Control, If-None-Match, Last-Event-ID, \
     traceparent, tracestate",
);
/// Headers that a page may read, besides those that every page may: cache status, rows and limits.
const ANSWER_HEADERS: HeaderValue = HeaderValue::from_static(
    "Age, Allow, Cache-Status, Content-Disposition, ETag, RateLimit, RateLimit-Policy, Retry-After, Warning, WWW-Authenticate, X-Export-Rows, X-Request-Id",
);
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const PREFLIGHT_VARY: HeaderValue = HeaderValue::from_static(
    "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
);
/// Browsers send this when a page of a public address calls a private network. The operator has
/// named the page's origin, which is the consent that the header asks for.
const ASKS_PRIVATE: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOWS_PRIVATE: HeaderName = HeaderName::from_static("access-control-allow-private-network");

/// The `[cors]` settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrossOrigin {
    origins: Vec<Origin>,
    max_age_s: u64,
}

impl CrossOrigin {
    /// Returns `None` without origins. A browser may keep the answer to a preflight for `max_age`.
    pub fn of(origins: Vec<Origin>, max_age: Duration) -> Option<Self> {
        (!origins.is_empty()).then_some(Self {
            origins,
            max_age_s: max_age.as_secs(),
        })
    }

    /// Returns whether pages of this origin are let in.
    pub fn welcomes(&self, origin: &HeaderValue) -> bool {
        self.find(origin).is_some()
    }

    fn find(&self, origin: &HeaderValue) -> Option<&HeaderValue> {
        let mut all = self.origins.iter().map(Origin::header_value);
        all.find(|known| *known == origin)
    }

    /// Returns the origin as configured, if the request has exactly one and it is allowed.
    fn origin_of(&self, headers: &HeaderMap) -> Option<&HeaderValue> {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let origin = values.next()?;
        match values.next() {
            Some(_) => None,
            None => self.find(origin),
        }
    }

    /// Returns the answer to a preflight for a path that answers `methods`. `None` if the request
    /// is no preflight or comes from another origin. [`share_answers`] adds the origin.
    pub fn preflight(&self, head: &Parts, methods: &'static str) -> Option<Answered> {
        if !is_preflight(head) {
            return None;
        }
        self.origin_of(&head.headers)?;
        let mut answer = Response::new(AnswerBody::empty());
        *answer.status_mut() = StatusCode::NO_CONTENT;
        let headers = answer.headers_mut();
        headers.insert(header::VARY, PREFLIGHT_VARY);
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static(methods),
        );
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, REQUEST_HEADERS);
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from(self.max_age_s),
        );
        if head.headers.contains_key(ASKS_PRIVATE) {
            headers.insert(ALLOWS_PRIVATE, HeaderValue::from_static("true"));
        }
        Some(answer)
    }
}

/// Returns whether the request is a preflight: a browser asks what a page may send.
pub fn is_preflight(head: &Parts) -> bool {
    let asked = header::ACCESS_CONTROL_REQUEST_METHOD;
    head.method == Method::OPTIONS
        && head.headers.contains_key(asked)
        && head.headers.contains_key(header::ORIGIN)
}

/// Lets pages of the chosen origins read every answer, refusals included. Without any origin the
/// stack below is unchanged and costs nothing more.
pub fn share_answers(
    cross_origin: Option<Arc<CrossOrigin>>,
) -> impl Layer<DynStack, Service = DynStack> {
    layer_fn(move |inner: DynStack| match &cross_origin {
        None => inner,
        Some(cross_origin) => Box::new(ShareDynStack {
            inner,
            cross_origin: cross_origin.clone(),
        }),
    })
}

struct ShareDynStack {
    inner: DynStack,
    cross_origin: Arc<CrossOrigin>,
}

impl Service<Arrival> for ShareDynStack {
    type Response = Answered;
    type Error = Infallible;
    type Future = Boxed<Result<Answered, Infallible>>;

    fn call(&self, arrival: Arrival) -> Self::Future {
        let origin = self.cross_origin.origin_of(arrival.request.headers());
        Box::pin(Sharing {
            origin: origin.cloned(),
            inner: self.inner.call(arrival),
        })
    }
}

struct Sharing {
    inner: Boxed<Result<Answered, Infallible>>,
    origin: Option<HeaderValue>,
}

impl Future for Sharing {
    type Output = Result<Answered, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Ok(mut answer) = ready!(self.inner.as_mut().poll(cx));
        let headers = answer.headers_mut();
        // `Vary` is also set if nothing is allowed. Otherwise a cache in between could give one
        // origin's answer to another.
        let told = headers
            .get_all(header::VARY)
            .iter()
            .any(|v| v == PREFLIGHT_VARY);
        if !told {
            headers.append(header::VARY, ORIGIN);
        }
        if let Some(origin) = self.origin.take() {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, ANSWER_HEADERS);
        }
        Poll::Ready(Ok(answer))
    }
}
