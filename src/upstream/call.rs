//! A vendor request and its complete answer, as they pass through the outbound stack.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::UpstreamError;
use crate::admission::Spend;
use crate::domain::Operation;
use crate::traces::SpanId;

/// A request to a vendor, built from typed values only. No byte of it was copied from a caller's
/// request.
#[derive(Clone, Debug)]
pub struct VendorCall {
    /// The operation.
    pub operation: Operation,
    /// GET or POST.
    pub method: Method,
    /// Appended to the vendor's base URL; begins with `/`.
    pub path_and_query: String,
    /// JSON, or empty.
    pub body: Bytes,
    /// The lane, the deadline and the payer.
    pub spend: Spend,
    /// The connections that may carry it.
    pub over: Over,
    /// The number of earlier attempts.
    pub resends: u16,
    /// The span of this attempt, if the request is sampled.
    pub span: Option<SpanId>,
}

/// Which connection may carry a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// A kept connection or a new one.
    Any,
    /// A new connection, because a kept one was stale.
    New,
}

/// A vendor's complete answer with a 2xx status: the body was read to its end, within the size
/// limit, and has no content coding and no byte order mark any more.
#[derive(Clone, Debug)]
pub struct VendorAnswer {
    /// The vendor's status.
    pub status: StatusCode,
    /// The vendor's headers, unchanged. Callers never see them.
    pub headers: HeaderMap,
    /// The decoded body.
    pub body: Bytes,
}

/// The future of a vendor call.
pub type VendorCalling = BoxFuture<'static, Result<VendorAnswer, UpstreamError>>;

/// The outbound stack of one vendor. It is boxed here and nowhere else. Cheap to clone.
#[derive(Clone)]
pub struct VendorService(Arc<dyn Fn(VendorCall) -> VendorCalling + Send + Sync>);

impl VendorService {
    /// Creates a service that makes its calls with this function.
    pub fn new(call: impl Fn(VendorCall) -> VendorCalling + Send + Sync + 'static) -> Self {
        Self(Arc::new(call))
    }

    /// Makes a call. The future outlives the service.
    pub fn call(&self, call: VendorCall) -> VendorCalling {
        (self.0)(call)
    }
}

/// The characters that every path segment and query value may hold unescaped.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Returns a value, percent-encoded for a path segment or a query.
pub fn escaped(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, PLAIN)
}
