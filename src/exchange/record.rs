//! What is known of a request so far, for metrics, the access log and the answer.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, OnceLock};

use http::{HeaderName, HeaderValue, Method, Uri};

use super::call::Peer;
use super::mentions::{Mention, Mentions};
use crate::access::Caller;
use crate::admission::Payer;
use crate::clock::{Duration, Instant};
use crate::domain::{CacheOutcome, Route};
use crate::telemetry::{AccessEntry, LogSink, logged_path};

/// Names one request: 128 random bits in hex. Always our own, never the caller's, so that it is
/// unique and harmless in every log.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct RequestId([u8; 32]);

impl RequestId {
    /// A fresh one. Not secret, so a fast generator is right.
    pub fn fresh() -> Self {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let digit = |four: u8| HEX.get(usize::from(four)).copied().unwrap_or(b'0');
        let mut out = [b'0'; 32];
        let bytes = fastrand::u128(..).to_ne_bytes();
        for (pair, byte) in out.chunks_exact_mut(2).zip(bytes) {
            pair.copy_from_slice(&[digit(byte >> 4), digit(byte & 0xf)]);
        }
        Self(out)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Hex digits are ASCII.
        std::str::from_utf8(&self.0).unwrap_or("")
    }

    /// The value of `X-Request-Id`.
    pub fn header_value(&self) -> HeaderValue {
        HeaderValue::from_bytes(&self.0).unwrap_or(HeaderValue::from_static(""))
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Carries a [`RequestId`].
pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is known of a request so far. Filled by the layers as they learn it, read by whoever sees
/// the request end, however it ends.
#[derive(Debug)]
pub struct Record {
    /// Its name.
    pub id: RequestId,
    /// When its head was complete.
    pub arrived: Instant,
    /// When its answer is due.
    pub deadline: Instant,
    /// As sent.
    pub method: Method,
    /// As sent. Only its path is ever logged.
    pub target: Uri,
    /// Which headers it has.
    pub mentions: Mentions,
    /// Who is connected.
    pub peer: Peer,
    /// To be sent to vendors.
    pub trace: Option<HeaderValue>,
    route: OnceLock<(Route, Option<&'static str>)>,
    payer: OnceLock<(Arc<Caller>, Arc<Payer>)>,
    cache: OnceLock<CacheOutcome>,
    code: OnceLock<&'static str>,
}

impl Record {
    /// A record of a request of which only the head is known.
    pub fn new(
        head: &http::request::Parts,
        peer: Peer,
        arrived: Instant,
        deadline: Instant,
    ) -> Arc<Self> {
        let mentions = Mentions::of(&head.headers);
        let traced = mentions.has(Mention::Traceparent);
        Arc::new(Self {
            id: RequestId::fresh(),
            arrived,
            deadline,
            method: head.method.clone(),
            target: head.uri.clone(),
            mentions,
            peer,
            trace: traced
                .then(|| super::trace::continued(&head.headers))
                .flatten(),
            route: OnceLock::new(),
            payer: OnceLock::new(),
            cache: OnceLock::new(),
            code: OnceLock::new(),
        })
    }

    /// Notes the route, and its path where that is always the same; the first word stands.
    pub fn set_route(&self, route: Route, fixed: Option<&'static str>) {
        let _ = self.route.set((route, fixed));
    }

    /// The route, `Other` while unknown.
    pub fn route(&self) -> Route {
        self.route.get().map_or(Route::Other, |(route, _)| *route)
    }

    /// The path as the log tells it.
    fn logged_path(&self) -> Cow<'static, str> {
        match self.route.get() {
            Some((_, Some(fixed))) => Cow::Borrowed(*fixed),
            _ => Cow::Owned(logged_path(&self.target)),
        }
    }

    /// Notes who asks and who pays.
    pub fn set_caller(&self, caller: Arc<Caller>, payer: Arc<Payer>) {
        let _ = self.payer.set((caller, payer));
    }

    /// Who asks, once authenticated.
    pub fn caller(&self) -> Option<&Arc<Caller>> {
        self.payer.get().map(|(caller, _)| caller)
    }

    /// Notes how the cache answered.
    pub fn set_cache(&self, outcome: CacheOutcome) {
        let _ = self.cache.set(outcome);
    }

    /// How the cache answered, if it was asked.
    pub fn cache(&self) -> Option<CacheOutcome> {
        self.cache.get().copied()
    }

    /// Notes the code of the problem that is the answer.
    pub fn set_code(&self, code: &'static str) {
        let _ = self.code.set(code);
    }

    /// Vendor requests made for it so far.
    pub fn vendor_calls(&self) -> u32 {
        self.payer.get().map_or(0, |(_, payer)| payer.calls())
    }
}

/// Sees a request's very end: it stands in the answer's body and writes the access log's line when
/// that is dropped.
#[derive(Debug)]
pub struct Tail {
    log: LogSink,
    record: Arc<Record>,
    status: u16,
    took: Duration,
    pub(super) sent_bytes: u64,
    pub(super) whole: bool,
}

impl Tail {
    /// For an answer whose head went out `took` after the request's.
    pub fn new(log: LogSink, record: Arc<Record>, status: u16, took: Duration) -> Self {
        Self {
            log,
            record,
            status,
            took,
            sent_bytes: 0,
            whole: false,
        }
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let record = &self.record;
        self.log.write(|| AccessEntry {
            request_id: record.id.0,
            peer: record.peer.address,
            caller: record.caller().map(|caller| caller.name.clone()),
            route: record.route(),
            method: record.method.clone(),
            path: record.logged_path(),
            status: self.status,
            code: record.code.get().copied(),
            cache: record.cache(),
            took: self.took,
            vendor_calls: record.vendor_calls(),
            sent_bytes: self.sent_bytes,
            // HEAD has no body to cut.
            whole: self.whole || record.method == Method::HEAD,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_hex_and_differ() {
        let (one, two) = (RequestId::fresh(), RequestId::fresh());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 32);
        assert!(one.as_str().bytes().all(|b| b.is_ascii_hexdigit()));
        assert_eq!(one.header_value(), one.as_str());
    }
}
